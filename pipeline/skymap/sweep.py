"""Many maps against many positions: both are sorted by cell, so a map's row is a slice of the positions.

Sort the positions once (``np.sort`` of their order-29 cells; -1 comes first and is in no map). A map's region is then
found with a few steps of search per row of the map, whatever the number of positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pipeline.skymap.levels import reached_level
from pipeline.skymap.maps import SkyMap

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
Float = NDArray[np.float64]
Int = NDArray[np.int64]


class Inside(NamedTuple):
    """Positions within the region of one map: ascending rows, and what :class:`Pairs` says of them, shape (p,)."""

    row: Int
    level: Float
    density: Float


class Pairs(NamedTuple):
    """Positions within the regions of maps, by map and then by row.

    Attributes
    ----------
    map_number : numpy.ndarray of int32, shape (p,)
        Which of the maps, from 0.
    row : numpy.ndarray of int64, shape (p,)
        Which of the sorted positions, from 0.
    level, density : numpy.ndarray of float64, shape (p,)
        Credible level, and probability per square degree.
    """

    map_number: NDArray[np.int32]
    row: Int
    level: Float
    density: Float


def slices(ranges: Int, sorted_cells: ArrayLike) -> Int:
    """Return which of the sorted cells lie in each range of a range set: begin and end, shape (k, 2)."""
    cells = np.asarray(sorted_cells, dtype=np.int64)
    return np.searchsorted(cells, np.asarray(ranges, dtype=np.int64).reshape(-1, 2)).astype(np.int64)


def levels_sorted(skymap: SkyMap, sorted_cells: ArrayLike) -> tuple[Float, Float]:
    """Return credible level and density at ascending order-29 cells, as :func:`pipeline.skymap.levels` does."""
    cells = np.ascontiguousarray(sorted_cells, dtype=np.int64)
    level, density = np.empty(cells.size), np.empty(cells.size)
    _fill_all(skymap.start, skymap.stop, skymap.credible_level, skymap.density_per_deg2, cells, level, density)
    return level, density


def inside(skymap: SkyMap, sorted_cells: ArrayLike, credible_level: float) -> Inside:
    """Return every position in the region of one map; see :func:`pairs`."""
    cells = np.ascontiguousarray(sorted_cells, dtype=np.int64)
    rows, bounds = _slices_within(skymap, cells, credible_level)
    total = int((bounds[:, 1] - bounds[:, 0]).sum())
    out = Inside(np.empty(total, np.int64), np.empty(total), np.empty(total))
    _fill(rows, bounds, skymap.credible_level, skymap.density_per_deg2, *out)
    return out


def pairs(skymaps: Sequence[SkyMap], sorted_cells: ArrayLike, credible_level: float) -> Pairs:
    """Return every position in the region of every map; see :func:`pipeline.skymap.region`.

    Parameters
    ----------
    skymaps : sequence of SkyMap
        The maps, m.
    sorted_cells : array_like of int64, shape (n,)
        Ascending order-29 cells; -1 where there is no position.
    credible_level : float
        Probability that the regions hold.

    Notes
    -----
    A pair takes 28 bytes. Where that is much, take the maps one after another with :func:`inside`.
    """
    cells = np.ascontiguousarray(sorted_cells, dtype=np.int64)
    found = [_slices_within(skymap, cells, credible_level) for skymap in skymaps]
    sizes = [int((bounds[:, 1] - bounds[:, 0]).sum()) for _, bounds in found]
    ends = np.cumsum([0, *sizes])
    number = np.repeat(np.arange(len(found), dtype=np.int32), sizes)
    out = Pairs(number, np.empty(ends[-1], np.int64), np.empty(ends[-1]), np.empty(ends[-1]))
    for skymap, (rows, bounds), begin, end in zip(skymaps, found, ends[:-1], ends[1:], strict=True):
        places = (out.row[begin:end], out.level[begin:end], out.density[begin:end])
        _fill(rows, bounds, skymap.credible_level, skymap.density_per_deg2, *places)
    return out


def _slices_within(skymap: SkyMap, cells: Int, credible_level: float) -> tuple[Int, Int]:
    limit = reached_level(skymap, credible_level)
    return _find(skymap.start, skymap.stop, skymap.credible_level, skymap.density_per_deg2, limit, cells)


# ------------------------------------------------------------------------------------------------ kernels
@njit(**_JIT)
def _first_not_below(cells: Int, value: int, begin: int) -> int:
    """Return the first place from ``begin`` on whose cell is not below ``value``: steps that double, then halves."""
    step = 1
    low = begin
    high = begin
    while high < cells.size and cells[high] < value:
        low = high + 1
        high += step
        step *= 2
    high = min(high, cells.size)
    while low < high:
        middle = (low + high) >> 1
        if cells[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(**_JIT)
def _find(start: Int, stop: Int, level: Float, density: Float, limit: float, cells: Int) -> tuple[Int, Int]:
    """Return the map's rows up to a level that hold positions, and which positions each holds."""
    rows = np.empty(start.size, np.int64)
    bounds = np.empty((start.size, 2), np.int64)
    n = 0
    at = 0
    for i in range(start.size):
        if level[i] > limit or density[i] <= 0.0:
            continue
        at = _first_not_below(cells, start[i], at)
        end = _first_not_below(cells, stop[i], at)
        if end > at:
            rows[n] = i
            bounds[n, 0] = at
            bounds[n, 1] = end
            n += 1
            at = end
    return rows[:n], bounds[:n]


@njit(**_JIT)
def _fill(
    rows: Int, bounds: Int, level: Float, density: Float, out_row: Int, out_level: Float, out_density: Float
) -> None:
    at = 0
    for k in range(rows.size):
        own_level = level[rows[k]]
        own_density = density[rows[k]]
        for j in range(bounds[k, 0], bounds[k, 1]):
            out_row[at] = j
            out_level[at] = own_level
            out_density[at] = own_density
            at += 1


@njit(**_JIT)
def _fill_all(
    start: Int, stop: Int, level: Float, density: Float, cells: Int, out_level: Float, out_density: Float
) -> None:
    at = _first_not_below(cells, 0, 0)
    out_level[:at] = np.nan
    out_density[:at] = np.nan
    for i in range(start.size):
        if at == cells.size:
            return
        begin = _first_not_below(cells, start[i], at)
        end = _first_not_below(cells, stop[i], begin)
        out_level[at:begin] = 1.0
        out_density[at:begin] = 0.0
        out_level[begin:end] = level[i]
        out_density[begin:end] = density[i]
        at = end
    out_level[at:] = 1.0
    out_density[at:] = 0.0
