"""Light curves: struct-of-lists in Arrow, offsets and flat arrays in numpy.

A *light curve* column is ``struct<mjd: list<double>, flux_njy: list<double>, ...>`` whose lists have equal offsets. The
functions here read and write that form without a Python object per point. They accept arrays, chunked arrays and slices
of either; a null light curve counts as an empty one. NaN stands for null in float arrays, :data:`MISSING` in integers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Float = NDArray[np.float64]
Int = NDArray[np.int64]
Bool = NDArray[np.bool_]

MISSING = np.iinfo(np.int64).min
"""Stands for null in the int64 arrays of this module; never written."""


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


def codes(array: pa.ChunkedArray | pa.Array, labels: Sequence[str]) -> NDArray[np.int8]:
    """Return the place of every string in ``labels``, int8 (n,); -1 for null and for a string that is not there."""
    found = pc.index_in(_one_array(array).cast(pa.string()), value_set=pa.array(labels, pa.string()))
    return found.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int8)


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
    keep = np.zeros(len(exposure), dtype=bool)
    for begin, end in pairwise(ends.tolist()):
        seen = set()
        for wanted in (False, True):  # detections first, so that a forced point never displaces one
            for i in range(begin, end):
                key = i if exposure[i] == MISSING else (exposure[i].item(), band[i].item())
                if is_forced[i] == wanted and key not in seen:
                    seen.add(key)
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
