"""Packets of a segment taken apart into datums."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from pipeline.avro.container import Datum, Fault, HeaderCache, is_wire, split_container, split_wire
from pipeline.avro.schema import WriterSchema
from pipeline.dumps.cutting import Packet, Segment, Tally, packets
from pipeline.errors import SourceError


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

    def split(self, packet: Packet, source: str) -> list[Datum | Fault]:
        """Take one packet apart; offsets become those in the member or file.

        Raises
        ------
        SourceError
            The schema id of a wire message is not known.
        """
        if self.resolver is not None and is_wire(packet.data):
            try:
                items = split_wire(packet.data, self.resolver)
            except SourceError as error:
                error.source = f"{source}/{packet.member}" if packet.member else source
                raise
        else:
            items = split_container(packet.data, self.cache)
        if packet.offset == 0 and packet.member is None:
            return items
        return [_placed(item, packet) for item in items]


def _placed(item: Datum | Fault, packet: Packet) -> Datum | Fault:
    offset = item.offset + packet.offset
    if isinstance(item, Fault):
        return replace(item, offset=offset, member=packet.member)
    return replace(item, offset=offset) if packet.offset else item


def datums(segment: Segment, reader: Reader, tally: Tally | None = None) -> Iterator[tuple[str | None, Datum | Fault]]:
    """Stream a segment's datums and faults, each with the member it stood in.

    Parameters
    ----------
    segment : Segment
        Of any kind but ``parquet``.
    reader : Reader
        Kept by the caller over the segments of a source.
    tally : Tally, optional
        Filled on the way.

    Yields
    ------
    (member, item)
        In source order; ``member`` is None where the source is one file.

    Raises
    ------
    SourceError
        The source is cut or damaged as a whole, or a wire message has an unknown schema id.
    """
    for packet in packets(segment, tally):
        if isinstance(packet, Fault):
            yield packet.member, packet
        else:
            for item in reader.split(packet, segment.source.name):
                yield packet.member, item
