"""A simulated archive of two nights in several parts, as a run writes it, for other tools to open."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline import catalogs
from pipeline import config as configuration
from pipeline.nights import drive
from pipeline.nights.run import prepare
from pipeline.simulation import Simulated, simulate

NIGHTS = {20240212: 900, 20240213: 350}
PART_ALERTS = 400
CATALOGS = ("sim_galaxies", "sim_variables", "sim_agn")


@dataclass(frozen=True)
class Written:
    """An archive, and how many alerts its nights have."""

    root: Path
    nights: dict[int, int]
    reports: dict[int, Path]


def run(root: Path, made: Simulated, **options: Any) -> drive.Outcome:
    """Run a simulated dump serially into ``root``."""
    settings = {"root": str(root), "survey": "ztf", "execution.mode": "serial", **options}
    outcome = drive.run_direct(prepare(configuration.load(settings, environment={})[0], [str(made.dump)]))
    assert not outcome.errors
    return outcome


def write(folder: Path) -> Written:
    """Simulate every night of :data:`NIGHTS` and run it in parts of 400 alerts, with one sky's catalogs, all maps."""
    nights = {night: simulate(night, "ztf", alerts, night, folder / str(night)) for night, alerts in NIGHTS.items()}
    sky = folder / str(next(iter(NIGHTS))) / "catalogs"
    for name in CATALOGS:
        catalogs.build(catalogs.get_declaration(name), sky / f"{name}.parquet", folder / "built" / name)
    options = {
        "part.max_alerts": PART_ALERTS,
        "catalogs": CATALOGS,
        "catalog_folder": str(folder / "built"),
        "skymaps": tuple(f"{made.event}={made.skymap}" for made in nights.values()),
    }
    outcomes = {night: run(folder / "data", made, **options) for night, made in nights.items()}
    reports = {night: Path(outcome.reports[night]) for night, outcome in outcomes.items()}
    return Written(folder / "data", dict(NIGHTS), reports)
