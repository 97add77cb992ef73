"""The packets of one file: a container of any size, or a wire message."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import cast

import numpy as np
from numpy.typing import NDArray

from pipeline.avro.container import Block, Fault, FrameError, Header, HeaderCache, blocks, walk_block
from pipeline.avro.frames import Frames
from pipeline.avro.framing import index_blocks
from pipeline.dumps import cutting
from pipeline.dumps.cutting import Mapped, Segment, Tally
from pipeline.dumps.framing import CHUNK_ROWS, Reader, block_frames, fault_frames, frame_file, frames_of
from pipeline.errors import SourceError

BLOCKS_AT_ONCE = 4096


class FileFrames:
    """Packets of one file; bodies that are not compressed lie where they do in the file.

    Parameters
    ----------
    segment : Segment
        Of kind ``avro`` or ``wire``.
    reader : Reader
        Takes a wire message apart.
    tally : Tally
        Filled on the way.
    """

    def __init__(self, segment: Segment, reader: Reader, tally: Tally) -> None:
        self._segment = segment
        self._reader = reader
        self._tally = tally

    def __enter__(self) -> FileFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def recycle(self) -> None:
        """Do nothing: no buffer is filled twice."""

    def __iter__(self) -> Iterator[Frames]:
        source = self._segment.source
        if source.kind == "wire":
            yield from self._whole(Path(source.path).read_bytes())
            return
        if source.kind != "avro":
            raise SourceError(f"a {source.kind} source has tables, no packets", source=source.name)
        with Mapped(source) as data:
            try:
                header = HeaderCache(1).get(data)
            except FrameError:  # taking it apart gives the fault
                yield from self._whole(data[: cutting.MAX_MEMBER_BYTES])
            else:
                yield from self._container(data, header)

    def _whole(self, data: bytes) -> Iterator[Frames]:
        self._tally.packets += 1
        yield from frame_file(data, None, self._reader, self._segment.source.name)

    def _container(self, data: mmap.mmap, header: Header) -> Iterator[Frames]:
        view = np.frombuffer(data, dtype=np.uint8)
        at = self._segment.start
        stop = len(view) if self._segment.stop < 0 else self._segment.stop
        while at < stop or at > len(view):  # behind the end: it is cut within its first sync marker
            offset, size, count, end = index_blocks(view, at, stop, header.length, BLOCKS_AT_ONCE)
            if end == at:
                fault = cast(Fault, next(blocks(data, header, at, stop)))  # the kernel stopped at it
                yield fault_frames(fault)
                at = fault.offset + fault.length
                continue
            at = end
            self._tally.packets += len(offset)
            if header.codec == "null":
                yield from _stored(view, offset, size, count, header)
            else:
                for block in map(Block, offset.tolist(), size.tolist(), count.tolist()):
                    yield from block_frames(data, block, header)


def _stored(
    view: NDArray[np.uint8],
    offset: NDArray[np.int64],
    size: NDArray[np.int64],
    count: NDArray[np.int64],
    header: Header,
) -> Iterator[Frames]:
    """Yield the datums of blocks that are not compressed; those of one datum each all at once."""
    at = 0
    while at < len(offset):
        other = np.flatnonzero(count[at:] != 1)
        n = int(other[0]) if len(other) else len(offset) - at
        if n:
            rows = slice(at, at + n)
            yield frames_of(view, offset[rows], offset[rows] + size[rows], offset[rows], header.schema)
            at += n
            continue
        first, block = int(offset[at]), Block(int(offset[at]), int(size[at]), int(count[at]))
        for bounds, fault in walk_block(view[first : first + block.size], block, header, CHUNK_ROWS):
            where = bounds + first
            if len(where) > 1:
                yield frames_of(view, where[:-1], where[1:], where[:-1], header.schema)
            if fault is not None:
                yield fault_frames(fault)
        at += 1
