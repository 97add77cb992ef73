"""The kernels that read outside bytes: every statement runs as plain Python, every index is checked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pipeline.avro import check, kernel, primitives
from tests.fuzz import tracing
from tests.fuzz.batch import BATCH

ROOT = Path(__file__).parents[1]

BOUNDS = f"""
import numpy as np
from pipeline.avro import primitives
try:
    primitives.varint(np.zeros(0, np.uint8), 0, 1)
except IndexError:
    print("indices are checked", flush=True)
for n in range(1, 40):  # texts that end where their array does
    for tail in ("", "\u00e9", "\u5929", "\U0001f71c"):
        text = np.frombuffer(b"a" * n + tail.encode(), dtype=np.uint8)
        assert primitives.is_utf8(text, 0, len(text))
from tests.fuzz.run_fuzz import batches, work
work(batches({10 * BATCH}), 5)
"""


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=560,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_every_statement_of_the_kernels_runs_as_plain_python() -> None:
    out = run("-W", "ignore", "-m", "tests.fuzz.tracing", NUMBA_DISABLE_JIT="1")
    told = [json.loads(line) for line in out.splitlines()]
    assert told[-1] == {"defects": []}
    assert {row["module"]: row["missed"] for row in told[:-1]} == {name: [] for name in tracing.NAMES}
    assert sum(row["statements"] for row in told[:-1]) > 250


@pytest.mark.slow
def test_no_index_leaves_its_array(tmp_path: Path) -> None:
    out = run("-c", BOUNDS, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=str(tmp_path)).splitlines()
    assert out[0] == "indices are checked"
    tallies = [json.loads(line)["tally"] for line in out[1:] if line.startswith('{"tally"')]
    assert len(tallies) == 10
    assert [tally["defects"] for tally in tallies] == [[]] * 10
    assert sum(sum(tally["accepted"].values()) for tally in tallies) > 4 * BATCH


def test_the_tracer_sees_what_does_not_run(tmp_path: Path) -> None:
    source = (
        "from numba import njit\n"
        "@njit\n"
        "def f(x):\n"
        "    if x:\n"
        "        return 1\n"
        "    for k in range(2):\n"
        "        x += k\n"
        "    return x\n"
        "def g():\n"
        "    return 2\n"
    )
    path = tmp_path / "kernels.py"
    path.write_text(source)
    assert tracing.statements(path) == {4, 5, 6, 7, 8}
    tracer = tracing.Tracer([path])
    scope: dict = {}
    code = compile(source.replace("@njit\n", "\n"), str(path), "exec")
    before = sys.gettrace()
    sys.settrace(tracer)
    exec(code, scope)
    scope["f"](0)
    sys.settrace(before)
    assert tracing.statements(path) - tracer.ran[str(path)] == {5}


def test_every_module_of_kernels_that_reads_bodies_is_traced() -> None:
    with_kernels = {path.stem for path in tracing.FOLDER.glob("*.py") if "@njit" in path.read_text()}
    assert with_kernels - {"framing"} == set(tracing.NAMES)  # framing reads containers, not bodies


# ------------------------------------------------------------------------------------------------ single kernels
@pytest.mark.parametrize("size", range(20))
def test_words_are_read_as_numpy_reads_them(size: int) -> None:
    view = np.frombuffer(np.random.default_rng(size).bytes(40), dtype=np.uint8)
    assert primitives.half_word(view, size) == view[size : size + 4].view("<u4")[0]
    assert primitives.word(view, size) == view[size : size + 8].view("<u8")[0]
    assert primitives.word.py_func(view, size) == primitives.word(view, size)
    assert primitives.half_word.py_func(view, size) == primitives.half_word(view, size)


@pytest.mark.parametrize("before", range(10))
def test_text_of_every_place_is_judged_as_python_does(before: int) -> None:
    """Bytes beyond ASCII at every place of the words that are skipped eight at a time, and at the very end."""
    for character in ("é", "天", "🜨", "\x7f"):
        for after in range(10):
            text = b"a" * before + character.encode() + b"z" * after
            for cut in range(before, len(text) + 1):
                view = np.frombuffer(text[:cut] or b"\0", dtype=np.uint8)
                try:
                    text[:cut].decode()
                    sound = True
                except UnicodeDecodeError:
                    sound = False
                assert primitives.is_utf8(view, 0, cut) == sound


def test_nothing_is_read_beyond_the_stop() -> None:
    """What stands behind a body may be anything: a varint, a text and a branch end where the body does."""
    view = np.full(30, 0x81, dtype=np.uint8)
    for stop in range(1, 10):
        assert primitives.varint(view, 0, stop)[1:] == (stop, primitives.SHORT)
        assert kernel.branch(view, stop, stop, 0, 2)[1:] == (stop, primitives.SHORT)
        assert kernel.whole_number(view, 0, stop)[1:] == (stop, primitives.SHORT)
    view[:] = 0x80
    text = np.frombuffer("aé".encode(), dtype=np.uint8)
    assert primitives.is_utf8(text, 0, 3) and not primitives.is_utf8(text, 0, 2)
    assert check.walk(b"\x04aaZZ", 0, 2, 1, check.compile_schema(_one("string"))).reason is not None


def test_a_branch_is_the_same_however_long_it_is_written() -> None:
    for null_byte, other_byte in ((0, 2), (2, 0), (-1, 0), (0, -1)):
        for index in (-2, -1, 0, 1, 2, 63, 64):
            for length in range(1, 11):
                raw = (index << 1) ^ (index >> 63)
                short = bytearray()
                while raw > 127:
                    short.append(raw & 127 | 128)
                    raw >>= 7
                short.append(raw)
                if length > len(short):
                    short[-1] |= 128
                    short += b"\x80" * (length - len(short) - 1) + b"\x00"
                has, p, status = kernel.branch(
                    np.frombuffer(bytes(short), np.uint8), 0, len(short), null_byte, other_byte
                )
                known = {null_byte // 2: False, other_byte // 2: True}
                if index >= 0 and index in known:
                    assert (has, p, status) == (known[index], len(short), primitives.OK)
                else:
                    assert (p, status) == (len(short), primitives.BRANCH)


def _one(kind: object) -> dict[str, object]:
    return {"type": "record", "name": "r", "fields": [{"name": "a", "type": kind}]}
