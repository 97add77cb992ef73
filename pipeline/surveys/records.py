"""How packets' columns are read: native Arrow columns as flat numpy arrays, one pass each.

Null is NaN in floats and :data:`pipeline.lightcurve.MISSING` in integers. The arrays are read-only: some are the Arrow
buffers themselves.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numba import njit
from numpy.typing import NDArray

from pipeline import lightcurve as lc
from pipeline.lightcurve import MISSING, Float, Int
from pipeline.points import room

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_FLOATS: dict[int, type] = {pa.float32().id: np.float32, pa.float64().id: np.float64}
_INTEGERS: dict[int, type] = {pa.int32().id: np.int32, pa.int64().id: np.int64}
_NOTHING = ("", "null", "None", "nan")
_ALL_VALID = np.zeros(0, dtype=np.uint8)
_ALL_VALID.setflags(write=False)


class Records:
    """Columns of a table, or children of a struct array, by name; a column that is not there is all null.

    Parameters
    ----------
    source : pyarrow.Table or pyarrow.Array
        Native columns, or a column of structs (None where the survey shipped none, with ``n``).
    sentinels : tuple of float
        What this survey writes for "no number".
    n : int
        Number of rows, where there is no source.
    """

    def __init__(
        self, source: pa.Table | pa.Array | None, sentinels: tuple[float, ...] = (), n: int | None = None
    ) -> None:
        self._source = source
        self._sentinels = sentinels
        self._fields = None
        if isinstance(source, pa.Table):
            self._fields, n = source.schema, source.num_rows
        elif source is not None:
            self._fields, n = source.type if pa.types.is_struct(source.type) else None, len(source)
        self.n = n or 0

    def __contains__(self, name: str) -> bool:
        return self._place(name) >= 0

    def _place(self, name: str) -> int:
        return -1 if self._fields is None else self._fields.get_field_index(name)

    def array(self, *names: str) -> pa.Array:
        """Return the first of these columns that is there; where it is null, the next one's value."""
        found = [self._array(place) for place in map(self._place, names) if place >= 0]
        found = [array for array in found if not pa.types.is_null(array.type)]
        if not found:
            return pa.nulls(self.n)
        merged = found[0]
        for other in found[1:]:
            if merged.null_count == len(merged):
                merged = other.cast(merged.type)
            elif merged.null_count:
                merged = pc.coalesce(merged, other.cast(merged.type))
        return merged

    def _array(self, place: int) -> pa.Array:
        source: Any = self._source
        if isinstance(source, pa.Table):
            column = source.column(place)
            return column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        child = source.field(place)
        if not source.null_count or child.null_count == len(child):
            return child
        if pa.types.is_nested(child.type):
            return pc.struct_field(source, place)  # takes over the nulls of the parent
        return pc.if_else(source.is_valid(), child, pa.scalar(None, child.type))  # the same, ten times as fast

    def floats(self, *names: str, sentinels: tuple[float, ...] | None = None) -> Float:
        """Return float64 (n,); null, infinite and the survey's sentinels (or those given) as NaN."""
        return floats(self.array(*names), self._sentinels if sentinels is None else sentinels)

    def integers(self, *names: str) -> Int:
        """Return int64 (n,); null as :data:`pipeline.lightcurve.MISSING`."""
        return integers(self.array(*names))

    def ids(self, *names: str) -> Int:
        """Return ids, int64 (n,); null, 0 and negative ones as :data:`pipeline.lightcurve.MISSING`."""
        values = self.integers(*names)
        if values.size and values.min() > 0:
            return values
        return _fixed(np.where(values > 0, values, MISSING))

    def codes(self, labels: Sequence[str], *names: str) -> NDArray[np.int8]:
        """Return places in ``labels``, int8 (n,), -1 where unknown."""
        return codes(self.array(*names), labels)

    def text(self, *names: str) -> pa.Array:
        """Return strings (n,); '', 'null', 'None' and 'nan' as null."""
        array = self.array(*names).cast(pa.string())
        nothing = codes(array, _NOTHING) >= 0
        if not nothing.any():
            return array
        return pc.if_else(pa.array(nothing), pa.scalar(None, pa.string()), array)

    def flags(self, *names: str) -> pa.Array:
        """Return booleans (n,), null where the survey says nothing."""
        return self.array(*names).cast(pa.bool_())

    def record(self, name: str) -> Records:
        """Return the children of a struct column."""
        place = self._place(name)
        return Records(self._array(place) if place >= 0 else None, self._sentinels, self.n)

    def records(self, name: str) -> tuple[Int, Records]:
        """Return the row of every element, int64 (m,), and the elements of a list-of-struct column."""
        place = self._place(name)
        array = self._array(place) if place >= 0 else None
        if array is None or not (pa.types.is_list(array.type) or pa.types.is_large_list(array.type)):
            return np.zeros(0, dtype=np.int64), Records(None, self._sentinels, 0)
        ends, elements = lc.list_rows(array)
        return lc.row_of_point(ends), Records(elements, self._sentinels)


# ----------------------------------------------------------------------------------------------- Arrow to numpy
def floats(array: pa.Array, sentinels: tuple[float, ...] = ()) -> Float:
    """Return numbers as float64 (n,); null, infinite and ``sentinels`` as NaN."""
    if array.null_count == len(array):
        return _fixed(np.full(len(array), np.nan))
    data = array if array.type.id in _FLOATS else array.cast(pa.float64())
    out = room(len(data), np.float64)
    _floats(_values(data, _FLOATS[data.type.id]), *_validity(data), np.array(sentinels, dtype=np.float64), out)
    return _fixed(out)


def integers(array: pa.Array) -> Int:
    """Return integers as int64 (n,), null as :data:`pipeline.lightcurve.MISSING`; never through floating point."""
    if array.null_count == len(array):
        return _fixed(np.full(len(array), MISSING))
    data = array if array.type.id in _INTEGERS else array.cast(pa.int64())
    values = _values(data, _INTEGERS[data.type.id])
    if not data.null_count and values.dtype == np.int64:
        return values
    out = room(len(data), np.int64)
    _integers(values, *_validity(data), out)
    return _fixed(out)


def codes(array: pa.Array, labels: Sequence[str]) -> NDArray[np.int8]:
    """Return the place of every string in ``labels``, int8 (n,); -1 for null and for a string that is not there."""
    out = np.full(len(array), -1, dtype=np.int8)
    if array.null_count < len(array):
        data = array.cast(pa.string())
        texts = [label.encode() for label in labels]
        ends = np.cumsum([0, *map(len, texts)])
        _codes(*_strings(data), *_validity(data), ends, np.frombuffer(b"".join(texts), dtype=np.uint8), out)
    return _fixed(out)


def _fixed(values: NDArray) -> NDArray:
    """Return the array as read-only, as those over Arrow buffers are: a kernel is then compiled for one kind."""
    values.setflags(write=False)
    return values


def _values(array: pa.Array, dtype: type) -> NDArray:
    found: NDArray = np.frombuffer(array.buffers()[1], dtype=dtype)[array.offset : array.offset + len(array)]
    return _fixed(found)


def _validity(array: pa.Array) -> tuple[NDArray[np.uint8], int]:
    """Return the validity bits and the place of the first; no bits where all are valid."""
    if not array.null_count:
        return _ALL_VALID, 0
    return _fixed(np.frombuffer(array.buffers()[0], dtype=np.uint8)), array.offset


def _strings(array: pa.Array) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return offsets (n+1,) and bytes of a string array."""
    _, offsets, data = array.buffers()
    ends = np.frombuffer(offsets, dtype=np.int32)[array.offset : array.offset + len(array) + 1]
    return _fixed(ends), _ALL_VALID if data is None else _fixed(np.frombuffer(data, dtype=np.uint8))


@njit(**_JIT)
def _floats(values: NDArray, bits: NDArray[np.uint8], first: int, sentinels: Float, out: Float) -> None:
    for i in range(len(values)):
        out[i] = values[i] if np.isfinite(values[i]) else np.nan
    for sentinel in sentinels:
        for i in range(len(values)):
            out[i] = np.nan if out[i] == sentinel else out[i]
    if len(bits):
        for i in range(len(values)):
            if not bits[(first + i) >> 3] >> ((first + i) & 7) & 1:
                out[i] = np.nan


@njit(**_JIT)
def _integers(values: NDArray, bits: NDArray[np.uint8], first: int, out: Int) -> None:
    for i in range(len(values)):
        out[i] = values[i]
    if len(bits):
        for i in range(len(values)):
            if not bits[(first + i) >> 3] >> ((first + i) & 7) & 1:
                out[i] = MISSING


@njit(**_JIT)
def _codes(
    ends: NDArray[np.int32],
    data: NDArray[np.uint8],
    bits: NDArray[np.uint8],
    first: int,
    label_ends: Int,
    labels: NDArray[np.uint8],
    out: NDArray[np.int8],
) -> None:
    for i in range(len(out)):
        if len(bits) and not bits[(first + i) >> 3] >> ((first + i) & 7) & 1:
            continue
        length = ends[i + 1] - ends[i]
        for place in range(len(label_ends) - 1):
            begin = label_ends[place]
            if label_ends[place + 1] - begin != length:
                continue
            k = 0
            while k < length and data[ends[i] + k] == labels[begin + k]:
                k += 1
            if k == length:
                out[i] = place
                break
