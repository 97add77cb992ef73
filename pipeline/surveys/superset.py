"""Writer schemas of all versions of a survey, and the one Arrow schema that holds them all.

The schemas in ``schemas/<family>/<version>.avsc`` are facts of the survey (names, types, order, nullability,
defaults); a name with a ``+`` is another form of the same version that is found in the wild. Their union,
:func:`superset`, widens only where nothing is lost, so that packet, table row, packet is an identity for every version
(:func:`to_version` is the way back).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache, reduce
from importlib import resources
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError, SchemaError

_PRIMITIVE = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "string": pa.string(),
}
_LOGICAL = {
    ("int", "date"): pa.date32(),
    ("long", "timestamp-millis"): pa.timestamp("ms", "UTC"),
    ("long", "timestamp-micros"): pa.timestamp("us", "UTC"),
    ("long", "timestamp-nanos"): pa.timestamp("ns", "UTC"),
    ("long", "local-timestamp-millis"): pa.timestamp("ms"),
    ("long", "local-timestamp-micros"): pa.timestamp("us"),
    ("long", "local-timestamp-nanos"): pa.timestamp("ns"),
}
"""Other logical types (times of day, uuid, duration) are kept as the number, text or bytes that carry them."""
_WIDER = {
    (pa.int32(), pa.int64()): pa.int64(),
    (pa.float32(), pa.float64()): pa.float64(),
    (pa.int32(), pa.float32()): pa.float64(),
    (pa.int32(), pa.float64()): pa.float64(),
    (pa.int64(), pa.timestamp("us", "UTC")): pa.timestamp("us", "UTC"),
}
"""The widenings that lose nothing. A pair that is not here (long and double, bytes and string, a record and a number)
is a conflict and refused: the survey has used one name for two things, which one column cannot hold."""


# --------------------------------------------------------------------------------------- schemas that ship
def family_of(survey: str) -> str:
    """Return the family whose schemas ``survey`` writes with: campaigns (``elasticc_v2_1``) share one family."""
    return survey.split("_")[0]


def version_key(version: str) -> tuple[tuple[int, ...], str]:
    """Return a sortable form of a version as the schemas' file names spell it (``"3.3"``, ``"3.3+nullable"``)."""
    number, _, variant = version.partition("+")
    return tuple(int(part) for part in number.split(".")), variant


def known_schemas(survey: str) -> dict[str, dict[str, Any]]:
    """Return the writer schemas that ship with alertmill, by version, oldest first.

    Parameters
    ----------
    survey : str
        A survey (``"ztf"``, ``"lsst"``, ``"elasticc_v2_0"``) or its family (``"elasticc"``).

    Returns
    -------
    dict of str to dict
        Avro record schemas as JSON; each call returns new objects.

    Raises
    ------
    InputError
        No schema of that survey ships.
    """
    return {version: json.loads(text) for version, text in _texts(family_of(survey)).items()}


@lru_cache
def _texts(family: str) -> dict[str, str]:
    folder = resources.files("pipeline.surveys").joinpath("schemas", family)
    if not family.isidentifier() or not folder.is_dir():
        raise InputError(f"no schemas of survey {family!r} are known")
    files = {file.name.removesuffix(".avsc"): file for file in folder.iterdir() if file.name.endswith(".avsc")}
    return {version: files[version].read_text("utf-8") for version in sorted(files, key=version_key)}


# --------------------------------------------------------------------------------------- Avro to Arrow types
def arrow_schema(schema: Mapping[str, Any]) -> pa.Schema:
    """Return the Arrow schema of one Avro record schema: same names and order, every field nullable.

    Raises
    ------
    SchemaError
        The schema is not a record, is recursive, or has a union of several types that no column holds.
    """
    dtype = _arrow_type(schema, "", {}, "")
    if not pa.types.is_struct(dtype):
        raise SchemaError(f"the Avro schema is {dtype}, not a record")
    return pa.schema(list(dtype))


def full_name(schema: Mapping[str, Any], namespace: str) -> str:
    """Return the full name of a named Avro type that stands within ``namespace``."""
    name = str(schema["name"])
    space = schema.get("namespace", namespace)
    return name if "." in name or not space else f"{space}.{name}"


def _arrow_type(schema: Any, namespace: str, named: dict[str, pa.DataType | None], path: str) -> pa.DataType:
    """Return the Arrow type; ``named`` holds the types defined so far, None while one is being defined."""
    if isinstance(schema, list):
        kinds = [kind for kind in schema if kind != "null"]
        if len(kinds) > 1:
            return _union_type(kinds, namespace, named, path)
        return _arrow_type(kinds[0] if kinds else "null", namespace, named, path)
    if isinstance(schema, str):
        if schema in _PRIMITIVE:
            return _PRIMITIVE[schema]
        found = named.get(schema, named.get(f"{namespace}.{schema}"))  # a record without fields is found, too
        if found is None:
            raise SchemaError(f"field {path} is of type {schema!r}, which is recursive or not defined")
        return found
    kind = schema["type"]
    if isinstance(kind, (dict, list)):
        return _arrow_type(kind, namespace, named, path)
    if kind == "array":
        return pa.list_(_arrow_type(schema["items"], namespace, named, f"{path}[]"))
    if kind == "map":
        return pa.map_(pa.string(), _arrow_type(schema["values"], namespace, named, f"{path}{{}}"))
    if kind not in ("record", "error", "enum", "fixed"):
        logical = schema.get("logicalType")
        if logical == "decimal":
            raise SchemaError(f"field {path} is a decimal, which no column holds")
        return _LOGICAL.get((kind, logical)) or _arrow_type(kind, namespace, named, path)
    name = full_name(schema, namespace)
    named[name] = None
    if kind == "enum":
        dtype = pa.string()
    elif kind == "fixed":
        dtype = pa.binary()
    else:
        space = name.rpartition(".")[0]
        prefix = f"{path}." if path else ""
        dtype = pa.struct(
            [(f["name"], _arrow_type(f["type"], space, named, prefix + f["name"])) for f in schema["fields"]]
        )
    named[name] = dtype
    return dtype


def _union_type(kinds: Sequence[Any], namespace: str, named: dict[str, pa.DataType | None], path: str) -> pa.DataType:
    """Return the type that holds all the numbers of a union: records and texts cannot be told apart in one column."""
    types = [_arrow_type(kind, namespace, named, path) for kind in kinds]
    try:
        if any(pa.types.is_nested(dtype) for dtype in types):
            raise SchemaError("nested")
        return reduce(lambda first, second: merge(first, second, path), types)
    except SchemaError:
        raise SchemaError(f"field {path} is a union of several types, which no column holds") from None


# --------------------------------------------------------------------------------------- union of versions
@lru_cache
def _family_superset(family: str) -> pa.Schema:
    return superset(list(known_schemas(family).values()))


def superset(schemas: str | Sequence[Mapping[str, Any]]) -> pa.Schema:
    """Return the lossless union of writer schemas.

    Parameters
    ----------
    schemas : str or sequence of dict
        A survey (all its shipped versions), or Avro record schemas, oldest first.

    Returns
    -------
    pyarrow.Schema
        Columns in the order of the newest schema, then those that only older ones have. Every field is nullable.

    Raises
    ------
    SchemaError
        One name has two types that no column holds without loss.
    """
    if isinstance(schemas, str):
        return _family_superset(family_of(schemas))
    union = pa.struct([])
    for schema in reversed(schemas):
        union = merge(union, pa.struct(list(arrow_schema(schema))), "")
    return pa.schema(list(union))


def merge(first: pa.DataType, second: pa.DataType, path: str = "") -> pa.DataType:
    """Return the narrowest type that holds both without loss; fields of ``first`` come first.

    Raises
    ------
    SchemaError
        There is none; the message names the field.
    """
    if first == second or pa.types.is_null(second):
        return first
    if pa.types.is_null(first):
        return second
    if pa.types.is_struct(first) and pa.types.is_struct(second):
        prefix = f"{path}." if path else ""
        fields = {field.name: field.type for field in first}
        for field in second:
            known = fields.get(field.name, pa.null())
            fields[field.name] = merge(known, field.type, prefix + field.name)
        return pa.struct(list(fields.items()))
    if pa.types.is_list(first) and pa.types.is_list(second):
        return pa.list_(merge(first.value_type, second.value_type, f"{path}[]"))
    if pa.types.is_map(first) and pa.types.is_map(second):
        return pa.map_(pa.string(), merge(first.item_type, second.item_type, f"{path}{{}}"))
    wider = _WIDER.get((first, second)) or _WIDER.get((second, first))
    if wider is None:
        raise SchemaError(f"field {path} is both {first} and {second}: no column holds both without loss")
    return wider


def unheld(columns: pa.Schema, wanted: pa.Schema) -> str | None:
    """Return the first field of ``wanted`` that ``columns`` cannot hold without loss, or None.

    Parameters
    ----------
    columns : pyarrow.Schema
        A superset.
    wanted : pyarrow.Schema
        Fields of a writer schema or of a re-encoded table.

    Returns
    -------
    str or None
        Field path and its type, for the error message.
    """
    return _unheld(pa.struct(list(columns)), pa.struct(list(wanted)), "")


def _unheld(column: pa.DataType, wanted: pa.DataType, path: str) -> str | None:
    if column == wanted or pa.types.is_null(wanted):
        return None
    if pa.types.is_struct(column) and pa.types.is_struct(wanted):
        for field in wanted:
            where = f"{path}.{field.name}" if path else field.name
            index = column.get_field_index(field.name)
            if index < 0:
                return f"{where} ({field.type})"
            if inner := _unheld(column.field(index).type, field.type, where):
                return inner
        return None
    if pa.types.is_list(column) and pa.types.is_list(wanted):
        return _unheld(column.value_type, wanted.value_type, f"{path}[]")
    if pa.types.is_map(column) and pa.types.is_map(wanted):
        return _unheld(column.item_type, wanted.item_type, f"{path}{{}}")
    if (wider := _WIDER.get((wanted, column))) is not None and wider == column:
        return None
    return f"{path} ({wanted}, the column is {column})"


# --------------------------------------------------------------------------------------- moving values
def widen(array: pa.Array, dtype: pa.DataType) -> pa.Array:
    """Return ``array`` as ``dtype``, a superset of its type: missing struct fields become null, nothing else changes.

    Parameters
    ----------
    array : pyarrow.Array
        Any length, slices included.
    dtype : pyarrow.DataType
        A type that holds the array's own (see :func:`unheld`).

    Raises
    ------
    SchemaError
        The array has a struct field that ``dtype`` lacks.
    """
    if array.type == dtype:
        return array
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), dtype)
    if pa.types.is_struct(dtype) and pa.types.is_struct(array.type):
        names = [field.name for field in array.type]
        if extra := [name for name in names if dtype.get_field_index(name) < 0]:
            raise SchemaError(f"field {', '.join(extra)} has no column")
        parts = dict(zip(names, array.flatten(), strict=True))  # children take over the parent's nulls and offset
        children = [
            widen(parts[field.name], field.type) if field.name in parts else pa.nulls(len(array), field.type)
            for field in dtype
        ]
        mask = array.is_null() if array.null_count else None
        return pa.StructArray.from_arrays(children, fields=list(dtype), mask=mask)
    if pa.types.is_list(dtype) and pa.types.is_list(array.type):
        values = widen(array.values, dtype.value_type)
        return pa.Array.from_buffers(dtype, len(array), array.buffers()[:2], array.null_count, array.offset, [values])
    if pa.types.is_map(dtype) and pa.types.is_map(array.type):
        entries = [array.keys, widen(array.items, dtype.item_type)]
        struct = pa.StructArray.from_arrays(entries, fields=[dtype.key_field, dtype.item_field])
        return pa.Array.from_buffers(dtype, len(array), array.buffers()[:2], array.null_count, array.offset, [struct])
    return pc.cast(array, dtype)


def plain(dtype: pa.DataType) -> pa.DataType:
    """Return ``dtype`` with dates and times as the integers that Avro stores, so that no value is out of range."""
    if pa.types.is_struct(dtype):
        return pa.struct([pa.field(field.name, plain(field.type)) for field in dtype])
    if pa.types.is_list(dtype):
        return pa.list_(plain(dtype.value_type))
    if pa.types.is_map(dtype):
        return pa.map_(pa.string(), plain(dtype.item_type))
    if pa.types.is_temporal(dtype):
        return pa.int64() if dtype.bit_width == 64 else pa.int32()
    return dtype


def to_version(rows: pa.Table, schema: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return rows as records of one schema version: exactly its fields, values as they were in the packet.

    Parameters
    ----------
    rows : pyarrow.Table
        ``raw`` with the ``cutouts`` columns beside it (columns that the version lacks are ignored).
    schema : dict
        Avro record schema, as :func:`known_schemas` returns it.

    Returns
    -------
    list of dict
        What an Avro writer takes; timestamps are integers in the unit of the schema.

    Raises
    ------
    SchemaError
        A value is null where the version has no null, or the rows lack a column that the version demands.
    """
    wanted = arrow_schema(schema)
    present = rows.select([name for name in wanted.names if name in rows.column_names]).combine_chunks()
    columns = []
    for name in present.column_names:
        data = present.column(name)
        array = data.chunk(0) if data.num_chunks == 1 else pa.concat_arrays(data.chunks or [pa.nulls(0, data.type)])
        columns.append(widen(array, plain(array.type)))
    records = pa.table(columns, names=present.column_names).to_pylist() if columns else [{}] * rows.num_rows
    named: dict[str, Any] = {}
    _define(schema, "", named)
    return [_value(record, schema, "", named, "") for record in records]


def _define(schema: Any, namespace: str, named: dict[str, Any]) -> None:
    """Note every named type by its full name, also those that stand in a branch no value takes."""
    if isinstance(schema, list):
        for kind in schema:
            _define(kind, namespace, named)
    elif isinstance(schema, dict):
        if "name" in schema:
            name = full_name(schema, namespace)
            named[name] = {**schema, "name": name}
            namespace = name.rpartition(".")[0]
        for part in [schema["type"], schema.get("items"), schema.get("values")]:
            _define(part, namespace, named)
        for field in schema.get("fields", []):
            _define(field["type"], namespace, named)


def _value(value: Any, schema: Any, namespace: str, named: dict[str, Any], path: str) -> Any:
    if isinstance(schema, list):
        if value is None and "null" in schema:
            return None
        return _value(value, next(kind for kind in schema if kind != "null"), namespace, named, path)
    if isinstance(schema, str) and schema not in _PRIMITIVE:
        schema = named.get(schema) or named[f"{namespace}.{schema}"]
    kind = schema if isinstance(schema, str) else schema["type"]
    if isinstance(kind, (dict, list)):
        return _value(value, kind, namespace, named, path)
    if isinstance(schema, dict) and "name" in schema:
        namespace = full_name(schema, namespace).rpartition(".")[0]
    if value is None and kind != "null":
        raise SchemaError(f"field {path} is null, and this version of the schema has no null there")
    if kind in ("record", "error"):
        prefix = f"{path}." if path else ""
        return {
            f["name"]: _value(value.get(f["name"]), f["type"], namespace, named, prefix + f["name"])
            for f in schema["fields"]
        }
    if kind == "array":
        return [_value(item, schema["items"], namespace, named, f"{path}[]") for item in value]
    if kind == "map":
        return {key: _value(item, schema["values"], namespace, named, f"{path}{{}}") for key, item in value}
    return int(value) if kind in ("int", "long") else value
