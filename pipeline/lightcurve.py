"""Light curves: struct-of-lists in Arrow, offsets and flat arrays in numpy.

A *light curve* column is ``struct<mjd: list<double>, flux_njy: list<double>, ...>`` whose lists have equal offsets. The
functions here read and write that form without a Python object per point. They accept arrays, chunked arrays and slices
of either; a null light curve counts as an empty one. NaN stands for null in float arrays, :data:`MISSING` in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

MISSING = np.iinfo(np.int64).min
"""Stands for null in the int64 arrays of this module; never written."""

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
    lengths = pc.list_value_length(array).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.zeros(len(array) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return offsets, array.flatten()


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


# ----------------------------------------------------------------------------------------------- writing
@dataclass(frozen=True)
class Points:
    """Measurements (or, with flux as limit, non-detections) of many alerts, flat; every array has shape (m,).

    ``row`` is the alert, ``band`` a place in the survey's bands; ``exposure`` and ``reference`` may be
    :data:`MISSING`, fluxes and errors NaN. Units: TAI days and nJy.
    """

    row: Int
    mjd: Float
    band: NDArray[np.int8]
    exposure: Int
    flux_njy: Float
    flux_err_njy: Float
    total_flux_njy: Float
    total_flux_err_njy: Float
    reference: Int
    is_forced: Bool

    def where(self, keep: Bool | Int) -> Points:
        """Return the points that a mask keeps, or an index array takes."""
        return Points(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})


def concatenate(parts: Sequence[Points]) -> Points:
    """Return the points of all parts, in that order."""
    return Points(**{f.name: np.concatenate([getattr(part, f.name) for part in parts]) for f in fields(Points)})


def in_time_order(points: Points) -> Points:
    """Sort by (row, mjd, is_forced, exposure); equal ones keep their order."""
    return points.where(np.lexsort((points.exposure, points.is_forced, points.mjd, points.row)))


def to_struct(points: Points, n_rows: int, bands: Sequence[str], dtype: pa.StructType) -> pa.StructArray:
    """Write points as struct-of-lists.

    Parameters
    ----------
    points : Points
        Sorted by row.
    n_rows : int
        Number of alerts; one without points gets empty lists.
    bands : sequence of str
        The survey's bands.
    dtype : pyarrow.StructType
        The fields wanted, each a list; a name is an attribute of :class:`Points`, or ``flux_limit_njy`` for the
        limits.

    Returns
    -------
    pyarrow.StructArray, (n_rows,)
    """
    ends = np.zeros(n_rows + 1, dtype=np.int32)
    np.cumsum(np.bincount(points.row, minlength=n_rows), out=ends[1:])
    shared = pa.array(ends)
    children = []
    for field in dtype:
        values = getattr(points, "flux_njy" if field.name == "flux_limit_njy" else field.name)
        if field.name == "band":
            child = pc.take(pa.array(bands, pa.string()), pa.array(values, mask=values < 0))
        elif values.dtype == np.int64:
            child = pa.array(values, mask=values == MISSING)
        else:
            child = pa.array(values, from_pandas=True)
        children.append(pa.ListArray.from_arrays(shared, child, type=field.type))
    return pa.StructArray.from_arrays(children, fields=list(dtype))


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
