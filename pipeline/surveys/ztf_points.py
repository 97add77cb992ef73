"""The measurements of ZTF packets: from the records of candidates and histories to points in TAI and nJy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline import night
from pipeline.lightcurve import MISSING, Bool, Float, Int, Points, empty_points, is_usable
from pipeline.photometry import MAG_PER_RELATIVE_FLUX, flux_from_mag
from pipeline.points import room
from pipeline.surveys.records import Records

N_BANDS = 3
DEFAULT_EXPOSURE_SEC = 30.0
MAX_EXPOSURE_SEC = 3600.0
"""ZTF exposes for 30 to 300 s: a longer time is none."""
MAX_REFERENCE_ARCSEC = 1.5
"""A source of the reference image nearer than this is the one under the alert; its flux is part of the total."""
FIRST_NIGHT_MJD = 57754  # 2017-01-01, nid 0
LAST_MJD = 90000.0
FORCED_SENTINELS = (-99999.0,)  # a forced flux of -999 is a measurement
_SIGNS = ("t", "1", "true", "f", "0", "false")
_SIGN_OF = np.array([1.0, 1.0, 1.0, -1.0, -1.0, -1.0, np.nan])  # the last is that of code -1
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class Part:
    """Records that are measured in one way; all arrays (m,).

    The flux is ``scale`` times that of the magnitude ``mag``. ``error`` is the error of the magnitude, or, of forced
    photometry, has the unit of ``scale``.
    """

    records: Records
    row: Int
    mag: Float
    scale: Float
    error: Float
    is_forced: bool


def sign_of(records: Records) -> Float:
    """Return the sign of the difference flux, float64 (m,); NaN where it is not told."""
    return _SIGN_OF[records.codes(_SIGNS, "isdiffpos")]


def detections(records: Records, row: Int) -> Part:
    """Return the part of records that have a difference magnitude."""
    return Part(records, row, records.floats("magpsf"), sign_of(records), records.floats("sigmapsf"), False)


def detections_and_limits(records: Records, row: Int) -> tuple[Part, Bool]:
    """Return the part of a history in which what has no difference magnitude is an upper limit, and what has one."""
    mag, sign = records.floats("magpsf"), sign_of(records)
    is_detection = ~np.isnan(mag)
    mag = np.where(is_detection, mag, records.floats("diffmaglim"))
    return Part(records, row, mag, np.where(is_detection, sign, 1.0), records.floats("sigmapsf"), False), is_detection


def forced(records: Records, row: Int) -> Part:
    """Return the part of records that have forced photometry."""
    error = records.floats("forcediffimfluxunc", sentinels=FORCED_SENTINELS)
    return Part(records, row, records.floats("magzpsci"), forced_counts(records), error, True)


def forced_counts(records: Records) -> Float:
    """Return the forced difference flux in counts, float64 (m,); NaN where there is none."""
    return records.floats("forcediffimflux", sentinels=FORCED_SENTINELS)


def measure(parts: Sequence[Part]) -> tuple[Points, Bool]:
    """Return the points of all parts, one part after the other, and which have time, flux and band, bool (m,)."""
    ends = [0, *np.cumsum([len(part.row) for part in parts]).tolist()]
    m = ends[-1]
    points, mag, error_of_reference = empty_points(m), room(2 * m, np.float64).reshape(2, m), room(m, np.float64)
    places = [slice(begin, end) for begin, end in pairwise(ends)]
    for part, at in zip(parts, places, strict=True):
        points.row[at], points.is_forced[at], mag[0, at] = part.row, part.is_forced, part.mag
        _epochs(
            *(part.records.floats(name) for name in ("jd", "exptime", "distnr", "magnr")),
            *(part.records.integers(name) for name in ("fid", "pid", "field", "rcid")),
            *(values[at] for values in (points.mjd, points.band, points.exposure, points.reference, mag[1])),
        )
    points.mjd[:] = night.utc_to_tai(points.mjd)
    own, reference = flux_from_mag(mag)
    for part, at in zip(parts, places, strict=True):
        _fluxes(
            *(part.scale, part.error, part.is_forced, own[at], reference[at], part.records.floats("sigmagnr")),
            *(points.flux_njy[at], points.flux_err_njy[at], points.total_flux_njy[at], error_of_reference[at]),
        )
    has_total = ~np.isnan(points.total_flux_njy)
    points.total_flux_err_njy[:] = np.nan
    np.hypot(points.flux_err_njy, error_of_reference, out=points.total_flux_err_njy, where=has_total)
    return points, is_usable(points)


@njit(**_JIT)
def _epochs(
    jd: Float,
    exptime: Float,
    distnr: Float,
    magnr: Float,
    fid: Int,
    pid: Int,
    field: Int,
    rcid: Int,
    mjd_utc: Float,
    band: NDArray[np.int8],
    exposure: Int,
    reference: Int,
    reference_mag: Float,
) -> None:
    for i in range(len(jd)):
        start = jd[i] - night.MJD_ZERO_JD
        seconds = exptime[i] if exptime[i] > 0.0 and exptime[i] <= MAX_EXPOSURE_SEC else DEFAULT_EXPOSURE_SEC
        mjd_utc[i] = start + seconds / (2.0 * night.SECONDS_PER_DAY)
        if not (start >= FIRST_NIGHT_MJD and start <= LAST_MJD):
            mjd_utc[i] = np.nan
        band[i] = fid[i] - 1 if fid[i] >= 1 and fid[i] <= N_BANDS else -1
        exposure[i] = pid[i] if pid[i] > 0 else MISSING
        reference[i] = field[i] * 100 + rcid[i] if field[i] > 0 and rcid[i] >= 0 else MISSING
        is_under = distnr[i] >= 0.0 and distnr[i] <= MAX_REFERENCE_ARCSEC
        reference_mag[i] = magnr[i] if is_under else np.nan


@njit(**_JIT)
def _fluxes(
    scale: Float,
    error: Float,
    is_forced: bool,
    own: Float,
    reference: Float,
    sigmagnr: Float,
    flux: Float,
    flux_err: Float,
    total_flux: Float,
    reference_err: Float,
) -> None:
    for i in range(len(scale)):
        flux[i] = scale[i] * own[i]
        if is_forced:
            counts_err = error[i] * own[i]
            flux_err[i] = counts_err if counts_err > 0.0 else np.nan
        else:
            flux_err[i] = own[i] * error[i] / MAG_PER_RELATIVE_FLUX
        total_flux[i] = flux[i] + reference[i]
        reference_err[i] = reference[i] * sigmagnr[i] / MAG_PER_RELATIVE_FLUX


@njit(**_JIT)
def repeats_trigger(row: Int, own: Int, pid: Int, candid: Int, trigger_pid: Int) -> Bool:
    """Return which records of a history, (m,), are the trigger itself: by candid, else by exposure.

    Parameters
    ----------
    row, own, pid : numpy.ndarray of int64, (m,)
        Row, candid and exposure of each record; :data:`pipeline.lightcurve.MISSING` where it has none.
    candid, trigger_pid : numpy.ndarray of int64, (n,)
        Those of the alert.
    """
    out = np.empty(len(row), dtype=np.bool_)
    for i in range(len(row)):
        if own[i] == MISSING:
            out[i] = pid[i] != MISSING and pid[i] == trigger_pid[row[i]]
        else:
            out[i] = own[i] == candid[row[i]]
    return out
