"""Which statements of the kernels run: ``python -m tests.fuzz.tracing``, with the kernels as plain Python.

Prints a line of JSON for each module of kernels: how many statements its kernels have, and the lines that never ran.
"""

from __future__ import annotations

import ast
import json
import os
import random
import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

FOLDER = Path(__file__).parents[2] / "pipeline/avro"
NAMES = ("check", "kernel", "primitives")
CASES = 60
"""Mutants of a batch: plain Python takes some milliseconds for each."""


def statements(path: Path) -> set[int]:
    """Return the lines of compiled functions that the compiler gives code to."""
    tree = ast.parse(path.read_text())
    spans = [
        (node.body[0].lineno, node.end_lineno or 0)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and any("njit" in ast.unparse(mark) for mark in node.decorator_list)
    ]
    lines: set[int] = set()

    def visit(code: CodeType) -> None:
        lines.update(line for _, _, line in code.co_lines() if line)
        for inner in code.co_consts:
            if isinstance(inner, CodeType):
                visit(inner)

    visit(compile(path.read_text(), str(path), "exec"))
    return {line for line in lines if any(first <= line <= last for first, last in spans)}


class Tracer:
    """Notes every line that runs in some files."""

    def __init__(self, paths: list[Path]) -> None:
        self.ran: dict[str, set[int]] = {str(path): set() for path in paths}

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        lines = self.ran.get(frame.f_code.co_filename)
        if lines is None:
            return None

        def local(frame: FrameType, event: str, argument: Any) -> Any:
            lines.add(frame.f_lineno)
            return local

        return local(frame, event, argument)


def exercise() -> list[str]:
    """Decode mutants of every family whole and projected, with room and without, and walk them; return the defects."""
    from pipeline.avro.check import walk
    from tests.fuzz.bases import base, cutouts_of, superset_of, writer
    from tests.fuzz.batch import BATCH, Packet, Way, batch_of, check, run_batch
    from tests.fuzz.fences import Fence
    from tests.fuzz.mutate import mutant

    fences = [Fence() for _ in range(3)]
    defects = []
    for k, family in enumerate(("ztf", "lsst", "elasticc", "every", "any")):
        defects += run_batch(family, k, BATCH * 7, CASES, fences, None).defects
    names = superset_of("every").names
    whole = base("every", "2.0", 4).body
    cuts = [Packet(whole[:n], "2.0", 0, mutant("every", 0, 0)) for n in range(len(whole))]
    for k in range(6):
        packets = batch_of("every", k, 0, 2 * CASES) if k else cuts
        columns = frozenset(names[k // 2 :: 3]) if k % 2 else None
        way = Way(superset_of("every"), cutouts_of("every"), columns, is_tight=k > 3)
        defects += check("every", packets, way, fences, random.Random(k)).defects
        for packet in packets:
            one = writer("every", packet.version)
            walked = walk(packet.body, 0, len(packet.body), 1, one.schema.program)
            if (walked.reason is None) != (one.reference.judge(packet.body).rule is None):
                defects.append(f"{walked} of {packet.body.hex()}")
    return defects


def main() -> None:
    assert os.environ.get("NUMBA_DISABLE_JIT") == "1"
    paths = [FOLDER / f"{name}.py" for name in NAMES]
    tracer = Tracer(paths)
    sys.settrace(tracer)
    defects = exercise()
    sys.settrace(None)
    for path in paths:
        lines = statements(path)
        missed = sorted(lines - tracer.ran[str(path)])
        print(json.dumps({"module": path.stem, "statements": len(lines), "missed": missed}))
    print(json.dumps({"defects": defects[:5]}))


if __name__ == "__main__":
    main()
