"""``alertmill events``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pipeline.cli.options import json_option

if TYPE_CHECKING:
    from pipeline.events import EventStore, StoredEvent

_root_options = (
    click.option("--config", "config_file", metavar="FILE", help="Settings. [default: ./alertmill.toml]"),
    click.option("--root", metavar="DIR", help="Folder that holds the archive. [default: ./data]"),
)


def _with_root(function: Any) -> Any:
    for option in _root_options:
        function = option(function)
    return function


@click.group()
def command() -> None:
    """Keep the events that notices tell of: gravitational waves, gamma-ray bursts, neutrinos.

    \b
    Example:
      alertmill events add S230518h-initial.json S230518h-update.json
      alertmill events list
      alertmill run 20230519 --input night.tar.gz --skymap S230518h
    """


@command.command()
@click.argument("notices", nargs=-1, required=True, metavar="NOTICE...")
@_with_root
@json_option
def add(notices: tuple[str, ...], root: str | None, config_file: str | None, as_json: bool) -> None:
    """Take notices into the archive: LVK alerts (JSON, Avro) and VOEvents (XML), compressed or not.

    A notice that is there already changes nothing; versions may come in any order.

    \b
    Example:
      alertmill events add S230518h-initial.json.gz gbm_final.xml
    """
    from pipeline.errors import InputError

    store = _store(root, config_file)
    told = []
    for notice in notices:
        try:
            data = Path(notice).read_bytes()
        except OSError as error:
            raise InputError(f"notice {notice} cannot be read: {error.strerror}") from error
        told += [_row(item) | {"is_new": item.is_new} for item in store.add_all(data, Path(notice).name)]
    if as_json:
        click.echo(json.dumps(told, indent=1))
        return
    for row in told:
        known = "" if row["is_new"] else "  (known already)"
        click.echo(f"{row['name']}  version {row['version']}  {row['status']}{known}")


@command.command("list")
@_with_root
@json_option
def list_(root: str | None, config_file: str | None, as_json: bool) -> None:
    """Show every event with what holds now.

    \b
    Example:
      alertmill events list --json
    """
    store = _store(root, config_file)
    rows = [_row(store.versions(name)[-1]) for name in store.names()]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for row in rows:
        status = f"{row['status']} (test)" if row["is_test"] else row["status"]
        time = row["time_utc"] or "-"
        click.echo(f"{row['name']:<24} v{row['version']:<3} {row['stream']:<15} {status:<18} {time:<24} {row['where']}")


@command.command()
@click.argument("name")
@_with_root
@json_option
def show(name: str, root: str | None, config_file: str | None, as_json: bool) -> None:
    """Show all versions of event NAME.

    \b
    Example:
      alertmill events show S230518h
    """
    from pipeline.errors import InputError

    versions = _store(root, config_file).versions(name)
    if not versions:
        raise InputError(f"there is no event {name}", mend="see `alertmill events list`")
    if as_json:
        click.echo(json.dumps([_row(item) | item.as_dict() for item in versions], indent=1))
        return
    for item in versions:
        row = _row(item)
        click.echo(
            f"version {row['version']}  {row['status']}  {row['created_utc']}  {row['digest'][:8]}  {row['source']}"
        )
        told = {"time": row["time_utc"], "where": row["where"], "false alarms": _rate(item)}
        told |= {label: f"{share:.3g}" for label, share in item.event.classification.items()}
        if item.event.external is not None:
            told["coincident"] = f"{item.event.external.observatory} {item.event.external.ivorn}".strip()
        for label, value in told.items():
            if value:
                click.echo(f"  {label:<14} {value}")


@command.command()
@click.argument("name")
@click.option("--out", required=True, metavar="FILE", help="FITS file to write.")
@click.option("--version", type=click.IntRange(min=1), help="This version. [default: what holds now]")
@click.option("--combined", is_flag=True, help="The map combined with that of a coincident event.")
@_with_root
@json_option
def export(
    name: str,
    out: str,
    version: int | None,
    combined: bool,
    root: str | None,
    config_file: str | None,
    as_json: bool,
) -> None:
    """Write the sky map of event NAME: as shipped, or made of its error circle. Test events are exported too.

    \b
    Example:
      alertmill events export S230518h --out S230518h.fits
    """
    from pipeline.errors import InputError
    from pipeline.skymap import region_area_deg2
    from pipeline.skymaps import skymap_fits

    store = _store(root, config_file)
    stored = store.located(name, version, allow_test=True)
    skymap = store.skymap_of(stored, combined=combined)
    data = store.map_bytes(stored, combined=combined) or skymap_fits(skymap)
    try:
        Path(out).write_bytes(data)
    except OSError as error:
        raise InputError(f"{out} cannot be written: {error.strerror}") from error
    area = region_area_deg2(skymap, 0.9)
    if as_json:
        click.echo(json.dumps(_row(stored) | {"file": out, "bytes": len(data), "area_90_deg2": area}, indent=1))
    else:
        click.echo(f"{out}: {stored.name} version {stored.version}, 90 % within {area:,.4g} deg2")


def _store(root: str | None, config_file: str | None) -> EventStore:
    from pipeline import config
    from pipeline.events import EventStore

    return EventStore(config.load({"root": root}, file=config_file)[0].root)


def _row(item: StoredEvent) -> dict[str, Any]:
    event = item.event
    return {
        "name": item.name,
        "version": item.version,
        "status": event.status,
        "kind": event.kind,
        "stream": event.stream,
        "is_test": event.is_test,
        "time_utc": _utc(event.time_mjd),
        "time_mjd": event.time_mjd,
        "created_utc": event.created_utc,
        "where": _where(item),
        "digest": item.digest,
        "source": item.source,
    }


def _where(item: StoredEvent) -> str:
    circle = item.event.circle
    if item.skymap_sha256 is not None:
        return "sky map, and one combined" if item.combined_sha256 is not None else "sky map"
    if circle is None:
        return "-"
    systematic = f" + {circle.systematic_deg:g} systematic" if circle.systematic_deg else ""
    return f"{circle.ra:.4f} {circle.dec:+.4f} +- {circle.radius_deg:g}{systematic} deg ({circle.containment:.0%})"


def _rate(item: StoredEvent) -> str:
    far_hz = item.event.far_hz
    return f"1 in {1 / far_hz / 365.25 / 86400:.3g} years" if far_hz else ""


def _utc(mjd_tai: float | None) -> str | None:
    if mjd_tai is None:
        return None
    from datetime import UTC, datetime, timedelta

    from pipeline.night import tai_to_utc

    moment = datetime(1858, 11, 17, tzinfo=UTC) + timedelta(days=float(tai_to_utc(mjd_tai)))
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
