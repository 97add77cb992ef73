"""The one way to put Parquet on disk, and to read it back.

A part is written whole under a temporary name, synced and renamed. Its footer carries the logical content hash of each
column and what pruning needs; it holds no clock, host or path, so equal input gives equal bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.errors import PartError
from pipeline.schema import conform, content_hashes
from pipeline.store.root import sync_folder

PRUNING_ORDER = 6
_ROW_GROUP = {"raw": 2_500, "alerts": 2_500, "cutouts": 32, "provenance": 1 << 20, "science": 1 << 20}
_GZIP = b"\x1f\x8b"


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
    table = conform(table, schema, dataset=dataset)
    content = dict(content) if content is not None else content_hashes(table)
    row_group = _even(table.num_rows, _ROW_GROUP.get(dataset, 100_000))
    footer = {
        "alertmill.dataset": dataset,
        "alertmill.content": json.dumps(content, sort_keys=True, separators=(",", ":")),
    }
    if keys:
        footer["alertmill.keys"] = json.dumps(dict(keys), sort_keys=True, separators=(",", ":"))
    if "healpix_29" in table.column_names:
        footer["alertmill.cells"] = json.dumps(_cells_by_row_group(table, row_group), separators=(",", ":"))
    temporary = folder / f".{uuid.uuid4().hex}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write(table, temporary, row_group, footer)
        digest = sha256_of(temporary)
        final = name.replace("{content}", digest[:8])
        size = temporary.stat().st_size
        temporary.replace(folder / final)
        sync_folder(folder)
    except OSError as error:
        told = f"cannot write: {error.strerror or error}"
        raise PartError(told, dataset=dataset, part=name.split(".")[0], mend="mend that, then run again") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
    return FileReceipt(final, table.num_rows, size, digest, content)


def _even(rows: int, most: int) -> int:
    """Return the rows of one row group such that all are about equal: a small rest would be all footer."""
    groups = max(-(-rows // most), 1)
    return max(-(-rows // groups), 1)


def _write(table: pa.Table, path: Path, row_group: int, footer: Mapping[str, str]) -> None:
    floats, dictionaries, blobs = _encodings(table.schema)
    plain = [blob for blob in blobs if _is_gzip(table, blob)]
    zstd = [leaf for leaf in (*floats, *dictionaries, *blobs) if leaf not in plain]
    with path.open("wb") as file:
        with pq.ParquetWriter(
            file,
            table.schema,
            compression={**dict.fromkeys(zstd, "zstd"), **dict.fromkeys(plain, "none")},
            compression_level=dict.fromkeys(zstd, 1),
            use_dictionary=dictionaries or False,
            use_byte_stream_split=floats or False,
            write_statistics=[*floats, *dictionaries],
            store_schema=True,
        ) as writer:
            writer.write_table(table, row_group_size=row_group)
            writer.add_key_value_metadata(dict(footer))
        file.flush()
        os.fsync(file.fileno())


def _encodings(schema: pa.Schema) -> tuple[list[str], list[str], list[str]]:
    """Divide leaf columns: floats are byte-stream split, short text and integers dictionary-coded, blobs left plain."""
    floats: list[str] = []
    dictionaries: list[str] = []
    blobs: list[str] = []

    def walk(path: str, kind: pa.DataType) -> None:
        if pa.types.is_struct(kind):
            for child in kind:
                walk(f"{path}.{child.name}", child.type)
        elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
            walk(f"{path}.list.element", kind.value_type)
        elif pa.types.is_map(kind):
            walk(f"{path}.key_value.key", kind.key_type)
            walk(f"{path}.key_value.value", kind.item_type)
        elif pa.types.is_floating(kind):
            floats.append(path)
        elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
            blobs.append(path)
        else:
            dictionaries.append(path)

    for item in schema:
        walk(item.name, item.type)
    return floats, dictionaries, blobs


def _is_gzip(table: pa.Table, leaf: str) -> bool:
    """Whether a blob column holds stamps that the survey has compressed, told by the first: a codec gains nothing."""
    name, *inner = leaf.split(".")
    values = table.column(name)
    for child in inner:
        if not pa.types.is_struct(values.type):
            return False
        values = pc.struct_field(values, child)
    first = pc.index(pc.is_valid(values), True).as_py()
    return first >= 0 and values[first].as_py().startswith(_GZIP)


def _cells_by_row_group(table: pa.Table, row_group: int) -> list[list[int]]:
    cells = table.column("healpix_29").to_numpy() >> (2 * (29 - PRUNING_ORDER))
    return [np.unique(cells[at : at + row_group]).tolist() for at in range(0, len(cells), row_group)]


def pruning(table: pa.Table) -> dict[str, Any]:
    """Return what the ledger keeps to prune a part by: time and magnitude range, order-6 HEALPix cells.

    Parameters
    ----------
    table : pyarrow.Table
        With ``mjd``, ``diff_mag`` and ``healpix_29``.
    """
    times = pc.min_max(table.column("mjd")).as_py()
    magnitudes = pc.min_max(table.column("diff_mag")).as_py()
    cells = table.column("healpix_29").to_numpy() >> (2 * (29 - PRUNING_ORDER))
    return {
        "mjd_min": times["min"],
        "mjd_max": times["max"],
        "mag_min": magnitudes["min"],
        "mag_max": magnitudes["max"],
        "cells": np.unique(cells).tolist(),
    }


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
