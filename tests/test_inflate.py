"""Inflated: what it puts into a caller's buffer is what Python's own gzip reads."""

from __future__ import annotations

import gzip
import hashlib
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib
from zlib_ng import zlib_ng

from pipeline.dumps import inflate
from pipeline.dumps.inflate import Inflated
from pipeline.errors import SourceError

PACKERS = {
    "zlib": lambda data, level: gzip.compress(data, level),
    "isal": lambda data, level: isal_zlib.compress(data, level % 4, 31),
    "zlib-ng": lambda data, level: zlib_ng.compress(data, level, 31),
}


def texture(size: int, seed: int = 0) -> bytes:
    """Bytes that compress about as well as packets do: noise, repeats of what came before, and zeros."""
    rng = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        kind = rng.random()
        if kind < 0.5 or not out:
            out += rng.randbytes(rng.randrange(1, 3000))
        elif kind < 0.8:
            start = max(0, len(out) - rng.randrange(1, 40_000))
            out += out[start : start + rng.randrange(1, 2000)]
        else:
            out += bytes([rng.randrange(4)]) * rng.randrange(1, 2000)
    return bytes(out[:size])


def fill(stream: Inflated, sizes) -> bytes:
    """Read to the end by ``readinto``, the buffers as large as ``sizes`` tells."""
    out = bytearray()
    with stream:
        while True:
            assert stream.position == len(out)
            buffer = memoryview(bytearray(b"\xaa" * sizes()))
            n = stream.readinto(buffer)
            assert bytes(buffer[n:]) == b"\xaa" * (len(buffer) - n)
            out += buffer[:n]
            if n < len(buffer):
                assert stream.readinto(buffer) == 0
                return bytes(out)


@pytest.mark.parametrize("packer", PACKERS)
@settings(max_examples=20, deadline=None)
@given(st.data())
def test_buffers_are_filled_with_the_stream(packer, tmp_path_factory, data):
    rng = random.Random(data.draw(st.integers(0, 99)))
    parts = [texture(rng.randrange(0, 400_000), i) for i in range(data.draw(st.integers(1, 3)))]
    packed = b"".join(PACKERS[packer](part, data.draw(st.integers(0, 9))) for part in parts)
    packed += bytes(data.draw(st.sampled_from([0, 1, 5000])))
    file = tmp_path_factory.mktemp("gz") / "x.gz"
    file.write_bytes(packed)
    largest = data.draw(st.sampled_from([600, 70_000, 5 << 20]))
    stream = Inflated(str(file), "x.gz")
    assert fill(stream, lambda: rng.randrange(1, largest)) == b"".join(parts)
    assert stream.sha256 == hashlib.sha256(packed).hexdigest()


def test_a_slice_of_a_numpy_buffer_is_filled_in_place(tmp_path):
    raw = texture(300_000)
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(raw))
    window = np.zeros(400_000, np.uint8)
    with Inflated(str(file), "x.gz") as stream:
        assert stream.readinto(memoryview(window)[1000:]) == len(raw)
    assert window[1000 : 1000 + len(raw)].tobytes() == raw
    assert not window[:1000].any() and not window[1000 + len(raw) :].any()


def test_read_skip_and_readinto_share_one_position(tmp_path):
    raw = texture(3_000_000)
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(raw, 1))
    rng = random.Random(4)
    at = 0
    with Inflated(str(file), "x.gz") as stream:
        while at < len(raw):
            n = rng.choice((1, 512, 9000, 700_000))
            way = rng.randrange(3)
            if way == 0:
                assert stream.read(n) == raw[at : at + n]
            elif way == 1:
                assert stream.skip(n) == min(n, len(raw) - at)
            else:
                buffer = memoryview(bytearray(n))
                assert bytes(buffer[: stream.readinto(buffer)]) == raw[at : at + n]
            at = min(at + n, len(raw))
            assert stream.position == at


@pytest.mark.parametrize("way", ["cut", "damaged", "rest"])
def test_what_stands_before_the_damage_is_given_out_first(tmp_path, way):
    raw = texture(2_000_000)
    packed = bytearray(gzip.compress(raw, 1))
    if way == "cut":
        del packed[-5:]
    elif way == "damaged":
        packed[-8] ^= 1  # of the checksum
    else:
        packed += b"rest of twenty bytes"
    file = tmp_path / "x.gz"
    file.write_bytes(packed)
    out = bytearray()
    with Inflated(str(file), "x.gz") as stream:
        with pytest.raises(SourceError, match=r"damaged|cut"):
            while True:
                buffer = memoryview(bytearray(5_000_000))
                out += buffer[: stream.readinto(buffer)]
        assert stream.position == len(out)
        with pytest.raises(SourceError, match=r"damaged|cut"):  # it does not turn into an end
            stream.readinto(memoryview(bytearray(10)))
        assert stream.sha256 is None
    assert raw.startswith(out) and len(raw) - len(out) <= inflate.PIECE_BYTES


def test_tiny_members_are_fed_little_of_what_follows_them(tmp_path, monkeypatch):
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(b"") * 20_000 + gzip.compress(b"end"))
    copied = []
    end = inflate._Stream._end
    monkeypatch.setattr(inflate._Stream, "_end", lambda self, unused: copied.append(len(unused)) or end(self, unused))
    with Inflated(str(file), "x.gz") as stream:
        assert stream.read(10) == b"end"
    assert len(copied) == 20_001 and sum(copied) < 20_001 * inflate.FIRST_BYTES


def test_padding_stands_behind_a_stream_and_not_before_it(tmp_path):
    file = tmp_path / "x.gz"
    file.write_bytes(b"\0" + gzip.compress(b"x"))
    with Inflated(str(file), "x.gz") as stream, pytest.raises(SourceError, match="the gzip stream is damaged"):
        stream.read(1)


def test_a_folder_is_no_gzip_file(tmp_path):
    with pytest.raises(SourceError, match=r"cannot be read: Is a directory"):
        Inflated(str(tmp_path), "folder")


def test_a_file_that_cannot_be_read_on_is_told():
    with (
        Inflated("/proc/self/mem", "x.gz") as stream,  # its first page is never mapped
        pytest.raises(SourceError, match="cannot be read: Input/output error"),
    ):
        stream.read(1)


def test_a_bomb_is_refused_wherever_it_stands(tmp_path, monkeypatch):
    monkeypatch.setattr(inflate, "BOMB_BYTES", 8 << 20)
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(b"small") + gzip.compress(bytes(40 << 20), 9))
    with Inflated(str(file), "x.gz") as stream, pytest.raises(SourceError, match="inflates without end"):
        while stream.skip(1 << 20):
            pass
    assert stream.position <= (8 << 20) + 5
