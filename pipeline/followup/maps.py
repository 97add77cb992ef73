"""Sky maps as a user names them: a FITS file, a notice, an event of the archive."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import CatalogError
from pipeline.skymap import SkyMap, event_name, fisher_skymap, parse_skymap
from pipeline.skymap.notices import Event, parse_notice
from pipeline.skymaps import find_skymap
from pipeline.store.root import Root

_GZIP, _AVRO = b"\x1f\x8b", b"Obj\x01"
_HEAD_BYTES = 4096
_NOTICE_ENDS = (".json", ".xml", ".avro", ".json.gz", ".xml.gz", ".avro.gz", ".voe")
_MOST_BYTES = 96 << 20


def open_map(given: str, root: Root | None = None) -> SkyMap:
    """Return the sky map that a user names.

    Parameters
    ----------
    given : str
        A FITS file, ``NAME=FILE``, a file with one notice (LVK JSON or Avro, VOEvent), or an event that the archive
        knows, of which the newest version holds.
    root : Root, optional
        The archive that knows events.

    Raises
    ------
    CatalogError
        It is none of these, is damaged, was retracted, or says nowhere where the event was.
    """
    name, event = _notice_of(given)
    if event is None:
        return find_skymap(given, root)
    skymap = map_of_notice(event)
    return skymap if name is None else _renamed(skymap, name, given)


def notices_of(named: Sequence[str], maps: Sequence[SkyMap]) -> dict[str, Event]:
    """Return the notices among what a user named, by the event of the map that :func:`open_map` made of each."""
    found = ((skymap.event, _notice_of(given)[1]) for given, skymap in zip(named, maps, strict=True))
    return {name: event for name, event in found if event is not None}


def map_of_notice(event: Event) -> SkyMap:
    """Return the map of one notice: as shipped, or a Fisher distribution of its error circle.

    Raises
    ------
    CatalogError
        The notice takes the event back, or says nowhere where it was.
    """
    if event.is_retraction:
        raise CatalogError(f"event {event.name} was retracted by this notice", mend="there is nothing to follow up")
    event_mjd = event.time_mjd if event.time_is_trigger else None  # when a follow-up observed says nothing of before
    if event.skymap_fits is not None:
        skymap = parse_skymap(event.skymap_fits, event.name, event.name)
        return skymap if event_mjd is None else dataclasses.replace(skymap, event_mjd=event_mjd)
    circle = event.circle
    if circle is None:
        mend = f"its map is at {event.skymap_url}" if event.skymap_url else "wait for a notice that tells more"
        raise CatalogError(f"this notice of event {event.name} does not say where it was", mend=mend)
    return fisher_skymap(
        event.name,
        event_mjd,
        circle.ra,
        circle.dec,
        circle.radius_deg,
        containment=circle.containment,
        systematic_deg=circle.systematic_deg,
    )


def _notice_of(given: str) -> tuple[str | None, Event | None]:
    """Return the name that a user gives to a map, and the notice, where what is given is one."""
    name, is_pair, path = given.partition("=")
    is_named = bool(is_pair) and not Path(given).is_file()
    file = Path(path) if is_named else Path(given)
    event = _notice(file) if file.is_file() and _is_notice(file) else None
    return name if is_named else None, event


def _renamed(skymap: SkyMap, name: str, given: str) -> SkyMap:
    """Return the map under the name that a user gives to its event, as it stands in columns and file names."""
    event = event_name(name)
    if not event:
        raise CatalogError(f"{given} names no event before the =", mend="give EVENT=FILE")
    return dataclasses.replace(skymap, event=event)


def _is_notice(file: Path) -> bool:
    if file.name.lower().endswith(_NOTICE_ENDS):
        return True
    with file.open("rb") as opened:
        head = opened.read(_HEAD_BYTES)
    if head.startswith(_GZIP):
        try:
            head = zlib.decompressobj(wbits=31).decompress(head, 16)
        except zlib.error:
            return False
    return head.lstrip()[:1] in (b"{", b"[", b"<") or head.startswith(_AVRO)


def _notice(file: Path) -> Event:
    if file.stat().st_size > _MOST_BYTES:
        raise CatalogError(f"notice has more than {_MOST_BYTES >> 20} MiB", source=str(file))
    return parse_notice(file.read_bytes(), str(file))
