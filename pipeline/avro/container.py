"""Avro object containers, taken apart into datums.

Only framing is read here: header, blocks, codecs, sync markers; every length is checked against what is there. What is
wrong becomes a :class:`Fault` with its position, and its neighbours stay.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from mmap import mmap

import numpy as np
from numpy.typing import NDArray

from pipeline.avro.check import walk
from pipeline.avro.codecs import CODECS, decompress
from pipeline.avro.schema import WriterSchema, parse_text
from pipeline.errors import SchemaError

MAGIC = b"Obj\x01"
SYNC_BYTES = 16
MAX_HEADER_BYTES = 8 << 20
MAX_FAULT_BYTES = 16 << 20
"""Most that is kept of a broken stretch, which may be all the rest of a file."""
MAX_BLOCK_BYTES = 256 << 20
"""Most that one block, and all blocks of one packet together, may inflate to: a packet is 0.1 MB."""


@dataclass(frozen=True, slots=True)
class Datum:
    """One Avro body and where it stood.

    Attributes
    ----------
    body : bytes
        The encoded record, uncompressed.
    offset : int
        Where the body starts in the packet data; in a compressed block, where the block's data starts.
    length : int
        ``len(body)``.
    schema : WriterSchema
        What it was written with.
    """

    body: bytes
    offset: int
    length: int
    schema: WriterSchema


@dataclass(frozen=True, slots=True)
class Fault:
    """A stretch of bytes that cannot be decoded: one reject.

    Attributes
    ----------
    reason : str
        One line, with field and byte where they are known.
    offset, length : int
        The stretch, in bytes of the packet data.
    body : bytes
        The bytes themselves.
    schema_id : str or None
        Writer schema, where it could be read.
    member : str or None
        Name within the archive or folder.
    """

    reason: str
    offset: int
    length: int
    body: bytes = field(default=b"", repr=False)
    schema_id: str | None = None
    member: str | None = None


class FrameError(Exception):
    """The framing of a container is broken at ``offset``."""

    def __init__(self, reason: str, offset: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.offset = offset


@dataclass(frozen=True, slots=True)
class Header:
    """Header of a container: its length up to the sync marker, schema and codec."""

    length: int
    codec: str
    schema: WriterSchema


@dataclass(frozen=True, slots=True)
class Block:
    """One block as it lies in the file: ``count`` datums in ``data[offset:offset + size]``, still compressed."""

    offset: int
    size: int
    count: int


@dataclass(frozen=True, slots=True)
class HeaderTable:
    """Known headers as one kernel wants them.

    Attributes
    ----------
    text : numpy.ndarray
        uint8: the bytes of all headers, one behind the other.
    bounds : numpy.ndarray
        int64 (n + 1,): where each begins in ``text``, and the end.
    is_plain : numpy.ndarray
        bool (n,): whether its blocks are stored as they are (codec ``null``).
    schema : numpy.ndarray
        int32 (n,): place of each header's schema in ``schemas``.
    schemas : tuple of WriterSchema
        Fewer than headers, where some differ in documentation only.
    """

    text: NDArray[np.uint8]
    bounds: NDArray[np.int64]
    is_plain: NDArray[np.bool_]
    schema: NDArray[np.int32]
    schemas: tuple[WriterSchema, ...]


class HeaderCache:
    """Headers by their bytes: a schema of 25 kB is parsed once, not once per packet.

    A header ends with the zero that closes its map, so a file that starts with the bytes of a known header has that
    header. The sync marker, which differs from file to file, is not part of it.

    Parameters
    ----------
    capacity : int
        Headers kept.
    max_bytes : int
        Bytes of headers kept, the last one not counted.
    """

    def __init__(self, capacity: int = 64, max_bytes: int = MAX_HEADER_BYTES) -> None:
        self._known: list[tuple[bytes, Header]] = []
        self._table: HeaderTable | None = None
        self._limits = capacity, max_bytes

    def get(self, data: bytes | memoryview | mmap) -> Header:
        """Return the header of a container.

        Raises
        ------
        FrameError
            It is damaged, or its schema cannot be used.
        """
        for i, (text, header) in enumerate(self._known):
            if data[: len(text)] == text:
                if i:
                    self._known.insert(0, self._known.pop(i))
                return header
        header = _read_header(data)
        self._known.insert(0, (bytes(data[: header.length]), header))
        capacity, max_bytes = self._limits
        while len(self._known) > 1 and (
            len(self._known) > capacity or sum(len(text) for text, _ in self._known[1:]) > max_bytes
        ):
            del self._known[-1]
        self._table = None
        return header

    def table(self) -> HeaderTable:
        """Return the headers known by now; the same object until :meth:`get` meets a new one."""
        if self._table is None:
            texts = [text for text, _ in self._known]
            headers = [header for _, header in self._known]
            places: dict[WriterSchema, int] = {}
            schema = [places.setdefault(header.schema, len(places)) for header in headers]
            self._table = HeaderTable(
                np.frombuffer(b"".join(texts), dtype=np.uint8),
                np.cumsum([0, *map(len, texts)], dtype=np.int64),
                np.array([header.codec == "null" for header in headers], dtype=np.bool_),
                np.array(schema, dtype=np.int32),
                tuple(places),
            )
        return self._table


def _read_long(data: bytes | memoryview | mmap, p: int, stop: int) -> tuple[int, int]:
    raw = shift = 0
    for _ in range(10):
        if p >= stop:
            raise FrameError("the file ends within its framing", p)
        byte = data[p]
        p += 1
        raw |= (byte & 127) << shift
        if byte < 128:
            if raw >= 1 << 64:
                break
            return (raw >> 1) ^ -(raw & 1), p
        shift += 7
    raise FrameError("an integer of the framing has more than 64 bits", p)


def _read_header(data: bytes | memoryview | mmap) -> Header:
    if len(data) == 0:
        raise FrameError("the file is empty", 0)
    if data[:4] != MAGIC:
        raise FrameError("not an Avro object container (a bare body carries no schema)", 0)
    stop = min(len(data), MAX_HEADER_BYTES)
    meta: dict[bytes, bytes] = {}
    p = len(MAGIC)
    while True:
        count, p = _read_long(data, p, stop)
        if count == 0:
            break
        if count < 0:
            count = -count
            _, p = _read_long(data, p, stop)
        if count > stop - p:
            raise FrameError("the header is damaged: more entries than bytes", p)
        for _ in range(count):
            pair = []
            for _ in range(2):
                size, p = _read_long(data, p, stop)
                if size < 0 or size > stop - p:
                    raise FrameError("the header is damaged or cut: an entry reaches beyond it", p)
                pair.append(bytes(data[p : p + size]))
                p += size
            meta[pair[0]] = pair[1]
    if b"avro.schema" not in meta:
        raise FrameError("the header names no schema", p)
    codec = meta.get(b"avro.codec", b"null").decode("ascii", "replace")
    if codec not in CODECS:
        raise FrameError(f"codec {codec[:20]!r} is not supported ({', '.join(CODECS)})", p)
    try:
        schema = parse_text(meta[b"avro.schema"])
    except SchemaError as error:
        raise FrameError(error.message, 0) from None
    return Header(p, codec, schema)


# --------------------------------------------------------------------------------------- containers
def blocks(
    data: bytes | memoryview | mmap, header: Header, start: int | None = None, stop: int | None = None
) -> Iterator[Block | Fault]:
    """Walk the blocks of a container without decompressing them.

    Where framing breaks, the stretch up to and with the next sync marker is one fault and the walk goes on behind it.

    Parameters
    ----------
    data : bytes-like
        The whole container (a memory map will do).
    header : Header
        Its header.
    start, stop : int, optional
        Walk the blocks that begin in this stretch only; both must be where a block begins.
    """
    end = len(data)
    sync = bytes(data[header.length : header.length + SYNC_BYTES])
    p = header.length + SYNC_BYTES if start is None else start
    if p > end:
        yield _fault(data, "the file ends within its first sync marker", header.length, end, header)
        return
    while p < (end if stop is None else stop):
        begin = p
        try:
            count, p = _read_long(data, p, end)
            size, p = _read_long(data, p, end)
            if count < 0 or size < 0 or size > end - p - SYNC_BYTES:
                raise FrameError(f"a block of {count} datums and {size} bytes is not whole ({end - p} bytes left)", p)
            if bytes(data[p + size : p + size + SYNC_BYTES]) != sync:
                raise FrameError("no sync marker where the block should end", p + size)
        except FrameError as error:
            found = _find(data, sync, begin)
            p = found + SYNC_BYTES if found >= 0 else end
            yield _fault(data, f"{error.reason} at byte {error.offset}", begin, p, header)
            continue
        yield Block(p, size, count)
        p += size + SYNC_BYTES


def _find(data: bytes | memoryview | mmap, sync: bytes, start: int) -> int:
    """Return where the next sync marker stands, or -1; in steps, so that a memory map is never copied whole."""
    step = 1 << 20
    for at in range(start, len(data), step):
        found = bytes(data[at : at + step + SYNC_BYTES - 1]).find(sync)
        if found >= 0:
            return at + found
    return -1


def open_block(
    data: bytes | memoryview | mmap, block: Block, header: Header, limit: int = MAX_BLOCK_BYTES
) -> bytes | Fault:
    """Return the bodies of one block, one behind the other, or a fault if they cannot be decompressed.

    Parameters
    ----------
    data : bytes-like
        The container.
    block : Block
        Which block of it.
    header : Header
        The container's header.
    limit : int
        Most bytes that the block may inflate to.
    """
    raw = bytes(data[block.offset : block.offset + block.size])
    try:
        return decompress(raw, header.codec, limit)
    except ValueError as error:
        return Fault(str(error), block.offset, block.size, raw, header.schema.id)


def walk_block(
    body: NDArray[np.uint8], block: Block, header: Header, chunk: int
) -> Iterator[tuple[NDArray[np.int64], Fault | None]]:
    """Find the datums of a block's bodies, ``chunk`` at a time: a hostile block has one in every byte.

    A datum that breaks the schema hides those behind it in the same block: it and they are one fault.

    Parameters
    ----------
    body : numpy.ndarray
        uint8: the block's bodies, not compressed.
    block, header
        What block of what container.
    chunk : int
        Most datums of one piece.

    Yields
    ------
    bounds, fault
        int64 (k + 1,): where each of k datums begins in ``body``, and the last one's end; and what stands behind them
        if that is no datum (its offset is the position in the file), else None.
    """
    if block.count == 1:  # checked when it is decoded, like the body of a wire message
        yield np.array([0, len(body)], dtype=np.int64), None
        return
    total = min(block.count, len(body))
    done = at = 0
    while True:
        n = min(chunk, total - done)
        walked = walk(body.data, at, len(body), n, header.schema.program, more=done + n < total)
        done += len(walked.ends)
        bounds = np.concatenate([[at], walked.ends])
        if walked.reason is not None or done == total:
            break
        yield bounds, None
        at = int(bounds[-1])
    reason = walked.reason
    if reason is None and done < block.count:
        reason = f"the block declares {block.count} datums in {len(body)} bytes"
    if reason is None:
        yield bounds, None
        return
    start, lost = int(bounds[-1]), block.count - done - 1
    behind = f"; the {lost} datums behind it in the block are lost with it" if lost > 0 else ""
    reason = f"datum {done} of {block.count}: {reason} at byte {walked.position}{behind}"
    offset = block.offset + (start if header.codec == "null" else 0)
    yield bounds, Fault(reason, offset, len(body) - start, body[start:].tobytes(), header.schema.id)


def split_block(
    data: bytes | memoryview, block: Block, header: Header, limit: int = MAX_BLOCK_BYTES
) -> list[Datum | Fault]:
    """Return the datums of one block; see :func:`open_block` and :func:`walk_block`."""
    body = open_block(data, block, header, limit)
    if isinstance(body, Fault):
        return [body]
    within = 1 if header.codec == "null" else 0
    view = np.frombuffer(body, dtype=np.uint8)
    out: list[Datum | Fault] = []
    for bounds, fault in walk_block(view, block, header, max(block.count, 1)):
        for start, end in itertools.pairwise(bounds.tolist()):
            out.append(Datum(body[start:end], block.offset + within * start, end - start, header.schema))
        if fault is not None:
            out.append(fault)
    return out


def split_container(data: bytes, cache: HeaderCache) -> list[Datum | Fault]:
    """Take an object container apart.

    Parameters
    ----------
    data : bytes
        The whole file: one packet, or many.
    cache : HeaderCache
        Kept by the caller over all the files of a source.

    Returns
    -------
    list of Datum or Fault
        In file order. A container with no records gives an empty list.
    """
    try:
        header = cache.get(data)
    except FrameError as error:
        return [Fault(f"{error.reason} at byte {error.offset}" if error.offset else error.reason, 0, len(data), data)]
    out: list[Datum | Fault] = []
    left = MAX_BLOCK_BYTES
    for block in blocks(data, header):
        items: list[Datum | Fault] = [block] if isinstance(block, Fault) else split_block(data, block, header, left)
        left = max(left - sum(item.length for item in items), 0)
        out.extend(items)
    return out


def _fault(data: bytes | memoryview | mmap, reason: str, start: int, stop: int, header: Header) -> Fault:
    kept = min(stop, start + MAX_FAULT_BYTES)
    reason += f"; of {stop - start} bytes the first {MAX_FAULT_BYTES} are kept" if kept < stop else ""
    return Fault(reason, start, stop - start, bytes(data[start:kept]), header.schema.id)
