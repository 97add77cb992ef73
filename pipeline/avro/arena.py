"""The memory that a batch is decoded into, and the Arrow arrays that it becomes without a copy.

All values, offsets and validity bits of a batch lie in one zeroed buffer, all texts in another. How much room a batch
needs is guessed from the batches before it, which changes nothing but speed: where it does not suffice, it grows.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pipeline.avro import kernel as k
from pipeline.avro.memory import take
from pipeline.avro.program import Program
from pipeline.avro.target import BITS, OFFSETS, TEXT, Node, Target

_ALIGN = 64
_MOST_TEXT = 2**31 - 1
_SLACK = 1.15
_MOST_NULLS = 1 << 20
"""Nulls of one column that are kept for the next batch."""
_MOST_GUESSED = 8
"""Room guessed for a byte of a body, at most: one odd packet must not make every later batch huge."""
Int = NDArray[np.int64]


class TooLargeError(Exception):
    """A column of texts, or the items of a list, would not fit the 32-bit offsets of an Arrow array."""


class Layout:
    """Which nodes the programs of a batch fill, and how much room a packet takes in them.

    Parameters
    ----------
    target : Target
        The columns.
    programs : sequence of Program
        Of all the schemas in the batch.
    """

    def __init__(self, target: Target, programs: Sequence[Program]) -> None:
        self.target = target
        self.programs = tuple(programs)
        written = frozenset[int]().union(*(program.written for program in programs))
        everywhere = written.intersection(*(program.written for program in programs))
        nullable = frozenset[int]().union(*(program.nullable for program in programs))
        gaps = frozenset[int]().union(*(program.gaps for program in programs))
        self.nodes = [node for node in target.nodes if node.id in written]
        self.slot_of = {node.id: slot for slot, node in enumerate(self.nodes)}
        self.written = written
        self.has_bits = nullable | (written - everywhere)
        self.has_gaps = gaps | (written - everywhere)
        self.text_at = {node.id: place for place, node in enumerate(n for n in self.nodes if n.width == TEXT)}
        self.row_bytes = np.zeros(target.n_domains)  # of all nodes of a domain, with a validity bit
        for node in self.nodes:
            width = abs(OFFSETS if node.width == TEXT else node.width)
            self.row_bytes[node.domain] += (width or 1 / 8) + 1 / 8
        self.rows_each: NDArray[np.float64] | None = None  # per packet and domain, learned from the last batch
        self.bytes_each = np.zeros(max(len(self.text_at), 1))
        self._nulls: dict[int, pa.Array] = {}
        self._zeros = pa.py_buffer(bytes(8))
        self.rows_filled = [
            [node for node in self.nodes if node.id in self.has_bits and node.id in p.written - p.nullable]
            for p in self.programs
        ]

    def nulls(self, node: Node, n: int) -> pa.Array:
        """Return ``n`` nulls of a node that nobody has written; all nodes share one buffer of zeros."""
        known = self._nulls.get(node.id)
        if known is None or len(known) < n:
            if len(self._zeros) < 8 * (n + 1):
                self._zeros = pa.py_buffer(bytes(8 * (n + n // 8 + 1)))
                self._nulls.clear()  # they hold the smaller one
            known = self._nulls[node.id] = _nulls(node, len(self._zeros) // 8 - 1, self._zeros)
        return known.slice(0, n)

    def learn(self, packets: int, rows: Int, lengths: Int) -> None:
        """Note how much room these packets took."""
        if len(self._zeros) > 8 * (_MOST_NULLS + 1):
            self._zeros, self._nulls = pa.py_buffer(bytes(8)), {}
        self.rows_each = rows / packets
        self.bytes_each = lengths / packets


class Arena:
    """Buffers for the packets of one batch.

    Parameters
    ----------
    layout : Layout
        What is filled.
    n : int
        Packets.
    n_bytes : int
        Bytes of their bodies: the first guess, where there is no better one.
    """

    def __init__(self, layout: Layout, n: int, n_bytes: int) -> None:
        self.layout = layout
        self.domains = np.zeros((3, layout.target.n_domains), dtype=np.int64)
        self.buffers = np.zeros((4, max(len(layout.text_at), 1)), dtype=np.int64)
        self.domains[k.ROWS_MOST] = 16 * n
        self.buffers[k.CAPACITY] = n_bytes // 4 + 64
        if layout.rows_each is not None:
            rows = layout.rows_each * n * _SLACK + 64
            if rows @ layout.row_bytes <= _MOST_GUESSED * n_bytes + (1 << 20):
                self.domains[k.ROWS_MOST] = rows
            self.buffers[k.CAPACITY] = np.minimum(layout.bytes_each * n * _SLACK, n_bytes) + 4096
        self.domains[k.ROWS_MOST, 0] = n
        self._place()
        self._place_texts()

    # ------------------------------------------------------------------------------- where things lie
    def _place(self) -> None:
        """Lay the values out anew for the present capacities."""
        most = self.domains[k.ROWS_MOST]
        if most.max() > _MOST_TEXT:
            raise TooLargeError
        size = 0
        slots = np.full((len(self.layout.nodes), 4), -1, dtype=np.int64)
        for slot, node in zip(slots, self.layout.nodes, strict=True):
            rows = int(most[node.domain])
            bits = (rows + 7) // 8
            slot[:2] = node.domain, OFFSETS if node.width == TEXT else node.width
            if node.has_values:
                slot[2] = size
                size += _aligned(bits if node.width == BITS else rows * abs(int(slot[1])) + 4)
            if node.id in self.layout.has_bits:
                slot[3] = size
                size += _aligned(bits)
        self.slots = slots
        self.buffer, memory = take(_aligned(size) + _ALIGN)
        self.a8 = memory[: _aligned(size) + _ALIGN]
        self.a8[:] = 0
        self.views = (self.a8, *(self.a8.view(kind) for kind in (np.uint32, np.uint64, np.float32, np.float64)))
        self.tables = [self._table(program) for program in self.layout.programs]

    def _place_texts(self) -> None:
        if self.buffers[k.CAPACITY].max() > _MOST_TEXT:
            raise TooLargeError
        ends = np.cumsum(self.buffers[k.CAPACITY])
        self.buffers[k.BASE] = ends - self.buffers[k.CAPACITY]
        self.heap_buffer, memory = take(int(ends[-1]))
        self.heap = memory[: int(ends[-1])]

    def _table(self, program: Program) -> Int:
        """Return the field table of one program: its nodes' places in this arena."""
        places = {node.id: slot for node, slot in zip(self.layout.nodes, self.slots, strict=True)}
        table = np.full((6, len(program.fields)), -1, dtype=np.int64)
        for f, item in enumerate(program.fields):
            table[k.NULL_BYTE, f], table[k.OTHER_BYTE, f] = item.null_byte, item.other_byte
            table[k.EXTRA, f] = item.extra
            if item.node is not None:
                _, width, value, valid = places[item.node.id].tolist()
                table[k.VALUE, f] = value // (abs(width) or 1)
                table[k.VALID, f] = valid
                table[k.TEXT_AT, f] = self.layout.text_at.get(item.node.id, 0)
            else:
                table[k.TEXT_AT, f] = 0
        return table

    # ------------------------------------------------------------------------------- growing and undoing
    def grow_rows(self, domain: int, rows: int) -> None:
        """Make room for ``rows`` items of a list; what is there stays."""
        old, slots, lease = self.a8, self.slots, self.buffer  # while it is held, nobody else gets its memory
        self.domains[k.ROWS_MOST, domain] = max(rows + 64, int(1.5 * self.domains[k.ROWS_MOST, domain]))
        self._place()
        now = self.domains[k.ROWS_NOW]
        for before, after in zip(slots, self.slots, strict=True):
            rows = int(now[before[0]])
            width = abs(int(before[1]))
            if before[2] >= 0:
                size = (rows + 7) // 8 if width == 0 else rows * width + (4 if before[1] < 0 else 0)
                self.a8[after[2] : after[2] + size] = old[before[2] : before[2] + size]
            if before[3] >= 0:
                size = (rows + 7) // 8
                self.a8[after[3] : after[3] + size] = old[before[3] : before[3] + size]
        del lease

    def grow_texts(self, place: int, size: int) -> None:
        """Make room for ``size`` bytes in one text buffer; what is there stays."""
        old, bases, lease = self.heap, self.buffers[k.BASE].copy(), self.heap_buffer
        most = min(max(size + 4096, int(1.5 * self.buffers[k.CAPACITY, place])), _MOST_TEXT)
        self.buffers[k.CAPACITY, place] = max(most, size)
        self._place_texts()
        for before, after, length in zip(bases, self.buffers[k.BASE], self.buffers[k.LENGTH_NOW], strict=True):
            self.heap[after : after + length] = old[before : before + length]
        del lease

    def undo(self) -> None:
        """Forget the body that could not be decoded."""
        k.undo(self.domains, self.buffers, self.slots, self.a8)

    def fill(self, which: int, rows_before: Int) -> None:
        """Mark as valid what the program ``which`` always writes, in the rows that it has added."""
        for node in self.layout.rows_filled[which]:
            first, last = int(rows_before[node.domain]), int(self.domains[k.ROWS_NOW, node.domain])
            if first == last:
                continue
            valid = int(self.slots[self.layout.slot_of[node.id], 3])
            octets = self.a8[valid + first // 8 : valid + (last + 7) // 8]  # not those of earlier runs
            bits = np.unpackbits(octets, bitorder="little")
            bits[first % 8 : last - first // 8 * 8] = 1
            octets[:] = np.packbits(bits, bitorder="little")

    # ------------------------------------------------------------------------------- Arrow
    def finish(self) -> list[pa.Array]:
        """Return the columns. The arena must not be used after that: they are its memory."""
        rows = self.domains[k.ROWS_NOW]
        if rows[0]:
            self.layout.learn(int(rows[0]), rows, self.buffers[k.LENGTH_NOW])
        places = {node.id: slot for node, slot in zip(self.layout.nodes, self.slots.tolist(), strict=True)}
        return [self._array(node, places) for node in self.layout.target.columns]

    def _array(self, node: Node, places: dict[int, list[int]]) -> pa.Array:
        n = int(self.domains[k.ROWS_NOW, node.domain])
        if node.id not in places or pa.types.is_null(node.dtype):
            return self.layout.nulls(node, n)
        _, width, value, valid = places[node.id]
        bits = self.buffer.slice(valid, (n + 7) // 8) if valid >= 0 else None
        if pa.types.is_struct(node.dtype):
            kids = [self._array(kid, places) for kid in node.kids]
            return pa.Array.from_buffers(node.dtype, n, [bits], children=kids)
        if node.id in self.layout.has_gaps and width < 0:
            offsets = self.a8[value : value + 4 * (n + 1)].view(np.int32)
            np.maximum.accumulate(offsets, out=offsets)
        if node.width == TEXT:
            place = self.layout.text_at[node.id]
            base, length = int(self.buffers[k.BASE, place]), int(self.buffers[k.LENGTH_NOW, place])
            data = self.heap_buffer.slice(base, length)
            return pa.Array.from_buffers(node.dtype, n, [bits, self.buffer.slice(value, 4 * (n + 1)), data])
        if node.width == OFFSETS:
            kids = [self._array(kid, places) for kid in node.kids]
            if pa.types.is_map(node.dtype):
                kids = [pa.StructArray.from_arrays(kids, fields=[node.dtype.key_field, node.dtype.item_field])]
            offsets_buffer = self.buffer.slice(value, 4 * (n + 1))
            return pa.Array.from_buffers(node.dtype, n, [bits, offsets_buffer], children=kids)
        size = (n + 7) // 8 if node.width == BITS else n * node.width
        return pa.Array.from_buffers(node.dtype, n, [bits, self.buffer.slice(value, size)])


def _aligned(size: int) -> int:
    return -(-size // _ALIGN) * _ALIGN


def _nulls(node: Node, n: int, zeros: pa.Buffer) -> pa.Array:
    """Return nulls of a node that nobody has written: all of them share one buffer of zeros."""
    if pa.types.is_null(node.dtype):
        return pa.nulls(n)
    if pa.types.is_struct(node.dtype):
        kids = [_nulls(kid, n, zeros) for kid in node.kids]
        return pa.Array.from_buffers(node.dtype, n, [zeros], null_count=n, children=kids)
    if node.width in (OFFSETS, TEXT):
        if node.width == TEXT:
            return pa.Array.from_buffers(node.dtype, n, [zeros, zeros, zeros], null_count=n)
        inner = pa.array([], node.dtype.value_type) if pa.types.is_list(node.dtype) else _no_entries(node.dtype)
        return pa.Array.from_buffers(node.dtype, n, [zeros, zeros], null_count=n, children=[inner])
    return pa.Array.from_buffers(node.dtype, n, [zeros, zeros], null_count=n)


def _no_entries(dtype: pa.DataType) -> pa.Array:
    return pa.StructArray.from_arrays(
        [pa.array([], dtype.key_type), pa.array([], dtype.item_type)], fields=[dtype.key_field, dtype.item_field]
    )
