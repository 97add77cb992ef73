"""Light curves cut by band: ragged numpy arrays that the feature kernels share.

For ``n`` light curves there are ``len(BANDS) * n`` segments: segment ``b * n + i`` is what light curve ``i`` has in
band ``BANDS[b]``, in the order of the light curve, which is that of time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from pipeline import lightcurve

BANDS = ("u", "g", "r", "i", "z", "y")
"""Bands that features are measured in; points of other bands are left out."""

JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


@dataclass(frozen=True)
class BandPoints:
    """Points of ``n`` light curves, by band.

    Attributes
    ----------
    n : int
        Light curves.
    offsets : numpy.ndarray, shape (len(BANDS) * n + 1,)
        Segment ``k`` is ``[offsets[k], offsets[k + 1])``.
    mjd, flux_njy, flux_err_njy, total_flux_njy, total_flux_err_njy : numpy.ndarray, shape (n_points,)
        The points; a total flux that is not known is NaN.
    """

    n: int
    offsets: NDArray[np.int64]
    mjd: NDArray[np.float64]
    flux_njy: NDArray[np.float64]
    flux_err_njy: NDArray[np.float64]
    total_flux_njy: NDArray[np.float64]
    total_flux_err_njy: NDArray[np.float64]


@dataclass(frozen=True)
class BandLimits:
    """Upper limits of ``n`` light curves, by band: ``offsets`` as in :class:`BandPoints`, 5 sigma limits."""

    offsets: NDArray[np.int64]
    mjd: NDArray[np.float64]
    flux_limit_njy: NDArray[np.float64]


def detections(light_curve: pa.ChunkedArray | pa.Array) -> BandPoints:
    """Cut the detections of light curves by band, each exposure once.

    Kept of the primary points (:func:`pipeline.lightcurve.is_primary`) are those that are not forced photometry, with a
    finite time, a finite flux other than zero and a positive error.

    Parameters
    ----------
    light_curve : pyarrow array
        ``n`` light curves of :data:`pipeline.tables.LIGHT_CURVE_TYPE`.

    Returns
    -------
    BandPoints
        The detections.
    """
    ends = lightcurve.offsets(light_curve)
    band = lightcurve.codes(lightcurve.elements(light_curve, "band"), BANDS)
    forced = lightcurve.booleans(lightcurve.elements(light_curve, "is_forced"))
    exposure = lightcurve.integers(lightcurve.elements(light_curve, "exposure"))
    mjd, flux, error, total, total_error = (
        lightcurve.floats(lightcurve.elements(light_curve, name))
        for name in ("mjd", "flux_njy", "flux_err_njy", "total_flux_njy", "total_flux_err_njy")
    )
    keep = ~forced & np.isfinite(mjd) & np.isfinite(flux) & (flux != 0.0) & np.isfinite(error) & (error > 0.0)
    keep &= lightcurve.is_primary(ends, exposure, band, forced)
    segments, index = by_band(ends, band, keep, len(BANDS))
    return BandPoints(len(ends) - 1, segments, mjd[index], flux[index], error[index], total[index], total_error[index])


def limits(upper_limits: pa.ChunkedArray | pa.Array) -> BandLimits:
    """Cut upper limits (:data:`pipeline.tables.UPPER_LIMITS_TYPE`) by band; those without a positive flux drop out."""
    ends = lightcurve.offsets(upper_limits)
    band = lightcurve.codes(lightcurve.elements(upper_limits, "band"), BANDS)
    mjd, flux = (lightcurve.floats(lightcurve.elements(upper_limits, name)) for name in ("mjd", "flux_limit_njy"))
    segments, index = by_band(ends, band, np.isfinite(mjd) & np.isfinite(flux) & (flux > 0.0), len(BANDS))
    return BandLimits(segments, mjd[index], flux[index])


@njit(**JIT)
def by_band(
    ends: NDArray[np.int64], band: NDArray[np.int8], keep: NDArray[np.bool_], n_bands: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return segment offsets, shape ``(n_bands * n + 1,)``, and the indices of the kept points in segment order."""
    n = ends.shape[0] - 1
    segments = np.zeros(n_bands * n + 1, dtype=np.int64)
    for row in range(n):
        for k in range(ends[row], ends[row + 1]):
            if keep[k] and band[k] >= 0:
                segments[band[k] * n + row + 1] += 1
    for segment in range(n_bands * n):
        segments[segment + 1] += segments[segment]
    cursor = segments[:-1].copy()
    index = np.empty(segments[-1], dtype=np.int64)
    for row in range(n):
        for k in range(ends[row], ends[row + 1]):
            if keep[k] and band[k] >= 0:
                segment = band[k] * n + row
                index[cursor[segment]] = k
                cursor[segment] += 1
    return segments, index
