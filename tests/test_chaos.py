"""Runs killed at random moments: the next one goes on, and ends in the same bytes, no stray file, no lock."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ztf_packets as ztf
from test_nights import BASE, NIGHT, assert_whole, hashes

COMMAND = [sys.executable, "-m", "pipeline.cli", "run", str(NIGHT), "--direct", "--no-report"]


def _start(root: Path, dumps: list[Path], *options: str) -> subprocess.Popen[bytes]:
    inputs = [word for dump in dumps for word in ("--input", str(dump))]
    environment = {**os.environ, "ALERTMILL_PART__MAX_ALERTS": "100", "ALERTMILL_MODELS": ""}
    return subprocess.Popen(
        [*COMMAND, *inputs, "--root", str(root), *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment,
    )  # fmt: skip


def _dumps(folder: Path) -> list[Path]:
    a = ztf.night_tar(folder / "a.tar", [BASE + i for i in range(600)])
    b = ztf.night_tar(folder / "b.tar.gz", [BASE + 550 + i for i in range(300)], mode="w:gz", magpsf=17.0)
    return [a, b]


def _kill_at(root: Path, dumps: list[Path], seconds: float, *options: str) -> bool:
    """Start a run and SIGKILL it after so long; True if it was still at work."""
    process = _start(root, dumps, *options)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return True
    process.communicate()
    return False


def _finish(root: Path, dumps: list[Path], *options: str) -> float:
    started = time.perf_counter()
    process = _start(root, dumps, *options)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    return time.perf_counter() - started


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_in_the_same_bytes(tmp_path: Path) -> None:
    dumps = _dumps(tmp_path)
    seconds = _finish(tmp_path / "whole", dumps, "--serial")
    for share in (0.5, 0.8):
        _kill_at(tmp_path / "killed", dumps, seconds * share, "--serial")
    _finish(tmp_path / "killed", dumps, "--serial")
    assert_whole(tmp_path / "killed")
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")


@pytest.mark.slow
def test_one_worker_two_workers_and_none_give_the_same_bytes(tmp_path: Path) -> None:
    dumps = _dumps(tmp_path)
    _finish(tmp_path / "serial", dumps, "--serial")
    for workers in ("1", "2"):
        _finish(tmp_path / workers, dumps, "--workers", workers)
        assert hashes(tmp_path / workers) == hashes(tmp_path / "serial")
        assert_whole(tmp_path / workers)


def _kill_when(root: Path, dumps: list[Path], parts: int, *options: str) -> bool:
    """Start a run and SIGKILL it, and its workers, when its only decode task has noted so many parts."""
    inputs = [word for dump in dumps for word in ("--input", str(dump))]
    environment = {**os.environ, "ALERTMILL_PART__MAX_ALERTS": "100", "ALERTMILL_MODELS": ""}
    process = subprocess.Popen(
        [*COMMAND, *inputs, "--root", str(root), *options],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True,
    )  # fmt: skip
    try:
        while process.poll() is None:
            for path in root.glob("_staging/*/decoded/*.progress"):
                if json.loads(path.read_bytes().partition(b"\n")[2])["state"]["counted"]["part"] >= parts:
                    return not list(root.glob("_staging/*/decoded/*.json"))
            time.sleep(0.002)
        return False
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@pytest.mark.chaos
@pytest.mark.parametrize("options", [("--serial",), ("--workers", "2")], ids=["serial", "two-workers"])
def test_a_compressed_archive_killed_at_part_ends_is_not_decoded_again(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    dumps = [ztf.night_tar(tmp_path / "a.tar.gz", [BASE + i for i in range(1500)], mode="w:gz")]
    _finish(tmp_path / "whole", dumps, *options)
    killed = sum(_kill_when(tmp_path / "killed", dumps, parts, *options) for parts in (2, 5, 9))
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "killed").glob("_staging/*/parts/**/*.parquet")}
    made = [path for path in written if int(path.name.split(".")[0].rpartition("-")[2]) < 9]
    assert killed == 3 and len(made) == 9 * 4
    before = {path.name: written[path] for path in made if "/cutouts/" in str(path)}
    _finish(tmp_path / "killed", dumps, *options)
    assert_whole(tmp_path / "killed")
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")
    after = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "killed/ztf/cutouts").rglob("*.parquet")}
    assert all(after[name] == time_ns for name, time_ns in before.items())


@pytest.mark.chaos
@pytest.mark.parametrize("options", [("--serial",), ("--workers", "2")], ids=["serial", "two-workers"])
def test_ten_kills_at_random_moments(tmp_path: Path, options: tuple[str, ...]) -> None:
    dumps = _dumps(tmp_path)
    seconds = _finish(tmp_path / "whole", dumps, *options)
    rng = random.Random(20260101)
    killed = 0
    for _ in range(10):
        killed += _kill_at(tmp_path / "killed", dumps, rng.uniform(0.05, 1.0) * seconds, *options)
    _finish(tmp_path / "killed", dumps, *options)
    assert_whole(tmp_path / "killed")
    # Once the night is done a run ends at once: redo it, and kill it while it replaces a finished night.
    for _ in range(5):
        killed += _kill_at(tmp_path / "killed", dumps, rng.uniform(0.3, 1.0) * seconds, *options, "--force")
    # Without --force: the night stands, done before or now, and what the killed runs left goes.
    _finish(tmp_path / "killed", dumps, *options)
    assert killed >= 8
    assert_whole(tmp_path / "killed")
    assert hashes(tmp_path / "killed") == hashes(tmp_path / "whole")
