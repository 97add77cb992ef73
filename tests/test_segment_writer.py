"""The decode task: where parts end, that batches change no byte, and errors of the writing thread."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import ztf_packets as ztf
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config import PartLimits
from pipeline.dumps import Segment, Tally, list_sources, segments
from pipeline.errors import ConservationError, PartError
from pipeline.filters import conditions
from pipeline.nights import arrivals
from pipeline.nights.arrivals import Batch, read_batches
from pipeline.nights.behind import Behind
from pipeline.nights.decode import DecodeJob, SegmentWriter, decode_segment
from pipeline.nights.progress import State
from pipeline.stages.accept import Accepted, accept
from pipeline.store import open_root, parts
from pipeline.surveys import get as get_survey

NIGHT = 20181129
BASE = 697_251_920_015_000_000
SURVEY = get_survey("ztf")


def night_of_all_kinds(path: Path, packets: int = 60) -> Segment:
    """Two nights, packets that cannot be decoded or normalised, and some below the cut."""
    members = []
    for i in range(packets):
        jd, nid = (ztf.NIGHT_JD + 1, 698) if i % 5 == 3 else (ztf.NIGHT_JD, 697)
        ra = float("nan") if i % 17 == 6 else 26.0 + i
        whole = ztf.packet_bytes(ztf.record(BASE + i, jd=jd, nid=nid, ra=ra, rb=0.2 if i % 13 == 2 else 0.9))
        members.append((f"{i:03d}.avro", whole[:-40] if i % 11 == 4 else whole))
    (segment,) = segments(list_sources([str(ztf.write_tar(path, members))])[0])
    return segment


def job(root: Path, segment: Segment, **options: Any) -> DecodeJob:
    limits = PartLimits(**{"max_alerts": 16, **options.pop("limits", {})})
    made: dict[str, Any] = {"night": None, "cut": "candidate.rb >= 0.55", "schemas": None, **options}
    return DecodeJob(open_root(root, create=True), "_staging/x", "ztf", segment, limits=limits, **made)


def batches(made: DecodeJob) -> Iterator[tuple[Batch, Accepted]]:
    assert made.cut is not None
    cut = conditions.parse(made.cut, SURVEY.superset)
    for batch in read_batches(made.segment, SURVEY, None, Tally()):
        yield batch, accept(batch.arrivals, SURVEY, source=made.segment.source.name, night=made.night, cut=cut)


def contents(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.parquet")}


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> Segment:
    return night_of_all_kinds(tmp_path_factory.mktemp("dump") / "a.tar")


@pytest.fixture(autouse=True)
def no_thread_left() -> Iterator[None]:
    yield
    assert "alertmill-writer" not in {thread.name for thread in threading.enumerate()}


@pytest.mark.parametrize("night", [None, NIGHT])
def test_how_packets_come_in_batches_changes_no_byte(
    night: int | None, segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rejects neither: they stand in source order with the part in which they came."""
    receipts, files = [], []
    for size in (1, 3, 16, 25, 2048):
        monkeypatch.setattr(arrivals, "BATCH_PACKETS", size)
        root = tmp_path / str(size)
        receipts.append(decode_segment(job(root, segment, night=night)))
        files.append(contents(root))
    assert files[0] and all(found == files[0] for found in files)
    assert all(json.dumps(receipt) == json.dumps(receipts[0]) for receipt in receipts)
    receipt = receipts[0]
    assert sorted(receipt["staged"]) == sorted(files[0])
    told = [counts["counts"]["packets_in"] for counts in receipt["nights"].values()]
    assert sum(told) == receipt["packets"] == 60
    refused = [file for entry in receipt["nights"].values() for file in entry["rejects"]]
    rows = [row for file in refused for row in pq.read_table(tmp_path / "3" / file["path"]).to_pylist()]
    written = sum(entry["counts"]["written"] for entry in receipt["nights"].values())
    assert len(rows) == 60 - written and {row["reason"] for row in rows} >= {"undecodable", "not_normalisable", "cut"}
    for file in refused:
        places = [int(row["member"][:3]) for row in pq.read_table(tmp_path / "3" / file["path"]).to_pylist()]
        assert places == sorted(places) and len({place // 16 for place in places}) == 1
        assert file["path"].rpartition("/")[2].split(".")[0].endswith(f"-{places[0] // 16:05d}")


def test_rows_of_two_nights_stay_in_source_order(segment: Segment, tmp_path: Path) -> None:
    receipt = decode_segment(job(tmp_path, segment, limits={"max_alerts": 1000}))
    assert [(part["night"], part["name"]) for part in receipt["parts"]] == [
        (night, receipt["parts"][0]["name"]) for night in (NIGHT, NIGHT + 1)
    ]
    seen = []
    for part in receipt["parts"]:
        tables = {name: pq.read_table(tmp_path / file["path"]) for name, file in part["files"].items()}
        ids = tables["alerts"]["alert_id"].to_pylist()
        assert ids == sorted(ids) and len(ids) == part["rows"] > 5
        assert all(table["alert_id"].to_pylist() == ids for table in tables.values())
        assert tables["raw"]["candidate"].combine_chunks().field("candid").to_pylist() == ids
        assert tables["provenance"]["member"].to_pylist() == [f"{i - BASE:03d}.avro" for i in ids]
        assert {(i - BASE) % 5 == 3 for i in ids} == {part["night"] == NIGHT + 1}
        mjd = tables["alerts"]["mjd"].to_pylist()
        assert (part["mjd_min"], part["mjd_max"]) == (min(mjd), max(mjd))
        seen += ids
    assert len(seen) == len(set(seen))


PACKETS = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 9)), max_size=60)


@settings(max_examples=300)
@given(packets=PACKETS, step=st.integers(1, 70), limits=st.tuples(*[st.integers(1, 60)] * 3))
def test_a_part_ends_after_the_packet_that_reaches_a_limit(
    packets: list[tuple[int, int]], step: int, limits: tuple[int, int, int]
) -> None:
    """As counted packet by packet, however they come in batches."""
    wanted, sums = [], [0, 0, 0]
    for place, (length, points) in enumerate(packets):
        sums = [now + more for now, more in zip(sums, (1, length, points), strict=True)]
        if any(now >= most for now, most in zip(sums, limits, strict=True)):
            wanted.append(place + 1)
            sums = [0, 0, 0]
    most = dict(zip(("max_alerts", "max_bytes", "max_points"), limits, strict=True))
    writer = SegmentWriter(DecodeJob(None, "", "ztf", None, None, None, PartLimits(**most), None), SURVEY)  # type: ignore[arg-type]
    found = []
    for start in range(0, len(packets) + 1, step):
        lengths, points = np.array(packets[start : start + step], dtype=np.int64).reshape(-1, 2).T
        found += [start + end for end in writer._boundaries(Batch(lengths, points, None, [], []))]  # type: ignore[arg-type]
    assert found == wanted


# --------------------------------------------------------------------------------------- going on from a part's end
def test_a_task_goes_on_from_the_end_of_any_part(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the state as JSON and the packets that follow: the receipt and the files of a task that was not stopped."""
    monkeypatch.setattr(arrivals, "BATCH_PACKETS", 1)
    made = job(tmp_path / "whole", segment)
    packets = list(batches(made))
    states: list[str] = []

    def keep(state: State) -> None:
        files = [tmp_path / "whole" / path for path in state["staged"]["staged"]]
        assert files and all(file.is_file() for file in files)
        states.append(json.dumps(state))

    with SegmentWriter(made, SURVEY, on_part=keep) as writer:
        for packet in packets:
            writer.add(*packet)
        wanted = writer.finish()
    assert [json.loads(state)["counted"]["packets"] for state in states] == [16, 32, 48, 60]
    assert max(map(len, states)) < 100_000
    for number, state in enumerate(states[:3]):
        root = tmp_path / str(number)
        known = json.loads(state)
        with SegmentWriter(job(root, segment), SURVEY, state=known) as writer:
            for packet in packets[known["counted"]["packets"] :]:
                writer.add(*packet)
            assert json.dumps(writer.finish()) == json.dumps(wanted)
        assert known == json.loads(state)
        rest = set(wanted["staged"]) - set(known["staged"]["staged"])
        assert {path: contents(tmp_path / "whole")[path] for path in rest} == contents(root)


def test_a_packet_that_stands_in_no_count_is_told(segment: Segment, tmp_path: Path) -> None:
    made = job(tmp_path, segment)
    with SegmentWriter(made, SURVEY) as writer:
        for packet in batches(made):
            writer.add(*packet)
        writer._counted.packets += 1
        with pytest.raises(ConservationError, match="61 packets were read, 60 counted"):
            writer.finish()


# --------------------------------------------------------------------------------------- errors and interrupts
def temporaries(root: Path) -> list[Path]:
    return [path for path in root.rglob("*") if path.name.endswith(".tmp")]


def test_a_full_disk_stops_the_task_with_one_line_and_no_stray(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []

    def full(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 9:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(parts.os, "fsync", full)
    with pytest.raises(PartError) as caught:
        decode_segment(job(tmp_path, segment))
    assert "cannot write: No space left on device (dataset" in str(caught.value)
    assert "part part-" in str(caught.value) and "\n" not in str(caught.value)
    assert temporaries(tmp_path) == []


def test_an_interrupt_while_parts_are_open_leaves_no_stray(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrivals, "BATCH_PACKETS", 10)
    monkeypatch.setattr(parts, "_ROW_GROUP", {"raw": 2, "alerts": 2, "cutouts": 2, "provenance": 2, "rejects": 1})
    monkeypatch.setattr(parts, "_LEAST_LAST", {})
    made = job(tmp_path, segment, limits={"max_alerts": 1000})
    with pytest.raises(KeyboardInterrupt), SegmentWriter(made, SURVEY) as writer:
        for number, packet in enumerate(batches(made)):
            writer.add(*packet)
            if number == 4:
                writer._behind.ask(lambda: None)  # what was asked for before the last has been done
                writer._behind.ask(lambda: None)
                assert len(temporaries(tmp_path)) > 8
                raise KeyboardInterrupt
    assert temporaries(tmp_path) == []
    assert list(tmp_path.rglob("*.parquet")) == []


def test_rows_are_written_before_their_part_ends(
    segment: Segment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "_ROW_GROUP", {"cutouts": 4})
    made = job(tmp_path, segment, limits={"max_alerts": 1000})
    with SegmentWriter(made, SURVEY) as writer:
        for packet in batches(made):
            writer.add(*packet)
        writer._behind.ask(lambda: None)
        writer._behind.ask(lambda: None)
        assert [path for path in temporaries(tmp_path) if path.parent.name == "cutouts" and path.stat().st_size > 100]
        writer.finish()
    assert temporaries(tmp_path) == []


# --------------------------------------------------------------------------------------- the thread behind
def test_calls_are_made_in_order_and_few_wait() -> None:
    made: list[int] = []
    go = threading.Event()
    waiting = threading.Event()

    def ask_three(behind: Behind) -> None:
        behind.ask(go.wait)
        for number in range(3):
            behind.ask(made.append, number)
        waiting.set()

    with Behind() as behind:
        asking = threading.Thread(target=ask_three, args=(behind,))
        asking.start()
        assert not waiting.wait(0.2) and behind._calls.qsize() == 1
        go.set()
        asking.join()
        behind.finish()
        assert made == [0, 1, 2]


@pytest.mark.parametrize("error", [PartError("no"), KeyboardInterrupt(), MemoryError()])
def test_an_error_surfaces_and_drops_what_follows(error: BaseException) -> None:
    made: list[int] = []
    go = threading.Event()

    def fail() -> None:
        go.wait()
        raise error

    with Behind() as behind:
        behind.ask(fail)
        behind.ask(made.append, -1)
        go.set()
        with pytest.raises(type(error)) as caught:
            for number in range(100):
                behind.ask(made.append, number)
        assert caught.value is error and made == []
        with pytest.raises(type(error)):
            behind.finish()
    with pytest.raises(type(error)), Behind() as behind:
        behind.ask(fail)
        behind.finish()


def test_leaving_drops_what_waits() -> None:
    made: list[int] = []
    go = threading.Event()

    def leave(behind: Behind) -> None:
        with behind:
            behind.ask(go.wait)
            behind.ask(made.append, 1)

    behind = Behind()
    leaving = threading.Thread(target=leave, args=(behind,))
    leaving.start()
    while not behind._is_dropped:
        pass
    go.set()
    leaving.join()
    assert made == []
