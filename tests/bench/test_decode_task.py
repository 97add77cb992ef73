"""The decode task whole, from a dump to staged Parquet, beside the limits of the machine; ``make bench-decode``."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from contestants import ours_from_tar, read_only
from corpora import NIGHT, members, taken_apart
from limits import INFLATERS, hash_all, inflate, plain_settings, shipped_settings, staged, write, writing
from measuring import ALERTS, Board, cpu_seconds, interleaved, median, median_ratio, pinned
from tasks import prepared, receipts, worker
from zlib_ng import gzip_ng

from pipeline.dumps import Reader, Segment, Tally, segments
from pipeline.nights.arrivals import read_batches
from pipeline.schema import content_hashes
from pipeline.simulate.packets import TAR_END
from pipeline.simulation import simulate
from pipeline.stages.accept import accept
from pipeline.store.parts import read_table, sha256_of
from pipeline.surveys import get as get_survey
from pipeline.surveys.base import Survey
from pipeline.warm import warm

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

GIB = 1 << 30
PACKETS = max(ALERTS * 2 // 5, 400)
COPIES = 3
MEMORY_BYTES = min(ALERTS * 150_000, 3 * GIB)
"""Inflated size of the dump by which memory is measured: 3 GiB in a run of the usual size."""

LEAST_OF_INFLATING = 60.0
LEAST_OF_WRITING = 60.0
MOST_OF_PLAIN_WRITING = 1.25
LEAST_SCALING = 1.8
MOST_MEMORY_GIB = 1.0
MOST_SECONDS_TO_READY = 1.5
"""About a second, on a machine that may be doing something else too."""

WRITTEN = ("raw", "cutouts", "alerts")


@dataclass(frozen=True)
class Dump:
    """A simulated ZTF night with stamps: plain and compressed, and the root and receipts of decoding it once."""

    folder: Path
    tar: Path
    gzip: Path
    parts: list[dict[str, Any]]
    segments: list[Segment]

    @property
    def root(self) -> Path:
        return self.folder / "made"

    @property
    def packets(self) -> int:
        return PACKETS


@pytest.fixture(scope="module")
def dump(memory: Path) -> Dump:
    warm(("ztf",))
    made = simulate(NIGHT, "ztf", PACKETS, 1, memory / "night")
    packed = made.dump.with_suffix(".tar.gz")
    with made.dump.open("rb") as plain, gzip_ng.open(packed, "wb", compresslevel=6) as file:
        shutil.copyfileobj(plain, file, 1 << 20)
    run = prepared(memory / "made", made.dump)
    found = segments(run.sources[0])
    parts = [part for receipt in receipts(run, found) for part in receipt["parts"]]
    assert sum(part["rows"] for part in parts) == PACKETS
    return Dump(memory, made.dump, packed, parts, found)


@pytest.fixture
def cores() -> list[int]:
    found = sorted(os.sched_getaffinity(0))
    if len(found) < 2:
        pytest.skip("two cores are needed")
    return found[:2]


# -------------------------------------------------------------------------------------------- whole paths
def test_compressed_dump(dump: Dump, cores: list[int], real: Path | None, board: Board) -> None:
    night = dump.folder / "night.tar.gz"
    night.write_bytes(
        dump.gzip.read_bytes() * COPIES
    )  # joined archives are one: a night, where begin and end are little
    dumps = {"simulated": night}
    if real is not None:
        dumps["real"] = real / "alerts/ztf/ztf_public_20181129.tar.gz"
    for name, path in dumps.items():
        _compressed(name, path, dump.folder / name, cores, board)
    board.judge()


def _compressed(name: str, path: Path, root: Path, cores: list[int], board: Board) -> None:
    with worker(root, path, "ztf", cores) as process:
        packets = process.decode()["packets"]

        def inflating(library: str) -> Callable[[], dict[str, float]]:
            return lambda: _times(lambda: inflate(path, library))

        calls = {library: inflating(library) for library in INFLATERS}
        with pinned():
            times = interleaved({**calls, "whole": process.decode})
    size = inflate(path, "isal")
    board.head(
        f"from .tar.gz to Parquet (raw, cutouts, alerts, provenance): {name} ZTF, {packets:,} packets, "
        f"{size / 1e6:,.0f} MB inflated; wall time"
    )
    wall = {who: [one["wall"] for one in of] for who, of in times.items()}
    cpu = {who: [one["cpu"] for one in of] for who, of in times.items()}
    best = min(INFLATERS, key=lambda library: median(wall[library]))
    for library in INFLATERS:
        told = f"  inflating alone, {library}, one core"
        _add(board, f"gzip_{name}_{library}", told, median(wall[library]), packets, size)
    _add(board, f"gzip_{name}_whole", "  one process on two cores", median(wall["whole"]), packets, size)
    board.add(f"gzip_{name}_cpu", "  its CPU time", median(cpu["whole"]) / packets * 1e6, "us/alert")
    told = f"  of the rate of inflating alone ({best})"
    share = 100 * median_ratio(wall[best], wall["whole"])
    at_best = (
        f"at most {200 * median_ratio(cpu[best], cpu['whole']):.0f} % by CPU time, with two free cores never waiting"
    )
    if name == "simulated":
        board.bar(f"gzip_{name}_share", told, share, "%", at_least=LEAST_OF_INFLATING, note=at_best)
    else:
        board.add(f"gzip_{name}_share", told, share, "%", f"{at_best}; start and end of the task weigh")


def _times(call: Callable[[], Any]) -> dict[str, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}


def _add(board: Board, key: str, told: str, seconds: float, packets: int, size: int) -> None:
    board.add(key, told, seconds / packets * 1e6, "us/alert", f"{size / seconds / 1e6:,.0f} MB/s")


def test_plain_dump(dump: Dump, cores: list[int], board: Board, one_arrow_thread: None) -> None:
    size = dump.tar.stat().st_size
    tables = {name: [read_table(path) for path in paths] for name, paths in _files(dump).items()}
    target = dump.folder / "limit"
    settings = {
        kind: {name: [make(path) for path in paths] for name, paths in _files(dump).items()}
        for kind, make in (("shipped", shipped_settings), ("plain", plain_settings))
    }

    def limit(name: str, kind: str) -> float:
        return cpu_seconds(writing(tables[name], settings[kind][name], target))

    _check_settings(dump, tables, settings["shipped"])
    calls: dict[str, Callable[[], Any]] = {
        f"{name}, {kind}": lambda name=name, kind=kind: limit(name, kind) for name in WRITTEN for kind in settings
    }
    with worker(dump.folder / "plain", dump.tar, "ztf", cores[:1]) as process:
        process.decode()
        with pinned(1):
            times = interleaved({**calls, "whole": process.decode})
    cpu = [one["cpu"] for one in times["whole"]]
    shipped, plain = (
        [sum(x) for x in zip(*(times[f"{n}, {kind}"] for n in WRITTEN), strict=True)] for kind in settings
    )
    board.head(
        f"from plain .tar to Parquet (raw, cutouts, alerts, provenance): simulated ZTF, {dump.packets:,} packets; "
        "CPU time of one core"
    )
    _add(board, "plain_whole", "  whole", median(cpu), dump.packets, size)
    wall = median([one["wall"] for one in times["whole"]])
    board.add("plain_wall", "  its wall time", wall / dump.packets * 1e6, "us/alert")
    for name in WRITTEN:
        for kind in settings:
            seconds = median(times[f"{name}, {kind}"])
            told = f"  pyarrow writes {name}, {'as shipped' if kind == 'shipped' else 'zstd-1 without dictionary'}"
            board.add(f"write_{name}_{kind}", told, seconds / dump.packets * 1e6, "us/alert")
    share = 100 * median_ratio(shipped, cpu)
    board.bar("plain_share", "  share of the Parquet-write limit", share, "%", at_least=LEAST_OF_WRITING)
    ratio = median_ratio(shipped, plain)
    board.bar(
        "write_ratio", "  as shipped over zstd-1 without dictionary", ratio, "times", at_most=MOST_OF_PLAIN_WRITING
    )
    board.judge()


def _files(dump: Dump) -> dict[str, list[Path]]:
    return staged(dump.parts, dump.root, WRITTEN)


def _check_settings(dump: Dump, tables: Any, settings: Any) -> None:
    """See that what is measured as the limit writes the same columns in the same number of bytes."""
    for name, paths in _files(dump).items():
        for table, one, path in zip(tables[name], settings[name], paths, strict=True):
            size = write(table, dump.folder / "check.parquet", one)
            assert abs(size - path.stat().st_size) < 0.02 * size, f"{name}: the shipped settings were not recognised"


# ----------------------------------------------------------------------------------------- where the time goes
DIGESTS = ("sha256 of the bodies", "sha256 of the files", "content hashes")


def test_steps(dump: Dump, board: Board, one_arrow_thread: None) -> None:
    """Time each step by itself over the whole dump, on one core; what threads and queues cost is the rest."""
    survey = get_survey("ztf")
    files = staged(dump.parts, dump.root, [*WRITTEN, "provenance"])
    tables = [read_table(path) for paths in files.values() for path in paths]
    flat = [path for paths in files.values() for path in paths]
    settings = [shipped_settings(path) for path in flat]
    _, bodies = taken_apart(members(dump.tar, dump.packets))
    run, reader = prepared(dump.folder / "steps", dump.tar), Reader()
    steps: dict[str, Callable[[], Any]] = {
        "read and frame": lambda: read_only(dump.segments, reader),
        "read, frame and decode": lambda: ours_from_tar(dump.segments, "ztf", reader),
        "sha256 of the bodies": lambda: hash_all(bodies),
        "content hashes": lambda: [content_hashes(table) for table in tables],
        "write": writing(tables, settings, dump.folder / "steps-written"),
        "sha256 of the files": lambda: [sha256_of(path) for path in flat],
        "whole": lambda: receipts(run, dump.segments),
    }
    with pinned():
        times = interleaved({name: lambda call=call: cpu_seconds(call) for name, call in steps.items()}, rounds=2)
        seconds = {name: median(values) for name, values in times.items()}
        seconds["accept and normalise"] = _accepting(dump.segments, survey)
    seconds["decode"] = seconds.pop("read, frame and decode") - seconds["read and frame"]
    whole = seconds.pop("whole")
    seconds["the rest: tables cut and joined, threads, receipts"] = whole - sum(seconds.values())
    board.head("steps of the decode task, each by itself, plain .tar; CPU time of one core")
    for name, value in sorted(seconds.items(), key=lambda item: -item[1]):
        share = f"{100 * value / whole:.0f} %"
        board.add(
            f"step_{name.split(':')[0].replace(' ', '_')}", f"  {name}", value / dump.packets * 1e6, "us/alert", share
        )
    digests = sum(seconds[name] for name in DIGESTS)
    told = "write over all but the digests: what the conversion alone reaches"
    board.add("plain_share_without_digests", f"  {told}", 100 * seconds["write"] / (whole - digests), "%")
    assert whole > digests > 0


def _accepting(found: list[Segment], survey: Survey) -> float:
    spent = 0.0
    for segment in found:
        for batch in read_batches(segment, survey, None, Tally()):
            started = time.process_time()
            accept(batch.arrivals, survey, source=segment.source.name)
            spent += time.process_time() - started
    return spent


# ------------------------------------------------------------------------------------------------- processes
def test_scaling(dump: Dump, cores: list[int], board: Board) -> None:
    with (
        worker(dump.folder / "first", dump.tar, "ztf", cores[:1]) as first,
        worker(dump.folder / "second", dump.tar, "ztf", cores[1:]) as second,
    ):
        first.decode(), second.decode()

        def both() -> dict[str, float]:
            first.begin(), second.begin()
            ends = first.end(), second.end()
            return {kind: max(end[kind] for end in ends) for kind in ("wall", "cpu")}

        times = interleaved({"one": first.decode, "two": both})
    board.head(
        f"two workers of one thread, each pinned to a core, page cache in, memory out: {dump.packets:,} packets each"
    )
    one, two = ([run["wall"] for run in times[name]] for name in ("one", "two"))
    board.add("scaling_decode_one", "  one worker, wall time", dump.packets / median(one), "alerts/s")
    board.add("scaling_decode_two", "  two workers, wall time", 2 * dump.packets / median(two), "alerts/s")
    cpu = median_ratio(*([run["cpu"] for run in times[name]] for name in ("one", "two")))
    board.add("scaling_decode_cpu", "  two over one, by CPU time", 2 * cpu, "times", "what memory and caches allow")
    board.bar(
        "scaling_decode", "  two over one, by wall time", 2 * median_ratio(one, two), "times", at_least=LEAST_SCALING
    )
    board.judge()


def test_memory(dump: Dump, cores: list[int], board: Board) -> None:
    large = dump.folder / "large.tar.gz"
    copies = max(round(MEMORY_BYTES / dump.tar.stat().st_size), 1)
    _repeat(dump.tar, large, copies)
    try:
        with worker(dump.folder / "large", large, "ztf", cores) as process:
            end = process.decode()
    finally:
        large.unlink()
        shutil.rmtree(dump.folder / "large", ignore_errors=True)
    inflated = copies * dump.tar.stat().st_size / GIB
    board.head(f"memory of one decode task, a .tar.gz of {inflated:.1f} GiB inflated, {end['packets']:,} packets")
    note = f"{end['parts']} parts in {end['wall']:.0f} s"
    board.bar(
        "decode_peak_gib", "  largest resident size", end["peak"] / GIB, "GiB", at_most=MOST_MEMORY_GIB, note=note
    )
    assert end["packets"] == copies * dump.packets
    board.judge()


def _repeat(tar: Path, target: Path, copies: int) -> None:
    """Write an archive several times over as one: gzip members behind one another are one stream."""
    content = tar.read_bytes()
    assert content.endswith(TAR_END)
    packed = gzip_ng.compress(content[: -len(TAR_END)], 1)
    with target.open("wb") as file:
        for _ in range(copies):
            file.write(packed)
        file.write(gzip_ng.compress(TAR_END, 1))


READY = """
import sys, time
started = time.process_time()
from pipeline import avro
from pipeline.avro import HeaderCache, split_container
from pipeline.surveys import get
imported = time.process_time()
survey = get("ztf")
with open(sys.argv[1], "rb") as file:
    (datum,) = split_container(file.read(), HeaderCache())
assert avro.decode([datum], survey.superset, survey.cutout_columns).raw.num_rows == 1
print(imported, time.process_time() - imported)
"""


def test_a_fresh_process_is_ready_soon(dump: Dump, board: Board) -> None:
    packet = dump.folder / "packet.avro"
    packet.write_bytes(members(dump.tar, 1)[0])

    def start() -> tuple[float, float]:
        done = subprocess.run([sys.executable, "-c", READY, str(packet)], capture_output=True, text=True, check=True)
        imported, decoded = map(float, done.stdout.split())
        return imported, decoded

    start()
    imported, decoded = zip(*interleaved({"start": start}, rounds=5)["start"], strict=True)
    board.head("a fresh process, until it has decoded its first packet; CPU time")
    board.add("ready_imports", "  interpreter and imports", median(imported), "s")
    board.add("ready_kernels", "  kernels loaded, superset built, one packet decoded", median(decoded), "s")
    whole = median([a + b for a, b in zip(imported, decoded, strict=True)])
    board.bar("ready", "  together", whole, "s", at_most=MOST_SECONDS_TO_READY)
    board.judge()
