"""Large buffers used again: the pages of a new one cost more time than decoding a packet into it.

A buffer comes back when the last Arrow array that lies in it is gone, and is handed out once more. Nothing but speed
depends on it.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_STEP = 8 << 20
_MOST_KEPT = 384 << 20
_free: dict[int, NDArray[np.uint8]] = {}


class _Lease:
    """Owns a buffer while Arrow has it; gives it back when it is let go."""

    __slots__ = ("_memory",)

    def __init__(self, memory: NDArray[np.uint8]) -> None:
        self._memory = memory

    def __del__(self, free: dict[int, NDArray[np.uint8]] = _free) -> None:
        kept = sum(len(memory) for memory in free.copy().values())  # a copy: others come back meanwhile
        if kept + len(self._memory) <= _MOST_KEPT:
            free[id(self._memory)] = self._memory


def take(size: int) -> tuple[pa.Buffer, NDArray[np.uint8]]:
    """Return a buffer of at least ``size`` bytes, as Arrow's and as an array; what is in it is anything.

    Parameters
    ----------
    size : int
        Bytes.
    """
    for key, memory in sorted(_free.copy().items(), key=lambda item: len(item[1])):
        if size <= len(memory) <= 4 * size + _STEP and _free.pop(key, None) is not None:
            break
    else:
        memory = np.empty(max(-(-size // _STEP), 1) * _STEP if size > _STEP // 8 else max(size, 1), dtype=np.uint8)
    if len(memory) < _STEP:  # nothing is gained by keeping small ones
        return pa.py_buffer(memory), memory
    return pa.foreign_buffer(memory.ctypes.data, len(memory), base=_Lease(memory)), memory
