"""``alertmill config``."""

from __future__ import annotations

import json

import click

from pipeline.cli.options import json_option


@click.group()
def command() -> None:
    """Show the configuration and where each value comes from.

    \b
    Example:
      alertmill config show
    """


@command.command()
@click.option("--config", "config_file", metavar="FILE", help="Settings. [default: ./alertmill.toml]")
@json_option
def show(config_file: str | None, as_json: bool) -> None:
    """Print every setting, its value and its origin.

    Values come from the defaults, then alertmill.toml, then the environment (ALERTMILL_ROOT,
    ALERTMILL_EXECUTION__WORKERS ...), then options; the last one wins.

    \b
    Example:
      alertmill config show --config night.toml
    """
    from pipeline import config

    settings, origins = config.load(file=config_file)
    values = config.flatten(settings.model_dump(mode="json"))
    if as_json:
        document = {name: {"value": value, "origin": origins[name]} for name, value in values.items()}
        click.echo(json.dumps(document, indent=1))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("setting", "value", "origin")
    for name, value in values.items():
        table.add_row(name, json.dumps(value), origins[name])
    Console(highlight=False).print(table)
