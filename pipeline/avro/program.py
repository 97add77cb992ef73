"""A writer schema compiled for the kernel: which operation reads each field, and where its value goes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.avro import kernel as k
from pipeline.avro.target import Node, Target
from pipeline.surveys.superset import full_name

MAX_LINES = 50_000
MAX_SYMBOL = 64
"""Longest symbol of an enum, in bytes: one byte of a body may stand for it."""

_NUMBERS = {
    ("boolean", "bool"): k.BOOL,
    ("int", "int32"): k.INT,
    ("int", "date32[day]"): k.INT,
    ("int", "int64"): k.INT_AS_LONG,
    ("int", "double"): k.INT_AS_DOUBLE,
    ("float", "float"): k.FLOAT,
    ("float", "double"): k.FLOAT_AS_DOUBLE,
    ("double", "double"): k.DOUBLE,
}
_ANY = {"boolean": k.BOOL, "int": k.INT, "long": k.LONG, "float": k.FLOAT, "double": k.DOUBLE}
_TEXTS = {"bytes": k.BYTES, "string": k.STRING}
_LEAST = {k.BOOL: 1, k.INT: 1, k.LONG: 1, k.FLOAT: 4, k.DOUBLE: 8, k.BYTES: 1, k.STRING: 1, k.ENUM: 1}
_LEAST |= {k.INT_AS_LONG: 1, k.INT_AS_DOUBLE: 1, k.FLOAT_AS_DOUBLE: 4}


class NotCompiledError(Exception):
    """The schema has something that the kernel does not decode; the message says what."""


@dataclass(frozen=True, slots=True)
class Field:
    """One value that a program reads: its path, the node that keeps it, and the bytes that the kernel's table has."""

    path: str
    node: Node | None
    null_byte: int
    other_byte: int
    extra: int

    @property
    def is_nullable(self) -> bool:
        """Whether the value may be null."""
        return self.null_byte >= 0


@dataclass(frozen=True, eq=False)
class Program:
    """A compiled schema.

    Attributes
    ----------
    code : numpy.ndarray
        int64 (m, 8): lines, see :mod:`pipeline.avro.kernel`.
    fields : tuple of Field
        What the lines refer to.
    symbols, symbol_at : numpy.ndarray
        uint8, int64: symbols of the enums one after the other; of each enum their number and their places.
    n_loops : int
        Counters needed.
    written, nullable : frozenset of int
        Nodes that the program fills, and those of them that may be null.
    gaps : frozenset of int
        Lists and texts within a record that may be null: where it is, the kernel leaves no offset.
    """

    code: NDArray[np.int64]
    fields: tuple[Field, ...]
    symbols: NDArray[np.uint8]
    symbol_at: NDArray[np.int64]
    n_loops: int
    written: frozenset[int]
    nullable: frozenset[int]
    gaps: frozenset[int]


def compile_program(schema: Mapping[str, Any], target: Target, columns: frozenset[str] | None = None) -> Program:
    """Compile a record schema whose fields the target holds.

    Parameters
    ----------
    schema : dict
        Avro record schema as JSON.
    target : Target
        Where the values go (:func:`pipeline.surveys.superset.unheld` has found nothing).
    columns : frozenset of str, optional
        Top-level fields to keep; the others are read over.

    Raises
    ------
    NotCompiledError
        It has a union of several types, a decimal, or a symbol that is too long.
    """
    compiler = _Compiler()
    record = {**schema, "name": full_name(schema, "")}
    compiler.named[record["name"]] = record
    space = record["name"].rpartition(".")[0]
    for item in schema["fields"]:
        node = target.column(item["name"]) if columns is None or item["name"] in columns else None
        compiler.emit(item["type"], space, item["name"], node, 0)
    compiler.line(k.END)
    return compiler.program()


class _Compiler:
    def __init__(self) -> None:
        self.code: list[list[int]] = []
        self.fields: list[Field] = []
        self.symbols = bytearray()
        self.symbol_at: list[int] = []
        self.gaps: set[int] = set()
        self.named: dict[str, Any] = {}
        self.n_loops = 0
        self.in_nullable = 0  # depth within records that may be null
        self.written: set[int] = set()
        self.is_label = True  # the next line is jumped to: it does not join the run before it

    def program(self) -> Program:
        return Program(
            np.array(self.code, dtype=np.int64).reshape(-1, 8),
            tuple(self.fields),
            np.frombuffer(bytes(self.symbols) or b"\0", dtype=np.uint8),
            np.array(self.symbol_at or [0], dtype=np.int64),
            max(self.n_loops, 1),
            frozenset(self.written),
            frozenset(item.node.id for item in self.fields if item.node is not None and item.is_nullable),
            frozenset(self.gaps),
        )

    def line(
        self,
        operation: int,
        domain: int = 0,
        *,
        first: int = 0,
        after: int = 0,
        loop: int = 0,
        child: int = -1,
        least: int = 1,
    ) -> int:
        """Append one line, or let a value join the run before it."""
        last = self.code[-1] if self.code and not self.is_label else None
        is_value = operation & k.KINDS not in (k.END, k.RECORD, k.LOOP, k.NEXT)
        if is_value and last and (last[k.OPERATION], last[k.DOMAIN]) == (operation, domain):
            last[k.RUN] += 1
            return len(self.code) - 1
        if len(self.code) >= MAX_LINES:
            raise NotCompiledError(f"it unfolds to more than {MAX_LINES} types")
        self.code.append([operation, first, 1, domain, after, loop, child, least])
        self.is_label = not is_value
        return len(self.code) - 1

    def field(self, path: str, node: Node | None, branches: tuple[int, int], extra: int = 0) -> int:
        """Append one field and return its place."""
        if node is not None:
            self.written.add(node.id)
            if self.in_nullable and node.width < 0:
                self.gaps.add(node.id)
        self.fields.append(Field(path, node, *branches, extra))
        return len(self.fields) - 1

    def emit(
        self, schema: Any, space: str, path: str, node: Node | None, domain: int, branches: tuple[int, int] = (-1, -1)
    ) -> int:
        """Append the program of one type and return the fewest bytes that it takes."""
        if isinstance(schema, list):
            return self._union(schema, space, path, node, domain)
        kind = schema if isinstance(schema, str) else schema["type"]
        if isinstance(kind, (dict, list)):
            return self.emit(kind, space, path, node, domain, branches)
        if isinstance(schema, dict) and schema.get("logicalType") == "decimal":
            raise NotCompiledError(f"field {path} is a decimal")
        flags = (k.UNION if branches != (-1, -1) else 0) | (k.SKIP if node is None else 0)
        if kind == "null":
            if flags & k.UNION:  # kept by nobody: a column of another type would be left without its offsets
                self.line(k.NULL | k.UNION | k.SKIP, domain, first=self.field(path, None, branches))
            return 0
        if kind in _ANY or kind in _TEXTS:
            operation = _operation(kind, node)
            self.line(operation | flags, domain, first=self.field(path, node, branches))
            return _LEAST[operation]
        if isinstance(schema, str):
            full = schema if schema in self.named else f"{space}.{schema}"
            return self.emit({**self.named[full], "name": full}, space, path, node, domain, branches)
        if kind in ("array", "map"):
            return self._loop(schema, space, path, node, domain, branches)
        name = full_name(schema, space)
        self.named[name] = schema
        if kind == "enum":
            extra = self._enum(schema["symbols"], path)
            self.line(k.ENUM | flags, domain, first=self.field(path, node, branches, extra))
            return 1
        if kind == "fixed":
            size = int(schema["size"])
            self.line(k.FIXED | flags, domain, first=self.field(path, node, branches, size))
            return size
        return self._record(schema, name, path, node, domain, branches)

    def _union(self, kinds: list[Any], space: str, path: str, node: Node | None, domain: int) -> int:
        values = [kind for kind in kinds if kind != "null"]
        if len(values) > 1 or len(kinds) > 2:
            raise NotCompiledError(f"field {path} is a union of several types")
        null_byte = 2 * kinds.index("null") if "null" in kinds else -1
        other_byte = 2 * kinds.index(values[0]) if values else -1
        least = self.emit(values[0] if values else "null", space, path, node, domain, (null_byte, other_byte))
        return 1 if null_byte >= 0 else 1 + least

    def _enum(self, symbols: list[str], path: str) -> int:
        place = len(self.symbol_at)
        self.symbol_at.append(len(symbols))
        for symbol in symbols:
            text = symbol.encode()
            if len(text) > MAX_SYMBOL:
                raise NotCompiledError(f"field {path} has a symbol of {len(text)} bytes")
            self.symbol_at.append(len(self.symbols))
            self.symbols += text
        self.symbol_at.append(len(self.symbols))
        return place

    def _record(
        self, schema: Mapping[str, Any], name: str, path: str, node: Node | None, domain: int, branches: tuple[int, int]
    ) -> int:
        is_union = branches != (-1, -1)
        at = -1
        if is_union:
            skip = k.SKIP if node is None else 0
            at = self.line(k.RECORD | k.UNION | skip, domain, first=self.field(path, node, branches))
            self.in_nullable += 1
        elif node is not None:
            self.written.add(node.id)
        space = name.rpartition(".")[0]
        size = 0
        for item in schema["fields"]:
            kid = node.kid(item["name"]) if node is not None else None
            size += self.emit(item["type"], space, f"{path}.{item['name']}", kid, domain)
        if is_union:
            self.in_nullable -= 1
            self.code[at][k.AFTER] = len(self.code)
            self.is_label = True
        return size

    def _loop(
        self,
        schema: Mapping[str, Any],
        space: str,
        path: str,
        node: Node | None,
        domain: int,
        branches: tuple[int, int],
    ) -> int:
        flags = (k.UNION if branches != (-1, -1) else 0) | (k.SKIP if node is None else 0)
        loop, self.n_loops = self.n_loops, self.n_loops + 1
        child = node.child if node is not None else -1
        place = self.field(path, node, branches)
        inner = max(child, 0)
        start = self.line(k.LOOP | flags, domain, first=place, loop=loop, child=child)
        kinds: list[tuple[Any, str]] = [(schema["items"], "[]")] if schema["type"] == "array" else []
        if schema["type"] == "map":
            kinds = [("string", "{}"), (schema["values"], "{}")]
        nullable, self.in_nullable = self.in_nullable, 0  # each item there is comes by
        least = 0
        for i, (kind, mark) in enumerate(kinds):
            least += self.emit(kind, space, path + mark, node.kids[i] if node is not None else None, inner)
        self.in_nullable = nullable
        self.is_label = True
        end = self.line(k.NEXT | (flags & k.SKIP), domain, first=place, loop=loop, child=child, least=max(least, 1))
        self.code[end][k.AFTER] = start + 1
        self.code[start][k.AFTER] = end + 1
        self.code[start][k.LEAST] = max(least, 1)
        return 1


def _operation(kind: str, node: Node | None) -> int:
    """Return how a primitive is read into a node, or over."""
    if kind in _TEXTS:
        return _TEXTS[kind]
    if node is None or kind == "long":
        return _ANY[kind]
    return _NUMBERS[kind, str(node.dtype)]
