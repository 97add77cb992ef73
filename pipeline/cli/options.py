"""Options that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

Command = TypeVar("Command", bound=Callable[..., Any])


def config_options(command: Command) -> Command:
    """Add ``--config``, ``--root`` and ``--survey``."""
    command = click.option("--survey", metavar="NAME", help="Survey: ztf, lsst, elasticc_v2_1 ... [default: ztf]")(
        command
    )
    command = click.option("--root", metavar="DIR", help="Folder that holds the archive. [default: ./data]")(command)
    return click.option("--config", "config_file", metavar="FILE", help="Settings. [default: ./alertmill.toml]")(
        command
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
