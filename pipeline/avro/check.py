"""Bounds check of Avro bodies: every length, branch, count, range and character, before anything is decoded.

fastavro reads a negative length as "all that is left", a negative branch as one from the end, and stops nowhere in an
array of a billion empty items. A body that passes :func:`walk` has exactly one reading, ends exactly where it should,
and allocates no more than a small multiple of its own size. The schema is compiled to a flat program that one numba
kernel runs (20 microseconds for a ZTF packet); a fault names the field and the byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit

from pipeline.errors import SchemaError
from pipeline.surveys.superset import full_name

MAX_LINES = 50_000
"""Bound of a compiled schema: references to named types are unfolded, and a hostile schema unfolds without end."""

(_END, _SKIP, _BOOL, _INT, _LONG, _BYTES, _STRING, _ENUM, _UNION, _JUMP, _LOOP, _NEXT) = range(12)
(_OK, _SHORT, _BRANCH, _LENGTH, _TEXT, _VARINT, _BOOLEAN, _COUNT, _SYMBOL, _RANGE, _BLOCK) = range(11)
_REASONS = {
    _SHORT: "the body ends within it",
    _BRANCH: "union branch out of range",
    _LENGTH: "length is negative or beyond the body",
    _TEXT: "text is not UTF-8",
    _VARINT: "integer of more than 64 bits",
    _BOOLEAN: "boolean is neither 0 nor 1",
    _COUNT: "item count is negative or beyond the body",
    _SYMBOL: "enum symbol out of range",
    _RANGE: "int of more than 32 bits",
    _BLOCK: "block size of an array does not fit its items",
}
_FIXED_WIDTH = {"float": 4, "double": 8}
_VARIABLE = {"boolean": _BOOL, "int": _INT, "long": _LONG, "bytes": _BYTES, "string": _STRING}


@dataclass(frozen=True, slots=True)
class Program:
    """A compiled schema: ``code`` int64 (n, 3) of (operation, a, b), the branch table, and the field of each line."""

    code: np.ndarray
    branches: np.ndarray
    n_loops: int
    fields: tuple[str, ...]


def compile_schema(schema: Mapping[str, Any]) -> Program:
    """Compile an Avro record schema.

    Raises
    ------
    SchemaError
        A type is recursive or unknown, or an array has items that take no bytes.
    """
    compiler = _Compiler()
    compiler.emit(schema, "", "")
    compiler.line(_END, 0, 0, "")
    return Program(
        np.array(compiler.code, dtype=np.int64).reshape(-1, 3),
        np.array(compiler.branches or [0], dtype=np.int64),
        max(compiler.n_loops, 1),
        tuple(compiler.fields),
    )


class _Compiler:
    def __init__(self) -> None:
        self.code: list[list[int]] = []
        self.branches: list[int] = []
        self.fields: list[str] = []
        self.n_loops = 0
        self.named: dict[str, Any] = {}
        self.open: set[str] = set()

    def line(self, operation: int, a: int, b: int, path: str) -> int:
        if len(self.code) >= MAX_LINES:
            raise SchemaError(f"the writer schema unfolds to more than {MAX_LINES} types")
        self.code.append([operation, a, b])
        self.fields.append(path)
        return len(self.code) - 1

    def emit(self, schema: Any, namespace: str, path: str) -> int:
        """Append the program of one type and return the smallest number of bytes it takes."""
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
            size = int(schema["size"])
            if size < 0:
                raise SchemaError(f"field {path} is of size {size}")
            self.line(_SKIP, size, 0, path)
            return size
        raise SchemaError(f"field {path} is of unknown type {kind!r}")

    def _reference(self, name: str, namespace: str, path: str) -> int:
        full = name if name in self.named else f"{namespace}.{name}"
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
        return 1 + min(sizes, default=0)

    def _loop(self, schema: Mapping[str, Any], namespace: str, path: str) -> int:
        loop = self.n_loops
        self.n_loops += 1
        start = self.line(_LOOP, 0, loop, path)
        size = 0
        if schema["type"] == "map":
            size += self.emit("string", namespace, f"{path}{{}}")
            size += self.emit(schema["values"], namespace, f"{path}{{}}")
        else:
            size += self.emit(schema["items"], namespace, f"{path}[]")
        if size == 0:
            raise SchemaError(f"field {path} is an array of items that take no bytes")
        end = self.line(_NEXT, start, loop, path)
        self.code[start][1] = end + 1
        return 1


@dataclass(frozen=True, slots=True)
class Walked:
    """What :func:`walk` found: ``ends`` of the sound datums, and where and why it stopped, if it did."""

    ends: np.ndarray
    reason: str | None
    position: int


def walk(data: bytes | memoryview, start: int, stop: int, count: int, program: Program) -> Walked:
    """Walk ``count`` datums that follow each other in ``data[start:stop]``.

    Parameters
    ----------
    data : bytes-like
        The body, or a block of bodies.
    start, stop, count : int
        Extent in bytes and number of datums.
    program : Program
        The writer schema's.

    Returns
    -------
    Walked
        Ends (int64, one for each sound datum, as positions in ``data``). The last datum must end at ``stop``: stray
        bytes behind it are its fault.
    """
    view = np.frombuffer(data, dtype=np.uint8)
    view.flags.writeable = False
    ends = np.empty(count, dtype=np.int64)
    status, done, position, at = _walk(view, start, stop, count, program.code, program.branches, program.n_loops, ends)
    if status != _OK:
        return Walked(ends[:done], f"field {program.fields[at]}: {_REASONS[status]}", int(position))
    if position != stop:
        where = int(ends[-1]) if count else start
        return Walked(ends[: max(count - 1, 0)], f"{stop - where} stray bytes follow the last field", where)
    return Walked(ends, None, int(position))


@njit(cache=True, nogil=True, error_model="numpy")
def _varint(view, p, stop):  # type: ignore[no-untyped-def]
    """Return (value, next position, status) of a zigzag integer."""
    raw = np.uint64(0)
    shift = np.uint64(0)
    for _ in range(10):
        if p >= stop:
            return np.int64(0), p, _SHORT
        byte = np.uint64(view[p])
        p += 1
        if shift == np.uint64(63) and byte > np.uint64(1):
            return np.int64(0), p, _VARINT
        raw |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            half = np.int64(raw >> np.uint64(1))
            return (-half - np.int64(1) if raw & np.uint64(1) else half), p, _OK
        shift += np.uint64(7)
    return np.int64(0), p, _VARINT


@njit(cache=True, nogil=True, error_model="numpy")
def _is_utf8(view, p, stop):  # type: ignore[no-untyped-def]
    """Whether the bytes are UTF-8 as RFC 3629 has it: shortest forms, no surrogates, at most U+10FFFF."""
    while p < stop:
        lead = view[p]
        if lead < 0x80:
            p += 1
            continue
        low, high = np.uint8(0x80), np.uint8(0xBF)
        if 0xC2 <= lead <= 0xDF:
            more = 1
        elif 0xE0 <= lead <= 0xEF:
            more = 2
            if lead == 0xE0:
                low = np.uint8(0xA0)
            elif lead == 0xED:
                high = np.uint8(0x9F)
        elif 0xF0 <= lead <= 0xF4:
            more = 3
            if lead == 0xF0:
                low = np.uint8(0x90)
            elif lead == 0xF4:
                high = np.uint8(0x8F)
        else:
            return False
        if p + more >= stop:
            return False
        for k in range(1, more + 1):
            if view[p + k] < low or view[p + k] > high:
                return False
            low, high = np.uint8(0x80), np.uint8(0xBF)
        p += more + 1
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _count(view, p, stop):  # type: ignore[no-untyped-def]
    """Return (items, end the block declares or -1, next position, status) of one array block."""
    items, p, status = _varint(view, p, stop)
    declared = np.int64(-1)
    if status == _OK and items < 0:
        size, p, status = _varint(view, p, stop)
        if status == _OK and (size < 0 or size > stop - p):
            return items, declared, p, _COUNT
        declared = p + size
        items = -items
    if status == _OK and (items < 0 or items > stop - p):
        return items, declared, p, _COUNT
    return items, declared, p, status


@njit(cache=True, nogil=True, error_model="numpy")
def _walk(view, start, stop, count, code, branches, n_loops, ends):  # type: ignore[no-untyped-def]
    """Return (status, sound datums, position, program line); ``ends`` receives the end of each sound datum."""
    left = np.zeros(n_loops, dtype=np.int64)
    declared = np.zeros(n_loops, dtype=np.int64)
    p = start
    for i in range(count):
        at = 0
        while code[at, 0] != _END:
            operation, a, b = code[at, 0], code[at, 1], code[at, 2]
            status = _OK
            at += 1
            if operation == _SKIP:
                if a > stop - p:
                    status = _SHORT
                else:
                    p += a
            elif operation == _UNION:
                value, p, status = _varint(view, p, stop)
                if status == _OK and (value < 0 or value >= b):
                    status = _BRANCH
                if status == _OK:
                    at = branches[a + value]
            elif operation == _JUMP:
                at = a
            elif operation in (_INT, _LONG):
                value, p, status = _varint(view, p, stop)
                if status == _OK and operation == _INT and (value < -(2**31) or value >= 2**31):
                    status = _RANGE
            elif operation in (_BYTES, _STRING):
                value, p, status = _varint(view, p, stop)
                if status == _OK and (value < 0 or value > stop - p):
                    status = _LENGTH
                if status == _OK and operation == _STRING and not _is_utf8(view, p, p + value):
                    status = _TEXT
                if status == _OK:
                    p += value
            elif operation in (_LOOP, _NEXT):
                more = False
                if operation == _NEXT:
                    left[b] -= 1
                    more = left[b] > 0
                    if not more and declared[b] >= 0 and declared[b] != p:
                        status = _BLOCK
                if not more and status == _OK:
                    left[b], declared[b], p, status = _count(view, p, stop)
                    more = left[b] > 0
                if status == _OK:
                    body = at if operation == _LOOP else a + 1
                    after = a if operation == _LOOP else at
                    at = body if more else after
            elif operation == _BOOL:
                if p >= stop:
                    status = _SHORT
                elif view[p] > 1:
                    status = _BOOLEAN
                else:
                    p += 1
            elif operation == _ENUM:
                value, p, status = _varint(view, p, stop)
                if status == _OK and (value < 0 or value >= a):
                    status = _SYMBOL
            if status != _OK:
                return status, i, p, (at - 1 if at > 0 else 0)
        ends[i] = p
    return _OK, count, p, 0
