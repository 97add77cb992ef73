"""Packets under one header again, for libraries that lose milliseconds on the header of every file.

The best that can be had without a decoder of one's own: compare each file's header with one that is known, cut the body
out, and join the bodies as blocks of one container.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datafusion
import polars_avro
import pyarrow as pa

from pipeline.simulate.packets import container_header, varint

SYNC_BYTES = 16
BLOCK_PACKETS = 64
"""Fastest for both libraries among 1, 64 and 1000."""
BATCH_ROWS = 512
"""Fastest for polars-avro among 128, 512 and its default of 32,768."""


def resolvable(kind: Any) -> Any:
    """Return a schema with each ``name`` split from its namespace.

    arrow-avro, the reader in both libraries, does not find a type again that was declared with the namespace in its
    name, as in ``"name": "lsst.v10_0.diaSource"``.
    """
    if isinstance(kind, list):
        return [resolvable(one) for one in kind]
    if not isinstance(kind, dict):
        return kind
    out = {key: resolvable(value) if key in ("type", "items", "values") else value for key, value in kind.items()}
    if "fields" in kind:
        out["fields"] = [{**field, "type": resolvable(field["type"])} for field in kind["fields"]]
    if "." in kind.get("name", ""):
        out["namespace"], _, out["name"] = kind["name"].rpartition(".")
    return out


def reframe(files: Sequence[bytes], known: bytes, schema: dict[str, Any]) -> bytes:
    """Join single-record containers as one container.

    Parameters
    ----------
    files : sequence of bytes
        Containers of one record, codec null.
    known : bytes
        The header they share, up to the sync marker.
    schema : dict
        Written into the joint header.
    """
    sync = b"fedcba9876543210"
    start = len(known) + SYNC_BYTES + 1
    bodies = []
    for file in files:
        if not file.startswith(known) or file[start - 1] != 2:
            raise ValueError("another header, or more than one record")
        at = start
        while file[at] > 127:
            at += 1
        bodies.append(memoryview(file)[at + 1 : -SYNC_BYTES])
    pieces: list[bytes | memoryview] = [container_header(schema), sync]
    for at in range(0, len(bodies), BLOCK_PACKETS):
        block = bodies[at : at + BLOCK_PACKETS]
        pieces += [varint(len(block)), varint(sum(map(len, block))), *block, sync]
    return b"".join(pieces)


def by_polars(container: bytes) -> pa.Table:
    """Read a container with polars-avro. Views of text would be faster, but turn null text into empty text."""
    return polars_avro.read_avro(io.BytesIO(container), batch_size=BATCH_ROWS).to_arrow()


def by_datafusion(path: Path) -> pa.Table:
    """Read a container with DataFusion, which takes files only, in one partition: one core."""
    context = datafusion.SessionContext(datafusion.SessionConfig().with_target_partitions(1))
    return pa.Table.from_batches(context.read_avro(str(path)).collect())
