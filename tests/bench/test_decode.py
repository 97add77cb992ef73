"""Avro to Arrow, one core: ours beside fastavro and beside Arrow's Avro reader, in CPU time; ``make bench-decode``.

Every contestant's table is compared with fastavro's, value for value, before it is timed.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from contestants import Contest
from corpora import CORPORA, Corpus
from limits import copying, hash_all
from measuring import ALERTS, Board, interleaved, median, median_ratio, pinned, steady_cpu_seconds

from pipeline.warm import warm

pytestmark = [pytest.mark.bench, pytest.mark.timeout(3600)]

PACKETS = max(ALERTS // 20, 100)
"""A corpus of 1,000 packets is what the decode task takes at once."""

OVER_FASTAVRO = {
    "ztf_3": {"ours, tar": 40.0, "ours, bodies": 50.0},
    "ztf_4": {"ours, tar": 40.0, "ours, bodies": 50.0},
    "ztf_simulated": {"ours, tar": 40.0, "ours, bodies": 50.0},
    "rubin_stamps": {"ours, tar": 6.0, "ours, bodies": 6.0},
    "rubin_simulated": {"ours, tar": 25.0, "ours, bodies": 25.0},
    "rubin_fake": {"ours, tar": 25.0, "ours, bodies": 25.0},
    "rubin_long": {"ours, tar": 25.0, "ours, bodies": 25.0},
    "elasticc": {"ours, tar": 20.0, "ours, bodies": 20.0},
}
"""How many times faster than fastavro.reader and from_pylist."""

OVER_LIBRARIES = 3.0
"""How many times faster than the best library on re-framed containers; of ZTF."""

OF_MEMCPY = 20.0
"""Per cent of the rate at which the bytes kept can be copied, where they are mostly stamps. Without, a value of four
or eight bytes costs some 2 ns to read, whatever memory could do."""
WITH_STAMPS = ("ztf_3", "ztf_4", "ztf_simulated", "rubin_stamps")

LIBRARIES = ("polars-avro", "datafusion")
Times = dict[str, list[float]]


@pytest.fixture(scope="module")
def folder(memory: Path) -> Path:
    warm(("ztf",))  # a new version of a kernel is compiled here, not while something is measured
    return memory


@pytest.mark.parametrize("key", CORPORA)
def test_decode(key: str, real: Path | None, folder: Path, board: Board, one_arrow_thread: None) -> None:
    assert os.environ["POLARS_MAX_THREADS"] == "1"
    corpus = CORPORA[key](real, folder, PACKETS)
    if corpus is None:
        pytest.skip("made of real packets only")
    with pinned():
        _measure(corpus, folder, board)
    board.judge()


def _measure(corpus: Corpus, folder: Path, board: Board) -> None:
    contest = Contest(corpus, folder)
    contest.check()
    limits = {"memcpy of the bytes kept": copying(contest.kept), "memcpy of the bodies": copying(corpus.body_bytes)}
    limits["sha256 of the bodies"] = lambda: hash_all(corpus.bodies)
    calls = {**contest.calls, **limits}
    times = interleaved({name: lambda call=call: steady_cpu_seconds(call) for name, call in calls.items()})
    n = len(corpus.bodies)
    sizes = (
        f"file {len(b''.join(corpus.files)) // n:,} B, body {corpus.body_bytes // n:,} B, kept {contest.kept // n:,} B"
    )
    board.head(f"decode {corpus.told}: {n:,} packets, {sizes}; CPU time of one core")
    for name in calls:
        seconds = median(times[name])
        speed = f"{corpus.body_bytes / seconds / 1e6:,.0f} MB/s of body"
        ratio = f"{median_ratio(times['fastavro.reader'], times[name]):,.1f} x fastavro.reader"
        told = speed if name in limits else f"{speed}, {ratio}"
        board.add(_key(corpus, name), f"  {name}", seconds / n * 1e6, "us/alert", told)
    for name, reason in contest.failed.items():
        board.note(f"{corpus.told}: {name} is out: {reason}")
    _bars(corpus, times, board)


def _key(corpus: Corpus, name: str) -> str:
    return f"decode_{corpus.key}_{name.replace(', ', '_').replace(' ', '_').replace('.', '_').replace('-', '_')}"


def _bars(corpus: Corpus, times: Times, board: Board) -> None:
    for name, bar in OVER_FASTAVRO[corpus.key].items():
        ratio = median_ratio(times["fastavro.reader"], times[name])
        board.bar(
            _key(corpus, f"{name} over fastavro"), f"  {name}, over fastavro.reader", ratio, "times", at_least=bar
        )
    for name, ending in (("ours, bodies", ""), ("ours, tar", ", re-framed")):
        best = min((median(times[lib + ending]), lib) for lib in LIBRARIES if lib + ending in times)[1] + ending
        told = f"  {name}, over {best}"
        ratio = median_ratio(times[best], times[name])
        key = _key(corpus, f"{name} over libraries")
        if corpus.survey == "ztf":
            board.bar(key, told, ratio, "times", at_least=OVER_LIBRARIES)
        else:
            board.add(key, told, ratio, "times")
    for name in OVER_FASTAVRO[corpus.key]:
        share = 100 * median_ratio(times["memcpy of the bytes kept"], times[name])
        told = f"  {name}, of the memcpy rate of the bytes kept"
        if corpus.key in WITH_STAMPS:
            board.bar(_key(corpus, f"{name} of memcpy"), told, share, "%", at_least=OF_MEMCPY)
        else:
            board.add(_key(corpus, f"{name} of memcpy"), told, share, "%")
