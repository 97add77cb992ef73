"""Significance of what a search of an archive finds: rules, columns, the measured and the stated background."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import followup_archive as sky
import numpy as np
import pyarrow as pa
import pytest

from pipeline import coincidence, healpix
from pipeline.archive import Archive, open_archive
from pipeline.errors import InputError
from pipeline.followup import search, significance
from pipeline.skymap import SkyMap, fisher_skymap

NIGHTS = [20190401 + day for day in range(14)]
CENTRE = (150.0, 20.0)
NEW, OLD = 60, 900
EVENT_NIGHT = 20190409
SPAN_DEG = 12.0


def make_night(rng: np.random.Generator, night: int, first_id: int) -> pa.Table:
    """Four fields side by side, one exposure each; old variables all over, and new transients of which some are not."""
    size = OLD + NEW
    field = np.sort(rng.integers(0, 4, size))
    ra = CENTRE[0] - 2.5 * SPAN_DEG + SPAN_DEG * (field + rng.random(size))
    dec = CENTRE[1] + rng.uniform(-SPAN_DEG / 2, SPAN_DEG / 2, size)
    mjd = sky.start_of(night) + 0.2 + 0.02 * field
    is_new = rng.permutation(np.arange(size) < NEW)
    ids = first_id + np.arange(size)
    values: dict[str, Any] = {
        "exposure": ids * 0 + night * 10 + field,
        "field": (field + 500).astype(np.int32),
        "is_positive": np.ones(size, dtype=bool),
        "reliability": np.full(size, 0.9, dtype=np.float32),
        "limit_mag": np.full(size, 20.5),
    }
    first = np.where(is_new, mjd, mjd - 400.0)
    return sky.alerts_table(ids, [f"ZTFx{item}" for item in ids], ra, dec, mjd, first_mjd=first, **values)


def counterpart(night: int, alert_id: int, key: str = "ZTFcounterpart", **more: Any) -> pa.Table:
    """An alert at the centre of the map, of the same exposure as its neighbours."""
    mjd = np.array([sky.start_of(night) + 0.2 + 0.04])
    values: dict[str, Any] = {
        "exposure": np.array([night * 10 + 2]),
        "field": np.array([502], dtype=np.int32),
        "is_positive": np.array([True]),
        "reliability": np.array([0.9], dtype=np.float32),
        "limit_mag": np.array([20.5]),
        "first_mjd": mjd,
    }
    values |= more
    return sky.alerts_table(np.array([alert_id]), [key], np.array([150.1]), np.array([20.1]), mjd, **values)


OTHERS: dict[str, dict[str, Any]] = {
    "negative": {"is_positive": np.array([False])},
    "bogus": {"reliability": np.array([0.3], dtype=np.float32)},
    "star": {
        "star_score": np.array([0.9], dtype=np.float32),
        "star_separation_arcsec": np.array([0.4], dtype=np.float32),
    },
    "galaxy": {
        "star_score": np.array([0.1], dtype=np.float32),
        "star_separation_arcsec": np.array([0.4], dtype=np.float32),
    },
    "injected": {"is_injected": np.array([True])},
    "bound": {"is_bound": np.array([True])},
    "prior": {"first_mjd": np.array([sky.start_of(EVENT_NIGHT) - 5.0])},
    "unknown": {"reliability": pa.array([None], pa.float32())},
}
KEPT = {"galaxy", "unknown"}


@pytest.fixture(scope="module")
def event() -> SkyMap:
    return fisher_skymap("grb1", sky.start_of(EVENT_NIGHT) + 0.1, *CENTRE, 1.0)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    rng = np.random.default_rng(1)
    nights = {night: [make_night(rng, night, night * 10_000)] for night in NIGHTS}
    nights[EVENT_NIGHT].append(counterpart(EVENT_NIGHT, 1))
    nights[EVENT_NIGHT] += [
        counterpart(EVENT_NIGHT, 2 + i, f"ZTF{key}", **more) for i, (key, more) in enumerate(OTHERS.items())
    ]
    nights[EVENT_NIGHT + 1].append(
        counterpart(EVENT_NIGHT + 1, 100, first_mjd=np.array([sky.start_of(EVENT_NIGHT) + 0.24]))
    )
    folder = tmp_path_factory.mktemp("archive")
    sky.write_archive(folder, nights)
    return open_archive(folder)


@pytest.fixture(scope="module")
def assessed(archive: Archive, event: SkyMap) -> tuple[pa.Table, significance.Assessed]:
    found = search(archive, [event], NIGHTS[0], NIGHTS[-1], credible_level=0.99)
    streams = {"grb1": "fermi-gbm"}
    return found, significance.add(found, archive, [event], NIGHTS[5], NIGHTS[-1], credible_level=0.99, streams=streams)


def rows_of(table: pa.Table) -> dict[str, dict[str, Any]]:
    return {row["object_key"]: row for row in table.to_pylist()}


def test_rows_stay_and_columns_come(assessed: tuple[pa.Table, significance.Assessed]) -> None:
    found, result = assessed
    assert result.table.select(found.column_names).equals(found)
    assert result.table.schema.names[-3:] == ["p_chance", "joint_far_per_year", "selection"]
    assert result.table.schema.field("joint_far_per_year").metadata[b"unit"] == b"yr-1"


def test_background_is_measured_from_the_archive(
    assessed: tuple[pa.Table, significance.Assessed], event: SkyMap
) -> None:
    _, result = assessed
    background = result.summary["background"]
    assert background["is_measured"]
    assert background["nights"] == len(NIGHTS)  # those before the searched ones too
    assert background["candidates"] == len(NIGHTS) * NEW + 1 + len(KEPT)  # the counterparts with the others
    told = result.summary["events"][0]
    per_deg2 = len(NIGHTS) * NEW / (4 * SPAN_DEG**2 * np.cos(np.radians(20))) / len(NIGHTS)
    region = event.area_deg2[event.credible_level <= 0.99].sum()
    assert told["expected"] == pytest.approx(3 * per_deg2 * region, rel=0.3)  # three nights within the window
    assert 0.4 < told["seen_probability"] < 0.99


def test_counterpart_is_the_best_and_its_later_alerts_too(
    assessed: tuple[pa.Table, significance.Assessed],
) -> None:
    _, result = assessed
    mine = [row for row in result.table.to_pylist() if row["object_key"] == "ZTFcounterpart"]
    assert len(mine) == 2
    assert mine[0]["p_chance"] == mine[1]["p_chance"] < 0.03
    assert {row["selection"] for row in mine} <= {"silver", "gold"}
    total = sum(item.events_per_year for item in coincidence.STREAMS.values())
    assert mine[0]["joint_far_per_year"] == pytest.approx(mine[0]["p_chance"] * total)
    far = [row for row in result.table.to_pylist() if row["credible_level"] > 0.8 and row["p_chance"] is not None]
    assert all(row["p_chance"] > mine[0]["p_chance"] for row in far)


@pytest.mark.parametrize("key", OTHERS)
def test_what_is_no_candidate_has_no_p(assessed: tuple[pa.Table, significance.Assessed], key: str) -> None:
    row = rows_of(assessed[1].table)[f"ZTF{key}"]
    assert (row["p_chance"] is not None) == (key in KEPT)
    assert (row["selection"] is not None) == (key in KEPT)
    assert (row["joint_far_per_year"] is not None) == (key in KEPT)


def test_before_the_event_and_after_the_window_nothing_is_a_candidate(
    assessed: tuple[pa.Table, significance.Assessed],
) -> None:
    for row in assessed[1].table.to_pylist():
        if row["first_delay_day"] <= 0 or row["first_delay_day"] > 3.0:
            assert row["p_chance"] is row["selection"] is None
        elif row["object_key"].startswith("ZTFx") and not row["has_prior_activity"]:
            assert row["p_chance"] is not None


def test_p_is_the_brute_force_sum_over_visits_and_pixels(
    archive: Archive, event: SkyMap, assessed: tuple[pa.Table, significance.Assessed]
) -> None:
    """Every interval of the map, every small cell, every visit: the rank and the sum, one by one."""
    visits = significance.measure(archive, NIGHTS[5], NIGHTS[-1]).visits
    assert visits is not None
    stream = coincidence.stream_of("fermi-gbm")
    row = rows_of(assessed[1].table)["ZTFcounterpart"]
    t0 = event.event_mjd
    assert t0 is not None
    shift = 2 * (29 - visits.order)
    limit = event.credible_level[event.credible_level >= 0.99].min()
    cells = [
        range(a >> shift, ((b - 1) >> shift) + 1)
        for a, b in zip(event.start.tolist(), event.stop.tolist(), strict=True)
    ]
    looks: dict[int, list[tuple[float, float, float]]] = {}
    for cell in {cell for many in cells for cell in many}:
        unseen, looks[cell] = 1.0, []
        for i in np.flatnonzero(visits.cell == cell):
            delay = visits.mjd[i] - t0
            if 0 < delay <= 3.0:
                seen = unseen * 0.8 * 2 ** (-delay / stream.counterpart.half_life_day)
                unseen -= seen
                looks[cell].append((visits.mjd[i], seen, visits.rate_per_deg2[i]))
    home = row["healpix_29"] >> shift
    elements, mine = [], None
    for number in np.flatnonzero(event.credible_level <= limit):
        start, stop, density = int(event.start[number]), int(event.stop[number]), event.density_per_deg2[number]
        for cell in cells[number]:
            begin, end = max(start, cell << shift), min(stop, (cell + 1) << shift)
            area = (end - begin) * healpix.cell_area_deg2(29)
            for mjd, seen, rate in looks[cell]:
                elements.append((density * seen / rate, area * rate))
                if cell == home and start <= row["healpix_29"] < stop and abs(mjd - row["first_mjd"]) < 0.005:
                    mine = density * seen / rate
    assert mine is not None
    expected = sum(weight for rank, weight in elements if rank >= mine * (1 - 1e-9))
    assert row["p_chance"] == pytest.approx(1 - np.exp(-expected), rel=1e-6)


def test_without_a_background_the_stated_rate_and_the_closed_form(tmp_path: Path, event: SkyMap) -> None:
    sky.write_archive(tmp_path, {EVENT_NIGHT: [counterpart(EVENT_NIGHT, 1)]})
    archive = open_archive(tmp_path)
    found = search(archive, [event], EVENT_NIGHT, EVENT_NIGHT)
    result = significance.add(found, archive, [event], EVENT_NIGHT, EVENT_NIGHT, streams={"grb1": "fermi-gbm"})
    assert result.summary["background"] == {
        "is_measured": False,
        "nights": 1,
        "candidates": 1,
        "rate_per_deg2_visit": None,
        "rate_per_deg2_day": 31.0,
    }
    density = found.column("probdensity")[0].as_py() / (180 / np.pi) ** 2
    searched = event.area_deg2[event.density_per_deg2 >= density * (1 - 1e-12)].sum()
    inside = event.credible_level <= event.credible_level[event.credible_level >= 0.9].min()
    area = event.area_deg2[inside].sum()
    s = searched * 0.14
    expected = 31.0 * s * (1 + np.log(area * 3.0 / s))
    assert result.table.column("p_chance")[0].as_py() == pytest.approx(1 - np.exp(-expected), rel=1e-6)
    assert result.table.column("selection")[0].as_py() == "bronze"


def test_no_rows_no_time_no_stream(archive: Archive, event: SkyMap) -> None:
    import dataclasses

    found = search(archive, [event], NIGHTS[0], NIGHTS[0]).slice(0, 0)
    empty = significance.add(found, archive, [event], NIGHTS[0], NIGHTS[0])
    assert empty.table.num_rows == 0
    assert empty.summary["events"][0]["stream"] == "lvk"
    timeless = dataclasses.replace(event, event_mjd=None)
    rows = search(archive, [timeless], NIGHTS[0], NIGHTS[2], credible_level=0.99)
    assert rows.num_rows
    result = significance.add(rows, archive, [timeless], NIGHTS[0], NIGHTS[2])
    assert result.table.column("p_chance").null_count == rows.num_rows
    with pytest.raises(InputError, match="no counterparts are known of events of stream nova"):
        significance.add(found, archive, [event], NIGHTS[0], NIGHTS[0], streams={"grb1": "nova"})
