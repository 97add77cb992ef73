"""Declared columns, conformity to a declared schema, and logical content hashes.

A table is declared once, as a :class:`pyarrow.Schema` whose fields carry unit and doc as metadata; :func:`conform` is
what every table passes before it is written.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa
from blake3 import blake3

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
class ContentHash:
    """The logical content hash of one column, fed piece by piece.

    Independent of chunking, slicing offsets, and of whatever bytes stand under nulls: two columns with equal type and
    equal values (NaN bits included) have equal hashes. Every leaf is a BLAKE3 stream of its own, which takes values
    as they lie in Arrow's buffers; nulls are told by where they begin and end, so a column without any costs nothing
    for them.

    Parameters
    ----------
    kind : pyarrow.DataType
        Any type that alertmill stores: numbers, booleans, strings, binary, lists, maps, structs, dictionaries (hashed
        as their values). The names of list items do not count: Parquet has its own.

    Raises
    ------
    TypeError
        A type that is not stored.
    """

    def __init__(self, kind: pa.DataType) -> None:
        self._kind = kind
        self._root = _maker(kind)()

    def update(self, data: pa.ChunkedArray | pa.Array) -> None:
        """Take the next values of the column."""
        for chunk in data.chunks if isinstance(data, pa.ChunkedArray) else [data]:
            self._root.feed(chunk)

    def hexdigest(self) -> str:
        """Return the first 32 hexadecimal digits of the hash of all values so far."""
        return blake3(_type_text(self._kind).encode() + b"\x00" + self._root.digest()).hexdigest(length=16)


def content_hash(data: pa.ChunkedArray | pa.Array) -> str:
    """Return the content hash of one column, 32 hexadecimal digits (see :class:`ContentHash`)."""
    made = ContentHash(data.type)
    made.update(data)
    return made.hexdigest()


def content_hashes(table: pa.Table) -> dict[str, str]:
    """Return the content hash of every column of ``table`` by name."""
    return {name: content_hash(table.column(name)) for name in table.column_names}


class _Node:
    """One node of a type: how many values, where nulls begin and end, and streams of what the others hold."""

    __slots__ = ("_children", "_count", "_is_in_nulls", "_lengths", "_turns", "_values")

    def __init__(self, children: Sequence[_Node] = ()) -> None:
        self._children = children
        self._count = 0
        self._is_in_nulls = False
        self._turns: Any = None
        self._lengths: Any = None
        self._values: Any = None

    def feed(self, array: pa.Array) -> None:
        n, nulls = len(array), array.null_count
        if not n:
            return
        if nulls or self._is_in_nulls:
            self._feed_turns(array, n, nulls)
        self._count += n
        if nulls < n:
            self._take(array.drop_null() if nulls else array)

    def _feed_turns(self, array: pa.Array, n: int, nulls: int) -> None:
        """Take the places at which nulls begin and end: the same wherever the column is cut."""
        if 0 < nulls < n:
            is_null = array.is_null().to_numpy(zero_copy_only=False)
            turns = np.flatnonzero(is_null != np.concatenate([[self._is_in_nulls], is_null[:-1]])) + self._count
            self._is_in_nulls = bool(is_null[-1])
        elif self._is_in_nulls != bool(nulls):
            turns = np.array([self._count])
            self._is_in_nulls = not self._is_in_nulls
        else:
            return
        self._turns = _fed(self._turns, turns.astype("<i8", copy=False).view(np.uint8))

    def _take(self, array: pa.Array) -> None:
        """Take values none of which is null."""

    def _take_lengths(self, offsets: np.ndarray) -> None:
        self._lengths = _fed(self._lengths, np.diff(offsets).astype("<i8").view(np.uint8))

    def digest(self) -> bytes:
        streams = (self._turns, self._lengths, self._values)
        parts = [self._count.to_bytes(8, "little"), *(_NONE if part is None else part.digest() for part in streams)]
        return blake3(b"".join([*parts, *(child.digest() for child in self._children)])).digest()


_NONE = blake3().digest()


def _fed(stream: Any, data: Any) -> Any:
    if stream is None:
        return blake3(data)
    stream.update(data)
    return stream


class _Fixed(_Node):
    """Values of equal width; booleans take a byte each, as bits have no place of their own."""

    __slots__ = ("_is_bit", "_width")

    def __init__(self, width: int, is_bit: bool = False) -> None:
        super().__init__()
        self._is_bit = is_bit
        self._width = width

    def _take(self, array: pa.Array) -> None:
        if self._is_bit:
            array = array.cast(pa.uint8())
        first = array.offset * self._width
        data = memoryview(array.buffers()[1])[first : first + len(array) * self._width]
        self._values = _fed(self._values, data)


class _Text(_Node):
    """Strings and binary: lengths, and all bytes joined."""

    __slots__ = ("_offset_type",)

    def __init__(self, is_large: bool) -> None:
        super().__init__()
        self._offset_type = np.int64 if is_large else np.int32

    def _take(self, array: pa.Array) -> None:
        _, ends, data = array.buffers()
        offsets = np.frombuffer(ends, self._offset_type)[array.offset : array.offset + len(array) + 1]
        self._take_lengths(offsets)
        if data is not None:
            self._values = _fed(self._values, memoryview(data)[int(offsets[0]) : int(offsets[-1])])


class _List(_Node):
    """Lists and maps: lengths, and the items of all joined."""

    __slots__ = ()

    def _take(self, array: pa.Array) -> None:
        offsets = array.offsets.to_numpy()
        self._take_lengths(offsets)
        self._children[0].feed(array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0])))


class _Struct(_Node):
    """Structs: their fields."""

    __slots__ = ()

    def _take(self, array: pa.Array) -> None:
        for place, child in enumerate(self._children):
            child.feed(array.field(place))


class _Coded(_Node):
    """Dictionaries, as the values they stand for."""

    __slots__ = ("_kind",)

    def __init__(self, kind: pa.DataType, values: _Node) -> None:
        super().__init__([values])
        self._kind = kind.value_type

    def feed(self, array: pa.Array) -> None:
        self._children[0].feed(array.cast(self._kind))

    def digest(self) -> bytes:
        return self._children[0].digest()


@lru_cache(maxsize=4096)
def _maker(kind: pa.DataType) -> Callable[[], _Node]:
    """Return what makes a node of a type: to look at a type takes longer than to make its node."""
    is_a = pa.types
    if is_a.is_struct(kind):
        fields = [_maker(field.type) for field in kind]
        return lambda: _Struct([make() for make in fields])
    if is_a.is_list(kind) or is_a.is_large_list(kind):
        item = _maker(kind.value_type)
        return lambda: _List([item()])
    if is_a.is_map(kind):
        entry = _maker(pa.struct([("key", kind.key_type), ("value", kind.item_type)]))
        return lambda: _List([entry()])
    if is_a.is_dictionary(kind):
        value = _maker(kind.value_type)
        return lambda: _Coded(kind, value())
    if is_a.is_string(kind) or is_a.is_binary(kind) or is_a.is_large_string(kind) or is_a.is_large_binary(kind):
        return partial(_Text, is_large=is_a.is_large_string(kind) or is_a.is_large_binary(kind))
    if is_a.is_null(kind):
        return _Node
    if is_a.is_boolean(kind):
        return partial(_Fixed, width=1, is_bit=True)
    if is_a.is_primitive(kind) or is_a.is_fixed_size_binary(kind) or is_a.is_decimal(kind):
        return partial(_Fixed, width=kind.bit_width // 8)
    raise TypeError(f"a column of type {kind} is not stored")


@lru_cache(maxsize=4096)
def _type_text(kind: pa.DataType) -> str:
    if pa.types.is_struct(kind):
        return f"struct<{', '.join(f'{field.name}: {_type_text(field.type)}' for field in kind)}>"
    if pa.types.is_map(kind):
        return f"map<{_type_text(kind.key_type)}, {_type_text(kind.item_type)}>"
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return f"{'large_' * pa.types.is_large_list(kind)}list<{_type_text(kind.value_type)}>"
    if pa.types.is_dictionary(kind):
        return _type_text(kind.value_type)
    return str(kind)


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
