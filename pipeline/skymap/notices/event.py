"""What a notice tells of an event."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import erfa

from pipeline.errors import CatalogError
from pipeline.skymap import event_name

STATUSES = ("earlywarning", "preliminary", "initial", "update", "retraction")
"""What a notice can be, in the order in which they follow each other."""
KINDS = ("gw", "grb", "neutrino", "other")
MAX_NAME = 64
_MJD_ZERO_JD = 2400000.5
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d(?:\.\d{1,12})?)\s*(?:Z|UTC?|[+-]00:?00)?")


@dataclass(frozen=True)
class ErrorCircle:
    """A place on the sky with a radius that holds a stated share of the probability.

    Attributes
    ----------
    ra, dec : float
        Centre, ICRS degrees.
    radius_deg : float
        The notice's own radius.
    containment : float
        Probability within ``radius_deg``; see :data:`pipeline.skymap.notices.STREAMS`.
    systematic_deg : float
        Radius of the same containment that has to be added in quadrature; 0 where the notice has it in.
    """

    ra: float
    dec: float
    radius_deg: float
    containment: float
    systematic_deg: float = 0.0


@dataclass(frozen=True)
class Coincidence:
    """A notice of another observatory that was found to coincide.

    Attributes
    ----------
    observatory, search, ivorn : str
        Who found what: ``Fermi``, ``GRB``, and the identifier of the other notice.
    time_difference_sec : float or None
        Time of the event minus that of the other.
    time_far_hz, time_sky_far_hz : float or None
        False alarm rate by time, and by time and place.
    skymap_fits : bytes or None
        The combined sky map.
    """

    observatory: str
    search: str
    ivorn: str
    time_difference_sec: float | None = None
    time_far_hz: float | None = None
    time_sky_far_hz: float | None = None
    skymap_fits: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Event:
    """One version of what is known of an event.

    Attributes
    ----------
    name : str
        The superevent or trigger as it stands in columns: lower case, digits and underscores; triggers are preceded by
        their instrument (``gbm680782656``), as their numbers are of each instrument's own.
    kind : str
        One of :data:`KINDS`.
    stream : str
        ``lvk``, ``fermi-gbm``, ``swift-bat``, ``icecube-gold`` ...
    version : int
        From 1, in the order of issue: what the notice says of itself, or 1; an event store numbers anew what it holds.
    status : str
        One of :data:`STATUSES`.
    time_mjd : float or None
        Time of the event, TAI; None in the retraction of an LVK event.
    created_utc : str
        When the notice was written, ISO 8601, UTC.
    time_is_trigger : bool
        Whether the time is the event's own; in notices of follow-up (Swift XRT, UVOT) it is that of the observation.
    far_hz : float or None
        False alarm rate.
    classification : mapping of str to float
        Probability of each class, and what else the notice gives as probability, as named there.
    is_significant : bool or None
        LVK: whether it passed the threshold for significant alerts.
    is_test : bool
        Test, simulated or injected; matched with nothing unless asked for.
    skymap_fits : bytes or None
        The sky map as shipped.
    skymap_url : str or None
        Where the map can be had, in notices that only name it.
    circle : ErrorCircle or None
        For instruments that give a place and a radius.
    external : Coincidence or None
        What it coincides with.
    """

    name: str
    kind: str
    stream: str
    version: int
    status: str
    time_mjd: float | None
    created_utc: str
    time_is_trigger: bool = True
    far_hz: float | None = None
    classification: Mapping[str, float] = field(default_factory=dict)
    is_significant: bool | None = None
    is_test: bool = False
    skymap_fits: bytes | None = field(default=None, repr=False)
    skymap_url: str | None = None
    circle: ErrorCircle | None = None
    external: Coincidence | None = None

    @property
    def is_retraction(self) -> bool:
        """Whether the notice takes the event back."""
        return self.status == "retraction"

    @property
    def is_localised(self) -> bool:
        """Whether the notice itself says where: by a sky map or an error circle."""
        return self.skymap_fits is not None or self.circle is not None

    @cached_property
    def digest(self) -> str:
        """The sha256 of what the notice says; the same for one notice in JSON and in Avro, whatever its number."""
        told = {name: value for name, value in self.as_dict().items() if name != "version"}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    @property
    def order(self) -> tuple[str, int, bool, str]:
        """What sorts the versions of one event, whatever order they come in."""
        return self.created_utc, STATUSES.index(self.status), self.external is not None, self.digest

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as JSON holds it; sky maps are named by their sha256."""
        told = {name: getattr(self, name) for name in self.__dataclass_fields__}
        told["classification"] = dict(sorted(self.classification.items()))
        told["circle"] = None if self.circle is None else dict(vars(self.circle))
        told["external"] = None if self.external is None else dict(vars(self.external))
        for place in (told, told["external"]):
            if place is not None:
                place["skymap_sha256"] = sha256_of(place.pop("skymap_fits"))
        return told


def event_from_dict(told: Mapping[str, Any], maps: Mapping[str, bytes]) -> Event:
    """Return the event of :meth:`Event.as_dict`; ``maps`` gives sky maps by sha256, and may lack some."""
    values = dict(told)
    values["skymap_fits"] = maps.get(values.pop("skymap_sha256") or "")
    if values["circle"] is not None:
        values["circle"] = ErrorCircle(**values["circle"])
    if values["external"] is not None:
        external = dict(values["external"])
        external["skymap_fits"] = maps.get(external.pop("skymap_sha256") or "")
        values["external"] = Coincidence(**external)
    return Event(**values)


def sha256_of(data: bytes | None) -> str | None:
    """Return the sha256 of a map, None of none."""
    return None if data is None else hashlib.sha256(data).hexdigest()


def checked_name(text: str, source: str) -> str:
    """Return an event's name for columns and files.

    Raises
    ------
    CatalogError
        Nothing of it is left, or it is longer than :data:`MAX_NAME`.
    """
    name = event_name(text)
    if not 0 < len(name) <= MAX_NAME:
        raise CatalogError(f"notice names its event {text[:80]!r}, which cannot name columns", source=source)
    return name


def iso_utc(text: object, what: str, source: str) -> str:
    """Return a time as ``YYYY-MM-DDThh:mm:ss[.s]Z``, so that times sort as text.

    Raises
    ------
    CatalogError
        It is no ISO 8601 time in UTC.
    """
    match = _TIME.fullmatch(str(text).strip())
    if match is None:
        raise CatalogError(f"{what} of the notice is {str(text)[:40]!r}, no time in UTC", source=source)
    year, month, day, hour, minute, second = match.groups()
    whole, _, fraction = second.partition(".")
    fraction = fraction.rstrip("0")
    return f"{year}-{month}-{day}T{hour}:{minute}:{whole}{'.' + fraction if fraction else ''}Z"


def tai_mjd(utc: str, what: str, source: str) -> float:
    """Return the TAI of a time in UTC, MJD; a leap second (``23:59:60``) is a time like others.

    Raises
    ------
    CatalogError
        It is no ISO 8601 time, or lies before 1972 or after 2100.
    """
    match = _TIME.fullmatch(iso_utc(utc, what, source))
    assert match is not None  # noqa: S101 - iso_utc gives nothing else
    *numbers, second = match.groups()
    year, month, day, hour, minute = map(int, numbers)
    if not 1972 <= year <= 2100:
        raise CatalogError(f"{what} of the notice is {utc}, not between 1972 and 2100", source=source)
    try:
        one, two = erfa.utctai(*erfa.dtf2d("UTC", year, month, day, hour, minute, float(second)))
    except (erfa.ErfaError, ValueError) as error:
        raise CatalogError(f"{what} of the notice is {utc}, no time of the calendar", source=source) from error
    return float((one - _MJD_ZERO_JD) + two)


def number(value: object, what: str, source: str) -> float | None:
    """Return a finite number, None for none.

    Raises
    ------
    CatalogError
        It is something else.
    """
    if value is None:
        return None
    try:
        found = float(value) if isinstance(value, (str, int, float)) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise CatalogError(f"{what} of the notice is {str(value)[:40]!r}, no number", source=source)
    return found
