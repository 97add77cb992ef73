"""The measurements of Rubin packets, and of simulations that use their form: from records to points in TAI and nJy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline import night
from pipeline.lightcurve import MISSING, Bool, Float, Int, Points, empty_points, is_usable
from pipeline.surveys.records import Records

BANDS = ("u", "g", "r", "i", "z", "y")
_BAND_SPELLINGS = (*BANDS, "Y")
SAMPLE_CCD_VISIT = 111111
DETECTORS = 1000  # exposure = visit * DETECTORS + detector
_MAX_VISIT = 2**62 // DETECTORS
_LARGEST_MJD = 1.0e8  # a larger number is seconds since 1970
_UNIX_EPOCH_MJD = 40587.0
_FIRST_MJD, _LAST_MJD = 41683.0, 90000.0  # 1973 (whole years of leap seconds before) to 2105
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class Dialect:
    """What differs between Rubin and the simulations that use its packets.

    Attributes
    ----------
    njy_per_unit : float
        Flux unit of the packets, nJy.
    exposure : callable
        ``(records, mjd) -> int64 (m,)``, exposure and detector.
    """

    njy_per_unit: float
    exposure: Callable[[Records, Float], Int]


@dataclass(frozen=True)
class Part:
    """Records of one kind and the row of each, int64 (m,)."""

    records: Records
    row: Int
    is_forced: bool


def mid_tai(records: Records) -> Float:
    """Return TAI at mid-visit, MJD (n,); NaN where it is missing or not a time of the survey."""
    return _mid_tai(records.floats("midpointMjdTai", "midPointTai"))


def band_of(records: Records) -> NDArray[np.int8]:
    """Return the place in :data:`BANDS`, int8 (n,); -1 where unknown. ``Y`` is y."""
    code = records.codes(_BAND_SPELLINGS, "band", "filterName")
    return np.minimum(code, np.int8(len(BANDS) - 1))


def exposure_of(records: Records, mjd: Float) -> Int:
    """Return visit * 1000 + detector; of old packets ``ccdVisitId``; the time is not needed."""
    return _exposure(records.integers("visit"), records.integers("detector"), records.ids("ccdVisitId"))


def measure(parts: Sequence[Part], dialect: Dialect) -> tuple[Points, Bool]:
    """Return the points of all parts, one part after the other, and which have time, flux and band, bool (m,)."""
    ends = [0, *np.cumsum([part.records.n for part in parts]).tolist()]
    points = empty_points(ends[-1])
    unit = dialect.njy_per_unit
    points.reference[:] = MISSING
    for part, (begin, end) in zip(parts, pairwise(ends), strict=True):
        at, records = slice(begin, end), part.records
        points.row[at], points.is_forced[at] = part.row, part.is_forced
        points.mjd[at], points.band[at] = mid_tai(records), band_of(records)
        points.exposure[at] = dialect.exposure(records, points.mjd[at])
        np.multiply(records.floats("psfFlux", "psFlux"), unit, out=points.flux_njy[at])
        np.multiply(records.floats("scienceFlux", "totFlux"), unit, out=points.total_flux_njy[at])
        _positive(records.floats("psfFluxErr", "psFluxErr"), unit, points.flux_err_njy[at])
        _positive(records.floats("scienceFluxErr", "totFluxErr"), unit, points.total_flux_err_njy[at])
    return points, is_usable(points)


@njit(**_JIT)
def _mid_tai(time: Float) -> Float:
    out = np.empty(len(time))
    for i in range(len(time)):
        mjd = _UNIX_EPOCH_MJD + time[i] / night.SECONDS_PER_DAY if time[i] > _LARGEST_MJD else time[i]
        out[i] = mjd if mjd >= _FIRST_MJD and mjd <= _LAST_MJD else np.nan
    return out


@njit(**_JIT)
def _exposure(visit: Int, detector: Int, ccd_visit: Int) -> Int:
    out = np.empty(len(visit), dtype=np.int64)
    for i in range(len(visit)):
        if 0 < visit[i] < _MAX_VISIT and 0 <= detector[i] < DETECTORS:
            out[i] = visit[i] * DETECTORS + detector[i]
        else:
            out[i] = ccd_visit[i] if ccd_visit[i] != SAMPLE_CCD_VISIT else MISSING
    return out


@njit(**_JIT)
def _positive(values: Float, unit: float, out: Float) -> None:
    for i in range(len(values)):
        scaled = values[i] * unit
        out[i] = scaled if scaled > 0.0 else np.nan
