"""Windows over a stream that a thread reads: every byte once, in order, whatever the sizes; no thread is left."""

from __future__ import annotations

import io
import random
import threading
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dumps import windows as module
from pipeline.dumps.windows import Filler, Windows, read_all, read_only
from pipeline.errors import SourceError


class Slow:
    """A stream over bytes that gives a few at a time, and an error behind them if it is told one."""

    def __init__(self, data: bytes, step: int = 1 << 30, error: Exception | None = None) -> None:
        self._data = io.BytesIO(data)
        self._step = step
        self._error = error
        self.jumped = 0

    def readinto(self, buffer: memoryview) -> int:
        n = self._data.readinto(buffer[: self._step])
        if n == 0 and self._error is not None and len(buffer):
            error, self._error = self._error, None  # once: what a stream says after an error means nothing
            raise error
        return n

    def jump(self, n: int) -> int:
        at = self._data.tell()
        self._data.seek(min(at + n, len(self._data.getbuffer())))
        self.jumped += self._data.tell() - at
        return self._data.tell() - at


def threads() -> int:
    return sum(thread.name == "fill" for thread in threading.enumerate())


# --------------------------------------------------------------------------------------- filler
def count_to(n: int):
    values = iter(range(n))

    def fill(buffer: np.ndarray) -> int | None:
        value = next(values, None)
        if value is not None:
            buffer[:] = value
        return value

    return fill


def test_buffers_come_in_order_and_end():
    filler = Filler(count_to(100), 16, 3)
    seen = []
    while (taken := filler.take()) is not None:
        buffer, value = taken
        assert (buffer == value).all()
        seen.append(value)
        filler.give_back(buffer)
    assert seen == list(range(100))
    assert filler.take() is None
    filler.close()
    assert threads() == 0


def test_a_buffer_is_not_filled_before_it_is_given_back():
    filler = Filler(count_to(100), 16, 3)
    held = [filler.take()[0] for _ in range(3)]
    time.sleep(0.05)
    assert [int(buffer[0]) for buffer in held] == [0, 1, 2]
    filler.give_back(held[1])
    assert filler.take()[0] is held[1]
    assert [int(held[0][0]), int(held[2][0])] == [0, 2]
    filler.close()
    assert threads() == 0


@pytest.mark.parametrize("taken", [0, 1, 2])
def test_closing_early_ends_the_thread(taken):
    filler = Filler(count_to(1000), 16, 2)
    for _ in range(taken):
        filler.take()
    filler.close()
    assert threads() == 0


@pytest.mark.parametrize("error", [SourceError("cut"), MemoryError("no more"), KeyboardInterrupt()])
def test_an_error_comes_behind_what_was_read(error):
    values = iter((1, 2, 3))

    def fill(buffer):
        value = next(values, None)
        if value is None:
            raise error
        return value

    filler = Filler(fill, 16, 9)
    assert [filler.take()[1] for _ in range(3)] == [1, 2, 3]
    with pytest.raises(type(error)) as caught:
        filler.take()
    assert caught.value is error and filler.take() is None
    filler.close()


def test_memory_is_used_again_but_not_without_end(monkeypatch):
    monkeypatch.setattr(module, "_spare", [])
    monkeypatch.setattr(module, "SPARE_BYTES", 5000)
    filler = Filler(count_to(50), 1000, 20)
    first = [filler.take()[0] for _ in range(9)]
    for buffer in first[1:]:
        filler.give_back(buffer)
    filler.close()
    assert len(module._spare) == 5 and not any(buffer is first[0] for buffer in module._spare)
    spare = list(module._spare)
    again = Filler(count_to(1), 1000, 1)
    taken = again.take()[0]
    assert any(taken is buffer for buffer in spare)
    again.close()
    other = Filler(count_to(1), 999, 1)
    assert len(other.take()[0]) == 999
    other.close()


def test_read_all_and_read_only():
    out = np.zeros(10, dtype=np.uint8)
    assert read_all(Slow(b"abcdefg", 2), out) == 7 and out.tobytes() == b"abcdefg\0\0\0"
    assert read_all(Slow(b"abcdefghijkl", 4), out) == 10
    view = read_only(out)
    assert not view.flags.writeable and out.flags.writeable and np.shares_memory(view, out)


# --------------------------------------------------------------------------------------- windows
@given(st.data())
def test_every_byte_is_seen_once_in_order(data):
    whole = random.Random(data.draw(st.integers(0, 99))).randbytes(data.draw(st.integers(0, 3000)))
    size = data.draw(st.integers(1, 400))
    held = data.draw(st.integers(1, 3))
    stream = Slow(whole, data.draw(st.sampled_from([1, 7, 1 << 30])))
    start = data.draw(st.sampled_from([0, 10_000]))
    jump = stream.jump if data.draw(st.booleans()) else None
    kept: list[tuple[np.ndarray, int, int]] = []  # rows of windows left behind
    at = 0
    with Windows(stream, size=size, held=held, position=start, jump=jump) as windows:
        while at < len(whole):
            assert windows.position == start + at
            n = data.draw(st.integers(1, 700))
            if data.draw(st.integers(0, 3)) == 0:
                if windows.rest < n and windows.is_full:
                    kept.clear()
                    windows.recycle()
                assert windows.skip(n) == min(n, len(whole) - at)
                at = min(at + n, len(whole))
                continue
            while windows.rest < n and not windows.ended:
                if windows.is_full:
                    kept.clear()
                    windows.recycle()
                windows.advance(n)
            assert windows.peek(n) == whole[at : at + n]
            stop = min(windows.at + n, len(windows.data))
            kept.append((windows.data[windows.at : stop], at, at + n))
            windows.at = stop
            at = min(at + n, len(whole))
            assert all(view.tobytes() == whole[a:b] for view, a, b in kept)
        windows.recycle()
        windows.advance(1)
        assert windows.rest == 0 and windows.ended and windows.skip(5) == 0
        assert windows.position == start + len(whole)
    assert threads() == 0


def test_a_stream_that_can_jump_is_not_read_where_nothing_is_wanted():
    whole = bytes(range(256)) * 400
    stream = Slow(whole, 1000)
    with Windows(stream, size=1000, held=1, jump=stream.jump) as windows:
        windows.advance(1)
        assert windows.skip(90_000) == 90_000 and windows.position == 90_000
        assert stream.jumped > 80_000
        windows.recycle()
        windows.advance(8)
        assert windows.peek(8) == whole[90_000:90_008]
        windows.recycle()
        assert windows.skip(50_000) == len(whole) - 90_000 and windows.position == len(whole)


def test_a_packet_larger_than_all_buffers_together():
    whole = random.Random(5).randbytes(100_000)
    with Windows(Slow(whole), size=100, held=1) as windows:
        windows.advance(1)
        windows.at = 50
        windows.advance(90_000)
        assert windows.peek(90_000) == whole[50:90_050]


@pytest.mark.parametrize("good", [0, 1, 99, 100, 101, 350])
def test_what_was_read_before_an_error_is_given_first(good):
    whole = bytes(range(250)) * 2
    seen = b""
    stream = Slow(whole[:good], 30, SourceError("damaged"))
    with pytest.raises(SourceError, match="damaged"), Windows(stream, size=100, held=1) as windows:
        while not windows.ended:
            windows.advance(1)
            seen += windows.peek(1000)
            windows.at = len(windows.data)
            windows.recycle()
    assert seen == whole[:good] and threads() == 0


def test_windows_cannot_be_written_to():
    with Windows(Slow(b"abc"), size=100, held=1) as windows:
        assert not windows.data.flags.writeable
        windows.advance(1)
        with pytest.raises(ValueError, match="read-only"):
            windows.data[0] = 0
