"""``alertmill run``."""

from __future__ import annotations

import json
from typing import Any

import click

from pipeline.cli.options import config_options, json_option


@click.command()
@click.argument("night", required=False, metavar="[NIGHT]")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    required=True,
    metavar="PATH",
    help="Dump: folder, .tar, .tar.gz, .avro, Parquet. May be repeated.",
)
@config_options
@click.option("--release", metavar="NAME", help="Release that science is written to. [default: main]")
@click.option("--cut", metavar="CONDITION", help='Input cut on the packet\'s own fields, for example "rb >= 0.55".')
@click.option(
    "--max-rejects",
    type=float,
    metavar="SHARE",
    help="Largest share of undecodable packets of a source. [default: 0.01]",
)
@click.option(
    "--catalog",
    "catalogs",
    multiple=True,
    metavar="NAME[=DIR]",
    help="Built catalog to match with; may be repeated. none: without any. [default: all that are built]",
)
@click.option(
    "--skymap",
    "skymaps",
    multiple=True,
    metavar="EVENT[=FILE]",
    help="Sky map to match with: of an event that the archive knows, or a file. May be repeated.",
)
@click.option("--luminosity", is_flag=True, help="Write luminosities at the distance of the host galaxy.")
@click.option("--dust-map", metavar="PATH", help="Dust map that luminosities are corrected with.")
@click.option("--model", "models", multiple=True, metavar="NAME[=DIR]", help="Classifier. [default: supernova]")
@click.option("--schemas", metavar="DIR|URL", help="Writer schemas of wire-format messages: folder or schema registry.")
@click.option("--workers", type=click.IntRange(min=1), help="Dask worker processes. [default: one a core]")
@click.option("--scheduler", metavar="ADDRESS", help="A running Dask scheduler, tcp://host:port.")
@click.option("--serial", is_flag=True, help="No Dask: one task after the other in this process.")
@click.option("--direct", is_flag=True, help="Without Prefect.")
@click.option("--force", is_flag=True, help="Do a finished night again.")
@click.option("--no-report", is_flag=True, help="Write no report.")
@json_option
def command(night: str | None, inputs: tuple[str, ...], config_file: str | None, as_json: bool, **options: Any) -> None:
    """Run the nights of a dump: decode, enrich, commit, report.

    Without NIGHT every night found in the input is run, each alert into its own night. With NIGHT (YYYYMMDD) packets of
    other nights are counted as other_night and kept in rejects. Killed or failed runs go on when the same command is
    given again; a finished night is not done again.

    \b
    Example:
      alertmill run 20181129 --survey ztf --input ztf_public_20181129.tar.gz --root ./data
      alertmill run --survey lsst --input ./transfer --root ./data --direct --workers 2
    """
    from pipeline import config, paths
    from pipeline.cli import progress
    from pipeline.nights import drive
    from pipeline.nights.run import prepare

    settings, _ = config.load(_settings(options), file=config_file)
    wanted = None if night is None else paths.parse_night(night)
    with progress.observer(quiet=as_json) as observer:
        run = prepare(settings, inputs, night=wanted, force=options["force"], observer=observer)
        outcome = drive.up_to_date(run)
        if outcome is None:
            outcome = _run(run)
    if as_json:
        click.echo(json.dumps(progress.outcome_json(run, outcome), indent=1))
    else:
        progress.print_outcome(run, outcome)
    error = drive.first_error(outcome)
    if error is not None:
        raise error


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options given, by the dotted names of the settings."""
    names = ("root", "survey", "release", "cut", "max_rejects", "schemas", "dust_map")
    settings: dict[str, Any] = {name: options[name] for name in names}
    for name in ("catalogs", "skymaps", "models"):
        settings[name] = options[name] or None
    settings["execution.workers"] = options["workers"]
    settings["execution.scheduler"] = options["scheduler"]
    settings["execution.mode"] = "serial" if options["serial"] else None
    settings["execution.prefect"] = False if options["direct"] else None
    settings["luminosity"] = True if options["luminosity"] else None
    settings["report"] = False if options["no_report"] else None
    return settings


def _run(run: Any) -> Any:
    if run.config.execution.prefect:
        from flows.launch import run_nightly

        return run_nightly(run)
    from pipeline.nights.drive import run_direct

    return run_direct(run)
