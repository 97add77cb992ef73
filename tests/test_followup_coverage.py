"""What exposures covered of a map: against counting cell by cell, and never more than it is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import followup_archive as sky
import numpy as np
import pyarrow as pa
import pytest

from pipeline import healpix
from pipeline.archive import Archive
from pipeline.followup import coverage
from pipeline.followup.coverage import coverage_of, exposures_of
from pipeline.schema import from_columns
from pipeline.skymap import SkyMap, make_skymap
from pipeline.tables import EXPOSURES

T0 = 58000.5
ORDER = 8


@pytest.fixture(scope="module")
def skymap() -> SkyMap:
    """300 order-8 pixels of different densities, one of them 0."""
    rng = np.random.default_rng(1)
    cells = 100_000 + np.arange(300)
    density = np.append(rng.uniform(1, 9, 299), 0.0)
    density /= (density * healpix.cell_area_deg2(ORDER)).sum()
    return make_skymap("gw", T0, cells << 42, (cells + 1) << 42, density)


def table(rows: list[tuple[float, str, float | None, list[int]]]) -> pa.Table:
    columns: dict[str, Any] = {item.name: pa.nulls(len(rows), item.type) for item in EXPOSURES}
    columns |= {
        "exposure": np.arange(len(rows)),
        "mjd": [row[0] for row in rows],
        "band": [row[1] for row in rows],
        "limit_mag": pa.array([row[2] for row in rows], pa.float64()),
        "n_alerts": np.ones(len(rows), dtype=np.int32),
        "cells": [row[3] for row in rows],
    }
    return from_columns(columns, EXPOSURES)


def mass_of(skymap: SkyMap, cells: set[int]) -> float:
    """Cell by cell: an order-10 cell lies within one order-8 pixel."""
    by_pixel = {int(a) >> 42: d for a, d in zip(skymap.start, skymap.density_per_deg2, strict=True)}
    spans = [(a >> 42, b >> 42, d) for a, b, d in zip(skymap.start, skymap.stop, skymap.density_per_deg2, strict=True)]
    assert by_pixel
    area = healpix.cell_area_deg2(10)
    return sum(area * d for cell in cells for a, b, d in spans if a <= cell >> 4 < b)


def random_rows(seed: int) -> list[tuple[float, str, float | None, list[int]]]:
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(40):
        start = int(rng.integers(100_000 * 16 - 200, 100_300 * 16))
        limit = None if rng.random() < 0.2 else float(rng.choice([18.7, 19.0, 19.49, 20.51]))
        cells = np.unique(start + rng.integers(0, 400, 30)).tolist()
        rows.append((T0 + float(rng.uniform(-3, 3)), str(rng.choice(["g", "r"])), limit, cells))
    return rows


@pytest.mark.parametrize("since", [False, True])
def test_probability_is_that_of_counting_cells(skymap: SkyMap, since: bool) -> None:
    rows = random_rows(2)
    found = coverage_of(exposures_of(table(rows)), skymap, since_event=since)
    lit = {cell for a, b, d in zip(skymap.start, skymap.stop, skymap.density_per_deg2, strict=True) if d > 0
           for cell in range(int(a) >> 38, int(b) >> 38)}  # fmt: skip
    assert {item.band for item in found.depths} == {None, "g", "r"}
    for item in found.depths:
        chosen = [
            set(cells) & lit
            for mjd, band, limit, cells in rows
            if (not since or mjd >= T0)
            and item.band in (None, band)
            and (item.limit_mag is None or (limit is not None and limit >= item.limit_mag))
        ]
        chosen = [cells for cells in chosen if cells]
        assert item.exposures == len(chosen)
        together = set().union(*chosen)
        assert item.probability == pytest.approx(mass_of(skymap, together), abs=1e-12)
        assert item.area_deg2 == pytest.approx(len(together) * healpix.cell_area_deg2(10))
    every = coverage_of(exposures_of(table(rows)), skymap)
    assert [item.limit_mag for item in every.depths if item.band == "g"] == [None, 18.5, 19.0, 20.5]


def test_deeper_covers_less_and_the_window_cuts(skymap: SkyMap) -> None:
    exposures = exposures_of(table(random_rows(3)))
    found = coverage_of(exposures, skymap)
    for band in ("g", "r"):
        shares = [item.probability for item in found.depths if item.band == band]
        assert shares == sorted(shares, reverse=True)
    cut = coverage_of(exposures, skymap, window_day=(0.5, 1.0))
    assert cut.depths[0].probability < found.depths[0].probability
    assert cut.first_mjd is not None and T0 - 0.5 <= cut.first_mjd <= cut.last_mjd <= T0 + 1.0  # type: ignore[operator]


def test_nothing_seen_covers_nothing(skymap: SkyMap) -> None:
    for rows in ([], [(T0, "g", 20.0, [1, 2, 3])]):
        found = coverage_of(exposures_of(table(rows)), skymap)
        assert [(item.exposures, item.probability) for item in found.depths] == [(0, 0.0)]
        assert found.first_mjd is None


def test_a_map_without_time_counts_every_exposure(skymap: SkyMap) -> None:
    timeless = make_skymap("gw", None, skymap.start, skymap.stop, skymap.density_per_deg2)
    exposures = exposures_of(table(random_rows(2)))
    since = coverage_of(exposures, timeless, since_event=True)
    assert not since.since_event
    assert since.depths == coverage_of(exposures, skymap).depths


def test_an_archive_covers_at_least_its_own_alerts(tmp_path: Path, skymap: SkyMap) -> None:
    rng = np.random.default_rng(3)
    cells = rng.choice(np.arange(100_000, 100_300), 50) << 42
    ra, dec = healpix.pix2ang(29, cells + 5)
    night = sky.night_of(T0)
    alerts = sky.alerts_table(np.arange(50), [f"o{n}" for n in range(50)], ra, dec, np.full(50, T0 + 0.1))
    archive = Archive(sky.write_archive(tmp_path, {night: [alerts]}))
    found = coverage(archive, skymap, night, night)
    touched = healpix.ranges_of(10, healpix.cell_at(healpix.ang2pix(29, ra, dec), 10))
    assert np.array_equal(found.ranges, touched) or len(found.ranges) < len(touched)
    assert 0 < found.depths[0].probability < 0.1
    assert coverage(archive, skymap, 20000101, 20000201).depths[0].probability == 0.0
