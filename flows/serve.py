"""Serve the nightly flow on a schedule, for a running Prefect server."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from flows.environment import prepare_environment
from flows.server import check_server
from pipeline.config import Config
from pipeline.errors import InputError
from pipeline.surveys import get as get_survey

_START = "start one with `prefect server start` and name it: --server http://127.0.0.1:4200/api or PREFECT_API_URL"


def check_inbox(inbox: str) -> str:
    """Return an inbox template with an absolute path, or raise :class:`InputError` if nothing stands for the night."""
    if "{night}" not in inbox:
        raise InputError(f"--inbox {inbox} does not say where the night stands", mend="write {night} in it")
    return str(Path(inbox).expanduser().absolute())


def serve_nightly(
    settings: Config,
    inbox: str,
    *,
    cron: str,
    name: str,
    server: str | None,
    config_file: str | None,
    announce: Callable[[str], None],
) -> None:
    """Serve the flow until the process is ended; a schedule that is due starts one run at a time.

    Parameters
    ----------
    settings : Config
        Root and survey; everything else is read anew by every run.
    inbox : str
        Where each night's dump will stand, with ``{night}`` for YYYYMMDD.
    cron : str
        When, in UTC.
    name : str
        Name of the deployment.
    server : str or None
        Address of the server's API.
    config_file : str or None
        Settings file that every run reads.
    announce : callable
        Is told, in one line, that serving begins.

    Raises
    ------
    InputError
        No server is named or none answers, or the schedule cannot be read.
    """
    get_survey(settings.survey)
    parameters = {
        "survey": settings.survey,
        "root": str(Path(settings.root).expanduser().absolute()),
        "inbox": check_inbox(inbox),
        "config_file": None if config_file is None else str(Path(config_file).absolute()),
    }
    prepare_environment(quiet=False)
    if not server:
        raise InputError("a schedule needs a running Prefect server", mend=_START)
    check_server(server, mend=_START)

    os.environ["PREFECT_API_URL"] = server

    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    from flows.nightly import nightly

    try:
        schedule = Cron(cron, timezone="UTC")
    except ValueError as error:
        raise InputError(f"--cron {cron!r} is not a schedule: {error}", mend='for example "0 18 * * *"') from error
    announce(f"serving {name}: {parameters['inbox']} into {parameters['root']}, {cron} UTC, on {server}")
    nightly.serve(
        name=name,
        schedule=schedule,
        parameters=parameters,
        limit=1,
        entrypoint_type=EntrypointType.MODULE_PATH,
        print_starting_message=False,
    )
