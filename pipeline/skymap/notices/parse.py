"""From the bytes of a notice, whatever its form, to events."""

from __future__ import annotations

import zlib

from pipeline.errors import CatalogError
from pipeline.skymap.notices.event import Event
from pipeline.skymap.notices.lvk import read_avro, read_json
from pipeline.skymap.notices.voevent import read_voevent

MAX_BYTES = 96 << 20
"""Most bytes of a notice, inflated: sky maps within have a few MB."""


def parse_notice(data: bytes, source: str = "notice") -> Event:
    """Return the event that a notice tells of.

    Parameters
    ----------
    data : bytes
        An LVK alert (JSON; Avro as a container or as a Kafka message), or a VOEvent (XML); gzip-compressed or not.
    source : str
        Named in errors.

    Raises
    ------
    CatalogError
        It is no notice, is damaged or too large, or there are several in it.
    """
    events = parse_notices(data, source)
    if len(events) != 1:
        raise CatalogError(f"{len(events)} notices where one is wanted", source=source)
    return events[0]


def parse_notices(data: bytes, source: str = "notice") -> list[Event]:
    """Return the events of all notices in one file: a JSON list or one JSON notice a line, or an Avro container.

    Raises
    ------
    CatalogError
        As of :func:`parse_notice`; one bad notice fails all.
    """
    plain = _inflated(data, source)
    head = plain[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if plain[:4] == b"Obj\x01" or plain[:1] == b"\x00":
        events = read_avro(plain, source)
    elif head[:1] in (b"{", b"["):
        events = read_json(plain, source)
    elif head[:1] == b"<" or plain[:2] in (b"\xff\xfe", b"\xfe\xff"):
        events = [read_voevent(plain, source)]
    else:
        raise CatalogError("this is no notice", source=source, mend="give an LVK alert (JSON, Avro) or a VOEvent (XML)")
    if not events:
        raise CatalogError("there is no notice in it", source=source)
    return events


def _inflated(data: bytes, source: str) -> bytes:
    plain = data
    if data[:2] == b"\x1f\x8b":
        inflater = zlib.decompressobj(wbits=31)
        try:
            plain = inflater.decompress(data, MAX_BYTES + 1)
        except zlib.error as error:
            raise CatalogError(f"notice cannot be inflated: {error}", source=source) from error
        if len(plain) <= MAX_BYTES and not inflater.eof:
            raise CatalogError("notice cannot be inflated: it is cut", source=source)
    if len(plain) > MAX_BYTES:
        raise CatalogError(f"notice has more than {MAX_BYTES >> 20} MB", source=source)
    return plain
