"""What is read in windows and batches by kernels equals what is read packet by packet, wherever the cuts are."""

from __future__ import annotations

import gzip
import io
import random
import sys
import tarfile
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from pipeline.avro import Datum, Fault, HeaderCache, split_wire, writer_schema
from pipeline.avro import container as container_module
from pipeline.avro import framing as kernels
from pipeline.avro.container import SYNC_BYTES, blocks
from pipeline.avro.frames import NO_SCHEMA, Frames
from pipeline.dumps import (
    Reader,
    Tally,
    containers,
    cutting,
    datums,
    frames_in_tar,
    framing,
    list_sources,
    read_frames,
    segments,
    tar_index,
    wire_frames,
)
from pipeline.dumps import members as source_members
from pipeline.dumps.cutting import Segment
from pipeline.dumps.framing import Files, frame_files
from pipeline.dumps.sources import Source
from pipeline.dumps.tar import BLOCK, members
from pipeline.dumps.windows import read_only
from pipeline.errors import SourceError
from tests.avro_oracle import CODECS, body, container
from tests.dump_oracle import plain_datums
from tests.test_dumps_archives import Memory

FIELDS = [{"name": "candid", "type": "long"}, {"name": "stamp", "type": "bytes"}]
SCHEMA = {"type": "record", "name": "alert", "version": "1.0", "fields": FIELDS}
DOCUMENTED = {**SCHEMA, "doc": "the same schema in other bytes " * 9}
OTHER = {**SCHEMA, "version": "2.0", "fields": FIELDS[:1]}
WIRE = writer_schema(SCHEMA)
LARGEST = 9000


def record(i: int, size: int = 40) -> dict:
    return {"candid": i, "stamp": bytes([i % 256]) * size}


def resolver(number: int):
    if number > 9:
        raise SourceError(f"schema id {number} is not known")
    return WIRE


def patched(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]


SINGLE = container(SCHEMA, [record(7)])
HEADER_BYTES = HeaderCache().get(SINGLE).length
PAYLOADS = {
    "single": SINGLE,
    "again": container(SCHEMA, [record(8, 400)]),
    "documented": container(DOCUMENTED, [record(9)]),
    "other": container(OTHER, [record(10)]),
    "large": container(SCHEMA, [record(11, 6000)]),
    "too large": container(SCHEMA, [record(12, LARGEST)]),
    "many": container(SCHEMA, [record(i, 3) for i in range(30)]),
    "many blocks": container(SCHEMA, [record(i) for i in range(5)], sync_interval=1),
    **{codec: container(SCHEMA, [record(i) for i in range(1 + k)], codec) for k, codec in enumerate(CODECS)},
    "deflate of one": container(SCHEMA, [record(13)], "deflate"),
    "no record": container(SCHEMA, []),
    "cut": SINGLE[:-5],
    "cut in its header": SINGLE[:60],
    "cut in its first sync marker": SINGLE[: HEADER_BYTES + 7],
    "without block": SINGLE[: HEADER_BYTES + SYNC_BYTES],
    "sync marker damaged": patched(SINGLE, len(SINGLE) - 1),
    "count damaged": patched(SINGLE, HEADER_BYTES + SYNC_BYTES),
    "size damaged": patched(SINGLE, HEADER_BYTES + SYNC_BYTES + 1),
    "something behind": SINGLE + b"\x02\x02\x02",
    "stray": patched(container(SCHEMA, [record(i, 3) for i in range(30)]), HEADER_BYTES + SYNC_BYTES + 30),
    "noise": random.Random(1).randbytes(700),
    "magic": b"Obj\x01",
    "empty": b"",
    "wire": b"\0\0\0\0\x05" + body(SCHEMA, record(14)),
    "wire, unknown": b"\0\0\0\x01\x05" + body(SCHEMA, record(15)),
}
NAMES = [
    "1.avro",
    "night/2.AVRO",
    "plain",
    "._3.avro",
    "x/._4.avro",
    "README",
    "é.avro",
    "d" * 120 + "/5.avro",
    "é" * 55 + "/7.avro",
    "6.avro/",
    "n" * 95 + ".avro",
]


def archive(entries: list[tuple[str, bytes]], fmt: int = tarfile.GNU_FORMAT, links: bool = False) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=fmt) as file:
        for i, (name, data) in enumerate(entries):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if fmt == tarfile.PAX_FORMAT and i % 3 == 0:
                info.mtime = 1.5
            if links and i % 4 == 1:
                info.type, info.linkname, info.size, data = tarfile.SYMTYPE, "1.avro", 0, b""
            file.addfile(info, io.BytesIO(data))
    return out.getvalue()


# --------------------------------------------------------------------------------------- against the plain way
def items_of(batch: list[Frames]) -> list[tuple[str | None, Datum | Fault]]:
    out: list[tuple[str | None, Datum | Fault]] = []
    for frames in batch:
        assert not frames.data.flags.writeable
        assert frames.member.type == pa.string() and len(frames.member) == len(frames) > 0
        assert {a.dtype for a in (frames.start, frames.stop, frames.offset)} == {np.dtype(np.int64)}
        assert frames.schema.dtype == np.int32
        assert np.flatnonzero(frames.schema == NO_SCHEMA).tolist() == sorted(frames.faults)
        for place, member in enumerate(frames.member.to_pylist()):
            if place in frames.faults:
                assert (frames.start[place], frames.stop[place]) == (0, 0)
                assert frames.offset[place] == frames.faults[place].offset
                out.append((member, frames.faults[place]))
                continue
            data = frames.body(place)
            out.append(
                (member, Datum(data, int(frames.offset[place]), len(data), frames.schemas[frames.schema[place]]))
            )
    return out


def outcome(stream) -> tuple[list, str | None]:
    out: list = []
    try:
        for item in stream:
            out.append(item)
    except SourceError as error:
        return out, str(error)
    return out, None


def compare(segment: Segment, known: bool, **limits: int) -> list[list]:
    """Assert that batches of any limits hold what the plain way gives, errors and tallies too; return them."""
    first, second = Tally(), Tally()
    expected, error = outcome(plain_datums(segment, Reader(resolver if known else None), first))
    stream = read_frames(segment, Reader(resolver if known else None), second, **limits)
    batches, told = outcome(map(items_of, stream))
    assert [item for batch in batches for item in batch] == expected
    assert told == error
    if error is None:
        assert first == second
    for batch in batches:
        assert 0 < len(batch) <= limits.get("max_packets", 1 << 30)
        assert len(batch) == 1 or sum(item.length for _, item in batch) <= limits.get("max_bytes", 1 << 40)
    assert not any(thread.name == "fill" for thread in threading.enumerate())
    return batches


@contextmanager
def small_limits() -> Iterator[None]:
    with (
        mock.patch.object(cutting, "MAX_MEMBER_BYTES", LARGEST),
        mock.patch.object(framing, "CHUNK_ROWS", 4),
        mock.patch.object(containers, "CHUNK_ROWS", 4),
        mock.patch.object(containers, "BLOCKS_AT_ONCE", 3),
        mock.patch.object(tar_index, "CAPACITY", 3),
        mock.patch.object(source_members, "FILES_AT_ONCE", 3),
    ):
        yield


LIMITS = st.fixed_dictionaries(
    {
        "max_packets": st.sampled_from([1, 2, 7, 2048]),
        "max_bytes": st.sampled_from([1, 600, 3000, 8 * 512, 20_000, 64 << 20]),
    }
)
ENTRIES = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(sorted(PAYLOADS))), max_size=12)


@settings(max_examples=400, phases=[Phase.explicit, Phase.generate])
@given(
    entries=ENTRIES,
    limits=LIMITS,
    fmt=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]),
    shape=st.sampled_from(["tar", "tar.gz"]),
    known=st.booleans(),
    links=st.booleans(),
    damage=st.sampled_from(["none", "none", "joined", "zeros", "cut", "flip", "garbage"]),
    where=st.floats(0, 1, exclude_max=True),
)
def test_an_archive_of_anything_in_windows_of_any_size(
    tmp_path_factory, entries, limits, fmt, shape, known, links, damage, where
):
    raw = archive([(name, PAYLOADS[payload]) for name, payload in entries], fmt, links)
    at = int(where * len(raw))
    raw = {
        "none": raw,
        "joined": raw + archive([("joined.avro", SINGLE)]),
        "zeros": raw + bytes(BLOCK * at // 64),
        "cut": raw[:at],
        "flip": patched(raw, at),
        "garbage": raw + b"garbage",
    }[damage]
    path = tmp_path_factory.getbasetemp() / f"x.{shape}"
    path.write_bytes(raw if shape == "tar" else gzip.compress(raw, 1))
    segment = Segment(Source("x", str(path), shape, len(raw), 0, "native"), 0)
    with small_limits():
        compare(segment, known, **limits)
        if shape == "tar":
            compare_in_memory(segment, raw, known)


def compare_in_memory(segment: Segment, raw: bytes, known: bool) -> None:
    """Assert that an archive in memory holds what the plain way gives from the file, or fails as it does."""
    first, second = Tally(), Tally()
    expected, error = outcome(plain_datums(segment, Reader(resolver if known else None), first))
    reader = Reader(resolver if known else None)
    found, told = outcome(items_of(frames_in_tar(raw, reader, second, name="x")) for _ in range(1))
    assert told == error
    if error is None:
        assert found == [expected]
        assert first == second


@settings(max_examples=100)
@given(entries=ENTRIES, limits=LIMITS, most=st.integers(1, 5))
def test_segments_of_a_tar(tmp_path_factory, entries, limits, most):
    path = tmp_path_factory.getbasetemp() / "segments.tar"
    path.write_bytes(archive([(name, PAYLOADS[payload]) for name, payload in entries]))
    (source,) = list_sources([str(path)]) if entries else (Source("x", str(path), "tar", 0, 0, "native"),)
    with small_limits():
        for segment in segments(source, max_packets=most):
            compare(segment, True, **limits)


@settings(max_examples=100)
@given(payloads=st.lists(st.sampled_from(sorted(PAYLOADS)), max_size=12), limits=LIMITS, known=st.booleans())
def test_a_folder_of_anything(tmp_path_factory, payloads, limits, known):
    folder = tmp_path_factory.mktemp("folder")
    for i, payload in enumerate(payloads):
        (folder / f"{i:03d}.avro").write_bytes(PAYLOADS[payload])
    source = Source("x", str(folder), "folder", 0, 0, "native")
    names = tuple(f"{i:03d}.avro" for i in range(len(payloads)))
    with small_limits():
        compare(Segment(source, 0, members=names, skipped=("README",)), known, **limits)


@settings(max_examples=200)
@given(
    codec=st.sampled_from(CODECS),
    counts=st.lists(st.integers(0, 9), max_size=8),
    flips=st.lists(st.floats(0, 1, exclude_max=True), max_size=2),
    cut=st.none() | st.floats(0, 1),
    limits=LIMITS,
    most=st.sampled_from([1, 6, 10_000]),
)
@example(codec="null", counts=[1], flips=[], cut=(HEADER_BYTES + 5) / 300, limits={}, most=9)
def test_a_container_with_damage(tmp_path_factory, codec, counts, flips, cut, limits, most):
    out = io.BytesIO(container(SCHEMA, [], codec, sync_marker=b"0123456789abcdef"))
    parts = [out.getvalue()]
    for count in counts:
        block = container(SCHEMA, [record(i) for i in range(count)], codec, sync_marker=b"0123456789abcdef")
        parts.append(block[len(parts[0]) :])
    raw = b"".join(parts)
    for flip in flips:
        raw = patched(raw, int(flip * len(raw)))
    raw = raw if cut is None else raw[: max(int(cut * len(raw)), 4)]
    path = tmp_path_factory.getbasetemp() / "x.avro"
    path.write_bytes(raw)
    with small_limits():
        for segment in segments(Source("x", str(path), "avro", len(raw), 0, "native"), max_packets=most):
            compare(segment, True, **limits)


@pytest.mark.parametrize("payload", sorted(PAYLOADS))
def test_a_wire_file(tmp_path, payload):
    path = tmp_path / "x"
    path.write_bytes(PAYLOADS[payload])
    segment = Segment(Source("x", str(path), "wire", 0, 0, "native"), 0)
    for known in (True, False):
        compare(segment, known)


@pytest.mark.parametrize("limits", [{}, {"max_packets": 10, "max_bytes": 1 << 20}])
@pytest.mark.parametrize(
    "name",
    [
        "ztf/ztf_public_20181129.tar.gz",
        "ztf/tar_no_cutouts_v3.5_20210720",
        "ztf/corrupt",
        "ztf/object_ZTF21abiuvdk",
        "ztf/versions",
        "lsst/alert_packet_samples",
        "elasticc/samples",
        "lsst/fink_transfer_2026-03-10",
    ],
)
def test_every_real_archive(shared_data, name, limits):
    compared = 0
    for source in list_sources([str(shared_data / "alerts" / name)]):
        if source.kind != "parquet":
            compared += sum(len(compare(segment, False, **limits)) for segment in segments(source, max_packets=200))
    assert compared or "fink" in name


@pytest.mark.parametrize("shape", ["tar", "tar.gz"])
def test_a_joined_archive_without_its_end_is_cut(tmp_path, shape):
    one, two = archive([("1.avro", SINGLE)]), archive([("2.avro", SINGLE), ("3.avro", SINGLE)])
    last = [member.offset for member in members(Memory(two), "x")][-1]
    raw = one + two[: last + BLOCK]
    path = tmp_path / f"x.{shape}"
    path.write_bytes(raw if shape == "tar" else gzip.compress(raw))
    segment = Segment(Source("x", str(path), shape, 0, 0, "native"), 0)
    for size in (600, 5000, 64 << 20):
        compare(segment, False, max_bytes=size)
    with pytest.raises(SourceError, match="the archive is cut"):
        list(datums(segment, Reader()))


def test_frames_name_the_schemas_of_their_packets_and_no_other(tmp_path):
    path = tmp_path / "x.tar"
    kinds = ["no record", "other", "single", "other", "single", "single", "cut", "single"]
    path.write_bytes(archive([(f"{i}.avro", PAYLOADS[kind]) for i, kind in enumerate(kinds)]))
    (batch,) = read_frames(Segment(Source("x", str(path), "tar", 0, 0, "native"), 0), Reader())
    for frames in batch:
        assert set(range(len(frames.schemas))) == set(frames.schema.tolist()) - {NO_SCHEMA}


def test_datums_are_those_of_the_frames(tmp_path):
    path = tmp_path / "x.tar"
    path.write_bytes(archive([("1.avro", PAYLOADS["many"]), ("2.avro", PAYLOADS["cut"]), ("3.avro", SINGLE)]))
    (source,) = list_sources([str(path)])
    (segment,) = segments(source)
    first, second = Tally(), Tally()
    assert list(datums(segment, Reader(), first)) == list(plain_datums(segment, Reader(), second)) and first == second


# --------------------------------------------------------------------------------------- how it is given
def night(path: Path, n: int = 300) -> Segment:
    path.write_bytes(archive([(f"{i}.avro", container(SCHEMA, [record(i, 500)])) for i in range(n)]))
    return Segment(Source("x", str(path), "tar", 0, 0, "native"), 0)


def test_packets_of_one_batch_lie_in_few_buffers(tmp_path):
    (batch,) = read_frames(night(tmp_path / "x.tar"), Reader())
    assert [len(frames) for frames in batch] == [1, 299]  # the first brings the header to know
    assert batch[1].member.to_pylist() == [f"{i}.avro" for i in range(1, 300)]


def test_small_packets_of_their_own_are_put_together(tmp_path):
    kinds = ["deflate of one", "cut", "many", "deflate", "noise"]
    path = tmp_path / "x.tar"
    path.write_bytes(archive([(f"{i}.avro", PAYLOADS[kinds[i % 5]]) for i in range(50)]))
    batches = list(read_frames(Segment(Source("x", str(path), "tar", 0, 0, "native"), 0), Reader()))
    assert [len(batch) for batch in batches] == [1] and len(batches[0][0].schemas) == 1


def test_blocks_that_are_not_compressed_are_not_copied(tmp_path):
    path = tmp_path / "x.avro"
    path.write_bytes(container(SCHEMA, [record(i) for i in range(500)], sync_interval=300))
    raw = path.read_bytes()
    ((frames,),) = read_frames(Segment(Source("x", str(path), "avro", 0, 0, "native"), 0, HEADER_BYTES + 16), Reader())
    assert len(frames) == 500 and len(frames.data) == len(raw) and (frames.start == frames.offset).all()


def test_a_batch_keeps_its_bytes_until_the_next_is_asked_for(tmp_path):
    segment = night(tmp_path / "x.tar")
    stream = read_frames(segment, Reader(), max_bytes=20_000)
    for batch in stream:
        before = items_of(batch)
        time.sleep(0.002)  # the thread goes on
        assert items_of(batch) == before


@pytest.mark.parametrize("taken", [0, 1, 3])
@pytest.mark.parametrize("kind", ["tar", "folder"])
def test_an_abandoned_reader_leaves_no_thread(tmp_path, taken, kind):
    segment = night(tmp_path / "x.tar")
    if kind == "folder":
        for i in range(50):
            (tmp_path / f"{i}.avro").write_bytes(SINGLE)
        names = tuple(f"{i}.avro" for i in range(50))
        segment = Segment(Source("x", str(tmp_path), "folder", 0, 0, "native"), 0, members=names)
    stream = read_frames(segment, Reader(), max_bytes=5000)
    for _ in range(taken):
        next(stream)
    stream.close()
    assert not any(thread.name == "fill" for thread in threading.enumerate())


def test_a_file_that_cannot_be_opened(tmp_path):
    for kind in ("tar", "tar.gz", "wire", "avro"):
        with pytest.raises(SourceError, match="cannot be read"):
            list(read_frames(Segment(Source("x", str(tmp_path / "none"), kind, 0, 0, "native"), 0), Reader()))
    folder = Source("x", str(tmp_path), "folder", 0, 0, "native")
    (((name, fault),),) = map(items_of, read_frames(Segment(folder, 0, members=("none.avro",)), Reader()))
    assert name == "none.avro" and fault.reason == "the file cannot be read: No such file or directory"


def test_a_table_has_no_packets(tmp_path):
    with pytest.raises(SourceError, match="has tables"):
        list(read_frames(Segment(Source("x", str(tmp_path), "parquet", 0, 0, "native"), 0), Reader()))


def test_an_inflated_archive_from_one_of_its_members_on(tmp_path):
    raw = archive([(f"{i}.avro", PAYLOADS[kind]) for i, kind in enumerate(sorted(PAYLOADS))])
    path = tmp_path / "x.tar.gz"
    path.write_bytes(gzip.compress(raw))
    source = Source("x", str(path), "tar.gz", 0, 0, "native")
    whole = [item for batch in read_frames(Segment(source, 0), Reader()) for item in items_of(batch)]
    for member in members(Memory(raw), "x"):
        rest = [
            item for b in read_frames(Segment(source, 0, member.start), Reader(), max_bytes=999) for item in items_of(b)
        ]
        assert rest == whole[len(whole) - len(rest) :]
        assert not rest or rest[0][0] >= member.name


# --------------------------------------------------------------------------------------- hostile
def test_a_block_of_a_million_datums_is_not_a_million_objects(tmp_path):
    schema = {"type": "record", "name": "alert", "fields": [{"name": "x", "type": "boolean"}]}
    n = 1_000_000
    raw = container(schema, [])[:-SYNC_BYTES]
    sync = container(schema, [], sync_marker=b"s" * 16)[-16:]
    raw += sync + kernels_long(n) + kernels_long(n) + b"\1" * n + sync
    segment = Segment(Source("x", str(tmp_path / "x.tar"), "tar", 0, 0, "native"), 0)
    (tmp_path / "x.tar").write_bytes(archive([("1.avro", raw)]))
    rows = 0
    sum(map(len, next(read_frames(segment, Reader()))))  # compiled
    tracemalloc.start()
    for batch in read_frames(segment, Reader()):
        rows += sum(map(len, batch))
        assert sum(map(len, batch)) <= 2048
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert rows == n and peak < 40 << 20


def kernels_long(value: int) -> bytes:
    raw, out = value << 1, bytearray()
    while raw > 127:
        out.append(raw & 127 | 128)
        raw >>= 7
    return bytes([*out, raw])


def test_all_blocks_of_a_packet_together_are_bounded(tmp_path):
    raw = container(SCHEMA, [record(i, 400) for i in range(20)], "deflate", sync_interval=1000)
    path = tmp_path / "x.tar"
    path.write_bytes(archive([("1.avro", raw), ("2.avro", raw)]))
    segment = Segment(Source("x", str(path), "tar", 0, 0, "native"), 0)
    with (
        mock.patch.object(framing, "MAX_BLOCK_BYTES", 4000),
        mock.patch.object(container_module, "MAX_BLOCK_BYTES", 4000),
    ):
        (batch,) = compare(segment, False)
    assert {name for name, item in batch if isinstance(item, Fault) and "more than" in item.reason} == {
        "1.avro",
        "2.avro",
    }


def test_a_hundred_thousand_empty_members(tmp_path):
    header = archive([("x", b"")])[:BLOCK]
    path = tmp_path / "x.tar"
    path.write_bytes(header * 100_000 + bytes(2 * BLOCK))
    tally = Tally()
    started = time.process_time()
    assert list(read_frames(Segment(Source("x", str(path), "tar", 0, 0, "native"), 0), Reader(), tally)) == []
    assert tally.skipped == ["x"] * 100_000
    assert time.process_time() - started < 5


def test_a_member_that_claims_to_be_large_costs_nothing(tmp_path):
    info = tarfile.TarInfo("1.avro")
    info.size = cutting.MAX_MEMBER_BYTES
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"Obj\x01")
    segment = Segment(Source("x", str(path), "tar", 0, 0, "native"), 0)
    with pytest.raises(SourceError, match=r"cut: it ends at byte 516, within member 1.avro, behind 0 whole members"):
        list(read_frames(segment, Reader()))


def test_a_member_of_terabytes_is_passed_over(tmp_path):
    path = tmp_path / "x.tar"
    info = tarfile.TarInfo("1.avro")
    info.size = 3 << 40
    with path.open("wb") as out:  # a file with a hole takes no space
        out.write(info.tobuf(tarfile.GNU_FORMAT))
        out.seek(BLOCK + info.size)
        out.write(archive([("2.avro", SINGLE)]))
    started = time.monotonic()
    batches = compare(Segment(Source("x", str(path), "tar", 0, 0, "native"), 0), False)
    assert [name for batch in batches for name, _ in batch] == ["1.avro", "2.avro"]
    assert time.monotonic() - started < 20


def test_a_pax_header_of_many_short_lines_takes_no_time(tmp_path):
    text = b"4 a\n" * (1 << 18)
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", len(text)
    path = tmp_path / "x.tar"
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + text + archive([("2.avro", SINGLE)]))
    started = time.process_time()
    (batch,) = map(items_of, read_frames(Segment(Source("x", str(path), "tar", 0, 0, "native"), 0), Reader()))
    assert len(batch) == 1 and time.process_time() - started < 5


@pytest.mark.parametrize("text", [b"99999999999999999999999 x=1\n", b"12 size=\xc2\xb2\n", b"x", b"6 a=b"])
def test_pax_headers_that_are_no_numbers(text, tmp_path):
    info = tarfile.TarInfo("x")
    info.type, info.size = b"x", len(text)
    raw = info.tobuf(tarfile.GNU_FORMAT) + text.ljust(BLOCK, b"\0") + archive([("2.avro", SINGLE)])
    with pytest.raises(SourceError, match="broken pax header"):
        list(members(Memory(raw), "x"))


# --------------------------------------------------------------------------------------- wire
@given(st.lists(st.sampled_from(sorted(PAYLOADS))))
def test_messages_are_taken_apart_all_at_once(kinds):
    messages = [PAYLOADS[kind] for kind in kinds if kind != "wire, unknown"]
    messages += [b"\0\0\0\0\x03" + bytes([i]) for i in range(len(messages))]
    frames = wire_frames(messages, resolver)
    expected = [item for message in messages for item in split_wire(message, resolver)]
    found = items_of([frames]) if messages else []
    assert [(None, item) for item in expected] == found and len(frames) == len(messages)


def test_schemas_are_asked_for_once_and_an_unknown_one_is_an_error():
    asked = []

    def resolve(number: int):
        asked.append(number)
        return resolver(number)

    messages = [b"\0\0\0\0" + bytes([number]) + b"body" for number in (5, 3, 5, 9, 3)]
    frames = wire_frames(messages, resolve)
    assert asked == [5, 3, 9] and len(frames.schemas) == 3
    with pytest.raises(SourceError, match="id 77"):
        wire_frames([*messages, b"\0\0\0\0\x4dbody"], resolve)


# --------------------------------------------------------------------------------------- headers
def test_the_table_of_headers_follows_the_cache():
    cache = HeaderCache(capacity=3, max_bytes=1 << 20)
    assert len(cache.table().schemas) == 0
    texts = [container({**SCHEMA, "version": str(i)}, [record(i)]) for i in range(5)]
    for text in texts:
        header = cache.get(text)
        table = cache.table()
        assert table.schemas[table.schema[0]] is header.schema
        assert bytes(table.text[: table.bounds[1]]) == text[: header.length]
        assert cache.table() is table and len(table.schema) <= 3
    cache.get(SINGLE), cache.get(PAYLOADS["documented"])
    assert cache.table().schema.tolist()[:2] == [0, 0]  # two headers of one schema


def test_the_cache_is_bounded_in_bytes():
    cache = HeaderCache(max_bytes=3000)
    for i in range(9):
        cache.get(container({**SCHEMA, "doc": "x" * 1000, "version": str(i)}, []))
    assert len(cache.table().schema) == 3  # the newest, and those that fit beside it
    large = container({**SCHEMA, "doc": "x" * 9000}, [])
    assert cache.get(large) is cache.get(large)


# --------------------------------------------------------------------------------------- kernels as plain Python
def plain_kernels(monkeypatch) -> dict:
    codes = {}
    for module in (kernels, tar_index):
        for name, kernel in list(vars(module).items()):
            if hasattr(kernel, "py_func") and kernel.py_func.__module__ == module.__name__:
                monkeypatch.setattr(module, name, kernel.py_func)
                codes[kernel.py_func.__code__] = set()
    return codes


def test_every_statement_of_the_kernels_as_plain_python(tmp_path, monkeypatch):
    assert kernels.frame_singles(read_only(np.zeros(9, np.uint8)), *EXTENTS, HeaderCache().table())[0].tolist() == []
    codes = plain_kernels(monkeypatch)
    assert len(codes) == 10

    def trace(frame, event, arg):
        if frame.f_code in codes:
            codes[frame.f_code].add(frame.f_lineno)
            return trace
        return None

    raw = b"".join(
        archive([(name, data) for name in NAMES[:-2] for data in PAYLOADS.values()], fmt)
        for fmt in (tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
    )
    names = ["p" * 90 + "/" + "n" * 80 + ".avro", "n" * 95 + ".avro"]
    raw += archive([(name, SINGLE) for name in names], tarfile.USTAR_FORMAT)
    path = tmp_path / "x.tar"
    path.write_bytes(raw)
    container_path = tmp_path / "x.avro"
    container_path.write_bytes(container(SCHEMA, [record(i) for i in range(9)], sync_interval=1))
    sound = container_path.read_bytes()
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        compare(Segment(Source("x", str(path), "tar", 0, 0, "native"), 0), False, max_bytes=40_000)
        with small_limits():
            compare(segments(Source("x", str(path), "tar", 0, 0, "native"), max_packets=2)[0], False)
            compare(segments(Source("x", str(path), "tar", 0, 0, "native"), max_packets=4)[0], False)
        damaged = [
            b"",
            b"\x02",
            b"\x01\x00",
            b"\x02\x01",
            b"\x02\x7f",
            b"\x02\x02x" + b"?" * 16,
            b"\xff" * 12,
            b"\2" + b"\xff" * 12,
        ]
        for end in damaged:
            container_path.write_bytes(sound + end)
            (segment,) = segments(Source("x", str(container_path), "avro", 0, 0, "native"))
            compare(segment, False)
        for start, size in ((-1, 5), (5, 3), (0, 1 << 40)):
            view = read_only(np.frombuffer(SINGLE, dtype=np.uint8))
            extent = np.array([start]), np.array([start + size if size != 3 else 3])
            assert len(kernels.frame_singles(view, *extent, HeaderCache().table())[0]) == 0
        text = read_only(np.frombuffer(b" 12\x0034  ", dtype=np.uint8))
        assert [tar_index._octal(text, *at) for at in ((0, 3), (0, 4), (0, 5), (0, 1), (4, 8))] == [10, 10, -1, -1, 28]
    finally:
        sys.settrace(before)
    for code, seen in codes.items():
        lines = {line for _, _, line in code.co_lines() if line is not None and line > code.co_firstlineno}
        missing = {line for line in lines - seen if not is_docstring(code, line)}
        assert not missing, f"{code.co_name}: {sorted(missing)}"


EXTENTS = np.array([0]), np.array([9])


def is_docstring(code, line: int) -> bool:
    text = Path(code.co_filename).read_text().splitlines()[line - 1].strip()
    return text.startswith(('"""', "def "))


@given(st.lists(st.sampled_from(sorted(PAYLOADS)), max_size=9), st.integers(0, 30))
def test_kernels_and_plain_python_agree(kinds, shift):
    data = bytes(shift) + b"".join(PAYLOADS[kind] for kind in kinds)
    size = np.array([len(PAYLOADS[kind]) for kind in kinds], dtype=np.int64)
    start = shift + np.cumsum(size) - size
    view = read_only(np.frombuffer(data, dtype=np.uint8))
    reader = Reader()
    list(frame_files(Files(view, start, size, pa.array(kinds, pa.string())), reader, "x"))
    table = reader.cache.table()
    fast = [np.zeros((3, len(size)), dtype=np.int64) for _ in range(2)]
    for kernel, out in zip((kernels._frame_singles, kernels._frame_singles.py_func), fast, strict=True):
        kernel(view, start, start + size, table.text, table.bounds, table.is_plain, out[0], out[1], out[2])
    assert (fast[0] == fast[1]).all()


@given(st.integers(0, 300), st.integers(0, 299), st.integers(0, 70), st.integers(0, 70))
def test_bytes_are_compared_to_the_last(n, at, p, q):
    a = random.Random(n).randbytes(n)
    first, second = (read_only(np.frombuffer(bytes(k) + a + bytes(9), dtype=np.uint8)) for k in (p, q))
    assert kernels._is_same(first, p, second, q, n)
    if at < n:
        other = second.copy()
        other[q + at] ^= 0x10
        assert not kernels._is_same(first, p, read_only(other), q, n)


def test_blocks_found_are_those_of_the_walk():
    raw = container(SCHEMA, [record(i) for i in range(200)], sync_interval=100)
    header = HeaderCache().get(raw)
    expected = [(block.offset, block.size, block.count) for block in blocks(raw, header)]
    view = read_only(np.frombuffer(raw, dtype=np.uint8))
    offset, size, count, end = kernels.index_blocks(view, header.length + 16, len(raw), header.length, 1000)
    assert list(zip(offset.tolist(), size.tolist(), count.tolist(), strict=True)) == expected and end == len(raw)
    *few, end = kernels.index_blocks(view, header.length + 16, len(raw), header.length, 3)
    assert few[0].tolist() == offset[:3].tolist() and end == offset[3] - 3 + (1 if size[3] < 64 else 0)
