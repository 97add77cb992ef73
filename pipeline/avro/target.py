"""The columns that are decoded into, as a tree of nodes: one for each field, list and leaf of the declared types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from pipeline.errors import SchemaError

BITS, OFFSETS, TEXT = 0, -4, -5
"""Widths of nodes whose values are not numbers of so many bytes: booleans; lists; strings and bytes."""


@dataclass(slots=True)
class Node:
    """One field, list or leaf.

    Attributes
    ----------
    id : int
        Place in :attr:`Target.nodes`.
    path : str
        For messages.
    dtype : pyarrow.DataType
        Its type.
    domain : int
        Which rows it has: 0 the packets, others the items of a list.
    width : int
        Bytes of a value, or :data:`BITS`, :data:`OFFSETS`, :data:`TEXT`; see :attr:`has_values`.
    child : int
        Domain of a list's items, -1 for others.
    kids : list of Node
        Fields of a record; item of a list; key and value of a map.
    """

    id: int
    path: str
    dtype: pa.DataType
    domain: int
    width: int
    child: int = -1
    kids: list[Node] = field(default_factory=list)

    @property
    def has_values(self) -> bool:
        """Whether it has a buffer of values or offsets of its own."""
        return not (pa.types.is_struct(self.dtype) or pa.types.is_null(self.dtype))

    @property
    def has_maps(self) -> bool:
        """Whether it is a map, or has one in it."""
        return pa.types.is_map(self.dtype) or any(kid.has_maps for kid in self.kids)

    def kid(self, name: str) -> Node | None:
        """Return the field of a record by name."""
        index = self.dtype.get_field_index(name)
        return self.kids[index] if index >= 0 else None


class Target:
    """The tree of a table's columns.

    Parameters
    ----------
    schema : pyarrow.Schema
        The columns.
    """

    def __init__(self, schema: pa.Schema) -> None:
        self.schema = schema
        self.nodes: list[Node] = []
        self.n_domains = 1
        self.columns = [self._node(item.type, 0, item.name) for item in schema]

    def column(self, name: str) -> Node | None:
        """Return the node of a column, or None."""
        index = self.schema.get_field_index(name)
        return self.columns[index] if index >= 0 else None

    def _node(self, dtype: pa.DataType, domain: int, path: str) -> Node:
        node = Node(len(self.nodes), path, dtype, domain, _width(dtype, path))
        self.nodes.append(node)
        if node.width == OFFSETS:
            node.child = self.n_domains
            self.n_domains += 1
        kinds: Sequence[tuple[pa.DataType, int, str]] = ()
        if pa.types.is_struct(dtype):
            kinds = [(kid.type, domain, f"{path}.{kid.name}") for kid in dtype]
        elif pa.types.is_list(dtype):
            kinds = [(dtype.value_type, node.child, f"{path}[]")]
        elif pa.types.is_map(dtype):
            kinds = [(kind, node.child, f"{path}{{}}") for kind in (dtype.key_type, dtype.item_type)]
        node.kids = [self._node(*kind) for kind in kinds]
        return node


def _width(dtype: pa.DataType, path: str) -> int:
    if pa.types.is_struct(dtype) or pa.types.is_null(dtype) or pa.types.is_boolean(dtype):
        return BITS
    if pa.types.is_list(dtype) or pa.types.is_map(dtype):
        return OFFSETS
    if pa.types.is_string(dtype) or pa.types.is_binary(dtype):
        return TEXT
    if pa.types.is_primitive(dtype) and dtype.bit_width in (32, 64):
        return dtype.bit_width // 8
    raise SchemaError(f"field {path} is {dtype}, which no packet is decoded into")
