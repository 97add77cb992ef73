"""Credible volumes in closed form: how much probability lies in voxels at least as dense as a given one.

In a pixel the distance has the density ``norm r^2 N(r; mu, sigma)``, so that the probability per volume is
``rho norm N(r; mu, sigma)``: the ``r^2`` of the shell cancels. Where that exceeds some value, ``r`` lies in one
interval about ``mu``, and the probability of the interval is a sum of error functions. No grid of voxels is made.

References
----------
Singer et al. 2016, ApJL 829, L15 and its supplement, doi:10.3847/2041-8205/829/1/L15.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

Array = NDArray[np.float64]
_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_SQRT_HALF = math.sqrt(0.5)
_INVERSE_SQRT_2PI = 1.0 / math.sqrt(2.0 * math.pi)
_DEG2_PER_SR = (180.0 / math.pi) ** 2

_WIDE = 40.5
"""Logarithm of the ratio to the peak beyond which, at 9 sigma, all of a pixel is denser."""
_NEGLIGIBLE = 1e-6
"""Probability of all pixels together that are left out of the table, and beyond its end."""
_TOLERANCE = 3e-5
"""By how much a level in the table may differ from the straight line between its neighbours."""
_STEP = 0.02
_HEAVY = 1e-3
_MOST_ROWS = 4096


@dataclass(frozen=True, eq=False)
class VolumeTable:
    """The credible level in volume as a function of the density.

    Attributes
    ----------
    log_peak : numpy.ndarray of float64, shape (n,)
        Natural logarithm of ``rho norm / (sqrt(2 pi) sigma)`` of each row of the map, in Mpc^-3; NaN without distance.
    log_density : numpy.ndarray of float64, shape (k,)
        Ascending natural logarithms of a density in Mpc^-3.
    level : numpy.ndarray of float64, shape (k,)
        Probability of all places at least as dense, of all that has a distance.
    """

    log_peak: Array
    log_density: Array
    level: Array


def tabulate(density_per_deg2: Array, mass: Array, mu_mpc: Array, sigma_mpc: Array, norm: Array) -> VolumeTable:
    """Return the table of a map.

    Parameters
    ----------
    density_per_deg2, mass : numpy.ndarray of float64, shape (n,)
        Probability per square degree, and of the whole row.
    mu_mpc, sigma_mpc, norm : numpy.ndarray of float64, shape (n,)
        DISTMU, DISTSIGMA (Mpc), DISTNORM (Mpc^-2). A row where one is not finite, or sigma or norm is not positive,
        has no distance.

    Notes
    -----
    The table's points are chosen so that straight lines between them are off by about 1e-4 at most. A row's whole
    probability is what its distance function holds from 0 to infinity, and the sum of all is taken for 1.
    """
    with np.errstate(all="ignore"):
        peak = density_per_deg2 * _DEG2_PER_SR * norm / sigma_mpc * _INVERSE_SQRT_2PI
        log_peak = np.log(peak)
        has = np.isfinite(mu_mpc) & np.isfinite(peak) & (sigma_mpc > 0) & (norm > 0)
        highest = log_peak - 0.5 * np.square(np.minimum(mu_mpc, 0.0) / sigma_mpc)  # at distance 0 where mu is below
    log_peak[~has] = np.nan
    weight = mass * norm
    weight[~has] = 0.0
    whole = _whole_masses(weight, mu_mpc, sigma_mpc)
    rows = _heaviest(np.where(np.isfinite(whole) & np.isfinite(highest), whole, 0.0))
    if not len(rows):
        return VolumeTable(log_peak, np.zeros(1), np.ones(1))
    rows = rows[np.argsort(-highest[rows], kind="stable")]
    columns = (highest[rows], log_peak[rows], mu_mpc[rows], sigma_mpc[rows], weight[rows], whole[rows])
    total = float(whole[rows].sum())
    points, level = _grid(columns, total)
    return VolumeTable(log_peak, points, level)


def _heaviest(mass: Array) -> NDArray[np.int64]:
    """Return the rows that hold all but a negligible part of the probability."""
    by = np.argsort(mass, kind="stable")
    total = np.cumsum(mass[by])
    return by[total > _NEGLIGIBLE * total[-1]] if len(total) else by


def _grid(columns: tuple[Array, ...], total: float) -> tuple[Array, Array]:
    """Return ascending log densities, and levels, refined until lines between them are right."""

    def at(points: Array) -> Array:
        return np.minimum(_denser_mass(points, *columns) / total, 1.0)

    top = float(columns[0][0])
    reach = 1.0
    while reach < 1e6 and at(np.array([top - reach]))[0] < 1.0 - _NEGLIGIBLE:
        reach *= 1.5
    # Where a heavy row sets in, the level has a kink, as of a square root, that must not lie between two points.
    kinks = columns[0][columns[5] > _HEAVY * total]
    points = np.union1d(top - np.linspace(0.0, reach, 33), kinks[kinks > top - reach])
    level = at(points)
    left = np.arange(len(points) - 1)  # intervals not yet known to be straight, by their left end
    while len(left) and len(points) + len(left) <= _MOST_ROWS:
        middle = 0.5 * (points[left] + points[left + 1])
        found = at(middle)
        bend = np.abs(found - 0.5 * (level[left] + level[left + 1]))
        open_ = (bend > _TOLERANCE) | (level[left] - level[left + 1] > _STEP)
        points = np.insert(points, left + 1, middle)
        level = np.insert(level, left + 1, found)
        ours = left + np.arange(len(left))  # where the left ends are now, their middles one further
        left = np.sort(np.concatenate([ours[open_], ours[open_] + 1]))
    return points, np.maximum.accumulate(level[::-1])[::-1]


# ------------------------------------------------------------------------------------------------ kernels
@njit(**_JIT)
def _normal_mass(low: float, high: float) -> float:
    """Return the probability of a standard normal variable between two values, exact in the tails too."""
    if low > 0.0:
        return 0.5 * (math.erfc(low * _SQRT_HALF) - math.erfc(high * _SQRT_HALF))
    if high < 0.0:
        return 0.5 * (math.erfc(-high * _SQRT_HALF) - math.erfc(-low * _SQRT_HALF))
    return 0.5 * (math.erf(high * _SQRT_HALF) - math.erf(low * _SQRT_HALF))


@njit(**_JIT)
def second_moment(mean: float, sigma: float, low: float, high: float) -> float:
    """Return the integral of ``r^2 N(r; mean, sigma)`` from ``low`` to ``high``; ends may be infinite."""
    x = (low - mean) / sigma
    y = (high - mean) / sigma
    mass = _normal_mass(x, y)
    at_x = _INVERSE_SQRT_2PI * math.exp(-0.5 * x * x)
    at_y = _INVERSE_SQRT_2PI * math.exp(-0.5 * y * y)
    edges = (y * at_y if math.isfinite(y) else 0.0) - (x * at_x if math.isfinite(x) else 0.0)
    return (mean * mean + sigma * sigma) * mass - 2.0 * mean * sigma * (at_y - at_x) - sigma * sigma * edges


@njit(**_JIT)
def _whole_masses(weight: Array, mu: Array, sigma: Array) -> Array:
    out = np.zeros(weight.size)
    for i in range(weight.size):
        if weight[i] > 0.0:
            out[i] = weight[i] * second_moment(mu[i], sigma[i], 0.0, np.inf)
    return out


@njit(**_JIT)
def _denser_mass(
    points: Array, highest: Array, log_peak: Array, mu: Array, sigma: Array, weight: Array, whole: Array
) -> Array:
    """Return the probability of all places denser than each point; rows come by descending ``highest``."""
    out = np.zeros(points.size)
    for k in range(points.size):
        total = 0.0
        for i in range(mu.size):
            if highest[i] <= points[k]:
                break
            depth = log_peak[i] - points[k]
            if depth >= _WIDE and mu[i] >= 0.0:
                total += whole[i]
                continue
            half = sigma[i] * math.sqrt(2.0 * depth)
            total += weight[i] * second_moment(mu[i], sigma[i], max(mu[i] - half, 0.0), mu[i] + half)
        out[k] = total
    return out


@njit(**_JIT)
def levels_about(
    distance: Array, error: Array, log_peak: Array, mu: Array, sigma: Array, log_density: Array, level: Array
) -> Array:
    """Return the mean level over ``N(distance, error)``, cut at 0, of each place; exact for the straight lines.

    On a line the level is ``a + b (r - mu)^2``, so that its mean is a sum of closed forms over the intervals of ``r``
    that belong to the lines, one on each side of ``mu``.
    """
    out = np.empty(distance.size)
    for i in range(distance.size):
        low = max(distance[i] - 9.0 * error[i], 0.0)
        high = distance[i] + 9.0 * error[i]
        whole = _normal_mass((low - distance[i]) / error[i], (high - distance[i]) / error[i])
        mean = whole  # where the density is below the table, the level is 1
        for k in range(log_density.size - 1):
            if log_density[k] >= log_peak[i]:
                break
            far = sigma[i] * math.sqrt(2.0 * (log_peak[i] - log_density[k]))
            near = sigma[i] * math.sqrt(2.0 * max(log_peak[i] - log_density[k + 1], 0.0))
            slope = (level[k + 1] - level[k]) / (log_density[k + 1] - log_density[k])
            flat = level[k] + slope * (log_peak[i] - log_density[k]) - 1.0
            bend = -0.5 * slope / (sigma[i] * sigma[i])
            for side in range(2):
                begin = max(mu[i] + near if side else mu[i] - far, low)
                end = min(mu[i] + far if side else mu[i] - near, high)
                if begin < end:
                    part = _normal_mass((begin - distance[i]) / error[i], (end - distance[i]) / error[i])
                    square = second_moment(distance[i] - mu[i], error[i], begin - mu[i], end - mu[i])
                    mean += flat * part + bend * square
        out[i] = min(max(mean / whole, 0.0), 1.0)
    return out
