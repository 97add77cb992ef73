"""VOEvents (XML) of the General Coordinates Network and of others.

Format: IVOA recommendation VOEvent 2.0 (Seaman et al. 2011). The XML is read without document type or entities, so that
a notice can make this process neither grow nor read anything else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from xml.parsers import expat

from pipeline.errors import CatalogError
from pipeline.skymap.notices.event import STATUSES, ErrorCircle, Event, checked_name, iso_utc, number, tai_mjd
from pipeline.skymap.notices.streams import Stream, stream_of

MAX_BYTES = 4 << 20
MAX_DEPTH = 64
_TEST_FLAGS = ("Test_Submission", "Test_Notice", "Test", "InternalTest", "HardwareInj")
_RETRACTION_FLAGS = ("Retraction", "Def_NOT_a_GRB")
"""``Def_NOT_a_GRB``: the packet definition of GCN calls it a retraction."""
_SYSTEM = re.compile(r"UTC-(FK5|ICRS)(-.*)?")
"""Coordinate systems whose times and places are ours as they stand."""
_LVC_CLASSES = ("Classification", "Properties")
_SECONDS_PER_YEAR = 365.25 * 86400.0
_INTEGRAL_TRIGGER_BITS = 0xFFFF
"""Below: number of the trigger; above: which of its notices this is (TrigID 75578 is notice 1 of trigger 10042)."""


@dataclass
class _Voevent:
    """What is read of the XML: attributes of the root, params by name and by group, text by path."""

    root: str = ""
    attributes: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    groups: dict[str, dict[str, str]] = field(default_factory=dict)
    text: dict[str, str] = field(default_factory=dict)
    system: str = "UTC-ICRS"
    unit: str = "deg"

    def flag(self, *names: str) -> bool:
        return any(self.params.get(name, "").strip().lower() in ("true", "1") for name in names)


class _RefusedError(Exception):
    """The XML has something that no notice has."""


def _parse(data: bytes) -> _Voevent:
    told = _Voevent()
    path: list[str] = []
    group: list[str] = []

    def start(name: str, attributes: dict[str, str]) -> None:
        local = name.rpartition(":")[2]
        path.append(local)
        if len(path) > MAX_DEPTH:
            raise _RefusedError(f"is nested deeper than {MAX_DEPTH}")
        if len(path) == 1:
            told.root, told.attributes = local, attributes
        elif local == "Group":
            group.append(attributes.get("name", ""))
        elif local == "AstroCoords":
            told.system = attributes.get("coord_system_id", told.system)
        elif local == "Position2D":
            told.unit = attributes.get("unit", told.unit)
        elif local == "Param" and "What" in path:
            name, value = attributes.get("name", ""), attributes.get("value", "")
            told.params.setdefault(name, value)
            if group:
                told.groups.setdefault(group[-1], {})[name] = value

    def end(name: str) -> None:
        if path.pop() == "Group":
            group.pop()

    def text(data: str) -> None:
        if data.strip():
            place = "/".join(path[1:])
            told.text[place] = told.text.get(place, "") + data

    def refuse(*_: object) -> None:
        raise _RefusedError("declares a document type or entities")

    parser = expat.ParserCreate()
    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = start, end, text
    parser.StartDoctypeDeclHandler = parser.EntityDeclHandler = refuse
    parser.ExternalEntityRefHandler = refuse  # type: ignore[assignment]
    parser.Parse(data, True)
    return told


def read_voevent(data: bytes, source: str) -> Event:
    """Return the event of one VOEvent.

    Raises
    ------
    CatalogError
        It is no XML, no VOEvent, too large, has a document type or entities, or lacks identifier or time.
    """
    if len(data) > MAX_BYTES:
        raise CatalogError(f"VOEvent has more than {MAX_BYTES >> 20} MB", source=source)
    try:
        told = _parse(data)
    except expat.ExpatError as error:
        raise CatalogError(f"notice is no XML: {error}", source=source) from error
    except _RefusedError as error:
        raise CatalogError(f"XML of the notice {error}", source=source) from error
    except (ValueError, LookupError) as error:  # an encoding that is none
        raise CatalogError(f"notice is no XML: {error}", source=source) from error
    if told.root != "VOEvent" or "ivorn" not in told.attributes:
        raise CatalogError("notice is XML, but no VOEvent", source=source)
    role = told.attributes.get("role", "observation")
    if role not in ("observation", "prediction", "test"):
        raise CatalogError(f"VOEvent is no event: its role is {role[:40]!r}", source=source)
    return _event(told, source)


def _event(told: _Voevent, source: str) -> Event:
    if not _SYSTEM.fullmatch(told.system) or told.unit not in ("deg", "degrees"):
        raise CatalogError(
            f"VOEvent is in {told.system[:40]} and {told.unit[:20]}, not in UTC, FK5 or ICRS, and degrees",
            source=source,
        )
    identifier = told.attributes["ivorn"].removeprefix("ivo://").partition("/")[2]
    created = iso_utc(told.text.get("Who/Date"), "Who/Date", source)
    stream = stream_of(identifier, created)
    time = next((value for path, value in told.text.items() if path.endswith("TimeInstant/ISOTime")), None)
    is_lvk = stream.name == "lvk"
    status = _status(told, stream, source)
    if time is None and not (is_lvk and status == "retraction"):
        raise CatalogError("VOEvent tells no time of the event (ISOTime)", source=source)
    return Event(
        name=_name(told, stream, identifier, source),
        kind=stream.kind,
        stream=stream.name,
        version=_version(told),
        status=status,
        time_mjd=None if time is None else tai_mjd(time, "ISOTime", source),
        created_utc=created,
        time_is_trigger=stream.time_is_trigger,
        far_hz=_far_hz(told, source),
        classification=_classes(told, is_lvk, source),
        is_test=_is_test(told, stream),
        skymap_url=told.params.get("skymap_fits"),
        circle=None if is_lvk else _circle(told, stream, source),
    )


def _status(told: _Voevent, stream: Stream, source: str) -> str:
    if stream.name == "lvk":
        given = told.params.get("AlertType", "")
        status = given.replace("_", "").lower()
        if status not in STATUSES:
            raise CatalogError(f"AlertType of the VOEvent is {given[:40]!r}", source=source)
        return status
    if told.flag(*_RETRACTION_FLAGS):
        return "retraction"
    return "update" if stream.kind == "neutrino" and _version(told) > 1 else stream.status


def _version(told: _Voevent) -> int:
    """Return the number that the notice gives itself: LVK counts from 1, IceCube's revisions from 0."""
    text = told.params.get("Rev", "")
    if text.isdecimal() and len(text) < 6:
        return int(text) + 1
    text = told.params.get("Pkt_Ser_Num", "") if "GraceID" in told.params else ""
    return max(int(text), 1) if text.isdecimal() and len(text) < 6 else 1


def _name(told: _Voevent, stream: Stream, identifier: str, source: str) -> str:
    if stream.name == "lvk":
        return checked_name(told.params.get("GraceID", ""), source)
    if not stream.trigger:
        return checked_name(identifier.rpartition("#")[2] or identifier, source)
    if stream.kind == "neutrino":
        trigger = f"{told.params.get('run_id', '')}_{told.params.get('event_id', '')}"
    else:
        trigger = told.params.get("TrigID", "")
    if not trigger.strip("_"):
        raise CatalogError("VOEvent names no trigger (TrigID, run_id, event_id)", source=source)
    if stream.name == "integral" and trigger.isdecimal() and len(trigger) < 12:
        trigger = str(int(trigger) & _INTEGRAL_TRIGGER_BITS)
    return checked_name(stream.trigger + trigger, source)


def _is_test(told: _Voevent, stream: Stream) -> bool:
    is_mock = stream.name == "lvk" and told.params.get("GraceID", "").startswith(("M", "T"))
    return told.attributes.get("role") == "test" or told.flag(*_TEST_FLAGS) or is_mock


def _far_hz(told: _Voevent, source: str) -> float | None:
    """Return the false alarm rate: LVK gives it in Hz, IceCube a year."""
    far = number(told.params.get("FAR"), "FAR", source)
    return far if far is None or "GraceID" in told.params else far / _SECONDS_PER_YEAR


def _classes(told: _Voevent, is_lvk: bool, source: str) -> dict[str, float]:
    given = {"signalness": told.params["signalness"]} if "signalness" in told.params else {}
    if is_lvk:
        given = {name: value for group in _LVC_CLASSES for name, value in told.groups.get(group, {}).items()}
    found = {name: number(value, name, source) for name, value in given.items()}
    return {name: value for name, value in found.items() if value is not None}


def _circle(told: _Voevent, stream: Stream, source: str) -> ErrorCircle | None:
    """Return the error circle; None where the notice gives no place, or a radius of 0, which stands for none."""
    texts = {path.rsplit("/", 1)[1]: value for path, value in told.text.items() if "Position2D/" in path}
    radius_text = told.params.get("src_error_90", texts.get("Error2Radius"))
    ra, dec = (number(texts.get(name), f"Position2D {name}", source) for name in ("C1", "C2"))
    radius = number(radius_text, "Error2Radius", source)
    if ra is None or dec is None or not radius:
        return None
    if not (0 <= ra <= 360 and -90 <= dec <= 90 and 0 < radius <= 180):
        raise CatalogError(f"VOEvent has a place off the sky: {ra}, {dec}, radius {radius} deg", source=source)
    return ErrorCircle(ra % 360.0, dec, radius, stream.containment, stream.systematic_deg)
