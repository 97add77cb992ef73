"""``alertmill status``."""

from __future__ import annotations

import json

import click

from pipeline.cli.options import json_option


@click.command()
@click.argument("night", required=False, metavar="[NIGHT]")
@click.option("--root", metavar="DIR", help="Folder that holds the archive. [default: ./data]")
@click.option("--survey", metavar="NAME", help="Only this survey.")
@click.option("--config", "config_file", metavar="FILE", help="Settings. [default: ./alertmill.toml]")
@json_option
def command(night: str | None, root: str | None, survey: str | None, config_file: str | None, as_json: bool) -> None:
    """Show nights, counts and sizes.

    \b
    Example:
      alertmill status --root ./data
      alertmill status 20181129 --root ./data --json
    """
    from pipeline import config, paths
    from pipeline.status import survey_ledgers

    settings, _ = config.load({"root": root}, file=config_file)
    wanted = None if night is None else paths.parse_night(night)
    found = survey_ledgers(settings.root, survey, wanted)
    if as_json:
        click.echo(json.dumps({name: _summaries(ledgers) for name, ledgers in found.items()}, indent=1))
        return
    from rich.console import Console

    from pipeline.cli.progress import ledger_table, size_text

    console = Console(highlight=False)
    if not any(found.values()):
        console.print("no nights" if wanted is None else f"{wanted}: missing")
    for name, ledgers in found.items():
        if not ledgers:
            continue
        console.print(ledger_table(name, ledgers))
        sizes: dict[str, int] = {}
        for ledger in ledgers:
            for dataset, size in ledger["bytes"].items():
                sizes[dataset] = sizes.get(dataset, 0) + size
        console.print("   ".join(f"{dataset} {size_text(size)}" for dataset, size in sizes.items()))


def _summaries(ledgers: list[dict[str, object]]) -> dict[str, object]:
    kept = ("status", "counts", "reasons", "notes", "bytes", "sources")
    out: dict[str, object] = {}
    for ledger in ledgers:
        summary = {name: ledger[name] for name in kept}
        counts = ledger["counts"]
        out[str(ledger["night"])] = {**(counts if isinstance(counts, dict) else {}), **summary}
    return out
