"""Damage packets by the million: ``python -m tests.fuzz.run_fuzz --cases 1000000``.

Workers are processes of their own, with Arrow's memory checked at every release, and bodies and buffers that end at a
forbidden page, so that a stray read or write ends the worker; its batch is then named, and can be run alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import fields
from pathlib import Path
from threading import Thread

from tests.fuzz.bases import FAMILIES
from tests.fuzz.batch import BATCH, Tally, run_batch
from tests.fuzz.fences import Fence

ROOT = Path(__file__).parents[2]
CHECKED = {"ARROW_DEBUG_MEMORY_POOL": "trap", "MALLOC_PERTURB_": "165"}
"""Arrow looks behind each of its buffers when it is freed; freed memory of the C library is overwritten."""

RSS = 900 << 20
"""Most memory of a worker, compiled kernels and all bases included."""
N_FENCES = 3
SHARES = (0.2, 0.8)
"""What fastavro must accept of each family: fewer, and the depths are never reached; more, and nothing is refused."""


def largest_kib() -> int:
    """Return the largest resident size of this program (``getrusage`` would count that of whoever started it)."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")))


def batches(cases: int, families: tuple[str, ...] = FAMILIES) -> list[tuple[str, int]]:
    """Return (family, first case) of every batch; the families take turns, in each worker too."""
    each, n = max(cases // len(families) // BATCH, 1), len(families)
    return [(families[(i + k) % n], k * BATCH) for k in range(each) for i in range(n)]


# ------------------------------------------------------------------------------------------------ a worker
def work(todo: list[tuple[str, int]], seed: int) -> None:
    """Run batches, one line each to standard output before and after."""
    fences = [Fence() for _ in range(N_FENCES)]
    warm(fences)
    for family, first in todo:
        print(json.dumps({"at": [family, first]}), flush=True)
        try:
            tally = run_batch(family, seed, first, BATCH, fences, None)
        except Exception as error:  # the decoder may raise nothing at all: one more defect, and on with the next batch
            tally = Tally(defects=[f"{family} {first}: {type(error).__name__} {error}"])
            traceback.print_exc()
        tally.most["RSS MB"] = largest_kib() / 1024
        if tally.most["RSS MB"] > RSS >> 20:
            tally.defects.append(f"the worker takes {tally.most['RSS MB']:.0f} MB")
        print(json.dumps({"tally": {item.name: getattr(tally, item.name) for item in fields(tally)}}), flush=True)


def warm(fences: list[Fence]) -> None:
    """Compile or load the kernels, which takes seconds that are no batch's."""
    run_batch("elasticc", 0, 0, 1, fences, None)


class Worker:
    """A process that runs every n-th batch, and what it has told."""

    def __init__(self, options: list[str], environment: dict[str, str]) -> None:
        command = [sys.executable, "-m", "tests.fuzz.run_fuzz", *options]
        self._process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        self._at: list[object] = []
        self.tally = Tally()
        self.batches = 0
        self._thread = Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            told = json.loads(line)
            if "at" in told:
                self._at = told["at"]
            else:
                counts = {k: Counter(v) if k not in ("most", "defects") else v for k, v in told["tally"].items()}
                self.tally.add(Tally(**counts))
                self.batches += 1
        self._process.stdout.close()

    def is_alive(self) -> bool:
        return self._thread.is_alive()

    def finish(self) -> None:
        self._thread.join()
        if code := self._process.wait():
            self.tally.defects.append(f"a worker ended with {code} in family and case {self._at}")


def run(cases: int, seed: int, n_workers: int, families: tuple[str, ...] = FAMILIES) -> Tally:
    """Run ``cases`` mutants in ``n_workers`` processes."""
    environment = {**os.environ, **CHECKED}
    shared = ["--cases", str(cases), "--seed", str(seed), "--families", *families]
    workers = [Worker([*shared, "--share", f"{i}/{n_workers}"], environment) for i in range(n_workers)]
    total = len(batches(cases, families))
    while any(worker.is_alive() for worker in workers):
        time.sleep(1)
        if sys.stderr.isatty():
            print(f"\r{sum(worker.batches for worker in workers)} of {total} batches", end="", file=sys.stderr)
    tally = Tally()
    for worker in workers:
        worker.finish()
        tally.add(worker.tally)
    return tally


# ------------------------------------------------------------------------------------------------ the report
def report(tally: Tally) -> list[str]:
    """Return the counts by family, kind and reason as lines."""
    lines = []
    for family in [name for name in FAMILIES if tally.cases[name]]:
        n = tally.cases[family]
        shares = tally.accepted[family] / n, tally.by_fastavro[family] / n
        lines.append(f"{family}: {n} mutants, accepted {shares[0]:.1%}, by fastavro {shares[1]:.1%}")
        told = {"changed": tally.kinds, "refused by rule": tally.reasons, "of them read by fastavro": tally.stricter}
        for title, counts in told.items():
            ours = [(k, name.removeprefix(f"{family} ")) for name, k in counts.items() if name.startswith(f"{family} ")]
            lines.append(f"  {title}: " + ", ".join(f"{name} {k}" for k, name in sorted(ours, reverse=True)))
    lines.append("most: " + ", ".join(f"{name} {value:.3g}" for name, value in sorted(tally.most.items())))
    lines.append("noted: " + ", ".join(f"{name} {n}" for name, n in tally.notes.items()))
    return lines


def faults(tally: Tally) -> list[str]:
    """Return what is wrong: defects, and a mix of mutants that proves too little."""
    out = list(tally.defects)
    for family, n in tally.cases.items():
        if not SHARES[0] <= tally.by_fastavro[family] / n <= SHARES[1]:
            out.append(f"fastavro accepts {tally.by_fastavro[family] / n:.0%} of the mutants of {family}")
    return out


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=int(os.environ.get("ALERTMILL_FUZZ_CASES", "1000000")))
    parser.add_argument("--seed", type=int, default=int(os.environ.get("ALERTMILL_FUZZ_SEED", "1")))
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--families", nargs="+", choices=FAMILIES, default=FAMILIES)
    parser.add_argument("--share", help="i/n: be worker i of n")
    parser.add_argument("--first", type=int, help="run the one batch of a family that begins at this case")
    given = parser.parse_args()
    families = tuple(given.families)
    if given.first is not None:
        tally = run_batch(families[0], given.seed, given.first, BATCH, [Fence() for _ in range(N_FENCES)], None)
    elif given.share:
        share, n = map(int, given.share.split("/"))
        work(batches(given.cases, families)[share::n], given.seed)
        return 0
    else:
        began = time.monotonic()
        tally = run(given.cases, given.seed, given.workers, families)
        print(f"{sum(tally.cases.values())} mutants in {time.monotonic() - began:.0f} s, seed {given.seed}")
    print("\n".join(report(tally)))
    wrong = faults(tally)
    print("\n".join(line[:3000] for line in wrong[:20]) or "no defect")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
