"""The ``alertmill`` command: thin commands over the library, imported only when called."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import click

from pipeline import __version__
from pipeline.errors import InputError, PipelineError

_COMMANDS = {
    "run": "Run the nights of a dump: decode, enrich, commit, report.",
    "status": "Show nights, counts and sizes.",
    "verify": "Re-hash parts against the ledgers; name strays and losses.",
    "report": "Write the report of a night again.",
    "simulate": "Write a simulated night: packets, truth, catalogs, sky map.",
    "catalogs": "List, build and check catalogs.",
    "events": "Keep the events that notices tell of.",
    "skymap": "Find alerts within sky-map contours; look positions up on maps.",
    "xmatch": "Match alerts with a table of yours, or with another stream.",
    "models": "List, train and show classifiers.",
    "serve": "Run the nightly flow on a schedule.",
    "config": "Show the configuration and where each value comes from.",
}


class _Lazy(click.Group):
    """A group whose commands are imported when they are called; its help needs none of them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command = importlib.import_module(f"pipeline.cli.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 - a wrong module is a defect, not an input
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="alertmill")
def cli() -> None:
    """Reprocess nights of astronomical alerts (ZTF, Rubin, ELAsTiCC): fast, exact, repeatable.

    \b
    Example:
      alertmill run 20181129 --survey ztf --input ztf_public_20181129.tar.gz --root ./data
      alertmill status --root ./data
    """


def main(arguments: list[str] | None = None) -> Any:
    """Run the command line; bad input gives one clear line and exit code 2, a failed night exit code 1."""
    try:
        code = cli.main(args=arguments, standalone_mode=False)
    except click.exceptions.Abort:
        click.echo("alertmill: interrupted; run the same command again to go on", err=True)
        code = 130
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except PipelineError as error:
        click.echo(f"alertmill: {error}", err=True)
        code = 2 if isinstance(error, InputError) else 1
    except KeyboardInterrupt:
        click.echo("alertmill: interrupted; run the same command again to go on", err=True)
        code = 130
    except BrokenPipeError:
        # Whoever reads has enough. What is still buffered must not raise again when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        click.echo(f"alertmill: {error.strerror or error}{where}; look at the disk, then run again", err=True)
        code = 1
    sys.exit(code if isinstance(code, int) else 0)
