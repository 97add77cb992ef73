"""Execution is a parameter: serial in this process, or a Dask cluster. Tasks are plain functions of picklable jobs."""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import os
import queue
import signal
import time
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
_CONNECT_TIMEOUT = "15s"
_LOST_WORKER_TIMEOUT = "600s"
_NO_WORKER_SEC = 120.0
_LOOK_SEC = 5.0
_TRY_AGAIN_SEC = 1.0
_PASSING = {errno.EIO, errno.EAGAIN, errno.EBUSY, errno.EINTR, errno.ESTALE, errno.ETIMEDOUT, errno.ECONNRESET}
"""What an overloaded disk or network share says; anything else would be the same the next time."""
_AGAIN = "run again; finished parts are kept"
_MORE_MEMORY = "raise execution.memory_limit or lower part.max_bytes"


class Executor(Protocol):
    """Runs one function over jobs."""

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], names: Sequence[str]
    ) -> Iterator[tuple[int, Result | PipelineError]]:
        """Yield (index of the job, result or the error that ended it) in order of completion."""


class Serial:
    """One job after the other, in this process."""

    def __init__(self, settings: Execution | None = None) -> None:
        self._tries = (settings or Execution()).task_retries + 1

    def map(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], names: Sequence[str]
    ) -> Iterator[tuple[int, Result | PipelineError]]:
        """See :class:`Executor`."""
        for index, job in enumerate(jobs):
            yield index, _attempt(function, job, names[index], self._tries)


def _attempt(function: Callable[[Job], Result], job: Job, name: str, tries: int = 1) -> Result | PipelineError:
    for attempt in range(tries):
        try:
            return function(job)
        except PipelineError as error:
            return error
        except MemoryError as error:
            return PartError(f"out of memory: {error}", part=name, mend=_MORE_MEMORY)
        except OSError as error:
            if error.errno is None:
                return _defect(error, name)
            if error.errno not in _PASSING:
                told = f"{error.strerror}: {error.filename}" if error.filename else str(error.strerror)
                return PartError(told, part=name, mend="mend that, then run again; finished parts are kept")
            if attempt + 1 == tries:
                return PartError(
                    f"{type(error).__name__}: {error} ({tries} tries)",
                    part=name,
                    mend="look at the disk or network share, then run again",
                )
            time.sleep(_TRY_AGAIN_SEC * 2**attempt)
        except Exception as error:
            # A defect of ours or damaged data: the part is named, the others go on, the night fails.
            return _defect(error, name)
        except BaseException as error:
            if (
                type(error).__name__ != "PanicException"
            ):  # a library in Rust gave up: no Exception, yet this part's alone
                raise
            return _defect(error, name)
    raise AssertionError("a task is tried at least once")


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
        """See :class:`Executor`.

        Dask blames a worker's death on every task the worker had in hand, so a job it gives up may be innocent. Those
        jobs are run again, each alone: only one that then kills its workers has failed.
        """
        suspects = []
        for index, result in self._round(function, jobs, names, range(len(jobs))):
            if isinstance(result, _KilledError) and len(jobs) > 1:
                suspects.append(index)
            else:
                yield index, result
        for index in sorted(suspects):
            yield from self._round(function, jobs, names, [index])

    def _round(
        self, function: Callable[[Job], Result], jobs: Sequence[Job], names: Sequence[str], indices: Sequence[int]
    ) -> Iterator[tuple[int, Result | PipelineError]]:
        """Run these jobs at once."""
        if not indices:
            return
        done: queue.SimpleQueue[int] = queue.SimpleQueue()
        tries = self._settings.task_retries + 1
        futures = dict(
            zip(
                indices,
                self._client.map(
                    functools.partial(_attempt, function, tries=tries),
                    [jobs[index] for index in indices],
                    [names[index] for index in indices],
                    pure=False,
                ),
                strict=True,
            )
        )
        for index, future in futures.items():
            future.add_done_callback(lambda _, index=index: done.put(index))
        try:
            while futures:
                index = self._next(done, [names[index] for index in futures])
                # The future is forgotten as soon as it is read, or its result would stay in a worker's memory.
                yield index, self._outcome(futures.pop(index), names[index])
        finally:
            self._client.cancel(list(futures.values()))

    def _next(self, done: queue.SimpleQueue[int], waiting: Sequence[str]) -> int:
        """Wait for the next task to end; nothing that went wrong may make this wait for ever."""
        limit = self._settings.stall_timeout_sec
        started = peopled = time.monotonic()
        while True:
            with contextlib.suppress(queue.Empty):
                return done.get(timeout=min(_LOOK_SEC, limit))
            now = time.monotonic()
            if self._has_workers():
                peopled = now
            if now - peopled > _NO_WORKER_SEC:
                raise PartError(f"no Dask worker is left; waiting for {_some(waiting)}", mend=_MORE_MEMORY)
            if now - started >= limit:
                raise PartError(
                    f"no task ended for {limit:g} s; waiting for {_some(waiting)}",
                    mend="look at the workers' logs, or raise execution.stall_timeout_sec",
                )

    def _has_workers(self) -> bool:
        try:
            return bool(self._client.scheduler_info(n_workers=-1)["workers"])
        except (OSError, TimeoutError):
            return False  # the scheduler does not answer: it may come back

    def _outcome(self, future: Any, name: str) -> Any:
        from concurrent.futures import CancelledError

        limit = self._settings.stall_timeout_sec
        try:
            # Done, but if its worker dies before the result is fetched, Dask computes it again.
            return future.result(timeout=limit)
        except TimeoutError:
            return PartError(f"its result was lost and did not come again within {limit:g} s", part=name, mend=_AGAIN)
        except CancelledError:
            return PartError("its task was cancelled: the Dask scheduler is gone", part=name, mend=_AGAIN)
        except Exception as error:
            if type(error).__name__ != "KilledWorker":
                return _defect(error, name)
            times = getattr(error, "allowed_failures", 0) + 1
            return _KilledError(
                f"its task killed {times} workers, probably out of memory", part=name, mend=_MORE_MEMORY
            )


class _KilledError(PartError):
    """Workers died while they had this task in hand."""


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


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
        yield Serial(settings)
        return
    import dask
    from dask.distributed import Client, LocalCluster

    with dask.config.set(_dask_settings(settings)), contextlib.ExitStack() as stack:
        if settings.scheduler is not None:
            try:
                client = stack.enter_context(Client(settings.scheduler, timeout=_CONNECT_TIMEOUT))
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
                    # No dashboard; its server still takes a port, which must not be the one of another run.
                    dashboard_address=None,
                    scheduler_kwargs={"dashboard": False, "dashboard_address": "127.0.0.1:0"},
                    silence_logs=50,
                )
            )
            client = stack.enter_context(Client(cluster))
        client.run(limit_threads)
        client.register_plugin(_plugin(is_ours=settings.scheduler is None))
        yield Distributed(client, settings)


def _dask_settings(settings: Execution) -> dict[str, Any]:
    return {
        # With the default of 15 s a cluster whose workers die while restarting drops them for good, and hangs.
        "distributed.deploy.lost-worker-timeout": _LOST_WORKER_TIMEOUT,
        "distributed.scheduler.allowed-failures": settings.task_retries,
        # A worker gets its next task when it is free, so that its death is blamed on few.
        "distributed.scheduler.worker-saturation": 1.0,
        "distributed.nanny.pre-spawn-environ": dict.fromkeys((*_THREAD_VARIABLES, "MALLOC_ARENA_MAX"), "1"),
        "distributed.admin.log-format": "%(message)s",
    }


def _plugin(*, is_ours: bool) -> Any:
    from distributed.diagnostics.plugin import WorkerPlugin

    class Manners(WorkerPlugin):
        """What every worker keeps to, those started later included: one thread; our own leave Ctrl-C to the run."""

        name = "alertmill"

        def setup(self, worker: Any) -> None:
            limit_threads()
            if is_ours:
                signal.signal(signal.SIGINT, signal.SIG_IGN)

    return Manners()


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
