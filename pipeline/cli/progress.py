"""What a run shows: a progress bar a stage, then the ledger of each night."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from pipeline import paths
from pipeline.nights.commit import Change
from pipeline.nights.drive import Outcome
from pipeline.nights.run import Run, Silent
from pipeline.store.ledger import COUNTS

_HEADS = {
    "packets_in": "packets\nin",
    "written": "\nwritten",
    "duplicates": "dupli-\ncates",
    "conflicting": "conflic-\nting",
    "rejected": "rejec-\nted",
    "cut": "\ncut",
    "other_night": "other\nnight",
}
_NIGHTS_TOLD = 12
"""Nights whose changes are told one by one."""


class _Bars:
    """One bar a stage; nothing is drawn before the first."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, Any] = {}

    def stage(self, name: str, total: int) -> None:
        if not self._tasks:
            self._progress.start()
        self._tasks[name] = self._progress.add_task(name, total=total)

    def advance(self, name: str) -> None:
        self._progress.advance(self._tasks[name])

    def note(self, message: str) -> None:
        self._progress.console.print(f"note: {message}", highlight=False, markup=False)

    def stop(self) -> None:
        if self._tasks:
            self._progress.stop()


@contextlib.contextmanager
def observer(*, quiet: bool) -> Iterator[Any]:
    """Show progress on standard error; nothing if ``quiet``."""
    if quiet:
        yield Silent()
        return
    columns = (TextColumn("{task.description:<20}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars = _Bars(Progress(*columns, console=Console(stderr=True)))
    try:
        yield bars
    finally:
        bars.stop()


def print_outcome(run: Run, outcome: Outcome) -> None:
    """Print the ledger of each night and what changed."""
    console = Console(highlight=False)
    if not outcome.ledgers and not outcome.errors:
        console.print("no packets in the input: nothing to do")
        return
    if outcome.is_up_to_date:
        names = [paths.night_name(night).removeprefix("night=") for night in outcome.ledgers]
        nights = ", ".join(names) if len(names) <= _NIGHTS_TOLD else f"{len(names)} nights"
        console.print(f"{run.survey} {nights}: finished already, nothing written (--force does it again)")
        return
    console.print(ledger_table(run.survey, list(outcome.ledgers.values())))
    if len(outcome.changes) > _NIGHTS_TOLD:
        changed = sum(not change.is_empty for change in outcome.changes.values())
        console.print(f"{len(outcome.changes)} nights, {changed} of them changed")
    else:
        for night, change in outcome.changes.items():
            console.print(f"{paths.night_name(night).removeprefix('night=')}: {_told(change)}")
    for ledger in outcome.ledgers.values():
        for reason, count in ledger["reasons"].items():
            console.print(f"{ledger['night']}: {count:,} {reason}", markup=False)
    for path in outcome.reports.values():
        console.print(f"report: {path}", soft_wrap=True, markup=False)


def _told(change: Change) -> str:
    if change.is_empty:
        return f"{change.unchanged} parts, none changed" if change.unchanged else "no parts"
    pieces = [
        f"{len(names)} {'part' if len(names) == 1 else 'parts'} {what}"
        for names, what in ((change.added, "added"), (change.replaced, "replaced"), (change.removed, "removed"))
        if names
    ]
    return ", ".join([*pieces, f"{change.unchanged} unchanged"])


def ledger_table(survey: str, ledgers: list[dict[str, Any]]) -> Table:
    """Return the counts of nights as a table, with their sum."""
    table = Table(
        title=f"{survey}: conservation ledger", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0)
    )
    table.add_column("\nnight", no_wrap=True)
    for name in COUNTS:
        table.add_column(_HEADS[name], justify="right", no_wrap=True)
    table.add_column("\nsize", justify="right", no_wrap=True)
    for ledger in ledgers:
        counts = [f"{ledger['counts'][name]:,}" for name in COUNTS]
        table.add_row(ledger["night"], *counts, size_text(sum(ledger["bytes"].values())))
    if len(ledgers) > 1:
        sums = [f"{sum(ledger['counts'][name] for ledger in ledgers):,}" for name in COUNTS]
        total = size_text(sum(sum(ledger["bytes"].values()) for ledger in ledgers))
        table.add_section()
        table.add_row("all", *sums, total)
    return table


def size_text(size: int) -> str:
    """Return a number of bytes as people read it."""
    value = float(size)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def outcome_json(run: Run, outcome: Outcome) -> dict[str, Any]:
    """Return a run's outcome as JSON values; ids are strings."""
    return {
        "survey": run.survey,
        "root": run.root.folder,
        "up_to_date": outcome.is_up_to_date,
        "nights": {
            ledger["night"]: {"counts": ledger["counts"], "reasons": ledger["reasons"], "bytes": ledger["bytes"]}
            for ledger in outcome.ledgers.values()
        },
        "changes": {
            str(night): {
                "added": list(change.added),
                "replaced": list(change.replaced),
                "removed": list(change.removed),
                "unchanged": change.unchanged,
            }
            for night, change in outcome.changes.items()
        },
        "errors": {paths.night_name(night): str(error) for night, error in outcome.errors.items()},
        "reports": {str(night): path for night, path in outcome.reports.items()},
        "timing": run.timing,
    }
