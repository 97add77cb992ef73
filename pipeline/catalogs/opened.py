"""A built catalog, opened: memory-mapped match index, classes of sources and columns by row."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.catalogs.payload import Payload
from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogDeclaration, MatchIndex, SourceClasses, parse_declaration

LAYOUT = 2
META = "meta.json"
INDEX = "index"
COLUMNS = "columns.arrow"
ARRAYS = {"healpix_29": np.int64, "ra": np.float64, "dec": np.float64, "offsets": np.int64, "covered": np.int64}
MOTION = {"pmra": np.float64, "pmdec": np.float64}
KINDS = ("motion", "host")


def open_catalog(path: str | Path) -> Catalog:
    """Open a built catalog.

    The sizes of its index are compared with what was recorded when it was built; :meth:`Catalog.verify` compares every
    byte of every file.

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
        stamp = _stamp(file)
        meta = json.loads(file.read_text(encoding="utf-8"))
        layout = meta["layout"]
        if layout == LAYOUT:
            return Catalog(folder.absolute(), meta, stamp)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CatalogError(f"catalog {folder} is damaged: {META}: {error}", mend="build it again") from error
    raise CatalogError(f"catalog {folder} has layout {layout}, this version reads {LAYOUT}", mend="build it again")


class Catalog:
    """A built catalog. It pickles by its path: what travels between processes is a few bytes.

    Attributes
    ----------
    path : Path
        Its folder, which is a HATS collection too.
    name, digest : str
        Name; sha256 of what decides a match (positions, motion, hosts, coverage, columns, epoch, radius), however files
        were written.
    declaration : CatalogDeclaration
        The declaration it was built by.
    rows, rows_without_position : int
        Sources in it; rows of its file left out because they have no position.
    snapshot_date : str or None
        Day (``YYYY-MM-DD``) on which the source was asked, where that was told.
    """

    def __init__(self, path: Path, meta: dict[str, Any], stamp: tuple[int, ...]) -> None:
        self.path = path
        self._stamp = stamp
        self.meta = meta
        self.declaration: CatalogDeclaration = parse_declaration(meta["declaration"], str(path / META))
        self.name = self.declaration.name
        self.digest: str = meta["digest"]
        self.rows: int = meta["rows"]
        self.rows_without_position: int = meta["rows_without_position"]
        self.snapshot_date: str | None = meta["snapshot_date"]
        self._order: int = meta["order"]
        self._kept_classes: dict[str, SourceClasses | None] = {}
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

    @property
    def proper_motion(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """``pmra`` (times cos dec) and ``pmdec`` of every row, mas/yr, NaN where unknown; memory-mapped.

        Raises
        ------
        CatalogError
            The catalog declares no proper motion.
        """
        if self.declaration.motion is None:
            raise CatalogError(f"catalog {self.path} declares no proper motion", mend="add [motion] and build it again")
        return self._array("pmra"), self._array("pmdec")

    def classes(self, kind: str) -> SourceClasses | None:
        """Return the sources by class of reach, memory-mapped.

        Parameters
        ----------
        kind : str
            ``motion`` (how far fast sources move in a century) or ``host`` (the radius in kpc at each galaxy).

        Returns
        -------
        SourceClasses or None
            None where the catalog declares no such thing.

        Raises
        ------
        CatalogError
            A file is damaged.
        """
        if kind not in KINDS:
            raise ValueError(f"{kind} is not one of {', '.join(KINDS)}")
        if kind not in self._kept_classes:
            names = self.meta["classes"].get(kind)
            self._kept_classes[kind] = None if names is None else self._load_classes(kind, names)
        return self._kept_classes[kind]

    def take(self, rows: NDArray[np.int64], names: Sequence[str]) -> pa.Table:
        """Return columns of some rows, reading only the pages that hold them.

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
        IndexError
            A row is not in the catalog.
        """
        known = {item.name: item.arrow_type for item in self.declaration.columns}
        missing = [name for name in names if name not in known]
        if missing:
            raise CatalogError(f"catalog {self.path} has no column {', '.join(missing)}", mend="build it again")
        schema = pa.schema([(name, known[name]) for name in names])
        if not len(rows) or not names:
            return schema.empty_table()
        return pa.table(self.payload.take(rows, names).columns, schema=schema)

    @cached_property
    def payload(self) -> Payload:
        """All columns in the order of the index, memory-mapped."""
        try:
            payload = Payload(self.path / INDEX / COLUMNS)
            if payload.rows != (self.rows if self.declaration.columns else 0):
                raise ValueError(f"{payload.rows} rows instead of {self.rows}")
            expected = {item.name: item.arrow_type for item in self.declaration.columns}
            if {field.name: field.type for field in payload.schema} != expected:
                raise ValueError("columns are not those declared")
        except (OSError, ValueError, pa.ArrowException) as error:
            raise CatalogError(f"catalog {self.path} is damaged: {COLUMNS}: {error}", mend="build it again") from error
        finally:
            self._check_same()
        return payload

    def verify(self) -> None:
        """Compare every byte with the sums recorded at the build; raise CatalogError where one differs."""
        for name, recorded in self.meta["files"].items():
            file = self.path / name
            if not file.is_file():
                raise CatalogError(f"catalog {self.path} is damaged: {name} is missing", mend="build it again")
            if file_sha256(file) != recorded["sha256"]:
                raise CatalogError(f"catalog {self.path} is damaged: {name} differs", mend="build it again")

    def _check_sizes(self) -> None:
        """Look at the files that matches are made of; those of the HATS tables may be hundreds."""
        arrays = [*ARRAYS, *(MOTION if self.declaration.motion else ())]
        arrays += [f"{kind}_{name}" for kind in KINDS for name in self.meta["classes"].get(kind, ())]
        needed = {f"{INDEX}/{COLUMNS}", *(f"{INDEX}/{name}.npy" for name in arrays)}
        is_inside = all(".." not in Path(name).parts and not Path(name).is_absolute() for name in self.meta["files"])
        if {name for name in self.meta["files"] if name.startswith(f"{INDEX}/")} != needed or not is_inside:
            raise CatalogError(f"catalog {self.path} is damaged: {META} names other files", mend="build it again")
        for name in sorted(needed):
            file, recorded = self.path / name, self.meta["files"][name]
            size = file.stat().st_size if file.is_file() else None
            if size != recorded["bytes"]:
                what = "is missing" if size is None else f"has {size} bytes instead of {recorded['bytes']}"
                raise CatalogError(f"catalog {self.path} is damaged: {name} {what}", mend="build it again")

    def _load_classes(self, kind: str, names: Sequence[str]) -> SourceClasses:
        try:
            return SourceClasses.from_arrays({name: self._load(f"{kind}_{name}") for name in names})
        except (ValueError, IndexError) as error:
            raise CatalogError(f"catalog {self.path} is damaged: {error}", mend="build it again") from error

    def _array(self, name: str) -> NDArray[Any]:
        array = self._load(name)
        expected = {"offsets": (12 << (2 * self._order)) + 1, "covered": len(array)}.get(name, self.rows)
        if array.dtype != {**ARRAYS, **MOTION}[name] or len(array) != expected:
            raise CatalogError(f"catalog {self.path} is damaged: {name}.npy has another shape", mend="build it again")
        return array

    def _load(self, name: str) -> NDArray[Any]:
        file = self.path / INDEX / f"{name}.npy"
        try:
            return np.load(file, mmap_mode="r", allow_pickle=False).view(np.ndarray)
        except (OSError, ValueError) as error:
            raise CatalogError(
                f"catalog {self.path} is damaged: {file.name}: {error}", mend="build it again"
            ) from error
        finally:
            self._check_same()

    def _check_same(self) -> None:
        """Raise CatalogError where another catalog stands there by now: its files are not those of this digest."""
        try:
            is_same = _stamp(self.path / META) == self._stamp
        except OSError:
            is_same = False
        if not is_same:
            raise CatalogError(f"catalog {self.path} was replaced while it was in use", mend="run again")


def _stamp(file: Path) -> tuple[int, ...]:
    """Return what tells a file from one that took its place."""
    told = file.stat()
    return told.st_dev, told.st_ino, told.st_mtime_ns


def file_sha256(file: Path) -> str:
    """Return the sha256 of a file, hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
