"""Light curves: struct-of-lists in Arrow, offsets and flat arrays in numpy.

A *light curve* column is ``struct<mjd: list<double>, flux_njy: list<double>, ...>`` whose lists have equal offsets. The
functions here read and write that form without a Python object per point. They accept arrays, chunked arrays and slices
of either; a null light curve counts as an empty one. NaN stands for null in float arrays, :data:`MISSING` in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from pipeline.points import MISSING as MISSING
from pipeline.points import Bool as Bool
from pipeline.points import Float as Float
from pipeline.points import Int as Int
from pipeline.points import Order as Order
from pipeline.points import Points as Points
from pipeline.points import empty_points as empty_points
from pipeline.points import in_time_order as in_time_order
from pipeline.points import is_usable as is_usable
from pipeline.points import time_order as time_order
from pipeline.points import to_struct as to_struct

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


# ----------------------------------------------------------------------------------------------- reading
def _one_array(data: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(data, pa.ChunkedArray):
        return data.combine_chunks() if data.num_chunks != 1 else data.chunk(0)
    return data


def list_rows(lists: pa.ChunkedArray | pa.Array) -> tuple[Int, pa.Array]:
    """Return offsets and elements of a list column.

    Parameters
    ----------
    lists : pyarrow array of lists, (n,)
        May be sliced, chunked, and hold nulls, which count as empty.

    Returns
    -------
    tuple
        Offsets, int64 (n+1,), from 0; the m elements, of the lists' value type.
    """
    array = _one_array(lists)
    ends = array.offsets.to_numpy().astype(np.int64)
    first, last = int(ends[0]), int(ends[-1])
    ends -= first
    if array.null_count:
        lengths = np.diff(ends)
        is_null = array.is_null().to_numpy(zero_copy_only=False)
        if lengths[is_null].any():  # elements that no list shows: the others have to be brought together
            np.cumsum(np.where(is_null, 0, lengths), out=ends[1:])
            return ends, array.flatten()
    return ends, array.values.slice(first, last - first)


def row_of_point(offsets: Int) -> Int:
    """Return the row of every element, int64 (m,), from offsets (n+1,)."""
    return np.repeat(np.arange(len(offsets) - 1, dtype=np.int64), np.diff(offsets))


def floats(array: pa.ChunkedArray | pa.Array) -> Float:
    """Return numbers as float64 (n,), null as NaN."""
    data = _one_array(array)
    if data.type != pa.float64():
        data = data.cast(pa.float64())
    return data.to_numpy(zero_copy_only=False)


def integers(array: pa.ChunkedArray | pa.Array) -> Int:
    """Return integers as int64 (n,), null as :data:`MISSING`; never through floating point."""
    data = _one_array(array).cast(pa.int64())
    return data.fill_null(MISSING).to_numpy(zero_copy_only=False)


def booleans(array: pa.ChunkedArray | pa.Array) -> Bool:
    """Return booleans (n,), null as False."""
    return _one_array(array).cast(pa.bool_()).fill_null(False).to_numpy(zero_copy_only=False)


def codes(array: pa.ChunkedArray | pa.Array, labels: Sequence[str]) -> NDArray[np.int8]:
    """Return the place of every string in ``labels``, int8 (n,); -1 for null and for a string that is not there."""
    found = pc.index_in(_one_array(array).cast(pa.string()), value_set=pa.array(labels, pa.string()))
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int8)


def offsets(light_curve: pa.ChunkedArray | pa.Array) -> Int:
    """Return the offsets of a light-curve column, int64 (n+1,), from 0."""
    return list_rows(pc.struct_field(_one_array(light_curve), "mjd"))[0]


def elements(light_curve: pa.ChunkedArray | pa.Array, field: str) -> pa.Array:
    """Return the m elements of one field of a light-curve column, in the order of :func:`offsets`."""
    return list_rows(pc.struct_field(_one_array(light_curve), field))[1]


# ----------------------------------------------------------------------------------------------- selection
def select(light_curve: pa.ChunkedArray | pa.Array, keep: Bool) -> pa.StructArray:
    """Return the same light curves with only the points that ``keep``, bool (m,), marks."""
    array = _one_array(light_curve)
    ends = offsets(array)
    kept = np.zeros(len(keep) + 1, dtype=np.int64)
    np.cumsum(keep, out=kept[1:])
    shared = pa.array(kept[ends].astype(np.int32))
    mask = pa.array(keep)
    children = [
        pa.ListArray.from_arrays(shared, elements(array, field.name).filter(mask), type=field.type)
        for field in array.type
    ]
    return pa.StructArray.from_arrays(children, fields=list(array.type))


def is_primary(ends: Int, exposure: Int, band: NDArray[np.int8], is_forced: Bool) -> Bool:
    """Return which points count when every measurement counts once.

    Parameters
    ----------
    ends : numpy.ndarray of int64, (n+1,)
        Offsets.
    exposure, band, is_forced : numpy.ndarray, (m,)
        Exposure (:data:`MISSING` where unknown), band code and whether the photometry is forced.

    Returns
    -------
    numpy.ndarray of bool, (m,)
        True for one point of each (alert, exposure, band): the first detection, else the first forced point. A point
        without exposure cannot repeat another and always counts.
    """
    return _primary(ends, exposure, band, is_forced)


def primary(light_curve: pa.ChunkedArray | pa.Array) -> pa.StructArray:
    """Return the light curves with one row per (exposure, band): the detection, else the forced point."""
    array = _one_array(light_curve)
    band = elements(array, "band")
    labels = sorted(label for label in pc.unique(band).to_pylist() if label is not None)
    keep = is_primary(
        offsets(array),
        integers(elements(array, "exposure")),
        codes(band, labels),
        booleans(elements(array, "is_forced")),
    )
    return select(array, keep)


def forced(light_curve: pa.ChunkedArray | pa.Array) -> pa.StructArray:
    """Return the light curves with only their forced photometry."""
    array = _one_array(light_curve)
    return select(array, booleans(elements(array, "is_forced")))


@njit(**_JIT)
def _primary(ends: Int, exposure: Int, band: NDArray[np.int8], is_forced: Bool) -> Bool:
    keep = np.zeros(len(exposure), dtype=np.bool_)
    longest = 0
    for row in range(len(ends) - 1):
        longest = max(longest, ends[row + 1] - ends[row])
    table = np.empty(4 * longest + 16, dtype=np.int64)
    for row in range(len(ends) - 1):
        size = 16  # open addressing, at most half full
        while size < 2 * (ends[row + 1] - ends[row]):
            size *= 2
        table[:size] = -1
        for wanted in (False, True):  # detections first, so that a forced point never displaces one
            for i in range(ends[row], ends[row + 1]):
                if is_forced[i] != wanted:
                    continue
                if exposure[i] == MISSING:
                    keep[i] = True
                    continue
                slot = ((exposure[i] * 8 + band[i]) * 0x9E3779B97F4A7C1 >> 20) & (size - 1)
                while table[slot] >= 0:
                    j = table[slot]
                    if exposure[j] == exposure[i] and band[j] == band[i]:
                        break
                    slot = (slot + 1) & (size - 1)
                if table[slot] < 0:
                    table[slot] = i
                    keep[i] = True
    return keep


# ----------------------------------------------------------------------------------------------- reductions
def count_detections(points: Points, order: Order) -> NDArray[np.int32]:
    """Return the number of detections per alert, each (exposure, band) once, int32 (n,)."""
    return _count_detections(order.ends, order.place, points.exposure, points.band, points.is_forced)


@njit(**_JIT)
def _count_detections(ends: Int, place: Int, exposure: Int, band: NDArray[np.int8], is_forced: Bool) -> NDArray:
    out = np.zeros(len(ends) - 1, dtype=np.int32)
    for row in range(len(out)):
        last, is_rising = MISSING, True  # as a rule exposures rise with time, and none stands twice
        for i in place[ends[row] : ends[row + 1]]:
            if not is_forced[i]:
                is_rising &= exposure[i] > last
                last = exposure[i]
                out[row] += 1
        if not is_rising:
            shown = place[ends[row] : ends[row + 1]]
            one = np.array([0, len(shown)])
            out[row] = (_primary(one, exposure[shown], band[shown], is_forced[shown]) & ~is_forced[shown]).sum()
    return out


def first_detection(points: Points, order: Order) -> Float:
    """Return the time of the earliest detection per alert, TAI days (n,); NaN where there is none."""
    return _first_detection(order.ends, order.place, points.mjd, points.is_forced)


@njit(**_JIT)
def _first_detection(ends: Int, place: Int, mjd: Float, is_forced: Bool) -> Float:
    out = np.full(len(ends) - 1, np.nan)
    for row in range(len(out)):
        for i in place[ends[row] : ends[row + 1]]:
            if not is_forced[i]:
                out[row] = mjd[i]
                break
    return out


def count(ends: Int, keep: Bool | None = None) -> NDArray[np.int32]:
    """Return the number of points (or of those that ``keep`` marks) per alert, int32 (n,)."""
    if keep is None:
        return np.diff(ends).astype(np.int32)
    kept = np.zeros(len(keep) + 1, dtype=np.int64)
    np.cumsum(keep, out=kept[1:])
    return np.diff(kept[ends]).astype(np.int32)


@njit(**_JIT)
def minimum(ends: Int, values: Float) -> Float:
    """Return the smallest value per alert, float64 (n,), NaN ignored; NaN where there is none."""
    out = np.full(len(ends) - 1, np.nan)
    for row in range(len(out)):
        for i in range(ends[row], ends[row + 1]):
            if not values[i] >= out[row] and not np.isnan(values[i]):
                out[row] = values[i]
    return out


@njit(**_JIT)
def maximum(ends: Int, values: Float) -> Float:
    """Return the largest value per alert, float64 (n,), NaN ignored; NaN where there is none."""
    out = np.full(len(ends) - 1, np.nan)
    for row in range(len(out)):
        for i in range(ends[row], ends[row + 1]):
            if not values[i] <= out[row] and not np.isnan(values[i]):
                out[row] = values[i]
    return out


@njit(**_JIT)
def total(ends: Int, values: Float) -> Float:
    """Return the sum per alert, float64 (n,), in order, NaN ignored; 0 where there is none."""
    out = np.zeros(len(ends) - 1)
    for row in range(len(out)):
        for i in range(ends[row], ends[row + 1]):
            if not np.isnan(values[i]):
                out[row] += values[i]
    return out


@njit(**_JIT)
def median(ends: Int, values: Float) -> Float:
    """Return the median per alert, float64 (n,), NaN ignored; NaN where there is none."""
    out = np.full(len(ends) - 1, np.nan)
    for row in range(len(out)):
        part = values[ends[row] : ends[row + 1]]
        part = part[~np.isnan(part)]
        if len(part):
            out[row] = np.median(part)
    return out


@njit(**_JIT)
def argsort(ends: Int, values: Float) -> Int:
    """Return places (m,), int64, that sort ``values`` within every alert; stable, NaN last."""
    out = np.empty(len(values), dtype=np.int64)
    for row in range(len(ends) - 1):
        begin = ends[row]
        out[begin : ends[row + 1]] = np.argsort(values[begin : ends[row + 1]], kind="mergesort") + begin
    return out
