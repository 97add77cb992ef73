"""Build a catalog from its files: HATS collection, match index and columns, complete or not there at all."""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline import cosmology, healpix
from pipeline.catalogs.hats_writing import Progress, write_collection
from pipeline.catalogs.opened import ARRAYS, COLUMNS, INDEX, LAYOUT, META, Catalog, file_sha256, open_catalog
from pipeline.catalogs.payload import BATCH, Payload, PayloadWriter
from pipeline.catalogs.readers import form_of, read_tables
from pipeline.errors import CatalogError
from pipeline.schema import ContentHash
from pipeline.xmatch import CatalogDeclaration, MatchIndex, build_classes, build_index, build_motion_classes

_UNSORTED, _REPLACED = "unsorted.arrow", "replaced"
_YOUNG_SEC = 60.0


def build(
    declaration: CatalogDeclaration,
    file: str | Path | Sequence[str | Path],
    destination: str | Path,
    *,
    covered: NDArray[np.int64] | None = None,
    snapshot_date: str | None = None,
    progress: Progress | None = None,
) -> Catalog:
    """Build a catalog and return it opened.

    Positions are held in memory (about 100 bytes a row while they are sorted); columns pass through files, a quarter of
    a million rows at a time.

    Parameters
    ----------
    declaration : CatalogDeclaration
        What the file holds.
    file : path or sequence of path
        Parquet, text, FITS, VOTable or the folder of a HATS catalog; several are appended in the order given.
    destination : path
        The folder to make; a catalog that stands there is replaced once the new one is complete.
    covered : numpy.ndarray, shape (k, 2), optional
        Range set of the sky that the file holds; default the whole sky. With it a catalog may be empty.
    snapshot_date : str, optional
        ``YYYY-MM-DD``: the day on which the source was asked.
    progress : callable, optional
        Told what is done (``read``, ``columns``, ``tiles``, ``sums``), how much, and of how much (0: not known).

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
    _check_day(snapshot_date)
    for item in files:
        form_of(item)
    region = healpix.ALL_SKY if covered is None else healpix.merge_ranges(covered)
    tell = progress or _silent
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _workplace(target) as at:
            folder = at / target.name
            (folder / INDEX).mkdir(parents=True)
            read = _read(declaration, files, at / _UNSORTED, tell)
            if not len(read.index) and (read.rows or covered is None):
                raise CatalogError(f"none of {read.rows} rows has a position", source=str(files[0]))
            sources = _sources(files, declaration)
            payload, hashes = _write_columns(folder / INDEX / COLUMNS, at / _UNSORTED, read, tell)
            facts = {
                "layout": LAYOUT,
                "digest": _digest(declaration, read, region, hashes),
                "rows": len(read.index),
                "rows_without_position": read.rows - len(read.index),
                "order": read.index.order,
                "covered_deg2": round(healpix.ranges_area_deg2(region), 6),
                "snapshot_date": snapshot_date,
                "declaration": declaration.to_dict(),
                "sources": sources,
                "classes": _write_index(folder / INDEX, declaration, read, region, payload),
            }
            write_collection(folder, declaration, read.index, payload, tell)
            _write_meta(folder, facts, tell)
            _publish(folder, target, at / _REPLACED)
    except OSError as error:
        raise CatalogError(f"catalog {target} cannot be written: {error}") from error
    return open_catalog(target)


@dataclass(frozen=True, eq=False)
class _Read:
    """What was read: the index, the row of the files of each of its rows, motion in its order, rows in the files."""

    index: MatchIndex
    order: NDArray[np.int64]
    motion: dict[str, NDArray[np.float64]]
    rows: int


@contextlib.contextmanager
def _workplace(target: Path) -> Iterator[Path]:
    """Give a folder to build in, locked while it is in use; what killed builds of this catalog left is taken away."""
    prefix = f".{target.name}.building-"
    _clear(target, prefix)
    with (
        tempfile.TemporaryDirectory(prefix=prefix, dir=target.parent, ignore_cleanup_errors=True) as at,
        _locked(Path(at)),
    ):
        yield Path(at)


def _clear(target: Path, prefix: str) -> None:
    for left in target.parent.glob(f"{prefix}*"):
        with _locked(left) as is_mine:
            # A build locks its folder as soon as it has made it, but not in the same instant.
            if is_mine and time.time() - left.stat().st_mtime > _YOUNG_SEC:
                if not target.exists() and (left / _REPLACED).is_dir():  # killed between the two renames
                    (left / _REPLACED).rename(target)
                shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Lock a folder for as long as this process lives at most; give whether it could be."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:  # another build's, or a file system without locks
            yield False
        else:
            yield True
    finally:
        os.close(handle)


def _silent(what: str, done: int, of: int) -> None:
    """Tell nobody."""


def _check_day(day: str | None) -> None:
    try:
        if day is not None and datetime.date.fromisoformat(day).isoformat() != day:
            raise ValueError(f"{day} is not written YYYY-MM-DD")
    except ValueError as error:
        raise CatalogError(f"snapshot date {day!r} is no day: {error}", mend="write it YYYY-MM-DD") from error


def _read(declaration: CatalogDeclaration, files: Sequence[Path], unsorted: Path, tell: Progress) -> _Read:
    """Read the files: positions into memory, columns into a file as they come."""
    schema = pa.schema([(item.name, item.arrow_type) for item in declaration.columns])
    names = ["ra", "dec", *(("pmra", "pmdec") if declaration.motion else ())]
    pieces: dict[str, list[NDArray[np.float64]]] = {name: [np.empty(0)] for name in names}
    rows = 0
    with PayloadWriter(unsorted, schema) as writer:
        for item in files:
            for table in read_tables(item, declaration):
                for name in names:
                    pieces[name].append(np.asarray(table.column(name).to_numpy(), dtype=np.float64))
                if schema.names:
                    writer.write(table.select([f"column {name}" for name in schema.names]).rename_columns(schema.names))
                rows += len(table)
                tell("read", rows, 0)
    columns = {name: np.concatenate(pieces.pop(name)) for name in names}
    index, order = build_index(columns.pop("ra"), columns.pop("dec"))
    return _Read(index, order, {name: values[order] for name, values in columns.items()}, rows)


def _sources(files: Iterable[Path], declaration: CatalogDeclaration) -> list[dict[str, Any]]:
    """Return name, size and sha256 of what was read; that of a folder is over its files' names and sums."""
    sources: list[dict[str, Any]] = []
    for item in files:
        if item.is_dir():
            parts = sorted(part for part in item.rglob("*") if part.is_file())
            listing = "".join(f"{part.relative_to(item).as_posix()} {file_sha256(part)}\n" for part in parts)
            size, total = sum(part.stat().st_size for part in parts), hashlib.sha256(listing.encode()).hexdigest()
        else:
            size, total = item.stat().st_size, file_sha256(item)
        sources.append({"name": item.name, "bytes": size, "sha256": total})
    if declaration.checksum and declaration.checksum not in [source["sha256"] for source in sources]:
        raise CatalogError(
            f"catalog file has sha256 {sources[0]['sha256']}, declared {declaration.checksum}",
            source=sources[0]["name"],
        )
    return sources


def _write_columns(file: Path, unsorted: Path, read: _Read, tell: Progress) -> tuple[Payload, dict[str, str]]:
    """Write the columns in the order of the index; return them with their content hashes."""
    source = Payload(unsorted)
    names = source.schema.names
    hashes = {field.name: ContentHash(field.type) for field in source.schema}
    with PayloadWriter(file, source.schema) as writer:
        for start in range(0, len(read.order) if names else 0, BATCH):
            tell("columns", start, len(read.order))
            table = source.take(read.order[start : start + BATCH], names)
            for name in names:
                hashes[name].update(table.column(name))
            writer.write(table)
    return Payload(file), {name: item.hexdigest() for name, item in hashes.items()}


def _digest(declaration: CatalogDeclaration, read: _Read, covered: NDArray[np.int64], hashes: dict[str, str]) -> str:
    """Return the sha256 of everything that decides what an alert gets from the catalog."""
    digest = hashlib.sha256(f"{declaration.name} {declaration.epoch!r} {declaration.radius_arcsec!r}\n".encode())
    digest.update(f"{declaration.motion!r} {declaration.host!r}\n".encode())
    arrays = [read.index.healpix_29, read.index.ra, read.index.dec, *read.motion.values(), covered]
    for array in arrays:
        digest.update(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).data)
    for name, item in hashes.items():
        digest.update(f"{name}:{item}\n".encode())
    return digest.hexdigest()


def _write_index(
    folder: Path, declaration: CatalogDeclaration, read: _Read, covered: NDArray[np.int64], payload: Payload
) -> dict[str, list[str]]:
    """Write positions and classes as arrays; return the names of the arrays of each kind of classes."""
    index = read.index
    values = dict(zip(ARRAYS, (index.healpix_29, index.ra, index.dec, index.offsets, covered), strict=True))
    classes = {}
    if declaration.motion:
        values |= read.motion
        classes["motion"] = build_motion_classes(index, read.motion["pmra"], read.motion["pmdec"]).arrays()
    if declaration.host:
        classes["host"] = build_classes(index, _host_reach(declaration, payload)).arrays()
    for kind, arrays in classes.items():
        values |= {f"{kind}_{name}": array for name, array in arrays.items()}
    for name, array in values.items():
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    return {kind: list(arrays) for kind, arrays in classes.items()}


def _host_reach(declaration: CatalogDeclaration, payload: Payload) -> NDArray[np.float64]:
    """Return how far on the sky a host is looked for around each galaxy, arcsec; NaN where its distance is unknown."""
    host = declaration.host
    if host is None or not payload.rows:
        return np.empty(0)
    named = {
        key: getattr(host, key)
        for key in ("distance_mpc", "distance_err_mpc", "angular_distance_mpc", "redshift")
        if getattr(host, key) is not None
    }
    table = pa.concat_tables(payload.slices(0, payload.rows)).select(list(dict.fromkeys(named.values())))
    given = {key: np.asarray(table.column(name).to_numpy(), dtype=np.float64) for key, name in named.items()}
    return cosmology.reach_arcsec(host.radius_kpc, cosmology.galaxy_distances(**given).angular_mpc)


def _write_meta(folder: Path, facts: dict[str, Any], tell: Progress) -> None:
    written = sorted(item for item in folder.rglob("*") if item.is_file())
    files = {}
    for done, item in enumerate(written):
        tell("sums", done, len(written))
        files[item.relative_to(folder).as_posix()] = {"bytes": item.stat().st_size, "sha256": file_sha256(item)}
    text = json.dumps({**facts, "files": files}, indent=1, sort_keys=True, ensure_ascii=False)
    (folder / META).write_text(text + "\n", encoding="utf-8")


def _publish(folder: Path, target: Path, replaced: Path) -> None:
    """Put the finished folder into place, and take away the one that stood there."""
    for item in folder.rglob("*"):
        _sync(item)
    if target.exists():
        target.rename(replaced)
    folder.rename(target)
    _sync(target.parent)
    shutil.rmtree(replaced, ignore_errors=True)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
