"""Cells: positions to cells and back, neighbours, orders, UNIQ and ring numbers; scalar kernels and arrays."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

MAX_ORDER = 29

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}

_HALF_PI = math.pi / 2.0
_INVERSE_HALF_PI = 0.6366197723675813430755350534900574
_TO_RADIANS = math.pi / 180.0
_TO_DEGREES = 180.0 / math.pi

# The narrowest place of a 3x3 block of cells: from a cell of order k to whatever lies outside its block it is further
# than this many degrees divided by 2**k (sampled borders give 48.2 at order 0, falling slowly to 39.9 at order 6).
BLOCK_WIDTH_DEG = 35.0

# Ring and longitude of the southern corner of each base face.
_FACE_RING = np.array([2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4], dtype=np.int64)
_FACE_LONGITUDE = np.array([1, 3, 5, 7, 0, 2, 4, 6, 1, 3, 5, 7], dtype=np.int64)

# Neighbour of a base face when a step leaves it: row 4 + dx + 3 dy, column the face; -1 where there is none.
_NEIGHBOUR_FACE = np.array(
    [
        [8, 9, 10, 11, -1, -1, -1, -1, 10, 11, 8, 9],
        [5, 6, 7, 4, 8, 9, 10, 11, 9, 10, 11, 8],
        [-1, -1, -1, -1, 5, 6, 7, 4, -1, -1, -1, -1],
        [4, 5, 6, 7, 11, 8, 9, 10, 11, 8, 9, 10],
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11],
        [1, 2, 3, 0, 0, 1, 2, 3, 5, 6, 7, 4],
        [-1, -1, -1, -1, 7, 4, 5, 6, -1, -1, -1, -1],
        [3, 0, 1, 2, 3, 0, 1, 2, 4, 5, 6, 7],
        [2, 3, 0, 1, -1, -1, -1, -1, 0, 1, 2, 3],
    ],
    dtype=np.int64,
)
# What happens to (x, y) on the way, by row and polar cap, belt, cap: bit 0 mirrors x, bit 1 mirrors y, bit 2 swaps.
_NEIGHBOUR_TURN = np.array(
    [[0, 0, 3], [0, 0, 6], [0, 0, 0], [0, 0, 5], [0, 0, 0], [5, 0, 0], [0, 0, 0], [6, 0, 0], [3, 0, 0]],
    dtype=np.int64,
)
# South-west, west, north-west, north, north-east, east, south-east, south.
_STEP_X = np.array([-1, -1, 0, 1, 1, 1, 0, -1], dtype=np.int64)
_STEP_Y = np.array([0, 1, 1, 1, 0, -1, -1, -1], dtype=np.int64)


# ------------------------------------------------------------------------------------------------ one cell (kernels)
@njit(**_JIT)
def spread_bits(value: int) -> int:
    """Put the low 32 bits of ``value`` on the even bits."""
    value &= 0xFFFFFFFF
    value = (value | (value << 16)) & 0x0000FFFF0000FFFF
    value = (value | (value << 8)) & 0x00FF00FF00FF00FF
    value = (value | (value << 4)) & 0x0F0F0F0F0F0F0F0F
    value = (value | (value << 2)) & 0x3333333333333333
    return (value | (value << 1)) & 0x5555555555555555


@njit(**_JIT)
def compress_bits(value: int) -> int:
    """Gather the even bits of ``value``: the inverse of :func:`spread_bits`."""
    value &= 0x5555555555555555
    value = (value | (value >> 1)) & 0x3333333333333333
    value = (value | (value >> 2)) & 0x0F0F0F0F0F0F0F0F
    value = (value | (value >> 4)) & 0x00FF00FF00FF00FF
    value = (value | (value >> 8)) & 0x0000FFFF0000FFFF
    return (value | (value >> 16)) & 0x00000000FFFFFFFF


@njit(**_JIT)
def _modulo(value: float, period: float) -> float:
    """Return ``value`` wrapped into [0, period)."""
    if value >= 0.0:
        return value if value < period else np.fmod(value, period)
    wrapped = np.fmod(value, period) + period
    return 0.0 if wrapped == period else wrapped


@njit(**_JIT)
def position_to_cell(order: int, ra_deg: float, dec_deg: float) -> np.int64:
    """Return the nested cell of one position, -1 where it is no position; for use inside kernels."""
    if not (math.isfinite(ra_deg) and math.isfinite(dec_deg)) or abs(dec_deg) > 90.0:
        return np.int64(-1)
    nside = np.int64(1) << order
    theta = _HALF_PI - dec_deg * _TO_RADIANS
    z = math.cos(theta)
    height = abs(z)
    quarter = _modulo(_modulo(ra_deg * _TO_RADIANS, 2.0 * math.pi) * _INVERSE_HALF_PI, 4.0)
    if height <= 2.0 / 3.0:  # the equatorial belt
        along = nside * (0.5 + quarter)
        up = nside * (z * 0.75)
        rising = np.int64(along - up)
        falling = np.int64(along + up)
        face_rising = rising >> order
        face_falling = falling >> order
        if face_rising == face_falling:
            face = face_rising | 4
        elif face_rising < face_falling:
            face = face_rising
        else:
            face = face_falling + 8
        x = falling & (nside - 1)
        y = nside - (rising & (nside - 1)) - 1
    else:
        face = min(np.int64(quarter), np.int64(3))
        part = quarter - face
        near_pole = theta < 0.01 or theta > 3.14159 - 0.01
        if height < 0.99 or not near_pole:
            scale = nside * math.sqrt(3.0 * (1.0 - height))
        else:  # 1 - |z| has lost its digits here, the sine has not
            scale = nside * math.sin(theta) / math.sqrt((1.0 + height) / 3.0)
        rising = min(np.int64(part * scale), nside - 1)
        falling = min(np.int64((1.0 - part) * scale), nside - 1)
        if z >= 0.0:
            x = nside - falling - 1
            y = nside - rising - 1
        else:
            x = rising
            y = falling
            face += 8
    return (face << (2 * order)) + spread_bits(x) + (spread_bits(y) << 1)


@njit(**_JIT)
def step_cell(order: int, cell: int, step_x: int, step_y: int) -> np.int64:
    """Return the neighbour of ``cell`` one step (-1, 0, 1 on each axis) away, -1 where there is none."""
    nside = np.int64(1) << order
    face = cell >> (2 * order)
    within = cell & ((np.int64(1) << (2 * order)) - 1)
    x = compress_bits(within) + step_x
    y = compress_bits(within >> 1) + step_y
    row = 4
    if x < 0:
        x += nside
        row -= 1
    elif x >= nside:
        x -= nside
        row += 1
    if y < 0:
        y += nside
        row -= 3
    elif y >= nside:
        y -= nside
        row += 3
    if row != 4:
        turn = _NEIGHBOUR_TURN[row, face >> 2]
        face = _NEIGHBOUR_FACE[row, face]
        if face < 0:
            return np.int64(-1)
        if turn & 1:
            x = nside - x - 1
        if turn & 2:
            y = nside - y - 1
        if turn & 4:
            x, y = y, x
    return (face << (2 * order)) + spread_bits(x) + (spread_bits(y) << 1)


@njit(**_JIT)
def _cells_of_positions(order: int, ra_deg: NDArray, dec_deg: NDArray) -> NDArray:
    cells = np.empty(ra_deg.size, np.int64)
    for i in range(ra_deg.size):
        cells[i] = position_to_cell(order, ra_deg[i], dec_deg[i])
    return cells


@njit(**_JIT)
def _positions_of_cells(order: int, cells: NDArray) -> tuple[NDArray, NDArray]:
    nside = np.int64(1) << order
    area_step = 4.0 / (12.0 * nside * nside)
    belt_step = (nside << 1) * area_step
    ra_deg = np.empty(cells.size, np.float64)
    dec_deg = np.empty(cells.size, np.float64)
    for i in range(cells.size):
        if cells[i] < 0:
            ra_deg[i] = np.nan
            dec_deg[i] = np.nan
            continue
        face = cells[i] >> (2 * order)
        within = cells[i] & ((np.int64(1) << (2 * order)) - 1)
        x = compress_bits(within)
        y = compress_bits(within >> 1)
        ring = (_FACE_RING[face] << order) - x - y - 1
        if ring < nside or ring > 3 * nside:
            in_ring = ring if ring < nside else 4 * nside - ring
            depth = (in_ring * in_ring) * area_step
            z = 1.0 - depth if ring < nside else depth - 1.0
            theta = math.atan2(math.sqrt(depth * (2.0 - depth)), z) if abs(z) > 0.99 else math.acos(z)
        else:
            in_ring = nside
            theta = math.acos((2 * nside - ring) * belt_step)
        eighth = _FACE_LONGITUDE[face] * in_ring + x - y
        if eighth < 0:
            eighth += 8 * in_ring
        if in_ring == nside:
            phi = 0.75 * _HALF_PI * eighth * belt_step
        else:
            phi = (0.5 * _HALF_PI * eighth) / in_ring
        ra_deg[i] = phi * _TO_DEGREES
        dec_deg[i] = 90.0 - theta * _TO_DEGREES
    return ra_deg, dec_deg


@njit(**_JIT)
def _ring_of_cells(order: int, cells: NDArray) -> NDArray:
    nside = np.int64(1) << order
    out = np.empty(cells.size, np.int64)
    for i in range(cells.size):
        face = cells[i] >> (2 * order)
        within = cells[i] & ((np.int64(1) << (2 * order)) - 1)
        x = compress_bits(within)
        y = compress_bits(within >> 1)
        ring = (_FACE_RING[face] << order) - x - y - 1
        shift = np.int64(0)
        if ring < nside:
            in_ring = ring
            before = 2 * ring * (ring - 1)
        elif ring > 3 * nside:
            in_ring = 4 * nside - ring
            before = 12 * nside * nside - 2 * (in_ring + 1) * in_ring
        else:
            in_ring = nside
            before = 2 * nside * (nside - 1) + (ring - nside) * 4 * nside
            shift = (ring - nside) & 1
        place = (_FACE_LONGITUDE[face] * in_ring + x - y + 1 + shift) // 2
        if place > 4 * nside:
            place -= 4 * nside
        elif place < 1:
            place += 4 * nside
        out[i] = before + place - 1
    return out


@njit(**_JIT)
def _cells_of_ring(order: int, numbers: NDArray) -> NDArray:
    nside = np.int64(1) << order
    cap = 2 * nside * (nside - 1)
    total = 12 * nside * nside
    out = np.empty(numbers.size, np.int64)
    for i in range(numbers.size):
        number = numbers[i]
        if number < cap or number >= total - cap:
            from_pole = number if number < cap else total - 1 - number
            in_ring = (1 + np.int64(math.sqrt(1.0 + 2.0 * from_pole))) >> 1
            while 2 * in_ring * (in_ring - 1) > from_pole:  # the root may be off by one where it has lost digits
                in_ring -= 1
            while 2 * in_ring * (in_ring + 1) <= from_pole:
                in_ring += 1
            place = from_pole - 2 * in_ring * (in_ring - 1)
            if number < cap:
                ring = in_ring
                face = place // in_ring
            else:
                place = 4 * in_ring - 1 - place
                ring = 4 * nside - in_ring
                face = 8 + place // in_ring
            shift = np.int64(0)
        else:
            ring = (number - cap) // (4 * nside) + nside
            place = (number - cap) % (4 * nside)
            in_ring = nside
            shift = (ring + nside) & 1
            rising = (place - (ring - nside + 1) // 2 + nside) >> order
            falling = (place - (3 * nside - ring + 1) // 2 + nside) >> order
            if falling == rising:
                face = (falling & 3) | 4
            elif falling < rising:
                face = falling
            else:
                face = rising + 8
        down = ring - (_FACE_RING[face] << order) + 1
        across = 2 * (place + 1) - _FACE_LONGITUDE[face] * in_ring - shift - 1
        if across >= 2 * nside:
            across -= 8 * nside
        x = (across - down) >> 1
        y = (-across - down) >> 1
        out[i] = (face << (2 * order)) + spread_bits(x) + (spread_bits(y) << 1)
    return out


@njit(**_JIT)
def _neighbours_of_cells(order: int, cells: NDArray) -> NDArray:
    out = np.empty((cells.size, 8), np.int64)
    for i in range(cells.size):
        for k in range(8):
            out[i, k] = step_cell(order, cells[i], _STEP_X[k], _STEP_Y[k]) if cells[i] >= 0 else -1
    return out


# ------------------------------------------------------------------------------------------------ arrays
def ang2pix(order: int, ra_deg: ArrayLike, dec_deg: ArrayLike) -> NDArray[np.int64]:
    """Return the nested cell of each position.

    Parameters
    ----------
    order : int
        0 to 29.
    ra_deg, dec_deg : array_like, shape (n,)
        ICRS degrees; any right ascension, wrapped into [0, 360).

    Returns
    -------
    numpy.ndarray of int64, shape (n,)
        Cells; -1 where a coordinate is not finite or ``|dec| > 90``.
    """
    check_order(order)
    ra, dec = flat(ra_deg, np.float64), flat(dec_deg, np.float64)
    if ra.size != dec.size:
        raise ValueError(f"{ra.size} right ascensions but {dec.size} declinations")
    return _cells_of_positions(order, ra, dec)


def pix2ang(order: int, cells: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the centres of nested cells as ``(ra_deg, dec_deg)``, each of shape (n,); NaN for cell -1."""
    check_order(order)
    return _positions_of_cells(order, flat(cells, np.int64))


def neighbours(order: int, cells: ArrayLike) -> NDArray[np.int64]:
    """Return the 8 neighbours of each cell, shape (n, 8): SW, W, NW, N, NE, E, SE, S; -1 where there is none."""
    check_order(order)
    return _neighbours_of_cells(order, flat(cells, np.int64))


def ring_of(order: int, cells: ArrayLike) -> NDArray[np.int64]:
    """Return the number in the ring scheme of each nested cell, shape (n,); cells must be valid."""
    check_order(order)
    return _ring_of_cells(order, flat(cells, np.int64))


def nested_of(order: int, numbers: ArrayLike) -> NDArray[np.int64]:
    """Return the nested cell of each number in the ring scheme, shape (n,): the inverse of :func:`ring_of`."""
    check_order(order)
    return _cells_of_ring(order, flat(numbers, np.int64))


def cell_at(healpix_29: ArrayLike, order: int) -> NDArray[np.int64]:
    """Return the cell of ``order`` that holds each order-29 cell, shape (n,); -1 stays -1."""
    check_order(order)
    return flat(healpix_29, np.int64) >> (2 * (MAX_ORDER - order))  # an arithmetic shift keeps -1


def order_for_radius(radius_deg: float) -> int:
    """Return the deepest order at which a cell and its neighbours hold every disc of that radius centred in the cell.

    Returns
    -------
    int
        0 to 29, or -1 where no order does: the whole sky has to be looked at.
    """
    if not radius_deg <= BLOCK_WIDTH_DEG:
        return -1
    order = MAX_ORDER
    while BLOCK_WIDTH_DEG / (1 << order) < radius_deg:
        order -= 1
    return order


def cell_area_deg2(order: int) -> float:
    """Return the area of one cell in square degrees."""
    return 4.0 * math.pi * _TO_DEGREES**2 / (12 << (2 * order))


# ------------------------------------------------------------------------------------------------ UNIQ numbers
def to_uniq(order: ArrayLike, cells: ArrayLike) -> NDArray[np.int64]:
    """Return the UNIQ number ``4 * 4**order + cell`` of each cell; ``order`` is one number or one per cell."""
    orders = np.asarray(order, dtype=np.int64)
    return (np.int64(4) << (2 * orders)) + np.asarray(cells, dtype=np.int64)


def from_uniq(uniq: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return ``(orders, cells)`` of UNIQ numbers, each of shape (n,)."""
    numbers = flat(uniq, np.int64)
    if numbers.size and (numbers.min() < 4 or numbers.max() >= np.int64(16) << (2 * MAX_ORDER)):
        raise ValueError("a UNIQ number lies outside orders 0 to 29")
    # Powers of four from 4**1 on: the order is how many of them are not above the number, less one.
    starts = np.int64(4) << (2 * np.arange(MAX_ORDER + 1, dtype=np.int64))
    orders = np.searchsorted(starts, numbers, side="right").astype(np.int64) - 1
    return orders, numbers - starts[orders]


def flat(values: ArrayLike, dtype: type) -> NDArray[Any]:
    """Return the values as a contiguous array of one dimension."""
    return np.ascontiguousarray(values, dtype=dtype).reshape(-1)


def check_order(order: int) -> None:
    """Refuse what is no HEALPix order."""
    if not 0 <= order <= MAX_ORDER:
        raise ValueError(f"HEALPix order {order} is not one of 0 to {MAX_ORDER}")
