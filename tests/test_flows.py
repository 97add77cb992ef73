"""The nightly flow: the same bytes as without Prefect, alarms, a schedule that fires, nothing sent, nothing left."""

from __future__ import annotations

import http.server
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
import ztf_packets as ztf
from test_nights import BASE, NIGHT, assert_whole, hashes, run

from pipeline.surveys import get as get_survey

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.xdist_group("prefect")]

PATIENCE_SEC = 300.0
"""For what takes a minute on a quiet machine."""

AUDIT = """
import os, sys
_log = os.open(os.environ["AUDIT_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def _hook(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.getaddrinfo", "socket.gethostbyname"):
        where = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        host = where[0] if isinstance(where, tuple) else where
        os.write(_log, f"{event} {host}\\n".encode())
sys.addaudithook(_hook)
os.write(_log, f"watched {sys.orig_argv}\\n".encode())
"""
"""As ``sitecustomize`` it notes every address that any Python process of a run turns to."""


def alertmill(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command as a user does, in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, words)],
        capture_output=True, text=True, timeout=PATIENCE_SEC, check=False, env=clean(**environment),
    )  # fmt: skip


def clean(**environment: str) -> dict[str, str]:
    """The environment, without settings of whoever runs the tests."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "ALERTMILL_"))}
    return {**kept, "ALERTMILL_MODELS": "", "ALERTMILL_REPORT": "false", **environment}


def until(condition: Callable[[], Any], what: str, seconds: float = PATIENCE_SEC) -> Any:
    """Wait for a condition and return what it gave."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.25)
    raise AssertionError(f"{what}: not within {seconds:g} s")


def processes_of(home: Path) -> list[psutil.Process]:
    """Living processes whose Prefect home this is."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("PREFECT_HOME") == str(home) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def alarms(root: Path) -> list[dict[str, Any]]:
    path = root / "alarms.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


# ------------------------------------------------------------------------------------------- a run in this machine
@dataclass
class FirstRun:
    home: Path
    root: Path
    dump: Path
    done: subprocess.CompletedProcess[str]
    addresses: list[str]
    left: list[psutil.Process]


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FirstRun]:
    """The first run ever with a new Prefect home, on two Dask workers, every connection noted."""
    folder = tmp_path_factory.mktemp("first")
    dump = ztf.night_tar(folder / "a.tar", [BASE + i for i in range(60)])
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(AUDIT)
    home = folder / "home"
    done = alertmill(
        "run", "--input", dump, "--root", folder / "d", "--workers", 2,
        PREFECT_HOME=str(home), ALERTMILL_PART__MAX_ALERTS="20", AUDIT_LOG=str(folder / "audit"),
        PYTHONPATH=str(folder / "site"),
    )  # fmt: skip
    left = processes_of(home)
    addresses = (folder / "audit").read_text().splitlines()
    yield FirstRun(home, folder / "d", dump, done, addresses, left)
    for process in processes_of(home):
        process.kill()


def test_a_flow_gives_the_bytes_of_a_direct_run(first: FirstRun, tmp_path: Path) -> None:
    assert first.done.returncode == 0, first.done.stderr
    run(tmp_path / "direct", first.dump, **{"part.max_alerts": 20})
    assert len(hashes(first.root)) > 15
    assert hashes(first.root) == hashes(tmp_path / "direct")
    assert_whole(first.root)
    assert alarms(first.root) == []


def test_prefect_keeps_off_the_terminal(first: FirstRun) -> None:
    assert "decode" in first.done.stderr
    for word in ("Traceback", "prefect.", "INFO", "logging to API"):
        assert word not in first.done.stderr + first.done.stdout


def test_one_task_a_stage_and_the_ledger_are_on_record(first: FirstRun) -> None:
    with sqlite3.connect(first.home / "prefect.db") as database:
        tasks = database.execute("select name, state_name from task_run order by start_time").fetchall()
        flows = database.execute("select parameters, state_name from flow_run").fetchall()
        pages = database.execute("select data from artifact where type = 'markdown'").fetchall()
    database.close()
    assert [name.rpartition("-")[0] for name, _ in tasks] == ["decode", "settle", "enrich", "finish", "commit"]
    assert {state for _, state in tasks} == {"Completed"}
    ((parameters, state),) = flows
    assert state == "Completed"
    assert json.loads(parameters)["inputs"] == [str(first.dump)]
    assert f"| {NIGHT} | 60 | 60 | 0 |" in pages[0][0]


def test_nothing_but_loopback_is_contacted(first: FirstRun) -> None:
    watched = [line for line in first.addresses if line.startswith("watched ")]
    assert any("flows.server:create_app" in line for line in watched), "the server's process is watched"
    assert sum("multiprocessing.spawn" in line for line in watched) >= 2, "and so are the workers"
    hosts = {line.split()[1] for line in first.addresses if line.startswith("socket.")}
    assert "127.0.0.1" in hosts
    assert {host for host in hosts if not host.startswith(("/", "b'"))} <= {"127.0.0.1", "localhost", "None"}


def test_no_process_is_left(first: FirstRun) -> None:
    assert first.left == []


def test_a_finished_night_starts_no_server(first: FirstRun) -> None:
    log = (first.home / "server.log").stat().st_mtime_ns
    done = alertmill("run", "--input", first.dump, "--root", first.root,
                     PREFECT_HOME="/dev/null/none", ALERTMILL_PART__MAX_ALERTS="20")  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "finished already" in done.stdout
    assert (first.home / "server.log").stat().st_mtime_ns == log


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_server_ends_with_a_run_that_is_ended(how: signal.Signals, first: FirstRun, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pipeline.cli", "run", "--serial"]
    process = subprocess.Popen(
        [*command, "--input", str(first.dump), "--root", str(tmp_path / "d")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=clean(PREFECT_HOME=str(first.home)),
    )  # fmt: skip
    try:
        until(lambda: len(processes_of(first.home)) > 1, "the server's start")
        time.sleep(1)
    finally:
        process.send_signal(how)
        process.wait(60)
    assert process.returncode != 0
    until(lambda: not processes_of(first.home), "the server's end", 60)


def test_a_server_that_cannot_start_is_one_clear_line(first: FirstRun, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "prefect.db").write_bytes(b"this is no database" * 500)
    done = alertmill("run", "--input", first.dump, "--root", tmp_path / "d", PREFECT_HOME=str(tmp_path / "home"))
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("alertmill:")]
    assert "the temporary Prefect server ended at once" in line
    assert "--direct" in line
    assert "Traceback" not in done.stderr


def test_a_named_server_that_does_not_answer_is_one_clear_line(first: FirstRun, tmp_path: Path) -> None:
    url = "http://127.0.0.1:9/api"
    told = []
    for words in (
        ("run", "--input", first.dump, "--root", tmp_path),
        ("serve", "--inbox", "/dumps/{night}.tar", "--cron", "0 18 * * *", "--root", tmp_path),
    ):
        done = alertmill(*words, PREFECT_HOME=str(first.home), PREFECT_API_URL=url)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr
        told.append(done.stderr)
    assert all(f"alertmill: no Prefect server answers at {url}" in text for text in told)
    assert "--direct" in told[0]
    assert "prefect server start" in told[1]


# ------------------------------------------------------------------------------------------- with a running server
@dataclass
class Inbox:
    """Takes the alarms that are posted."""

    url: str
    received: list[dict[str, Any]] = field(default_factory=list)


@pytest.fixture(scope="module")
def receiver() -> Iterator[Inbox]:
    inbox = Inbox("")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            inbox.received.append({"path": self.path, **body})
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        inbox.url = f"http://127.0.0.1:{server.server_port}"
        yield inbox
        server.shutdown()
        thread.join()


@dataclass
class Served:
    url: str
    home: Path
    root: Path
    nights: list[int]
    log: Path


def last_nights() -> list[int]:
    """The night a run of the next minutes will take: two, should the date turn meanwhile."""
    now = datetime.now(UTC)
    return sorted({get_survey("ztf").last_night(when) for when in (now, now + timedelta(minutes=15))})


@pytest.fixture(scope="module")
def served(first: FirstRun, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A Prefect server on loopback, and the flow served every minute."""
    folder = tmp_path_factory.mktemp("served")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}/api"
    environment = clean(
        PREFECT_HOME=str(first.home), PREFECT_API_URL=url, DO_NOT_TRACK="1", PREFECT_SERVER_ANALYTICS_ENABLED="false",
        PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS="5", PREFECT_RUNNER_POLL_FREQUENCY="2",
        ALERTMILL_EXECUTION__MODE="serial",
    )  # fmt: skip
    nights = last_nights()
    for night in nights:
        julian = datetime.strptime(str(night), "%Y%m%d").replace(tzinfo=UTC).timestamp() / 86400 + 2440587.5 + 0.25
        ztf.night_tar(folder / f"ztf_public_{night}.tar", [BASE + i for i in range(20)], jd=julian)
    started: list[subprocess.Popen[bytes]] = []
    log = folder / "log"
    with log.open("wb") as sink:

        def start(*words: str) -> None:
            command = [sys.executable, "-m", *words]
            started.append(
                subprocess.Popen(command, stdout=sink, stderr=sink, env=environment, cwd=folder, start_new_session=True)
            )

        try:
            start("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port), "--no-ui")
            until(lambda: is_up(url), "the server's start")
            template = "ztf_public_{night}.tar"
            start("pipeline.cli", "serve", "--survey", "ztf", "--inbox", template, "--root", "d", "--cron", "* * * * *")
            yield Served(url, first.home, folder / "d", nights, log)
        finally:
            for process in reversed(started):
                stop(process)


def is_up(url: str) -> bool:
    from flows.server import check_server
    from pipeline.errors import InputError

    try:
        check_server(url, mend="")
    except InputError:
        return False
    return True


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process and whatever it has started."""
    family = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for child in family:
        try:
            child.kill()
        except psutil.NoSuchProcess:
            continue


def test_a_failed_night_raises_the_alarm_and_the_error_is_that_of_a_direct_run(
    served: Served, receiver: Inbox, tmp_path: Path
) -> None:
    whole = ztf.night_tar(tmp_path / "cut.tar.gz", [BASE + i for i in range(60)], mode="w:gz").read_bytes()
    (tmp_path / "cut.tar.gz").write_bytes(whole[: len(whole) // 2])
    words = ("run", NIGHT, "--input", tmp_path / "cut.tar.gz", "--root", tmp_path / "d", "--serial")
    flow = alertmill(
        *words, PREFECT_HOME=str(served.home), PREFECT_API_URL=served.url, HOOK="s3cret",
        ALERTMILL_ALARM=f"file:{tmp_path}/told,{receiver.url}/${{HOOK}},http://127.0.0.1:9/${{HOOK}},file:/${{UNSET}}",
    )  # fmt: skip
    direct = alertmill(*words, "--direct")
    assert flow.returncode == direct.returncode == 2
    (line,) = [line for line in direct.stderr.splitlines() if line.startswith("alertmill:")]
    assert line in flow.stderr.splitlines()
    (alarm,) = alarms(tmp_path / "d")
    assert (alarm["survey"], alarm["night"], alarm["what"]) == ("ztf", str(NIGHT), "failed")
    assert "cut.tar.gz" in alarm["message"]
    assert abs(datetime.fromisoformat(alarm["when"]) - datetime.now(UTC)) < timedelta(minutes=10)
    assert json.loads((tmp_path / "told").read_text()) == alarm
    assert {"path": "/s3cret", **alarm} in receiver.received
    # An alarm that does not get through is told, without the secret in its address, and hides nothing.
    told = " ".join(flow.stderr.split())
    assert "note: alarm to http://127.0.0.1:9/${HOOK} failed: ConnectError" in told
    assert "environment variable 'UNSET' is not set" in told
    assert "s3cret" not in flow.stderr


def test_a_missing_dump_raises_the_alarm_and_is_a_state_of_its_own(
    served: Served, receiver: Inbox, tmp_path: Path
) -> None:
    script = (
        "import sys; from flows.environment import prepare_environment; prepare_environment(quiet=True)\n"
        "from flows.nightly import nightly\n"
        "state = nightly(survey='ztf', root=sys.argv[1], inbox=sys.argv[2], return_state=True)\n"
        "print(state.name, state.type.value)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "d"), str(tmp_path / "{night}.tar")],
        capture_output=True, text=True, timeout=PATIENCE_SEC, check=False,
        env=clean(PREFECT_HOME=str(served.home), PREFECT_API_URL=served.url, ALERTMILL_ALARM=receiver.url),
    )  # fmt: skip
    assert done.stdout.split() == ["Missing", "FAILED"], done.stderr
    (alarm,) = alarms(tmp_path / "d")
    assert alarm["what"] == "missing"
    assert int(alarm["night"]) in served.nights
    assert str(tmp_path / f"{alarm['night']}.tar") in alarm["message"]
    assert {"path": "/", **alarm} in receiver.received
    assert list((tmp_path / "d").iterdir()) == [tmp_path / "d" / "alarms.jsonl"], "nothing else is written"


RETRIES = """
from flows.environment import prepare_environment
prepare_environment(quiet=True)
from prefect import flow
from flows import nightly
from pipeline.errors import InputError, PartError
from pipeline.nights import drive
nightly._RETRY_DELAY_SEC = 0
tries = []

def stage(run, error):
    tries.append(error)
    if len(tries) < 3:
        raise error
    return run

def attempt(error):
    tries.clear()
    try:
        given = object()
        assert nightly.call_as_task(stage, given, error) is given
        how = "done"
    except type(error) as caught:
        how = "same" if caught is error else "other"
    print(type(error).__name__, len(tries), how)

for error in (OSError(116, "stale handle"), InputError("no such file"), PartError("bad part"), ValueError("defect")):
    flow(lambda: attempt(error), name="trial")()
drive.commit = stage
flow(lambda: attempt(OSError(116, "stale handle")), name="trial")()
"""


def test_only_a_passing_error_of_the_disk_runs_a_stage_again_and_never_a_commit(served: Served) -> None:
    done = subprocess.run(
        [sys.executable, "-c", RETRIES],
        capture_output=True, text=True, timeout=PATIENCE_SEC, check=False,
        env=clean(PREFECT_HOME=str(served.home), PREFECT_API_URL=served.url),
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        "OSError 3 done", "InputError 1 same", "PartError 1 same", "ValueError 1 same", "OSError 1 same",
    ], done.stderr  # fmt: skip


def test_a_cron_schedule_really_fires(served: Served) -> None:
    def ledgers() -> list[Path]:
        return [served.root / "ztf" / "ledger" / f"night={night}.json" for night in served.nights]

    try:
        until(lambda: any(path.exists() for path in ledgers()), "a night by schedule", 240)
    except AssertionError as error:
        raise AssertionError(served.log.read_text(errors="replace")[-5000:]) from error
    (done,) = [json.loads(path.read_text()) for path in ledgers() if path.exists()]
    assert done["status"] == "complete"
    assert done["counts"]["written"] == 20
