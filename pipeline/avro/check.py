"""Bounds check of Avro bodies: every length, branch, count, range and character, before anything is decoded.

fastavro reads a negative length as "all that is left", a negative branch as one from the end, and stops nowhere in an
array of a billion empty items. A body that passes :func:`walk` has exactly one reading, ends exactly where it should,
and allocates no more than a small multiple of its own size. The schema is compiled to a flat program that one numba
kernel runs (20 microseconds for a ZTF packet); a fault names the field and the byte.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numba import njit

from pipeline.avro.primitives import (
    BLOCK,
    BOOLEAN,
    BRANCH,
    INT_MAX,
    INT_MIN,
    JIT,
    LENGTH,
    MANY,
    MAX_ITEMS,
    OK,
    RANGE,
    REASONS,
    SHORT,
    SYMBOL,
    TEXT,
    is_utf8,
    item_count,
    varint,
)
from pipeline.errors import SchemaError
from pipeline.surveys.superset import full_name

MAX_LINES = 50_000
"""Bound of a compiled schema: references to named types are unfolded, and a hostile schema unfolds without end."""

(_END, _SKIP, _BOOL, _INT, _LONG, _BYTES, _STRING, _ENUM, _UNION, _JUMP, _LOOP, _NEXT) = range(12)
_FIXED_WIDTH = {"float": 4, "double": 8}
_VARIABLE = {"boolean": _BOOL, "int": _INT, "long": _LONG, "bytes": _BYTES, "string": _STRING}


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled schema: its lines, branch table, the field of each line, the top-level field and loop of each map.

    A line is (operation, a, b, fewest bytes of an item): ``code`` is int64 (n, 4).
    """

    code: np.ndarray
    branches: np.ndarray
    n_loops: int
    fields: tuple[str, ...]
    maps: tuple[tuple[str, int], ...] = ()


def compile_schema(schema: Mapping[str, Any]) -> Program:
    """Compile an Avro record schema.

    Raises
    ------
    SchemaError
        A type is recursive, unknown or ambiguous, a union is none, or an array has items that take no bytes.
    """
    compiler = _Compiler()
    compiler.emit(schema, "", "")
    compiler.line(_END, 0, 0, "")
    return Program(
        np.array(compiler.code, dtype=np.int64).reshape(-1, 4),
        np.array(compiler.branches or [0], dtype=np.int64),
        max(compiler.n_loops, 1),
        tuple(compiler.fields),
        tuple(compiler.maps),
    )


class _Compiler:
    def __init__(self) -> None:
        self.code: list[list[int]] = []
        self.branches: list[int] = []
        self.fields: list[str] = []
        self.n_loops = 0
        self.maps: list[tuple[str, int]] = []
        self.n_types = 0
        self.named: dict[str, Any] = {}
        self.open: set[str] = set()

    def line(self, operation: int, a: int, b: int, path: str, least: int = 1) -> int:
        if len(self.code) >= MAX_LINES:
            raise SchemaError(f"the writer schema unfolds to more than {MAX_LINES} types")
        self.code.append([operation, a, b, least])
        self.fields.append(path)
        return len(self.code) - 1

    def emit(self, schema: Any, namespace: str, path: str) -> int:
        """Append the program of one type and return the smallest number of bytes it takes."""
        self.n_types += 1  # not each has a line: nulls and records of nulls unfold, too
        if self.n_types > MAX_LINES:
            raise SchemaError(f"the writer schema unfolds to more than {MAX_LINES} types")
        if isinstance(schema, list):
            return self._union(schema, namespace, path)
        kind = schema if isinstance(schema, str) else schema["type"]
        if isinstance(kind, (dict, list)):
            return self.emit(kind, namespace, path)
        if kind == "null":
            return 0
        if kind in _FIXED_WIDTH:
            self.line(_SKIP, _FIXED_WIDTH[kind], 0, path)
            return _FIXED_WIDTH[kind]
        if kind in _VARIABLE:
            self.line(_VARIABLE[kind], 0, 0, path)
            return 1
        if isinstance(schema, str):
            return self._reference(schema, namespace, path)
        if kind in ("array", "map"):
            return self._loop(schema, namespace, path)
        name = full_name(schema, namespace)
        self.named[name] = schema
        if kind == "record":
            return self._record(schema, name, path)
        if kind == "enum":
            self.line(_ENUM, len(schema["symbols"]), 0, path)
            return 1
        if kind == "fixed":
            size = schema["size"]
            if type(size) is not int or size < 0:
                raise SchemaError(f"field {path} is of size {size}")
            self.line(_SKIP, size, 0, path)
            return size
        raise SchemaError(f"field {path} is of unknown type {kind!r}")

    def _reference(self, name: str, namespace: str, path: str) -> int:
        full = name if name in self.named else f"{namespace}.{name}"
        if "." not in name and full == name and f"{namespace}.{name}" in self.named:
            raise SchemaError(f"field {path} is of type {name!r}, which is defined with a namespace and without")
        if full not in self.named or full in self.open:
            raise SchemaError(f"field {path} is of type {name!r}, which is recursive or not defined")
        return self.emit({**self.named[full], "name": full}, namespace, path)

    def _record(self, schema: Mapping[str, Any], name: str, path: str) -> int:
        self.open.add(name)
        space = name.rpartition(".")[0]
        prefix = f"{path}." if path else ""
        names = [f["name"] for f in schema["fields"]]
        if len(set(names)) < len(names):
            raise SchemaError(f"record {name} has a field twice")
        size = sum(self.emit(f["type"], space, prefix + f["name"]) for f in schema["fields"])
        self.open.discard(name)
        return size

    def _union(self, kinds: list[Any], namespace: str, path: str) -> int:
        if not kinds or kinds.count("null") > 1 or any(isinstance(kind, list) for kind in kinds):
            raise SchemaError(f"field {path} is a union of nothing, of unions, or of null twice")
        first = len(self.branches)
        self.branches.extend([0] * len(kinds))
        self.line(_UNION, first, len(kinds), path)
        jumps, sizes = [], []
        for i, kind in enumerate(kinds):
            self.branches[first + i] = len(self.code)
            sizes.append(self.emit(kind, namespace, path))
            jumps.append(self.line(_JUMP, 0, 0, path))
        for jump in jumps:
            self.code[jump][1] = len(self.code)
        return 1 + min(sizes)

    def _loop(self, schema: Mapping[str, Any], namespace: str, path: str) -> int:
        loop = self.n_loops
        self.n_loops += 1
        start = self.line(_LOOP, 0, loop, path)
        size = 0
        if schema["type"] == "map":
            self.maps.append((re.split(r"[.\[{]", path)[0], loop))
            size += self.emit("string", namespace, f"{path}{{}}")
            size += self.emit(schema["values"], namespace, f"{path}{{}}")
        else:
            size += self.emit(schema["items"], namespace, f"{path}[]")
        if size == 0:
            raise SchemaError(f"field {path} is an array of items that take no bytes")
        end = self.line(_NEXT, start, loop, path, size)
        self.code[start][1], self.code[start][3] = end + 1, size
        return 1


@dataclass(frozen=True, slots=True)
class Walked:
    """What :func:`walk` found.

    ``ends`` of the sound datums; where and why it stopped, if it did; how many entries the maps of the last datum have,
    by top-level field.
    """

    ends: np.ndarray
    reason: str | None
    position: int
    map_entries: Mapping[str, int] = field(default_factory=dict)


def walk(
    data: bytes | memoryview, start: int, stop: int, count: int, program: Program, *, more: bool = False
) -> Walked:
    """Walk ``count`` datums that follow each other in ``data[start:stop]``.

    Parameters
    ----------
    data : bytes-like
        The body, or a block of bodies.
    start, stop, count : int
        Extent in bytes and number of datums.
    program : Program
        The writer schema's.
    more : bool
        Whether further datums follow these.

    Returns
    -------
    Walked
        Ends (int64, one for each sound datum, as positions in ``data``). Unless more follow, the last datum must end at
        ``stop``: stray bytes behind it are its fault.
    """
    view = np.frombuffer(data, dtype=np.uint8)
    view.flags.writeable = False
    ends = np.empty(count, dtype=np.int64)
    counters = np.zeros((3, program.n_loops), dtype=np.int64)
    status, done, position, at = _walk(view, start, stop, count, program.code, program.branches, counters, ends)
    if status != OK:
        return Walked(ends[:done], f"field {program.fields[at]}: {REASONS[status]}", int(position))
    if position != stop and not more:
        where = int(ends[-1]) if count else start
        return Walked(ends[: max(count - 1, 0)], f"{stop - where} stray bytes follow the last field", where)
    entries: dict[str, int] = {}
    for name, loop in program.maps:
        entries[name] = entries.get(name, 0) + int(counters[2, loop])
    return Walked(ends, None, int(position), entries)


@njit(**JIT)
def _walk(view, start, stop, count, code, branches, counters, ends):  # type: ignore[no-untyped-def]
    """Return (status, sound datums, position, program line); ``ends`` receives the end of each sound datum."""
    p = start
    for i in range(count):
        at = 0
        for c in range(counters.shape[1]):
            counters[2, c] = 0
        while code[at, 0] != _END:
            operation, a, b = code[at, 0], code[at, 1], code[at, 2]
            status = OK
            at += 1
            if operation == _SKIP:
                if a > stop - p:
                    status = SHORT
                else:
                    p += a
            elif operation == _UNION:
                value, p, status = varint(view, p, stop)
                if status == OK and (value < 0 or value >= b):
                    status = BRANCH
                if status == OK:
                    at = branches[a + value]
            elif operation == _JUMP:
                at = a
            elif operation in (_INT, _LONG):
                value, p, status = varint(view, p, stop)
                if status == OK and operation == _INT and (value < INT_MIN or value > INT_MAX):
                    status = RANGE
            elif operation in (_BYTES, _STRING):
                value, p, status = varint(view, p, stop)
                if status == OK and (value < 0 or value > stop - p):
                    status = LENGTH
                if status == OK and operation == _STRING and not is_utf8(view, p, p + value):
                    status = TEXT
                if status == OK:
                    p += value
            elif operation in (_LOOP, _NEXT):
                more = False
                if operation == _NEXT:
                    counters[0, b] -= 1
                    more = counters[0, b] > 0
                    if not more and counters[1, b] >= 0 and counters[1, b] != p:
                        status = BLOCK
                if not more and status == OK:
                    counters[0, b], counters[1, b], p, status = item_count(view, p, stop, code[at - 1, 3])
                    if status == OK:
                        counters[2, b] += counters[0, b]
                        status = MANY if counters[2, b] > MAX_ITEMS else OK
                    more = counters[0, b] > 0
                if status == OK:
                    body = at if operation == _LOOP else a + 1
                    after = a if operation == _LOOP else at
                    at = body if more else after
            elif operation == _BOOL:
                if p >= stop:
                    status = SHORT
                elif view[p] > 1:
                    status = BOOLEAN
                else:
                    p += 1
            elif operation == _ENUM:
                value, p, status = varint(view, p, stop)
                if status == OK and (value < 0 or value >= a):
                    status = SYMBOL
            if status != OK:
                return status, i, p, (at - 1 if at > 0 else 0)
        ends[i] = p
    return OK, count, p, 0
