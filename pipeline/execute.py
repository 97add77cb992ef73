"""Execution is a parameter: serial in this process, or a Dask cluster. Tasks are plain functions of picklable jobs."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from pipeline.config import Execution
from pipeline.errors import InputError, PartError, PipelineError

Job = TypeVar("Job")
Result = TypeVar("Result")

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMBA_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
_LOST_WORKER_TIMEOUT = "600s"
_ALLOWED_FAILURES = 2
_MORE_MEMORY = "raise execution.memory_limit or lower part.max_bytes"


class Executor(Protocol):
    """Runs one function over jobs."""

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], names: Sequence[str]
    ) -> Iterator[tuple[int, Result | PipelineError]]:
        """Yield (index of the job, result or the error that ended it) in order of completion."""


class Serial:
    """One job after the other, in this process."""

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], names: Sequence[str]
    ) -> Iterator[tuple[int, Result | PipelineError]]:
        """See :class:`Executor`."""
        for index, job in enumerate(jobs):
            yield index, _attempt(function, job, names[index])


def _attempt(function: Callable[[Job], Result], job: Job, name: str) -> Result | PipelineError:
    try:
        return function(job)
    except PipelineError as error:
        return error
    except MemoryError as error:
        return PartError(
            f"out of memory: {error}", part=name, mend="raise execution.memory_limit or lower part.max_bytes"
        )
    except Exception as error:
        # A defect of ours or damaged data: the part is named, the others go on, the night fails.
        return _defect(error, name)


def _defect(error: BaseException, name: str) -> PartError:
    from traceback import extract_tb

    frames = extract_tb(error.__traceback__)
    place = f" at {os.path.basename(frames[-1].filename)}:{frames[-1].lineno}" if frames else ""  # noqa: PTH119
    failure = PartError(f"{type(error).__name__}: {error}{place}", part=name, mend="please report this as a defect")
    failure.__cause__ = error
    return failure


class Distributed:
    """A Dask client: one task a job, results as they complete."""

    def __init__(self, client: Any, settings: Execution) -> None:
        self._client = client
        self._settings = settings

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], names: Sequence[str]
    ) -> Iterator[tuple[int, Result | PipelineError]]:
        """See :class:`Executor`."""
        from dask.distributed import as_completed

        if not jobs:
            return
        futures = [
            self._client.submit(_attempt, function, job, name, pure=False, retries=self._settings.task_retries)
            for job, name in zip(jobs, names, strict=True)
        ]
        place = {future.key: index for index, future in enumerate(futures)}
        waiting = set(place)
        try:
            for future in as_completed(futures, timeout=self._settings.stall_timeout_sec):
                waiting.discard(future.key)
                yield place[future.key], self._outcome(future, names[place[future.key]])
                futures[place[future.key]] = None
        except TimeoutError as error:
            stuck = ", ".join(names[place[key]] for key in sorted(waiting, key=place.__getitem__)[:3])
            raise PartError(
                f"no task ended for {self._settings.stall_timeout_sec:g} s; waiting for {stuck}",
                mend="look at the workers' logs, or raise execution.stall_timeout_sec",
            ) from error
        finally:
            self._client.cancel([future for future in futures if future is not None])

    @staticmethod
    def _outcome(future: Any, name: str) -> Any:
        if future.status == "finished":
            return future.result()
        error = future.exception()
        if type(error).__name__ == "KilledWorker":
            return PartError(
                f"its task killed {_ALLOWED_FAILURES + 1} workers, probably out of memory",
                part=name,
                mend=_MORE_MEMORY,
            )
        if error is None:
            return PartError(f"its task was {future.status}", part=name, mend="run again")
        return _defect(error, name)


@contextlib.contextmanager
def open_executor(settings: Execution) -> Iterator[Executor]:
    """Open what the settings ask for: serial, a LocalCluster, or a running Dask scheduler.

    Raises
    ------
    InputError
        The scheduler does not answer.
    """
    if settings.mode == "serial":
        limit_threads()
        yield Serial()
        return
    import dask
    from dask.distributed import Client, LocalCluster

    with dask.config.set(_dask_settings()), contextlib.ExitStack() as stack:
        if settings.scheduler is not None:
            try:
                client = stack.enter_context(Client(settings.scheduler, timeout="15s"))
            except (OSError, TimeoutError, ValueError) as error:
                raise InputError(
                    f"no Dask scheduler answers at {settings.scheduler}", mend="check --scheduler, or leave it out"
                ) from error
        else:
            cluster = stack.enter_context(
                LocalCluster(
                    n_workers=settings.workers or available_cores(),
                    threads_per_worker=1,
                    memory_limit=settings.memory_limit,
                    host="127.0.0.1",
                    dashboard_address=None,
                    silence_logs=50,
                )
            )
            client = stack.enter_context(Client(cluster))
        client.run(limit_threads)
        client.register_plugin(_plugin())
        yield Distributed(client, settings)


def _dask_settings() -> dict[str, Any]:
    return {
        # With the default of 15 s a cluster whose workers die while restarting drops them for good, and hangs.
        "distributed.deploy.lost-worker-timeout": _LOST_WORKER_TIMEOUT,
        "distributed.scheduler.allowed-failures": _ALLOWED_FAILURES,
        "distributed.nanny.pre-spawn-environ": dict.fromkeys((*_THREAD_VARIABLES, "MALLOC_ARENA_MAX"), "1"),
        "distributed.admin.log-format": "%(message)s",
    }


def _plugin() -> Any:
    from distributed.diagnostics.plugin import WorkerPlugin

    class OneThread(WorkerPlugin):
        """Keep Arrow to one thread in every worker, those started later included."""

        name = "alertmill-one-thread"

        def setup(self, worker: Any) -> None:
            limit_threads()

    return OneThread()


def limit_threads() -> None:
    """Size Arrow's pools to the one thread a worker has."""
    pa.set_cpu_count(1)


def available_cores() -> int:
    """Return the cores this process may use (affinity and container quota)."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else (os.cpu_count() or 1)
    with contextlib.suppress(OSError, ValueError):
        with open("/sys/fs/cgroup/cpu.max", encoding="ascii") as file:  # noqa: PTH123
            quota, period = file.read().split()
        cores = min(cores, max(1, math.ceil(int(quota) / int(period))))
    return cores
