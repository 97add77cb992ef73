"""Tar headers and gzip streams: what Python's own tarfile writes is read, what is cut is refused."""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import tarfile
import threading

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.dumps import inflate
from pipeline.dumps.inflate import Inflated
from pipeline.dumps.tar import BLOCK, FileStream, is_header, members
from pipeline.errors import SourceError

FORMATS = [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]


class Memory:
    """A stream over bytes."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)
        self._size = len(data)

    @property
    def position(self) -> int:
        return self._file.tell()

    def read(self, n: int) -> bytes:
        return self._file.read(n)

    def skip(self, n: int) -> int:
        passed = min(n, self._size - self._file.tell())
        self._file.seek(passed, 1)
        return passed


def tar(entries, fmt=tarfile.GNU_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as archive:
        for name, data in entries:
            info = tarfile.TarInfo(name)
            if data is None:
                info.type = tarfile.DIRTYPE
            elif isinstance(data, str):
                info.type, info.linkname = tarfile.SYMTYPE, data
            else:
                info.size = len(data)
            archive.addfile(info, io.BytesIO(data) if isinstance(data, bytes) else None)
    return out.getvalue()


def walk(data: bytes, stop=None):
    stream = Memory(data)
    out = []
    for member in members(stream, "x.tar", stop):
        out.append((member.name, member.is_file, member.offset, stream.read(min(member.size, 1 << 20))))
    return out


# --------------------------------------------------------------------------------------- tar
@pytest.mark.parametrize("fmt", FORMATS)
@settings(max_examples=25, deadline=None)
@given(st.data())
def test_members_are_those_of_tarfile(fmt, data):
    letters = "ab/é" if fmt != tarfile.USTAR_FORMAT else "ab"
    names = data.draw(st.lists(st.text(letters, min_size=1, max_size=90).map(lambda n: f"n{n}z"), max_size=5))
    if fmt != tarfile.USTAR_FORMAT:
        names += data.draw(st.lists(st.integers(101, 600).map(lambda n: "d/" * (n // 2) + "f"), max_size=2))
    sizes = data.draw(st.lists(st.sampled_from([0, 1, 511, 512, 513, 2000]), min_size=len(names), max_size=len(names)))
    raw = tar(
        [(name, random.Random(i).randbytes(size)) for i, (name, size) in enumerate(zip(names, sizes, strict=True))], fmt
    )
    with tarfile.open(fileobj=io.BytesIO(raw)) as archive:
        expected = [(m.name, m.isfile(), m.offset_data, archive.extractfile(m).read()) for m in archive]
    assert walk(raw) == expected


@pytest.mark.parametrize("fmt", FORMATS)
def test_what_is_no_file_is_told_apart(fmt):
    raw = tar([("night", None), ("night/a.avro", b"abc"), ("link", "night/a.avro")], fmt)
    assert [(name.rstrip("/"), is_file) for name, is_file, _, _ in walk(raw)] == [
        ("night", False),
        ("night/a.avro", True),
        ("link", False),
    ]


def test_ustar_prefix_names():
    name = "/".join(["d" * 50] * 3 + ["file.avro"])
    assert walk(tar([(name, b"x")], tarfile.USTAR_FORMAT))[0][0] == name


def test_names_that_are_not_utf8_stay_readable():
    raw = bytearray(tar([("abc.avro", b"x")]))
    raw[1] = 0xFF
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + sum(raw[156:512]) + 256)
    assert walk(bytes(raw))[0][0] == "a\\xffc.avro"


def test_base_256_sizes(tmp_path):
    size = 9 << 30
    info = tarfile.TarInfo("big.avro")
    info.size = size
    file = tmp_path / "big.tar"
    with file.open("wb") as out:  # a file with a hole takes no space
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        out.seek(BLOCK + size)
        out.write(tar([("next.avro", b"abc")]))
    with FileStream(str(file)) as stream:
        assert [(m.name, m.size) for m in members(stream, "big.tar")] == [("big.avro", size), ("next.avro", 3)]
    pax = info.tobuf(tarfile.PAX_FORMAT)
    with file.open("wb") as out:
        out.write(pax)
        out.seek(len(pax) + size)
        out.write(bytes(1024))
    with FileStream(str(file)) as stream:
        assert [(m.name, m.size) for m in members(stream, "big.tar")] == [("big.avro", size)]


def test_global_pax_headers_and_hard_links():
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "night"}) as archive:
        info = tarfile.TarInfo("a.avro")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
        link = tarfile.TarInfo("b.avro")
        link.type, link.linkname = tarfile.LNKTYPE, "a.avro"
        archive.addfile(link)
    assert [(name, is_file) for name, is_file, _, _ in walk(out.getvalue())] == [("a.avro", True), ("b.avro", False)]


def test_joined_archives_are_read_through():
    one, two = tar([("a", b"1")]), tar([("b", b"2")])
    assert [name for name, *_ in walk(one + two)] == ["a", "b"]
    assert walk(tar([])) == []


def test_a_stretch_begins_at_any_member():
    raw = tar([(f"{'d' * 120}{i}", bytes([i]) * 700) for i in range(6)])
    starts = [m.start for m in members(Memory(raw), "x")]
    assert starts[0] == 0
    for i in range(6):
        stream = Memory(raw)
        stream.skip(starts[i])
        stop = starts[i + 2] if i + 2 < 6 else None
        found = [m.name[-1] for m in members(stream, "x", stop)]
        assert found == [str(k) for k in range(i, min(i + 2, 6) if stop else 6)]


@pytest.mark.parametrize("fmt", FORMATS)
def test_every_cut_is_refused_with_how_far_it_got(fmt):
    raw = tar(
        [("a" * 80, b"1" * 700), ("b" * (150 if fmt != tarfile.USTAR_FORMAT else 9), b"2" * 512), ("c", b"3")], fmt
    )
    ends = [m.offset + -(-m.size // BLOCK) * BLOCK for m in members(Memory(raw), "x")]
    for cut in range(0, ends[-1] + 1, 50):
        with pytest.raises(SourceError) as error:
            walk(raw[:cut])
        whole = sum(end <= cut for end in ends)
        assert "cut" in str(error.value) and f"behind {whole} whole members" in str(error.value)
        assert "x.tar" in str(error.value) and "\n" not in str(error.value)
    with pytest.raises(SourceError, match="behind 3 whole members"):
        walk(raw[: ends[-1]])  # cut where a member ends: only the missing end marker tells


@pytest.mark.parametrize("at", [0, 100, 124, 130, 148, 156, 300])
def test_a_damaged_header_is_refused(at):
    raw = bytearray(tar([("a", b"1"), ("b", b"2"), ("c", b"3")]))
    raw[1024 + at] ^= 0x55
    with pytest.raises(SourceError, match="damaged at byte 1024, behind 1 members"):
        walk(bytes(raw))


def patched(raw: bytes, at: int, data: bytes) -> bytes:
    out = bytearray(raw)
    out[at : at + len(data)] = data
    out[148:156] = b"%06o\0 " % (sum(out[:148]) + sum(out[156:512]) + 256)
    return bytes(out)


@pytest.mark.parametrize(
    ("at", "data", "expected"),
    [
        (124, b"9999999\0", "no size"),
        (124, b"\xff" * 12, "no size"),
        (124, b"\x80" + b"\xff" * 11, "no size"),
        (124, b"\x80" + bytes(5) + b"\xff" * 6, "cut"),
        (156, b"S", "sparse"),
        (156, b"x", "pax"),
    ],
)
def test_hostile_headers_are_refused(at, data, expected):
    with pytest.raises(SourceError, match=expected):
        walk(patched(tar([("a", b"1" * 20)]), at, data))


def test_an_extension_of_a_gigabyte_is_refused():
    raw = patched(patched(tar([("a", b"1")]), 156, b"L"), 124, b"%011o\0" % (1 << 30))
    with pytest.raises(SourceError, match="extended header"):
        walk(raw)


def test_is_header():
    raw = tar([("a", b"1")])
    assert is_header(raw[:512]) and is_header(bytes(512))
    assert not is_header(raw[:511]) and not is_header(b"Obj\x01" + bytes(508)) and not is_header(b"")


# --------------------------------------------------------------------------------------- gzip
def packed(tmp_path, data: bytes):
    file = tmp_path / "x.gz"
    file.write_bytes(data)
    return Inflated(str(file), "x.gz")


def drain(stream: Inflated, n: int = 70_000) -> bytes:
    with stream:
        return b"".join(iter(lambda: stream.read(n), b""))


@pytest.fixture(scope="module")
def noise() -> bytes:
    rng = random.Random(1)
    return b"".join(rng.choice((bytes(3000), rng.randbytes(3000))) for _ in range(2500))


def test_inflated_equals_gzip(tmp_path, noise):
    data = gzip.compress(noise, 1)
    stream = packed(tmp_path, data)
    assert drain(stream) == noise
    assert stream.position == len(noise)
    assert stream.sha256 == hashlib.sha256(data).hexdigest()


def test_reads_and_skips_of_any_size(tmp_path, noise):
    rng = random.Random(3)
    at = 0
    with packed(tmp_path, gzip.compress(noise, 1)) as stream:
        while at < len(noise):
            n = rng.choice((0, 1, 512, 5000, 3_000_000))
            if rng.random() < 0.5:
                assert stream.read(n) == noise[at : at + n]
            else:
                assert stream.skip(n) == min(n, len(noise) - at)
            at = min(at + n, len(noise))
            assert stream.position == at
        assert stream.read(10) == b"" and stream.skip(10) == 0


def test_joined_streams_and_padding(tmp_path):
    data = gzip.compress(b"one") + gzip.compress(b"") + gzip.compress(b"two") + bytes(700)
    assert drain(packed(tmp_path, data)) == b"onetwo"


@pytest.mark.parametrize("rest", [b"rest", b"\0\0rest", gzip.compress(b"three")[:-1]])
def test_what_follows_a_stream_is_not_ignored(tmp_path, rest):
    with pytest.raises(SourceError, match=r"damaged|cut"):
        drain(packed(tmp_path, gzip.compress(b"one") + rest))


def test_every_cut_of_a_stream_is_refused(tmp_path):
    data = gzip.compress(random.Random(2).randbytes(300) + bytes(3000))
    for cut in range(1, len(data)):
        with pytest.raises(SourceError, match=rf"cut after {cut} compressed"):
            drain(packed(tmp_path, data[:cut]))


def test_damage_is_refused(tmp_path, noise):
    data = gzip.compress(noise[:300_000], 1)
    rng = random.Random(7)
    for _ in range(30):
        at = rng.randrange(10, len(data))
        changed = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
        with pytest.raises(SourceError, match=r"damaged|cut|without end"):
            drain(packed(tmp_path, changed))


def test_a_bomb_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(inflate, "BOMB_BYTES", 8 << 20)
    with pytest.raises(SourceError, match="without end"):
        drain(packed(tmp_path, gzip.compress(bytes(40 << 20), 9)))
    assert len(drain(packed(tmp_path, gzip.compress(bytes(7 << 20), 9)))) == 7 << 20


def test_leaving_early_ends_the_thread(tmp_path, noise):
    before = threading.active_count()
    with packed(tmp_path, gzip.compress(noise * 8, 1)) as stream:
        assert len(stream.read(10)) == 10
    assert threading.active_count() == before and stream.sha256 is None


def test_a_file_that_vanished_is_a_source_error(tmp_path):
    with pytest.raises(SourceError, match="cannot be read"), Inflated(str(tmp_path / "none.gz"), "none.gz") as stream:
        stream.read(1)
