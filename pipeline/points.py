"""Measurements of many alerts, flat: in which order they stand in a light curve, and how they are written as one.

NaN stands for null in float arrays, :data:`MISSING` in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

MISSING = np.iinfo(np.int64).min
"""Stands for null in the int64 arrays of light curves; never written."""

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}


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


@dataclass(frozen=True)
class Order:
    """Which points of every alert, and in which order: ``ends`` int64 (n+1,), ``place`` int64 (k,) among the points."""

    ends: Int
    place: Int


def room(m: int, dtype: type) -> NDArray:
    """Return an array (m,) to be filled, in memory of Arrow's pool: unlike numpy's, it is kept for the next batch."""
    return np.frombuffer(pa.allocate_buffer(m * np.dtype(dtype).itemsize), dtype=dtype)


def empty_points(m: int) -> Points:
    """Return ``m`` points to be filled."""
    dtypes: dict[str, type] = {"band": np.int8, "is_forced": np.bool_}
    dtypes |= dict.fromkeys(("row", "exposure", "reference"), np.int64)
    return Points(**{field.name: room(m, dtypes.get(field.name, np.float64)) for field in fields(Points)})


def is_usable(points: Points) -> Bool:
    """Return which points have a time, a flux and a band, bool (m,)."""
    return _is_usable(points.mjd, points.flux_njy, points.band)


@njit(**_JIT)
def _is_usable(mjd: Float, flux: Float, band: NDArray[np.int8]) -> Bool:
    out = np.empty(len(mjd), dtype=np.bool_)
    for i in range(len(mjd)):
        out[i] = np.isfinite(mjd[i]) and np.isfinite(flux[i]) and band[i] >= 0
    return out


# ----------------------------------------------------------------------------------------------- order
def time_order(points: Points, n_rows: int, keep: Bool | None = None) -> Order:
    """Return the order (row, mjd, is_forced, exposure) of the points that ``keep``, bool (m,), marks.

    Equal ones keep their order. A history is a few stretches in order of time, so it is merged, not sorted.
    """
    if keep is None:
        keep = np.ones(len(points.row), dtype=np.bool_)
    return Order(*_time_order(points.row, keep, points.mjd, points.is_forced, points.exposure, n_rows))


def in_time_order(points: Points) -> Points:
    """Sort by (row, mjd, is_forced, exposure); equal ones keep their order."""
    return points.where(time_order(points, int(points.row.max(initial=-1)) + 1).place)


@njit(**_JIT)
def _time_order(row: Int, keep: Bool, mjd: Float, is_forced: Bool, exposure: Int, n_rows: int) -> tuple[Int, Int]:
    ends = np.zeros(n_rows + 2, dtype=np.int64)
    for i in range(len(row)):
        ends[row[i] + 2] += keep[i]
    for k in range(n_rows):
        ends[k + 2] += ends[k + 1]
    place = np.empty(ends[n_rows + 1], dtype=np.int64)
    for i in range(len(row)):
        if keep[i]:
            place[ends[row[i] + 1]] = i
            ends[row[i] + 1] += 1
    buffer = np.empty(len(place), dtype=np.int64)
    runs = np.empty(len(place) + 1, dtype=np.int64)
    for k in range(n_rows):
        n_runs = _find_runs(place, ends[k], ends[k + 1], runs, mjd, is_forced, exposure)
        while n_runs > 1:
            for run in range(0, n_runs - 1, 2):
                _merge(place, runs[run], runs[run + 1], runs[run + 2], buffer, mjd, is_forced, exposure)
            for run in range(0, n_runs + 1, 2):
                runs[run // 2] = runs[run]
            runs[(n_runs + 1) // 2] = ends[k + 1]
            n_runs = (n_runs + 1) // 2
    return ends[: n_rows + 1], place


@njit(**_JIT)
def _is_after(mjd: float, other_mjd: float, is_forced: bool, other_is_forced: bool, exposure: int, other: int) -> bool:
    """Return whether a point comes after another one; numbers, since arrays would be passed on in memory."""
    if mjd != other_mjd and not (np.isnan(mjd) and np.isnan(other_mjd)):
        return mjd > other_mjd or np.isnan(mjd)
    if is_forced != other_is_forced:
        return is_forced
    return exposure > other


@njit(**_JIT)
def _find_runs(place: Int, begin: int, end: int, runs: Int, mjd: Float, is_forced: Bool, exposure: Int) -> int:
    """Note the bounds of the stretches of ``place[begin:end]`` that are in order, and return how many there are.

    A stretch that falls all the way is turned round: some surveys ship the latest first.
    """
    n_runs, first = 0, begin
    runs[0] = begin
    while first < end:
        falls, last = False, first + 1
        while last < end:
            a, b = place[last - 1], place[last]
            is_after = _is_after(mjd[a], mjd[b], is_forced[a], is_forced[b], exposure[a], exposure[b])
            if last == first + 1:
                falls = is_after
            elif is_after != falls:
                break
            last += 1
        if falls:
            for k in range((last - first) // 2):
                place[first + k], place[last - 1 - k] = place[last - 1 - k], place[first + k]
        n_runs += 1
        runs[n_runs] = first = last
    return n_runs


@njit(**_JIT)
def _merge(
    place: Int, left: int, middle: int, end: int, buffer: Int, mjd: Float, is_forced: Bool, exposure: Int
) -> None:
    """Merge ``place[left:middle]`` and ``place[middle:end]``; of equal points those of the first come first."""
    out, right = left, middle
    for k in range(left, middle):
        buffer[k] = place[k]
    while left < middle and right < end:
        a, b = buffer[left], place[right]
        takes_right = _is_after(mjd[a], mjd[b], is_forced[a], is_forced[b], exposure[a], exposure[b])
        place[out] = b if takes_right else a
        right += takes_right
        left += not takes_right
        out += 1
    for k in range(left, middle):
        place[out + k - left] = buffer[k]


# ----------------------------------------------------------------------------------------------- writing
def to_struct(
    points: Points, n_rows: int, bands: Sequence[str], dtype: pa.StructType, order: Order | None = None
) -> pa.StructArray:
    """Write points as struct-of-lists.

    Parameters
    ----------
    points : Points
        In the order ``order``; without it sorted by row.
    n_rows : int
        Number of alerts; one without points gets empty lists.
    bands : sequence of str
        The survey's bands.
    dtype : pyarrow.StructType
        The fields wanted, each a list; a name is an attribute of :class:`Points`, or ``flux_limit_njy`` for the
        limits.
    order : Order, optional
        The points to write.

    Returns
    -------
    pyarrow.StructArray, (n_rows,)
    """
    if order is None:
        order = _as_they_are(points, n_rows)
    shared = pa.array(order.ends.astype(np.int32))
    children = []
    for field in dtype:
        values = getattr(points, "flux_njy" if field.name == "flux_limit_njy" else field.name)
        child = _labels(values, order.place, bands) if field.name == "band" else _column(values, order.place)
        children.append(pa.ListArray.from_arrays(shared, child, type=field.type))
    return pa.StructArray.from_arrays(children, fields=list(dtype))


def _as_they_are(points: Points, n_rows: int) -> Order:
    ends = np.zeros(n_rows + 1, dtype=np.int64)
    np.cumsum(np.bincount(points.row, minlength=n_rows), out=ends[1:])
    return Order(ends, np.arange(len(points.row)))


def _column(values: NDArray, place: Int) -> pa.Array:
    """Return the values at these places as an Arrow array, NaN and :data:`MISSING` as null."""
    m = len(place)
    bits = np.zeros((m + 7) // 8, dtype=np.uint8)
    if values.dtype == np.bool_:
        _gather_flags(values, place, bits)
        return pa.Array.from_buffers(pa.bool_(), m, [None, pa.py_buffer(bits)], 0)
    out = room(m, values.dtype.type)
    gather = _gather_integers if values.dtype == np.int64 else _gather_floats
    nulls = gather(values, place, out, bits)
    dtype = pa.int64() if values.dtype == np.int64 else pa.float64()
    return pa.Array.from_buffers(dtype, m, [pa.py_buffer(bits) if nulls else None, pa.py_buffer(out)], nulls)


def _labels(code: NDArray[np.int8], place: Int, labels: Sequence[str]) -> pa.Array:
    """Return the labels of the codes at these places as an Arrow array of strings, -1 as null."""
    m = len(place)
    texts = [label.encode() for label in labels]
    ends = np.cumsum([0, *map(len, texts)])
    valid = np.zeros((m + 7) // 8, dtype=np.uint8)
    out_ends = np.zeros(m + 1, dtype=np.int32)
    out = np.empty(m * max(map(len, texts), default=0), dtype=np.uint8)
    nulls = _gather_labels(code, place, ends, np.frombuffer(b"".join(texts), dtype=np.uint8), out_ends, out, valid)
    buffers = [pa.py_buffer(valid) if nulls else None, pa.py_buffer(out_ends), pa.py_buffer(out)]
    return pa.Array.from_buffers(pa.string(), m, buffers, nulls)


@njit(**_JIT)
def _gather_floats(values: Float, place: Int, out: Float, valid: NDArray[np.uint8]) -> int:
    nulls = 0
    for i in range(len(place)):
        value = values[place[i]]
        out[i] = value
        is_null = np.isnan(value)
        nulls += is_null
        valid[i >> 3] |= (not is_null) << (i & 7)
    return nulls


@njit(**_JIT)
def _gather_integers(values: Int, place: Int, out: Int, valid: NDArray[np.uint8]) -> int:
    nulls = 0
    for i in range(len(place)):
        value = values[place[i]]
        out[i] = value
        is_null = value == MISSING
        nulls += is_null
        valid[i >> 3] |= (not is_null) << (i & 7)
    return nulls


@njit(**_JIT)
def _gather_flags(values: Bool, place: Int, bits: NDArray[np.uint8]) -> None:
    for i in range(len(place)):
        bits[i >> 3] |= values[place[i]] << (i & 7)


@njit(**_JIT)
def _gather_labels(
    code: NDArray[np.int8],
    place: Int,
    label_ends: Int,
    labels: NDArray[np.uint8],
    ends: NDArray[np.int32],
    out: NDArray[np.uint8],
    valid: NDArray[np.uint8],
) -> int:
    nulls, end = 0, 0
    for i in range(len(place)):
        label = code[place[i]]
        if label < 0:
            nulls += 1
        else:
            valid[i >> 3] |= 1 << (i & 7)
            for k in range(label_ends[label], label_ends[label + 1]):
                out[end] = labels[k]
                end += 1
        ends[i + 1] = end
    return nulls
