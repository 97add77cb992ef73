"""Build a catalog from its file: rows sorted by cell, match index and columns, complete or not there at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.catalogs.opened import ARRAYS, COLUMNS, LAYOUT, META, ROW_GROUP, Catalog, file_sha256, open_catalog
from pipeline.catalogs.readers import read_table
from pipeline.errors import CatalogError
from pipeline.schema import content_hash
from pipeline.xmatch import CatalogDeclaration, MatchIndex, build_index


def build(
    declaration: CatalogDeclaration,
    file: str | Path | Sequence[str | Path],
    destination: str | Path,
    *,
    covered: NDArray[np.int64] | None = None,
) -> Catalog:
    """Build a catalog and return it opened.

    Parameters
    ----------
    declaration : CatalogDeclaration
        What the file holds.
    file : path or sequence of path
        Parquet, text, FITS or VOTable; several are appended in the order given.
    destination : path
        The folder to make; a catalog that stands there is replaced once the new one is complete.
    covered : numpy.ndarray, shape (k, 2), optional
        Range set of the sky that the file holds; default the whole sky.

    Raises
    ------
    CatalogError
        A file is absent, damaged, lacks a column, holds what a declared type cannot or has another checksum; no row has
        a position; or the destination cannot be written or is something else than a catalog.
    """
    files = [Path(item) for item in ([file] if isinstance(file, (str, Path)) else file)]
    target = Path(destination).absolute()
    if target.exists() and not (target / META).is_file():
        raise CatalogError(f"{target} exists and is not a catalog", mend="choose another destination")
    if not files:
        raise CatalogError(f"no file was given to build catalog {declaration.name} from")
    table = pa.concat_tables([read_table(item, declaration) for item in files])
    sources = [{"name": item.name, "bytes": item.stat().st_size, "sha256": file_sha256(item)} for item in files]
    if declaration.checksum and declaration.checksum not in [source["sha256"] for source in sources]:
        raise CatalogError(
            f"catalog file has sha256 {sources[0]['sha256']}, declared {declaration.checksum}", source=str(files[0])
        )
    index, rows = build_index(_degrees(table, "ra"), _degrees(table, "dec"))
    if not len(rows):
        raise CatalogError(f"none of {len(table)} rows has a position", source=str(files[0]))
    names = [item.name for item in declaration.columns]
    columns = table.select([f"column {name}" for name in names]).rename_columns(names).take(pa.array(rows))
    region = healpix.ALL_SKY if covered is None else healpix.merge_ranges(covered)
    facts = {
        "layout": LAYOUT,
        "digest": _digest(declaration, index, region, columns),
        "rows": len(rows),
        "rows_without_position": len(table) - len(rows),
        "order": index.order,
        "covered_deg2": round(healpix.ranges_area_deg2(region), 6),
        "declaration": declaration.to_dict(),
        "sources": sources,
    }
    try:
        _publish(target, index, region, columns, facts)
    except OSError as error:
        raise CatalogError(f"catalog {target} cannot be written: {error}") from error
    return open_catalog(target)


def _degrees(table: pa.Table, name: str) -> NDArray[np.float64]:
    return table.column(name).to_numpy()


def _digest(declaration: CatalogDeclaration, index: MatchIndex, covered: NDArray[np.int64], columns: pa.Table) -> str:
    """Return the sha256 of everything that decides what an alert gets from the catalog."""
    digest = hashlib.sha256(f"{declaration.name} {declaration.epoch!r} {declaration.radius_arcsec!r}\n".encode())
    for array in (index.healpix_29, index.ra, index.dec, covered):
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<")).tobytes())
    for name in columns.column_names:
        digest.update(f"{name}:{content_hash(columns.column(name))}\n".encode())
    return digest.hexdigest()


def _publish(
    target: Path, index: MatchIndex, covered: NDArray[np.int64], columns: pa.Table, facts: dict[str, object]
) -> None:
    """Write everything into a temporary folder beside the target, then rename it into place."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent, ignore_cleanup_errors=True) as made:
        folder = Path(made) / target.name
        folder.mkdir()
        arrays = dict(zip(ARRAYS, (index.healpix_29, index.ra, index.dec, index.offsets, covered), strict=True))
        for name, array in arrays.items():
            np.save(folder / f"{name}.npy", array, allow_pickle=False)
        pq.write_table(columns, folder / COLUMNS, row_group_size=ROW_GROUP, compression="zstd")
        written = sorted(folder.iterdir())
        files = {item.name: {"bytes": item.stat().st_size, "sha256": file_sha256(item)} for item in written}
        text = json.dumps({**facts, "files": files}, indent=1, sort_keys=True, ensure_ascii=False)
        (folder / META).write_text(text + "\n", encoding="utf-8")
        for item in folder.iterdir():
            _sync(item)
        if target.exists():
            target.rename(Path(made) / "replaced")
        folder.rename(target)
        _sync(target.parent)
        shutil.rmtree(Path(made) / "replaced", ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
