"""``alertmill xmatch``."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import json_option

if TYPE_CHECKING:
    from pipeline.streams import Stream


@click.command()
@click.argument("words", nargs=-1, metavar="[TABLE] START STOP")
@click.option("--radius-arcsec", type=float, help="Largest separation. [default: 2 for --with]")
@click.option("--radius-column", metavar="NAME", help="Column of TABLE with each row's own radius, arcsec.")
@click.option("--ra", metavar="NAME", help="Column of TABLE, degrees. [default: ra, RAJ2000 ...]")
@click.option("--dec", metavar="NAME", help="Column of TABLE, degrees. [default: dec, DEJ2000 ...]")
@click.option("--id", "id_column", metavar="NAME", help="Column of TABLE to keep. [default: id, if there is one]")
@click.option("--motion", nargs=2, metavar="PMRA PMDEC", help="Columns of TABLE: mas/yr, PMRA times cos(dec).")
@click.option("--epoch", type=float, help="Julian year of the positions; with --motion.  [default: 2000]")
@click.option("--with", "other", metavar="SURVEY|ROOT", help="Match with another stream instead of a table.")
@click.option("--with-survey", metavar="NAME", help="Survey of the other root. [default: the same, or its only one]")
@click.option("--nights-apart", type=int, default=0, show_default=True, help="Nights between the two streams.")
@click.option("--look-ahead-day", type=float, default=0.0, show_default=True, help="How much later a neighbour may be.")
@click.option("--out", metavar="PATH", required=True, help="File (.parquet, .csv, .vot, .fits); a folder for --with.")
@click.option("--root", metavar="DIR", help="Folder that holds the archive. [default: ./data]")
@click.option("--survey", metavar="NAME", help="Survey. [default: every one; for --with the only one]")
@click.option("--config", "config_file", metavar="FILE", help="Settings. [default: ./alertmill.toml]")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@json_option
def command(words: tuple[str, ...], other: str | None, as_json: bool, quiet: bool, **options: Any) -> None:
    """Match the alerts of nights START to STOP with a table of yours, or with another stream both ways.

    TABLE is Parquet, CSV, FITS or VOTable with up to 10 million rows: the result holds every alert within the radius of
    every row. --with takes another survey of the same root, or another root: the result is a folder of three files,
    what each stream's alerts get of the other, and the pairs of objects.

    \b
    Example:
      alertmill xmatch targets.csv 20181129 20181205 --radius-arcsec 2 --out matches.parquet
      alertmill xmatch circles.fits 20181129 20181205 --radius-column err_arcsec --out matches.csv
      alertmill xmatch --with lsst 20260301 20260331 --survey ztf --nights-apart 1 --out ztf_lsst
    """
    from pipeline import config
    from pipeline.archive import open_archive
    from pipeline.cli.progress import observer
    from pipeline.errors import InputError
    from pipeline.paths import parse_night

    wanted = 2 if other else 3
    if len(words) != wanted:
        form = "START STOP" if other else "TABLE START STOP"
        raise InputError(f"{len(words)} words were given, not {form}", mend="see `alertmill xmatch --help`")
    start, stop = (parse_night(word) for word in words[-2:])
    if start > stop:
        raise InputError(f"night {start} is after {stop}", mend="give the first night first")
    settings, _ = config.load({"root": options["root"]}, file=options["config_file"])
    archive = open_archive(settings.root, survey=options["survey"])
    if not archive.surveys:
        raise InputError(f"{settings.root} holds no night yet", mend="run `alertmill run`")
    with observer(quiet=quiet or as_json) as progress:
        if other:
            found = _with_stream(archive, other, start, stop, options, progress)
        else:
            found = _with_table(archive, words[0], start, stop, options, progress)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(found), "out": options["out"]}, indent=1))
        return
    for name, value in dataclasses.asdict(found).items():
        if value or not isinstance(value, tuple):
            told = ", ".join(map(str, value)) if isinstance(value, tuple) else f"{value:,}"
            click.echo(f"{name.replace('_', ' '):<22} {told}")
    click.echo(f"written to {options['out']}")


def _with_table(archive: Any, table: str, start: int, stop: int, options: dict[str, Any], progress: Any) -> Any:
    from pipeline.errors import InputError
    from pipeline.streams import match_table, read_targets

    _refuse(options, ("with_survey",), "goes with --with, not with a table")
    if options["epoch"] is not None and not options["motion"]:
        raise InputError("--epoch means nothing without --motion", mend="name the columns of the proper motion")
    targets = read_targets(
        table,
        radius_arcsec=options["radius_arcsec"],
        radius_column=options["radius_column"],
        ra=options["ra"],
        dec=options["dec"],
        id_column=options["id_column"],
        motion=options["motion"] or None,
        epoch=2000.0 if options["epoch"] is None else options["epoch"],
    )
    surveys = [options["survey"]] if options["survey"] else archive.surveys
    return match_table(archive, surveys, targets, start, stop, options["out"], progress=progress)


def _with_stream(archive: Any, other: str, start: int, stop: int, options: dict[str, Any], progress: Any) -> Any:
    from pipeline.streams import match_streams

    _refuse(options, ("radius_column", "ra", "dec", "id_column", "motion", "epoch"), "goes with a table, not --with")
    first, second = _streams(archive, other, options["survey"], options["with_survey"])
    return match_streams(
        first,
        second,
        start,
        stop,
        options["out"],
        radius_arcsec=2.0 if options["radius_arcsec"] is None else options["radius_arcsec"],
        nights_apart=options["nights_apart"],
        look_ahead_day=options["look_ahead_day"],
        progress=progress,
    )


def _streams(archive: Any, other: str, survey: str | None, other_survey: str | None) -> tuple[Stream, Stream]:
    """Return the two streams: ``other`` is a survey of the archive, else the root of another."""
    from pipeline.archive import open_archive
    from pipeline.errors import InputError
    from pipeline.streams import Stream

    if other in archive.surveys:
        mine = [survey] if survey else [name for name in archive.surveys if name != other]
        if len(mine) != 1:
            raise InputError(f"{archive.root} holds {', '.join(archive.surveys)}", mend="name one with --survey")
        return Stream(archive, mine[0]), Stream(archive, other)
    if not Path(other).is_dir():
        held = ", ".join(archive.surveys)
        raise InputError(f"{other} is neither a survey of {archive.root} ({held}) nor a folder")
    if survey is None and len(archive.surveys) > 1:
        raise InputError(f"{archive.root} holds {', '.join(archive.surveys)}", mend="name one with --survey")
    name = survey or archive.surveys[0]
    there = open_archive(other, survey=other_survey)
    theirs = other_survey or (name if name in there.surveys else there.surveys[0] if len(there.surveys) == 1 else None)
    if theirs is None:
        raise InputError(f"{other} holds {', '.join(there.surveys) or 'no night'}", mend="name one with --with-survey")
    return Stream(archive, name), Stream(there, theirs)


def _refuse(options: dict[str, Any], names: tuple[str, ...], reason: str) -> None:
    from pipeline.errors import InputError

    for name in names:
        if options[name] not in (None, ()):
            option = "--id" if name == "id_column" else f"--{name.replace('_', '-')}"
            raise InputError(f"{option} {reason}", mend="see `alertmill xmatch --help`")
