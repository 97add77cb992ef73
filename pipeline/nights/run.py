"""A run: what it was asked, what it will read, and where it prepares its files."""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import numpy as np
import pyarrow as pa

import pipeline
from pipeline import paths
from pipeline.config import Config
from pipeline.dumps import Source, list_sources, source_sha256
from pipeline.errors import InputError, LeaseError, PartError, PipelineError
from pipeline.execute import Executor
from pipeline.filters import conditions
from pipeline.nights.enrichment import definitions, night_definitions, science_schema
from pipeline.nights.recipe import Recipe, make_recipe
from pipeline.nights.releases import widened
from pipeline.schema import key_of
from pipeline.store import Lease, Root, hold, open_root, read_ledger, read_ledgers, release_dead
from pipeline.surveys import get as get_survey

DECODE_VERSION = 1
"""Raised whenever decode or normalisation gives other rows or numbers."""

Job = TypeVar("Job")
Result = TypeVar("Result")


class Observer(Protocol):
    """Who is told of a run's progress."""

    def stage(self, name: str, total: int) -> None:
        """Hear that a stage begins, with so many tasks."""

    def advance(self, name: str) -> None:
        """Hear that a task of it ended."""

    def note(self, message: str) -> None:
        """Hear something the user should read."""


class Silent:
    """An observer that tells nobody."""

    def stage(self, name: str, total: int) -> None:
        """See :class:`Observer`."""

    def advance(self, name: str) -> None:
        """See :class:`Observer`."""

    def note(self, message: str) -> None:
        """See :class:`Observer`."""


@dataclass
class Run:
    """One run. Everything in it was checked before any work began.

    Attributes
    ----------
    key : str
        Names the staging folder: equal for a repetition of the same run, which then finds the finished parts.
    definitions : dict of str to str
        Definition key of each column group.
    leases : dict of int to Lease
        Of the nights that this run may change, while it holds them.
    """

    config: Config
    root: Root
    sources: list[Source]
    night: int | None
    force: bool
    recipe: Recipe
    definitions: dict[str, str]
    key: str
    observer: Observer
    timing: list[dict[str, Any]] = field(default_factory=list)
    leases: dict[int, Lease] = field(default_factory=dict)

    @property
    def survey(self) -> str:
        """Name of the survey."""
        return self.config.survey

    @property
    def staging(self) -> str:
        """Staging folder, relative to the root."""
        return paths.staging_folder(f"{self.survey}-{self.key}")

    def run_tasks(
        self,
        executor: Executor,
        stage: str,
        function: Callable[[Job], Result],
        jobs: Sequence[Job],
        names: Sequence[str],
    ) -> list[Result | PipelineError]:
        """Run one stage's tasks and return what each gave, in the order of the jobs, errors included."""
        started = time.perf_counter()
        self.observer.stage(stage, len(jobs))
        results: list[Any] = [None] * len(jobs)
        for index, result in executor.map(function, jobs, names):
            results[index] = result
            self.observer.advance(stage)
        self.timing.append({"stage": stage, "seconds": round(time.perf_counter() - started, 3), "tasks": len(jobs)})
        return results

    def close(self) -> None:
        """Remove the staging folder: the run ended well."""
        shutil.rmtree(self.root.path(self.staging), ignore_errors=True)
        for folder in (paths.STAGING, paths.LEASES):
            with contextlib.suppress(OSError):
                self.root.path(folder).rmdir()


def prepare(
    config: Config,
    inputs: Sequence[str],
    *,
    night: int | None = None,
    force: bool = False,
    observer: Observer | None = None,
) -> Run:
    """Check everything that can be checked before work begins. Starts no server and reads no packet.

    Raises
    ------
    InputError
        Something named is missing, unreadable or of the wrong kind.
    """
    survey = get_survey(config.survey)
    paths.parse_release(config.release)
    if config.cut is not None:
        conditions.parse(config.cut, survey.superset)
    sources = list_sources(inputs)
    recipe = make_recipe(config)
    root = open_root(config.root, create=True)
    widened(root, config.survey, config.release, science_schema(recipe))
    group_definitions = definitions(recipe)
    key = key_of(
        [[source.name, source.path, source.state] for source in sources],
        night,
        decode_key(config),
        config.release,
        [pipeline.__version__, pa.__version__, np.__version__],  # staged files of another version are not taken up
    )[:16]
    return Run(config, root, sources, night, force, recipe, group_definitions, key, observer or Silent())


def decode_key(config: Config) -> str:
    """Return the key of whatever decides the decoded parts, besides the source."""
    return key_of(
        config.survey, DECODE_VERSION, paths.LAYOUT_VERSION, config.part.model_dump(), config.cut, config.schemas
    )


@contextlib.contextmanager
def locked(run: Run) -> Iterator[None]:
    """Hold the run's own lease while the block runs, and sweep what killed runs have left."""
    with hold(run.root, staging_lease(f"{run.survey}-{run.key}")):
        _sweep_staging(run)
        yield


def _sweep_staging(run: Run) -> None:
    """Remove what dead runs left: staging, leases, unfinished small files. A run that lives keeps its own."""
    folder = run.root.path(paths.STAGING)
    for entry in sorted(folder.iterdir()) if folder.is_dir() else []:
        if entry == run.root.path(run.staging):
            if run.force:
                shutil.rmtree(entry, ignore_errors=True)
            continue
        with contextlib.suppress(LeaseError), hold(run.root, staging_lease(entry.name)):
            shutil.rmtree(entry, ignore_errors=True)
    for relative in list(run.root.files(paths.LEASES, "*.json")):
        release_dead(run.root, relative.rsplit("/", 1)[1].removesuffix(".json"))
    for relative in run.root.dead_temporaries():
        run.root.remove(relative)


def staging_lease(folder_name: str) -> str:
    """Return the name of the lease that a run holds while it uses a staging folder of this name."""
    survey, _, key = folder_name.rpartition("-")
    return f"{survey}-run-{key}"


def only_results(results: Sequence[Result | PipelineError], *, stage: str) -> list[Result]:
    """Return the results, or raise the first error with the number of others."""
    errors = [result for result in results if isinstance(result, PipelineError)]
    if errors:
        first = errors[0]
        if len(errors) > 1:
            first.message = (
                f"{first.message} (and {len(errors) - 1} more of the {len(results)} tasks of {stage} failed)"
            )
        raise first
    return [result for result in results if not isinstance(result, PipelineError)]


def remembered(root: Root, receipt: str, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the receipt of a finished task, or do the task and write its receipt.

    A receipt is written last, so whatever it lists is whole; a repeated run does not compute it again.
    """
    path = root.path(receipt)
    if path.is_file():
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            known = None
        if isinstance(known, dict) and all(root.exists(relative) for relative in known.get("staged", [])):
            return known
    result = compute()
    root.write_text(receipt, json.dumps(result))
    return result


def run_ledgers(run: Run) -> dict[int, dict[str, Any]]:
    """Return the ledgers of the nights that the run may concern: the named one's, else all."""
    if run.night is None:
        return read_ledgers(run.root, run.survey)
    ledger = read_ledger(run.root, run.survey, run.night)
    return {} if ledger is None else {run.night: ledger}


def release_entry(run: Run) -> dict[str, Any]:
    """Return what a ledger keeps of a release: by what its science and its links were made."""
    return {"definitions": run.definitions, "night_modules": night_definitions()}


def is_finished(run: Run, ledgers: Mapping[int, Mapping[str, Any]]) -> bool:
    """Tell whether every night of every source stands in the archive with the present definitions."""
    if run.force:
        return False
    for source in run.sources:
        entries = {
            night: (ledger, entry)
            for night, ledger in ledgers.items()
            for entry in ledger["sources"]
            if entry["name"] == source.name and run.night in (None, night)
        }
        if not entries:
            return False
        for night, (ledger, entry) in entries.items():
            if not _is_same_source(source, entry) or entry["decode_key"] != source_key(run):
                return False
            science = ledger["releases"].get(run.config.release, {})
            if night != paths.UNKNOWN_NIGHT and science != release_entry(run):
                return False
        nights = next(iter(entries.values()))[1]["nights"]
        if set(nights) != set(entries):
            return False
    return bool(run.sources)


def source_key(run: Run) -> str:
    """Return the key of how this run decodes a source; naming a night counts, as it makes others ``other_night``."""
    return key_of(decode_key(run.config), run.night)


def _is_same_source(source: Source, entry: Mapping[str, Any]) -> bool:
    """Tell whether a source is the one a ledger lists; files that were touched or copied are told by their content."""
    if source.size != entry["size"]:
        return False
    return source.state == entry["state"] or source_sha256(source) == entry["sha256"]


__all__ = ["InputError", "PartError", "Run", "decode_key", "is_finished", "locked", "only_results", "prepare"]
