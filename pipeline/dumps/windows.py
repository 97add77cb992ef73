"""Memory that a thread fills ahead of its reader, so that reading and inflating go on while packets are decoded."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from types import TracebackType
from typing import Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class ByteStream(Protocol):
    """What :class:`Windows` reads: forwards only."""

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill ``buffer`` from its beginning and return how many bytes; 0 at the end."""


SPARE_BYTES = 160 << 20
"""Memory kept for the next reader of this process: fresh memory costs several times what reading into it does."""
_spare: list[NDArray[np.uint8]] = []


def _allocated(size: int) -> NDArray[np.uint8]:
    """Return a buffer of ``size`` bytes, one that an earlier reader has left if there is any."""
    with suppress(IndexError):  # another thread may take the last one
        while len(buffer := _spare.pop()) != size:
            pass
        return buffer
    return np.empty(size, dtype=np.uint8)


def _keep(buffers: list[NDArray[np.uint8]]) -> None:
    """Leave buffers that no row refers to for later readers."""
    for buffer in buffers:
        if sum(map(len, _spare)) + len(buffer) <= SPARE_BYTES:
            _spare.append(buffer)


class Filler(Generic[T]):
    """Fills buffers in a thread of its own, as far ahead as there are buffers.

    Parameters
    ----------
    fill : callable
        Fills a uint8 buffer and returns what it put there, None when there is no more. Runs in the thread; what it
        raises is raised by :meth:`take`, behind what it had returned before.
    size : int
        Bytes of a buffer.
    count : int
        Buffers; each is allocated when it is first needed.
    """

    def __init__(self, fill: Callable[[NDArray[np.uint8]], T | None], size: int, count: int) -> None:
        self._fill = fill
        self._size = size
        self._free: list[NDArray[np.uint8]] = []
        self._may_fill = threading.Semaphore(count)
        self._ready: SimpleQueue[tuple[NDArray[np.uint8], T] | BaseException | None] = SimpleQueue()
        self._is_over = False
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name="fill", daemon=True)
        self._thread.start()

    def take(self) -> tuple[NDArray[np.uint8], T] | None:
        """Return the next buffer and what is in it, None when there is no more; wait for it if need be."""
        if self._is_over:
            return None
        item = self._ready.get()
        if isinstance(item, tuple):
            return item
        self._is_over = True
        if item is not None:
            raise item
        return None

    def give_back(self, buffer: NDArray[np.uint8]) -> None:
        """Let a buffer be filled anew."""
        self._free.append(buffer)
        self._may_fill.release()

    def close(self) -> None:
        """End the thread, after the buffer that it is filling; what was not taken is dropped."""
        self._is_closed = True
        self._may_fill.release()
        self._thread.join()
        _keep(self._free)

    def _run(self) -> None:
        try:
            while True:
                self._may_fill.acquire()
                if self._is_closed:
                    return
                buffer = self._free.pop() if self._free else _allocated(self._size)  # the last one back is still warm
                made = self._fill(buffer)
                if made is None:
                    break
                self._ready.put((buffer, made))
            self._ready.put(None)
        except BaseException as error:  # whatever it is, it belongs to whoever reads
            self._ready.put(error)


class Windows:
    """A stream as windows in memory that follow each other, the unread rest of one at the front of the next.

    Rows may refer to a window that has been left: its buffer is filled anew only after :meth:`recycle`.

    Parameters
    ----------
    stream : ByteStream
        Read by the thread; closed by the caller, after the windows.
    size : int
        Bytes of a window.
    held : int
        Windows left behind that may wait for :meth:`recycle`. As many are filled ahead.
    position : int
        Of the stream's next byte.
    jump : callable, optional
        Passes over bytes of the stream faster than reading does; returns how many there were.

    Attributes
    ----------
    data : numpy.ndarray
        uint8, read-only: the window.
    at : int
        Place of the next byte in ``data``, moved by the reader.
    ended : bool
        Nothing stands behind this window.
    """

    def __init__(
        self,
        stream: ByteStream,
        *,
        size: int,
        held: int,
        position: int = 0,
        jump: Callable[[int], int] | None = None,
    ) -> None:
        self._stream = stream
        self._jump = jump
        self._size = size
        self._front = size // 16  # room before a window for the rest of the last one: some packets
        self._read_to = self._target = position
        self._offset = position
        self._failure: Exception | None = None
        self._max_held = held
        self._left: list[NDArray[np.uint8]] = []
        self._buffer: NDArray[np.uint8] | None = None
        self.data = read_only(np.empty(0, dtype=np.uint8))
        self.at = 0
        self.ended = False
        self._filler = Filler(self._fill, self._front + size, 2 * held + 1)

    def __enter__(self) -> Windows:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._filler.close()

    @property
    def position(self) -> int:
        """Position of the next byte in the stream."""
        return self._offset + self.at

    @property
    def rest(self) -> int:
        """Bytes of the window that have not been read."""
        return len(self.data) - self.at

    @property
    def is_full(self) -> bool:
        """Whether no further window may be left behind before :meth:`recycle`."""
        return len(self._left) >= self._max_held

    def peek(self, n: int) -> bytes:
        """Return the next ``n`` bytes, fewer only at the end of the window."""
        return self.data[self.at : self.at + n].tobytes()

    def recycle(self) -> None:
        """Say that no row refers any more to the windows left behind."""
        for buffer in self._left:
            self._filler.give_back(buffer)
        self._left.clear()

    def advance(self, n: int) -> None:
        """Go to the next window: it begins with the rest of this one and holds ``n`` bytes, or all there are."""
        taken = self._filler.take()
        if taken is None:
            self.ended = True
            return
        data, buffer = self._behind_rest(*taken)
        if len(data) < n:  # a large packet: the window grows
            data, buffer = self._grown(data, buffer, n), None
        self._go_to(data, buffer, self.position)

    def skip(self, n: int) -> int:
        """Pass over ``n`` bytes, to a later window if need be, and return how many there were."""
        if n <= self.rest:
            self.at += n
            return n
        begin = self.position
        self._target = begin + n
        while (taken := self._filler.take()) is not None:
            buffer, (start, size) = taken
            if start + size >= self._target:
                self._go_to(buffer[self._front : self._front + size], buffer, start)
                self.at = self._target - start
                return n
            self._filler.give_back(buffer)
        self.ended = True
        self._go_to(np.empty(0, dtype=np.uint8), None, self._read_to)  # the thread has come to its end
        return self._read_to - begin

    def _behind_rest(
        self, buffer: NDArray[np.uint8], extent: tuple[int, int]
    ) -> tuple[NDArray[np.uint8], NDArray[np.uint8] | None]:
        """Put the rest of this window before a new one; return the two as one, and the buffer they are in."""
        _, size = extent
        rest = self.data[self.at :]
        first = self._front - len(rest)
        if first >= 0:
            buffer[first : self._front] = rest
            return buffer[first : self._front + size], buffer
        joined = np.concatenate([rest, buffer[self._front : self._front + size]])
        self._give_back(buffer)
        return joined, None

    def _grown(self, data: NDArray[np.uint8], buffer: NDArray[np.uint8] | None, n: int) -> NDArray[np.uint8]:
        """Return memory that holds a window and what follows, ``n`` bytes in all, or all there are."""
        grown = np.empty(n + self._size, dtype=np.uint8)
        grown[: len(data)] = data
        end = len(data)
        self._give_back(buffer)
        while end < n and (taken := self._filler.take()) is not None:
            buffer, (_, size) = taken
            grown[end : end + size] = buffer[self._front : self._front + size]
            end += size
            self._filler.give_back(buffer)  # at once: there may be fewer buffers than the packet needs
        return grown[:end]

    def _give_back(self, buffer: NDArray[np.uint8] | None) -> None:
        if buffer is not None:
            self._filler.give_back(buffer)

    def _go_to(self, data: NDArray[np.uint8], buffer: NDArray[np.uint8] | None, offset: int) -> None:
        if self._buffer is not None:
            self._left.append(self._buffer)
        self.data, self._buffer, self._offset, self.at = read_only(data), buffer, offset, 0

    # ------------------------------------------------------------------------------- the thread
    def _fill(self, buffer: NDArray[np.uint8]) -> tuple[int, int] | None:
        """Fill the buffer behind its front; return where in the stream its bytes stood, and how many they are."""
        if self._failure is not None:
            raise self._failure
        if self._jump is not None and self._target > self._read_to:
            self._read_to += self._jump(self._target - self._read_to)
        view = buffer[self._front :].data
        filled = 0
        try:
            while filled < len(view) and (n := self._stream.readinto(view[filled:])):
                filled += n
        except Exception as error:  # told behind what was read before it
            if not filled:
                raise
            self._failure = error
        start = self._read_to
        self._read_to += filled
        return (start, filled) if filled else None


class Held:
    """A stream that is in memory as a whole: one window, as :class:`Windows` has them.

    Parameters
    ----------
    data : bytes-like
        The stream.
    """

    ended = True
    is_full = False

    def __init__(self, data: bytes | memoryview) -> None:
        self.data = read_only(np.frombuffer(data, dtype=np.uint8))
        self.at = 0

    @property
    def position(self) -> int:
        """Position of the next byte."""
        return self.at

    @property
    def rest(self) -> int:
        """Bytes that have not been read."""
        return len(self.data) - self.at

    def peek(self, n: int) -> bytes:
        """Return the next ``n`` bytes, fewer only at the end."""
        return self.data[self.at : self.at + n].tobytes()

    def advance(self, n: int) -> None:
        """There is no other window."""

    def skip(self, n: int) -> int:
        """Pass over ``n`` bytes and return how many there were."""
        passed = min(n, self.rest)
        self.at += passed
        return passed

    def recycle(self) -> None:
        """Nothing is filled anew."""


def read_all(stream: ByteStream, buffer: NDArray[np.uint8]) -> int:
    """Fill a buffer as far as the stream has bytes; return how many."""
    view = buffer.data
    filled = 0
    while filled < len(view) and (n := stream.readinto(view[filled:])):
        filled += n
    return filled


def read_only(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a view that kernels cannot write to (and are compiled for once)."""
    out = data.view()
    out.flags.writeable = False
    return out
