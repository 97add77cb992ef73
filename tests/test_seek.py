"""Seek points: a deflate decoder of a hundred slow lines knows where blocks begin, and what they inflate to."""

from __future__ import annotations

import gzip
import hashlib
import random
import zlib
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from isal import igzip_lib, isal_zlib
from zlib_ng import zlib_ng

from pipeline.dumps import deflate, inflate, seek
from pipeline.dumps.deflate import DYNAMIC, HEADER_BYTES, NONE, STORED, find_block, opening
from pipeline.dumps.inflate import Inflated
from pipeline.dumps.seek import MEMBER, SeekPoint, SeekPoints
from pipeline.errors import SourceError

IDENTITY = {"size": 5, "mtime_ns": 6, "sha256": "ab"}

LENGTHS = [(3 + k, 0) for k in range(8)]
LENGTHS += [
    (base, 1 + k // 4) for k, base in enumerate((11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115))
]
LENGTHS += [(131, 5), (163, 5), (195, 5), (227, 5), (258, 0)]
DISTANCES = [(1, 0), (2, 0)]
for extra in range(14):
    DISTANCES += [((2 << extra) + 1, extra), ((3 << extra) + 1, extra)]
DISTANCES = DISTANCES[:30]


# --------------------------------------------------------------------------------------- an oracle
class Bits:
    """Bits of a deflate stream, first one first."""

    def __init__(self, data: bytes) -> None:
        self.bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little").tolist()
        self.at = 0

    def take(self, n: int) -> int:
        out = sum(bit << k for k, bit in enumerate(self.bits[self.at : self.at + n]))
        self.at += n
        return out

    def symbol(self, code: dict) -> int:
        key = 1
        while key not in code:
            key = key << 1 | self.bits[self.at]
            self.at += 1
        return code[key]


def canonical(lengths) -> dict:
    """Symbols by their codes, a leading 1 in front."""
    code, out = 0, {}
    for length in range(1, 16):
        code <<= 1
        for symbol, of in enumerate(lengths):
            if of == length:
                out[1 << length | code] = symbol
                code += 1
    return out


def tables(bits: Bits):
    n_literals, n_distances, n_code = 257 + bits.take(5), 1 + bits.take(5), 4 + bits.take(4)
    sizes = [0] * 19
    for place in (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)[:n_code]:
        sizes[place] = bits.take(3)
    code, lengths = canonical(sizes), []
    while len(lengths) < n_literals + n_distances:
        symbol = bits.symbol(code)
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            lengths += [lengths[-1]] * (3 + bits.take(2))
        else:
            lengths += [0] * (3 + bits.take(3) if symbol == 17 else 11 + bits.take(7))
    return canonical(lengths[:n_literals]), canonical(lengths[n_literals:])


def blocks(data: bytes):
    """Yield (bit at which it begins, kind, is last, inflated bytes before it) of each block, and at last the output."""
    bits, out, is_last = Bits(data), bytearray(), False
    while not is_last:
        begin, before = bits.at, len(out)
        is_last, kind = bool(bits.take(1)), bits.take(2)
        yield begin, kind, is_last, before
        if kind == 0:
            bits.at = -(-bits.at // 8) * 8
            size = bits.take(32) & 0xFFFF
            out += data[bits.at // 8 : bits.at // 8 + size]
            bits.at += 8 * size
            continue
        fixed = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8, [5] * 30
        literals, distances = tables(bits) if kind == 2 else map(canonical, fixed)
        while (symbol := bits.symbol(literals)) != 256:
            if symbol < 256:
                out.append(symbol)
                continue
            base, extra = LENGTHS[symbol - 257]
            length = base + bits.take(extra)
            base, extra = DISTANCES[bits.symbol(distances)]
            back = base + bits.take(extra)
            for _ in range(length):
                out.append(out[-back])
    yield bits.at, None, True, bytes(out)


def texture(size: int, seed: int = 0) -> bytes:
    """Bytes that compress about as well as packets do: noise, text, repeats of what came before, and zeros."""
    rng = random.Random(seed)
    out = bytearray()
    while len(out) < size:
        kind = rng.random()
        if kind < 0.3 or not out:
            out += rng.randbytes(rng.randrange(1, 600))
        elif kind < 0.6:
            out += b"%d,%.3f;" % (rng.randrange(9000), rng.random()) * rng.randrange(1, 4)
        elif kind < 0.9:
            start = max(0, len(out) - rng.randrange(1, 40_000))
            out += out[start : start + rng.randrange(1, 500)]
        else:
            out += bytes([rng.randrange(4)]) * rng.randrange(1, 900)
    return bytes(out[:size])


def raw_deflate(packer: str, data: bytes, level: int, memory: int = 4) -> bytes:
    if packer == "isal":
        return isal_zlib.compress(data, level % 4, -15)
    if packer == "zlib-ng":
        squeeze = zlib_ng.compressobj(level, 8, -15, memory)
    elif packer == "fixed":
        squeeze = zlib.compressobj(level, 8, -15, memory, zlib.Z_FIXED)
    else:
        squeeze = zlib.compressobj(level, 8, -15, memory)
    out = []
    for at in range(0, len(data), 30_000):
        out.append(squeeze.compress(data[at : at + 30_000]))
        out.append(squeeze.flush(zlib.Z_SYNC_FLUSH) if packer == "flushed" else b"")
    return b"".join(out) + squeeze.flush()


PACKERS = ["zlib", "isal", "zlib-ng", "flushed", "fixed"]
INFLATERS = {
    "igzip": lambda: igzip_lib.IgzipDecompressor(igzip_lib.DECOMP_DEFLATE),
    "isal": lambda: isal_zlib.decompressobj(-15),
    "zlib-ng": lambda: zlib_ng.decompressobj(-15),
    "zlib": lambda: zlib.decompressobj(-15),
}


@pytest.fixture(scope="module")
def walked():
    """Streams of every packer and level, with their blocks."""
    out = []
    for packer in PACKERS:
        for level in range(10):
            data = texture(90_000, level)
            packed = raw_deflate(packer, data, level, 4 + level % 2)  # little memory makes many blocks
            *found, (end, _, _, inflated) = blocks(packed)
            assert inflated == data and -(-end // 8) == len(packed)
            out.append((packer, level, packed, data, found))
    return out


# --------------------------------------------------------------------------------------- blocks
def test_every_block_that_can_be_told_is_found_at_its_own_bit(walked):
    told = {DYNAMIC: set(), STORED: set()}
    for _, _, packed, _, found in walked:
        data = np.frombuffer(packed + bytes(HEADER_BYTES + 8), np.uint8)
        for bit, kind, is_last, _ in found:
            if is_last or kind == 1:
                continue
            if kind == 2:
                assert find_block(data, bit, bit + 1) == (bit, DYNAMIC)
                told[DYNAMIC].add(bit % 8)
            else:
                at = 8 * -(-(bit + 3) // 8)
                assert find_block(data, at, at + 1) == (at, STORED)
                told[STORED].add(bit % 8)
    assert told == {DYNAMIC: set(range(8)), STORED: set(range(8))}


def test_little_else_is_taken_for_a_block(walked):
    for _, _, packed, _, found in walked:
        data = np.frombuffer(packed + bytes(HEADER_BYTES), np.uint8)
        true = {bit for bit, kind, _, _ in found if kind == 2} | {
            8 * -(-(bit + 3) // 8) for bit, kind, _, _ in found if kind == 0
        }
        bit, others = 0, 0
        while (hit := find_block(data, bit, 8 * len(packed)))[1] != NONE:
            others += hit[0] not in true
            bit = hit[0] + 1
        assert others <= 6


def python(monkeypatch):
    """Have the kernels run as plain Python."""
    for name, kernel in vars(deflate).copy().items():
        if hasattr(kernel, "py_func"):
            monkeypatch.setattr(deflate, name, kernel.py_func)


def test_kernels_are_plain_python_too(walked, monkeypatch):
    rng = random.Random(5)
    samples = []
    for _, _, packed, _, found in walked:
        for bit, _, _, _ in rng.sample(found, min(3, len(found))):
            near = max(0, bit // 8 - 6)
            piece = bytearray(packed[near : near + HEADER_BYTES + 30].ljust(HEADER_BYTES + 30, b"\xff"))
            samples.append(bytes(piece))
            for _ in range(6):
                broken = bytearray(piece)
                broken[rng.randrange(6, 60)] ^= 1 << rng.randrange(8)
                samples.append(bytes(broken))
    samples += [rng.randbytes(HEADER_BYTES + 40) for _ in range(40)]
    arrays = [np.frombuffer(sample, np.uint8) for sample in samples]
    compiled = [find_block(data, 0, 8 * 30) for data in arrays]
    python(monkeypatch)
    assert [deflate.find_block(data, 0, 8 * 30) for data in arrays] == compiled
    assert {kind for _, kind in compiled} == {NONE, DYNAMIC, STORED}


def header(code: dict, symbols, n_literals: int, n_distances: int) -> np.ndarray:
    """A dynamic block's header whose length code has the given sizes, and these bits of lengths behind it."""
    order = deflate._ORDER.tolist()
    bits = [
        0,
        0,
        1,
        *deflate._number(n_literals - 257, 5),
        *deflate._number(n_distances - 1, 5),
        *deflate._number(15, 4),
    ]
    for symbol in order:
        bits += deflate._number(code.get(symbol, 0), 3)
    packed = np.packbits(np.array([*bits, *symbols], np.uint8), bitorder="little")
    return np.concatenate([packed, np.zeros(HEADER_BYTES + 8, np.uint8)])


ZEROS = [0]  # of the code {18: 1, 1: 2, 2: 2}
ONE, TWO = [1, 0], [1, 1]


def zeros(n: int) -> list[int]:
    return [*ZEROS, *deflate._number(n - 11, 7)]


@pytest.mark.parametrize("as_python", [False, True])
@pytest.mark.parametrize(
    ("lengths", "n_literals", "n_distances", "expected"),
    [
        ([*zeros(138), *zeros(117), *ONE, *ONE, *ONE, *ONE], 257, 2, True),  # two codes, two distances
        ([*zeros(138), *zeros(117), *ONE, *ONE, *ONE], 257, 1, True),  # one distance
        ([*zeros(138), *zeros(117), *ONE, *ONE, *TWO], 257, 1, False),  # one distance, of two bits
        ([*zeros(138), *zeros(117), *ONE, *ONE, *zeros(11)], 257, 11, True),  # no distance
        ([*zeros(138), *zeros(117), *ONE, *ONE, *ONE, *TWO], 257, 2, False),  # half the distances
        ([*zeros(138), *zeros(117), *TWO, *ONE, *ONE, *ONE], 257, 2, False),  # a quarter of the codes is missing
        ([*zeros(138), *zeros(116), *ONE, *ONE, *ONE, *ONE, *ONE], 257, 2, False),  # too many codes
        ([*ONE, *ONE, *zeros(138), *zeros(117), *ONE, *ONE], 257, 2, False),  # no end of block
        ([*zeros(138), *zeros(138)], 257, 2, False),  # a run beyond the end
        ([*zeros(138), *zeros(117), *ONE, *ONE, *zeros(29), *ONE, *ONE], 286, 2, True),
        ([*zeros(138), *zeros(117), *ONE, *ONE, *zeros(30), *ONE, *ONE], 287, 2, False),  # too many literals
        ([*zeros(138), *zeros(117), *ONE, *ONE, *ONE, *ONE, *zeros(28)], 257, 30, True),
        ([*zeros(138), *zeros(117), *ONE, *ONE, *ONE, *ONE, *zeros(29)], 257, 31, False),  # too many distances
    ],
)
def test_what_a_header_must_hold(monkeypatch, as_python, lengths, n_literals, n_distances, expected):
    data = header({18: 1, 1: 2, 2: 2}, lengths, n_literals, n_distances)
    if as_python:
        python(monkeypatch)
    assert deflate.find_block(data, 0, 1) == ((0, DYNAMIC) if expected else (1, NONE))
    refused = False
    try:
        zlib.decompressobj(-15).decompress(data[:60].tobytes())  # nothing but zero bits follows
    except zlib.error as error:
        refused = "invalid" in str(error) or "too many" in str(error)
    assert refused != expected


@pytest.mark.parametrize("as_python", [False, True])
def test_a_repeat_of_nothing_and_an_incomplete_length_code_are_no_header(monkeypatch, as_python):
    if as_python:
        python(monkeypatch)
    repeat = header({16: 1, 18: 1}, [0, 0, 0], 257, 1)  # 16 repeats the length before it
    assert deflate.find_block(repeat, 0, 1) == (1, NONE)
    assert deflate.find_block(header({16: 1, 18: 2}, [0], 257, 1), 0, 1) == (1, NONE)
    assert deflate.find_block(header({}, [0], 257, 1), 0, 1) == (1, NONE)
    assert deflate.find_block(np.zeros(HEADER_BYTES, np.uint8), 0, 8) == (0, NONE)


def test_the_finder_stays_within_its_data():
    rng = np.random.default_rng(3)
    for size in (0, 1, HEADER_BYTES - 1, HEADER_BYTES, HEADER_BYTES + 1):
        data = rng.integers(0, 256, size, dtype=np.uint8)
        bit, kind = find_block(data, 0, 10**9)
        assert (bit, kind) == (8 * max(0, size - HEADER_BYTES), NONE)


# --------------------------------------------------------------------------------------- beginning at one
def test_any_inflater_begins_at_any_block(walked):
    begun = set()
    for packer, _, packed, data, found in walked:
        rng = random.Random(len(packed))
        for bit, kind, _, before in rng.sample(found, min(4, len(found))):
            window = data[max(0, before - 32768) : before]
            if kind == 0:
                byte = -(-(bit + 3) // 8)
                head, rest = opening(window, STORED), packed[byte:]
                if packed[bit // 8] >> bit % 8 & 1:  # the last one: our own header says that it is not
                    continue
            else:
                head = opening(window, DYNAMIC, bit % 8, packed[bit // 8])
                rest = packed[bit // 8 + (bit % 8 > 0) :]
            for name, make in INFLATERS.items():
                inflater = make()
                out = inflater.decompress(head)
                assert out == window, (packer, name, bit % 8)
                assert out + inflater.decompress(rest) == window + data[before:]
                assert inflater.eof
            begun.add((kind, bit % 8))
    assert begun >= {(kind, bit) for kind in (1, 2) for bit in range(8)}


@pytest.mark.parametrize("bit", range(8))
def test_empty_blocks_of_every_length(bit):
    for window in (b"", b"abc", bytes(range(256)) * 128):
        packed = raw_deflate("fixed", b"hello hello hello", 6)
        shifted = int.from_bytes(packed, "little") << bit
        data = shifted.to_bytes(len(packed) + 1, "little")
        for make in INFLATERS.values():
            inflater = make()
            head = opening(window, DYNAMIC, bit, data[0])
            out = inflater.decompress(head) + inflater.decompress(data[bit > 0 :])
            assert out == window + b"hello hello hello" and inflater.eof


# --------------------------------------------------------------------------------------- seek points
def read(path, start=None, points=None, n=300_000) -> bytes:
    out = []
    with Inflated(str(path), "x.gz", start, points) as stream:
        assert stream.position == (0 if start is None else start.offset)
        while True:
            buffer = memoryview(bytearray(n))
            got = stream.readinto(buffer)
            out.append(bytes(buffer[:got]))
            if not got:
                break
        assert (stream.sha256 is None) == (start is not None)
    return b"".join(out)


def gz(packer: str, data: bytes, level: int) -> bytes:
    if packer == "members":  # as pigz -i or bgzip write
        return b"".join(gzip.compress(data[at : at + 40_000], level) for at in range(0, len(data), 40_000))
    head = b"\x1f\x8b\x08\x08" + bytes(5) + b"\xff" + b"name\0"
    trailer = zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")
    return head + raw_deflate(packer, data, level, 8) + trailer


@pytest.fixture(scope="module")
def long_texture():
    return texture(2_500_000, 11)


@pytest.mark.parametrize("level", range(10))
@pytest.mark.parametrize("packer", [*PACKERS, "members"])
def test_reading_goes_on_from_every_seek_point(packer, level, tmp_path, long_texture):
    file = tmp_path / "x.gz"
    file.write_bytes(gz(packer, long_texture, level))
    points = SeekPoints(300_000)
    assert read(file, points=points) == long_texture
    offsets = [point.offset for point in points.points]
    assert offsets == sorted(offsets) and all(b - a >= 300_000 for a, b in zip([0, *offsets], offsets, strict=False))
    for point in points.points:
        assert point.window == (b"" if point.kind == MEMBER else long_texture[point.offset - 32768 : point.offset])
        more = SeekPoints(500_000, [point])
        assert read(file, point, more) == long_texture[point.offset :]
        for later in more.points[1:]:  # found by a stream that itself began in the middle
            assert read(file, later) == long_texture[later.offset :]
    kinds = {point.kind for point in points.points}
    if packer == "members":
        assert len(offsets) >= 6 and MEMBER in kinds
    elif packer != "fixed" and (packer, level) not in {("zlib-ng", 1), *(("isal", k) for k in (0, 4, 8))}:
        # those write fixed blocks, which nothing tells, or a single one
        assert len(offsets) >= 3 and kinds <= {DYNAMIC, STORED}
        assert level == 0 or packer == "flushed" or DYNAMIC in kinds


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mixed_files_are_read_from_any_seek_point(tmp_path, data):
    rng = random.Random(data.draw(st.integers(0, 999)))
    parts = [texture(rng.randrange(1, 900_000), rng.randrange(99)) for _ in range(data.draw(st.integers(1, 4)))]
    file = tmp_path / "x.gz"
    file.write_bytes(
        b"".join(gz(rng.choice(PACKERS), part, rng.randrange(10)) for part in parts) + bytes(rng.choice([0, 9]))
    )
    whole = b"".join(parts)
    points = SeekPoints(rng.choice([50_000, 200_000]))
    assert read(file, points=points, n=rng.choice([100, 70_000, 1 << 20])) == whole
    for point in points.points:
        assert read(file, SeekPoints.load(points.dump(IDENTITY), IDENTITY).near(point.offset)) == whole[point.offset :]


def test_a_stream_begun_in_the_middle_knows_what_stood_before(tmp_path, long_texture):
    file = tmp_path / "x.gz"
    file.write_bytes(gz("flushed", long_texture, 6))
    points = SeekPoints(1, found_in(file)[:1])
    read(file, points.points[0], points)
    assert points.points[1].offset - points.points[0].offset < 32768
    for point in points.points:
        assert point.window == long_texture[point.offset - 32768 : point.offset]


def test_points_do_not_hang_on_how_much_is_put_out_at_once(tmp_path, long_texture, monkeypatch):
    file = tmp_path / "x.gz"
    file.write_bytes(gz("zlib", long_texture, 6))
    whole = {point.byte: point for point in found_in(file, 1)}
    monkeypatch.setattr(inflate, "PIECE_BYTES", 1000)
    pieces = found_in(file, 1)
    assert len(pieces) >= 4 and all(whole.get(point.byte, point) == point for point in pieces)
    assert any(point.byte in whole for point in pieces)


def test_no_point_is_taken_that_too_little_follows(tmp_path, long_texture, monkeypatch):
    monkeypatch.setattr(inflate, "READ_BYTES", 10_000)  # so that the end is not yet fed when the search begins
    file = tmp_path / "x.gz"
    file.write_bytes(gz("flushed", long_texture, 6))
    assert found_in(file, len(long_texture) - seek.CHECK_BYTES // 2) == []
    assert len(found_in(file, len(long_texture) - 3 * seek.CHECK_BYTES)) == 1


def found_in(file, spacing=300_000) -> list[SeekPoint]:
    points = SeekPoints(spacing)
    read(file, points=points)
    return points.points


@pytest.mark.parametrize("at", range(-8, 0))
def test_the_trailer_is_checked_from_the_middle_too(at, tmp_path, long_texture):
    file = tmp_path / "x.gz"
    packed = bytearray(gz("zlib", long_texture, 6))
    file.write_bytes(packed)
    point = found_in(file)[1]
    packed[at] ^= 64
    file.write_bytes(packed)
    for start in (None, point):
        with pytest.raises(SourceError, match="the gzip stream is damaged"):
            read(file, start)


def test_every_cut_is_noticed_from_the_middle_too(tmp_path, long_texture):
    file = tmp_path / "x.gz"
    packed = gz("zlib", long_texture, 6)
    file.write_bytes(packed)
    point = found_in(file)[-1]
    for cut in (*range(len(packed) - 20, len(packed)), point.byte, point.byte + 1, point.byte + 100, 0):
        file.write_bytes(packed[:cut])
        with pytest.raises(SourceError, match="the gzip stream is cut after"):
            read(file, point)


def test_a_seek_point_that_is_none_is_never_wrong_data(tmp_path, long_texture):
    file = tmp_path / "x.gz"
    file.write_bytes(gz("zlib", long_texture, 6))
    point = next(point for point in found_in(file)[1:] if point.kind == DYNAMIC)
    for wrong in (
        replace(point, bit=(point.bit + 1) % 8),
        replace(point, byte=point.byte + 1),
        replace(point, byte=point.byte - 900),
        replace(point, kind=STORED),
        replace(point, kind=MEMBER),
        replace(point, crc=point.crc ^ 1),
        replace(point, member=3),
        replace(point, window=bytes(32768)),
        replace(point, byte=10**9),
    ):
        with pytest.raises(SourceError, match=r"damaged|cut|cannot be inflated"):
            read(file, wrong)


def test_an_inflater_that_does_not_begin_there_is_told(tmp_path, long_texture, monkeypatch):
    file = tmp_path / "x.gz"
    file.write_bytes(gz("zlib", long_texture, 6))
    point = found_in(file)[1]
    monkeypatch.setattr(seek, "opening", lambda *args: opening(b"other", *args[1:]))
    with pytest.raises(SourceError, match="cannot be inflated"):
        read(file, point)
    assert found_in(file) == []


@pytest.mark.parametrize("at_once", [1, 2, 5, 8, 13, 1000])
def test_a_member_ends_wherever_a_read_ends(at_once, tmp_path, monkeypatch):
    data = texture(700_000, 5)
    file = tmp_path / "x.gz"
    file.write_bytes(gz("zlib", data, 6) + gz("isal", b"next", 1))
    point = [point for point in found_in(file, 50_000) if point.member == 0][-1]
    monkeypatch.setattr(inflate, "READ_BYTES", at_once)
    assert read(file, point) == data[point.offset :] + b"next"


def test_feeding_waits_for_a_member(tmp_path):
    file = tmp_path / "x.gz"
    file.write_bytes(gzip.compress(b"x"))
    with Inflated(str(file), "x.gz") as stream, pytest.raises(ValueError, match="no gzip member has begun"):
        stream._stream.step(1)


# --------------------------------------------------------------------------------------- hostile streams
def test_what_a_search_holds_is_bounded(tmp_path, monkeypatch):
    zeros_first = zlib.compressobj(9, 8, -15, 8, zlib.Z_FIXED)  # its blocks are not told: the first one is far away
    data = bytes(15 << 20) + texture(900_000)
    packed = zeros_first.compress(data[: 15 << 20]) + zeros_first.flush(zlib.Z_SYNC_FLUSH)
    assert len(packed) < seek.LOOK_BYTES
    packed += raw_deflate("zlib", data[15 << 20 :], 6, 8)
    file = tmp_path / "x.gz"
    file.write_bytes(b"\x1f\x8b\x08" + bytes(7) + packed + zlib.crc32(data).to_bytes(4, "little"))
    with file.open("ab") as out:
        out.write(len(data).to_bytes(4, "little"))
    held = []
    put = inflate._Stream._put
    monkeypatch.setattr(
        inflate._Stream, "_put", lambda self, piece: put(self, piece) or held.append(sum(map(len, self.pieces)))
    )
    points = SeekPoints(1 << 20)
    assert read(file, points=points) == data
    assert seek.SPOOL_BYTES < max(held) <= seek.SPOOL_BYTES + inflate.PIECE_BYTES


def test_searches_become_rare_where_nothing_is_found(tmp_path, monkeypatch):
    file = tmp_path / "x.gz"
    file.write_bytes(gz("fixed", bytes(range(97, 123)) * 120_000, 1))
    tried = []
    monkeypatch.setattr(inflate, "seek_point", lambda stream: tried.append(stream.given) or seek.seek_point(stream))
    points = SeekPoints(100_000)
    read(file, points=points)
    assert points.points == [] and 2 <= len(tried) <= 6
    assert (np.diff(tried) >= 100_000 * 2 ** np.arange(len(tried) - 1)).all()


def test_what_was_inflated_in_a_search_is_given_out_before_its_error(tmp_path, long_texture):
    packed = gz("zlib", long_texture, 6)
    file = tmp_path / "x.gz"
    file.write_bytes(packed[: len(packed) // 2])
    out = b""
    with Inflated(str(file), "x.gz", None, SeekPoints(10_000)) as stream, pytest.raises(SourceError, match="cut"):
        while True:
            out += stream.read(1000)
    with Inflated(str(file), "x.gz") as stream, pytest.raises(SourceError, match="cut"):
        plain = b""
        while True:
            plain += stream.read(1000)
    assert out == plain and long_texture.startswith(out)


def test_a_search_gives_up(tmp_path, long_texture, monkeypatch):
    file = tmp_path / "x.gz"
    file.write_bytes(gz("zlib", long_texture, 6))
    tried = []
    monkeypatch.setattr(seek, "MAX_TRIES", 2)
    monkeypatch.setattr(seek, "_trial", lambda point, ahead: tried.append(point.offset) or b"")
    assert found_in(file, 2_000_000) == [] and len(tried) == 2


def test_a_trial_may_lie(tmp_path, long_texture, monkeypatch):
    file = tmp_path / "x.gz"
    file.write_bytes(gz("zlib", long_texture, 6))
    monkeypatch.setattr(seek, "_trial", lambda point, ahead: b"other" * 60_000)
    points = SeekPoints(300_000)
    assert read(file, points=points) == long_texture and points.points == []


# --------------------------------------------------------------------------------------- the set of them
def some(n: int) -> list[SeekPoint]:
    rng = random.Random(n)
    return [
        SeekPoint(1000 * k, 700 * k, k % 8, DYNAMIC, 0, rng.getrandbits(32), rng.randbytes(min(1000 * k, 32768)))
        for k in range(1, n + 1)
    ]


def test_the_last_point_before_an_offset():
    points = SeekPoints(1000, some(3))
    assert [points.near(offset) and points.near(offset).offset for offset in (0, 999, 1000, 1999, 2000, 10**12)] == [
        *(None, None, 1000, 1000, 2000, 3000)
    ]
    assert SeekPoints().near(5) is None and points.due == 4000


def test_a_find_ends_the_long_waits():
    points = SeekPoints(1000)
    due = []
    for offset in (1000, 2000, 4000):
        points.miss(offset)
        due.append(points.due)
    points.add(some(9)[8])
    points.miss(10_500)
    assert [*due, points.due] == [2000, 4000, 8000, 11_500]


def test_points_are_thinned_out_where_they_are_too_many(monkeypatch):
    monkeypatch.setattr(seek, "MAX_POINTS", 4)
    points = SeekPoints(1000)
    for point in some(12):
        if point.offset >= points.due:
            points.add(point)
    assert [point.offset for point in points.points] == [4000, 9000] and points.due == 15_000


def test_they_come_back_from_a_file_that_any_reader_opens(tmp_path):
    points = SeekPoints(1000, some(5))
    data = points.dump(IDENTITY)
    assert data == points.dump(dict(reversed(IDENTITY.items())))
    for known in (IDENTITY, {"size": 5}, {}):
        back = SeekPoints.load(data, known, 1000)
        assert back.points == points.points and back.due == points.due
    assert SeekPoints.load(SeekPoints().dump(IDENTITY), IDENTITY).points == []
    assert pq.read_table(pa.BufferReader(data)).column("offset").to_pylist() == [1000, 2000, 3000, 4000, 5000]


def test_those_of_another_file_are_refused():
    data = SeekPoints(1000, some(2)).dump(IDENTITY)
    for name in IDENTITY:
        with pytest.raises(ValueError, match=f"of another file \\({name} .*, not 7\\)"):
            SeekPoints.load(data, {**IDENTITY, name: 7})
    with pytest.raises(ValueError, match="of another file"):
        SeekPoints.load(data, {"state": "x"})


def test_every_damage_is_refused():
    points = SeekPoints(1000, some(3))
    data = points.dump(IDENTITY)
    rng = random.Random(1)
    for at in (*range(40), *range(len(data) - 400, len(data)), *rng.sample(range(len(data)), 300)):
        broken = bytearray(data)
        broken[at] ^= 1 << rng.randrange(8)
        try:
            back = SeekPoints.load(bytes(broken), IDENTITY)
        except ValueError as error:
            assert "\n" not in str(error) and "seek points are" in str(error)
        else:
            assert back.points == points.points
    for cut in range(0, len(data), 97):
        with pytest.raises(ValueError, match="the seek points are damaged"):
            SeekPoints.load(data[:cut], IDENTITY)


def test_a_foreign_table_is_refused(monkeypatch):
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"a": [1]}), sink)
    with pytest.raises(ValueError, match="damaged"):
        SeekPoints.load(sink.getvalue().to_pybytes(), {})
    data = SeekPoints(1000, some(5)).dump(IDENTITY)
    monkeypatch.setattr(seek, "MAX_POINTS", 4)
    with pytest.raises(ValueError, match=r"damaged.*they are too many"):
        SeekPoints.load(data, {})


# --------------------------------------------------------------------------------------- a real dump
def test_a_real_dump_is_read_from_its_seek_points(shared_data):
    file = shared_data / "alerts/ztf/ztf_public_20181129.tar.gz"
    points = SeekPoints(4 << 20)
    whole = read(file, points=points)
    assert hashlib.sha256(whole).digest() == hashlib.sha256(gzip.decompress(file.read_bytes())).digest()
    assert len(points.points) >= 7
    for point in points.points:
        assert read(file, point) == whole[point.offset :]
