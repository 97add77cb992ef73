"""Which parts can hold an answer: nights, times and cones against what the ledgers keep."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline import healpix
from pipeline.errors import InputError
from pipeline.paths import parse_night

LEDGER_ORDER = 6
"""HEALPix order of the cells that a ledger lists for each part."""
_CELL_RADIUS_DEG = 1.2
"""No point of an order-6 cell is farther than this from the cell's centre (the largest, at the poles, reaches 0.92)."""

Nights = int | str | Iterable[int | str] | None


@dataclass(frozen=True)
class Part:
    """One part of a night as the ledger lists it; ``files`` maps dataset to absolute path."""

    survey: str
    night: int
    name: str
    rows: int
    files: Mapping[str, str]
    mjd_min: float | None = None
    mjd_max: float | None = None
    cells: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Cone:
    """A cone on the sky; ICRS degrees."""

    ra: float
    dec: float
    radius_deg: float

    @classmethod
    def parse(cls, cone: Any) -> Cone:
        """Build a cone from ``(ra, dec, radius)``: degrees, or astropy angles.

        Raises
        ------
        InputError
            Not three finite angles, a declination beyond the poles, a radius outside 0 to 180 degrees.
        """
        mend = "give cone=(ra_deg, dec_deg, radius_deg); the radius may be an astropy angle such as 5 * u.arcsec"
        try:
            ra, dec, radius = (_degrees(angle) for angle in cone)
        except (TypeError, ValueError) as error:
            raise InputError(f"{cone!r} is not a cone", mend=mend) from error
        if not all(math.isfinite(angle) for angle in (ra, dec, radius)):
            raise InputError(f"{cone!r} is not a cone: an angle is not finite", mend=mend)
        if not (-90 <= dec <= 90 and 0 <= radius <= 180):
            raise InputError(f"{cone!r} is not a cone: dec is -90 to 90, radius 0 to 180 degrees", mend=mend)
        return cls(ra % 360.0, dec, radius)

    def contains(self, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.bool_]:
        """Return which positions (degrees, shape (n,)) lie within the cone, its edge included."""
        return separation_deg(self.ra, self.dec, ra, dec) <= self.radius_deg

    def cells(self) -> frozenset[int]:
        """Return the cells of the ledger's order that the cone may touch: never too few."""
        ra, dec = _centres()
        near = separation_deg(self.ra, self.dec, ra, dec) <= self.radius_deg + _CELL_RADIUS_DEG
        return frozenset(np.flatnonzero(near).tolist())


def _degrees(angle: Any) -> float:
    if hasattr(angle, "to_value"):
        return float(angle.to_value("deg"))
    if isinstance(angle, str):
        raise TypeError("a text is not an angle")
    return float(angle)


@functools.cache
def _centres() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return healpix.pix2ang(LEDGER_ORDER, np.arange(12 * 4**LEDGER_ORDER))


def separation_deg(ra0: float, dec0: float, ra: ArrayLike, dec: ArrayLike) -> NDArray[np.float64]:
    """Return the angle between one position and others, shape (n,), in degrees.

    The formula of Vincenty (1975) keeps its precision at any separation, the antipode included.
    """
    lon = np.radians(np.asarray(ra, dtype=np.float64) - ra0)
    lat = np.radians(np.asarray(dec, dtype=np.float64))
    lat0 = math.radians(dec0)
    sin_lat, cos_lat, sin_lat0, cos_lat0 = np.sin(lat), np.cos(lat), math.sin(lat0), math.cos(lat0)
    across = np.hypot(cos_lat * np.sin(lon), cos_lat0 * sin_lat - sin_lat0 * cos_lat * np.cos(lon))
    along = sin_lat0 * sin_lat + cos_lat0 * cos_lat * np.cos(lon)
    return np.degrees(np.arctan2(across, along))


def choose_nights(nights: Nights, present: list[int]) -> list[int]:
    """Return the nights asked for that are present, ascending.

    Parameters
    ----------
    nights : int, str, iterable of them, or None
        None is every night; ``"20181129:20181201"`` is a range, both ends included and either end optional.
    present : list of int
        Nights of the archive.

    Raises
    ------
    InputError
        Not a night or range; a single night that the archive does not have (a range may be empty).
    """
    if nights is None:
        return sorted(present)
    asked = list(nights) if isinstance(nights, Iterable) and not isinstance(nights, str) else [nights]
    chosen: set[int] = set()
    for item in asked:
        if isinstance(item, str) and ":" in item:
            first, _, last = item.partition(":")
            low = parse_night(first) if first else 0
            high = parse_night(last) if last else 99999999
            if low > high:
                raise InputError(f"{item!r} ends before it starts", mend="write START:END")
            chosen.update(night for night in present if low <= night <= high)
        else:
            night = parse_night(str(item))
            if night not in present:
                raise InputError(f"night {night} is not in the archive", mend=_nearest(night, present))
            chosen.add(night)
    return sorted(chosen)


def _nearest(night: int, present: list[int]) -> str:
    if not present:
        return "the archive holds no nights yet: run `alertmill run`"
    near = sorted(sorted(present, key=lambda other: abs(other - night))[:3])
    return f"it holds {len(present):,} nights, the nearest are {', '.join(map(str, near))}"


def parse_mjd(mjd: Any) -> tuple[float, float] | None:
    """Return ``(first, last)`` of a time range in MJD (TAI); None at either end is open."""
    if mjd is None:
        return None
    try:
        first, last = mjd
        low = -math.inf if first is None else float(first)
        high = math.inf if last is None else float(last)
    except (TypeError, ValueError) as error:
        raise InputError(f"{mjd!r} is not a time range", mend="give mjd=(first, last)") from error
    if math.isnan(low) or math.isnan(high):
        raise InputError(f"{mjd!r} is not a time range", mend="give mjd=(first, last)")
    return low, high


def prune(parts: Iterable[Part], cone: Cone | None, mjd: tuple[float, float] | None) -> list[Part]:
    """Return the parts that can hold a row within the cone and the time range."""
    cells = None if cone is None else cone.cells()
    kept = []
    for part in parts:
        if part.rows == 0:
            continue
        if cells is not None and part.cells is not None and cells.isdisjoint(part.cells):
            continue
        if mjd is not None and not _overlaps(part, mjd):
            continue
        kept.append(part)
    return kept


def _overlaps(part: Part, mjd: tuple[float, float]) -> bool:
    if part.mjd_min is None or part.mjd_max is None:
        return True
    return part.mjd_max >= mjd[0] and part.mjd_min <= mjd[1]
