"""Execution: the same results wherever tasks run, and a clear end when workers die."""

from __future__ import annotations

import errno
import os
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pipeline import execute
from pipeline.config import Execution
from pipeline.errors import InputError, PartError, PipelineError, SchemaError


@dataclass(frozen=True)
class Job:
    number: int
    folder: str = ""


def square(job: Job) -> int:
    return job.number**2


def slow_square(job: Job) -> int:
    time.sleep(0.4)
    return job.number**2


def threads_of_arrow(job: Job) -> tuple[int, str]:
    return pa.cpu_count(), os.environ["OMP_NUM_THREADS"]


def fails(job: Job) -> int:
    if job.number == 1:
        raise SchemaError("column psf_flux is missing", dataset="alerts", part="part-1", row=7)
    if job.number == 2:
        raise ZeroDivisionError("a defect")
    if job.number == 3:
        raise MemoryError("too big")
    return job.number


def poison(job: Job) -> int:
    if job.number == 3:
        os._exit(1)
    time.sleep(0.05)
    return job.number


def dies_once(job: Job) -> int:
    """Kill the worker that runs job 2, the first time only."""
    mark = Path(job.folder, "died")
    if job.number == 2 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return slow_square(job)


def eats_memory(job: Job) -> int:
    if job.number == 1:
        hoard = []
        for _ in range(40):
            hoard.append(b"x" * (32 << 20))
            time.sleep(0.05)
        return len(hoard)
    return job.number


def sleeps(job: Job) -> int:
    time.sleep(3600 if job.number == 1 else 0)
    return job.number


def disk_hiccup(job: Job) -> int:
    """Fail as a network share does, until the third try."""
    tries = Path(job.folder, f"tries-{job.number}")
    count = int(tries.read_text()) + 1 if tries.exists() else 1
    tries.write_text(str(count))
    if count < 3:
        raise OSError(errno.ESTALE, "Stale file handle")
    return count


def names_of(jobs: Sequence[Job]) -> list[str]:
    return [f"part-{job.number}" for job in jobs]


def results_of(executor: execute.Executor, function: Any, jobs: Sequence[Job]) -> list[Any]:
    results: list[Any] = [None] * len(jobs)
    seen = []
    for index, result in executor.map(function, jobs, names_of(jobs)):
        results[index] = result
        seen.append(index)
    assert sorted(seen) == list(range(len(jobs))), "every job ends exactly once"
    return results


@pytest.fixture(scope="module")
def cluster() -> Iterator[execute.Executor]:
    """Two worker processes, shared by the tests that leave them whole."""
    with execute.open_executor(Execution(workers=2, memory_limit="1GiB", stall_timeout_sec=120)) as executor:
        yield executor


@pytest.fixture
def quick_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_TRY_AGAIN_SEC", 0.01)


# ------------------------------------------------------------------------------------------------ the same results
def test_serial_and_processes_give_the_same_in_any_order(cluster: execute.Executor) -> None:
    jobs = [Job(number) for number in range(25)]
    expected = [number**2 for number in range(25)]
    with execute.open_executor(Execution(mode="serial")) as serial:
        assert results_of(serial, square, jobs) == expected
    assert results_of(cluster, square, jobs) == expected
    shuffled = jobs[::-1]
    assert results_of(cluster, square, shuffled) == expected[::-1]


def test_a_scheduler_by_address_gives_the_same(tmp_path: Path) -> None:
    from dask.distributed import LocalCluster

    with LocalCluster(
        n_workers=1,
        threads_per_worker=2,
        processes=False,
        protocol="tcp://",
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as own:
        settings = Execution(scheduler=own.scheduler_address)
        with execute.open_executor(settings) as executor:
            assert results_of(executor, square, [Job(3), Job(4)]) == [9, 16]


def test_no_jobs_are_no_work(cluster: execute.Executor) -> None:
    assert results_of(cluster, square, []) == []
    assert results_of(execute.Serial(), square, []) == []


def test_every_worker_has_one_thread(cluster: execute.Executor) -> None:
    assert set(results_of(cluster, threads_of_arrow, [Job(n) for n in range(6)])) == {(1, "1")}


def test_an_absent_scheduler_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "_CONNECT_TIMEOUT", "1s")
    with (
        pytest.raises(InputError, match=r"no Dask scheduler answers at tcp://127\.0\.0\.1:9"),
        execute.open_executor(Execution(scheduler="tcp://127.0.0.1:9")),
    ):
        pass


# ------------------------------------------------------------------------------------------------ errors of tasks
@pytest.mark.parametrize("where", ["serial", "dask"])
def test_errors_name_their_part_and_spare_the_others(where: str, cluster: execute.Executor) -> None:
    executor = execute.Serial() if where == "serial" else cluster
    ok, declared, defect, memory, last = results_of(executor, fails, [Job(n) for n in range(5)])
    assert (ok, last) == (0, 4)
    assert isinstance(declared, SchemaError)
    assert (declared.part, declared.dataset, declared.row) == ("part-1", "alerts", 7)
    assert isinstance(defect, PartError)
    assert defect.part == "part-2"
    assert "ZeroDivisionError: a defect at test_execute.py" in str(defect)
    assert "out of memory" in str(memory)
    assert "execution.memory_limit" in str(memory)


def test_a_passing_disk_error_is_tried_again(tmp_path: Path, quick_tries: None) -> None:
    jobs = [Job(1, str(tmp_path)), Job(2, str(tmp_path))]
    assert results_of(execute.Serial(Execution(task_retries=2)), disk_hiccup, jobs) == [3, 3]


def test_a_lasting_disk_error_names_its_part(tmp_path: Path, quick_tries: None) -> None:
    (error,) = results_of(execute.Serial(Execution(task_retries=1)), disk_hiccup, [Job(1, str(tmp_path))])
    assert isinstance(error, PartError)
    assert error.part == "part-1"
    assert "Stale file handle" in str(error)
    assert "(2 tries)" in str(error)


# ------------------------------------------------------------------------------------------------ workers that die
@pytest.mark.slow
def test_a_poison_part_ends_in_its_name_and_the_next_stage_runs() -> None:
    settings = Execution(workers=2, memory_limit="1GiB", task_retries=1, stall_timeout_sec=180)
    with execute.open_executor(settings) as executor:
        results = results_of(executor, poison, [Job(n) for n in range(8)])
        error = results.pop(3)
        assert isinstance(error, PartError)
        assert error.part == "part-3"
        assert "its task killed 2 workers" in str(error)
        assert results == [0, 1, 2, 4, 5, 6, 7], "the others are not blamed"
        # Without the lost-worker setting the cluster would have dropped its workers, and this would wait for ever.
        assert results_of(executor, square, [Job(n) for n in range(6)]) == [0, 1, 4, 9, 16, 25]


@pytest.mark.slow
def test_a_killed_worker_costs_no_result(tmp_path: Path) -> None:
    with execute.open_executor(Execution(workers=2, memory_limit="1GiB", stall_timeout_sec=120)) as executor:
        jobs = [Job(n, str(tmp_path)) for n in range(12)]
        assert results_of(executor, dies_once, jobs) == [n**2 for n in range(12)]
        assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_a_part_over_the_memory_limit_is_named() -> None:
    settings = Execution(workers=1, memory_limit="700MiB", task_retries=0, stall_timeout_sec=180)
    with execute.open_executor(settings) as executor:
        error, other = results_of(executor, eats_memory, [Job(1), Job(2)])
    assert other == 2
    assert isinstance(error, PartError)
    assert error.part == "part-1"
    assert "execution.memory_limit" in str(error)


@pytest.mark.slow
def test_a_stage_that_stalls_fails_and_one_that_moves_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    with execute.open_executor(Execution(workers=1, memory_limit="1GiB", stall_timeout_sec=5)) as executor:
        # 15 tasks of 0.4 s take longer than the limit, which is on the time between two of them.
        assert results_of(executor, slow_square, [Job(n) for n in range(15)]) == [n**2 for n in range(15)]
        with pytest.raises(PartError, match=r"no task ended for 5 s; waiting for part-1") as caught:
            results_of(executor, sleeps, [Job(0), Job(1)])
    assert isinstance(caught.value, PipelineError)
    assert "execution.stall_timeout_sec" in str(caught.value)


@pytest.mark.slow
def test_a_cluster_without_workers_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    from dask.distributed import Client, LocalCluster

    monkeypatch.setattr(execute, "_NO_WORKER_SEC", 1.0)
    monkeypatch.setattr(execute, "_LOOK_SEC", 0.2)
    with (
        LocalCluster(n_workers=0, processes=False, dashboard_address=":0") as own,
        Client(own) as client,
        pytest.raises(PartError, match="no Dask worker is left; waiting for part-5"),
    ):
        results_of(execute.Distributed(client, Execution()), square, [Job(5)])


def test_a_cluster_waits_ten_minutes_for_workers_that_start_again() -> None:
    """With Dask's 15 s a cluster whose workers die while restarting drops them for good; seen in 3 of 4 trials."""
    import dask
    from dask.utils import parse_timedelta

    with dask.config.set(execute._dask_settings(Execution())):
        assert parse_timedelta(dask.config.get("distributed.deploy.lost-worker-timeout")) >= 600
        assert dask.config.get("distributed.nanny.pre-spawn-environ")["OMP_NUM_THREADS"] == "1"
