"""Kernels that find Avro bodies among the bytes of containers: known headers, blocks, sync markers.

They tell only what is sound and plain. Where one stops, :mod:`pipeline.avro.container` says what stands there, so that
there is one account of every damage. Indices are unsigned once they have been compared with the end of the data.
"""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from pipeline.avro.container import SYNC_BYTES, HeaderTable
from pipeline.avro.primitives import JIT, OK, varint

_STEP = 64
"""Bytes compared at once: a fixed number is what the compiler turns into vector instructions."""


@njit(**JIT)
def _is_same(data, p, other, q, n):  # type: ignore[no-untyped-def]
    """Whether ``data[p : p + n]`` equals ``other[q : q + n]``; both must be within their arrays."""
    whole = n // _STEP
    for step in range(whole):
        a = data[p + step * _STEP : p + step * _STEP + _STEP]
        b = other[q + step * _STEP : q + step * _STEP + _STEP]
        differs = np.uint8(0)
        for k in range(_STEP):
            differs |= a[np.uint64(k)] ^ b[np.uint64(k)]
        if differs:
            return False
    for k in range(whole * _STEP, n):  # noqa: SIM110 (no generators in kernels)
        if data[np.uint64(p + k)] != other[np.uint64(q + k)]:
            return False
    return True


@njit(**JIT)
def _frame_singles(data, start, stop, text, bounds, is_plain, body_start, body_stop, header):  # type: ignore[no-untyped-def]
    """Fill the extents of bodies and the header of each file; return how many files were plain before the first other.

    A plain file is a known header whose codec is ``null``, one block of one datum, and nothing behind it.
    """
    known = len(bounds) - 1
    guess = 0
    for i in range(len(start)):
        first, last = start[i], stop[i]
        if first < 0 or first > last or last > len(data):
            return i
        found = -1
        for j in range(known):
            k = (guess + j) % known
            n = bounds[k + 1] - bounds[k]
            if n + SYNC_BYTES <= last - first and _is_same(data, first, text, bounds[k], n):
                found = k
                break
        if found < 0 or not is_plain[found]:
            return i
        guess = found
        sync = first + bounds[found + 1] - bounds[found]
        count, p, status = varint(data, sync + SYNC_BYTES, last)
        if status != OK or count != 1:
            return i
        size, p, status = varint(data, p, last)
        if status != OK or size < 0 or size != last - p - SYNC_BYTES:
            return i
        if not _is_same(data, p + size, data, sync, SYNC_BYTES):
            return i
        body_start[i], body_stop[i], header[i] = p, p + size, found
    return len(start)


@njit(**JIT)
def _index_blocks(data, at, stop, sync, offset, size, count):  # type: ignore[no-untyped-def]
    """Fill where the blocks that begin in ``data[at:stop]`` lie; return (blocks, where the first other begins)."""
    n = 0
    while n < len(offset) and at < stop:
        items, p, status = varint(data, at, len(data))
        if status != OK or items < 0:
            break
        length, p, status = varint(data, p, len(data))
        if status != OK or length < 0 or length > len(data) - p - SYNC_BYTES:
            break
        if not _is_same(data, p + length, data, sync, SYNC_BYTES):
            break
        offset[n], size[n], count[n] = p, length, items
        n += 1
        at = p + length + SYNC_BYTES
    return n, at


def frame_singles(
    data: NDArray[np.uint8], start: NDArray[np.int64], stop: NDArray[np.int64], known: HeaderTable
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Find the bodies of files of one datum each, up to the first file that is something else.

    Parameters
    ----------
    data : numpy.ndarray
        uint8, read-only.
    start, stop : numpy.ndarray
        int64 (n,): extent of each file.
    known : HeaderTable
        Headers to compare with.

    Returns
    -------
    start, stop, header : numpy.ndarray
        int64 (k,) for the first k <= n files: extent of each body, and place of its header in ``known``.
    """
    out = np.empty((3, len(start)), dtype=np.int64)
    k = _frame_singles(data, start, stop, known.text, known.bounds, known.is_plain, out[0], out[1], out[2])
    return out[0, :k], out[1, :k], out[2, :k]


def index_blocks(
    data: NDArray[np.uint8], start: int, stop: int, sync: int, at_most: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], int]:
    """Find the sound blocks of a container that begin in ``data[start:stop]``, up to the first that is not.

    Parameters
    ----------
    data : numpy.ndarray
        uint8, read-only: the whole container.
    start, stop : int
        Stretch to look in; a block begins at ``start``.
    sync : int
        Where the header's sync marker stands, within ``data``.
    at_most : int
        Blocks to find.

    Returns
    -------
    offset, size, count : numpy.ndarray
        int64 (k,): where the data of each block begin, their bytes as stored, and the datums declared.
    end : int
        Behind the last of them.
    """
    out = np.empty((3, at_most), dtype=np.int64)
    k, end = _index_blocks(data, start, stop, sync, out[0], out[1], out[2])
    return out[0, :k], out[1, :k], out[2, :k], int(end)
