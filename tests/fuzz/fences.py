"""Memory that ends where a forbidden page begins: who reads or writes one byte too many ends the process."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.avro import arena, decoding, kernel

_LIBC = ctypes.CDLL(None, use_errno=True)
_CANARY = 0xA5


def forbidden_end(size: int) -> np.ndarray:
    """Return new memory of whole pages, at least ``size`` bytes, with a forbidden page behind it."""
    room = -(-max(size, 1) // mmap.PAGESIZE) * mmap.PAGESIZE
    whole = np.frombuffer(mmap.mmap(-1, room + mmap.PAGESIZE), dtype=np.uint8)
    guard = ctypes.c_void_p(whole.ctypes.data + room)
    assert _LIBC.mprotect(guard, ctypes.c_size_t(mmap.PAGESIZE), 0) == 0
    return whole[:room]


class Fence:
    """Keeps bodies at the end of its memory, which is used again."""

    def __init__(self) -> None:
        self._memory = forbidden_end(0)

    def put(self, data: bytes) -> np.ndarray:
        """Return ``data`` as an array whose end is the fence; valid until the next call."""
        if len(data) > len(self._memory):
            self._memory = forbidden_end(2 * len(data))
        out = self._memory[len(self._memory) - len(data) :]
        out[:] = np.frombuffer(data, dtype=np.uint8)
        return out


class Arenas:
    """Hands out what the decoder decodes into: fenced behind, marked before, full of rubbish; counts its bytes."""

    def __init__(self) -> None:
        self.peak = 0
        self._held: list[tuple[np.ndarray, int]] = []

    def take(self, size: int) -> tuple[pa.Buffer, np.ndarray]:
        memory = forbidden_end(size)
        memory[:] = _CANARY
        self._held.append((memory, len(memory) - size))
        self.peak += size
        out = memory[len(memory) - size :]
        return pa.py_buffer(out), out

    def check(self) -> None:
        """Assert that nothing was written before the beginning of any buffer."""
        for memory, begin in self._held:
            assert (memory[:begin] == _CANARY).all(), "the decoder wrote before the beginning of its memory"


@contextmanager
def fenced_arenas() -> Iterator[Arenas]:
    """Let the decoder decode into fenced memory; ``peak`` counts what is grown out of too, as if nothing were freed."""
    arenas, before = Arenas(), arena.take
    arena.take = arenas.take
    try:
        yield arenas
    finally:
        arena.take = before
    arenas.check()


class TightArena(arena.Arena):
    """Begins without room for a single item or text."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.domains[kernel.ROWS_MOST, 1:] = 1
        self.buffers[kernel.CAPACITY] = 1
        self._place()
        self._place_texts()


@contextmanager
def tight_arenas() -> Iterator[None]:
    """Let the decoder grow all that it decodes into, many times over."""
    before = decoding.Arena
    decoding.Arena = TightArena
    try:
        yield
    finally:
        decoding.Arena = before


_POOLS: list[pa.MemoryPool] = []
"""Kept, since an array that outlives its pool would be freed through a dangling pointer."""


@contextmanager
def own_pool() -> Iterator[pa.MemoryPool]:
    """Let Arrow allocate from a pool whose peak counts from here."""
    before = pa.default_memory_pool()
    _POOLS.append(pa.proxy_memory_pool(before))
    pa.set_memory_pool(_POOLS[-1])
    try:
        yield _POOLS[-1]
    finally:
        pa.set_memory_pool(before)
