"""Declared columns, conformity to a declared schema, and logical content hashes.

A table is declared once, as a :class:`pyarrow.Schema` whose fields carry unit and doc as metadata; :func:`conform` is
what every table passes before it is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import SchemaError


def column(name: str, dtype: pa.DataType, *, unit: str | None = None, doc: str = "", nullable: bool = True) -> pa.Field:
    """Declare one column.

    Parameters
    ----------
    name : str
        Column name; a physical quantity ends with its unit (``_deg``, ``_njy``, ``_mjd`` ...).
    dtype : pyarrow.DataType
        Arrow type.
    unit : str, optional
        Unit in the VO convention (``"nJy"``, ``"deg"``, ``"d"``).
    doc : str
        One line: what it is.
    nullable : bool
        False for ids and whatever is always measured.

    Returns
    -------
    pyarrow.Field
        The field, with ``unit`` and ``doc`` in its metadata.
    """
    metadata = {key: value for key, value in (("unit", unit), ("doc", doc)) if value}
    return pa.field(name, dtype, nullable=nullable, metadata=metadata or None)


def conform(table: pa.Table, schema: pa.Schema, *, dataset: str = "table") -> pa.Table:
    """Return ``table`` with exactly ``schema``, or fail.

    Column order and field metadata are taken from ``schema``. Types must already be the declared ones: a conversion
    here would hide a defect upstream (an id through float64, a float32 widened by pandas).

    Parameters
    ----------
    table : pyarrow.Table
        Any number of rows.
    schema : pyarrow.Schema
        The declared schema.
    dataset : str
        Named in the error.

    Raises
    ------
    SchemaError
        A column is missing, undeclared, twice there, of another type, or null where it may not be.
    """
    names = table.column_names
    if len(set(names)) != len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SchemaError(f"column {', '.join(twice)} is there more than once", dataset=dataset)
    present, declared = set(names), set(schema.names)
    missing = [name for name in schema.names if name not in present]
    if missing:
        raise SchemaError(f"column {', '.join(missing)} is missing", dataset=dataset)
    extra = [name for name in names if name not in declared]
    if extra:
        raise SchemaError(f"column {', '.join(extra)} is not declared", dataset=dataset)
    columns = []
    for field in schema:
        data = table.column(field.name)
        if data.type != field.type:
            raise SchemaError(f"column {field.name} is {data.type}, declared {field.type}", dataset=dataset)
        if not field.nullable and data.null_count:
            raise SchemaError(f"column {field.name} has {data.null_count} nulls, declared never null", dataset=dataset)
        columns.append(data)
    return pa.table(columns, schema=schema)


def empty(schema: pa.Schema) -> pa.Table:
    """Return a table of ``schema`` with no rows."""
    return schema.empty_table()


def from_columns(columns: dict[str, Any], schema: pa.Schema) -> pa.Table:
    """Build a table of ``schema`` from arrays by name (converted to the declared types, NaN kept as it is)."""
    missing = [name for name in schema.names if name not in columns]
    if missing or len(columns) != len(schema):
        raise SchemaError(f"columns {missing or sorted(set(columns) - set(schema.names))} do not fit the schema")
    arrays = []
    for field in schema:
        data = columns[field.name]
        if not isinstance(data, (pa.Array, pa.ChunkedArray)):
            data = pa.array(data, type=field.type)
        arrays.append(data)
    return conform(pa.table(arrays, names=schema.names), schema)


# --------------------------------------------------------------------------------------- content hash
def content_hash(data: pa.ChunkedArray | pa.Array) -> str:
    """Return the logical content hash of one column.

    Independent of chunking, slicing offsets, and of whatever bytes stand under nulls: two columns with equal type and
    equal values (NaN bits included) have equal hashes.

    Parameters
    ----------
    data : pyarrow.ChunkedArray or pyarrow.Array
        Any type that alertmill stores: primitives, strings, binary, lists, structs, dictionaries (hashed as their
        values).

    Returns
    -------
    str
        First 32 hexadecimal digits of a sha256.
    """
    array = data.combine_chunks() if isinstance(data, pa.ChunkedArray) else data
    if isinstance(array, pa.ChunkedArray):  # a column over 2 GiB of strings stays chunked
        array = pa.concat_arrays(array.chunks)
    digest = hashlib.sha256(str(array.type).encode())
    _feed(digest, array)
    return digest.hexdigest()[:32]


def _feed(digest: Any, array: pa.Array) -> None:
    if pa.types.is_dictionary(array.type):
        array = array.cast(array.type.value_type)
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    digest.update(len(array).to_bytes(8, "little"))
    kind = array.type
    valid = array.is_valid()
    digest.update(np.packbits(np.asarray(valid.to_numpy(zero_copy_only=False)), bitorder="little").tobytes())
    if pa.types.is_null(kind):
        return
    if pa.types.is_struct(kind):
        for child in array.flatten():  # children take over the parent's nulls and offset
            _feed(digest, child)
        return
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_map(kind):
        _feed_list(digest, array)
        return
    if (
        pa.types.is_string(kind)
        or pa.types.is_binary(kind)
        or pa.types.is_large_string(kind)
        or pa.types.is_large_binary(kind)
    ):
        lengths = pc.binary_length(array).fill_null(0)
        digest.update(np.asarray(lengths, dtype=np.int64).tobytes())
        dense = array.drop_null()
        offset_type = np.int64 if pa.types.is_large_string(kind) or pa.types.is_large_binary(kind) else np.int32
        if len(dense):
            offsets = np.frombuffer(dense.buffers()[1], offset_type)[dense.offset : dense.offset + len(dense) + 1]
            digest.update(memoryview(dense.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
        return
    if pa.types.is_boolean(kind):
        digest.update(np.packbits(array.fill_null(False).to_numpy(zero_copy_only=False), bitorder="little").tobytes())
        return
    dense = array.drop_null() if array.null_count else array
    width = kind.bit_width // 8
    if len(dense):
        start = dense.offset * width
        digest.update(memoryview(dense.buffers()[1])[start : start + len(dense) * width])


def _feed_list(digest: Any, array: pa.Array) -> None:
    if pa.types.is_map(array.type):
        array = array.cast(pa.list_(pa.struct([("key", array.type.key_type), ("value", array.type.item_type)])))
    lengths = pc.list_value_length(array).fill_null(0)
    digest.update(np.asarray(lengths, dtype=np.int64).tobytes())
    _feed(digest, array.drop_null().flatten())


def content_hashes(table: pa.Table) -> dict[str, str]:
    """Return the content hash of every column of ``table`` by name."""
    return {name: content_hash(table.column(name)) for name in table.column_names}


def key_of(*items: object) -> str:
    """Return the first 32 hexadecimal digits of the sha256 of the canonical text of ``items``.

    Mappings are sorted; None and empty mappings are ignored, so that adding an option that is not used does not change
    a key.
    """
    digest = hashlib.sha256()
    for item in items:
        digest.update(_canonical(item).encode())
        digest.update(b"\x00")
    return digest.hexdigest()[:32]


def _canonical(item: object) -> str:
    if isinstance(item, dict):
        kept = ((str(k), _canonical(v)) for k, v in item.items() if v is not None and v != {})
        return "{" + ",".join(f"{k!r}:{v}" for k, v in sorted(kept)) + "}"
    if isinstance(item, (list, tuple)):
        return "[" + ",".join(_canonical(v) for v in item) + "]"
    if isinstance(item, (set, frozenset)):
        return "[" + ",".join(sorted(_canonical(v) for v in item)) + "]"
    if isinstance(item, pa.Field):
        return f"{item.name}:{item.type}:{item.nullable}"
    if item is None or isinstance(item, (str, int, float, bool)):
        return repr(item)
    raise TypeError(f"{type(item).__name__} cannot stand in a key")


def schema_with(schema: pa.Schema, fields: Iterable[pa.Field]) -> pa.Schema:
    """Return ``schema`` with ``fields`` appended; a name that stands already is a defect."""
    out = schema
    for field in fields:
        if field.name in out.names:
            raise SchemaError(f"column {field.name} is declared twice")
        out = out.append(field)
    return out
