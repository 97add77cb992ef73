"""A built catalog, opened: memory-mapped match index and columns by row."""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogDeclaration, MatchIndex, parse_declaration

LAYOUT = 1
META = "meta.json"
COLUMNS = "columns.parquet"
ARRAYS = {"healpix_29": np.int64, "ra": np.float64, "dec": np.float64, "offsets": np.int64, "covered": np.int64}
ROW_GROUP = 65_536
_GROUPS_KEPT = 64


def open_catalog(path: str | Path) -> Catalog:
    """Open a built catalog.

    Its sizes are compared with what was recorded when it was built; :meth:`Catalog.verify` compares every byte.

    Raises
    ------
    CatalogError
        It is absent, of another layout, or damaged.
    """
    folder = Path(path)
    file = folder / META
    if not file.is_file():
        raise CatalogError(f"no built catalog stands at {folder}", mend="build it with `alertmill catalogs build`")
    try:
        meta = json.loads(file.read_text(encoding="utf-8"))
        layout = meta["layout"]
        if layout == LAYOUT:
            return Catalog(folder.absolute(), meta)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CatalogError(f"catalog {folder} is damaged: {META}: {error}", mend="build it again") from error
    raise CatalogError(f"catalog {folder} has layout {layout}, this version reads {LAYOUT}", mend="build it again")


class Catalog:
    """A built catalog. It pickles by its path: what travels between processes is a few bytes.

    Attributes
    ----------
    path : Path
        Its folder.
    name, digest : str
        Name; sha256 of what decides a match (positions, coverage, columns, epoch, radius), however files were written.
    declaration : CatalogDeclaration
        The declaration it was built by.
    rows, rows_without_position : int
        Sources in it; rows of its file left out because they have no position.
    """

    def __init__(self, path: Path, meta: dict[str, Any]) -> None:
        self.path = path
        self.meta = meta
        self.declaration: CatalogDeclaration = parse_declaration(meta["declaration"], str(path / META))
        self.name = self.declaration.name
        self.digest: str = meta["digest"]
        self.rows: int = meta["rows"]
        self.rows_without_position: int = meta["rows_without_position"]
        self._order: int = meta["order"]
        self._groups: OrderedDict[int, pa.Table] = OrderedDict()
        self._check_sizes()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel as the path."""
        return open_catalog, (str(self.path),)

    def __repr__(self) -> str:
        """Return name, rows and place."""
        return f"Catalog({self.name}, {self.rows} rows, {self.path})"

    @cached_property
    def index(self) -> MatchIndex:
        """The match index, memory-mapped and shared by all processes."""
        return MatchIndex(
            self._array("healpix_29"), self._array("ra"), self._array("dec"), self._array("offsets"), self._order
        )

    @cached_property
    def covered(self) -> NDArray[np.int64]:
        """Range set of the sky that the catalog was built for, shape (k, 2)."""
        return self._array("covered")

    def take(self, rows: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
        """Return columns of some rows.

        Parameters
        ----------
        rows : numpy.ndarray of int64, shape (n,)
            Rows in any order, repeated or not.
        names : sequence of str
            Columns by our names.

        Returns
        -------
        pyarrow.Table
            ``n`` rows in the order asked for.

        Raises
        ------
        CatalogError
            The catalog was built without one of the columns, or its file is damaged.
        """
        known = {item.name: item.arrow_type for item in self.declaration.columns}
        missing = [name for name in names if name not in known]
        if missing:
            raise CatalogError(f"catalog {self.path} has no column {', '.join(missing)}", mend="build it again")
        schema = pa.schema([(name, known[name]) for name in names])
        if not len(rows) or not names:
            return schema.empty_table()
        group, within = np.divmod(np.asarray(rows, dtype=np.int64), ROW_GROUP)
        groups = np.unique(group)
        tables = [self._group(int(number)).select(list(names)) for number in groups]
        starts = np.cumsum([0, *(len(table) for table in tables)])
        return pa.concat_tables(tables).take(pa.array(starts[np.searchsorted(groups, group)] + within)).cast(schema)

    def verify(self) -> None:
        """Compare every byte with the sums recorded at the build; raise CatalogError where one differs."""
        for name, recorded in self.meta["files"].items():
            if file_sha256(self.path / name) != recorded["sha256"]:
                raise CatalogError(f"catalog {self.path} is damaged: {name} differs", mend="build it again")

    def _check_sizes(self) -> None:
        needed = {COLUMNS, *(f"{name}.npy" for name in ARRAYS)}
        if set(self.meta["files"]) != needed:
            raise CatalogError(f"catalog {self.path} is damaged: {META} names other files", mend="build it again")
        for name, recorded in self.meta["files"].items():
            file = self.path / name
            size = file.stat().st_size if file.is_file() else None
            if size != recorded["bytes"]:
                what = "is missing" if size is None else f"has {size} bytes instead of {recorded['bytes']}"
                raise CatalogError(f"catalog {self.path} is damaged: {name} {what}", mend="build it again")

    def _array(self, name: str) -> NDArray[Any]:
        file = self.path / f"{name}.npy"
        try:
            array = np.load(file, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError) as error:
            raise CatalogError(
                f"catalog {self.path} is damaged: {file.name}: {error}", mend="build it again"
            ) from error
        expected = {"offsets": (12 << (2 * self._order)) + 1, "covered": len(array)}.get(name, self.rows)
        if array.dtype != ARRAYS[name] or len(array) != expected:
            raise CatalogError(f"catalog {self.path} is damaged: {file.name} has another shape", mend="build it again")
        return array.view(np.ndarray)

    def _group(self, number: int) -> pa.Table:
        """Return one row group of the columns; the last ones used stay in memory."""
        table = self._groups.pop(number, None)
        if table is None:
            try:
                with pq.ParquetFile(self.path / COLUMNS) as opened:
                    table = opened.read_row_group(number)
            except (OSError, pa.ArrowException) as error:
                raise CatalogError(
                    f"catalog {self.path} is damaged: {COLUMNS}: {error}", mend="build it again"
                ) from error
        self._groups[number] = table
        while len(self._groups) > _GROUPS_KEPT:
            self._groups.popitem(last=False)
        return table


def file_sha256(file: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
