"""Decode tasks as a run makes them, called directly, or in processes of their own that are told when to begin.

``python tasks.py ROOT DUMP SURVEY CORES`` prepares a run, says ``ready``, and decodes the dump once for every line that
it is sent, answering with a line of JSON.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline import config as configuration
from pipeline.config import PartLimits
from pipeline.dumps import Segment, segments
from pipeline.nights.decode import DecodeJob, decode_segment
from pipeline.nights.run import Run, prepare


def prepared(root: Path, dump: Path, survey: str = "ztf") -> Run:
    """Prepare a serial run of one dump."""
    settings = {"root": str(root), "survey": survey, "report": False, "execution.mode": "serial"}
    return prepare(configuration.load(settings, environment={})[0], [str(dump)])


def job_of(run: Run, segment: Segment) -> DecodeJob:
    """Return the decode task of one segment."""
    return DecodeJob(run.root, run.staging, run.survey, segment, None, None, PartLimits(), None)


def swept(run: Run) -> None:
    """Remove what was staged, so that the next decode does not find it."""
    shutil.rmtree(run.root.path(run.staging), ignore_errors=True)


def receipts(run: Run, found: Sequence[Segment]) -> list[dict[str, Any]]:
    """Decode segments anew; return their receipts."""
    swept(run)
    return [decode_segment(job_of(run, segment)) for segment in found]


def decoded(run: Run, found: Sequence[Segment]) -> dict[str, int]:
    """Decode segments anew; return packets and parts."""
    made = receipts(run, found)
    return {"packets": sum(r["packets"] for r in made), "parts": sum(len(r["parts"]) for r in made)}


# ------------------------------------------------------------------------------------ processes of their own
class Worker:
    """A process with one thread for Arrow, kept on the given cores, that decodes a dump when it is told to."""

    def __init__(self, root: Path, dump: Path, survey: str, cores: Sequence[int]) -> None:
        command = [sys.executable, __file__, str(root), str(dump), survey, ",".join(map(str, cores))]
        environment = {**os.environ, **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")}
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline().strip()
        assert line, "the worker ended early: see what it wrote to the error stream"
        return line

    def begin(self) -> None:
        """Tell it to decode."""
        assert self._process.stdin is not None
        print("go", file=self._process.stdin, flush=True)

    def end(self) -> dict[str, Any]:
        """Wait until it has; return ``wall`` and ``cpu`` seconds, ``packets``, ``parts``, and ``peak`` bytes so far."""
        return json.loads(self._line())

    def decode(self) -> dict[str, Any]:
        """Decode once; returns what :meth:`end` does."""
        self.begin()
        return self.end()

    def close(self) -> None:
        """Let it end."""
        self._process.communicate()
        assert self._process.returncode == 0


@contextmanager
def worker(root: Path, dump: Path, survey: str, cores: Sequence[int]) -> Iterator[Worker]:
    """Start a worker, and let it end."""
    started = Worker(root, dump, survey, cores)
    try:
        yield started
    finally:
        started.close()


def _peak() -> int:
    """Return the largest resident size so far; unlike rusage's, it does not begin with that of the parent."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmHWM"))


def main(root: str, dump: str, survey: str, cores: str) -> None:
    """Serve until standard input ends."""
    os.sched_setaffinity(0, [int(core) for core in cores.split(",")])
    pa.set_cpu_count(1)
    run = prepared(Path(root), Path(dump), survey)
    found = segments(run.sources[0])
    print("ready", flush=True)
    for _ in sys.stdin:
        swept(run)
        wall, cpu = time.perf_counter(), time.process_time()
        made = decoded(run, found)
        spent = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        print(json.dumps({**spent, **made, "peak": _peak()}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
