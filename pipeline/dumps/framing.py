"""Files of one or many packets, as they lie in a buffer, taken apart into :class:`pipeline.avro.frames.Frames`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from mmap import mmap

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.avro.container import (
    MAX_BLOCK_BYTES,
    Block,
    Fault,
    FrameError,
    Header,
    HeaderCache,
    blocks,
    open_block,
    walk_block,
)
from pipeline.avro.frames import NO_SCHEMA, Frames
from pipeline.avro.framing import frame_singles
from pipeline.avro.schema import WriterSchema
from pipeline.avro.wire import MAX_SCHEMA_ID, NOT_WIRE, WIRE_HEADER_BYTES, is_wire
from pipeline.errors import SourceError

CHUNK_ROWS = 4096
"""Datums of one block that become one :class:`Frames`."""
_EMPTY = np.frombuffer(b"", dtype=np.uint8)
_NONE = np.zeros(1, dtype=np.int64)


@dataclass(slots=True)
class Reader:
    """What taking packets apart needs; made once per task.

    Attributes
    ----------
    resolver : callable or None
        Writer schema of a wire message's schema id (:class:`pipeline.dumps.registry.SchemaResolver`); without it a
        wire message is a fault.
    cache : HeaderCache
        Headers seen so far.
    """

    resolver: Callable[[int], WriterSchema] | None = None
    cache: HeaderCache = field(default_factory=HeaderCache)


@dataclass(frozen=True, slots=True)
class Files:
    """Consecutive files in one buffer.

    Attributes
    ----------
    data : numpy.ndarray
        uint8, read-only.
    start, size : numpy.ndarray
        int64 (n,): where each begins in ``data``, and its bytes.
    names : pyarrow.Array
        string (n,): their names, null where the source is one file.
    faults : mapping of int to Fault
        By place: files that could not be had (their size is 0).
    """

    data: NDArray[np.uint8]
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    names: pa.Array
    faults: Mapping[int, Fault] = field(default_factory=dict)


def frame_files(files: Files, reader: Reader, source: str) -> Iterator[Frames]:
    """Take files apart: those of one datum each all at once, any other one by one.

    Parameters
    ----------
    files : Files
        Containers or wire messages.
    reader : Reader
        Kept by the caller over the segments of a source.
    source : str
        Named in errors.

    Raises
    ------
    SourceError
        The schema id of a wire message is not known; what stands before that message has been given.
    """
    stop = files.start + files.size
    at = 0
    while at < len(stop):
        known = reader.cache.table()
        start, end, header = frame_singles(files.data, files.start[at:], stop[at:], known)
        if len(start):
            rows = slice(at, at + len(start))
            offset = start - files.start[rows]
            names = files.names.slice(at, len(start))
            used, schema = np.unique(known.schema[header], return_inverse=True)
            schemas = tuple(known.schemas[place] for place in used.tolist())
            yield Frames(files.data, start, end, offset, names, schema.astype(np.int32), schemas)
            at += len(start)
        if at < len(stop):
            name = files.names[at].as_py()
            if at in files.faults:
                yield fault_frames(files.faults[at])
            else:
                yield from frame_file(files.data[files.start[at] : stop[at]].tobytes(), name, reader, source)
            at += 1


def frame_file(data: bytes, member: str | None, reader: Reader, source: str) -> Iterator[Frames]:
    """Take one file apart, whatever it is.

    Parameters
    ----------
    data : bytes
        A container or a wire message.
    member : str, optional
        Name within the archive or folder.
    reader, source
        As for :func:`frame_files`.
    """
    if reader.resolver is not None and is_wire(data):
        try:
            yield _named(wire_frames([data], reader.resolver), member)
        except SourceError as error:
            error.source = f"{source}/{member}" if member else source
            raise
        return
    try:
        header = reader.cache.get(data)
    except FrameError as error:
        reason = f"{error.reason} at byte {error.offset}" if error.offset else error.reason
        yield fault_frames(Fault(reason, 0, len(data), data, member=member))
        return
    left = MAX_BLOCK_BYTES
    for block in blocks(data, header):
        pieces = [fault_frames(block)] if isinstance(block, Fault) else block_frames(data, block, header, left)
        for piece in pieces:
            left = max(left - int(piece.lengths().sum()), 0)
            yield _named(piece, member)


def block_frames(data: bytes | mmap, block: Block, header: Header, limit: int = MAX_BLOCK_BYTES) -> Iterator[Frames]:
    """Decompress one block and yield its datums, some thousand at a time.

    Parameters
    ----------
    data : bytes-like
        The container.
    block, header
        Which block of it, and its header.
    limit : int
        Most bytes that the block may inflate to.
    """
    body = open_block(data, block, header, limit)
    if isinstance(body, Fault):
        yield fault_frames(body)
        return
    view = np.frombuffer(body, dtype=np.uint8)
    for bounds, fault in walk_block(view, block, header, CHUNK_ROWS):
        start, stop = bounds[:-1], bounds[1:]
        if len(start):
            offset = block.offset + (start if header.codec == "null" else np.zeros_like(start))
            yield frames_of(view, start, stop, offset, header.schema)
        if fault is not None:
            yield fault_frames(fault)


def frames_of(
    data: NDArray[np.uint8],
    start: NDArray[np.int64],
    stop: NDArray[np.int64],
    offset: NDArray[np.int64],
    schema: WriterSchema,
) -> Frames:
    """Return frames of one writer schema, without member and fault."""
    n = len(start)
    return Frames(data, start, stop, offset, pa.nulls(n, pa.string()), np.zeros(n, dtype=np.int32), (schema,))


def fault_frames(fault: Fault) -> Frames:
    """Return the frames of one fault."""
    member = pa.array([fault.member], pa.string())
    none = np.full(1, NO_SCHEMA, dtype=np.int32)
    return Frames(_EMPTY, _NONE, _NONE, np.array([fault.offset], dtype=np.int64), member, none, (), {0: fault})


def _named(frames: Frames, member: str | None) -> Frames:
    """Return frames with all packets and faults in one member."""
    if member is None:
        return frames
    faults = {place: replace(fault, member=member) for place, fault in frames.faults.items()}
    return replace(frames, member=pa.repeat(pa.scalar(member), len(frames)), faults=faults)


def wire_frames(messages: Sequence[bytes], resolver: Callable[[int], WriterSchema]) -> Frames:
    """Take Confluent wire messages apart, all at once: a zero byte, the schema id (4 bytes, big endian), the body.

    Parameters
    ----------
    messages : sequence of bytes
        As received.
    resolver : callable
        Returns the writer schema of an id.

    Returns
    -------
    Frames
        One row for each message; what is no wire message is a fault.

    Raises
    ------
    SourceError
        The resolver does not know an id.
    """
    n = len(messages)
    size = np.fromiter(map(len, messages), dtype=np.int64, count=n)
    data = np.frombuffer(b"".join(messages), dtype=np.uint8)
    stop = np.cumsum(size, dtype=np.int64)
    start = stop - size
    long_enough = size > WIRE_HEADER_BYTES
    head = data[start[long_enough, None] + np.arange(WIRE_HEADER_BYTES)].astype(np.int64)
    number = np.full(n, -1, dtype=np.int64)
    number[long_enough] = np.where(head[:, 0] == 0, head[:, 1:] @ (1 << np.array([24, 16, 8, 0])), -1)
    is_message = (number > 0) & (number < MAX_SCHEMA_ID)
    numbers, first, place = np.unique(number[is_message], return_index=True, return_inverse=True)
    resolved = {number: resolver(number) for number in numbers[np.argsort(first)].tolist()}
    schema = np.full(n, NO_SCHEMA, dtype=np.int32)
    schema[is_message] = place
    faults = {i: Fault(NOT_WIRE, 0, len(messages[i]), bytes(messages[i])) for i in np.flatnonzero(~is_message).tolist()}
    return Frames(
        data,
        np.where(is_message, start + WIRE_HEADER_BYTES, 0),
        np.where(is_message, stop, 0),
        np.where(is_message, WIRE_HEADER_BYTES, 0),
        pa.nulls(n, pa.string()),
        schema,
        tuple(resolved[number] for number in numbers.tolist()),
        faults,
    )
