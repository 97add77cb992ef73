"""Answers on disk: chunk by chunk while a catalog is fetched, and what the whole of them makes.

``<catalogs>/_fetch/<name>/<YYYYMMDD>-<what was asked>/`` holds one Parquet file and one JSON file a chunk. A chunk is
there when its JSON file is; that names the cells, the rows, the query, the service and the sha256 of the Parquet file.
Nothing in either tells a clock, a host or a key, so an interrupted fetch ends in the bytes of one that was not.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from pipeline import healpix
from pipeline.catalogs.fetch.answers import DEC, RA, distinct, kept_schema
from pipeline.catalogs.fetch.service import Service
from pipeline.errors import CatalogError
from pipeline.xmatch import CatalogDeclaration

FOLDER = "_fetch"
ANSWERS = "answers.parquet"
COMPLETE = "snapshot.json"
_NAME = re.compile(r"(\d{8})-([0-9a-f]{8})")
_MICRODEG = 1e6


@dataclass(frozen=True)
class Snapshot:
    """The answers to one question on one day.

    Attributes
    ----------
    folder : Path
        Where they are kept.
    date : int
        Day on which they were given, YYYYMMDD.
    """

    folder: Path
    date: int

    def chunks(self) -> list[dict[str, Any]]:
        """Return what is told of every chunk that is there whole, in the order of their names.

        Raises
        ------
        CatalogError
            A file of a chunk is missing or damaged.
        """
        return [_read_chunk(file) for file in sorted(self.folder.glob("chunk-*.json"))]

    def covered(self, chunks: list[dict[str, Any]] | None = None) -> NDArray[np.int64]:
        """Return the range set of the cells that were answered."""
        told = self.chunks() if chunks is None else chunks
        ranges = [np.asarray(chunk["ranges"], dtype=np.int64).reshape(-1, 2) for chunk in told]
        return healpix.merge_ranges(np.concatenate([np.empty((0, 2), np.int64), *ranges]))

    def add(self, rows: pa.Table, ranges: NDArray[np.int64], facts: Mapping[str, Any]) -> None:
        """Keep one chunk: its rows, then what is told of it."""
        data = _parquet(rows)
        told = {**facts, "ranges": ranges.tolist(), "rows": len(rows), "sha256": hashlib.sha256(data).hexdigest()}
        name = hashlib.sha256(np.ascontiguousarray(ranges, dtype="<i8").tobytes()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        _write(self.folder / f"chunk-{name}.parquet", data)
        _write(self.folder / f"chunk-{name}.json", _json(told))

    def assemble(
        self, declaration: CatalogDeclaration, service: Service, chunks: list[dict[str, Any]], *, is_complete: bool
    ) -> Path:
        """Write all rows, each once and in their own order, and what is told of the whole; return the file of rows.

        The columns are named as in the catalog's own file, so that the declaration reads it.
        """
        schema = kept_schema(declaration, service)
        tables = [pq.read_table(self.folder / chunk["file"], schema=schema) for chunk in chunks]
        rows = distinct(pa.concat_tables([schema.empty_table(), *tables]))
        scale = _MICRODEG if declaration.position_format == "microdeg" else 1.0
        places = {declaration.ra: rows[RA], declaration.dec: rows[DEC]}
        columns = {name: pa.array(values.to_numpy() * scale) for name, values in places.items()}
        columns |= {name: rows[name] for name in rows.column_names if name not in (RA, DEC)}
        data = _parquet(pa.table(columns))
        _write(self.folder / ANSWERS, data)
        covered = self.covered(chunks)
        told = {
            "catalog": declaration.name,
            "date": self.date,
            "is_complete": is_complete,
            "service": service.url,
            "question": service.fingerprint(),
            "rows": len(rows),
            "covered": covered.tolist(),
            "covered_deg2": round(healpix.ranges_area_deg2(covered), 6),
            "sha256": hashlib.sha256(data).hexdigest(),
        }
        _write(self.folder / COMPLETE, _json(told))
        return self.folder / ANSWERS


def snapshot_of(catalogs: Path, declaration: CatalogDeclaration, service: Service, date: int) -> Snapshot:
    """Return the snapshot of a day, be it there or not; another question has another folder."""
    question = json.dumps(
        {"question": service.fingerprint(), "schema": str(kept_schema(declaration, service))}, sort_keys=True
    )
    key = hashlib.sha256(question.encode()).hexdigest()[:8]
    return Snapshot(catalogs / FOLDER / declaration.name / f"{date:08d}-{key}", date)


def newest_date(catalogs: Path, declaration: CatalogDeclaration, service: Service) -> int | None:
    """Return the newest day on which this very question was asked, None if it never was."""
    key = snapshot_of(catalogs, declaration, service, 0).folder.name.partition("-")[2]
    found = [_NAME.fullmatch(item.name) for item in (catalogs / FOLDER / declaration.name).glob("*-*")]
    dates = [int(match[1]) for match in found if match and match[2] == key]
    return max(dates, default=None)


def _read_chunk(file: Path) -> dict[str, Any]:
    rows = file.with_suffix(".parquet")
    try:
        told: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        data = rows.read_bytes()
        if hashlib.sha256(data).hexdigest() != told["sha256"]:
            raise ValueError(f"{rows.name} has another sha256")
        return {**told, "file": rows.name}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CatalogError(
            f"a fetched chunk is damaged: {error}", source=str(file), mend="delete both its files and fetch again"
        ) from error


def _parquet(rows: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(rows, sink, compression="zstd")
    return sink.getvalue()


def _json(values: Mapping[str, Any]) -> bytes:
    return (json.dumps(values, indent=1, sort_keys=True, ensure_ascii=False) + "\n").encode()


def _write(file: Path, data: bytes) -> None:
    """Write a file whole or not at all."""
    handle, name = tempfile.mkstemp(prefix=f".{file.name}.", dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())
        Path(name).replace(file)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
