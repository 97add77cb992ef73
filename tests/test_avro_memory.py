"""Buffers that are used again: never while anything lies in them."""

from __future__ import annotations

import gc
import threading

import numpy as np
import pyarrow as pa
import pytest

from pipeline.avro import memory

BIG = 20 << 20


@pytest.fixture(autouse=True)
def nothing_kept():
    gc.collect()
    memory._free.clear()


def array_in(size: int, value: int) -> tuple[pa.Array, np.ndarray]:
    buffer, data = memory.take(size)
    data[:size] = value
    return pa.Array.from_buffers(pa.uint8(), size - 100, [None, buffer.slice(100, size - 100)]), data


def test_a_buffer_comes_back_when_its_last_array_is_gone():
    array, data = array_in(BIG, 7)
    address = data.ctypes.data
    part = array.slice(5, 10)
    view = array.to_numpy()[3:9]
    del array, data
    other, second = array_in(BIG, 9)
    assert second.ctypes.data != address and set(part.to_pylist()) == {7} and set(view.tolist()) == {7}
    del part
    assert address not in kept()
    del view
    gc.collect()
    assert address in kept() and array_in(BIG, 2)[1].ctypes.data == address
    assert set(other.slice(0, 10).to_pylist()) == {9}


def kept() -> set[int]:
    return {data.ctypes.data for data in memory._free.values()}


def test_small_buffers_and_too_many_are_not_kept(monkeypatch):
    monkeypatch.setattr(memory, "_MOST_KEPT", 2 * BIG + (10 << 20))
    arrays = [array_in(size, 1) for size in (1000, BIG, BIG, BIG, BIG)]
    del arrays
    gc.collect()
    assert len(memory._free) == 2
    assert memory.take(0)[0].size >= 0


def test_a_buffer_much_too_large_is_left_for_others():
    array_in(BIG * 8, 1)
    assert len(memory.take(1 << 20)[1]) < BIG
    assert len(memory.take(BIG * 4)[1]) >= BIG * 8


def test_threads_never_share_a_buffer():
    wrong = []

    def work(value: int) -> None:
        for _ in range(60):
            array, _ = array_in(BIG // 2, value)
            if array.to_numpy().min() != value or array.to_numpy().max() != value:
                wrong.append(value)

    threads = [threading.Thread(target=work, args=(value,)) for value in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
