"""How benchmarks measure: processes with their memory, CPU time before wall time, medians of interleaved rounds."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

ALERTS = int(os.environ.get("ALERTMILL_BENCH_ALERTS", "20000"))
ROUNDS = int(os.environ.get("ALERTMILL_BENCH_ROUNDS", "3"))
JSON = os.environ.get("ALERTMILL_BENCH_JSON")
_SAMPLE_SEC = 0.1
_LEAST_MEASURED_SEC = 0.2
_NIGHT = 20240212


@dataclass(frozen=True)
class Measured:
    """One run of a command: wall and CPU seconds (user and system, children included), largest process in bytes."""

    wall: float
    cpu: float
    peak: int
    out: str


def alertmill(*arguments: str | Path | int, one_core: bool = False) -> Measured:
    """Run the command line in a process of its own, pinned to one core if asked, and watch its processes."""
    command = [sys.executable, "-m", "pipeline.cli", *map(str, arguments)]
    environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
    allowed = sorted(os.sched_getaffinity(0))
    peaks: dict[int, int] = {}
    stop = threading.Event()
    started = time.perf_counter()
    os.sched_setaffinity(0, allowed[:1] if one_core else allowed)  # a child inherits it from its first moment
    try:
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment) as process:
            os.sched_setaffinity(0, allowed)
            watcher = threading.Thread(target=_watch, args=(process.pid, peaks, stop))
            watcher.start()
            before = os.times()
            out, err = process.communicate()
            wall = time.perf_counter() - started
            stop.set()
            watcher.join()
    finally:
        os.sched_setaffinity(0, allowed)
    after = os.times()
    assert process.returncode == 0, f"{' '.join(command)}\n{err.decode()[-2000:]}"
    cpu = (after.children_user + after.children_system) - (before.children_user + before.children_system)
    return Measured(wall, cpu, max(peaks.values(), default=0), out.decode())


def _watch(pid: int, peaks: dict[int, int], stop: threading.Event) -> None:
    try:
        root = psutil.Process(pid)
    except psutil.NoSuchProcess:
        return
    while not stop.wait(_SAMPLE_SEC):
        try:
            for process in [root, *root.children(recursive=True)]:
                peaks[process.pid] = max(peaks.get(process.pid, 0), process.memory_info().rss)
        except psutil.Error:  # it ended between being listed and being asked
            continue


@dataclass(frozen=True)
class Sky:
    """A simulated night: its dump, the options with which it is run, and what the first simulation took."""

    dump: Path
    options: tuple[str, ...]
    made: Measured


def simulate(folder: Path, alerts: int) -> Measured:
    """Simulate on one core."""
    return alertmill(
        "simulate", _NIGHT, "--survey", "ztf", "--alerts", alerts, "--seed", 1, "--out", folder, "--json", one_core=True
    )


def interleaved(variants: Mapping[str, Callable[[], Any]], rounds: int = ROUNDS) -> dict[str, list[Any]]:
    """Call every variant once a round, so that whatever else the machine does falls on all of them alike."""
    results: dict[str, list[Any]] = {name: [] for name in variants}
    for _ in range(rounds):
        for name, call in variants.items():
            results[name].append(call())
    return results


def cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of this process, all its threads, during a call."""
    started = time.process_time()
    call()
    return time.process_time() - started


def steady_cpu_seconds(call: Callable[[], Any]) -> float:
    """CPU seconds of a call that may be short: the mean over as many as fill a fifth of a second."""
    spent, calls = 0.0, 0
    while spent < _LEAST_MEASURED_SEC:
        spent += cpu_seconds(call)
        calls += 1
    return spent / calls


@contextmanager
def pinned(core: int = 0) -> Iterator[None]:
    """Keep this thread, and threads and processes it starts, on one of the cores it may use."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, [sorted(allowed)[core]])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """Median over the rounds of one quantity over another, both of the same round."""
    return median([a / b for a, b in zip(above, below, strict=True)])


@dataclass
class Board:
    """What was measured, printed as a table at the end and written as JSON if asked for."""

    rows: list[tuple[str, str, str]] = field(default_factory=list)
    values: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    load: list[float] = field(default_factory=list)
    missed: list[str] = field(default_factory=list)

    def add(self, key: str, told: str, value: float, unit: str, note: str = "") -> None:
        self.values[key] = value
        digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
        self.rows.append((told, f"{value:,.{digits}f} {unit}", note))

    def bar(
        self,
        key: str,
        told: str,
        value: float,
        unit: str,
        *,
        at_least: float | None = None,
        at_most: float | None = None,
        note: str = "",
    ) -> None:
        """Add a value that has a bar; :meth:`judge` fails where it was missed, once everything stands on the board."""
        is_missed = (at_least is not None and value < at_least) or (at_most is not None and value > at_most)
        wanted = [f"at least {at_least:g}"] if at_least is not None else []
        wanted += [f"at most {at_most:g}"] if at_most is not None else []
        words = f"bar {', '.join(wanted)}{': bar missed' if is_missed else ''}"
        self.add(key, told, value, unit, f"{words}; {note}" if note else words)
        if is_missed:
            self.missed.append(f"{key} = {value:.4g} {unit}, bar {', '.join(wanted)}")

    def judge(self) -> None:
        """Fail with all bars missed since it was asked last."""
        missed, self.missed = self.missed, []
        if missed:
            pytest.fail("bars missed:\n" + "\n".join(missed), pytrace=False)

    def head(self, title: str) -> None:
        self.load.append(os.getloadavg()[0])
        self.rows.append((f"\n{title}", "", ""))

    def note(self, text: str) -> None:
        self.notes.append(text)

    def print(self) -> None:
        width = max((len(told) for told, value, _ in self.rows if value), default=0)
        print(f"\n\nalertmill benchmarks: {ALERTS:,} simulated alerts, medians of {ROUNDS} interleaved rounds")
        for told, value, note in self.rows:
            print(f"{told:<{width}}  {value:>22}  {note}".rstrip() if value else told)
        print()
        for text in self.notes:
            print(text)
        print(self._machine())

    def _machine(self) -> str:
        cores = len(os.sched_getaffinity(0))
        told = ", ".join(f"{load:.1f}" for load in self.load)
        busy = max(self.load, default=0.0) > cores + 0.5
        verdict = "the machine was LOADED: trust CPU times and ratios, not wall times" if busy else "not overloaded"
        return f"{cores} cores; load average before each section {told}: {verdict}"

    def write(self) -> None:
        if JSON:
            content = {"alerts": ALERTS, "rounds": ROUNDS, "load": self.load, "values": self.values}
            Path(JSON).write_text(json.dumps({**content, "notes": self.notes}, indent=1) + "\n", encoding="utf-8")
