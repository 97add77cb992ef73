"""Alerts of LIGO, Virgo and KAGRA, from JSON or Avro.

Format: the public alerts user guide of LIGO, Virgo and KAGRA and its schema igwn.alerts, versions 1.x. In JSON sky maps
are base64, in Avro bytes.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Any, NoReturn

from pipeline.errors import CatalogError
from pipeline.skymap.notices import avro
from pipeline.skymap.notices.event import STATUSES, Coincidence, Event, checked_name, iso_utc, number, tai_mjd

MAX_SKYMAP_BYTES = 64 << 20
MAX_NOTICES = 1_000
_TEST_PREFIXES = ("M", "T")
"""Superevents of mock data (MS...) and of tests (TS...)."""


def read_json(data: bytes, source: str) -> list[Event]:
    """Return the events of a JSON notice, of a list of them, or of one a line.

    Raises
    ------
    CatalogError
        It is no JSON, or no LVK alert.
    """
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise CatalogError(f"notice is no UTF-8 text: {error.reason}", source=source) from error
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    found: list[Any] = []
    place = 0
    try:
        while place < len(text):
            item, place = decoder.raw_decode(text, place)
            found += item if isinstance(item, list) else [item]
            while place < len(text) and text[place].isspace():
                place += 1
    except (ValueError, RecursionError) as error:
        raise CatalogError(f"notice is no JSON: {error}", source=source) from error
    return _events(found, source)


def read_avro(data: bytes, source: str) -> list[Event]:
    """Return the events of an Avro container, or of one bare Kafka message.

    Raises
    ------
    CatalogError
        It is damaged, or no LVK alert.
    """
    return _events(avro.read_records(data, source), source)


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _events(items: list[Any], source: str) -> list[Event]:
    if len(items) > MAX_NOTICES:
        raise CatalogError(f"{len(items)} notices in one file, more than {MAX_NOTICES}", source=source)
    return [event_of(item, source) for item in items]


def event_of(alert: Any, source: str) -> Event:
    """Return the event of one alert as JSON or Avro gives it.

    Raises
    ------
    CatalogError
        A field is missing or is not what the format says.
    """
    if not isinstance(alert, Mapping) or "superevent_id" not in alert or "alert_type" not in alert:
        raise CatalogError("notice is no LVK alert: superevent_id or alert_type is missing", source=source)
    status = str(alert["alert_type"]).replace("_", "").lower()
    if status not in STATUSES:
        raise CatalogError(f"alert_type of the notice is {str(alert['alert_type'])[:40]!r}", source=source)
    superevent = alert["superevent_id"]
    if not isinstance(superevent, str):
        raise CatalogError("superevent_id of the notice is no text", source=source)
    body = _part(alert, "event", source)
    if body is None and status != "retraction":
        raise CatalogError(f"notice is no {status}: it has no event", source=source)
    told: Mapping[str, Any] = body or {}
    time_mjd = None if told.get("time") is None else tai_mjd(told["time"], "event.time", source)
    if time_mjd is None and status != "retraction":
        raise CatalogError("event.time of the notice is missing", source=source)
    significant = told.get("significant")
    return Event(
        name=checked_name(superevent, source),
        kind="gw",
        stream="lvk",
        version=1,
        status=status,
        time_mjd=time_mjd,
        created_utc=iso_utc(alert.get("time_created"), "time_created", source),
        far_hz=number(told.get("far"), "event.far", source),
        classification=_classes(told, source),
        is_significant=significant if isinstance(significant, bool) else None,
        is_test=superevent.startswith(_TEST_PREFIXES) or told.get("search") == "MDC",
        skymap_fits=_skymap(told.get("skymap"), "event.skymap", source),
        external=_external(_part(alert, "external_coinc", source), source),
    )


def _part(alert: Mapping[str, Any], name: str, source: str) -> Mapping[str, Any] | None:
    found = alert.get(name)
    if found is not None and not isinstance(found, Mapping):
        raise CatalogError(f"{name} of the notice is {type(found).__name__}, no object", source=source)
    return found


def _classes(told: Mapping[str, Any], source: str) -> dict[str, float]:
    classes: dict[str, float] = {}
    for group in ("classification", "properties"):
        for name, value in (_part(told, group, source) or {}).items():
            share = number(value, f"{group}.{name}", source)
            if share is not None:
                classes[str(name)] = share
    return classes


def _external(told: Mapping[str, Any] | None, source: str) -> Coincidence | None:
    if told is None:
        return None

    def of(name: str) -> float | None:
        return number(told.get(name), f"external_coinc.{name}", source)

    return Coincidence(
        observatory=str(told.get("observatory") or ""),
        search=str(told.get("search") or ""),
        ivorn=str(told.get("ivorn") or ""),
        time_difference_sec=of("time_difference"),
        time_far_hz=of("time_coincidence_far"),
        time_sky_far_hz=of("time_sky_position_coincidence_far"),
        skymap_fits=_skymap(told.get("combined_skymap"), "external_coinc.combined_skymap", source),
    )


def _skymap(value: Any, what: str, source: str) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, str):
        if len(value) > MAX_SKYMAP_BYTES * 4 // 3:
            raise CatalogError(f"{what} of the notice has more than {MAX_SKYMAP_BYTES >> 20} MB", source=source)
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise CatalogError(f"{what} of the notice is no base64: {error}", source=source) from error
    if not isinstance(value, bytes) or len(value) > MAX_SKYMAP_BYTES:
        raise CatalogError(f"{what} of the notice is no sky map", source=source)
    return value or None
