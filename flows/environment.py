"""The environment Prefect runs in: its state in the user's cache, nothing sent anywhere. Imports no Prefect."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import StoreError

_SILENT = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_CLOUD_ENABLE_ORCHESTRATION_TELEMETRY": "false",
    "PREFECT_TELEMETRY_ENABLE_RESOURCE_METRICS": "false",
}
"""Prefect's ways of reporting home. Not a default: alertmill contacts nobody the user did not name."""
_DEFAULTS = {
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
}
_LOOPBACK = ("127.0.0.1", "localhost")
_QUIET = {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL"}


def prepare_environment(*, quiet: bool) -> Path:
    """Set the environment variables that Prefect reads when it is imported; call this first.

    Parameters
    ----------
    quiet : bool
        Keep Prefect's log off the terminal, where progress is shown; its database still has it.

    Returns
    -------
    Path
        Prefect's home, which exists: ``PREFECT_HOME`` or a folder in the user's cache.

    Raises
    ------
    StoreError
        The folder cannot be made.
    """
    os.environ.update(_SILENT)
    for name, value in {**_DEFAULTS, **(_QUIET if quiet else {})}.items():
        os.environ.setdefault(name, value)
    for name in ("NO_PROXY", "no_proxy"):
        hosts = [host for host in os.environ.get(name, "").split(",") if host]
        os.environ[name] = ",".join([*hosts, *(host for host in _LOOPBACK if host not in hosts)])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    home = Path(os.environ.setdefault("PREFECT_HOME", str(cache / "alertmill" / "prefect"))).expanduser()
    try:
        home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(
            f"Prefect's folder {home} cannot be made: {error.strerror}", mend="set PREFECT_HOME, or run with --direct"
        ) from error
    return home
