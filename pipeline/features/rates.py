"""Rates, colours and ages of light curves from their first points on, per band.

Measured on the signed difference flux of the detections, in units of the brightest of them, so that a few points within
a night of discovery already say something; upper limits before the first detection bound the rise.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from pipeline.features.points import BANDS, JIT, BandLimits, BandPoints
from pipeline.photometry import AB_ZERO_POINT_MAG
from pipeline.schema import column

_MINIMUM_BASELINE_DAYS = 0.02  # about half an hour: below it photometric noise is all there is
_NIGHT_DAYS = 0.5  # two points this far apart are of different nights
_COLOR_BASELINE_DAYS = 1.0  # a color joins two bands within one day

_PER_BAND = (
    ("peak_mag", "mag", "AB magnitude of the largest positive difference flux"),
    ("last_flux_ratio", None, "last difference flux over the largest absolute one; signed"),
    ("rate_per_day", "1 / d", "slope of the difference flux, weighted by errors, over the largest absolute flux"),
    ("night_rate_mag_per_day", "mag / d", "change from the last detection at least 0.5 d before the newest to it"),
    ("limit_rate_mag_per_day", "mag / d", "change from the last upper limit before the first detection to it"),
    ("since_peak_days", "d", "time of the alert less that of the largest absolute difference flux"),
    ("span_days", "d", "last less first detection"),
    ("positive_fraction", None, "fraction of detections with positive difference flux"),
)
_COLORS = (("g", "r"), ("r", "i"))

NAMES = tuple(name for name, *_ in _PER_BAND)
"""Names of the float columns of each band."""

COLUMNS = (
    *(
        field
        for band in BANDS
        for field in (
            column(
                f"feat_{band}_n_detections", pa.int32(), nullable=False, doc=f"{band}: detections, each exposure once"
            ),
            *(
                column(f"feat_{band}_{name}", pa.float64(), unit=unit, doc=f"{band}: {doc}")
                for name, unit, doc in _PER_BAND
            ),
        )
    ),
    *(
        column(
            f"feat_{blue}_minus_{red}_mag",
            pa.float64(),
            unit="mag",
            doc=f"color of the newest positive {blue} and {red} detections within a day",
        )
        for blue, red in _COLORS
    ),
    column("feat_any_n_bands", pa.int32(), nullable=False, doc="bands with a detection"),
    column("feat_any_positive_fraction", pa.float64(), doc="fraction of detections with positive difference flux"),
    column("feat_any_age_days", pa.float64(), unit="d", doc="time of the alert less that of the first detection"),
)
"""Declared columns, in order."""


def rates(
    points: BandPoints, limits: BandLimits, mjd: NDArray[np.float64], first_mjd: NDArray[np.float64]
) -> list[pa.Array]:
    """Return the arrays of :data:`COLUMNS`.

    Parameters
    ----------
    points : BandPoints
        Detections of ``n`` light curves.
    limits : BandLimits
        Their upper limits.
    mjd, first_mjd : numpy.ndarray, shape (n,)
        Time of the alert and of the first detection, TAI days; NaN where not known.

    Returns
    -------
    list of pyarrow.Array
        In the order of :data:`COLUMNS`, null where not measurable.
    """
    n, n_bands = points.n, len(BANDS)
    counts = np.diff(points.offsets).reshape(n_bands, n)
    positive = np.zeros((n_bands, n))
    measured = np.full((len(NAMES), n_bands * n), np.nan)
    _measure(
        points.offsets, points.mjd, points.flux_njy, points.flux_err_njy,
        limits.offsets, limits.mjd, limits.flux_limit_njy, mjd, measured, positive.reshape(-1),
    )  # fmt: skip
    arrays: list[pa.Array] = []
    for b in range(n_bands):
        arrays.append(pa.array(counts[b], pa.int32()))
        arrays.extend(pa.array(row[b * n : (b + 1) * n], from_pandas=True) for row in measured)
    for blue, red in _COLORS:
        color = _color(points.offsets, points.mjd, points.flux_njy, n, BANDS.index(blue), BANDS.index(red))
        arrays.append(pa.array(color, from_pandas=True))
    n_all = counts.sum(axis=0)
    fraction = np.divide(positive.sum(axis=0), n_all, out=np.full(n, np.nan), where=n_all > 0)
    arrays.append(pa.array((counts > 0).sum(axis=0), pa.int32()))
    arrays.append(pa.array(fraction, from_pandas=True))
    arrays.append(pa.array(mjd - first_mjd, from_pandas=True))
    return arrays


@njit(**JIT)
def _measure(
    offsets: NDArray[np.int64],
    time: NDArray[np.float64],
    flux: NDArray[np.float64],
    error: NDArray[np.float64],
    limit_offsets: NDArray[np.int64],
    limit_time: NDArray[np.float64],
    limit_flux: NDArray[np.float64],
    alert_time: NDArray[np.float64],
    out: NDArray[np.float64],
    positive: NDArray[np.float64],
) -> None:
    n = alert_time.shape[0]
    for segment in range(offsets.shape[0] - 1):
        start, stop = offsets[segment], offsets[segment + 1]
        if start == stop:
            continue
        brightest, peak = start, -1
        for k in range(start, stop):
            positive[segment] += flux[k] > 0.0
            if abs(flux[k]) > abs(flux[brightest]):
                brightest = k
            if flux[k] > 0.0 and (peak < 0 or flux[k] > flux[peak]):
                peak = k
        scale = abs(flux[brightest])
        if peak >= 0:
            out[0, segment] = AB_ZERO_POINT_MAG - 2.5 * np.log10(flux[peak])
        out[1, segment] = flux[stop - 1] / scale
        if time[stop - 1] - time[start] >= _MINIMUM_BASELINE_DAYS:
            out[2, segment] = _slope(time[start:stop], flux[start:stop], error[start:stop]) / scale
        out[3, segment] = _night_rate(time[start:stop], flux[start:stop])
        first, last = limit_offsets[segment], limit_offsets[segment + 1]
        out[4, segment] = _limit_rate(time[start], flux[start], limit_time[first:last], limit_flux[first:last])
        out[5, segment] = alert_time[segment % n] - time[brightest]
        out[6, segment] = time[stop - 1] - time[start]
        out[7, segment] = positive[segment] / (stop - start)


@njit(**JIT)
def _slope(time: NDArray[np.float64], flux: NDArray[np.float64], error: NDArray[np.float64]) -> float:
    weight, mean_time, mean_flux = 0.0, 0.0, 0.0
    for k in range(time.shape[0]):
        w = 1.0 / (error[k] * error[k])
        weight += w
        mean_time += w * (time[k] - time[0])
        mean_flux += w * flux[k]
    mean_time /= weight
    mean_flux /= weight
    covariance, variance = 0.0, 0.0
    for k in range(time.shape[0]):
        w = 1.0 / (error[k] * error[k])
        shift = time[k] - time[0] - mean_time
        covariance += w * shift * (flux[k] - mean_flux)
        variance += w * shift * shift
    return covariance / variance if variance > 0.0 else np.nan


@njit(**JIT)
def _night_rate(time: NDArray[np.float64], flux: NDArray[np.float64]) -> float:
    newest = time.shape[0] - 1
    if flux[newest] <= 0.0:
        return np.nan
    for k in range(newest - 1, -1, -1):
        if time[newest] - time[k] >= _NIGHT_DAYS and flux[k] > 0.0:
            return -2.5 * np.log10(flux[newest] / flux[k]) / (time[newest] - time[k])
    return np.nan


@njit(**JIT)
def _limit_rate(
    first_time: float, first_flux: float, limit_time: NDArray[np.float64], limit_flux: NDArray[np.float64]
) -> float:
    if first_flux <= 0.0:
        return np.nan
    for k in range(limit_time.shape[0] - 1, -1, -1):
        if first_time - limit_time[k] >= _MINIMUM_BASELINE_DAYS:
            return -2.5 * np.log10(first_flux / limit_flux[k]) / (first_time - limit_time[k])
    return np.nan


@njit(**JIT)
def _color(
    offsets: NDArray[np.int64], time: NDArray[np.float64], flux: NDArray[np.float64], n: int, blue: int, red: int
) -> NDArray[np.float64]:
    out = np.full(n, np.nan)
    for row in range(n):
        i, j = offsets[blue * n + row + 1] - 1, offsets[red * n + row + 1] - 1
        first_i, first_j = offsets[blue * n + row], offsets[red * n + row]
        # Walk back from the newest pair: the younger of the two steps back until both are positive and close.
        while i >= first_i and j >= first_j:
            if flux[i] <= 0.0:
                i -= 1
            elif flux[j] <= 0.0:
                j -= 1
            elif abs(time[i] - time[j]) <= _COLOR_BASELINE_DAYS:
                out[row] = -2.5 * np.log10(flux[i] / flux[j])
                break
            elif time[i] > time[j]:
                i -= 1
            else:
                j -= 1
    return out
