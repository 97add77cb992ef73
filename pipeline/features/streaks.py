"""Alerts along great circles: the kernels of the glint search.

Everything is on unit vectors of one exposure. For each point the bearings of the great circles through it that pass
within the tolerance of another point form an interval; sorting the ends of the intervals counts, for every pair, the
points near its circle: O(n^2 log n) instead of the O(n^3) of trying every pair against every point, with equal counts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.features.points import JIT

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

ARCSEC = math.pi / (180.0 * 3600.0)
MINIMUM_POINTS = 5
PAIR_SEPARATION_ARCSEC = 10.0
SEARCH_TOLERANCE_ARCSEC = 5.0
FIT_TOLERANCE_ARCSEC = 1.0
ISOLATED_END = 10.0 / 11.0  # an end point whose gap is this much of the whole length is not of the streak
DISTINCT_ARCSEC = 5.0  # points closer together along the streak than this count as one
SIDE_ARCSEC = 300.0  # half-width of the band beside a streak in which the density of other alerts is counted
CHANCE_CEILING = 1e-2  # streaks expected by chance in the exposure, above which one is not reported


@dataclass(frozen=True)
class Streak:
    """One streak: its points (places in the exposure's arrays) and how good it is.

    ``chance`` is how many streaks as good the exposure would give by accident.
    """

    members: Int
    chance: float
    length_arcsec: float
    residual_arcsec: float


def find(xyz: Float) -> list[Streak]:
    """Return the streaks of one exposure, the richest circle first; no point is in two.

    Parameters
    ----------
    xyz : numpy.ndarray, shape (n, 3)
        Unit vectors of the candidates, in an order that is not that of arrival: it decides between equals.

    Returns
    -------
    list of Streak
    """
    if len(xyz) < MINIMUM_POINTS:
        return []
    first, second, count = circle_counts(xyz)
    used = np.zeros(len(xyz), dtype=np.bool_)
    streaks = []
    for pair in np.lexsort((second, first, -count)):
        i, k = int(first[pair]), int(second[pair])
        if used[i] or used[k]:
            continue
        best: Streak | None = None
        for degree in (1, 2):
            found = Streak(*_refine(xyz, i, k, used, degree))
            if best is None or found.chance < best.chance:
                best = found
        if best is not None and best.chance <= CHANCE_CEILING:
            used[best.members] = True
            streaks.append(best)
    return streaks


@njit(**JIT)
def chance(n_points: int, n_near: int, degree: int, n_distinct: int, n_beside: int) -> float:
    """Return how many streaks as good as one found the exposure would give by chance.

    Parameters
    ----------
    n_points : int
        Candidates of the exposure: every pair of them spans a circle.
    n_near : int
        Points within 5 arcsec of that circle: each may bend it when the degree is 2.
    degree : int
        1 for a great circle, 2 for one that is bent.
    n_distinct : int
        Points of the streak; ``degree + 1`` of them fix its shape.
    n_beside : int
        Other candidates in the band beside it: with one added they give the density, whatever the sky's.

    Returns
    -------
    float
        Number of shapes tried times the Poisson chance that a shape has so many points.
    """
    expected = (n_beside + 1.0) * FIT_TOLERANCE_ARCSEC / (SIDE_ARCSEC - FIT_TOLERANCE_ARCSEC)
    shapes = 0.5 * n_points * (n_points - 1) * (n_near if degree == 2 else 1)
    k = n_distinct - degree - 1
    term, tail = math.exp(-expected + k * math.log(expected) - math.lgamma(k + 1.0)), 0.0
    while term > 1e-17 * tail:
        tail += term
        k += 1
        term *= expected / k
    return shapes * tail


def unit_vectors(ra_deg: Float, dec_deg: Float) -> Float:
    """Return unit vectors, shape (n, 3), of ICRS positions in degrees, shape (n,)."""
    ra, dec = np.radians(ra_deg), np.radians(dec_deg)
    return np.column_stack([np.cos(dec) * np.cos(ra), np.cos(dec) * np.sin(ra), np.sin(dec)])


@njit(**JIT)
def circle_counts(xyz: Float) -> tuple[Int, Int, Int]:
    """Return the pairs whose great circle has at least 5 points near it, and how many.

    Parameters
    ----------
    xyz : numpy.ndarray, shape (n, 3)
        Unit vectors.

    Returns
    -------
    first, second, count : numpy.ndarray of int64, shape (n_pairs,)
        ``first < second``, more than 10 arcsec apart; ``count`` of points within 5 arcsec of their circle, both
        included.
    """
    n = xyz.shape[0]
    first, second, count = [np.int64(0)], [np.int64(0)], [np.int64(0)]
    limit = math.sin(SEARCH_TOLERANCE_ARCSEC * ARCSEC)
    apart = 2.0 * math.sin(0.5 * PAIR_SEPARATION_ARCSEC * ARCSEC)
    bearing, distance = np.empty(n), np.empty(n)
    start, stop = np.empty(2 * n), np.empty(2 * n)
    for i in range(n):
        always, n_intervals = 1, 0
        _bearings(xyz, i, bearing, distance)
        for k in range(n):
            if k == i:
                continue
            if distance[k] <= limit:
                always += 1
                continue
            half = math.asin(limit / distance[k])
            start[n_intervals], stop[n_intervals] = bearing[k] - half, bearing[k] + half
            n_intervals += 1
            # The circle of bearings has length pi: what leaves it at one end comes back at the other.
            if bearing[k] - half < 0.0:
                start[n_intervals], stop[n_intervals] = bearing[k] - half + math.pi, bearing[k] + half + math.pi
                n_intervals += 1
            elif bearing[k] + half >= math.pi:
                start[n_intervals], stop[n_intervals] = bearing[k] - half - math.pi, bearing[k] + half - math.pi
                n_intervals += 1
        starts, stops = np.sort(start[:n_intervals]), np.sort(stop[:n_intervals])
        for k in range(i + 1, n):
            if _chord(xyz, i, k) <= apart:
                continue
            near = np.searchsorted(starts, bearing[k], side="right") - np.searchsorted(stops, bearing[k], side="left")
            if always + near >= MINIMUM_POINTS:
                first.append(np.int64(i))
                second.append(np.int64(k))
                count.append(np.int64(always + near))
    return np.array(first[1:]), np.array(second[1:]), np.array(count[1:])  # the first entries gave the lists a type


@njit(**JIT)
def _bearings(xyz: Float, i: int, bearing: Float, distance: Float) -> None:
    """Fill the bearing from point i modulo pi, in [0, pi), and the sine of the distance."""
    x, y, z = xyz[i]
    # An axis system of the tangent plane at i; away from the poles of the axis chosen.
    if abs(z) < 0.9:
        norm = math.hypot(x, y)
        east = (-y / norm, x / norm, 0.0)
    else:
        norm = math.hypot(y, z)
        east = (0.0, -z / norm, y / norm)
    north = (y * east[2] - z * east[1], z * east[0] - x * east[2], x * east[1] - y * east[0])
    for k in range(xyz.shape[0]):
        # Of the difference, not of the vector: at arcseconds the latter loses half its digits.
        dx, dy, dz = xyz[k, 0] - x, xyz[k, 1] - y, xyz[k, 2] - z
        u = dx * east[0] + dy * east[1] + dz * east[2]
        v = dx * north[0] + dy * north[1] + dz * north[2]
        distance[k] = math.hypot(u, v)
        angle = math.atan2(v, u)
        if angle < 0.0:
            angle += math.pi
        bearing[k] = angle if angle < math.pi else 0.0


@njit(**JIT)
def _chord(xyz: Float, i: int, k: int) -> float:
    return math.sqrt((xyz[i, 0] - xyz[k, 0]) ** 2 + (xyz[i, 1] - xyz[k, 1]) ** 2 + (xyz[i, 2] - xyz[k, 2]) ** 2)


@njit(**JIT)
def _refine(xyz: Float, i: int, k: int, used: Bool, degree: int) -> tuple[Int, float, float, float]:
    """Fit the points near the circle of a pair; return members, chance, length and residual (arcsec).

    There are no members where fewer than 5 distinct points lie within 1 arcsec of the fit.
    """
    index, along, across = _band(xyz, i, k)
    taken = used[index]
    near = ~taken & (np.abs(across) <= SEARCH_TOLERANCE_ARCSEC)
    members, residual = _fit(along, across, near, taken, degree)
    where = np.flatnonzero(members)
    positions = np.sort(along[where])
    n_distinct = _distinct(positions)
    if n_distinct < MINIMUM_POINTS:
        return index[:0], np.inf, 0.0, 0.0
    beside = ~members & (along >= positions[0]) & (along <= positions[-1])
    accident = chance(xyz.shape[0], near.sum(), degree, n_distinct, beside.sum())
    return index[where], accident, positions[-1] - positions[0], math.sqrt((residual[where] ** 2).mean())


@njit(**JIT)
def _band(xyz: Float, i: int, k: int) -> tuple[Int, Float, Float]:
    """Return the points within 300 arcsec of the great circle from i to k, and where they are along and across it.

    Along from point i and across from the circle, in arcsec.
    """
    x, y, z = xyz[i, 0], xyz[i, 1], xyz[i, 2]
    dx, dy, dz = xyz[k, 0] - x, xyz[k, 1] - y, xyz[k, 2] - z
    a, b, c = y * dz - z * dy, z * dx - x * dz, x * dy - y * dx
    norm = math.sqrt(a * a + b * b + c * c)
    a, b, c = a / norm, b / norm, c / norm
    u, v, w = b * z - c * y, c * x - a * z, a * y - b * x
    limit = math.sin(SIDE_ARCSEC * ARCSEC)
    index = np.empty(xyz.shape[0], dtype=np.int64)
    along, across = np.empty(xyz.shape[0]), np.empty(xyz.shape[0])
    n = 0
    for j in range(xyz.shape[0]):
        # Of differences from point i, not of the vectors: at arcseconds the latter lose half their digits.
        px, py, pz = xyz[j, 0] - x, xyz[j, 1] - y, xyz[j, 2] - z
        sine = px * a + py * b + pz * c
        if abs(sine) <= limit:
            forward, back = px * u + py * v + pz * w, 1.0 + px * x + py * y + pz * z
            index[n], along[n], across[n] = j, math.atan2(forward, back) / ARCSEC, math.asin(sine) / ARCSEC
            n += 1
    return index[:n], along[:n], across[:n]


@njit(**JIT)
def _fit(along: Float, across: Float, near: Bool, taken: Bool, degree: int) -> tuple[Bool, Float]:
    """Fit a polynomial to the members, take those within tolerance of it as members, until nothing changes."""
    members, residual = near.copy(), across.copy()
    for _ in range(10):
        n_members = members.sum()
        if n_members <= degree + 1:
            members[:] = False
            break
        middle = along[members].mean()
        scale = np.abs(along[members] - middle).max() + 1.0
        shape = _polynomial((along[members] - middle) / scale, across[members], degree)
        s = (along - middle) / scale
        residual = across - (shape[0] + s * (shape[1] + s * shape[2]))
        fitted = (np.abs(residual) < FIT_TOLERANCE_ARCSEC) & ~taken
        _drop_isolated_ends(along, fitted)
        same = (members == fitted).all()
        members = fitted
        if same:
            break
    return members, residual


@njit(**JIT)
def _polynomial(x: Float, y: Float, degree: int) -> Float:
    """Return the least-squares coefficients, shape (3,), of a line or parabola; x is of order one.

    Where the points do not fix the parabola (two places only) a line is returned, and a constant for one place.
    """
    m1, m2, m3, m4 = x.mean(), (x**2).mean(), (x**3).mean(), (x**4).mean()
    y0, y1, y2 = y.mean(), (x * y).mean(), (x * x * y).mean()
    out = np.zeros(3)
    variance = m2 - m1 * m1
    if variance < 1e-12:
        out[0] = y0
        return out
    slope = (y1 - m1 * y0) / variance
    if degree == 2:
        # The square, freed of its constant and linear part, is orthogonal to the line.
        tilt = (m3 - m1 * m2) / variance
        spread = m4 - m2 * m2 - tilt * tilt * variance
        if spread > 1e-12:
            out[2] = (y2 - m2 * y0 - tilt * (y1 - m1 * y0)) / spread
            slope -= out[2] * tilt
    out[1] = slope
    out[0] = y0 - slope * m1 - out[2] * m2
    return out


@njit(**JIT)
def _drop_isolated_ends(along: Float, members: Bool) -> None:
    where = np.flatnonzero(members)
    where = where[np.argsort(along[where], kind="mergesort")]
    low, high = 0, where.shape[0] - 1
    while high - low >= 2:
        length = along[where[high]] - along[where[low]]
        if along[where[low + 1]] - along[where[low]] > ISOLATED_END * length:
            members[where[low]] = False
            low += 1
        elif along[where[high]] - along[where[high - 1]] > ISOLATED_END * length:
            members[where[high]] = False
            high -= 1
        else:
            return


@njit(**JIT)
def _distinct(along: Float) -> int:
    """Return how many points stand at least 5 arcsec from the one counted before, of sorted positions in arcsec."""
    count, last = 0, -np.inf
    for position in along:
        if position - last >= DISTINCT_ARCSEC:
            count += 1
            last = position
    return count
