"""Whether two Arrow tables hold the same values to the last bit, whatever their chunks, offsets and hidden values."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

QUIET = {pa.float32(): 1 << 22, pa.float64(): 1 << 51}
"""The bit of a NaN that says that it does not signal."""


def flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.Array):
        return column
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.nulls(0, column.type)])


def difference(ours: pa.Array, theirs: pa.Array, path: str = "") -> str | None:
    """Return where two arrays differ first, or None.

    Floats are compared as bits; where ``theirs``, which went through a Python float, has a quiet NaN, ``ours`` may have
    the signalling one with the same payload. Dates and times are the integers they are stored as.
    """
    if ours.type != theirs.type:
        return f"{path} is {ours.type}, not {theirs.type}"
    if len(ours) != len(theirs):
        return f"{path} has {len(ours)} rows, not {len(theirs)}"
    if not ours.is_null().equals(theirs.is_null()):
        return f"{path} has other nulls"
    dtype = ours.type
    if pa.types.is_struct(dtype):
        pairs = zip(dtype, ours.flatten(), theirs.flatten(), strict=True)
        return next((d for f, a, b in pairs if (d := difference(a, b, f"{path}.{f.name}"))), None)
    if pa.types.is_list(dtype):
        if not pc.list_value_length(ours).equals(pc.list_value_length(theirs)):
            return f"{path} has lists of other lengths"
        return difference(ours.flatten(), theirs.flatten(), f"{path}[]")
    if pa.types.is_map(dtype):
        return difference(as_list(ours), as_list(theirs), path)
    if dtype in QUIET:
        return _float_difference(ours, theirs, path)
    if pa.types.is_date(dtype) or pa.types.is_timestamp(dtype):
        whole = pa.int32() if dtype.bit_width == 32 else pa.int64()
        ours, theirs = ours.view(whole), theirs.view(whole)
    return None if ours.equals(theirs) else f"{path} has other values"


def as_list(array: pa.MapArray) -> pa.Array:
    """Return a map array as a list of structs over the same memory."""
    dtype = array.type
    entries = pa.StructArray.from_arrays([array.keys, array.items], fields=[dtype.key_field, dtype.item_field])
    kind = pa.list_(pa.field("entries", entries.type, nullable=False))
    return pa.Array.from_buffers(kind, len(array), array.buffers()[:2], array.null_count, array.offset, [entries])


def _float_difference(ours: pa.Array, theirs: pa.Array, path: str) -> str | None:
    a, b = float_bits(ours), float_bits(theirs)
    signals = np.isnan(a.view(f"f{a.itemsize}")) & ((a | a.dtype.type(QUIET[ours.type])) == b)
    return None if ((a == b) | signals).all() else f"{path} has other bits"


def float_bits(array: pa.Array) -> np.ndarray:
    """Return the bits of a float array as unsigned integers, 0 for null."""
    width = array.type.bit_width // 8
    bits = np.frombuffer(array.buffers()[1] or b"", dtype=f"u{width}")[array.offset : array.offset + len(array)]
    if array.null_count == 0:
        return bits
    return np.where(array.is_valid().to_numpy(zero_copy_only=False), bits, bits.dtype.type(0))


def signalling(array: pa.Array) -> int:
    """Return how many signalling NaN an array has, in all its parts."""
    dtype = array.type
    if pa.types.is_struct(dtype):
        return sum(signalling(part) for part in array.flatten())
    if pa.types.is_list(dtype):
        return signalling(array.flatten())
    if pa.types.is_map(dtype):
        return signalling(as_list(array).flatten())
    if dtype not in QUIET:
        return 0
    bits = float_bits(array)
    return int((np.isnan(bits.view(f"f{bits.itemsize}")) & (bits & bits.dtype.type(QUIET[dtype]) == 0)).sum())


def table_difference(ours: pa.Table, theirs: pa.Table) -> str | None:
    """Return where two tables differ first, or None."""
    if ours.schema != theirs.schema:
        return f"schema {ours.schema} is not {theirs.schema}"
    for name in ours.column_names:
        if found := difference(flat(ours.column(name)), flat(theirs.column(name)), name):
            return found
    return None


def differing_row(ours: pa.Table, theirs: pa.Table) -> int:
    """Return the first row in which two tables differ, which they do."""
    low, high = 0, ours.num_rows
    while high - low > 1:
        middle = (low + high) // 2
        if table_difference(ours.slice(low, middle - low), theirs.slice(low, middle - low)):
            high = middle
        else:
            low = middle
    return low
