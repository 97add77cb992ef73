"""``alertmill verify``."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

from pipeline.cli.options import json_option


@click.command()
@click.argument("start", required=False, metavar="[START")
@click.argument("stop", required=False, metavar="STOP]")
@click.option("--root", metavar="DIR", help="Folder that holds the archive. [default: ./data]")
@click.option("--survey", metavar="NAME", help="Only this survey.")
@click.option("--config", "config_file", metavar="FILE", help="Settings. [default: ./alertmill.toml]")
@click.option("--repair", is_flag=True, help="Remove strays; name what has to be run again.")
@json_option
def command(
    start: str | None,
    stop: str | None,
    root: str | None,
    survey: str | None,
    config_file: str | None,
    repair: bool,
    as_json: bool,
) -> None:
    """Re-hash parts against the ledgers; name strays and losses.

    Exit code 1 if anything is lost, damaged or stray.

    \b
    Example:
      alertmill verify --root ./data
      alertmill verify 20181101 20181130 --root ./data --repair
    """
    from pipeline import config, paths, status

    settings, _ = config.load({"root": root}, file=config_file)
    first = None if start is None else paths.parse_night(start)
    last = first if stop is None else paths.parse_night(stop)
    files, findings = status.verify(settings.root, survey, first, last)
    lines = status.repair(settings.root, findings) if repair else []
    if as_json:
        document = {"files": files, "findings": [asdict(finding) for finding in findings], "repair": lines}
        click.echo(json.dumps(document, indent=1))
    else:
        for finding in findings:
            click.echo(f"{finding.kind}: {finding.path}" + (f" ({finding.detail})" if finding.detail else ""))
        for line in lines:
            click.echo(line)
        click.echo(f"{files:,} files, {len(findings)} findings")
    if findings and not (repair and all(finding.kind == "stray" for finding in findings)):
        raise SystemExit(1)
