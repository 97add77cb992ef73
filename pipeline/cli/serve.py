"""``alertmill serve``."""

from __future__ import annotations

import click

from pipeline.cli.options import config_options


@click.command()
@click.option(
    "--inbox",
    required=True,
    metavar="TEMPLATE",
    help="Where each night's dump will stand; {night} stands for YYYYMMDD.",
)
@click.option("--cron", required=True, metavar="SCHEDULE", help='When, in UTC: "minute hour day month weekday".')
@click.option("--name", metavar="NAME", help="Name of the deployment. [default: the survey's]")
@click.option(
    "--server",
    envvar="PREFECT_API_URL",
    metavar="URL",
    help="API of a running Prefect server. [default: PREFECT_API_URL]",
)
@config_options
def command(
    inbox: str,
    cron: str,
    name: str | None,
    server: str | None,
    config_file: str | None,
    root: str | None,
    survey: str | None,
) -> None:
    r"""Run the nightly flow on a schedule, until interrupted.

    Each run takes the last night that was over at its scheduled time. A dump that is not there, or a night that fails,
    raises an alarm: a line in ROOT/alarms.jsonl and whatever the setting `alarm` names (file:PATH, http(s)://...).
    A finished night is not done again, so a schedule may fire several times a day for dumps that come late.

    \b
    Example:
      prefect server start --host 127.0.0.1 &
      alertmill serve --survey ztf --inbox '/dumps/ztf_public_{night}.tar.gz' --root ./data \
          --cron "0 18 * * *" --server http://127.0.0.1:4200/api
    """
    from pathlib import Path

    from flows.serve import serve_nightly
    from pipeline import config

    settings, _ = config.load({"root": root, "survey": survey}, file=config_file)
    if config_file is None and Path(config.FILE_NAME).is_file():
        config_file = config.FILE_NAME
    serve_nightly(
        settings,
        inbox,
        cron=cron,
        name=name or settings.survey,
        server=server,
        config_file=config_file,
        announce=click.echo,
    )
