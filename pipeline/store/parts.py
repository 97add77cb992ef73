"""The one way to put Parquet on disk, and to read it back.

A part is written as its rows come, under a temporary name, then synced and renamed. Its footer carries the logical
content hash of each column and what pruning needs; it holds no clock, host or path, so equal rows give equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import PartError
from pipeline.schema import ContentHash, conform
from pipeline.store.encodings import writer_options
from pipeline.store.root import sync_folder

PRUNING_ORDER = 6
_ROW_GROUP = {"raw": 2_500, "alerts": 2_500, "cutouts": 32, "rejects": 512, "provenance": 1 << 20, "science": 1 << 20}
_OTHER_ROW_GROUP = 100_000
_LEAST_LAST = {"raw": 1_000, "alerts": 1_000}
"""Rows kept back for the last row group: one of a few rows would be all footer."""
_READ_BYTES = 1 << 20


@dataclass(frozen=True)
class FileReceipt:
    """What was written: path relative to the root, size, and what the ledger needs to prune by.

    ``content`` maps column to logical content hash.
    """

    path: str
    rows: int
    bytes: int
    sha256: str
    content: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Return what a ledger lists of the file; the content hashes stand in the file's own footer."""
        return {"path": self.path, "rows": self.rows, "bytes": self.bytes, "sha256": self.sha256}


def write_part(
    table: pa.Table,
    schema: pa.Schema,
    folder: Path,
    name: str,
    *,
    dataset: str,
    keys: Mapping[str, str] | None = None,
    content: Mapping[str, str] | None = None,
) -> FileReceipt:
    """Write one part.

    Parameters
    ----------
    table : pyarrow.Table
        The rows; must already have the declared types.
    schema : pyarrow.Schema
        The declared schema.
    folder : pathlib.Path
        Where the file goes.
    name : str
        File name; ``{content}`` in it is replaced by the first eight digits of the file's sha256.
    dataset : str
        Dataset: chooses row groups and encodings, and stands in the footer.
    keys : mapping, optional
        Key of each column group, by group name.
    content : mapping, optional
        Content hash of each column, where the caller has them already.

    Returns
    -------
    FileReceipt
        With ``path`` the file name only; the caller knows the folder.

    Raises
    ------
    SchemaError
        The table does not have the declared schema.
    PartError
        The disk refused (full, not writable).
    """
    with PartWriter(schema, folder, name, dataset=dataset, keys=keys, content=content) as writer:
        return writer.close(table)


class PartWriter:
    """Writes one part as its rows come.

    Rows are held until a row group is full, and only that many: the file's bytes depend on the rows, not on the tables
    that they come in. Used as a context manager, it leaves nothing behind unless :meth:`close` was reached.

    Parameters
    ----------
    schema, folder, name, dataset, keys, content
        As of :func:`write_part`.

    Attributes
    ----------
    rows : int
        Rows taken so far.
    """

    def __init__(
        self,
        schema: pa.Schema,
        folder: Path,
        name: str,
        *,
        dataset: str,
        keys: Mapping[str, str] | None = None,
        content: Mapping[str, str] | None = None,
    ) -> None:
        self.rows = 0
        self._schema = schema
        self._folder = folder
        self._name = name
        self._dataset = dataset
        self._keys = dict(keys or {})
        self._content = content
        self._hashes: dict[str, ContentHash] = {}
        self._cells: list[list[int]] | None = [] if "healpix_29" in schema.names else None
        self._group = _ROW_GROUP.get(dataset, _OTHER_ROW_GROUP)
        self._spare = _LEAST_LAST.get(dataset, 0)
        self._waiting: deque[pa.RecordBatch] = deque()
        self._own = 0  # of those waiting, the first ones that are copies
        self._waiting_rows = 0
        self._file: _File | None = None

    def __enter__(self) -> PartWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.abort()

    def append(self, table: pa.Table) -> None:
        """Take the next rows; full row groups are written.

        Raises
        ------
        SchemaError
            The table does not have the declared schema.
        PartError
            The disk refused (full, not writable).
        """
        self._add(table)
        while self._own < len(self._waiting):  # what waits must not keep a whole batch in memory
            batch = self._waiting[self._own]
            self._waiting[self._own] = pa.concat_batches([batch, batch.slice(0, 0)])
            self._own += 1

    def _add(self, table: pa.Table) -> None:
        table = conform(table, self._schema, dataset=self._dataset)
        self.rows += table.num_rows
        for batch in table.to_batches():
            self._waiting.append(batch)
            self._waiting_rows += batch.num_rows
            while self._waiting_rows >= self._group + self._spare:
                self._write(self._take(self._ready()))

    def close(self, last: pa.Table | None = None) -> FileReceipt:
        """Write what is left, make the file durable and give it its name.

        Parameters
        ----------
        last : pyarrow.Table, optional
            The last rows, where they were not appended.

        Returns
        -------
        FileReceipt
            With ``path`` the file name only; the caller knows the folder.

        Raises
        ------
        SchemaError, PartError
            As of :meth:`append`.
        """
        if last is not None:
            self._add(last)
        file = self._file
        if self._waiting_rows or file is None:
            file = self._write(self._take(self._waiting_rows), is_last=True)
        content = {**(self._content or {}), **{name: made.hexdigest() for name, made in self._hashes.items()}}
        with self._told():
            digest, size = file.finish(self._footer(content))
            final = self._name.replace("{content}", digest[:8])
            file.path.replace(self._folder / final)
            sync_folder(self._folder)
        return FileReceipt(final, self.rows, size, digest, content)

    def abort(self) -> None:
        """Leave nothing of a file that was not closed; after :meth:`close` it does nothing."""
        if self._file is not None:
            self._file.discard()
        self._waiting.clear()

    def _ready(self) -> int:
        """Return how many rows to write in one go: a row group, or as many as lie in one piece."""
        in_one = len(self._waiting[0]) - self._spare
        return max(in_one // self._group, 1) * self._group

    def _take(self, rows: int) -> pa.Table:
        """Return the next rows, each column in one piece."""
        taken: list[pa.RecordBatch] = []
        self._waiting_rows -= rows
        while rows:
            batch = self._waiting.popleft()
            if len(batch) > rows:
                self._waiting.appendleft(batch.slice(rows))
                batch = batch.slice(0, rows)
            elif self._own:
                self._own -= 1
            taken.append(batch)
            rows -= len(batch)
        return pa.Table.from_batches(taken, self._schema).combine_chunks()

    def _write(self, table: pa.Table, *, is_last: bool = False) -> _File:
        group = max(table.num_rows, 1) if is_last else self._group
        with self._told():
            if self._file is None:
                self._folder.mkdir(parents=True, exist_ok=True)
                options = writer_options(table.slice(0, group))
                self._file = _File(self._folder / f".{uuid.uuid4().hex}.tmp", self._schema, options)
                hashed = self._schema if self._content is None else ()
                self._hashes = {item.name: ContentHash(item.type) for item in hashed}
            self._file.write(table, group)
        for name, made in self._hashes.items():
            made.update(table.column(name))
        if self._cells is not None:
            self._cells += _cells_by_row_group(table, group)
        return self._file

    def _footer(self, content: Mapping[str, str]) -> dict[str, str]:
        footer = {"alertmill.dataset": self._dataset, "alertmill.content": _json(content)}
        if self._keys:
            footer["alertmill.keys"] = _json(self._keys)
        if self._cells is not None:
            footer["alertmill.cells"] = _json(self._cells)
        return footer

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            why = os.strerror(error.errno) if error.errno else error
            part = self._name.split(".")[0]
            raise PartError(
                f"cannot write: {why}", dataset=self._dataset, part=part, mend="mend that, then run again"
            ) from error


class _File:
    """A new file that Arrow writes without Python's lock; what was written is hashed while it is in the cache."""

    def __init__(self, path: Path, schema: pa.Schema, options: Mapping[str, Any]) -> None:
        self.path = path
        self._buffer = memoryview(bytearray(_READ_BYTES))
        self._digest = hashlib.sha256()
        self._opened: list[Any] = []
        try:
            self._sink = self._keep(pa.OSFile(str(path), "wb"))
            self._file = self._keep(path.open("rb", buffering=0))
            self._writer = self._keep(pq.ParquetWriter(self._sink, schema, **options))
        except BaseException:
            self.discard()
            raise

    def _keep(self, opened: Any) -> Any:
        self._opened.append(opened)
        return opened

    def write(self, table: pa.Table, row_group: int) -> None:
        """Append row groups."""
        self._writer.write_table(table, row_group_size=row_group)
        self._follow()

    def _follow(self) -> None:
        while size := self._file.readinto(self._buffer):
            self._digest.update(self._buffer[:size])

    def finish(self, footer: Mapping[str, str]) -> tuple[str, int]:
        """Write the footer and make the file durable; return its sha256 and size."""
        self._writer.add_key_value_metadata(dict(footer))
        self._writer.close()
        self._sink.close()
        self._follow()
        os.fsync(self._file.fileno())
        size = self._file.tell()
        self._file.close()
        return self._digest.hexdigest(), size

    def discard(self) -> None:
        """Close and remove the file, if it still has its temporary name."""
        while self._opened:
            with contextlib.suppress(OSError):
                self._opened.pop().close()
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def _cells_by_row_group(table: pa.Table, row_group: int) -> list[list[int]]:
    cells = _cells(table)
    return [np.unique(cells[at : at + row_group]).tolist() for at in range(0, len(cells), row_group)]


def _cells(table: pa.Table) -> np.ndarray:
    return table.column("healpix_29").to_numpy() >> (2 * (29 - PRUNING_ORDER))


class Pruning:
    """What the ledger keeps to prune a part by, gathered as its rows come."""

    def __init__(self) -> None:
        self._ends: dict[str, list[float | None]] = {"mjd": [], "diff_mag": []}
        self._cells = np.zeros(0, dtype=np.int64)

    def add(self, table: pa.Table) -> None:
        """Take the next rows: a table with ``mjd``, ``diff_mag`` and ``healpix_29``."""
        for name, ends in self._ends.items():
            ends += pc.min_max(table.column(name)).as_py().values()
        self._cells = np.union1d(self._cells, _cells(table))

    def as_dict(self) -> dict[str, Any]:
        """Return time and magnitude range and the order-6 HEALPix cells."""
        times, magnitudes = (pc.min_max(pa.array(ends, pa.float64())).as_py() for ends in self._ends.values())
        return {
            "mjd_min": times["min"],
            "mjd_max": times["max"],
            "mag_min": magnitudes["min"],
            "mag_max": magnitudes["max"],
            "cells": self._cells.tolist(),
        }


def pruning(table: pa.Table) -> dict[str, Any]:
    """Return what the ledger keeps to prune a part by (see :class:`Pruning`)."""
    made = Pruning()
    made.add(table)
    return made.as_dict()


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_table(path: Path, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a part, or some of its columns, with the schema it was written with.

    Raises
    ------
    PartError
        The file is missing or damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            return file.read(columns=None if columns is None else list(columns), use_threads=False)
    except (OSError, pa.ArrowException) as error:
        raise PartError(f"cannot read {path.name}: {error}", mend="run `alertmill verify --repair`") from error
