"""``alertmill simulate``."""

from __future__ import annotations

import json

import click

from pipeline.cli.options import json_option


@click.command()
@click.argument("night", metavar="NIGHT")
@click.option("--survey", type=click.Choice(["ztf", "lsst"]), default="ztf", show_default=True, help="Survey.")
@click.option("--alerts", type=int, default=1000, show_default=True, help="Exact number of alerts.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of every random number.")
@click.option("--out", required=True, metavar="DIR", help="Folder to write into.")
@click.option("--schema-version", metavar="V", help="ZTF 4.02 (default), 4.01, 3.3; Rubin 10.0 (default), 11.0.")
@click.option("--cutouts/--no-cutouts", default=True, show_default=True, help="Stamps, or none and much faster.")
@json_option
def command(
    night: str, survey: str, alerts: int, seed: int, out: str, schema_version: str | None, cutouts: bool, as_json: bool
) -> None:
    r"""Write a simulated night: packets, truth, catalogs, sky map.

    The dump is as the survey ships it; beside it stand truth.parquet, the catalogs of that sky and the sky map of a
    merger whose kilonova is among the alerts. The same arguments write the same bytes.

    \b
    Example:
      alertmill simulate 20240115 --survey ztf --alerts 2000 --seed 1 --out ./sim
    """
    from pathlib import Path

    from pipeline.paths import parse_night
    from pipeline.simulation import simulate

    done = simulate(parse_night(night), survey, alerts, seed, Path(out), schema_version=schema_version, cutouts=cutouts)
    if as_json:
        found = {
            "dump": str(done.dump),
            "truth": str(done.truth),
            "skymap": str(done.skymap),
            "event": done.event,
            "alerts": done.alerts,
            "bytes": done.bytes,
            "classes": done.classes,
        }
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(f"{done.dump}  {done.alerts} alerts  {done.bytes / 1e6:.1f} MB  merger {done.event}")
    for name, count in done.classes.items():
        click.echo(f"  {name:<22} {count:>8}")
