"""The packets of an archive or a folder, in its order, as frames whose bodies lie where they were read to.

Each class here iterates over :class:`pipeline.avro.frames.Frames`, and over None where it needs the buffers back that
earlier frames refer to: whoever iterates hands those on, and calls ``recycle`` once they are done with.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.avro.container import MAGIC, Fault
from pipeline.avro.frames import Frames
from pipeline.dumps import cutting
from pipeline.dumps.cutting import Mark, Segment, Start, Tally
from pipeline.dumps.framing import Files, Reader, frame_files
from pipeline.dumps.inflate import Inflated
from pipeline.dumps.sources import NATIVE, Source, is_packet, printable
from pipeline.dumps.tar import BLOCK, FileStream, Member, Walk, padded
from pipeline.dumps.tar_index import Found, MemberIndex
from pipeline.dumps.windows import Filler, Held, Windows, read_all, read_only
from pipeline.errors import SourceError

FILES_AT_ONCE = 4096
"""Files of a folder read into one buffer, at most."""
MARK_BYTES = 2 << 20
"""Of an archive from one mark to the next, or a window more: so much is read again where reading goes on."""
_ZEROS_AT_ONCE = 64 << 10
_ENDLESS = 1 << 62


class TarFrames:
    """Packets of a tar archive, compressed or not.

    Parameters
    ----------
    segment : Segment
        Of kind ``tar`` or ``tar.gz``.
    reader : Reader
        Takes the members apart.
    tally : Tally
        Filled on the way.
    size, held : int
        Bytes of a window, and how many may wait to be recycled.
    start : Start, optional
        Begin at its mark, in a ``tar.gz``; ``tally`` has what stands before.

    Raises
    ------
    SourceError
        The archive cannot be read, is cut or damaged, or has a wire message of an unknown schema.
    """

    def __init__(
        self, segment: Segment, reader: Reader, tally: Tally, size: int, held: int, start: Start | None = None
    ) -> None:
        self._source = segment.source.name
        self._reader = reader
        self._tally = tally
        self._stop = _ENDLESS if segment.stop < 0 else segment.stop
        self._walk = Walk(self._source)
        self._index = MemberIndex(cutting.MAX_MEMBER_BYTES)
        self._found: list[tuple[NDArray[np.int64], NDArray[np.int64], pa.Array]] = []
        self._n_found = 0
        self._faults: dict[int, Fault] = {}
        self._is_over = False
        self._inflated: Inflated | None = None
        first = Mark(position=segment.start) if start is None else start.mark
        self._rows, self._walk.count = first.packets, first.members
        self._next_mark = _ENDLESS if tally.points is None else first.position
        with ExitStack() as stack:
            if segment.source.kind == "tar.gz":
                self._inflated = stack.enter_context(_inflated(segment.source, first.position, tally, start))
            self._windows = self._opened(segment, size, held, stack)
            self._open = stack.pop_all()

    def _opened(self, segment: Segment, size: int, held: int, stack: ExitStack) -> Windows | Held:
        if self._inflated is not None:
            return stack.enter_context(Windows(self._inflated, size=size, held=held, position=self._inflated.position))
        stream = stack.enter_context(FileStream(segment.source.path, segment.start, segment.stop))
        return stack.enter_context(Windows(stream, size=size, held=held, position=segment.start, jump=stream.skip))

    def __enter__(self) -> TarFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def recycle(self) -> None:
        """Say that the frames given so far are done with, but for the last."""
        self._windows.recycle()

    def __iter__(self) -> Iterator[Frames | None]:
        try:
            while not self._is_over and (self._windows.position < self._stop or self._walk.start is not None):
                yield from self._step()
        except (SourceError, OSError):
            yield from self._frames()  # what was read before it
            raise
        yield from self._frames()
        if self._inflated is not None:
            self._tally.sha256 = self._inflated.sha256

    # ------------------------------------------------------------------------------- members
    def _step(self) -> Iterator[Frames | None]:
        """Pass over the ordinary members of this window, and go to the next; or over one block of another kind."""
        windows = self._windows
        if self._walk.start is None:
            if windows.position >= self._next_mark and not self._walk.ended:
                yield from self._mark()
            found = self._index.find(windows.data, windows.at, self._stop - windows.position + windows.at)
            self._take(found)
            if found.need and not windows.ended:
                yield from self._have(found.need)
                return
            if found.count:
                return
        yield from self._by_hand()

    def _mark(self) -> Iterator[Frames]:
        """Note that reading may begin again here, once the packets before are counted."""
        yield from self._frames()
        mark = Mark(self._rows, self._walk.count, self._windows.position, len(self._tally.skipped))
        self._tally.marks.append(mark)
        self._next_mark = mark.position + MARK_BYTES

    def _take(self, found: Found) -> None:
        if not found.count:
            return
        self._tally.skipped.extend(found.skipped)
        self._found.append((found.start, found.size, found.names))
        self._n_found += len(found.start)
        self._windows.at = found.end
        self._walk.count += found.count
        self._walk.ended = False

    def _by_hand(self) -> Iterator[Frames | None]:
        """Read one block: part of an end marker, an extended header with its data, or a member."""
        windows, walk = self._windows, self._walk
        yield from self._have(BLOCK)
        at, block = windows.position, windows.peek(BLOCK)
        if walk.ended and not block:
            self._is_over = True
        elif walk.is_marker(block, at):
            windows.at += max(len(block), self._zeros())
        elif (size := walk.extension(block, at)) is not None:
            yield from self._have(BLOCK + size)
            walk.extend(block, windows.peek(BLOCK + size)[BLOCK:], at)
            windows.at += BLOCK + size
        else:
            yield from self._member(walk.member(block, at))

    def _zeros(self) -> int:
        """Return how many bytes of whole blocks of zeros follow, as far as one looks."""
        ahead = self._windows.data[self._windows.at : self._windows.at + _ZEROS_AT_ONCE] != 0
        zeros = int(ahead.argmax()) if ahead.any() else len(ahead)
        return zeros // BLOCK * BLOCK

    def _member(self, member: Member) -> Iterator[Frames | None]:
        windows = self._windows
        windows.at += BLOCK
        n_head = min(len(MAGIC), member.size) if member.is_file else 0
        yield from self._have(n_head)
        if not member.is_file or not is_packet(member.name, windows.peek(n_head)):
            self._tally.skipped.append(member.name)
        elif member.size > cutting.MAX_MEMBER_BYTES:
            self._faults[self._n_found] = too_large(member.name, member.size)
            self._add(member.name, 0)
        else:
            yield from self._have(padded(member.size))
            if windows.rest >= member.size:  # else the archive is found cut below
                self._add(member.name, member.size)
        left = padded(member.size)
        if left > windows.rest:
            yield from self._leave()
            if windows.skip(left) < left:
                raise self._walk.cut(windows.position, member.name)
        else:
            windows.at += left
        self._walk.count += 1

    def _add(self, name: str, size: int) -> None:
        one = np.array([[self._windows.at], [size]], dtype=np.int64)
        self._found.append((one[0], one[1], pa.array([name], pa.string())))
        self._n_found += 1

    # ------------------------------------------------------------------------------- windows
    def _have(self, n: int) -> Iterator[Frames | None]:
        """Have ``n`` bytes in the window, or all there are."""
        while self._windows.rest < n and not self._windows.ended:
            yield from self._leave()
            self._windows.advance(n)

    def _leave(self) -> Iterator[Frames | None]:
        """Hand out what was found in this window, and get buffers back if there may be none for the next."""
        yield from self._frames()
        if self._windows.is_full:
            yield None

    def _frames(self) -> Iterator[Frames]:
        if not self._found:
            return
        start, size, names = zip(*self._found, strict=True)
        files = Files(
            self._windows.data, np.concatenate(start), np.concatenate(size), pa.concat_arrays(names), self._faults
        )
        self._tally.packets += self._n_found - len(self._faults)
        self._found, self._n_found, self._faults = [], 0, {}
        for frames in frame_files(files, self._reader, self._source):
            self._rows += len(frames)
            yield frames


def _inflated(source: Source, position: int, tally: Tally, start: Start | None) -> Inflated:
    """Return a ``.tar.gz`` as a stream of which ``position`` bytes have been passed over."""
    stream = Inflated(source.path, source.name, None if start is None else start.point, tally.points)
    try:
        stream.skip(position - stream.position)
    except SourceError:
        stream.close()
        raise
    return stream


class HeldTarFrames(TarFrames):
    """Packets of a tar archive that is in memory: its bodies are decoded where they lie.

    Parameters
    ----------
    data : bytes-like
        The archive.
    reader : Reader
        Takes the members apart.
    tally : Tally
        Filled on the way.
    name : str
        Named in errors.
    """

    def __init__(self, data: bytes | memoryview, reader: Reader, tally: Tally, name: str) -> None:
        self._data = data
        super().__init__(Segment(Source(name, "", "tar", len(data), 0, NATIVE), 0), reader, tally, BLOCK, 1)

    def _opened(self, segment: Segment, size: int, held: int, stack: ExitStack) -> Held:
        return Held(self._data)


class FolderFrames:
    """Packets of a folder, one a file.

    Parameters
    ----------
    segment : Segment
        Of kind ``folder``.
    reader, tally, size, held
        As for :class:`TarFrames`.
    """

    def __init__(self, segment: Segment, reader: Reader, tally: Tally, size: int, held: int) -> None:
        self._segment = segment
        self._reader = reader
        self._tally = tally
        self._next = 0
        self._held = held
        self._left: list[NDArray[np.uint8]] = []
        self._filler = Filler(self._fill, size, 2 * held + 1)

    def __enter__(self) -> FolderFrames:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._filler.close()

    def recycle(self) -> None:
        """Say that the frames given so far are done with, but for the last."""
        for buffer in self._left:
            self._filler.give_back(buffer)
        self._left.clear()

    def __iter__(self) -> Iterator[Frames | None]:
        self._tally.skipped.extend(self._segment.skipped)
        while (taken := self._filler.take()) is not None:
            buffer, files = taken
            self._tally.packets += len(files.start) - len(files.faults)
            yield from frame_files(files, self._reader, self._segment.source.name)
            self._left.append(buffer)
            if len(self._left) >= self._held:
                yield None

    def _fill(self, buffer: NDArray[np.uint8]) -> Files | None:
        """Read as many files as the buffer holds, in the filler's thread; a larger one gets memory of its own."""
        names: list[str] = []
        extents: list[tuple[int, int]] = []
        faults: dict[int, Fault] = {}
        data, at = buffer, 0
        while self._next < len(self._segment.members) and len(names) < FILES_AT_ONCE:
            name = self._segment.members[self._next]
            label = printable(name)
            try:
                with Path(self._segment.source.path, name).open("rb", buffering=0) as file:
                    size = os.fstat(file.fileno()).st_size
                    if size > cutting.MAX_MEMBER_BYTES:
                        faults[len(names)] = too_large(label, size)
                        size = 0
                    elif size > len(data) - at and at:
                        break
                    elif size > len(data):
                        data = np.empty(size, dtype=np.uint8)
                    size = read_all(file, data[at : at + size])
            except OSError as error:
                reason = f"the file cannot be read: {error.strerror or error}"
                faults[len(names)] = Fault(reason, 0, 0, member=label)
                size = 0
            names.append(label)
            extents.append((at, size))
            at += size
            self._next += 1
        if not names:
            return None
        start, size_of = np.array(extents, dtype=np.int64).T.copy()
        return Files(read_only(data), start, size_of, pa.array(names, pa.string()), faults)


def too_large(name: str, size: int) -> Fault:
    """Return the fault that a file is larger than a packet may be."""
    reason = f"{size} bytes, more than the {cutting.MAX_MEMBER_BYTES} a packet may have"
    return Fault(reason, 0, size, member=name)
