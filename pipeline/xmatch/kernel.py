"""The kernels: which catalog rows can lie within the radius of a position, and how far they are.

**Where to look.** On a HEALPix face (Górski et al. 2005, ApJ 622, 759, doi:10.1086/427976) a step of one radian moves
neither coordinate by more than 1.452 sides of the face: the gradient is largest at the poles, where it is
``sqrt(1.5 + 1.5 (2/pi)^2)``. A disc whose square of that half-width lies within the face is therefore covered by the
cells that the square touches, usually one; only beside the edge of a face the whole 3x3 block is taken.

**How far.** Separations are haversines (exact for small angles; Sinnott 1984, Sky & Telescope 68, 158), computed only
for what lies in the box of declination and right ascension around the disc.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.healpix import BLOCK_WIDTH_DEG, MAX_ORDER, step_cell
from pipeline.healpix.cells import compress_bits, spread_bits

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

_TO_RADIANS = math.pi / 180.0
_TO_ARCSEC = 180.0 / math.pi * 3600.0
_NSIDE = 1 << MAX_ORDER
_STEPS_PER_DEG = 1.46 * _TO_RADIANS * _NSIDE
_ROUNDING_STEPS = 4  # 1.6 mas: cells of order 29 are exact to far less than one step
_WIDEST_STEPS = float(_NSIDE // 4)  # 9.8 deg; above, blocks are taken
_CROWD = 64  # rows in a cell from which on smaller cells are searched
_BATCH = 32
"""Positions whose rows are looked for together: their cache misses then overlap."""
_INTERVALS = 9
"""Most intervals of rows a position can need: a cell is wider than half the square, so three fit on a side."""


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


# ------------------------------------------------------------------------------------------------ where to look
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
def _block_cells(order: int, cell_29: int, out: NDArray, begun: int) -> int:
    """Write a cell of ``order`` and its neighbours from ``begun`` on, each once; return where they end."""
    cell = cell_29 >> (2 * (MAX_ORDER - order))
    count = begun
    for dy in range(-1, 2):
        for dx in range(-1, 2):
            other = step_cell(order, cell, dx, dy)
            is_new = other >= 0
            for k in range(begun, count):  # at order 0 a face may be a neighbour twice
                is_new = is_new and out[k] != other
            if is_new:
                out[count] = other
                count += 1
    return count


@njit(**_JIT)
def _block_rows(
    cell_29: int,
    radius_deg: float,
    cells: NDArray,
    offsets: NDArray,
    order: int,
    starts: NDArray,
    stops: NDArray,
    kept: int,
) -> int:
    """Write the row intervals of the 3x3 block of the deepest order that holds the disc; of all rows, if none does."""
    if not radius_deg <= BLOCK_WIDTH_DEG:
        starts[kept] = 0
        stops[kept] = cells.size
        return kept + 1
    block_order = MAX_ORDER
    while BLOCK_WIDTH_DEG / (np.int64(1) << block_order) < radius_deg:
        block_order -= 1
    shift = 2 * (MAX_ORDER - order)
    block_shift = 2 * (MAX_ORDER - block_order)
    begun = kept
    stop = _block_cells(block_order, cell_29, starts, kept)
    for k in range(begun, stop):  # an interval is kept no later than the cell it is of is read
        first = starts[k] << block_shift
        last = first + (np.int64(1) << block_shift) - 1
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
def _crowd_rows(
    face: int,
    corner_x: int,
    corner_y: int,
    x_low: int,
    x_high: int,
    y_low: int,
    y_high: int,
    shift: int,
    cells: NDArray,
    low: int,
    high: int,
    starts: NDArray,
    stops: NDArray,
    count: int,
) -> int:
    """Write the row intervals, within rows ``low`` to ``high``, of the small cells that the square touches."""
    for y in range(max(y_low, corner_y) >> shift, (y_high >> shift) + 1):
        for x in range(max(x_low, corner_x) >> shift, (x_high >> shift) + 1):
            small = spread_bits(x) + (spread_bits(y) << 1)
            first = (face << (2 * MAX_ORDER)) + (small << (2 * shift))
            begin = _first_not_below(cells, first, low, high)
            end = _first_not_below(cells, first + (np.int64(1) << (2 * shift)), begin, high)
            if begin < end:
                starts[count] = begin
                stops[count] = end
                count += 1
    return count


@njit(**_JIT)
def _row_intervals(
    cell_29: int,
    radius_deg: float,
    cells: NDArray,
    offsets: NDArray,
    order: int,
    starts: NDArray,
    stops: NDArray,
    count: int,
) -> int:
    """Write, from ``count`` on, disjoint intervals of rows that hold every source within the radius of the cell."""
    reach = radius_deg * _STEPS_PER_DEG
    if not reach <= _WIDEST_STEPS:
        return _block_rows(cell_29, radius_deg, cells, offsets, order, starts, stops, count)
    half = np.int64(reach) + _ROUNDING_STEPS
    face = cell_29 >> (2 * MAX_ORDER)
    x = compress_bits(cell_29) & (_NSIDE - 1)
    y = compress_bits(cell_29 >> 1) & (_NSIDE - 1)
    x_low = x - half
    x_high = x + half
    y_low = y - half
    y_high = y + half
    if x_low < 0 or y_low < 0 or x_high >= _NSIDE or y_high >= _NSIDE:
        return _block_rows(cell_29, radius_deg, cells, offsets, order, starts, stops, count)
    small = 0  # cells of 2**small steps are as wide as the square's half-width, or up to twice that
    while half >> small:
        small += 1
    shift = max(MAX_ORDER - order, small)
    deeper = 2 * (order - (MAX_ORDER - shift))
    for cell_y in range(y_low >> shift, (y_high >> shift) + 1):
        for cell_x in range(x_low >> shift, (x_high >> shift) + 1):
            cell = (face << (2 * (MAX_ORDER - shift))) + spread_bits(cell_x) + (spread_bits(cell_y) << 1)
            low = offsets[cell << deeper]
            high = offsets[(cell + 1) << deeper]
            if low == high:
                continue
            if high - low > _CROWD and small < shift:
                corner_x = cell_x << shift
                corner_y = cell_y << shift
                side = (np.int64(1) << shift) - 1
                count = _crowd_rows(
                    face,
                    corner_x,
                    corner_y,
                    x_low,
                    min(x_high, corner_x + side),
                    y_low,
                    min(y_high, corner_y + side),
                    small,
                    cells,
                    low,
                    high,
                    starts,
                    stops,
                    count,
                )
            else:
                starts[count] = low
                stops[count] = high
                count += 1
    return count


@njit(**_JIT)
def _find_batch(
    base: int,
    end: int,
    turn: NDArray,
    query_cells: NDArray,
    radius_arcsec: NDArray,
    cells: NDArray,
    ra: NDArray,
    dec: NDArray,
    offsets: NDArray,
    order: int,
    starts: NDArray,
    stops: NDArray,
    bounds: NDArray,
) -> float:
    """Write the row intervals of positions ``base`` to ``end``, and read their ends so that they are in the cache.

    ``bounds[b]`` to ``bounds[b + 1]`` are the intervals of position ``base + b``. What is returned means nothing; it
    keeps the compiler from leaving the reading out.
    """
    step = 1 if radius_arcsec.size > 1 else 0
    count = 0
    for k in range(base, end):
        radius = radius_arcsec[turn[k] * step]
        if query_cells[k] >= 0 and radius >= 0.0:
            count = _row_intervals(query_cells[k], radius / 3600.0, cells, offsets, order, starts, stops, count)
        bounds[k - base + 1] = count
    read = 0.0
    for q in range(count):
        if starts[q] < stops[q]:
            read += dec[starts[q]] + ra[starts[q]] + dec[stops[q] - 1] + ra[stops[q] - 1]
    return read


# ------------------------------------------------------------------------------------------------ nearest
@njit(**_JIT)
def _ra_reach_deg(radius_deg: float, cos_dec: float) -> float:
    """Return how far in right ascension a disc can reach: radius over the least cosine of a declination in it."""
    least = cos_dec - radius_deg * _TO_RADIANS
    if least <= 1e-9:
        return 360.0
    return radius_deg / least * 1.000001 + 1e-12


@njit(**_JIT)
def nearest_rows(
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
) -> float:
    """Write row, separation and number of neighbours of each position; queries stand in sky order, results do not.

    Of equal separations the smaller row wins. What is returned means nothing.
    """
    starts = np.empty(_BATCH * _INTERVALS, np.int64)
    stops = np.empty(_BATCH * _INTERVALS, np.int64)
    bounds = np.zeros(_BATCH + 1, np.int64)
    step = 1 if radius_arcsec.size > 1 else 0
    read = 0.0
    for base in range(0, turn.size, _BATCH):
        end = min(base + _BATCH, turn.size)
        read += _find_batch(
            base, end, turn, query_cells, radius_arcsec, cells, ra, dec, offsets, order, starts, stops, bounds
        )
        for k in range(base, end):
            i = turn[k]
            radius = radius_arcsec[i * step]
            radius_deg = radius / 3600.0
            in_dec = radius_deg * 1.000001 + 1e-12
            in_ra = -1.0
            cos_dec = 0.0
            best = -1
            best_separation = np.inf
            found = 0
            for q in range(bounds[k - base], bounds[k - base + 1]):
                for j in range(starts[q], stops[q]):
                    if abs(dec[j] - query_dec[k]) > in_dec:
                        continue
                    if in_ra < 0.0:  # few positions have anything at their declination: the cosine can wait
                        cos_dec = math.cos(query_dec[k] * _TO_RADIANS)
                        in_ra = _ra_reach_deg(radius_deg, cos_dec)
                    along = abs(ra[j] - query_ra[k])
                    if min(along, 360.0 - along) > in_ra:
                        continue
                    separation = separation_arcsec(query_ra[k], query_dec[k], cos_dec, ra[j], dec[j])
                    if separation <= radius:
                        found += 1
                        if separation < best_separation or (separation == best_separation and j < best):
                            best_separation = separation
                            best = j
            if found:
                out_row[i] = best
                out_separation[i] = best_separation
                out_count[i] = found
    return read


# ------------------------------------------------------------------------------------------------ all within
@njit(**_JIT)
def rows_within(
    first: int,
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
    reach_arcsec: NDArray,
    out_alert: NDArray,
    out_row: NDArray,
    out_separation: NDArray,
) -> tuple[int, int, float]:
    """Write every pair within the radius, and within the source's own reach where ``reach_arcsec`` has any.

    Returns
    -------
    tuple
        The position to go on from (all are done: the number of positions); how many pairs were written; and a number
        that means nothing. It stops before the first position whose pairs do not fit.
    """
    starts = np.empty(_BATCH * _INTERVALS, np.int64)
    stops = np.empty(_BATCH * _INTERVALS, np.int64)
    bounds = np.zeros(_BATCH + 1, np.int64)
    step = 1 if radius_arcsec.size > 1 else 0
    read = 0.0
    has_reach = reach_arcsec.size > 0
    written = 0
    for base in range(first, turn.size, _BATCH):
        end = min(base + _BATCH, turn.size)
        read += _find_batch(
            base, end, turn, query_cells, radius_arcsec, cells, ra, dec, offsets, order, starts, stops, bounds
        )
        for k in range(base, end):
            i = turn[k]
            radius = radius_arcsec[i * step]
            radius_deg = radius / 3600.0
            in_dec = radius_deg * 1.000001 + 1e-12
            in_ra = -1.0
            cos_dec = 0.0
            at = written
            for q in range(bounds[k - base], bounds[k - base + 1]):
                for j in range(starts[q], stops[q]):
                    if abs(dec[j] - query_dec[k]) > in_dec:
                        continue
                    if in_ra < 0.0:
                        cos_dec = math.cos(query_dec[k] * _TO_RADIANS)
                        in_ra = _ra_reach_deg(radius_deg, cos_dec)
                    along = abs(ra[j] - query_ra[k])
                    if min(along, 360.0 - along) > in_ra:
                        continue
                    separation = separation_arcsec(query_ra[k], query_dec[k], cos_dec, ra[j], dec[j])
                    if separation <= radius and not (has_reach and separation > reach_arcsec[j]):
                        if at == out_row.size:
                            return k, written, read
                        out_alert[at] = i
                        out_row[at] = j
                        out_separation[at] = separation
                        at += 1
            written = at
    return turn.size, written, read
