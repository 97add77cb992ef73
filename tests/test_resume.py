"""A decode task on a .tar.gz that was killed goes on where its last part ended, and gives what it would have given."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import random
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import fastavro
import pytest
import ztf_packets as ztf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.config import PartLimits
from pipeline.dumps import Mark, Reader, SeekPoints, Segment, Start, Tally, inflate, list_sources, read_frames, segments
from pipeline.dumps import members as source_members
from pipeline.errors import SourceError
from pipeline.nights import arrivals, progress
from pipeline.nights.decode import DecodeJob, SegmentWriter, decode_segment
from pipeline.nights.progress import Progress, State
from pipeline.store import open_root
from pipeline.surveys.superset import known_schemas
from tests.test_framing import NAMES, PAYLOADS, archive, items_of, resolver

BASE = 697_251_920_015_000_000
PACKETS = 90
PART = 8


# --------------------------------------------------------------------------------------- reading from a mark
@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_members, "MARK_BYTES", 3000)


def zipped(data: bytes, each: int) -> bytes:
    """As several gzip members, so that seek points are many."""
    return b"".join(gzip.compress(data[at : at + each], 1) for at in range(0, len(data), each))


def read(segment: Segment, tally: Tally, start: Start | None = None, **limits: Any) -> tuple[list[Any], str]:
    """What is given out, and the error at the end."""
    found: list[Any] = []
    try:
        for batch in read_frames(segment, Reader(resolver), tally, start=start, **limits):
            found += items_of(batch)
    except SourceError as error:
        return found, str(error)
    return found, ""


ENTRIES = st.lists(st.tuples(st.sampled_from(NAMES), st.sampled_from(sorted(PAYLOADS))), min_size=1, max_size=14)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    entries=ENTRIES,
    fmt=st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT]),
    links=st.booleans(),
    cut=st.integers(0, 3),
    window=st.sampled_from([8 * 512, 8 * 4000, 64 << 20]),
    rows=st.sampled_from([1, 3, 2048]),
    draw=st.data(),
)
def test_reading_goes_on_at_any_packet(
    entries: list[tuple[str, str]],
    fmt: int,
    links: bool,
    cut: int,
    window: int,
    rows: int,
    draw: Any,
    tmp_path: Path,
    small: None,
) -> None:
    """Also behind several packets of one member, faults, skipped members, pax headers; also up to an error."""
    if fmt == tarfile.USTAR_FORMAT:
        entries = [(name, key) for name, key in entries if name.isascii() and len(name) < 100]
    data = archive([(name, PAYLOADS[key]) for name, key in entries], fmt, links)
    path = tmp_path / "x.tar.gz"
    path.write_bytes(zipped(data[: len(data) - cut * 700], draw.draw(st.sampled_from([700, 5000, 1 << 20]))))
    segment = Segment(list_sources([str(path)])[0], 0)
    limits: dict[str, Any] = {"max_packets": rows, "max_bytes": window}
    tally = Tally(points=SeekPoints(2000))
    whole, error = read(segment, tally, **limits)
    digest = tally.sha256
    assert whole == read(segment, Tally(), **limits)[0]
    assert tally.marks[0] == Mark() and tally.marks == sorted(tally.marks, key=lambda mark: mark.position)
    for packets in sorted(draw.draw(st.lists(st.integers(0, len(whole)), max_size=4))):
        marks = list(tally.marks)
        start = tally.start_at(packets)
        assert start.mark == max((mark for mark in marks if mark.packets <= packets), key=lambda mark: mark.position)
        assert start.point is None or start.point.offset <= start.mark.position
        known = [] if start.point is None else [start.point]
        later = Tally(skipped=tally.skipped[: start.mark.skipped], points=SeekPoints(2000, known))
        assert read(segment, later, start, **limits) == (whole[packets:], error)
        assert later.skipped == tally.skipped
        assert later.marks[0] == start.mark
        assert later.sha256 == (digest if start.point is None else None)
        if draw.draw(st.booleans()):  # go on from what that found
            tally = later


def test_marks_come_every_few_megabytes_and_old_ones_are_forgotten(tmp_path: Path) -> None:
    noise = random.Random(3)
    entries = [(f"{i}.avro", noise.randbytes(100_000)) for i in range(130)]
    path = tmp_path / "x.tar.gz"
    for fmt in (tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT):
        path.write_bytes(zipped(archive(entries, fmt), 1 << 20))
        tally = Tally(points=SeekPoints(1 << 20))
        whole, _ = read(Segment(list_sources([str(path)])[0], 0), tally)
        steps = [b.position - a.position for a, b in zip(tally.marks, tally.marks[1:], strict=False)]
        assert len(steps) >= 3 and all(source_members.MARK_BYTES <= step < 5 << 20 for step in steps)
        start = tally.start_at(len(whole) - 1)
        assert tally.marks == [start.mark] and len(whole) - start.packets == 1
        assert start.point is not None
        assert start.mark.position > 11 << 20 and start.mark.position - start.point.offset < 2 << 20
    plain = tmp_path / "x.tar"
    plain.write_bytes(archive(entries))
    for tally in (Tally(), Tally(points=None)):
        read(Segment(list_sources([str(plain)])[0], 0), tally)
        assert tally.marks == []


# --------------------------------------------------------------------------------------- a killed task
def container(records: list[dict[str, Any]]) -> bytes:
    buffer = io.BytesIO()
    schema = fastavro.parse_schema(known_schemas("ztf")["4.02"])
    fastavro.writer(buffer, schema, records, sync_marker=b"0123456789abcdef")
    return buffer.getvalue()


def packet(i: int, noise: random.Random) -> dict[str, Any]:
    jd, nid = (ztf.NIGHT_JD + 1, 698) if i % 5 == 3 else (ztf.NIGHT_JD, 697)
    ra = float("nan") if i % 17 == 6 else 26.0 + i
    made = ztf.record(BASE + i, jd=jd, nid=nid, ra=ra, rb=0.2 if i % 13 == 2 else 0.9)
    made["cutoutScience"] = {"fileName": "x", "stampData": noise.randbytes(20_000)}
    return made


def write_dump(path: Path, fmt: int = tarfile.PAX_FORMAT) -> Path:
    """Two nights, refused packets on both sides of part ends, members of many packets and of none, pax headers."""
    noise = random.Random(5)
    with tarfile.open(path, "w:gz", format=fmt) as file:
        i = number = 0
        while i < PACKETS:
            several = 5 if i % 16 == 6 else 1  # over the end of a part
            data = container([packet(i + k, noise) for k in range(several)])
            i += several
            name, data = (f"{number:03d}.txt", b"read me") if number % 7 == 5 else (f"{number:03d}.avro", data)
            i -= several * (number % 7 == 5)
            info = tarfile.TarInfo(name)
            data = data[:-40] if i % 11 == 9 and several == 1 and name.endswith(".avro") else data
            info.size = len(data)
            info.mtime = 1.5 if number % 3 else 1
            file.addfile(info, io.BytesIO(data))
            number += 1
    return path


def job(root: Path, dump: Path, **options: Any) -> DecodeJob:
    (segment,) = segments(list_sources([str(dump)])[0])
    made: dict[str, Any] = {"night": None, "cut": "candidate.rb >= 0.55", "schemas": None, **options}
    limits = PartLimits(max_alerts=PART)
    return DecodeJob(open_root(root, create=True), "_staging/x", "ztf", segment, limits=limits, **made)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.parquet")}


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dump(tmp_path_factory.mktemp("dump") / "a.tar.gz")


@pytest.fixture
def many_points(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_members, "MARK_BYTES", 100_000)
    monkeypatch.setattr(progress, "SeekPoints", functools.partial(SeekPoints, 200_000))


@pytest.fixture(scope="module")
def wanted(dump: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, bytes]]:
    root = tmp_path_factory.mktemp("wanted")
    return decode_segment(job(root, dump)), contents(root)


class Killed(BaseException):
    """Not caught by anything."""


def killing(call: Callable[..., Any], after: int, then: bool) -> Callable[..., Any]:
    """The same function that ends the task the ``after``-th time: when it has done its work, or before."""
    calls = iter(range(1, 1 << 30))

    @functools.wraps(call)
    def killed(*arguments: Any) -> Any:
        is_last = next(calls) == after
        if is_last and not then:
            raise Killed
        result = call(*arguments)
        if is_last:
            raise Killed
        return result

    return killed


@pytest.fixture
def bytes_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Of the gzip file, by read."""
    reads: list[int] = []
    fill = inflate._Stream._fill

    def counted(stream: Any) -> bool:
        before = len(stream._chunk) - stream._at
        is_more = fill(stream)
        reads.append(len(stream._chunk) - before)
        return is_more

    monkeypatch.setattr(inflate._Stream, "_fill", counted)
    return reads


KILLS: dict[str, tuple[Any, str, int, bool]] = {
    **{f"behind part {n}": (Progress, "keep", n, True) for n in range(1, 13)},
    **{f"part {n} not noted": (Progress, "keep", n, False) for n in (1, 5)},
    **{f"in part {n}": (SegmentWriter, "_close_part", n, False) for n in (2, 7)},
    **{f"at batch {n}": (SegmentWriter, "add", n, False) for n in (1, 9, 17, 26)},
}


def same(receipt: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """But for the digest, which a task that has not read all cannot know."""
    assert receipt["sha256"] in (None, wanted["sha256"])
    return json.dumps({**receipt, "sha256": ""}) == json.dumps({**wanted, "sha256": ""})


@pytest.mark.parametrize("kill", KILLS)
def test_a_killed_task_gives_the_same_files_and_receipt(
    kill: str,
    dump: Path,
    wanted: tuple[dict[str, Any], dict[str, bytes]],
    many_points: None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(arrivals, "BATCH_PACKETS", 3)
    owner, name, after, then = KILLS[kill]
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, killing(getattr(owner, name), after, then))
        with pytest.raises(Killed):
            decode_segment(job(tmp_path, dump))
    assert same(decode_segment(job(tmp_path, dump)), wanted[0])
    assert contents(tmp_path) == wanted[1]


def test_the_dump_has_what_is_to_be_tested(
    dump: Path, wanted: tuple[dict[str, Any], dict[str, bytes]], many_points: None, tmp_path: Path
) -> None:
    receipt, _ = wanted
    assert receipt["packets"] >= PACKETS and len(receipt["skipped"]) > 3
    refused = [reason for entry in receipt["nights"].values() for reason in entry["reasons"]]
    assert {"undecodable", "not_normalisable", "cut"} <= set(refused)
    assert len({part["name"] for part in receipt["parts"]}) == 12
    made = job(tmp_path, dump)
    states: list[tuple[State, Start]] = []
    keep = Progress.keep

    def seen(self: Progress, state: State) -> None:
        states.append((state, self.tally.start_at(state["counted"]["packets"])))
        keep(self, state)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "keep", seen)
        decode_segment(made)
    starts = [start for _, start in states]
    assert [start.packets for start in starts[:3]] == [8, 16, 24]
    assert any(start.packets > start.mark.packets for start in starts)  # packets are dropped
    assert len({start.mark.position for start in starts}) >= 8
    assert len({start.point for start in starts}) >= 4


def test_a_task_killed_again_and_again_reads_little_twice(
    dump: Path,
    wanted: tuple[dict[str, Any], dict[str, bytes]],
    many_points: None,
    bytes_read: list[int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind every part: neither is the file read from its beginning, nor a part written again."""
    monkeypatch.setattr(inflate, "READ_BYTES", 32 << 10)
    for _ in range(12):
        with monkeypatch.context() as patch:
            patch.setattr(Progress, "keep", killing(Progress.keep, 1, True))
            with pytest.raises(Killed):
                decode_segment(job(tmp_path, dump))
    times = {path: (tmp_path / path).stat().st_mtime_ns for path in contents(tmp_path)}
    bytes_read.clear()
    receipt = decode_segment(job(tmp_path, dump))
    assert receipt["sha256"] is None and same(receipt, wanted[0]) and contents(tmp_path) == wanted[1]
    assert {path: (tmp_path / path).stat().st_mtime_ns for path in contents(tmp_path)} == times
    assert 0 < sum(bytes_read) < dump.stat().st_size // 3


def interrupted(root: Path, dump: Path, parts: int = 8, **options: Any) -> Path:
    """Kill a task behind its ``parts``-th part, and return the file of its progress."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "keep", killing(Progress.keep, parts, True))
        with pytest.raises(Killed):
            decode_segment(job(root, dump, **options))
    (found,) = root.rglob("*.progress")
    return found


def begins_anew(made: DecodeJob) -> bool:
    begun = Progress(made.root, f"{made.receipt.removesuffix('.json')}.progress", made.identity)
    assert (begun.state is None) == (begun.start is None)
    assert begun.state is not None or begun.tally == Tally(points=begun.tally.points)
    return begun.state is None


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "cut in its digest": lambda data: data[:20],
    "a bit": lambda data: data[:500] + bytes([data[500] ^ 1]) + data[501:],
    "a bit of the seek point": lambda data: data[:-2000] + bytes([data[-2000] ^ 1]) + data[-1999:],
    "noise": lambda data: random.Random(1).randbytes(3000),
    "more": lambda data: data + b" ",
}


@pytest.mark.parametrize("damage", [*DAMAGES, "missing", "a folder"])
def test_a_damaged_or_missing_file_is_as_none(
    damage: str,
    dump: Path,
    wanted: tuple[dict[str, Any], dict[str, bytes]],
    many_points: None,
    tmp_path: Path,
) -> None:
    kept = interrupted(tmp_path, dump)
    assert not begins_anew(job(tmp_path, dump))
    data = kept.read_bytes()
    if damage in DAMAGES:
        kept.write_bytes(DAMAGES[damage](data))
    else:
        kept.unlink()
        if damage == "a folder":
            kept.mkdir()
    assert begins_anew(job(tmp_path, dump))
    if damage == "a folder":
        return
    assert decode_segment(job(tmp_path, dump)) == wanted[0]
    assert contents(tmp_path) == wanted[1]


@pytest.mark.parametrize("damage", ["missing", "shorter"])
@pytest.mark.parametrize("dataset", ["raw", "cutouts", "alerts", "provenance", "rejects"])
def test_a_staged_file_that_is_missing_or_cut_makes_the_task_begin_anew(
    damage: str,
    dataset: str,
    dump: Path,
    wanted: tuple[dict[str, Any], dict[str, bytes]],
    many_points: None,
    tmp_path: Path,
) -> None:
    interrupted(tmp_path, dump)
    path = sorted(path for path in tmp_path.rglob("*.parquet") if f"/{dataset}/" in str(path))[-1]
    if damage == "missing":
        path.unlink()
    else:
        os.truncate(path, path.stat().st_size - 1)
    assert begins_anew(job(tmp_path, dump))
    assert decode_segment(job(tmp_path, dump)) == wanted[0]
    assert contents(tmp_path) == wanted[1]


def test_progress_of_another_task_is_none(dump: Path, many_points: None, tmp_path: Path) -> None:
    interrupted(tmp_path, dump)
    made = job(tmp_path, dump)
    assert not begins_anew(made)
    changes: list[dict[str, Any]] = [{"size": 1}, {"mtime_ns": 1}, {"state": "x"}, {"origin": "parquet"}]
    for change in changes:
        source = replace(made.segment.source, **change)
        assert begins_anew(replace(made, segment=replace(made.segment, source=source)))
    others: dict[str, Any] = {"night": 20181129, "cut": None, "schemas": "x", "survey": "lsst"}
    for name, value in {**others, "limits": PartLimits(max_alerts=PART, max_points=7)}.items():
        assert begins_anew(replace(made, **{name: value}))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "FORMAT", progress.FORMAT + 1)
        assert begins_anew(made)


def test_a_source_that_changed_is_read_from_its_beginning(
    dump: Path, many_points: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = tmp_path / dump.name
    copy.write_bytes(dump.read_bytes())
    interrupted(tmp_path / "d", copy)
    ztf.night_tar(copy, [BASE + i for i in range(30)], mode="w:gz")
    receipt = decode_segment(job(tmp_path / "d", copy))
    assert receipt == decode_segment(job(tmp_path / "e", copy)) and receipt["packets"] == 30


@pytest.mark.parametrize("back", [4, 8])
def test_a_wrong_trailer_fails_the_task_that_goes_on_too(
    back: int, dump: Path, many_points: None, tmp_path: Path, bytes_read: list[int]
) -> None:
    """Bytes change behind the part that was written, and file times do not tell."""
    copy = tmp_path / dump.name
    data = bytearray(dump.read_bytes())
    data[-back] ^= 1
    copy.write_bytes(data)
    with pytest.raises(SourceError) as first:
        decode_segment(job(tmp_path / "anew", copy))
    interrupted(tmp_path / "d", copy)
    bytes_read.clear()
    with pytest.raises(SourceError, match="the gzip stream is damaged"):
        decode_segment(job(tmp_path / "d", copy))
    assert sum(bytes_read) < len(data) // 2
    assert "the gzip stream is damaged" in str(first.value)


@pytest.mark.parametrize("kept", [0, 10, -700])
def test_a_file_that_was_cut_before_the_mark_is_never_the_end(
    kept: int, dump: Path, many_points: None, tmp_path: Path
) -> None:
    copy = tmp_path / dump.name
    copy.write_bytes(dump.read_bytes())
    made = job(tmp_path / "d", copy)
    interrupted(tmp_path / "d", copy)
    start = Progress(made.root, f"{made.receipt.removesuffix('.json')}.progress", made.identity).start
    assert start is not None and start.point is not None and start.point.offset < start.mark.position
    os.truncate(copy, start.point.byte + kept)
    with pytest.raises(SourceError, match="the gzip stream is cut"):
        decode_segment(made)


def test_an_archive_cut_between_gzip_members_before_the_mark_is_told(tmp_path: Path, small: None) -> None:
    data = archive([(f"{i}.avro", PAYLOADS["single"]) for i in range(60)])
    path = tmp_path / "x.tar.gz"
    path.write_bytes(zipped(data, 2000))
    segment = Segment(list_sources([str(path)])[0], 0)
    tally = Tally(points=SeekPoints(20_000))
    assert len(read(segment, tally, max_bytes=32_000)[0]) == 60
    start = tally.start_at(50)
    assert start.point is not None and start.mark.position - start.point.offset > 2000
    os.truncate(path, start.point.byte + len(zipped(data[start.point.offset :][:2000], 2000)))
    found, error = read(segment, Tally(points=SeekPoints()), start)
    assert found == [] and "the archive is cut: it ends at byte" in error


def test_without_a_seek_point_parts_are_kept_all_the_same(
    dump: Path, wanted: tuple[dict[str, Any], dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is inflated from its beginning, and its digest known; what stands before the mark is not decoded."""
    interrupted(tmp_path, dump)
    times = {path: (tmp_path / path).stat().st_mtime_ns for path in contents(tmp_path)}
    assert decode_segment(job(tmp_path, dump)) == wanted[0]
    assert contents(tmp_path) == wanted[1]
    assert all((tmp_path / path).stat().st_mtime_ns == time for path, time in times.items())


def test_other_sources_keep_no_progress(tmp_path: Path) -> None:
    plain = ztf.night_tar(tmp_path / "a.tar", [BASE + i for i in range(3 * PART)])
    (segment, *_) = segments(list_sources([str(plain)])[0])
    decode_segment(replace(job(tmp_path / "d", write_dump(tmp_path / "b.tar.gz")), segment=segment))
    assert list((tmp_path / "d").rglob("*.progress")) == []


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    import threading

    yield
    assert {"alertmill-writer", "fill"}.isdisjoint(thread.name for thread in threading.enumerate())


# --------------------------------------------------------------------------------------- kernels
_WARMED = """
import sys
from pathlib import Path
from pipeline import warm
from pipeline.avro import check, framing
from pipeline.dumps import deflate, inflate, seek
from pipeline.simulation import simulate
kernels = deflate.find_block, check._walk, framing._index_blocks
assert not any(kernel.signatures for kernel in kernels)
dump = simulate(20240101, "ztf", 72, 0, Path(sys.argv[1])).dump
assert warm.read_others(dump) == 2
assert [len(kernel.signatures) for kernel in kernels] == [1, 1, 1]
points = seek.SeekPoints(100_000)
with inflate.Inflated(sys.argv[2], "x", points=points) as stream:
    stream.skip(1 << 30)
assert points.points and len(deflate.find_block.signatures) == 1
"""


def test_kernels_that_only_some_dumps_need_are_compiled_beforehand(dump: Path, tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", _WARMED, str(tmp_path), str(dump)], check=True)
