"""Reading Avro's primitives from a uint8 array: nothing is read that has not been compared with the end of the data."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy", "_nrt": False}
"""Without reference counting of arrays, which these kernels neither make nor keep: it would be most of their time."""

(OK, SHORT, BRANCH, LENGTH, TEXT, VARINT, BOOLEAN, COUNT, SYMBOL, RANGE, BLOCK, MANY, NEED_ROWS, NEED_BYTES) = range(14)
REASONS = {
    SHORT: "the body ends within it",
    BRANCH: "union branch out of range",
    LENGTH: "length is negative or beyond the body",
    TEXT: "text is not UTF-8",
    VARINT: "integer of more than 64 bits",
    BOOLEAN: "boolean is neither 0 nor 1",
    COUNT: "item count is negative or beyond the body",
    SYMBOL: "enum symbol out of range",
    RANGE: "int of more than 32 bits",
    BLOCK: "block size of an array does not fit its items",
    MANY: "more items than a packet may have",
}
"""What a datum can have wrong, by status; the last two statuses ask for memory and are nobody's fault."""

MAX_ITEMS = 1 << 18
"""Most items of one array or map in one packet: ten years of Rubin are some ten thousand points. An item may take a
byte and become hundreds."""

INT_MIN, INT_MAX = -(2**31), 2**31 - 1


@njit(**JIT)
def varint(view, p, stop):  # type: ignore[no-untyped-def]
    """Return (value, next position, status) of a zigzag integer."""
    raw = np.uint64(0)
    shift = np.uint64(0)
    while True:  # ten bytes at most: the tenth is refused or the last
        if p >= stop:
            return np.int64(0), p, SHORT
        byte = np.uint64(view[np.uint64(p)])
        p += 1
        if shift == np.uint64(63) and byte > np.uint64(1):
            return np.int64(0), p, VARINT
        raw |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            half = np.int64(raw >> np.uint64(1))
            return (-half - np.int64(1) if raw & np.uint64(1) else half), p, OK
        shift += np.uint64(7)


@njit(**JIT)
def item_count(view, p, stop, least):  # type: ignore[no-untyped-def]
    """Return (items, end the block declares or -1, next position, status) of one array block.

    ``least`` is the fewest bytes that an item takes: no count is believed that the rest of the body cannot hold.
    """
    declared = np.int64(-1)
    items, p, status = varint(view, p, stop)
    if status == OK and items < 0:
        size, p, status = varint(view, p, stop)
        if status == OK and (size < 0 or size > stop - p):
            return items, declared, p, COUNT
        declared = p + size
        items = -items
    if status == OK and (items < 0 or items > (stop - p) // least):
        return items, declared, p, COUNT
    return items, declared, p, status


@njit(**JIT)
def is_utf8(view, p, stop):  # type: ignore[no-untyped-def]
    """Whether the bytes are UTF-8 as RFC 3629 has it: shortest forms, no surrogates, at most U+10FFFF."""
    while stop - p >= 8 and word(view, p) & np.uint64(0x8080808080808080) == np.uint64(0):
        p += 8
    while p < stop:
        lead = view[np.uint64(p)]
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
            byte = view[np.uint64(p + k)]
            if byte < low or byte > high:
                return False
            low, high = np.uint8(0x80), np.uint8(0xBF)
        p += more + 1
    return True


@njit(**JIT)
def half_word(view, p):  # type: ignore[no-untyped-def]
    """Return 4 bytes as uint32, little endian; the caller has seen that they are there. One load once compiled."""
    out = np.uint32(0)
    for k in range(4):
        out |= np.uint32(view[np.uint64(p + k)]) << np.uint32(8 * k)
    return out


@njit(**JIT)
def word(view, p):  # type: ignore[no-untyped-def]
    """Return 8 bytes as uint64, little endian; the caller has seen that they are there. One load once compiled."""
    out = np.uint64(0)
    for k in range(8):
        out |= np.uint64(view[np.uint64(p + k)]) << np.uint64(8 * k)
    return out
