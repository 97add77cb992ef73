"""Sources that move: matched where they were when the alert was taken.

A source moves uniformly along a straight line through space, as seen without light-travel time and without radial
velocity: its direction at time ``t`` is that of ``u0 + mu t``, with ``mu`` the proper motion in the plane tangent to
the sphere at ``u0`` (ESA 1997, The Hipparcos and Tycho Catalogues, SP-1200, vol. 1, eq. 1.5.18 with zeta = 0). That
holds at the poles too. The radial velocity left out (perspective acceleration, 2.05e-6 mu parallax v_r arcsec/yr^2)
changes a position within 50 years by less than a milliarcsecond for all but nearby fast stars; for Barnard's star, the
extreme, by 1.6 arcsec.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pipeline.xmatch.classes import SourceClasses, build_classes, join_classes
from pipeline.xmatch.index import MatchIndex
from pipeline.xmatch.kernel import separation_arcsec
from pipeline.xmatch.matching import find_pairs, radii
from pipeline.xmatch.pairs import Nearest, Pairs, sort_pairs
from pipeline.xmatch.positions import Positions

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

SLOW_MAS_YR = 20.0
"""Up to this proper motion a source is found through the match index of all, above through the classes."""
CENTURY_YEAR = 100.0
"""Classes of moving sources are made of how far each moves in this time; a match scales that to the time it needs."""

_TO_RADIANS = math.pi / 180.0
_MAS_TO_RADIANS = _TO_RADIANS / 3_600_000.0
_J2000_MJD_TAI = 51_544.5


def julian_epoch(mjd: ArrayLike) -> NDArray[np.float64]:
    """Return the Julian epoch (years) of TAI modified Julian dates; the 32 s between TAI and TT move nothing."""
    return 2000.0 + (np.asarray(mjd, dtype=np.float64) - _J2000_MJD_TAI) / 365.25


def speed_mas_yr(pmra: ArrayLike, pmdec: ArrayLike) -> NDArray[np.float64]:
    """Return the total proper motion; 0 where either component is unknown, as such a source is taken to stand still."""
    east, north = np.asarray(pmra, dtype=np.float64), np.asarray(pmdec, dtype=np.float64)
    speed = np.hypot(east, north)
    return np.where(np.isfinite(speed), speed, 0.0)


def motion_reach_arcsec(
    pmra: ArrayLike, pmdec: ArrayLike, epoch: float, first_year: float, last_year: float
) -> NDArray[np.float64]:
    """Return how far each source may be from its catalogued position at any time between two years.

    Parameters
    ----------
    pmra, pmdec : array_like, shape (n,)
        Proper motion in mas/yr, ``pmra`` times cos(dec); unknown is none.
    epoch : float
        Julian year of the positions.
    first_year, last_year : float
        The times.

    Returns
    -------
    numpy.ndarray, shape (n,)
        An upper bound, arcsec; 0 for a source that stands still.
    """
    return speed_mas_yr(pmra, pmdec) * (max(abs(first_year - epoch), abs(last_year - epoch)) / 1000.0)


def build_motion_classes(index: MatchIndex, pmra: ArrayLike, pmdec: ArrayLike) -> SourceClasses:
    """Put the fast sources of a catalog (above ``SLOW_MAS_YR``) into classes of how far they move in a century.

    Parameters
    ----------
    index : MatchIndex
        The catalog.
    pmra, pmdec : array_like, shape (rows of the index,)
        Proper motion in mas/yr, ``pmra`` times cos(dec); NaN where it is not known.
    """
    speed = speed_mas_yr(pmra, pmdec)
    return build_classes(index, np.where(speed > SLOW_MAS_YR, speed * (CENTURY_YEAR / 1000.0), np.nan))


def propagate(
    ra: ArrayLike, dec: ArrayLike, pmra: ArrayLike, pmdec: ArrayLike, years: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return where sources are some years later.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        Degrees.
    pmra, pmdec : array_like, shape (n,)
        mas/yr, ``pmra`` times cos(dec). Where either is not finite the source stays where it is.
    years : float or array_like, shape (n,)
        Julian years, negative for earlier.

    Returns
    -------
    tuple of numpy.ndarray, shape (n,)
        Right ascension in [0, 360) and declination, degrees; exactly those given where nothing moved.
    """
    values = np.broadcast_arrays(
        *(np.asarray(item, dtype=np.float64).reshape(-1) for item in (ra, dec, pmra, pmdec, years))
    )
    return _propagate(*(np.ascontiguousarray(item) for item in values))


def within_moving(
    positions: Positions,
    epoch_year: ArrayLike,
    radius_arcsec: ArrayLike,
    index: MatchIndex,
    classes: SourceClasses,
    pmra: NDArray[np.floating],
    pmdec: NDArray[np.floating],
    catalog_epoch: float,
) -> Pairs:
    """Find every source that was within the radius of the alert at the alert's time.

    Parameters
    ----------
    positions : Positions
        Alerts.
    epoch_year : float or array_like, shape (n,)
        Julian epoch of each alert; an alert without a time has no neighbour.
    radius_arcsec : float or array_like, shape (n,)
        One radius, or one for each alert; NaN or negative: no neighbour.
    index : MatchIndex
        The catalog.
    classes : SourceClasses
        Its fast sources, by :func:`build_motion_classes`.
    pmra, pmdec : numpy.ndarray, shape (rows of the index,)
        mas/yr, ``pmra`` times cos(dec), NaN where unknown: such a source stands still. May be memory-mapped.
    catalog_epoch : float
        Julian year of the catalog's positions.

    Returns
    -------
    Pairs
        Separations are those at the alert's time.
    """
    count = len(positions)
    years = np.broadcast_to(np.asarray(epoch_year, dtype=np.float64).reshape(-1), (count,)) - catalog_epoch
    radius = np.broadcast_to(radii(radius_arcsec, count), (count,))
    radius = np.where(radius >= 0.0, radius, np.nan)
    slow = find_pairs(positions, _wider(radius, SLOW_MAS_YR / 1000.0 * np.abs(years)), index, np.empty(0))
    kept = speed_mas_yr(pmra[slow[1]], pmdec[slow[1]]) <= SLOW_MAS_YR
    wider = [_wider(radius, largest / CENTURY_YEAR * np.abs(years)) for largest in classes.largest_arcsec]
    fast = join_classes(positions, classes, wider, with_reach=False)
    alert, row = (np.concatenate([slow[k][kept], fast[k]]) for k in (0, 1))
    separation = _separations(
        np.remainder(positions.ra, 360.0)[alert],
        positions.dec[alert],
        index.ra[row],
        index.dec[row],
        np.asarray(pmra[row], dtype=np.float64),
        np.asarray(pmdec[row], dtype=np.float64),
        years[alert],
    )
    inside = separation <= radius[alert]
    return sort_pairs(count, alert[inside], row[inside], separation[inside])


def nearest_moving(
    positions: Positions,
    epoch_year: ArrayLike,
    radius_arcsec: ArrayLike,
    index: MatchIndex,
    classes: SourceClasses,
    pmra: NDArray[np.floating],
    pmdec: NDArray[np.floating],
    catalog_epoch: float,
) -> Nearest:
    """Find the source that was nearest at the alert's time; parameters as in :func:`within_moving`."""
    pairs = within_moving(positions, epoch_year, radius_arcsec, index, classes, pmra, pmdec, catalog_epoch)
    return pairs.nearest(len(positions))


def _wider(radius: NDArray[np.float64], by: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return radii of candidates: a little more than the sum, so that rounding loses none."""
    return np.ascontiguousarray((radius + by) * (1.0 + 1e-9) + 1e-6)


# ------------------------------------------------------------------------------------------------ kernels
@njit(**_JIT)
def _moved(ra: float, dec: float, pmra: float, pmdec: float, years: float) -> tuple[float, float]:
    east = pmra * years * _MAS_TO_RADIANS
    north = pmdec * years * _MAS_TO_RADIANS
    if not (math.isfinite(east) and math.isfinite(north)) or (east == 0.0 and north == 0.0):
        return ra, dec
    sin_ra = math.sin(ra * _TO_RADIANS)
    cos_ra = math.cos(ra * _TO_RADIANS)
    sin_dec = math.sin(dec * _TO_RADIANS)
    cos_dec = math.cos(dec * _TO_RADIANS)
    x = cos_dec * cos_ra - east * sin_ra - north * sin_dec * cos_ra
    y = cos_dec * sin_ra + east * cos_ra - north * sin_dec * sin_ra
    z = sin_dec + north * cos_dec
    moved_ra = math.atan2(y, x) / _TO_RADIANS
    if moved_ra < 0.0:
        moved_ra += 360.0
    return moved_ra, math.atan2(z, math.sqrt(x * x + y * y)) / _TO_RADIANS


@njit(**_JIT)
def _propagate(ra: NDArray, dec: NDArray, pmra: NDArray, pmdec: NDArray, years: NDArray) -> tuple[NDArray, NDArray]:
    out_ra = np.empty(ra.size, np.float64)
    out_dec = np.empty(ra.size, np.float64)
    for k in range(ra.size):
        out_ra[k], out_dec[k] = _moved(ra[k] % 360.0, dec[k], pmra[k], pmdec[k], years[k])
    return out_ra, out_dec


@njit(**_JIT)
def _separations(
    ra: NDArray, dec: NDArray, source_ra: NDArray, source_dec: NDArray, pmra: NDArray, pmdec: NDArray, years: NDArray
) -> NDArray:
    out = np.empty(ra.size, np.float64)
    for k in range(ra.size):
        other_ra, other_dec = _moved(source_ra[k], source_dec[k], pmra[k], pmdec[k], years[k])
        cos_dec = math.cos(dec[k] * _TO_RADIANS)
        out[k] = separation_arcsec(ra[k], dec[k], cos_dec, other_ra, other_dec)
    return out
