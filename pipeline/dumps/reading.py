"""Packets of a segment, taken apart, in batches."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from pipeline.avro.container import Datum, Fault
from pipeline.avro.frames import NO_SCHEMA, Frames
from pipeline.avro.schema import WriterSchema
from pipeline.dumps.containers import FileFrames
from pipeline.dumps.cutting import Segment, Start, Tally
from pipeline.dumps.framing import Reader
from pipeline.dumps.members import FolderFrames, HeldTarFrames, TarFrames
from pipeline.dumps.tar import BLOCK
from pipeline.dumps.windows import read_only
from pipeline.errors import SourceError

BATCH_PACKETS = 2048
BATCH_BYTES = 64 << 20
_WINDOWS = 8
"""Windows of one batch, at least."""
_WINDOW_BYTES = 4 << 20
"""A window, at most: what was read into it is still in the processor's cache when it is indexed."""
_MORE_WINDOWS = 2
"""Windows that a batch may touch besides: the first and the last are seldom all its own."""


def read_frames(
    segment: Segment,
    reader: Reader,
    tally: Tally | None = None,
    *,
    max_packets: int = BATCH_PACKETS,
    max_bytes: int = BATCH_BYTES,
    start: Start | None = None,
) -> Iterator[list[Frames]]:
    """Stream the packets of a segment in batches, while a thread reads ahead by about one batch.

    Parameters
    ----------
    segment : Segment
        Of any kind but ``parquet``.
    reader : Reader
        Kept by the caller over the segments of a source.
    tally : Tally, optional
        Filled on the way, by what has been read so far.
    max_packets, max_bytes : int
        Most packets of a batch, faults among them, and most bytes of their bodies (a packet that is larger is a batch
        of its own). Where batches are cut means nothing.
    start : Start, optional
        Where to go on in a ``tar.gz``; ``tally`` then has the names skipped before its mark.

    Yields
    ------
    list of Frames
        Consecutive packets in source order. The buffers are valid until the next batch is asked for.

    Raises
    ------
    SourceError
        The source is cut or damaged as a whole, or a wire message has an unknown schema id. What stands before has
        been given out.
    """
    tally = Tally() if tally is None else tally
    try:
        with _open(segment, reader, tally, max_bytes, start) as pieces:
            yield from _batches(
                pieces, max_packets, max_bytes, 0 if start is None else start.packets - start.mark.packets
            )
    except OSError as error:
        raise SourceError(f"cannot be read: {error.strerror or error}", source=segment.source.name) from None


def frames_in_tar(
    data: bytes | memoryview, reader: Reader, tally: Tally | None = None, *, name: str = "archive in memory"
) -> list[Frames]:
    """Take apart a tar archive that is in memory, without a copy of it.

    Parameters
    ----------
    data : bytes-like
        The archive, as long as the frames are used.
    reader : Reader
        Kept by the caller over archives of a source.
    tally : Tally, optional
        Filled on the way.
    name : str
        Named in errors.

    Raises
    ------
    SourceError
        The archive is cut or damaged, or a wire message has an unknown schema id.
    """
    with HeldTarFrames(data, reader, Tally() if tally is None else tally, name) as pieces:
        found = [piece for piece in pieces if piece is not None]
    return [_joined(is_own, group) for is_own, group in _groups(found)] if found else []


def _open(
    segment: Segment, reader: Reader, tally: Tally, max_bytes: int, start: Start | None
) -> TarFrames | FolderFrames | FileFrames:
    size = min(max(max_bytes // _WINDOWS, BLOCK), _WINDOW_BYTES)
    held = max_bytes // size + _MORE_WINDOWS
    if segment.source.kind in ("tar", "tar.gz"):
        return TarFrames(segment, reader, tally, size, held, start)
    if segment.source.kind == "folder":
        return FolderFrames(segment, reader, tally, size, held)
    return FileFrames(segment, reader, tally)


def datums(segment: Segment, reader: Reader, tally: Tally | None = None) -> Iterator[tuple[str | None, Datum | Fault]]:
    """Stream a segment's datums and faults one by one, each with the member it stood in: see :func:`read_frames`.

    Yields
    ------
    (member, item)
        In source order; ``member`` is None where the source is one file.
    """
    for batch in read_frames(segment, reader, tally):
        for frames in batch:
            offsets, members, schemas = frames.offset.tolist(), frames.member.to_pylist(), frames.schema.tolist()
            for place in range(len(frames)):
                if place in frames.faults:
                    yield members[place], frames.faults[place]
                else:
                    body = frames.body(place)
                    yield members[place], Datum(body, offsets[place], len(body), frames.schemas[schemas[place]])


# --------------------------------------------------------------------------------------- batches
def _batches(
    source: TarFrames | FolderFrames | FileFrames, max_packets: int, max_bytes: int, drop: int
) -> Iterator[list[Frames]]:
    """Gather and cut what a source gives into batches, without its first packets."""
    batch = _Batch(max_packets, max_bytes)
    try:
        for piece in source:
            rest = piece
            if drop and rest is not None:
                dropped = min(drop, len(rest))
                drop -= dropped
                rest = _between(rest, dropped, len(rest)) if dropped < len(rest) else None
            while rest is not None:
                rest = batch.add(rest)
                if rest is not None or batch.is_full:
                    yield batch.take()
                    source.recycle()
            if piece is None:
                if batch.rows:
                    yield batch.take()
                source.recycle()
    except Exception:
        if batch.rows:
            yield batch.take()
        raise
    if batch.rows:
        yield batch.take()
        source.recycle()


class _Batch:
    """Gathers frames until a limit is reached."""

    def __init__(self, max_packets: int, max_bytes: int) -> None:
        self._limits = max_packets, max_bytes
        self._frames: list[Frames] = []
        self.rows = self._size = 0

    @property
    def is_full(self) -> bool:
        return self.rows >= self._limits[0]

    def add(self, frames: Frames) -> Frames | None:
        """Take as many packets as fit, but at least one, and return the others, None if there are none."""
        sizes = np.cumsum(frames.lengths())
        max_packets, max_bytes = self._limits
        within = int(np.searchsorted(sizes, max_bytes - self._size, "right"))
        fits = max(min(max_packets - self.rows, within), 0 if self.rows else 1)
        if fits:
            self._frames.append(_between(frames, 0, fits))
            self.rows += min(fits, len(frames))
            self._size += int(sizes[min(fits, len(frames)) - 1])
        return _between(frames, fits, len(frames)) if fits < len(frames) else None

    def take(self) -> list[Frames]:
        """Return what has been gathered and begin anew."""
        out = [_joined(is_own, group) for is_own, group in _groups(self._frames)]
        self._frames = []
        self.rows = self._size = 0
        return out


def _between(frames: Frames, first: int, last: int) -> Frames:
    if first == 0 and last >= len(frames):
        return frames
    rows = slice(first, last)
    return Frames(
        frames.data,
        frames.start[rows],
        frames.stop[rows],
        frames.offset[rows],
        frames.member.slice(first, last - first),
        frames.schema[rows],
        frames.schemas,
        {place - first: fault for place, fault in frames.faults.items() if first <= place < last},
    )


_NO_BODIES, _OWN = 0, -1


def _buffer_of(frames: Frames) -> int:
    """Return what tells the buffer: none at all, one that holds these bodies and nothing else, or which."""
    if len(frames.data) == 0:
        return _NO_BODIES
    return _OWN if len(frames.data) == int((frames.stop - frames.start).sum()) else id(frames.data)


def _groups(pieces: list[Frames]) -> Iterator[tuple[bool, list[Frames]]]:
    """Yield neighbours that can be one: those over the same buffer, or (True) each over its own."""
    group: list[Frames] = []
    key = _NO_BODIES
    for piece in pieces:
        its = _buffer_of(piece)
        if _NO_BODIES not in (its, key) and its != key:
            yield key == _OWN, group
            group, key = [], _NO_BODIES
        group.append(piece)
        key = its or key
    yield key == _OWN, group


def _joined(is_own: bool, pieces: list[Frames]) -> Frames:
    """Return the frames of one group as one; buffers that hold nothing else are copied together."""
    if len(pieces) == 1:
        return pieces[0]
    data = max((piece.data for piece in pieces), key=len)
    shift = np.zeros(len(pieces) + 1, dtype=np.int64)
    if is_own:
        data = read_only(np.concatenate([piece.data for piece in pieces]))
        np.cumsum([len(piece.data) for piece in pieces], out=shift[1:])
    places: dict[WriterSchema, int] = {}
    start, stop, schema = [], [], []
    faults: dict[int, Fault] = {}
    rows = 0
    for piece, by in zip(pieces, shift.tolist(), strict=False):
        is_whole = piece.schema != NO_SCHEMA
        start.append(piece.start + by * is_whole)
        stop.append(piece.stop + by * is_whole)
        place = np.array([*(places.setdefault(one, len(places)) for one in piece.schemas), NO_SCHEMA], dtype=np.int32)
        schema.append(place[piece.schema])  # the last of them is that of NO_SCHEMA, -1
        faults |= {rows + i: fault for i, fault in piece.faults.items()}
        rows += len(piece)
    return Frames(
        data,
        np.concatenate(start),
        np.concatenate(stop),
        np.concatenate([piece.offset for piece in pieces]),
        pa.concat_arrays([piece.member for piece in pieces]),
        np.concatenate(schema),
        tuple(places),
        faults,
    )
