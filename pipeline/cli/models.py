"""``alertmill models``."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from pipeline.cli.options import json_option

if TYPE_CHECKING:
    import pyarrow as pa

_folder = click.option("--models", "folder", metavar="DIR", help="Folder of models, asked before those shipped.")


@click.group()
def command() -> None:
    """List, train and show classifiers.

    \b
    Example:
      alertmill models list
      alertmill models train supernova --input ./data --truth truth.parquet --out ./models
    """


@command.command("list")
@_folder
@json_option
def list_(folder: str | None, as_json: bool) -> None:
    """List models: those of a folder and those shipped.

    \b
    Example:
      alertmill models list --models ./models
    """
    from pipeline import models

    base = None if folder is None else Path(folder)
    found = {name: models.card(name, base) for name in models.available(base)}
    if as_json:
        click.echo(json.dumps(found, indent=1, sort_keys=True))
        return
    for name, card in found.items():
        click.echo(f"{name}  {card['model_sha256'][:12]}  {_summary(card)}")
    if not found:
        click.echo("no models")


@command.command("card")
@click.argument("name", metavar="NAME")
@_folder
def card_(name: str, folder: str | None) -> None:
    """Check a model and print its card: data, split, features, threshold, metrics.

    \b
    Example:
      alertmill models card supernova
    """
    from pipeline import models

    base = None if folder is None else Path(folder)
    models.load(name, base)
    click.echo(json.dumps(models.card(name, base), indent=1, sort_keys=True))


@command.command()
@click.argument("name", metavar="NAME")
@click.option("--input", "inputs", required=True, multiple=True, metavar="DIR", help="Archive, or Parquet of alerts.")
@click.option("--truth", "truths", required=True, multiple=True, metavar="FILE", help="Parquet: alert_id, class.")
@click.option("--out", required=True, metavar="DIR", help="Folder of models to write into.")
@click.option("--seed", default=0, show_default=True, help="Of the split, the trees and the bootstrap.")
@click.option("--survey", metavar="NAME", help="Survey, if an archive holds several.")
@json_option
def train(
    name: str, inputs: tuple[str, ...], truths: tuple[str, ...], out: str, seed: int, survey: str | None, as_json: bool
) -> None:
    """Train a classifier on labelled alerts and judge it on objects it has not seen.

    The same input and seed give the same bytes.

    \b
    Example:
      alertmill simulate 20240115 --alerts 20000 --out sim
      alertmill run 20240115 --input sim/*.tar --root sim/root
      alertmill models train supernova --input sim/root --truth sim/truth.parquet --out ./models
    """
    import pyarrow as pa

    from pipeline import models, training

    recipe = training.recipe_of(name)
    truth = pa.concat_tables([_truth(Path(file)) for file in truths])
    tables = (table for folder in inputs for table in _alerts(Path(folder), survey))
    trained = training.train(recipe, training.labelled(recipe, tables, truth), seed=seed)
    model = models.save(Path(out), trained.model, trained.card, trained.golden)
    card = models.card(model.name, Path(out))
    if as_json:
        click.echo(json.dumps(card, indent=1, sort_keys=True))
    else:
        click.echo(f"{name}  {Path(out) / name}  {_summary(card)}")


def _summary(card: dict[str, object]) -> str:
    held_out = card.get("held_out")
    metrics = held_out["metrics"] if isinstance(held_out, dict) else {}
    shown = [f"{key} {one['value']:.3f} [{one['low']:.3f}, {one['high']:.3f}]" for key, one in metrics.items()]
    return "  ".join([*shown, f"threshold {card['threshold']}"])


def _truth(file: Path) -> pa.Table:
    import pyarrow.parquet as pq

    from pipeline.errors import InputError

    if not file.is_file():
        raise InputError(f"there is no truth table {file}")
    return pq.read_table(file, columns=["alert_id", "class"])


def _alerts(folder: Path, survey: str | None) -> Iterator[pa.Table]:
    """Yield the alerts of an archive, or of a folder of Parquet files, a batch at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from pipeline.archive import open_archive
    from pipeline.errors import InputError
    from pipeline.schema import conform
    from pipeline.tables import ALERTS

    if (folder / "root.json").is_file():
        selection = open_archive(folder, survey=survey).alerts(columns=ALERTS.names, survey=survey)
        for batch in selection.batches():
            yield pa.Table.from_batches([batch])
        return
    files = sorted(folder.rglob("*.parquet"))
    if not files:
        raise InputError(f"{folder} is no archive and holds no Parquet files")
    for file in files:
        yield conform(pq.read_table(file), ALERTS, dataset=str(file))
