"""One board for the session, and the simulated night that the benchmarks share."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from measuring import ALERTS, Board, Sky, alertmill, simulate

from pipeline.warm import warm


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
