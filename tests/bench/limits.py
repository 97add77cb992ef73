"""What the machine can do at most: inflate, copy, hash, and write Parquet; measured beside what we do."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from isal import isal_zlib
from zlib_ng import zlib_ng

INFLATERS: dict[str, Any] = {"isal": isal_zlib, "zlib-ng": zlib_ng}
READ_BYTES = 1 << 20
PIECE_BYTES = 4 << 20
ZSTD_LEVEL = 1


def inflate(path: Path, library: str) -> int:
    """Inflate a gzip file of any number of members, keep nothing; return the inflated bytes."""
    inflater, given = INFLATERS[library].decompressobj(31), 0
    with path.open("rb", buffering=0) as file:
        while chunk := file.read(READ_BYTES):
            while chunk:
                given += len(inflater.decompress(chunk, PIECE_BYTES))
                chunk = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
                if inflater.eof and chunk:
                    inflater = INFLATERS[library].decompressobj(31)
    return given


def copying(nbytes: int) -> Callable[[], None]:
    """Return a call that copies so many bytes within memory that is already mapped."""
    source, target = np.ones(nbytes, np.uint8), np.zeros(nbytes, np.uint8)
    return lambda: np.copyto(target, source)


def hash_all(bodies: Sequence[bytes]) -> None:
    """Digest every body by itself."""
    for body in bodies:
        hashlib.sha256(body).digest()


# ----------------------------------------------------------------------------------------------------- Parquet
def shipped_settings(path: Path) -> dict[str, Any]:
    """Return the writer settings that a file was written with, as its own footer tells them."""
    metadata = pq.read_metadata(path)
    group = metadata.row_group(0)
    columns = [group.column(i) for i in range(group.num_columns)]
    codecs = {c.path_in_schema: {"UNCOMPRESSED": "none"}.get(c.compression, c.compression.lower()) for c in columns}
    coded = [c.path_in_schema for c in columns if "RLE_DICTIONARY" in c.encodings]
    split = [c.path_in_schema for c in columns if "BYTE_STREAM_SPLIT" in c.encodings]
    return {
        "compression": codecs,
        "compression_level": {name: ZSTD_LEVEL for name, codec in codecs.items() if codec == "zstd"},
        "use_dictionary": coded or False,
        "use_byte_stream_split": split or False,
        "write_statistics": [c.path_in_schema for c in columns if c.is_stats_set] or False,
        "row_group_size": group.num_rows,
    }


def plain_settings(path: Path) -> dict[str, Any]:
    """Return zstd at level 1 without dictionaries, in the same row groups."""
    rows = pq.read_metadata(path).row_group(0).num_rows
    return {"compression": "zstd", "compression_level": 1, "use_dictionary": False, "row_group_size": rows}


def write(table: pa.Table, path: Path, settings: dict[str, Any]) -> int:
    """Write a table; return the size of the file."""
    pq.write_table(table, path, store_schema=True, **settings)
    return path.stat().st_size


def writing(tables: Sequence[pa.Table], settings: Sequence[dict[str, Any]], folder: Path) -> Callable[[], None]:
    """Return a call that writes tables to files of their own; an old file's pages are freed before, not in the call."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()

    def call() -> None:
        for number, (table, one) in enumerate(zip(tables, settings, strict=True)):
            write(table, folder / f"{number}.parquet", one)

    return call


def staged(parts: Sequence[dict[str, Any]], root: Path, datasets: Sequence[str]) -> dict[str, list[Path]]:
    """Return the files that a decode task has staged, by dataset."""
    return {name: [root / part["files"][name]["path"] for part in parts if name in part["files"]] for name in datasets}
