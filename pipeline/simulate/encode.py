"""Avro bodies from columns: a writer schema compiled once into a flat program that one kernel runs over all rows.

A schema becomes *domains*: the packet itself, and one for each array of records. A domain is a matrix of 64-bit words,
one row per record, one column (slot) per leaf field; a word holds the bits of a float or double, an integer, or the
number of a string in the heap. Records inside a record are inlined. Fields that are never set are null.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numba as nb
import numpy as np

from pipeline.errors import SchemaError

_DOUBLE, _FLOAT, _INTEGER, _BOOLEAN, _STRING, _RECORD, _ARRAY = range(7)
_KINDS = {
    "double": _DOUBLE,
    "float": _FLOAT,
    "int": _INTEGER,
    "long": _INTEGER,
    "boolean": _BOOLEAN,
    "string": _STRING,
    "bytes": _STRING,
}
_ENCODINGS = {_DOUBLE: np.float64, _FLOAT: np.float32, _INTEGER: np.int64, _BOOLEAN: np.bool_, _STRING: np.int64}


@nb.njit(inline="always")
def _put_varint(out, at, value):  # type: ignore[no-untyped-def]
    word = np.uint64((value << np.int64(1)) ^ (value >> np.int64(63)))
    while word > np.uint64(127):
        out[at] = np.uint8((word & np.uint64(127)) | np.uint64(128))
        at += 1
        word = word >> np.uint64(7)
    out[at] = np.uint8(word)
    return at + 1


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _put_ops(program, start, stop, words, nulls, heap, heap_offsets, out, at):  # type: ignore[no-untyped-def]
    op = start
    while op < stop:
        kind, slot, null_branch, skip = program[op, 0], program[op, 1], program[op, 2], program[op, 3]
        if null_branch >= 0:
            if nulls[slot]:
                out[at] = np.uint8(2 * null_branch)
                at += 1
                op += 1 + skip
                continue
            out[at] = np.uint8(2 * (1 - null_branch))
            at += 1
        word = words[slot]
        if kind == 0:
            for byte in range(8):
                out[at + byte] = np.uint8((word >> np.int64(8 * byte)) & np.int64(255))
            at += 8
        elif kind == 1:
            for byte in range(4):
                out[at + byte] = np.uint8((word >> np.int64(8 * byte)) & np.int64(255))
            at += 4
        elif kind == 2:
            at = _put_varint(out, at, word)
        elif kind == 3:
            out[at] = np.uint8(word)
            at += 1
        elif kind == 4:
            first, last = heap_offsets[word], heap_offsets[word + 1]
            at = _put_varint(out, at, last - first)
            out[at : at + last - first] = heap[first:last]
            at += last - first
        op += 1
    return at


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _put_array(program, words, nulls, first, last, heap, heap_offsets, out, at):  # type: ignore[no-untyped-def]
    if last > first:
        at = _put_varint(out, at, last - first)
        for row in range(first, last):
            at = _put_ops(program, 0, program.shape[0], words[row], nulls[row], heap, heap_offsets, out, at)
    out[at] = np.uint8(0)
    return at + 1


@dataclass
class Heap:
    """Strings and byte strings of one batch, each referred to by its number."""

    pieces: list[np.ndarray] = field(default_factory=list)
    lengths: list[np.ndarray] = field(default_factory=list)
    count: int = 0

    def add(self, strings: list[bytes]) -> np.ndarray:
        """Add ``strings``; returns their numbers, shape (n,)."""
        self.pieces.append(np.frombuffer(b"".join(strings), np.uint8))
        self.lengths.append(np.array([len(string) for string in strings], dtype=np.int64))
        return self._numbers(len(strings))

    def add_matrix(self, text: np.ndarray) -> np.ndarray:
        """Add the rows of ``text`` (uint8, shape (n, width)); returns their numbers, shape (n,)."""
        self.pieces.append(np.ascontiguousarray(text).reshape(-1))
        self.lengths.append(np.full(text.shape[0], text.shape[1], dtype=np.int64))
        return self._numbers(text.shape[0])

    def _numbers(self, added: int) -> np.ndarray:
        first, self.count = self.count, self.count + added
        return np.arange(first, self.count)

    def buffers(self) -> tuple[np.ndarray, np.ndarray]:
        """Return all bytes, and the offsets of the strings, shape (count + 1,)."""
        if not self.pieces:
            return np.zeros(0, np.uint8), np.zeros(1, np.int64)
        offsets = np.concatenate([[0], np.cumsum(np.concatenate(self.lengths))])
        return np.concatenate(self.pieces), offsets


class Columns:
    """Values of one domain: rows of records, set by column."""

    def __init__(self, slots: dict[str, tuple[int, int, bool]], rows: int) -> None:
        self.slots = slots
        self.rows = rows
        self.words = np.zeros((rows, max(len(slots), 1)), dtype=np.int64)
        self.nulls = np.ones((rows, max(len(slots), 1)), dtype=np.bool_)
        self.written: set[str] = set()

    def __contains__(self, name: str) -> bool:
        """Return whether this schema version has the field ``name``."""
        return name in self.slots

    def set(self, name: str, values: Any, null: np.ndarray | None = None) -> None:
        """Set the column ``name`` (a dotted path); a field that this schema version lacks is passed over.

        Parameters
        ----------
        name : str
            Field, with its parents for an inlined record: ``candidate.jd``.
        values : array or scalar
            Shape (rows,) or scalar; for strings their numbers in the heap; for a nullable record or array ``True``.
        null : numpy.ndarray of bool, optional
            Rows that are null; default none.
        """
        found = self.slots.get(name)
        if found is None:
            return
        slot, kind, _ = found
        self.written.add(name)
        if kind in (_RECORD, _ARRAY):
            values = 0
        else:
            values = np.asarray(values).astype(_ENCODINGS[kind])
            if kind == _DOUBLE:
                values = values.view(np.int64)
            elif kind == _FLOAT:
                values = values.view(np.int32)
        self.words[:, slot] = values
        self.nulls[:, slot] = False if null is None else null

    def set_flags(self, prefix: str) -> None:
        """Set all boolean fields directly under ``prefix`` to false."""
        for name, (_, kind, _) in self.slots.items():
            if kind == _BOOLEAN and name.startswith(prefix) and "." not in name[len(prefix) :]:
                self.set(name, False)

    def check(self, domain: str) -> None:
        """Fail where a field that may not be null was left out."""
        for name, (slot, kind, nullable) in self.slots.items():
            if nullable or kind == _RECORD:
                continue
            parent = self.slots.get(name.rpartition(".")[0])
            stands = ~self.nulls[:, parent[0]] if parent and parent[2] else True
            if np.any(self.nulls[:, slot] & stands):
                raise SchemaError(f"field {name} may not be null in {domain}")


class Encoder:
    """A compiled writer schema.

    Parameters
    ----------
    schema : dict
        An Avro record schema, as parsed JSON; unions may only be of null and one type, arrays only of records
        without arrays.

    Attributes
    ----------
    domains : dict of str to dict
        For ``""`` (the packet) and each array field: slot, kind and nullability of each leaf field by dotted path.
    """

    def __init__(self, schema: dict[str, Any]) -> None:
        self._named: dict[str, dict[str, Any]] = {}
        self.domains: dict[str, dict[str, tuple[int, int, bool]]] = {"": {}}
        self._programs: dict[str, np.ndarray] = {}
        self.arrays: list[str] = []
        operations: list[list[int]] = []
        self._compile_record(schema, "", "", operations, schema.get("namespace", ""))
        self._programs[""] = np.array(operations, dtype=np.int64).reshape(-1, 4)

    def columns(self, domain: str, rows: int) -> Columns:
        """Return empty columns of ``domain`` for ``rows`` records."""
        return Columns(self.domains.get(domain, {}), rows)

    def _resolve(self, kind: Any, namespace: str) -> Any:
        if isinstance(kind, str) and kind not in _KINDS and kind != "null":
            for name in (kind, f"{namespace}.{kind}"):
                if name in self._named:
                    return self._named[name]
            raise SchemaError(f"schema names an unknown type {kind}")
        if isinstance(kind, dict) and isinstance(kind["type"], (dict, list)):
            return self._resolve(kind["type"], namespace)
        return kind

    def _compile_record(
        self, record: dict[str, Any], domain: str, path: str, operations: list[list[int]], namespace: str
    ) -> None:
        full, _, short = record["name"].rpartition(".")
        namespace = full or record.get("namespace", namespace)
        self._named[f"{namespace}.{short}" if namespace else short] = record
        self._named[short] = record
        for item in record["fields"]:
            self._compile_field(item, domain, path, operations, namespace)

    def _compile_field(
        self, item: dict[str, Any], domain: str, path: str, operations: list[list[int]], namespace: str
    ) -> None:
        name = path + item["name"]
        kind, null_branch = item["type"], -1
        if isinstance(kind, list):
            if len(kind) != 2 or "null" not in kind:
                raise SchemaError(f"field {name} is a union of several types")
            null_branch = kind.index("null")
            kind = kind[1 - null_branch]
        kind = self._resolve(kind, namespace)
        tag = kind["type"] if isinstance(kind, dict) else kind
        slots = self.domains[domain]
        slot = len(slots)
        if tag == "array":
            if domain:
                raise SchemaError(f"field {name} is an array inside an array")
            slots[name] = (slot, _ARRAY, null_branch >= 0)
            operations.append([_ARRAY, slot, null_branch, len(self.arrays)])
            self.arrays.append(name)
            self.domains[name] = {}
            inner: list[list[int]] = []
            self._compile_record(self._resolve(kind["items"], namespace), name, "", inner, namespace)
            self._programs[name] = np.array(inner, dtype=np.int64).reshape(-1, 4)
        elif tag == "record":
            slots[name] = (slot, _RECORD, null_branch >= 0)
            operation = [_RECORD, slot, null_branch, 0]
            operations.append(operation)
            before = len(operations)
            self._compile_record(kind, domain, name + ".", operations, namespace)
            operation[3] = len(operations) - before
        elif tag in _KINDS:
            slots[name] = (slot, _KINDS[tag], null_branch >= 0)
            operations.append([_KINDS[tag], slot, null_branch, 0])
        else:
            raise SchemaError(f"field {name} has the type {tag}, which the simulator does not write")

    def encode(
        self, packet: Columns, lists: dict[str, tuple[Columns, np.ndarray]], heap: Heap
    ) -> tuple[np.ndarray, np.ndarray]:
        """Encode all rows.

        Parameters
        ----------
        packet : Columns
            The packet domain, (n,) rows; required records count as set.
        lists : dict of str to (Columns, numpy.ndarray)
            Records of each array field and their offsets, shape (n+1,); a field left out is null (or empty where it
            may not be null).
        heap : Heap
            The strings referred to.

        Returns
        -------
        body : numpy.ndarray of uint8
            The bodies, one after the other.
        offsets : numpy.ndarray of int64, shape (n+1,)
            Where each begins.
        """
        packet.check("packet")
        rows = packet.rows
        heap_bytes, heap_offsets = heap.buffers()
        parts: list[tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]] = []
        size = packet.words.shape[1] * 11 * rows + 64
        none = np.zeros(rows + 1, np.int64)
        for name in self.arrays:
            columns, offsets = lists.get(name, (self.columns(name, 0), none))
            columns.check(name)
            slot, _, _ = self.domains[""][name]
            if name not in lists:
                packet.nulls[:, slot] = True
            elif name not in packet.written:
                packet.nulls[:, slot] = False
            parts.append((self._programs[name], columns.words, columns.nulls, offsets.astype(np.int64)))
            size += columns.words.shape[0] * columns.words.shape[1] * 11 + 12 * rows
            string_slots = [s for s, kind, _ in self.domains[name].values() if kind == _STRING]
            lengths = np.diff(heap_offsets)
            for string_slot in string_slots:
                kept = ~columns.nulls[:, string_slot]
                size += int(lengths[columns.words[kept, string_slot]].sum())
        for string_slot in [s for s, kind, _ in self.domains[""].values() if kind == _STRING]:
            kept = ~packet.nulls[:, string_slot]
            size += int(np.diff(heap_offsets)[packet.words[kept, string_slot]].sum())
        out = np.empty(size, np.uint8)
        offsets_out = np.zeros(rows + 1, np.int64)
        self._run(packet, parts, heap_bytes, heap_offsets, out, offsets_out)
        return out[: offsets_out[-1]], offsets_out

    def _run(self, packet, parts, heap, heap_offsets, out, offsets):  # type: ignore[no-untyped-def]
        while len(parts) < 3:
            parts.append((np.zeros((0, 4), np.int64), np.zeros((0, 1), np.int64), np.zeros((0, 1), np.bool_), offsets))
        (a_ops, a_words, a_nulls, a_at), (b_ops, b_words, b_nulls, b_at), (c_ops, c_words, c_nulls, c_at) = parts
        _put_packets(
            self._programs[""], packet.words, packet.nulls, a_ops, a_words, a_nulls, a_at, b_ops, b_words, b_nulls,
            b_at, c_ops, c_words, c_nulls, c_at, heap, heap_offsets, out, offsets,
        )  # fmt: skip


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _put_packets(  # type: ignore[no-untyped-def]
    program, words, nulls, a_ops, a_words, a_nulls, a_at, b_ops, b_words, b_nulls, b_at, c_ops, c_words, c_nulls, c_at,
    heap, heap_offsets, out, offsets,
):  # fmt: skip
    """Write every packet: the ops between two arrays in one go, then the array (at most three arrays)."""
    at = 0
    n_ops = program.shape[0]
    for row in range(words.shape[0]):
        op = 0
        while op < n_ops:
            stop = op
            while stop < n_ops and program[stop, 0] != 6:
                stop += 1
            at = _put_ops(program, op, stop, words[row], nulls[row], heap, heap_offsets, out, at)
            op = stop
            if op == n_ops:
                break
            slot, null_branch, which = program[op, 1], program[op, 2], program[op, 3]
            op += 1
            if null_branch >= 0:
                if nulls[row, slot]:
                    out[at] = np.uint8(2 * null_branch)
                    at += 1
                    continue
                out[at] = np.uint8(2 * (1 - null_branch))
                at += 1
            if which == 0:
                at = _put_array(a_ops, a_words, a_nulls, a_at[row], a_at[row + 1], heap, heap_offsets, out, at)
            elif which == 1:
                at = _put_array(b_ops, b_words, b_nulls, b_at[row], b_at[row + 1], heap, heap_offsets, out, at)
            else:
                at = _put_array(c_ops, c_words, c_nulls, c_at[row], c_at[row + 1], heap, heap_offsets, out, at)
        offsets[row + 1] = at
