"""The ordinary members of an archive, found by a kernel: where they begin, how large they are, what they are called.

Ordinary are regular files with an ASCII name, a plainly octal size and a right checksum, whole within the data. At
anything else the kernel stops, and :class:`pipeline.dumps.tar.Walk` says what it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numba import njit
from numpy.typing import NDArray

from pipeline.avro.container import MAGIC
from pipeline.avro.primitives import JIT
from pipeline.dumps.tar import BLOCK

CAPACITY = 4096
"""Members found by one call, at most."""

_STOP, _MORE, _OTHER = range(3)
_NAME, _PREFIX, _PREFIX_BYTES = 100, 345, 155
_SPACE, _SLASH, _DOT, _UNDERSCORE, _ZERO, _SEVEN, _ASCII, _CASE = 32, 47, 46, 95, 48, 55, 128, 32
_MAGIC = np.frombuffer(MAGIC, dtype=np.uint8)
_USTAR = np.frombuffer(b"ustar\0", dtype=np.uint8)
_SUFFIX = np.frombuffer(b".avro", dtype=np.uint8)


@njit(**JIT)
def _octal(data, p, stop):  # type: ignore[no-untyped-def]
    """Return the number in ``data[p:stop]``: octal digits with spaces or zeros around; -1 for anything else."""
    while p < stop and (data[np.uint64(p)] == _SPACE or data[np.uint64(p)] == 0):
        p += 1
    if p == stop:
        return np.int64(-1)
    value = np.int64(0)
    while p < stop and data[np.uint64(p)] >= _ZERO and data[np.uint64(p)] <= _SEVEN:
        value = value * 8 + np.int64(data[np.uint64(p)]) - _ZERO
        p += 1
    while p < stop and (data[np.uint64(p)] == _SPACE or data[np.uint64(p)] == 0):
        p += 1
    return value if p == stop else np.int64(-1)


@njit(**JIT)
def _starts_with(data, p, text):  # type: ignore[no-untyped-def]
    """Whether ``text`` stands at ``p``; it must be within the data."""
    for k in range(len(text)):  # noqa: SIM110 (no generators in kernels)
        if data[np.uint64(p + k)] != text[k]:
            return False
    return True


@njit(**JIT)
def _text_length(data, p, limit):  # type: ignore[no-untyped-def]
    """Return the length of a text that ends with a zero or after ``limit`` bytes; -1 if it is not ASCII."""
    for k in range(limit):
        byte = data[np.uint64(p + k)]
        if byte == 0:
            return k
        if byte >= _ASCII:
            return -1
    return limit


@njit(**JIT)
def _is_called_packet(data, p, n):  # type: ignore[no-untyped-def]
    """Whether the last part of the path of ``n`` bytes at ``p`` ends with .avro and does not begin with ``._``."""
    base = p
    for k in range(n):
        if data[np.uint64(p + k)] == _SLASH:
            base = p + k + 1
    end = p + n
    if end - base < len(_SUFFIX) or (data[np.uint64(base)] == _DOT and data[np.uint64(base + 1)] == _UNDERSCORE):
        return False
    for k in range(len(_SUFFIX)):
        byte = data[np.uint64(end - len(_SUFFIX) + k)]
        if byte != _SUFFIX[k] and (k == 0 or byte | _CASE != _SUFFIX[k]):
            return False
    return True


@njit(**JIT)
def _checksum_fits(data, at):  # type: ignore[no-untyped-def]
    total = np.int64(0)
    block = data[at : at + BLOCK]
    for k in range(BLOCK):
        total += block[np.uint64(k)]
    for k in range(148, 156):
        total += _SPACE - np.int64(block[np.uint64(k)])
    return _octal(data, at + 148, at + 156) == total


@njit(**JIT)
def _index(data, at, stop, largest, header, size, name, prefix, is_packet):  # type: ignore[no-untyped-def]
    """Fill one place of each array per ordinary member; return (members, next header, status, bytes it needs)."""
    n = 0
    while n < len(header):
        if at >= stop:
            return n, at, _STOP, 0
        if at + BLOCK > len(data):
            return n, at, _MORE, BLOCK
        kind = data[np.uint64(at + 156)]
        if (kind != 0 and kind != _ZERO and kind != _SEVEN) or not _checksum_fits(data, at):
            return n, at, _OTHER, 0
        length = _octal(data, at + 124, at + 136)
        named = _text_length(data, at, _NAME)
        before = 0
        if _starts_with(data, at + 257, _USTAR):
            before = _text_length(data, at + _PREFIX, _PREFIX_BYTES)
        if length < 0 or length > largest or named <= 0 or before < 0 or data[np.uint64(at + named - 1)] == _SLASH:
            return n, at, _OTHER, 0
        whole = BLOCK + (length + BLOCK - 1) // BLOCK * BLOCK
        if whole > len(data) - at:
            return n, at, _MORE, whole
        has_magic = length >= len(_MAGIC) and _starts_with(data, at + BLOCK, _MAGIC)
        header[n], size[n], name[n], prefix[n] = at, length, named, before
        is_packet[n] = has_magic or _is_called_packet(data, at, named)
        n += 1
        at += whole
    return n, at, _STOP, 0


@njit(**JIT)
def _copy_names(data, header, name, prefix, bounds, out):  # type: ignore[no-untyped-def]
    """Write the names, prefix and slash before them, one behind the other, and where each begins."""
    p = 0
    for i in range(len(header)):
        bounds[i] = p
        for k in range(prefix[i]):
            out[np.uint64(p + k)] = data[np.uint64(header[i] + _PREFIX + k)]
        p += prefix[i]
        if prefix[i] > 0:
            out[np.uint64(p)] = _SLASH
            p += 1
        for k in range(name[i]):
            out[np.uint64(p + k)] = data[np.uint64(header[i] + k)]
        p += name[i]
    bounds[len(header)] = p


@dataclass(frozen=True, slots=True)
class Found:
    """Ordinary members behind each other.

    Attributes
    ----------
    count : int
        How many, those included that are no packets.
    start, size : numpy.ndarray
        int64 (n,): where the data of each packet begin, and how many bytes they are.
    names : pyarrow.Array
        string (n,): their names.
    skipped : list of str
        Names of the members that are no packets.
    end : int
        Behind the last member.
    need : int
        Bytes from ``end`` that the next member takes if the data end within it, else 0.
    """

    count: int
    start: NDArray[np.int64]
    size: NDArray[np.int64]
    names: pa.Array
    skipped: list[str]
    end: int
    need: int


class MemberIndex:
    """Finds ordinary members; its working arrays are kept from call to call.

    Parameters
    ----------
    largest : int
        Bytes of the largest member that is ordinary.
    """

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._header, self._size, self._name, self._prefix = np.empty((4, CAPACITY), dtype=np.int64)
        self._is_packet = np.empty(CAPACITY, dtype=np.bool_)

    def find(self, data: NDArray[np.uint8], at: int, stop: int) -> Found:
        """Return the ordinary members whose headers stand in ``data[at:stop]``, up to the first other thing.

        Parameters
        ----------
        data : numpy.ndarray
            uint8, read-only; a header stands at ``at``.
        at, stop : int
            Where to look; ``stop`` may lie beyond the data.
        """
        n, end, status, need = _index(
            data, at, stop, self._largest, self._header, self._size, self._name, self._prefix, self._is_packet
        )
        chosen = self._is_packet[:n]
        skipped: list[str] = []
        header, size = self._header[:n], self._size[:n]
        names = self._names(data, n)
        if not chosen.all():
            skipped = names.filter(pa.array(~chosen)).to_pylist()
            header, size, names = header[chosen], size[chosen], names.filter(pa.array(chosen))
        return Found(n, header + BLOCK, size.copy(), names, skipped, int(end), int(need) if status == _MORE else 0)

    def _names(self, data: NDArray[np.uint8], n: int) -> pa.Array:
        header, name, prefix = self._header[:n], self._name[:n], self._prefix[:n]
        bounds = np.empty(n + 1, dtype=np.int32)
        out = np.empty(int(name.sum() + prefix.sum() + np.count_nonzero(prefix)), dtype=np.uint8)
        _copy_names(data, header, name, prefix, bounds, out)
        buffers = [None, pa.py_buffer(bounds), pa.py_buffer(out)]
        return pa.Array.from_buffers(pa.string(), n, buffers)
