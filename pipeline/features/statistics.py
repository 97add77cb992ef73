"""The 26 statistics of Malanchev et al. (2021, MNRAS 502, 5147, doi:10.1093/mnras/stab316), per band.

They are those of the package ``light-curve``: 22 extractors, built once per process, 26 numbers.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from pipeline.features.points import BANDS, JIT, BandPoints
from pipeline.photometry import AB_ZERO_POINT_MAG, MAG_PER_RELATIVE_FLUX
from pipeline.schema import column

_MAG = "mag"
_RATE = "mag / d"

# name, unit, detections needed, what it is
_STATISTICS: tuple[tuple[str, str | None, int, str], ...] = (
    ("mean", _MAG, 1, "mean magnitude"),
    ("weighted_mean", _MAG, 1, "mean magnitude weighted by inverse variance"),
    ("standard_deviation", _MAG, 2, "standard deviation of the magnitude"),
    ("median", _MAG, 1, "median magnitude"),
    ("amplitude", _MAG, 1, "half the range of magnitudes"),
    ("beyond_1_std", None, 2, "fraction of points beyond one standard deviation of the mean"),
    ("cusum", None, 2, "range of cumulative sums"),
    ("inter_percentile_range_10", _MAG, 1, "range between the 10th and 90th percentile"),
    ("kurtosis", None, 4, "excess kurtosis"),
    ("linear_trend", _RATE, 3, "slope of the fit without errors"),
    ("linear_trend_sigma", _RATE, 3, "its standard deviation"),
    ("linear_trend_noise", _MAG, 3, "scatter about that fit"),
    ("linear_fit_slope", _RATE, 3, "slope of the fit weighted by errors"),
    ("linear_fit_slope_sigma", _RATE, 3, "its standard deviation"),
    ("linear_fit_reduced_chi2", None, 3, "reduced chi squared of that fit"),
    ("magnitude_percentage_ratio_40_5", None, 2, "range 40 % to 60 % over range 5 % to 95 %"),
    ("magnitude_percentage_ratio_20_10", None, 2, "range 20 % to 80 % over range 10 % to 90 %"),
    ("maximum_slope", _RATE, 2, "steepest slope between neighbours"),
    ("median_absolute_deviation", _MAG, 1, "median absolute deviation from the median"),
    ("median_buffer_range_percentage_10", None, 1, "fraction of points within a tenth of the range of the median"),
    ("percent_amplitude", _MAG, 1, "largest deviation from the median"),
    ("mean_variance", None, 2, "standard deviation over mean"),
    ("anderson_darling_normal", None, 4, "Anderson-Darling statistic of normality"),
    ("chi2", None, 2, "reduced chi squared of a constant"),
    ("skew", None, 3, "skewness"),
    ("stetson_k", None, 2, "Stetson K"),
)

NAMES = tuple(name for name, *_ in _STATISTICS)
"""Names of the 26 statistics, in the order of the package."""

MINIMUM_DETECTIONS = {name: minimum for name, _, minimum, _ in _STATISTICS}
"""Detections in a band below which a statistic is not measurable."""

COLUMNS = tuple(
    column(f"feat_{band}_{name}", pa.float64(), unit=unit, doc=f"{band}: {text}; from {minimum} detections")
    for band in BANDS
    for name, unit, minimum, text in _STATISTICS
)
"""Declared columns: 26 for each of the bands u g r i z y."""


_OF_TIME = [i for i, name in enumerate(NAMES) if name.startswith(("linear_", "maximum_slope"))]
"""Places of the statistics that need points at different times."""


@functools.cache
def extractor() -> Any:
    """Return the 22 extractors as one, built once per process (building costs as much as ten light curves)."""
    import light_curve as lc

    return lc.Extractor(
        lc.Mean(),
        lc.WeightedMean(),
        lc.StandardDeviation(),
        lc.Median(),
        lc.Amplitude(),
        lc.BeyondNStd(nstd=1),
        lc.Cusum(),
        lc.InterPercentileRange(quantile=0.1),
        lc.Kurtosis(),
        lc.LinearTrend(),
        lc.LinearFit(),
        lc.MagnitudePercentageRatio(quantile_numerator=0.4, quantile_denominator=0.05),
        lc.MagnitudePercentageRatio(quantile_numerator=0.2, quantile_denominator=0.1),
        lc.MaximumSlope(),
        lc.MedianAbsoluteDeviation(),
        lc.MedianBufferRangePercentage(quantile=0.1),
        lc.PercentAmplitude(),
        lc.MeanVariance(),
        lc.AndersonDarlingNormal(),
        lc.ReducedChi2(),
        lc.Skew(),
        lc.StetsonK(),
    )


def statistics(points: BandPoints) -> NDArray[np.float64]:
    """Return the 26 statistics of every light curve in every band.

    Parameters
    ----------
    points : BandPoints
        Detections of ``n`` light curves.

    Returns
    -------
    numpy.ndarray, shape (len(BANDS) * n, 26)
        NaN where a statistic is not measurable.
    """
    return of_series(*magnitudes(points))


def of_series(
    offsets: NDArray[np.int64], time: NDArray[np.float64], value: NDArray[np.float64], error: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the 26 statistics of ragged series.

    Parameters
    ----------
    offsets : numpy.ndarray, shape (k + 1,)
        Series ``j`` is ``[offsets[j], offsets[j + 1])``.
    time, value, error : numpy.ndarray, shape (n_points,)
        Finite; time does not fall within a series; errors are positive. Values of any unit.

    Returns
    -------
    numpy.ndarray, shape (k, 26)
        NaN where a statistic is not measurable, as for a series without points.
    """
    out = np.full((len(offsets) - 1, len(NAMES)), np.nan)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled) == 0:
        return out
    ends = np.append(offsets[filled], offsets[-1])  # series without points take no room: their offsets drop out
    # At one time only, no slope can be measured (the package would abort): its other statistics ask for order alone.
    instant = time[ends[1:] - 1] == time[ends[:-1]]
    places = np.where(np.repeat(instant, np.diff(ends)), np.arange(ends[0], ends[-1], dtype=np.float64), time)
    series = pa.StructArray.from_arrays([pa.array(places), pa.array(value), pa.array(error)], ["t", "m", "sigma"])
    out[filled] = extractor().many(
        pa.ListArray.from_arrays(pa.array(ends.astype(np.int32)), series),
        arrow_fields={"t": "t", "m": "m", "sigma": "sigma"},
        fill_value=np.nan,
        sorted=True,
        check=False,
        n_jobs=1,
    )
    out[np.ix_(filled[instant], _OF_TIME)] = np.nan
    out[~np.isfinite(out)] = np.nan
    return out


def magnitudes(
    points: BandPoints,
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the magnitudes that the statistics are measured on.

    A segment whose total flux is known at half of its points or more is measured on the total flux, at the points where
    that is known and positive: a variable star's own brightness. Any other is measured on the absolute difference flux:
    a transient. The two are never mixed in one segment, and the choice looks at nothing but the segment.

    Returns
    -------
    offsets : numpy.ndarray, shape (len(BANDS) * n + 1,)
    mjd, mag, mag_err : numpy.ndarray, shape (n_points,)
    """
    offsets, index, total = _choose(points.offsets, points.total_flux_njy, points.total_flux_err_njy)
    flux = np.where(total, points.total_flux_njy[index], np.abs(points.flux_njy[index]))
    error = np.where(total, points.total_flux_err_njy[index], points.flux_err_njy[index])
    return offsets, points.mjd[index], AB_ZERO_POINT_MAG - 2.5 * np.log10(flux), MAG_PER_RELATIVE_FLUX * error / flux


@njit(**JIT)
def _choose(
    offsets: NDArray[np.int64], total_flux: NDArray[np.float64], total_error: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    n = offsets.shape[0] - 1
    out = np.zeros(n + 1, dtype=np.int64)
    index = np.empty(total_flux.shape[0], dtype=np.int64)
    is_total = np.empty(total_flux.shape[0], dtype=np.bool_)
    cursor = 0
    for segment in range(n):
        start, stop = offsets[segment], offsets[segment + 1]
        known = 0
        for k in range(start, stop):
            known += np.isfinite(total_flux[k])
        use_total = 2 * known >= stop - start
        for k in range(start, stop):
            if not use_total or (total_flux[k] > 0.0 and np.isfinite(total_flux[k]) and total_error[k] > 0.0):
                index[cursor] = k
                is_total[cursor] = use_total
                cursor += 1
        out[segment + 1] = cursor
    return out, index[:cursor], is_total[:cursor]
