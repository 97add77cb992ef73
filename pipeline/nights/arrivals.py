"""From a segment of a source to batches of decoded packets, whatever form the source has."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import avro
from pipeline.avro import Datum, Fault
from pipeline.dumps import Reader, SchemaResolver, Segment, Source, TableBatch, Tally, datums, tables
from pipeline.stages.accept import Arrivals
from pipeline.surveys.base import Survey

BATCH_PACKETS = 256
"""Packets decoded at once: enough to share the cost of Arrow assembly, few enough to hold as Python records."""
BATCH_BYTES = 48 << 20


@dataclass(frozen=True)
class Batch:
    """Consecutive packets of a segment.

    Attributes
    ----------
    lengths, points : numpy.ndarray
        Bytes and light-curve points of every packet, faults included, int64 (n,).
    arrivals : Arrivals
        The packets that were decoded.
    faults : list of (member, offset, body, detail)
        Those that were not.
    fault_sha256 : list of bytes
        Digest of each of those bodies.
    schemas : dict
        Writer schemas met, by id.
    """

    lengths: np.ndarray
    points: np.ndarray
    arrivals: Arrivals
    faults: list[tuple[str | None, int, bytes, str]]
    fault_sha256: list[bytes]
    schemas: dict[str, Any] = field(default_factory=dict)


def read_batches(
    segment: Segment, survey: Survey, schemas: str | None, tally: Tally, cache: str | None = None
) -> Iterator[Batch]:
    """Stream the batches of a segment in source order.

    Parameters
    ----------
    segment : Segment
        Of any kind of source.
    survey : Survey
        Whose columns the packets fill.
    schemas : str, optional
        Folder or registry address of writer schemas for wire messages.
    tally : Tally
        Filled on the way.
    cache : str, optional
        Folder that keeps what a registry answered.
    """
    if segment.source.kind == "parquet":
        yield from _from_tables(segment, survey, tally)
    else:
        yield from _from_packets(segment, survey, schemas, tally, cache)


def _from_packets(
    segment: Segment, survey: Survey, schemas: str | None, tally: Tally, cache: str | None
) -> Iterator[Batch]:
    is_url = schemas is not None and "://" in schemas
    resolver = SchemaResolver(
        survey.name, folder=None if is_url else schemas, url=schemas if is_url else None, cache=cache
    )
    first, size = 0, 0
    pending: list[tuple[str | None, Datum | Fault]] = []
    for member, item in datums(segment, Reader(resolver), tally):
        pending.append((member, item))
        size += item.length
        if len(pending) >= BATCH_PACKETS or size >= BATCH_BYTES:
            yield _decoded(pending, first, survey, segment.source)
            first, size, pending = first + len(pending), 0, []
    if pending:
        yield _decoded(pending, first, survey, segment.source)


def _decoded(items: Sequence[tuple[str | None, Datum | Fault]], first: int, survey: Survey, source: Source) -> Batch:
    places = [place for place, (_, item) in enumerate(items) if isinstance(item, Datum)]
    data = [item for _, item in items if isinstance(item, Datum)]
    is_reencoded = source.origin != "native"
    decoded = avro.decode(data, survey.superset, survey.cutout_columns, reencoded=is_reencoded, source=source.name)
    reasons = {places[index]: reason for index, reason in decoded.faults}
    faults = []
    for place, (member, item) in enumerate(items):
        if isinstance(item, Fault):
            faults.append((member, item.offset, item.body, item.reason))
        elif place in reasons:
            faults.append((member, item.offset, item.body, reasons[place]))
    kept = [places[index] for index in decoded.kept.tolist()]
    points = np.zeros(len(items), dtype=np.int64)
    points[kept] = decoded.points
    rows = [(items[place][0], items[place][1]) for place in kept]
    whole = [(member, item) for member, item in rows if isinstance(item, Datum)]
    provenance = pa.table(
        {
            "member": pa.array([member for member, _ in whole], pa.string()),
            "offset": pa.array([item.offset for _, item in whole], pa.int64()),
            "length": pa.array([item.length for _, item in whole], pa.int64()),
            "body_sha256": pa.array([hashlib.sha256(item.body).digest() for _, item in whole], pa.binary(32)),
            "writer_schema_id": pa.array([item.schema.id for _, item in whole], pa.string()),
        }
    )
    position = np.array(kept, dtype=np.int64) + first
    arrivals = Arrivals(decoded.raw, decoded.cutouts, provenance, position, [item.body for _, item in whole])
    return Batch(
        np.array([item.length for _, item in items], dtype=np.int64),
        points,
        arrivals,
        faults,
        [hashlib.sha256(fault[2]).digest() for fault in faults],
        {item.schema.id: item.schema.parsed for _, item in whole},
    )


def _from_tables(segment: Segment, survey: Survey, tally: Tally) -> Iterator[Batch]:
    """Stream rows of tables; small files are gathered, since what a batch costs hardly depends on its rows."""
    first, pending, size = 0, [], 0
    for batch in tables(segment, survey.superset, survey.cutout_columns, tally, batch_rows=BATCH_PACKETS):
        pending.append(batch)
        size += batch.decoded.raw.num_rows
        if size >= BATCH_PACKETS:
            yield _gathered(pending, first)
            first, pending, size = first + size, [], 0
    if pending:
        yield _gathered(pending, first)


def _gathered(batches: Sequence[TableBatch], first: int) -> Batch:
    raw = pa.concat_tables([batch.decoded.raw for batch in batches]).combine_chunks()
    cutouts = pa.concat_tables([batch.decoded.cutouts for batch in batches]).combine_chunks()
    provenance = pa.concat_tables([_table_provenance(batch) for batch in batches])
    position = np.arange(raw.num_rows, dtype=np.int64) + first
    lengths = []
    for batch in batches:
        rows = batch.decoded.raw.num_rows
        length = batch.decoded.raw.nbytes + batch.decoded.cutouts.nbytes
        lengths.append(np.full(rows, length // max(rows, 1), dtype=np.int64))
    points = np.concatenate([batch.decoded.points for batch in batches])
    return Batch(np.concatenate(lengths), points, Arrivals(raw, cutouts, provenance, position, None), [], [])


def _table_provenance(batch: TableBatch) -> pa.Table:
    n = batch.decoded.raw.num_rows
    return pa.table(
        {
            "member": pa.repeat(pa.scalar(batch.member, pa.string()), n),
            "offset": pa.array(np.arange(n, dtype=np.int64) + batch.first_row),
            "length": pa.array(np.zeros(n, dtype=np.int64)),
            "body_sha256": pa.array(batch.sha256, pa.binary(32)),
            "writer_schema_id": pa.repeat(pa.scalar(batch.schema_id, pa.string()), n),
        }
    )
