"""Blocks of a deflate stream: where one may begin, and how to begin inflating there, in the middle of a byte.

A deflate stream is a run of blocks of any number of bits each, and nothing marks where one begins. A block with Huffman
tables of its own (nearly all that real compressors write) gives itself away by its tables, which must be complete; a
stored block by its length, which stands there twice. What looks like a block may still be none: the caller tries it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from isal import igzip_lib
from numba import njit

ZLIB_ERROR: type[Exception] = igzip_lib.error  # type: ignore[assignment]  # its stub says instance
WINDOW_BYTES = 32 << 10
"""How far back a deflate stream refers."""

NONE, DYNAMIC, STORED = range(3)
"""Kinds of a block that :func:`find_block` tells."""

HEADER_BYTES = 328
"""More than a dynamic block's header takes: 17 bits, 19 lengths of 3 bits and 316 of at most 7."""

_JIT: dict[str, Any] = {"cache": True, "nogil": True, "error_model": "numpy"}
_MAX_BITS = 15
_MAX_LENGTHS = 286 + 30
_END_OF_BLOCK = 256
_ORDER = np.array([16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15], np.int64)
"""In which order a block gives the lengths of its code length code."""
_LEAVES = 128
"""Of a code of at most seven bits."""


def _shares() -> np.ndarray:
    """Return what four lengths of three bits, read as one number, take of a code's leaves, int16 (4096,)."""
    share = np.array([0] + [_LEAVES >> length for length in range(1, 8)], np.int16)
    four = np.arange(4096)
    return share[four & 7] + share[four >> 3 & 7] + share[four >> 6 & 7] + share[four >> 9]


_SHARES = _shares()


# ------------------------------------------------------------------------------- where a block may begin
@njit(**_JIT)
def _bits(data, at, count):  # type: ignore[no-untyped-def]
    """Return ``count`` <= 48 bits from bit ``at``, the first one lowest; they must be there."""
    first = at >> 3
    out = np.int64(0)
    for k in range((count + 14) >> 3):
        out |= np.int64(data[first + k]) << np.int64(8 * k)
    return (out >> (at & 7)) & ((np.int64(1) << count) - 1)


@njit(**_JIT)
def _has_length_code(data, at):  # type: ignore[no-untyped-def]
    """Tell whether the code length code of a dynamic block's header at bit ``at`` is complete."""
    count = 3 * (_bits(data, at + 13, 4) + 4)
    low = _bits(data, at + 17, 36) & ((np.int64(1) << min(count, 36)) - 1)
    leaves = _SHARES[low & 4095] + _SHARES[low >> 12 & 4095] + _SHARES[low >> 24]
    if count <= 36 or leaves > _LEAVES:
        return leaves == _LEAVES
    high = _bits(data, at + 53, 21) & ((np.int64(1) << (count - 36)) - 1)
    return leaves + _SHARES[high & 4095] + _SHARES[high >> 12] == _LEAVES


@njit(**_JIT)
def _length_code(data, at, count):  # type: ignore[no-untyped-def]
    """Read the code length code at bit ``at``: by seven bits of data, the symbol and its length, int64 (128, 2)."""
    lengths = np.zeros(19, np.int64)
    for k in range(count):
        lengths[_ORDER[k]] = _bits(data, at + 3 * k, 3)
    table = np.zeros((_LEAVES, 2), np.int64)
    leaf = 0
    for length in range(1, 8):
        for symbol in range(19):
            if lengths[symbol] != length:
                continue
            for _ in range(_LEAVES >> length):
                turned = 0  # codes stand in the stream with their first bit lowest
                for bit in range(7):
                    turned |= (leaf >> bit & 1) << (6 - bit)
                table[turned, 0] = symbol
                table[turned, 1] = length
                leaf += 1
    return table


@njit(**_JIT)
def _read_lengths(data, at, table, total, lengths):  # type: ignore[no-untyped-def]
    """Read ``total`` code lengths, run-length coded, from bit ``at``; False if they are none."""
    filled = 0
    while filled < total:
        code = _bits(data, at, 14)
        symbol, length = table[code & 127]
        at += length
        code >>= length
        value, repeats = symbol, 1
        if symbol == 16:
            if filled == 0:
                return False
            value, repeats = lengths[filled - 1], 3 + (code & 3)
            at += 2
        elif symbol == 17:
            value, repeats = 0, 3 + (code & 7)
            at += 3
        elif symbol == 18:
            value, repeats = 0, 11 + (code & 127)
            at += 7
        if filled + repeats > total:
            return False
        for _ in range(repeats):
            lengths[filled] = value
            filled += 1
    return True


@njit(**_JIT)
def _is_code(lengths, first, stop, is_distance):  # type: ignore[no-untyped-def]
    """Tell whether lengths first <= k < stop make a complete code; of distances, one of one bit or none will do."""
    used = 0
    leaves = 0
    for k in range(first, stop):
        if lengths[k] > 0:
            used += 1
            leaves += 1 << (_MAX_BITS - lengths[k])
    if leaves == 1 << _MAX_BITS:
        return True
    return is_distance and used * (1 << (_MAX_BITS - 1)) == leaves and used <= 1


@njit(**_JIT)
def _is_dynamic(data, at):  # type: ignore[no-untyped-def]
    """Tell whether complete codes follow the length code of a dynamic block's header at bit ``at``, complete itself."""
    n_literals = 257 + _bits(data, at + 3, 5)
    total = n_literals + 1 + _bits(data, at + 8, 5)
    if n_literals > 286 or total - n_literals > 30:
        return False
    count = 4 + _bits(data, at + 13, 4)
    lengths = np.zeros(_MAX_LENGTHS, np.int64)
    table = _length_code(data, at + 17, count)
    if not _read_lengths(data, at + 17 + 3 * count, table, total, lengths):
        return False
    has_end = lengths[_END_OF_BLOCK] > 0
    return has_end and _is_code(lengths, 0, n_literals, False) and _is_code(lengths, n_literals, total, True)


@njit(**_JIT)
def _is_stored(data, byte):  # type: ignore[no-untyped-def]
    """Tell whether the length of a stored block stands at ``byte``, its complement next, zero bits before it."""
    is_twice = (data[byte] ^ data[byte + 2]) == 255 and (data[byte + 1] ^ data[byte + 3]) == 255
    return is_twice and data[byte - 1] < 32  # three bits of header, and those that fill up its last byte


@njit(**_JIT)
def find_block(data, first, stop):  # type: ignore[no-untyped-def]
    """Find where a deflate block may begin.

    Parameters
    ----------
    data : array of uint8
        Compressed bytes, at least ``HEADER_BYTES`` more than are looked through.
    first, stop : int
        Bits: a block is looked for that begins at first <= bit < stop.

    Returns
    -------
    bit, kind : int
        ``DYNAMIC``: the block begins at that bit, is not the last of its stream, and has codes of its own.
        ``STORED``: its two bytes of length begin at that bit, a byte's first, behind the three bits of its header.
        ``NONE``: none begins there; ``bit`` is ``stop``.
    """
    stop = max(0, min(stop, 8 * (len(data) - HEADER_BYTES)))
    bit = first
    while bit < stop:
        byte = bit >> 3
        if bit & 7 == 0 and byte > 0 and _is_stored(data, byte):
            return bit, STORED
        head = _bits(data, 8 * byte, 16) >> (bit & 7)
        while bit < stop and bit >> 3 == byte:
            if head & 7 == 4 and _has_length_code(data, bit) and _is_dynamic(data, bit):
                return bit, DYNAMIC
            head >>= 1
            bit += 1
    return stop, NONE


# ------------------------------------------------------------------------------- how to begin there
_EMPTY_FIXED = [0, 1, 0, *[0] * 7]
"""Bits of an empty block with the fixed code: ten."""


def _number(value: int, count: int) -> list[int]:
    return [value >> bit & 1 for bit in range(count)]


def _empty_dynamic() -> list[int]:
    """Return the bits of an empty block with codes of its own: 99, an odd number.

    Literals 254 and 255 and the end of block have codes of 2, 1 and 2 bits, both distances of 1 bit; of the lengths'
    code the symbols 18 (a run of zeros), 1 and 2 are used, with 1, 2 and 2 bits.
    """
    sizes = {18: 1, 1: 2, 2: 2}
    one, two, zeros = [1, 0], [1, 1], [0]
    out = [0, 0, 1, *_number(0, 5), *_number(1, 5), *_number(14, 4)]
    for symbol in _ORDER[:18].tolist():
        out += _number(sizes.get(symbol, 0), 3)
    out += [*zeros, *_number(138 - 11, 7), *zeros, *_number(116 - 11, 7)]
    return [*out, *two, *one, *two, *one, *one, 1, 1]  # lengths of 254, 255, the end and the distances; the end


def _padding(bit: int) -> list[int]:
    """Return whole empty blocks of 8 n + ``bit`` bits."""
    out = _empty_dynamic() if bit % 2 else []
    while len(out) % 8 != bit:
        out = out + _EMPTY_FIXED
    return out


_PADDING = [_padding(bit) for bit in range(8)]


def opening(window: bytes, kind: int, bit: int = 0, byte: int = 0) -> bytes:
    """Return what to feed an inflater of raw deflate before the bytes of the stream, so that it begins at a block.

    It puts out ``window`` first, as a stored block, which sets what the stream refers back to. Empty blocks follow, of
    as many bits as stand in the stream's first byte before the block.

    Parameters
    ----------
    window : bytes
        What the stream inflated to before the block: the last ``WINDOW_BYTES`` of it, or all.
    kind : int
        ``DYNAMIC`` or ``STORED``.
    bit : int
        Bit of ``byte`` at which a dynamic block begins, 0 to 7.
    byte : int
        That byte, of which the stream's next is the one to feed next. Of no meaning where ``bit`` is 0 and for stored
        blocks: there the byte with the block's first bit, or the length, is to be fed next.

    Returns
    -------
    bytes
        Whole bytes.
    """
    size = len(window)
    head = b"\0" + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + window if size else b""
    if kind == STORED:
        return head + b"\0"
    bits = [*_PADDING[bit], *_number(byte >> bit, 8 - bit)] if bit else []
    return head + np.packbits(np.array(bits, np.uint8), bitorder="little").tobytes()
