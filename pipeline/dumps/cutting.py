"""Segments of a source.

A segment is what one task decodes: a pure function of the source's bytes, small enough to hold, and cheap to send (it
carries offsets or names, never data).
"""

from __future__ import annotations

import mmap
from bisect import bisect_right
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from pipeline.avro.container import SYNC_BYTES, Block, FrameError, HeaderCache, blocks
from pipeline.dumps.seek import SeekPoint, SeekPoints
from pipeline.dumps.sources import Source, is_packet, member_role, printable, walk_files
from pipeline.dumps.tar import FileStream, members
from pipeline.errors import SourceError

MAX_PACKETS = 10_000
MAX_BYTES = 256 << 20
MAX_MEMBER_BYTES = 64 << 20
"""Largest member of an archive or folder that is read: a packet is 0.1 MB."""

_EXPANSION = 4
"""Decoded bytes for one byte of a compressed block, as an estimate for the size of segments."""


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of a source.

    Attributes
    ----------
    source : Source
        What it is a part of.
    number : int
        Place among the source's segments, from 0.
    start, stop : int
        Bytes of the file (``tar``, ``avro``); ``stop`` is -1 where the segment is all there is.
    members : tuple of str
        Relative paths (``folder``, ``parquet``).
    n_packets : int
        Packets in it, -1 where only reading will tell (``tar.gz``).
    skipped : tuple of str
        Names of members that are no packets, where they are known beforehand.
    """

    source: Source
    number: int
    start: int = 0
    stop: int = -1
    members: tuple[str, ...] = ()
    n_packets: int = -1
    skipped: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Mark:
    """A place between two members of an archive, at which reading may begin again.

    Attributes
    ----------
    packets : int
        Packets of the segment before it, faults among them.
    members : int
        Whole members before it.
    position : int
        Bytes of the archive before it, inflated.
    skipped : int
        Names in ``Tally.skipped`` before it.
    """

    packets: int = 0
    members: int = 0
    position: int = 0
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Start:
    """Where in a ``.tar.gz`` to go on.

    Attributes
    ----------
    packets : int
        The first packet to hand out, counted from the beginning of the segment.
    mark : Mark
        Not behind that packet.
    point : SeekPoint or None
        Not behind the mark; None where no place but the file's beginning is known.
    """

    packets: int
    mark: Mark
    point: SeekPoint | None = None


@dataclass(slots=True)
class Tally:
    """What reading a segment brought to light, filled as it goes.

    Attributes
    ----------
    packets : int
        Packets (blocks of a container) handed out.
    skipped : list of str
        Names of members that are no packets.
    sha256 : str or None
        Of the whole file, where reading passed over all of it (``tar.gz``).
    points : SeekPoints or None
        Takes the seek points of a ``.tar.gz``, where given.
    marks : list of Mark
        Every few megabytes one, if seek points are taken.
    """

    packets: int = 0
    skipped: list[str] = field(default_factory=list)
    sha256: str | None = None
    points: SeekPoints | None = None
    marks: list[Mark] = field(default_factory=list)

    def start_at(self, packets: int) -> Start:
        """Return where to begin for the packets from number ``packets`` on, and forget the marks before that.

        A thread may call this while another one reads, of packets that have been read.
        """
        place = bisect_right(self.marks, packets, key=lambda mark: mark.packets) - 1
        mark = self.marks[place]
        del self.marks[:place]
        return Start(packets, mark, None if self.points is None else self.points.near(mark.position))


def segments(source: Source, max_packets: int = MAX_PACKETS, max_bytes: int = MAX_BYTES) -> list[Segment]:
    """Cut a source into segments of at most ``max_packets`` packets and about ``max_bytes`` bytes.

    A ``.tar.gz`` is one stream and one segment. A folder without packets has one segment without members.

    Raises
    ------
    SourceError
        The source is cut or damaged as a whole.
    """
    if source.kind == "tar":
        return _of_tar(source, max_packets, max_bytes)
    if source.kind == "folder":
        return _of_folder(source, max_packets, max_bytes)
    if source.kind == "avro":
        return _of_container(source, max_packets, max_bytes)
    if source.kind == "parquet":
        return _of_parquet(source, max_packets)
    return [Segment(source, 0, n_packets=1 if source.kind == "wire" else -1)]


class _Cutter:
    """Gathers packets until a limit is reached."""

    def __init__(self, max_packets: int, max_bytes: int) -> None:
        self._limits = max_packets, max_bytes
        self.packets = self.size = 0

    def full(self, packets: int, size: int) -> bool:
        """Count ``packets`` more; True if they begin a new segment."""
        full = self.packets > 0 and (self.packets + packets > self._limits[0] or self.size + size > self._limits[1])
        if full:
            self.packets = self.size = 0
        self.packets += packets
        self.size += size
        return full


def _of_tar(source: Source, max_packets: int, max_bytes: int) -> list[Segment]:
    out: list[Segment] = []
    cutter = _Cutter(max_packets, max_bytes)
    start, packets, skipped = 0, 0, []
    with FileStream(source.path) as stream:
        for member in members(stream, source.name):
            if not (member.is_file and is_packet(member.name, stream.read(min(4, member.size)))):
                skipped.append(member.name)
                continue
            if cutter.full(1, member.size):
                out.append(Segment(source, len(out), start, member.start, (), packets, tuple(skipped)))
                start, packets, skipped = member.start, 0, []
            packets += 1
    out.append(Segment(source, len(out), start, -1, (), packets, tuple(skipped)))
    return out


def _of_folder(source: Source, max_packets: int, max_bytes: int) -> list[Segment]:
    groups: list[list[str]] = [[]]
    skipped: list[str] = []
    cutter = _Cutter(max_packets, max_bytes)
    for name, entry in walk_files(Path(source.path)):
        role = member_role(name, entry.path)
        if role == "other":
            skipped.append(printable(name))
        if role != "packet":  # archives and tables are sources of their own
            continue
        if cutter.full(1, entry.stat().st_size):
            groups.append([])
        groups[-1].append(name)
    return [
        Segment(source, i, members=tuple(group), n_packets=len(group), skipped=tuple(skipped) if i == 0 else ())
        for i, group in enumerate(groups)
    ]


def _of_container(source: Source, max_packets: int, max_bytes: int) -> list[Segment]:
    with Mapped(source) as data:
        try:
            header = HeaderCache(1).get(data)
        except FrameError:
            return [Segment(source, 0, n_packets=1)]  # reading it gives the fault
        cutter = _Cutter(max_packets, max_bytes)
        out: list[Segment] = []
        start, packets = header.length + SYNC_BYTES, 0
        at = start
        for item in blocks(data, header):
            if isinstance(item, Block):
                count, end = item.count, item.offset + item.size + SYNC_BYTES
                size = item.size * (1 if header.codec == "null" else _EXPANSION)
            else:
                count, size, end = 1, item.length, item.offset + item.length
            if cutter.full(count, size):
                out.append(Segment(source, len(out), start, at, (), packets))
                start, packets = at, 0
            packets += count
            at = end
    return [*out, Segment(source, len(out), start, -1, (), packets)]


def _of_parquet(source: Source, max_packets: int) -> list[Segment]:
    names = [""]
    skipped: list[str] = []
    if Path(source.path).is_dir():
        roles = [(name, member_role(name, entry.path)) for name, entry in walk_files(Path(source.path))]
        names = [name for name, role in roles if role == "parquet"]
        skipped = [printable(name) for name, role in roles if role == "other"]
    groups: list[list[str]] = [[]]
    sizes = [0]
    for name in names:
        rows = pq.read_metadata(Path(source.path, name)).num_rows
        if groups[-1] and sizes[-1] + rows > max_packets:
            groups.append([])
            sizes.append(0)
        groups[-1].append(name)
        sizes[-1] += rows
    return [
        Segment(source, i, members=tuple(group), n_packets=size, skipped=tuple(skipped) if i == 0 else ())
        for i, (group, size) in enumerate(zip(groups, sizes, strict=True))
    ]


class Mapped:
    """A file mapped into memory, given back by the end of ``with``, or when the last array over it goes.

    Raises
    ------
    SourceError
        It cannot be opened, or is empty.
    """

    def __init__(self, source: Source) -> None:
        try:
            with Path(source.path).open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise SourceError(f"cannot be read: {error}", source=source.name) from None

    def __enter__(self) -> mmap.mmap:
        return self._map

    def __exit__(self, *error: object) -> None:
        with suppress(BufferError):  # arrays are still over it
            self._map.close()
