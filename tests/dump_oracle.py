"""Packets of a segment one by one, each copied and taken apart alone: the plain way, which the fast one must equal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.avro.container import (
    SYNC_BYTES,
    Datum,
    Fault,
    FrameError,
    HeaderCache,
    blocks,
    split_container,
)
from pipeline.avro.wire import is_wire, split_wire
from pipeline.dumps import Reader, Segment, Tally, cutting
from pipeline.dumps.inflate import Inflated
from pipeline.dumps.sources import is_packet, printable
from pipeline.dumps.tar import FileStream, members
from pipeline.errors import SourceError

Item = tuple[str | None, Datum | Fault]


def plain_datums(segment: Segment, reader: Reader, tally: Tally) -> Iterator[Item]:
    """Yield what :func:`pipeline.dumps.datums` must."""
    for name, data, offset in _files(segment, tally):
        if isinstance(data, Fault):
            yield name, data
            continue
        tally.packets += 1
        for item in _split(data, reader, f"{segment.source.name}/{name}" if name else segment.source.name):
            member = {"member": name} if isinstance(item, Fault) else {}
            yield name, replace(item, offset=item.offset + offset, **member)


def _split(data: bytes, reader: Reader, source: str) -> list[Datum | Fault]:
    if reader.resolver is None or not is_wire(data):
        return split_container(data, reader.cache)
    try:
        return split_wire(data, reader.resolver)
    except SourceError as error:
        error.source = source
        raise


def _files(segment: Segment, tally: Tally) -> Iterator[tuple[str | None, bytes | Fault, int]]:
    source = segment.source
    if source.kind == "tar":
        with FileStream(source.path, segment.start) as stream:
            yield from _members(stream, segment, tally)
    elif source.kind == "tar.gz":
        with Inflated(source.path, source.name) as stream:
            yield from _members(stream, segment, tally)
            tally.sha256 = stream.sha256
    elif source.kind == "folder":
        tally.skipped.extend(segment.skipped)
        for name in segment.members:
            data = Path(source.path, name).read_bytes()
            is_large = len(data) > cutting.MAX_MEMBER_BYTES
            yield printable(name), _too_large(printable(name), len(data)) if is_large else data, 0
    elif source.kind == "avro":
        yield from _blocks(Path(source.path).read_bytes(), segment)
    else:
        yield None, Path(source.path).read_bytes(), 0


def _members(stream, segment: Segment, tally: Tally):
    for member in members(stream, segment.source.name, None if segment.stop < 0 else segment.stop):
        head = stream.read(min(4, member.size)) if member.is_file else b""
        if not member.is_file or not is_packet(member.name, head):
            tally.skipped.append(member.name)
        elif member.size > cutting.MAX_MEMBER_BYTES:
            yield member.name, _too_large(member.name, member.size), 0
        else:
            data = head + stream.read(member.size - len(head))
            if len(data) == member.size:
                yield member.name, data, 0


def _too_large(name: str, size: int) -> Fault:
    reason = f"{size} bytes, more than the {cutting.MAX_MEMBER_BYTES} a packet may have"
    return Fault(reason, 0, size, member=name)


def _blocks(data: bytes, segment: Segment):
    try:
        header = HeaderCache(1).get(data)
    except FrameError:
        yield None, data[: cutting.MAX_MEMBER_BYTES], 0
        return
    head = data[: header.length + SYNC_BYTES]
    start = segment.start
    for item in blocks(data, header, segment.start, None if segment.stop < 0 else segment.stop):
        if isinstance(item, Fault):
            yield None, item, 0
            start = item.offset + item.length
        else:
            end = item.offset + item.size + SYNC_BYTES
            yield None, head + data[start:end], start - len(head)
            start = end
