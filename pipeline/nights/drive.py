"""The stages of a run in order. The Prefect flow and the plain command call the same functions."""

from __future__ import annotations

import contextlib
import copy
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from pipeline import paths
from pipeline.dumps import Source, check_unchanged, segments, source_sha256
from pipeline.errors import InputError, LeaseError, PipelineError
from pipeline.execute import Executor, open_executor
from pipeline.nights import commit as committing
from pipeline.nights.decode import DecodeJob, decode_segment
from pipeline.nights.earlier import EarlierFile
from pipeline.nights.enrich import EnrichJob, enrich_part, part_key, science_dataset
from pipeline.nights.enrichment import night_definitions, science_schema
from pipeline.nights.finish import FinishJob, finish_night
from pipeline.nights.releases import save_release_schema
from pipeline.nights.run import Run, is_finished, locked, only_results, run_ledgers
from pipeline.nights.settle import NightPlan, plan_nights, settle_night, touched_nights
from pipeline.schema import key_of
from pipeline.store.lease import hold_all, night_lease

Result = TypeVar("Result")


@dataclass
class Outcome:
    """What became of a run: ledgers and changes by night, and the errors of nights that failed."""

    is_up_to_date: bool = False
    ledgers: dict[int, dict[str, Any]] = field(default_factory=dict)
    changes: dict[int, committing.Change] = field(default_factory=dict)
    errors: dict[int, PipelineError] = field(default_factory=dict)
    reports: dict[int, str] = field(default_factory=dict)


def up_to_date(run: Run) -> Outcome | None:
    """Return the outcome of a run that has nothing to do, or None. Starts no server, writes nothing."""
    ledgers = run_ledgers(run)
    if not is_finished(run, ledgers):
        return None
    names = {source.name for source in run.sources}
    mine = {
        night: ledger for night, ledger in ledgers.items() if names & {entry["name"] for entry in ledger["sources"]}
    }
    if any(run.root.exists(folder) for folder in (paths.STAGING, paths.LEASES)):
        _tidy(run, mine)
    return Outcome(is_up_to_date=True, ledgers=mine)


def _tidy(run: Run, ledgers: Mapping[int, Mapping[str, Any]]) -> None:
    """Remove what a run that was killed after its last commit left behind; a run that lives is let alone."""
    with contextlib.suppress(LeaseError), locked(run), night_leases(run, sorted(ledgers)):
        for night, ledger in ledgers.items():
            committing.sweep_night(run.root, run.survey, night, ledger)
        run.close()


def decode(run: Run, executor: Executor) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Decode every segment of every source; return the receipts, and the sha256 of each source."""
    jobs = [
        DecodeJob(
            run.root, run.staging, run.survey, segment, run.night, run.config.cut, run.config.part, run.config.schemas
        )
        for source in run.sources
        for segment in segments(source, max_packets=run.config.part.max_alerts, max_bytes=run.config.part.max_bytes)
    ]
    names = [f"segment {job.segment.number} of {job.segment.source.name}" for job in jobs]
    receipts = only_results(run.run_tasks(executor, "decode", decode_segment, jobs, names), stage="decode")
    digests = {receipt["source"]: receipt["sha256"] for receipt in receipts if receipt["sha256"]}
    others = [source for source in run.sources if source.name not in digests]
    hashes = run.run_tasks(executor, "hash", source_sha256, others, [source.name for source in others])
    digests.update(zip((source.name for source in others), only_results(hashes, stage="hash"), strict=True))
    check_unchanged(run.sources)
    return receipts, digests


@contextlib.contextmanager
def night_leases(run: Run, nights: Sequence[int]) -> Iterator[None]:
    """Hold the leases of these nights, taken in order so that two runs cannot wait for each other."""
    nights = sorted(nights)
    with hold_all(run.root, [night_lease(run.survey, night) for night in nights]) as leases:
        run.leases.update(zip(nights, leases, strict=True))
        try:
            yield
        finally:
            for night in nights:
                del run.leases[night]


def settle(
    run: Run, executor: Executor, receipts: Sequence[Mapping[str, Any]], digests: Mapping[str, str]
) -> tuple[dict[int, NightPlan], dict[int, PipelineError]]:
    """Return what each night will be, duplicates decided, and the nights that failed. Bad input fails them all."""
    started = time.perf_counter()
    schemas = {key: text for receipt in receipts for key, text in receipt["schemas"].items()}
    plans = plan_nights(run, receipts, digests)
    known = {**committing.saved_schemas(run), **schemas}
    errors: dict[int, PipelineError] = {}
    for night, plan in plans.items():
        try:
            settle_night(run, plan, executor, known)
        except InputError:
            raise
        except PipelineError as error:
            errors[night] = error
    committing.save_schemas(run, schemas)
    run.timing.append({"stage": "settle", "seconds": round(time.perf_counter() - started, 3), "tasks": len(plans)})
    return {night: plan for night, plan in plans.items() if night not in errors}, errors


def enrich(run: Run, executor: Executor, plans: Mapping[int, NightPlan]) -> dict[int, PipelineError]:
    """Compute the science of every part that has none with the present definitions; return the nights that failed.

    Of a part that has some with others, only the column groups are computed whose keys differ (``--force``: all).
    """
    dataset = science_dataset(run.config.release)
    jobs: list[EnrichJob] = []
    home: list[tuple[NightPlan, dict[str, Any]]] = []
    for plan in plans.values():
        before = plan.before or {}
        known = {part["name"]: part for part in before.get("parts", [])}
        made_by = before.get("releases", {}).get(run.config.release, {}).get("definitions")
        for part in plan.parts:
            old = known.get(part["name"], {"files": {}})
            if made_by == run.definitions and not run.force and dataset in old["files"] and _is_same(old, part):
                part["files"][dataset] = old["files"][dataset]
                part["keys"] = old["keys"]
                _note_work(plan, run.definitions, "kept")
            else:
                jobs.append(_job(run, plan.night, part, old, dataset))
                home.append((plan, part))
    errors: dict[int, PipelineError] = {}
    results = run.run_tasks(executor, "enrich", enrich_part, jobs, [job.part for job in jobs])
    for (plan, part), result in zip(home, results, strict=True):
        if isinstance(result, PipelineError):
            errors.setdefault(plan.night, result)
        else:
            part["files"][dataset] = result["file"]
            part["keys"] = result["keys"]
            _note_work(plan, result["seconds"], "computed")
            _note_work(plan, result["copied"], "copied")
            _add_seconds(run, "enrich", result["seconds"])
    return errors


def _is_same(old: Mapping[str, Any], part: Mapping[str, Any]) -> bool:
    return bool(old["files"]["alerts"]["sha256"] == part["files"]["alerts"]["sha256"])


def _job(run: Run, night: int, part: Mapping[str, Any], old: Mapping[str, Any], dataset: str) -> EnrichJob:
    """Return the task of one part. What it may copy from is the part in this release, else in the main one."""
    alerts = part["files"]["alerts"]
    files = [old["files"][name] for name in dict.fromkeys((dataset, science_dataset("main"))) if name in old["files"]]
    return EnrichJob(
        run.root,
        run.staging,
        run.survey,
        night,
        part["name"],
        alerts["path"],
        run.recipe,
        dataset,
        part_key(alerts["sha256"], run.definitions),
        () if run.force else tuple(EarlierFile(file["path"], file["sha256"]) for file in files),
    )


def _note_work(plan: NightPlan, groups: Iterable[str], how: str) -> None:
    for name in groups:
        plan.work.setdefault(name, Counter())[how] += 1


def _add_seconds(run: Run, parent: str, seconds: Mapping[str, float]) -> None:
    """Sum the time of what a stage's tasks consist of, as stages of their own."""
    for name, spent in seconds.items():
        stage = f"{parent}: {name}"
        entry = next((item for item in run.timing if item["stage"] == stage), None)
        if entry is None:
            entry = {"stage": stage, "seconds": 0.0, "tasks": 0}
            run.timing.append(entry)
        entry["seconds"] = round(entry["seconds"] + spent, 3)
        entry["tasks"] += 1


def finish(
    run: Run, executor: Executor, plans: Mapping[int, NightPlan]
) -> tuple[dict[int, dict[str, Any]], dict[int, PipelineError]]:
    """Run what needs whole nights; return its receipts by night, and the nights that failed."""
    dataset = science_dataset(run.config.release)
    jobs = []
    for night, plan in plans.items():
        alerts = tuple(part["files"]["alerts"]["path"] for part in plan.parts)
        science = tuple(part["files"][dataset]["path"] for part in plan.parts)
        key = key_of(alerts, science, night_definitions())
        jobs.append(FinishJob(run.root, run.staging, run.survey, night, alerts, science, key))
    results = run.run_tasks(executor, "finish", finish_night, jobs, [paths.night_name(job.night) for job in jobs])
    done: dict[int, dict[str, Any]] = {}
    errors: dict[int, PipelineError] = {}
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, PipelineError):
            errors[job.night] = result
        else:
            done[job.night] = result
            _add_seconds(run, "finish", result["seconds"])
    return done, errors


def commit(run: Run, plans: Mapping[int, NightPlan], finished: Mapping[int, dict[str, Any]]) -> Outcome:
    """Commit every night that is whole."""
    outcome = Outcome()
    save_release_schema(run.root, run.survey, run.config.release, science_schema(run.recipe))
    run.observer.stage("commit", len(finished))
    for night in sorted(finished):
        try:
            ledger, change = committing.commit_night(run, plans[night], finished[night])
        except PipelineError as error:
            outcome.errors[night] = error
        else:
            outcome.ledgers[night] = json.loads(json.dumps(ledger))
            outcome.changes[night] = change
        run.observer.advance("commit")
    return outcome


def report(run: Run, outcome: Outcome) -> None:
    """Write the report of every committed night; a report that fails is told, the night stands."""
    from pipeline.report import write_report

    nights = [night for night in outcome.ledgers if night != paths.UNKNOWN_NIGHT]
    run.observer.stage("report", len(nights))
    for night in nights:
        try:
            page = write_report(run.root.folder, run.survey, night)
            outcome.reports[night] = str(page)
        except Exception as error:  # whatever is wrong with a picture, the night stands
            told = error if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}"
            run.observer.note(f"the report of {night} could not be written: {' '.join(str(told).split())}")
        run.observer.advance("report")


class Caller(Protocol):
    """How a stage is called: as it is, or wrapped as a task of a workflow system."""

    def __call__(self, stage: Callable[..., Result], *arguments: Any) -> Result:
        """Return ``stage(*arguments)``."""


def call_plainly(stage: Callable[..., Result], *arguments: Any) -> Result:
    """Call a stage as it is."""
    return stage(*arguments)


def run_stages(run: Run, executor: Executor, call: Caller = call_plainly) -> Outcome:
    """Run all stages after :func:`up_to_date`, in this process. The caller holds :func:`pipeline.nights.run.locked`."""
    named = [run.night] if run.night is not None else []
    with night_leases(run, named):
        receipts, digests = call(decode, run, executor)
        with night_leases(run, sorted(touched_nights(run, receipts) - set(named))):
            return _after_decode(run, executor, receipts, digests, call)


def _after_decode(
    run: Run, executor: Executor, receipts: Sequence[Mapping[str, Any]], digests: Mapping[str, str], call: Caller
) -> Outcome:
    """Settle, enrich, finish and commit; the leases of the nights are held."""
    plans, unsettled = call(settle, run, executor, receipts, digests)
    failed = call(enrich, run, executor, plans)
    whole = {night: plan for night, plan in plans.items() if night not in failed}
    finished, more = call(finish, run, executor, whole)
    outcome = call(commit, run, plans, finished)
    outcome.errors = {**unsettled, **failed, **more, **outcome.errors}
    return outcome


def run_direct(run: Run, call: Caller = call_plainly) -> Outcome:
    """Run all stages in this process, on the executor that the configuration names.

    An interrupted or failed run keeps its staging, so that the next one goes on from there. Input that cannot be used
    leaves nothing behind: the same command could not go on with it.
    """
    with locked(run), open_executor(run.config.execution) as executor:
        try:
            outcome = run_stages(run, executor, call)
        except LeaseError:
            raise
        except InputError:
            run.close()
            raise
        conclude(run, outcome, call)
    return outcome


def conclude(run: Run, outcome: Outcome, call: Caller = call_plainly) -> None:
    """Write the reports and, if every night is whole, remove the staging."""
    if run.config.report:
        call(report, run, outcome)
    if not outcome.errors:
        run.close()


def first_error(outcome: Outcome) -> PipelineError | None:
    """Return the error of the first night that failed, told with its night."""
    for night, error in sorted(outcome.errors.items()):
        told = copy.copy(error)
        told.message = f"{paths.night_name(night)} failed: {error.message}"
        return told
    return None


__all__ = ["InputError", "Outcome", "Source", "run_stages", "up_to_date"]
