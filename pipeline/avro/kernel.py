"""The kernel that decodes: one flat program per schema, run over many bodies, straight into Arrow's buffers.

Every read is compared with the end of the body. Every write goes to a place that was reserved: a row below the capacity
of its list, or bytes below the capacity of its text buffer; where there is no room the kernel gives the body back and
asks for more. A body that is at fault is given back too, and leaves no trace.
"""

from __future__ import annotations

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
    NEED_BYTES,
    NEED_ROWS,
    OK,
    RANGE,
    SHORT,
    SYMBOL,
    TEXT,
    half_word,
    is_utf8,
    item_count,
    varint,
    word,
)

INLINE = {"inline": "always", **JIT}
"""For what the loop calls: the call itself would cost as much as a field."""

STRAY = -1
"""Status of a body whose last field ends before the body does."""

(
    END,
    BOOL,
    INT,
    INT_AS_LONG,
    INT_AS_DOUBLE,
    LONG,
    FLOAT,
    FLOAT_AS_DOUBLE,
    DOUBLE,
    NULL,
    BYTES,
    STRING,
    FIXED,
    ENUM,
    RECORD,
    LOOP,
    NEXT,
) = range(17)
KINDS, UNION, SKIP = 31, 32, 64
"""An operation is a kind, plus UNION where a branch index precedes the value, plus SKIP where it is not kept."""

OPERATION, FIRST, RUN, DOMAIN, AFTER, LOOP_AT, CHILD, LEAST = range(8)
"""Columns of a program: fields FIRST to FIRST + RUN share an operation; rows of DOMAIN; the line AFTER a record or
loop; place of the loop's counters; the domain of a loop's items, -1 if they are not kept; the fewest bytes of an item.
"""

VALUE, VALID, NULL_BYTE, OTHER_BYTE, TEXT_AT, EXTRA = range(6)
"""Rows of a field table: where values begin (in units of their width), where validity bits begin (in bytes, -1
without), branch bytes of null and of the value (-1 where the union has none), text buffer, and the size of a fixed, or
where the symbols of an enum begin."""

BASE, LENGTH_NOW, LENGTH_BEFORE, CAPACITY = range(4)
"""Rows of a text table: where the buffer begins in the heap, its length, that before the present body, its capacity."""

ROWS_NOW, ROWS_BEFORE, ROWS_MOST = range(3)
"""Rows of a domain table: rows so far, those before the present body, capacity."""


@njit(**INLINE)
def branch(view, p, stop, null_byte, other_byte):  # type: ignore[no-untyped-def]
    """Return (whether a value follows, next position, status) of a union of null and one type, or of one type."""
    if p >= stop:
        return False, p, SHORT
    byte = np.int64(view[np.uint64(p)])
    if byte == other_byte:
        return True, p + 1, OK
    if byte == null_byte:
        return False, p + 1, OK
    index, p, status = varint(view, p, stop)  # the same index, written with more bytes than it needs
    if status == OK:
        if index == other_byte >> 1 and other_byte >= 0:
            return True, p, OK
        if index != null_byte >> 1 or null_byte < 0:
            status = BRANCH
    return False, p, status


@njit(**INLINE)
def mark(a8, valid, row):  # type: ignore[no-untyped-def]
    """Set one validity bit, if there are any."""
    if valid >= 0:
        at = np.uint64(valid + (row >> 3))
        a8[at] |= np.uint8(1) << np.uint8(row & 7)


@njit(**INLINE)
def whole_number(view, p, stop):  # type: ignore[no-untyped-def]
    """Return (value, next position, status) of an int or long; most take one byte or two."""
    if stop - p < 2:
        return varint(view, p, stop)
    low = np.int64(view[np.uint64(p)])
    if low < 128:
        return (low >> 1) ^ -(low & 1), p + 1, OK
    high = np.int64(view[np.uint64(p + 1)])
    if high < 128:
        raw = (low & 127) | (high << 7)
        return (raw >> 1) ^ -(raw & 1), p + 2, OK
    return varint(view, p, stop)


@njit(**INLINE)
def numbers(view, p, stop, op, first, last, row, fields, a8, a32, a64, f32, f64):  # type: ignore[no-untyped-def]
    """Decode a run of numbers, booleans or nulls; return (next position, status, field)."""
    kind, is_union, kept = op & KINDS, op & UNION != 0, op & SKIP == 0
    for f in range(first, last):
        at = np.uint64(f)
        if is_union:
            has, p, status = branch(view, p, stop, fields[NULL_BYTE, at], fields[OTHER_BYTE, at])
            if status != OK:
                return p, status, f
            if not has:
                continue
        to = np.uint64(fields[VALUE, at] + row)
        if kind in (FLOAT, FLOAT_AS_DOUBLE):
            if stop - p < 4:
                return p, SHORT, f
            if kept and kind == FLOAT:
                a32[to] = half_word(view, p)
            elif kept:
                a32[to + to] = half_word(view, p)  # as float32 into the place of the double, and widened there
                f64[to] = f32[to + to]
            p += 4
        elif kind == DOUBLE:
            if stop - p < 8:
                return p, SHORT, f
            if kept:
                a64[to] = word(view, p)
            p += 8
        elif kind == BOOL:
            if p >= stop:
                return p, SHORT, f
            byte = view[np.uint64(p)]
            if byte > 1:
                return p, BOOLEAN, f
            if kept and byte == 1:
                mark(a8, fields[VALUE, at], row)
            p += 1
        elif kind != NULL:
            value, p, status = whole_number(view, p, stop)
            if status == OK and kind != LONG and (value < INT_MIN or value > INT_MAX):
                status = RANGE
            if status != OK:
                return p, status, f
            if kept and kind == INT:
                a32[to] = np.uint32(value & 0xFFFFFFFF)
            elif kept and kind == INT_AS_DOUBLE:
                f64[to] = np.float64(value)
            elif kept:
                a64[to] = np.uint64(value)
        if kept:
            mark(a8, fields[VALID, at], row)
    return p, OK, first


@njit(**INLINE)
def texts(view, p, stop, op, first, last, row, fields, heap, buffers, symbols, symbol_at, a8, a32):  # type: ignore[no-untyped-def]
    """Decode a run of strings, bytes, fixed or enums; return (next position, status, field)."""
    kind, is_union, kept = op & KINDS, op & UNION != 0, op & SKIP == 0
    for f in range(first, last):
        at = np.uint64(f)
        t = np.uint64(fields[TEXT_AT, at])
        has = True
        if is_union:
            has, p, status = branch(view, p, stop, fields[NULL_BYTE, at], fields[OTHER_BYTE, at])
            if status != OK:
                return p, status, f
        size = np.int64(0)
        if has and kind == FIXED:
            size = fields[EXTRA, at]
            if size > stop - p:
                return p, SHORT, f
        elif has:
            size, p, status = whole_number(view, p, stop)
            if status != OK:
                return p, status, f
            if kind == ENUM:
                base = fields[EXTRA, at]
                if size < 0 or size >= symbol_at[np.uint64(base)]:
                    return p, SYMBOL, f
                begin = symbol_at[np.uint64(base + 1 + size)]
                size = symbol_at[np.uint64(base + 2 + size)] - begin
            elif size < 0 or size > stop - p:
                return p, LENGTH, f
            elif kind == STRING and not is_utf8(view, p, p + size):
                return p, TEXT, f
        if kept:
            length = buffers[LENGTH_NOW, t]
            if size > buffers[CAPACITY, t] - length:
                return length + size, NEED_BYTES, f
            to = buffers[BASE, t] + length
            if has and kind == ENUM:
                for k in range(size):
                    heap[np.uint64(to + k)] = symbols[np.uint64(begin + k)]
            else:
                for k in range(size):
                    heap[np.uint64(to + k)] = view[np.uint64(p + k)]
            length += size
            buffers[LENGTH_NOW, t] = length
            a32[np.uint64(fields[VALUE, at] + row + 1)] = np.uint32(length)
            if has:
                mark(a8, fields[VALID, at], row)
        if kind != ENUM:
            p += size
    return p, OK, first


@njit(**JIT)
def run(  # type: ignore[no-untyped-def]
    view, starts, stops, i, code, fields, symbols, symbol_at, domains, counters, heap, buffers, a8, a32, a64, f32, f64
):
    """Decode bodies ``i``, ``i + 1`` ... into the buffers; stop at the first that cannot be.

    Parameters
    ----------
    view : numpy.ndarray
        uint8: the data.
    starts, stops : numpy.ndarray
        int64 (n,): extents of the bodies, which the caller has compared with the data.
    i : int
        First body.
    code, fields, symbols, symbol_at
        The program (see the constants of this module).
    domains, counters : numpy.ndarray
        int64: rows of each domain; items left, declared end and items so far of each loop.
    heap, buffers : numpy.ndarray
        uint8, int64: texts.
    a8, a32, a64, f32, f64 : numpy.ndarray
        The arena that holds all other buffers, as uint8, uint32, uint64, float32, float64.

    Returns
    -------
    (int, int, int, int)
        Bodies decoded, status, position (or room needed), field.
    """
    while i < len(starts):
        for d in range(domains.shape[1]):
            domains[ROWS_BEFORE, d] = domains[ROWS_NOW, d]
        for t in range(buffers.shape[1]):
            buffers[LENGTH_BEFORE, t] = buffers[LENGTH_NOW, t]
        for c in range(counters.shape[1]):
            counters[2, c] = 0
        p, stop = starts[i], stops[i]
        at = np.int64(0)
        while True:
            line = np.uint64(at)
            op, f, domain = code[line, OPERATION], code[line, FIRST], code[line, DOMAIN]
            kind, kept = op & KINDS, op & SKIP == 0
            row = domains[ROWS_NOW, np.uint64(domain)]
            at += 1
            status = OK
            if kind < BYTES and kind != END:
                p, status, f = numbers(view, p, stop, op, f, f + code[line, RUN], row, fields, a8, a32, a64, f32, f64)
            elif kind < RECORD and kind != END:
                p, status, f = texts(
                    view, p, stop, op, f, f + code[line, RUN], row, fields, heap, buffers, symbols, symbol_at, a8, a32
                )
            elif kind == END:
                break
            else:
                loop, child = np.uint64(code[line, LOOP_AT]), np.uint64(max(code[line, CHILD], 0))
                has, more = True, False
                if op & UNION != 0:
                    has, p, status = branch(
                        view, p, stop, fields[NULL_BYTE, np.uint64(f)], fields[OTHER_BYTE, np.uint64(f)]
                    )
                if status == OK and kind == NEXT:
                    if kept:
                        domains[ROWS_NOW, child] += 1
                    counters[0, loop] -= 1
                    more = counters[0, loop] > 0
                    if not more and counters[1, loop] >= 0 and counters[1, loop] != p:
                        status = BLOCK
                if status == OK and kind != RECORD and has and not more:
                    items, declared, p, status = item_count(view, p, stop, code[line, LEAST])
                    counters[0, loop], counters[1, loop] = items, declared
                    if status == OK:
                        counters[2, loop] += items
                        status = MANY if counters[2, loop] > MAX_ITEMS else OK
                    more = items > 0
                    if status == OK and kept and items > domains[ROWS_MOST, child] - domains[ROWS_NOW, child]:
                        return i, NEED_ROWS, domains[ROWS_NOW, child] + items, np.int64(child)
                if status == OK:
                    if kept and has and kind != NEXT:
                        mark(a8, fields[VALID, np.uint64(f)], row)
                    if kept and kind != RECORD and not more:
                        a32[np.uint64(fields[VALUE, np.uint64(f)] + row + 1)] = np.uint32(domains[ROWS_NOW, child])
                    if kind == RECORD:
                        at = at if has else code[line, AFTER]
                    elif kind == LOOP:
                        at = at if more else code[line, AFTER]
                    elif more:
                        at = code[line, AFTER]
            if status != OK:
                return i, status, p, f
        if p != stop:
            return i, STRAY, p, 0
        domains[ROWS_NOW, 0] += 1
        i += 1
    return i, OK, 0, 0


@njit(**JIT)
def undo(domains, buffers, slots, a8):  # type: ignore[no-untyped-def]
    """Forget what a body that is at fault has left behind: rows, texts, and every bit and byte of both.

    ``slots`` is int64 (k, 4): domain, bytes of a value (0 for bits, -4 for offsets), first byte of the values (-1
    without), first byte of the validity bits (-1 without).
    """
    for s in range(len(slots)):
        domain, width, value, valid = slots[s, 0], slots[s, 1], slots[s, 2], slots[s, 3]
        first = domains[ROWS_BEFORE, domain]
        last = min(domains[ROWS_NOW, domain] + 1, domains[ROWS_MOST, domain])
        for row in range(first, last):
            keep = ~(np.uint8(1) << np.uint8(row & 7))
            if valid >= 0:
                a8[valid + (row >> 3)] &= keep
            if value >= 0 and width == 0:
                a8[value + (row >> 3)] &= keep
        begin = first + 1 if width < 0 else first
        if value >= 0 and width != 0:
            for at in range(value + begin * abs(width), value + (begin + last - first) * abs(width)):
                a8[at] = 0
    for d in range(domains.shape[1]):
        domains[ROWS_NOW, d] = domains[ROWS_BEFORE, d]
    for t in range(buffers.shape[1]):
        buffers[LENGTH_NOW, t] = buffers[LENGTH_BEFORE, t]
