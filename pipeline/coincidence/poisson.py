"""From an expected number to a probability; the closed form of a survey that looks everywhere, always."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Float = NDArray[np.float64]


def chance(expected: ArrayLike) -> Float:
    """Return the probability of at least one unrelated transient where so many are expected.

    Parameters
    ----------
    expected : array_like of float64, shape (n,)
        Expected number of unrelated transients that rank at least as high; NaN stays NaN.

    Returns
    -------
    numpy.ndarray of float64, shape (n,)
        ``1 - exp(-expected)``, exact to the last bits for small numbers. For transients that come in groups it is too
        large, never too small (see ``docs/significance.md``).
    """
    return -np.expm1(-np.asarray(expected, dtype=np.float64))


def randomised(p_chance: ArrayLike, expected_total: ArrayLike, uniform: ArrayLike) -> Float:
    """Return p-values that are uniform although some events have no candidate at all.

    An event without candidate has ``p = 1``, an atom of probability ``exp(-expected_total)``. Here, and only to test
    uniformity, the atom is spread evenly over the values above all that a candidate can have.

    Parameters
    ----------
    p_chance : array_like of float64, shape (n,)
        p-value of the best candidate of each event; NaN where there is none.
    expected_total : array_like of float64, shape (n,)
        Expected number of unrelated transients in the whole region and window of each event.
    uniform : array_like of float64, shape (n,)
        Numbers in (0, 1) that belong to the events, not to their order: draw them by a counter-based generator.

    Returns
    -------
    numpy.ndarray of float64, shape (n,)
        Uniform on (0, 1) where the transients are a Poisson process.
    """
    p = np.asarray(p_chance, dtype=np.float64)
    empty = np.exp(-np.asarray(expected_total, dtype=np.float64))
    return np.where(np.isnan(p), 1.0 - empty * np.asarray(uniform, dtype=np.float64), p)


def statistic_uniform(searched_area_deg2: ArrayLike, delay_day: ArrayLike) -> Float:
    """Return searched area times delay, deg2 day, shape (n,); NaN before the event."""
    area, delay = np.asarray(searched_area_deg2, dtype=np.float64), np.asarray(delay_day, dtype=np.float64)
    return np.where(delay >= 0.0, area * delay, np.nan)


def expected_uniform(
    statistic_deg2_day: ArrayLike, rate_per_deg2_day: float, area_deg2: float, window_day: float
) -> Float:
    """Return the expected number of unrelated transients whose area times delay is at most this.

    Where transients come at one rate ``R`` over the whole region ``A`` and window ``T``, searched area and delay of an
    unrelated one are uniform and independent; the part of the rectangle below the hyperbola ``a d = s`` is
    ``s (1 + ln(A T / s))``: the two-parameter coincidence of LIGO-T1500534 (2015), as used by Connaughton et al. 2016,
    ApJL 826, L6, doi:10.3847/2041-8205/826/1/L6, and for joint false-alarm rates with sky maps by A. L. Urban (2016,
    thesis, University of Wisconsin-Milwaukee).

    Parameters
    ----------
    statistic_deg2_day : array_like of float64, shape (n,)
        Searched area times delay, of :func:`statistic_uniform`.
    rate_per_deg2_day, area_deg2, window_day : float
        Rate, area of the searched region, length of the window.

    Returns
    -------
    numpy.ndarray of float64, shape (n,)
        Between 0 and ``R A T``; NaN stays NaN.
    """
    full = area_deg2 * window_day
    s = np.minimum(np.asarray(statistic_deg2_day, dtype=np.float64), full)
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(s > 0.0, s * (1.0 + np.log(full / s)), np.where(np.isnan(s), np.nan, 0.0))
    return rate_per_deg2_day * share
