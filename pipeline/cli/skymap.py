"""``alertmill skymap``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import config_options, json_option

if TYPE_CHECKING:
    from pipeline.archive import Archive
    from pipeline.catalogs import Catalog
    from pipeline.config import Config
    from pipeline.followup import Found, Search
    from pipeline.followup.coverage import Exposures
    from pipeline.skymap import SkyMap


@click.command()
@click.argument("given", nargs=-1, required=True, metavar="MAP... START STOP")
@config_options
@click.option("--release", metavar="NAME", help="Release of the science dataset. [default: main]")
@click.option("--credible-level", type=float, default=0.9, show_default=True, help="Level of the contour.")
@click.option("--window", type=(float, float), metavar="BEFORE AFTER", help="Days before and after the event.")
@click.option("--host", is_flag=True, help="Add host galaxies, and the credible level in space.")
@click.option(
    "--catalog", "catalogs", multiple=True, metavar="NAME", help="Catalog of hosts; repeatable. [default: all]"
)
@click.option("--luminosity", is_flag=True, help="Add luminosities at the host's distance.")
@click.option("--significance", is_flag=True, help="Add chance-coincidence probabilities: bronze, silver, gold.")
@click.option("--out", metavar="FILE", help="Write the rows: .parquet, .csv, .vot or .fits.")
@click.option("--positions", metavar="TABLE", help="Look the rows of this table up instead; nights do not matter.")
@click.option("--plot", metavar="FILE", help="Write the figure, .png; of several maps one each.")
@click.option("--moc", metavar="FILE", help="Write the region, .fits or .json; of several maps one each.")
@json_option
def command(given: tuple[str, ...], **options: Any) -> None:
    """Find the alerts of a range of nights within the contours of sky maps.

    MAP is a FITS file (flat or multi-order), NAME=FILE, a notice (LVK JSON or Avro, VOEvent), or an event that the
    archive knows. Every alert is told with its credible level and what was known of it before the event.

    \b
    Example:
      alertmill skymap bayestar.fits.gz 20190425 20190510 --host --out candidates.parquet
      alertmill skymap S190425z S190426c 20190425 20190510 --window 1 14 --plot map.png
      alertmill skymap bayestar.fits.gz --positions galaxies.csv --out galaxies.parquet
    """
    from pipeline import config
    from pipeline.errors import InputError

    names = {"root": options["root"], "release": options["release"]}
    settings, _ = config.load(names, file=options["config_file"])
    if not 0 < options["credible_level"] <= 1:
        raise InputError(f"--credible-level {options['credible_level']:g} is not above 0 and up to 1")
    targets = _targets(options)
    if options["positions"] is not None:
        _look_up(given, settings, options, targets)
    else:
        _search(given, settings, options, targets)


def _targets(options: dict[str, Any]) -> dict[str, Path]:
    """Return the files to write, checked before any work begins."""
    from pipeline.followup.files import OUT_SUFFIXES, check_target

    known = {"out": OUT_SUFFIXES, "plot": (".png",), "moc": (".fits", ".json")}
    return {
        name: check_target(options[name], suffixes, f"--{name}")
        for name, suffixes in known.items()
        if options[name] is not None
    }


# ------------------------------------------------------------------------------------------------ positions
def _without_nights(given: tuple[str, ...]) -> tuple[str, ...]:
    """Return the maps: a table has no nights, but those of a search may stay where they stood."""
    from pipeline.errors import InputError
    from pipeline.paths import parse_night

    *named, start, stop = ("", "", *given)
    try:
        are_nights = all(parse_night(item) and not Path(item).is_file() for item in (start, stop))
    except InputError:
        return given
    return tuple(named[2:]) if are_nights and len(given) > 2 else given


def _look_up(given: tuple[str, ...], settings: Config, options: dict[str, Any], targets: dict[str, Path]) -> None:
    from pipeline import paths
    from pipeline.errors import InputError
    from pipeline.followup import positions
    from pipeline.followup.files import read_table, write_table
    from pipeline.followup.maps import open_map
    from pipeline.followup.summary import summary_of_map
    from pipeline.store.root import open_root

    is_archive = Path(settings.root, paths.ROOT_FILE).is_file()  # only events by name need one
    root = open_root(settings.root) if is_archive else None
    unused = [name for name in ("window", "host", "catalogs", "luminosity", "significance") if options[name]]
    if unused:
        raise InputError(f"--{unused[0].rstrip('s')} is for a search of nights", mend="leave it out with --positions")
    table = read_table(options["positions"])
    maps = [open_map(item, root) for item in _without_nights(given)]
    added = positions(table, maps, source=options["positions"])
    if "out" in targets:
        write_table(added, targets["out"])
    written = _write_pictures(maps, options, targets, None, None)
    told = {
        "rows": added.num_rows,
        "rows_without_position": added.column(added.column_names[table.num_columns]).null_count,
        "columns": added.column_names[table.num_columns :],
        "events": [summary_of_map(item, options["credible_level"]) for item in maps],
        "files": {**({"out": str(targets["out"])} if "out" in targets else {}), **written},
    }
    if options["as_json"]:
        click.echo(json.dumps(told, indent=1))
        return
    from pipeline.cli.skymap_text import print_positions

    print_positions(told, None if "out" in targets else added)


# --------------------------------------------------------------------------------------------------- search
def _search(given: tuple[str, ...], settings: Config, options: dict[str, Any], targets: dict[str, Path]) -> None:
    from pipeline.cli.progress import observer
    from pipeline.dust import open_dust_map
    from pipeline.errors import InputError
    from pipeline.followup import Search, find, significance
    from pipeline.followup.coverage import read_exposures
    from pipeline.followup.files import write_table
    from pipeline.followup.maps import notices_of, open_map
    from pipeline.followup.summary import summary_of_search
    from pipeline.paths import parse_night
    from pipeline.store.root import open_root

    if len(given) < 3:
        raise InputError(
            "a map, the first and the last night are needed", mend="give MAP... START STOP, or --positions"
        )
    *named, start, stop = given
    start, stop = str(parse_night(start)), str(parse_night(stop))
    archive, survey = _open(settings, options["survey"])
    root = open_root(settings.root)
    maps = [open_map(item, root) for item in named]
    asked = Search(
        maps,
        start,
        stop,
        credible_level=options["credible_level"],
        window_day=options["window"],
        host=options["host"] or bool(options["catalogs"]),
        catalogs=_catalogs(settings, options),
        luminosity=options["luminosity"],
        dust=open_dust_map(settings.dust_map) if options["luminosity"] and settings.dust_map else None,
        release=settings.release,
        survey=survey,
    )
    asked.check()
    with observer(quiet=options["as_json"]) as progress:
        found = find(archive, asked, progress)
    told: dict[str, Any] = {"root": archive.root, "survey": survey, "release": settings.release}
    if options["significance"]:
        found, told["significance"] = _assess(
            asked, found, archive, significance.streams_known(root, maps, notices_of(named, maps))
        )
    exposures = read_exposures(archive, start, stop, survey=survey)
    if "out" in targets:
        write_table(found.table, targets["out"])
    written = _write_pictures(maps, options, targets, (asked, found), exposures)
    told |= summary_of_search(asked, found, exposures)
    told["files"] = {**({"out": str(targets["out"])} if "out" in targets else {}), **written}
    if options["as_json"]:
        click.echo(json.dumps(told, indent=1))
        return
    from pipeline.cli.skymap_text import print_search

    print_search(told)


def _assess(asked: Search, found: Found, archive: Archive, streams: dict[str, str]) -> tuple[Found, dict[str, Any]]:
    """Return the search with p-values and selections, and what they rest on."""
    import dataclasses

    from pipeline.followup import significance

    made = significance.add(
        found.table,
        archive,
        asked.maps,
        asked.start,
        asked.stop,
        credible_level=asked.credible_level,
        streams=streams,
        release=asked.release,
        survey=asked.survey,
    )
    return dataclasses.replace(found, table=made.table), made.summary


def _open(settings: Config, survey: str | None) -> tuple[Archive, str | None]:
    """Return the archive and the survey to read, None if it holds no night at all."""
    from pipeline.archive import open_archive
    from pipeline.errors import InputError

    archive = open_archive(settings.root, survey=survey)
    if survey is None and len(archive.surveys) > 1:
        raise InputError(f"the archive holds {', '.join(archive.surveys)}", mend="name one with --survey")
    return archive, survey or next(iter(archive.surveys), None)


def _catalogs(settings: Config, options: dict[str, Any]) -> list[Catalog]:
    """Return the catalogs of host galaxies; none where hosts are not asked for."""
    from pipeline.followup import open_catalogs

    if not (options["host"] or options["luminosity"] or options["catalogs"]):
        return []
    return open_catalogs(Path(settings.catalog_folder or Path(settings.root) / "catalogs"), options["catalogs"])


def _write_pictures(
    maps: list[SkyMap],
    options: dict[str, Any],
    targets: dict[str, Path],
    search: tuple[Search, Found] | None,
    exposures: Exposures | None,
) -> dict[str, list[str]]:
    """Write figure and region of every map; returns the files by option."""
    from pipeline.followup.files import named_for, write_bytes
    from pipeline.healpix.moc import moc_fits, moc_json
    from pipeline.skymap import region

    written: dict[str, list[str]] = {}
    for skymap in maps:
        contents = {}
        if "plot" in targets:
            contents["plot"] = _figure(skymap, search, exposures)
        if "moc" in targets:
            ranges = region(skymap, options["credible_level"])
            contents["moc"] = moc_json(ranges).encode() if targets["moc"].suffix == ".json" else moc_fits(ranges)
        for name, content in contents.items():
            path = named_for(targets[name], skymap.event, among=len(maps))
            write_bytes(path, content)
            written.setdefault(name, []).append(str(path))
    return written


def _figure(skymap: SkyMap, search: tuple[Search, Found] | None, exposures: Exposures | None) -> bytes:
    from pipeline.followup.coverage import coverage_of
    from pipeline.followup.summary import event_line, summary_of_map
    from pipeline.report.skymap import Marks, marks_of, skymap_figure

    line = event_line(summary_of_map(skymap))
    if search is None or exposures is None:
        return skymap_figure(skymap, Marks(), subtitle=line)
    asked, found = search
    seen = coverage_of(exposures, skymap, window_day=asked.window_day, since_event=True).ranges
    nights = " to ".join(asked.nights.split(":"))
    return skymap_figure(skymap, marks_of(found.table, skymap.event, seen), subtitle=f"{line}; nights {nights}")
