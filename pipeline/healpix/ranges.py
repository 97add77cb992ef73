"""Range sets: regions of the sky as sorted, disjoint intervals of order-29 cells."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pipeline.healpix.cells import (
    MAX_ORDER,
    ang2pix,
    cell_area_deg2,
    check_order,
    flat,
    neighbours,
    order_for_radius,
)

ALL_SKY = np.array([[0, 12 << (2 * MAX_ORDER)]], dtype=np.int64)
"""The range set of the whole sky."""
ALL_SKY.setflags(write=False)


def ranges_of(order: ArrayLike, cells: ArrayLike) -> NDArray[np.int64]:
    """Return the merged range set that the cells cover.

    Parameters
    ----------
    order : int or array_like, shape (n,)
        Order of all cells, or of each.
    cells : array_like, shape (n,)
        Nested cells in any order, repeated or nested in each other; -1 is skipped.

    Returns
    -------
    numpy.ndarray of int64, shape (k, 2)
        Range set of order 29.
    """
    cell = flat(cells, np.int64)
    shift = 2 * (MAX_ORDER - np.broadcast_to(np.asarray(order, dtype=np.int64), cell.shape))
    kept = cell >= 0
    cell, shift = cell[kept], shift[kept]
    return merge_ranges(np.stack([cell << shift, (cell + 1) << shift], axis=1))


def merge_ranges(ranges: ArrayLike) -> NDArray[np.int64]:
    """Return the range set of any half-open intervals, shape (m, 2), overlapping and unsorted or not."""
    intervals = np.asarray(ranges, dtype=np.int64).reshape(-1, 2)
    intervals = intervals[intervals[:, 1] > intervals[:, 0]]
    if not len(intervals):
        return intervals
    intervals = intervals[np.argsort(intervals[:, 0], kind="stable")]
    reach = np.maximum.accumulate(intervals[:, 1])
    first = np.flatnonzero(np.concatenate([[True], intervals[1:, 0] > reach[:-1]]))
    last = np.concatenate([first[1:] - 1, [len(intervals) - 1]])
    return np.stack([intervals[first, 0], reach[last]], axis=1)


def in_ranges(ranges: NDArray[np.int64], healpix_29: ArrayLike) -> NDArray[np.bool_]:
    """Return whether each order-29 cell lies in the range set, shape (n,); -1 does not."""
    cell = flat(healpix_29, np.int64)
    if not len(ranges):
        return np.zeros(cell.shape, dtype=bool)
    at = np.searchsorted(ranges[:, 0], cell, side="right") - 1
    return (at >= 0) & (cell < ranges[np.maximum(at, 0), 1])


def cells_of_ranges(ranges: NDArray[np.int64], order: int) -> NDArray[np.int64]:
    """Return every cell of ``order`` that the range set touches, ascending."""
    check_order(order)
    if not len(ranges):
        return np.empty(0, dtype=np.int64)
    shift = 2 * (MAX_ORDER - order)
    touched = merge_ranges(np.stack([ranges[:, 0] >> shift, ((ranges[:, 1] - 1) >> shift) + 1], axis=1))
    return np.concatenate([np.arange(start, stop, dtype=np.int64) for start, stop in touched])


def cone_ranges(ra_deg: float, dec_deg: float, radius_deg: float) -> NDArray[np.int64]:
    """Return a range set that holds the cone, with some sky around it: test the true distance within it."""
    order = order_for_radius(radius_deg)
    if order < 0:
        return ALL_SKY.copy()
    centre = ang2pix(order, [ra_deg], [dec_deg])
    return ranges_of(order, np.concatenate([centre, neighbours(order, centre)[0]]))


def ranges_area_deg2(ranges: NDArray[np.int64]) -> float:
    """Return the area of a range set in square degrees."""
    return float((ranges[:, 1] - ranges[:, 0]).sum()) * cell_area_deg2(MAX_ORDER)
