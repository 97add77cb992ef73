"""The nightly flow: one Prefect task per stage and run, the nights of the run batched inside.

The stages, their order and their locks are :mod:`pipeline.nights.drive`'s; here they become tasks that Prefect shows,
times and, where the disk let them down, runs again. Parts are Dask tasks within them: a Prefect task costs about
0.4 s, a Dask task a millisecond.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.flows import Flow
from prefect.logging import get_run_logger
from prefect.runtime import flow_run as this_run
from prefect.states import Failed
from prefect.tasks import Task

from flows.alarm import Alarm, raise_alarm
from flows.observe import Artifacts, Logged
from pipeline import config, paths
from pipeline.config import Config
from pipeline.nights import drive
from pipeline.nights.drive import Outcome
from pipeline.nights.run import Run, prepare
from pipeline.store.ledger import COUNTS
from pipeline.surveys import get as get_survey

Result = TypeVar("Result")

MISSING = "Missing"
"""Name of the state of a run whose dump is not there."""
_RETRIES = 2
_RETRY_DELAY_SEC = 10
_NIGHT_FIELD = "{night}"


@dataclass
class _Prepared:
    """A run that the command line prepared, and what became of it."""

    run: Run
    outcome: Outcome | None = None
    is_interrupted: bool = False


_PREPARED: ContextVar[_Prepared | None] = ContextVar("prepared", default=None)


def run_prepared(run: Run) -> Outcome:
    """Run the flow in this process on a run that is already prepared, options and progress bars included.

    Raises
    ------
    PipelineError
        As :func:`pipeline.nights.drive.run_direct` does; nights that failed are told in the outcome.
    """
    prepared = _Prepared(run)
    token = _PREPARED.set(prepared)
    night = None if run.night is None else str(run.night)
    try:
        nightly(
            survey=run.survey,
            root=run.root.folder,
            inputs=[source.path for source in run.sources],
            night=night,
            force=run.force,
        )
    except Exception:
        # The outcome says which nights failed and why; the flow has failed so that Prefect and the alarm know.
        if prepared.outcome is None:
            raise
    finally:
        _PREPARED.reset(token)
    assert prepared.outcome is not None  # noqa: S101 - the flow either raised or left its outcome
    return prepared.outcome


def tell_failure(flow: Flow[..., Any], flow_run: FlowRun, state: State[Any]) -> None:
    """Raise the alarm for a run that failed, crashed or found no dump. A hook: it never hides the failure."""
    prepared = _PREPARED.get()
    if prepared and prepared.is_interrupted:
        return  # whoever pressed the key knows
    parameters = flow_run.parameters
    settings = prepared.run.config if prepared else _settings(parameters)
    what = "missing" if state.name == MISSING else "crashed" if state.is_crashed() else "failed"
    message = " ".join((state.message or what).split())
    night = _night(parameters, flow_run.expected_start_time or datetime.now(UTC))
    root = prepared.run.root.folder if prepared else str(Path(settings.root).expanduser().absolute())
    problems = raise_alarm(Alarm.now(settings.survey, night, what, message, root), settings.alarm)
    with contextlib.suppress(Exception):  # a run that crashed may have no logger left; the alarm is out
        logger = get_run_logger()
        for line in problems:
            logger.error(line)
    if prepared:
        for line in problems:
            prepared.run.observer.note(line)


@flow(name="nightly", persist_result=False, on_failure=[tell_failure], on_crashed=[tell_failure])
def nightly(
    survey: str,
    root: str,
    inputs: list[str] | None = None,
    inbox: str | None = None,
    night: str | None = None,
    config_file: str | None = None,
    force: bool = False,
) -> Any:
    """Run the nights of a dump: decode, settle, enrich, finish, commit, report.

    Parameters
    ----------
    survey, root : str
        Survey of the input; folder that holds the archive.
    inputs : list of str, optional
        Dumps to run.
    inbox : str, optional
        Where each night's dump will stand: a path in which ``{night}`` stands for YYYYMMDD.
    night : str, optional
        Night, YYYYMMDD. With ``inbox`` the default is the last night that was over at the scheduled time.
    config_file : str, optional
        Settings.
    force : bool
        Do a finished night again.

    Returns
    -------
    Outcome, or a failed state
    """
    # Served flows are pickled by value, with every global they name: this one names functions only.
    prepared = _prepare(survey, root, inputs or [], inbox, night, config_file, force)
    return prepared if isinstance(prepared, State) else _run(prepared)


def _prepare(
    survey: str,
    root: str,
    inputs: list[str],
    inbox: str | None,
    night: str | None,
    config_file: str | None,
    force: bool,
) -> _Prepared | State[Any]:
    """Return the run that the command line prepared, or prepare one; a failed state if the dump is missing."""
    prepared = _PREPARED.get()
    if prepared is not None:
        return prepared
    parameters = {"survey": survey, "root": root, "inbox": inbox, "night": night, "config_file": config_file}
    wanted = _night(parameters, this_run.scheduled_start_time or datetime.now(UTC))
    dumps = inputs
    if inbox is not None:
        dump = inbox.replace(_NIGHT_FIELD, str(wanted))
        if not Path(dump).exists():
            return Failed(name=MISSING, message=f"{survey} {wanted}: dump {dump} is missing")
        dumps = [*inputs, dump]
    run = prepare(
        _settings(parameters),
        dumps,
        night=None if wanted is None else paths.parse_night(wanted),
        force=force,
        observer=Logged(get_run_logger()),
    )
    return _Prepared(run)


def _run(prepared: _Prepared) -> Outcome:
    run = prepared.run
    shown = run.observer
    run.observer = Artifacts(shown, get_run_logger())
    try:
        outcome = drive.up_to_date(run) or drive.run_direct(run, call_as_task)
    except KeyboardInterrupt:
        prepared.is_interrupted = True
        raise
    finally:
        run.observer = shown
    prepared.outcome = outcome
    if outcome.ledgers:
        key = f"ledger-{run.survey.replace('_', '-')}"
        create_markdown_artifact(ledger_markdown(outcome), key=key, description="conservation ledger")
    error = drive.first_error(outcome)
    if error is not None:
        raise error
    return outcome


def call_as_task(stage: Callable[..., Result], *arguments: Any) -> Result:
    """Run a stage as a Prefect task; a passing error of the disk makes it run again.

    Every stage takes up what its first try has finished. A commit does not: it is one decision, made once.
    The arguments (the run, open leases, a cluster) are Python objects of this process and are not shown to Prefect.
    """
    options: Mapping[str, Any] = (
        {}
        if stage is drive.commit
        else {
            "retries": _RETRIES,
            "retry_delay_seconds": _RETRY_DELAY_SEC,
            "retry_condition_fn": _is_passing,
        }
    )

    def work() -> Result:
        return stage(*arguments)

    made: Any = Task(work, name=stage.__name__, persist_result=False, cache_policy=NO_CACHE, **options)
    return made()


def _is_passing(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Tell whether trying again may help: an error of the disk or network, never bad input or a failed part."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, OSError)


def ledger_markdown(outcome: Outcome) -> str:
    """Return the counts of the nights as a Markdown table."""
    rows = [["night", *COUNTS], ["---", *(["---:"] * len(COUNTS))]]
    rows += [
        [ledger["night"], *(f"{ledger['counts'][name]:,}" for name in COUNTS)] for ledger in outcome.ledgers.values()
    ]
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def _settings(parameters: Mapping[str, Any]) -> Config:
    options = {"survey": parameters["survey"], "root": parameters["root"]}
    return config.load(options, file=parameters.get("config_file"))[0]


def _night(parameters: Mapping[str, Any], when: datetime) -> str | None:
    """Return the night of a run: the one named; for an inbox the last that was over; else all in the input."""
    if parameters.get("night") is not None:
        return str(parameters["night"])
    if parameters.get("inbox") is None:
        return None
    return str(get_survey(parameters["survey"]).last_night(when))
