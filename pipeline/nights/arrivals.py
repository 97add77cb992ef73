"""From a segment of a source to batches of decoded packets, whatever form the source has."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import avro
from pipeline.avro import Frames
from pipeline.dumps import Reader, SchemaResolver, Segment, Source, Start, TableBatch, Tally, read_frames, tables
from pipeline.stages.accept import Arrivals
from pipeline.surveys.base import Survey

BATCH_PACKETS = 2048
"""Packets decoded and normalised at once: enough that what a batch costs hardly counts, few enough to hold."""
BATCH_BYTES = 64 << 20
TABLE_ROWS = 256
"""Rows of re-encoded tables taken at once."""
_LOG = logging.getLogger("alertmill")


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
    segment: Segment,
    survey: Survey,
    schemas: str | None,
    tally: Tally,
    cache: str | None = None,
    start: Start | None = None,
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
    start : Start, optional
        Where to go on in a ``tar.gz``.
    """
    if segment.source.kind == "parquet":
        yield from _from_tables(segment, survey, tally)
    else:
        yield from _from_packets(segment, survey, schemas, tally, cache, start)


def _from_packets(
    segment: Segment, survey: Survey, schemas: str | None, tally: Tally, cache: str | None, start: Start | None
) -> Iterator[Batch]:
    is_url = schemas is not None and "://" in schemas
    resolver = SchemaResolver(
        survey.name, folder=None if is_url else schemas, url=schemas if is_url else None, cache=cache
    )
    first = 0 if start is None else start.packets
    told: set[str] = set()
    limits = {"max_packets": BATCH_PACKETS, "max_bytes": BATCH_BYTES}
    for frames in read_frames(segment, Reader(resolver), tally, start=start, **limits):
        yield _decoded(frames, first, survey, segment.source, told)
        first += sum(len(frame) for frame in frames)


def _decoded(frames: Sequence[Frames], first: int, survey: Survey, source: Source, told: set[str]) -> Batch:
    decoded = avro.decode_frames(
        frames,
        survey.superset,
        survey.cutout_columns,
        reencoded=source.origin != "native",
        source=source.name,
    )
    for schema_id, reason in decoded.slow.items():
        if schema_id not in told:
            told.add(schema_id)
            _LOG.warning("%s: writer schema %s is decoded the slow way: %s", source.name, schema_id, reason)
    lengths = np.concatenate([frame.lengths() for frame in frames])
    points = np.zeros(len(lengths), dtype=np.int64)
    points[decoded.kept] = decoded.points
    bodies = Bodies(frames)
    faults = _faults(frames, bodies, dict(decoded.faults))
    provenance = _provenance(frames, bodies, decoded.kept, lengths)
    arrivals = Arrivals(decoded.raw, decoded.cutouts, provenance, decoded.kept + first, bodies.of(decoded.kept))
    hashes = [hashlib.sha256(fault[2]).digest() for fault in faults]
    schemas = {schema.id: schema.parsed for frame in frames for schema in frame.schemas}
    return Batch(lengths, points, arrivals, faults, hashes, schemas)


class Bodies(Sequence[bytes]):
    """Bodies of packets where they lie, copied only when one is asked for: while their batch is the present one.

    Parameters
    ----------
    frames : sequence of Frames
        The packets.
    places : numpy.ndarray, optional
        Which of them, int64 (n,); all, if not given.
    """

    def __init__(self, frames: Sequence[Frames], places: np.ndarray | None = None) -> None:
        self._frames = frames
        self._ends = np.cumsum([len(frame) for frame in frames])
        self._places = np.arange(self._ends[-1] if len(frames) else 0) if places is None else places

    def of(self, places: np.ndarray) -> Bodies:
        """Return these of them."""
        return Bodies(self._frames, self._places[places])

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, row: Any) -> Any:
        place = int(self._places[row])
        which = int(np.searchsorted(self._ends, place, "right"))
        frame = self._frames[which]
        return frame.body(place - int(self._ends[which]) + len(frame))


def _faults(
    frames: Sequence[Frames], bodies: Bodies, reasons: Mapping[int, str]
) -> list[tuple[str | None, int, bytes, str]]:
    """Return what could not be taken apart and what could not be decoded, in source order."""
    found: dict[int, tuple[str | None, int, bytes, str]] = {}
    base = 0
    for frame in frames:
        for place, fault in frame.faults.items():
            found[base + place] = (fault.member, fault.offset, fault.body, fault.reason)
        inside = [place - base for place in reasons if base <= place < base + len(frame)]
        for place in inside:
            member, offset = frame.member[place].as_py(), int(frame.offset[place])
            found[base + place] = (member, offset, bodies[base + place], reasons[base + place])
        base += len(frame)
    return [fault for _, fault in sorted(found.items())]


def _provenance(frames: Sequence[Frames], bodies: Bodies, kept: np.ndarray, lengths: np.ndarray) -> pa.Table:
    ids: list[str] = []
    schema = []
    for frame in frames:
        schema.append(np.where(frame.schema >= 0, frame.schema + len(ids), -1))
        ids += [writer.id for writer in frame.schemas]
    member = pa.concat_arrays([frame.member for frame in frames])
    digests = [
        hashlib.sha256(view[start:stop]).digest()
        for frame in frames
        for view in (frame.data.data,)
        for start, stop in zip(frame.start.tolist(), frame.stop.tolist(), strict=True)
    ]
    sha256 = pa.Array.from_buffers(pa.binary(32), len(digests), [None, pa.py_buffer(b"".join(digests))])
    known = pa.array(ids or [""], pa.string())  # a batch of faults alone has no schema
    whole = pa.table(
        {
            "member": member,
            "offset": np.concatenate([frame.offset for frame in frames]),
            "length": lengths,
            "body_sha256": sha256,
            "writer_schema_id": known.take(pa.array(np.maximum(np.concatenate(schema), 0))),
        }
    )
    return whole if len(kept) == len(lengths) else whole.take(pa.array(kept))


def _from_tables(segment: Segment, survey: Survey, tally: Tally) -> Iterator[Batch]:
    """Stream rows of tables; small files are gathered, since what a batch costs hardly depends on its rows."""
    first, pending, size = 0, [], 0
    for batch in tables(segment, survey.superset, survey.cutout_columns, tally, batch_rows=TABLE_ROWS):
        pending.append(batch)
        size += batch.decoded.raw.num_rows
        if size >= TABLE_ROWS:
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
