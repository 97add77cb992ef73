"""Positions against a catalog sorted by order-29 cell: nearest source for every alert, or every source in the radius.

A catalog is three arrays (cell, right ascension, declination) sorted by cell, with a table of offsets by coarser cell.
For each alert the 3x3 block of the deepest order that holds its radius becomes at most nine intervals of rows; their
separations are computed with the haversine formula (exact for small angles; Sinnott 1984, Sky & Telescope 68, 158).
What an alert gets depends on its position, its radius and the catalog: never on the other alerts or their order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from pipeline.healpix import BLOCK_WIDTH_DEG, MAX_ORDER, ang2pix, step_cell

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

_TO_RADIANS = math.pi / 180.0
_TO_ARCSEC = 180.0 / math.pi * 3600.0
_ROWS_PER_CELL = 16
_DEEPEST_OFFSETS = 12  # 1.6 GB of offsets; a billion rows are then five a cell


@dataclass(frozen=True, eq=False)
class MatchIndex:
    """A catalog's positions, ready to be matched; the arrays may be memory-mapped.

    Attributes
    ----------
    healpix_29, ra, dec : numpy.ndarray, shape (n,)
        Order-29 cells ascending (int64) and ICRS degrees (float64), all rows with a position.
    offsets : numpy.ndarray of int64, shape (12 * 4**order + 1,)
        Row at which each cell of ``order`` starts.
    order : int
        Order of the offsets.
    """

    healpix_29: NDArray[np.int64]
    ra: NDArray[np.float64]
    dec: NDArray[np.float64]
    offsets: NDArray[np.int64]
    order: int

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.healpix_29)


@dataclass(frozen=True, eq=False)
class Nearest:
    """The nearest source of each of ``n`` alerts.

    Attributes
    ----------
    row : numpy.ndarray of int64, shape (n,)
        Catalog row, -1 where no source lies within the radius.
    separation_arcsec : numpy.ndarray of float64, shape (n,)
        Separation, NaN where there is none.
    n_neighbours : numpy.ndarray of int32, shape (n,)
        Sources within the radius.
    """

    row: NDArray[np.int64]
    separation_arcsec: NDArray[np.float64]
    n_neighbours: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Pairs:
    """Every (alert, source) pair within the radius, sorted by alert, then separation, then catalog row; shape (m,)."""

    alert: NDArray[np.int64]
    row: NDArray[np.int64]
    separation_arcsec: NDArray[np.float64]


def build_index(ra: ArrayLike, dec: ArrayLike) -> tuple[MatchIndex, NDArray[np.int64]]:
    """Sort positions into a match index.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        ICRS degrees in any order. Rows without a position (not finite, ``|dec| > 90``) are left out.

    Returns
    -------
    MatchIndex
        Rows by cell; rows of one cell stay in the order given.
    numpy.ndarray of int64
        The row given of each row of the index.
    """
    ra, dec = np.asarray(ra, dtype=np.float64), np.asarray(dec, dtype=np.float64)
    cells = ang2pix(MAX_ORDER, ra, dec)
    rows = np.argsort(cells, kind="stable")
    rows = rows[np.searchsorted(cells[rows], 0) :]
    cells = cells[rows]
    order = offsets_order(len(rows))
    edges = np.arange((12 << (2 * order)) + 1, dtype=np.int64) << (2 * (MAX_ORDER - order))
    offsets = np.searchsorted(cells, edges).astype(np.int64)
    return MatchIndex(cells, np.remainder(ra[rows], 360.0), dec[rows], offsets, order), rows


def offsets_order(rows: int) -> int:
    """Return the order whose cells would hold about 16 rows, were the sources spread over the whole sky."""
    order = 0
    while order < _DEEPEST_OFFSETS and rows / (12 << (2 * order)) > _ROWS_PER_CELL:
        order += 1
    return order


def nearest(
    ra: ArrayLike,
    dec: ArrayLike,
    radius_arcsec: ArrayLike,
    index: MatchIndex,
    healpix_29: ArrayLike | None = None,
) -> Nearest:
    """Find the nearest source of every alert.

    Of equal separations the smaller catalog row wins. A separation equal to the radius is within it.

    Parameters
    ----------
    ra, dec : array_like, shape (n,)
        ICRS degrees; an alert without a position has no neighbour.
    radius_arcsec : float or array_like, shape (n,)
        One radius, or one for each alert; NaN or negative: no neighbour.
    index : MatchIndex
        The catalog.
    healpix_29 : array_like, shape (n,), optional
        Order-29 cells of the alerts, computed where not given.
    """
    ra, dec, radius, cells, turn = _queries(ra, dec, radius_arcsec, healpix_29)
    row = np.full(len(ra), -1, dtype=np.int64)
    separation = np.full(len(ra), np.nan)
    count = np.zeros(len(ra), dtype=np.int32)
    _nearest(turn, cells, ra, dec, radius, *_arrays(index), row, separation, count)
    return Nearest(row, separation, count)


def within(
    ra: ArrayLike,
    dec: ArrayLike,
    radius_arcsec: ArrayLike,
    index: MatchIndex,
    healpix_29: ArrayLike | None = None,
) -> Pairs:
    """Find every source within the radius of every alert; parameters as in :func:`nearest`."""
    ra, dec, radius, cells, turn = _queries(ra, dec, radius_arcsec, healpix_29)
    row = np.full(len(ra), -1, dtype=np.int64)
    separation = np.full(len(ra), np.nan)
    count = np.zeros(len(ra), dtype=np.int32)
    _nearest(turn, cells, ra, dec, radius, *_arrays(index), row, separation, count)
    starts = np.zeros(len(ra) + 1, dtype=np.int64)
    np.cumsum(count, out=starts[1:])
    rows = np.empty(starts[-1], dtype=np.int64)
    separations = np.empty(starts[-1], dtype=np.float64)
    _within(turn, cells, ra, dec, radius, *_arrays(index), starts, rows, separations)
    alert = np.repeat(np.arange(len(ra), dtype=np.int64), count)
    by = np.lexsort((rows, separations, alert))
    return Pairs(alert, rows[by], separations[by])


def _arrays(index: MatchIndex) -> tuple[Any, ...]:
    return index.healpix_29, index.ra, index.dec, index.offsets, index.order


def _queries(
    ra: ArrayLike, dec: ArrayLike, radius_arcsec: ArrayLike, healpix_29: ArrayLike | None
) -> tuple[NDArray, NDArray, NDArray, NDArray, NDArray]:
    ra = np.ascontiguousarray(ra, dtype=np.float64)
    dec = np.ascontiguousarray(dec, dtype=np.float64)
    radius = np.ascontiguousarray(np.broadcast_to(np.asarray(radius_arcsec, dtype=np.float64), ra.shape))
    if healpix_29 is None:
        cells = ang2pix(MAX_ORDER, ra, dec)
    else:
        cells = np.ascontiguousarray(healpix_29, dtype=np.int64)
    # Taken in sky order, neighbouring alerts find the catalog rows in the processor's cache.
    return ra, dec, radius, cells, np.argsort(cells, kind="stable")


# ------------------------------------------------------------------------------------------------ kernels
@njit(**_JIT)
def separation_arcsec(ra: float, dec: float, cos_dec: float, other_ra: float, other_dec: float) -> float:
    """Return the haversine separation of two positions in degrees; ``cos_dec`` is the cosine of ``dec``."""
    step = ra - other_ra
    if step > 180.0:
        step -= 360.0
    elif step < -180.0:
        step += 360.0
    up = math.sin(0.5 * (dec - other_dec) * _TO_RADIANS)
    along = math.sin(0.5 * step * _TO_RADIANS)
    haversine = up * up + cos_dec * math.cos(other_dec * _TO_RADIANS) * along * along
    return 2.0 * math.asin(math.sqrt(min(haversine, 1.0))) * _TO_ARCSEC


@njit(**_JIT)
def _first_not_below(values: NDArray, bound: int, low: int, high: int) -> int:
    while low < high:
        middle = (low + high) >> 1
        if values[middle] < bound:
            low = middle + 1
        else:
            high = middle
    return low


@njit(**_JIT)
def _block_intervals(order: int, cell_29: int, starts: NDArray, stops: NDArray) -> int:
    """Write the order-29 intervals of a cell of ``order`` and its neighbours, ascending and merged; return how many."""
    shift = 2 * (MAX_ORDER - order)
    cell = cell_29 >> shift
    count = 0
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            other = step_cell(order, cell, dx, dy)
            if other < 0:
                continue
            place = count  # insertion keeps the cells ascending; nine are too few for anything cleverer
            while place > 0 and starts[place - 1] > other:
                starts[place] = starts[place - 1]
                place -= 1
            starts[place] = other
            count += 1
    merged = 0
    for k in range(count):
        start = starts[k] << shift
        stop = (starts[k] + 1) << shift
        if merged > 0 and start <= stops[merged - 1]:
            stops[merged - 1] = stop
        else:
            starts[merged] = start
            stops[merged] = stop
            merged += 1
    return merged


@njit(**_JIT)
def _block_rows(
    cell_29: int, radius_deg: float, cells: NDArray, offsets: NDArray, order: int, starts: NDArray, stops: NDArray
) -> int:
    """Write the row intervals that hold every source within the radius, ascending; return how many."""
    if not radius_deg <= BLOCK_WIDTH_DEG:
        starts[0] = 0
        stops[0] = cells.size
        return 1
    block_order = MAX_ORDER
    while BLOCK_WIDTH_DEG / (np.int64(1) << block_order) < radius_deg:
        block_order -= 1
    count = _block_intervals(block_order, cell_29, starts, stops)
    shift = 2 * (MAX_ORDER - order)
    kept = 0
    for k in range(count):
        first = starts[k]
        last = stops[k] - 1
        low = offsets[first >> shift]
        high = offsets[(last >> shift) + 1]
        if low == high:
            continue
        low = _first_not_below(cells, first, low, offsets[(first >> shift) + 1])
        high = _first_not_below(cells, last + 1, max(low, offsets[last >> shift]), high)
        if low < high:
            starts[kept] = low
            stops[kept] = high
            kept += 1
    return kept


@njit(**_JIT)
def _nearest(
    turn: NDArray,
    query_cells: NDArray,
    query_ra: NDArray,
    query_dec: NDArray,
    radius_arcsec: NDArray,
    cells: NDArray,
    ra: NDArray,
    dec: NDArray,
    offsets: NDArray,
    order: int,
    out_row: NDArray,
    out_separation: NDArray,
    out_count: NDArray,
) -> None:
    starts = np.empty(9, np.int64)
    stops = np.empty(9, np.int64)
    for k in range(turn.size):
        i = turn[k]
        radius = radius_arcsec[i]
        if query_cells[i] < 0 or not radius >= 0.0:
            continue
        radius_deg = radius / 3600.0
        in_dec = radius_deg * 1.000001 + 1e-12
        ra_i = query_ra[i] % 360.0
        dec_i = query_dec[i]
        cos_dec = math.cos(dec_i * _TO_RADIANS)
        best = -1
        best_separation = np.inf
        found = 0
        for q in range(_block_rows(query_cells[i], radius_deg, cells, offsets, order, starts, stops)):
            for j in range(starts[q], stops[q]):
                if abs(dec[j] - dec_i) > in_dec:
                    continue
                separation = separation_arcsec(ra_i, dec_i, cos_dec, ra[j], dec[j])
                if separation <= radius:
                    found += 1
                    if separation < best_separation:  # rows ascend, so of equals the smaller row stands
                        best_separation = separation
                        best = j
        if found:
            out_row[i] = best
            out_separation[i] = best_separation
            out_count[i] = found


@njit(**_JIT)
def _within(
    turn: NDArray,
    query_cells: NDArray,
    query_ra: NDArray,
    query_dec: NDArray,
    radius_arcsec: NDArray,
    cells: NDArray,
    ra: NDArray,
    dec: NDArray,
    offsets: NDArray,
    order: int,
    out_starts: NDArray,
    out_rows: NDArray,
    out_separations: NDArray,
) -> None:
    starts = np.empty(9, np.int64)
    stops = np.empty(9, np.int64)
    for k in range(turn.size):
        i = turn[k]
        at = int(out_starts[i])
        if at == out_starts[i + 1]:
            continue
        radius_deg = radius_arcsec[i] / 3600.0
        in_dec = radius_deg * 1.000001 + 1e-12
        ra_i = query_ra[i] % 360.0
        dec_i = query_dec[i]
        cos_dec = math.cos(dec_i * _TO_RADIANS)
        for q in range(_block_rows(query_cells[i], radius_deg, cells, offsets, order, starts, stops)):
            for j in range(starts[q], stops[q]):
                if abs(dec[j] - dec_i) > in_dec:
                    continue
                separation = separation_arcsec(ra_i, dec_i, cos_dec, ra[j], dec[j])
                if separation <= radius_arcsec[i]:
                    out_rows[at] = j
                    out_separations[at] = separation
                    at += 1
