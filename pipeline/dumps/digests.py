"""A digest for each row of a table that has no packet bytes to hash."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Offsets = NDArray[np.int64]


def row_digests(table: pa.Table) -> list[bytes]:
    """Return for each row the sha256 of its column names, types and values.

    A row's digest depends on the row alone: not on the batch it came in, on the order of columns, or on what bytes
    stand under nulls. Each leaf column is laid out once; a row then hashes one stretch of it.

    Parameters
    ----------
    table : pyarrow.Table
        Any of the types that alertmill stores, dictionaries and maps included; n rows.

    Returns
    -------
    list of bytes
        n digests of 32 bytes.
    """
    n = table.num_rows
    digests = [hashlib.sha256() for _ in range(n)]
    rows = np.arange(n + 1, dtype=np.int64)
    for name in sorted(table.column_names):
        column = table.column(name)
        array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)
        label = f"{name}:{array.type}".encode()
        for digest in digests:
            digest.update(label)
        for data, offsets in _stretches(array, rows):
            view = data.data
            bounds = offsets.tolist()
            for digest, start, stop in zip(digests, bounds[:-1], bounds[1:], strict=True):
                # The length first: without it two neighbouring stretches could trade bytes unnoticed.
                digest.update((stop - start).to_bytes(8, "little"))
                digest.update(view[start:stop])
    return [digest.digest() for digest in digests]


def _stretches(array: pa.Array, rows: Offsets) -> Iterator[tuple[NDArray[np.uint8], Offsets]]:
    """Yield (bytes, offsets): row ``i`` has the bytes ``offsets[i]:offsets[i + 1]`` of each.

    ``rows`` cuts the array: row ``i`` has the elements ``rows[i]:rows[i + 1]``.
    """
    kind = array.type
    if pa.types.is_dictionary(kind):
        array, kind = array.cast(kind.value_type), kind.value_type
    if pa.types.is_map(kind):
        kind = pa.list_(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
        array = array.cast(kind)
    yield np.asarray(array.is_valid().to_numpy(zero_copy_only=False)).astype(np.uint8), rows
    if pa.types.is_struct(kind):
        for child in array.flatten():  # children take over the parent's nulls and offset
            yield from _stretches(child, rows)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        ends = _ends(pc.list_value_length(array))
        yield _bytes_of(np.diff(ends)), rows * 8
        yield from _stretches(array.flatten(), ends[rows])  # flatten leaves out what stands under nulls
    elif pa.types.is_binary(kind) or pa.types.is_string(kind):
        ends = _ends(pc.binary_length(array))
        yield _bytes_of(np.diff(ends)), rows * 8
        yield np.frombuffer(b"".join(x for x in array.cast(pa.binary()).to_pylist() if x), np.uint8), ends[rows]
    elif pa.types.is_boolean(kind):
        yield np.asarray(pc.fill_null(array, False).to_numpy(zero_copy_only=False)).astype(np.uint8), rows
    elif not pa.types.is_null(kind):
        width = kind.bit_width // 8
        dense = array.drop_null()
        values = np.frombuffer(dense.buffers()[1], np.uint8)[dense.offset * width :][: len(dense) * width]
        valid = _ends(pc.cast(array.is_valid(), pa.int64()))
        yield values, valid[rows] * width


def _ends(lengths: pa.Array) -> Offsets:
    """Return offsets (n + 1,) of elements with these lengths, null counting as 0."""
    return np.concatenate([[0], np.cumsum(pc.fill_null(lengths, 0).to_numpy().astype(np.int64))])


def _bytes_of(values: Offsets) -> NDArray[np.uint8]:
    return np.ascontiguousarray(values, dtype="<i8").view(np.uint8)
