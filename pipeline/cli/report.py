"""``alertmill report``."""

from __future__ import annotations

import json

import click

from pipeline.cli.options import json_option


@click.command()
@click.argument("night", metavar="NIGHT")
@click.option("--root", metavar="DIR", help="Folder that holds the archive. [default: ./data]")
@click.option("--survey", metavar="NAME", help="Survey; needed only if several have this night.")
@click.option("--out", metavar="DIR", help="Folder to write to. [default: ROOT/reports/SURVEY/NIGHT]")
@click.option("--luminosity", is_flag=True, help="Show absolute magnitudes and luminosities at the hosts' distances.")
@click.option(
    "--dust-map", metavar="PATH", help="Correct them for extinction: folder of the SFD images, or a HEALPix map."
)
@click.option("--config", "config_file", metavar="FILE", help="Settings. [default: ./alertmill.toml]")
@json_option
def command(
    night: str,
    root: str | None,
    survey: str | None,
    out: str | None,
    luminosity: bool,
    dust_map: str | None,
    config_file: str | None,
    as_json: bool,
) -> None:
    """Write the report of a night again: one HTML page, complete in itself, and its figures as PNG.

    \b
    Example:
      alertmill report 20181129 --root ./data
      alertmill report 20181129 --root ./data --survey ztf --out ./public
      alertmill report 20181129 --root ./data --luminosity
    """
    from pipeline import config, paths
    from pipeline.archive import open_archive
    from pipeline.errors import InputError
    from pipeline.report import write_report

    settings, _ = config.load({"root": root, "dust_map": dust_map}, file=config_file)
    number = paths.parse_night(night)
    archive = open_archive(settings.root, survey=survey)
    holders = [name for name in ([survey] if survey else archive.surveys) if number in archive.nights(name)]
    if not holders:
        held = ", ".join(map(str, archive.nights()[-3:])) or "none yet"
        raise InputError(f"night {number} is not in the archive", mend=f"the latest nights are: {held}")
    if len(holders) > 1:
        raise InputError(f"{', '.join(holders)} have night {number}", mend="name one with --survey")
    try:
        # without the switch the page shows what the run was told to, as it is stored
        asked = {"luminosity": True, "dust_map": settings.dust_map} if luminosity else {"dust_map": dust_map}
        page = write_report(settings.root, holders[0], number, out, **asked)
    except OSError as error:
        raise InputError(f"the report cannot be written: {error}", mend="choose another --out") from error
    if as_json:
        counts = archive.ledger(number, holders[0])["counts"]
        document = {"survey": holders[0], "night": str(number), "alerts": counts["written"], "page": str(page)}
        click.echo(json.dumps(document, indent=1))
    else:
        click.echo(f"report of {holders[0]} {number}: {page}")
