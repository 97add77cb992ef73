"""Say what was found in a simulated night, and how much of it is true; the end of ``make run``."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from rich import box
from rich.console import Console
from rich.table import Table

import pipeline

SUPERNOVAE = {"sn_ia", "sn_core_collapse", "slsn", "pisn"}
LEAST_OF_STREAK = 5
"""Alerts of one glint that the night module needs."""


@dataclass(frozen=True)
class Found:
    """One row: what was looked for, how many were found, how many of them are true, how many there are in truth."""

    what: str
    found: int
    true: int
    existing: int
    others: str


def read_truth(path: Path) -> pd.DataFrame:
    """Return the class, streak and merger of each simulated alert."""
    columns = ["alert_id", "class", "streak_id", "event_name"]
    return pd.read_parquet(path, columns=columns, dtype_backend="pyarrow")


def look(archive: pipeline.archive.Archive, night: int, truth: pd.DataFrame) -> list[Found]:
    """Compare filters and streaks with the truth of each alert."""
    science = archive.science(night).to_pandas().merge(truth, on="alert_id", validate="one_to_one", suffixes=("", "_t"))
    in_merger = science["event_name"].notna()
    rows = [
        _selected("supernova candidates", science, "filter_supernova_candidate", science["class"].isin(SUPERNOVAE)),
        _selected("kilonova in the sky map", science, "filter_kilonova_in_skymap", in_merger),
        _selected("known asteroids", science, "filter_solar_system", science["class"] == "asteroid_known"),
    ]
    return [*rows, _streaks(archive, night, truth)]


def _selected(what: str, science: pd.DataFrame, name: str, is_true: pd.Series) -> Found:
    passed = science[name].astype(bool)
    others = science.loc[passed & ~is_true, "class"].value_counts()
    told = ", ".join(f"{count} {kind}" for kind, count in others.items())
    return Found(what, int(passed.sum()), int((passed & is_true).sum()), int(is_true.sum()), told)


def _streaks(archive: pipeline.archive.Archive, night: int, truth: pd.DataFrame) -> Found:
    """Count streaks; one is true if all of its alerts are glints of one satellite."""
    links = archive.links(night).to_pandas().merge(truth, on="alert_id")
    of_glints = links[links["module"] == "glint_streaks"].groupby("link_id")["streak_id"]
    true = int(((of_glints.nunique() == 1) & (of_glints.count() == of_glints.size())).sum())
    existing = int((truth["streak_id"].value_counts() >= LEAST_OF_STREAK).sum())
    return Found("satellite streaks", of_glints.ngroups, true, existing, "")


def main() -> None:
    """Print the ledger's sum, the table and where the report stands."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("night", type=int)
    parser.add_argument("truth", type=Path)
    given = parser.parse_args()
    console = Console(highlight=False, soft_wrap=True)
    archive = pipeline.open(given.root)
    truth = read_truth(given.truth)

    counts = dict(archive.ledger(given.night)["counts"])
    sums = " + ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if name != "packets_in")
    console.print(f"\nledger of {given.night}: {counts['packets_in']:,} packets in = {sums}", soft_wrap=True)

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("looked for")
    for name in ("found", "true", "there are"):
        table.add_column(name, justify="right")
    table.add_column("the others are")
    for row in look(archive, given.night, truth):
        table.add_row(row.what, f"{row.found:,}", f"{row.true:,}", f"{row.existing:,}", row.others or "-")
    console.print(table)
    console.print("Counted in alerts, and in whole streaks. This sky is simulated, and the classifier")
    console.print("was trained on other nights of the same simulator: expect less of a real sky.\n")
    page = given.root / "reports" / archive.surveys[0] / str(given.night) / "index.html"
    console.print(f"report: {page if page.is_file() else 'none was written'}", soft_wrap=True)


if __name__ == "__main__":
    main()
