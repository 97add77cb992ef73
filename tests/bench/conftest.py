"""One board for the session, and the simulated night that the benchmarks share."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from measuring import ALERTS, Board, Sky, alertmill, simulate

from pipeline.warm import warm

TMPFS = Path("/dev/shm")

os.environ.setdefault("POLARS_MAX_THREADS", "1")  # read when polars is imported, which test modules do after this one


@pytest.fixture(scope="session")
def board() -> Iterator[Board]:
    board = Board()
    yield board
    board.print()
    board.write()


@pytest.fixture(scope="session")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Sky:
    warm()  # a new version of a kernel is compiled here, not while something is measured
    folder = tmp_path_factory.mktemp("sky")
    made = simulate(folder, ALERTS)
    found = json.loads(made.out)
    options = [f"--skymap={found['event']}={found['skymap']}"]
    for name in ("sim_galaxies", "sim_variables", "sim_agn"):
        alertmill("catalogs", "build", name, folder / "catalogs" / f"{name}.parquet", "--folder", folder / "built")
        options.append(f"--catalog={name}={folder / 'built' / name}")
    return Sky(Path(found["dump"]), tuple(options), made)


@pytest.fixture
def one_arrow_thread() -> Iterator[None]:
    before = pa.cpu_count()
    pa.set_cpu_count(1)
    yield
    pa.set_cpu_count(before)


@pytest.fixture(scope="session")
def real(request: pytest.FixtureRequest) -> Path | None:
    """Folder of real alerts, None where there are none: something else is measured instead then."""
    try:
        return request.getfixturevalue("shared_data")
    except pytest.skip.Exception:
        return None


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folder in memory, where there is one: disks are not what is measured."""
    if not os.access(TMPFS, os.W_OK):
        yield tmp_path_factory.mktemp("bench")
        return
    with tempfile.TemporaryDirectory(prefix="alertmill-bench-", dir=TMPFS) as folder:
        yield Path(folder)
