"""A Dask cluster over two network namespaces, that is two hosts with a cable each: same bytes, and a cable pulled."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from pipeline.simulation import simulate
from pipeline.store import open_root, read_ledgers

pytestmark = [pytest.mark.interop, pytest.mark.xdist_group("interop"), pytest.mark.timeout(420)]

NIGHT = 20240212
PREFIX = f"am{os.getpid() % 10_000}"
BRIDGE = f"{PREFIX}b"
NET = f"10.213.{os.getpid() % 250}"
HOSTS = {name: f"{NET}.{number}" for number, name in enumerate(("head", "one", "two"), start=1)}
SCHEDULER = f"tcp://{HOSTS['head']}:8786"
ENVIRONMENT = {
    **os.environ,
    "ALERTMILL_PART__MAX_ALERTS": "100",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s",
}


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, timeout=20)


def link_of(host: str) -> str:
    return f"{PREFIX}{host}"


@pytest.fixture(scope="module")
def hosts() -> Iterator[None]:
    """Three namespaces on one bridge."""
    with ExitStack() as stack:
        try:
            ip("link", "add", BRIDGE, "type", "bridge")
            stack.callback(ip, "link", "del", BRIDGE)
            ip("link", "set", BRIDGE, "up")
            for host, address in HOSTS.items():
                space, link = f"{PREFIX}-{host}", link_of(host)
                ip("netns", "add", space)
                stack.callback(ip, "netns", "del", space)
                ip("link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", space)
                ip("link", "set", link, "master", BRIDGE, "up")
                ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
                ip("-n", space, "link", "set", "eth0", "up")
                ip("-n", space, "link", "set", "lo", "up")
        except (OSError, subprocess.CalledProcessError) as error:
            told = error.stderr.decode().strip() if isinstance(error, subprocess.CalledProcessError) else str(error)
            pytest.skip(f"network namespaces are not permitted here: {told}")
        yield


def on(host: str, *command: str, log: Path) -> subprocess.Popen[bytes]:
    with log.open("ab") as sink:
        arguments = ["ip", "netns", "exec", f"{PREFIX}-{host}", sys.executable, "-m", *command]
        return subprocess.Popen(arguments, stdout=sink, stderr=subprocess.STDOUT, env=ENVIRONMENT)


def ended(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def cluster(hosts: None, tmp_path: Path) -> Iterator[Path]:
    """A scheduler on the head, a worker on each of the other two; the log of all three."""
    log = tmp_path / "cluster.log"
    with ExitStack() as stack:
        commands = {"head": ("dask_scheduler", "--host", HOSTS["head"], "--port", "8786", "--no-dashboard")}
        for name in ("one", "two"):
            options = ("--host", HOSTS[name], "--nthreads", "1", "--no-dashboard", "--memory-limit", "2GiB")
            local = ("--local-directory", str(tmp_path / name))
            commands[name] = ("dask_worker", SCHEDULER, *options, *local)
        for host, (module, *options) in commands.items():
            process = on(host, f"distributed.cli.{module}", *options, log=log)
            stack.callback(ended, process)
        _wait(lambda: log.is_file() and log.read_text(errors="replace").count("Starting established connection") >= 2)
        yield log


def _wait(is_there: object, limit: float = 60.0) -> None:
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if callable(is_there) and is_there():
            return
        time.sleep(0.02)
    raise AssertionError("what was waited for did not come")


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return simulate(NIGHT, "ztf", 3000, 5, tmp_path_factory.mktemp("dump"), cutouts=False).dump


@pytest.fixture(scope="module")
def serial(dump: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("serial") / "data"
    command = [sys.executable, "-m", "pipeline.cli", *run_options(dump, root), "--serial"]
    subprocess.run(command, check=True, capture_output=True, env=ENVIRONMENT, timeout=300)
    return hashes(root)


def run_options(dump: Path, root: Path) -> list[str]:
    return ["run", "--survey", "ztf", "--input", str(dump), "--root", str(root), "--direct", "--no-report", "--json"]


def hashes(root: Path) -> dict[str, str]:
    """The sha256 of every part and file of the night, by dataset and name."""
    ledger = read_ledgers(open_root(root), "ztf")[NIGHT]
    parts = {f"{part['name']} {d}": file["sha256"] for part in ledger["parts"] for d, file in part["files"].items()}
    for dataset, files in ledger["night_files"].items():
        parts.update({f"{dataset} {number}": file["sha256"] for number, file in enumerate(files)})
    return parts


def test_two_hosts_write_the_same_bytes(cluster: Path, dump: Path, serial: dict[str, str], tmp_path: Path) -> None:
    root = tmp_path / "data"
    run = on("head", "pipeline.cli", *run_options(dump, root), "--scheduler", SCHEDULER, log=tmp_path / "run.log")
    assert run.wait(300) == 0, (tmp_path / "run.log").read_text()
    assert hashes(root) == serial
    assert len([name for name in serial if name.endswith(" raw")]) == 30


def test_a_cable_is_pulled(cluster: Path, dump: Path, serial: dict[str, str], tmp_path: Path) -> None:
    """The run ends: with the same bytes, or with one clear line, after which the same command finishes it."""
    root, log = tmp_path / "data", tmp_path / "run.log"
    run = on("head", "pipeline.cli", *run_options(dump, root), "--scheduler", SCHEDULER, log=log)
    try:
        _wait(lambda: len(list(root.glob("_staging/*/decoded/*.json"))) >= 4)
        assert run.poll() is None
        ip("link", "set", link_of("two"), "down")
        code = run.wait(300)
    finally:
        ended(run)
        ip("link", "set", link_of("two"), "up")
    if code != 0:
        lines = [line for line in log.read_text().splitlines() if line.startswith("alertmill: ")]
        assert code in (1, 2) and len(lines) == 1 and "Traceback" not in log.read_text()
        again = [sys.executable, "-m", "pipeline.cli", *run_options(dump, root), "--serial"]
        subprocess.run(again, check=True, capture_output=True, env=ENVIRONMENT, timeout=300)
    else:
        assert json.loads(log.read_text()[log.read_text().index("{\n") :])["errors"] == {}
    assert hashes(root) == serial
    assert not (root / "_staging").exists()
