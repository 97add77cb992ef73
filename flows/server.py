"""A temporary Prefect server on loopback, which ends with the run that started it, however that ends.

Prefect's own temporary server outlives a killed parent. This one reads its standard input, a pipe that closes when the
parent is gone, and takes its listening socket from the parent, so that no port can be lost between choice and use.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, PipelineError

START_LIMIT_SEC = 300.0
_STOP_LIMIT_SEC = 10.0
_LOOK_SEC = 0.1
_DIRECT = "run with --direct to do without Prefect"


@contextlib.contextmanager
def running_server(home: Path) -> Iterator[str]:
    """Yield the API address of the server that ``PREFECT_API_URL`` names, or of a temporary one.

    Parameters
    ----------
    home : Path
        Prefect's home: the temporary server's database and log stand there.

    Raises
    ------
    PipelineError
        The server does not start, or the one named does not answer.
    """
    named = os.environ.get("PREFECT_API_URL")
    if named:
        check_server(named, mend=f"start it, unset PREFECT_API_URL, or {_DIRECT}")
        yield named
        return
    with (home / "server.log").open("ab") as log, (home / "server.lock").open("w") as lock:
        # One start at a time: the first one builds the database.
        fcntl.flock(lock, fcntl.LOCK_EX)
        process, url = _start(log)
        try:
            _await(process, url, Path(log.name))
            fcntl.flock(lock, fcntl.LOCK_UN)
            yield url
        finally:
            _stop(process)


def check_server(url: str, *, mend: str) -> None:
    """Raise :class:`InputError` unless a Prefect server answers at this API address."""
    if not _is_healthy(url, timeout=10.0):
        raise InputError(f"no Prefect server answers at {url}", mend=mend)


def _is_healthy(url: str, timeout: float) -> bool:
    import httpx

    try:
        return httpx.get(f"{url.rstrip('/')}/health", timeout=timeout).status_code == 200
    except (httpx.HTTPError, httpx.InvalidURL):
        return False


def _start(log: Any) -> tuple[subprocess.Popen[bytes], str]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "flows.server:create_app", "--fd", str(listener.fileno()),
             "--log-level", "error"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listener.fileno()],
            start_new_session=True,  # an interrupt from the keyboard is for the run, which then ends the server
            env={**os.environ, "PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1"},
        )  # fmt: skip
    return process, f"http://127.0.0.1:{port}/api"


def _await(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + START_LIMIT_SEC
    while process.poll() is None and time.monotonic() < deadline:
        if _is_healthy(url, timeout=max(1.0, deadline - time.monotonic())):
            return
        time.sleep(_LOOK_SEC)
    told = "ended at once" if process.poll() is not None else f"did not answer within {START_LIMIT_SEC:g} s"
    lines = log.read_text(errors="replace").strip().splitlines()
    last = f": {lines[-1].strip()}" if lines else ""
    raise PipelineError(f"the temporary Prefect server {told}{last}", mend=f"{_DIRECT}; its log is {log}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_STOP_LIMIT_SEC)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin is not None:
        process.stdin.close()


def create_app() -> Any:
    """Return the server's application; called by uvicorn in the server's own process."""
    threading.Thread(target=_end_with_parent, name="parent", daemon=True).start()
    from prefect.server.api.server import create_app as prefect_app

    return prefect_app(ephemeral=True, final=True)


def _end_with_parent() -> None:
    while os.read(0, 1024):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_STOP_LIMIT_SEC)
    os._exit(1)
