"""The stage that looks alerts up on a sky map: every column against plain Python."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import cosmology
from pipeline.skymap import SkyMap, make_skymap, volume_levels
from pipeline.stages import skymap as stage
from pipeline.tables import LIGHT_CURVE_TYPE

EVENT_MJD = 58451.5
SKY_DEG2 = 41252.96124941927


def sky(weights: list[float], *, event_mjd: float | None = EVENT_MJD, is_3d: bool = False) -> SkyMap:
    cells = np.arange(12)
    density = np.array(weights) / sum(weights) * 12 / SKY_DEG2
    distances = {
        "distance_mu_mpc": np.linspace(40, 95, 12),
        "distance_sigma_mpc": np.full(12, 8.0),
        "distance_norm": np.full(12, 1e-4),
    }
    return make_skymap("s1", event_mjd, cells << 58, (cells + 1) << 58, density, distances if is_3d else {})


def curve(*points: tuple[float, float | None, float | None, bool]) -> dict[str, Any]:
    """A light curve of (mjd, flux, error, forced)."""
    empty = {field.name: [None] * len(points) for field in LIGHT_CURVE_TYPE}
    names = ("mjd", "flux_njy", "flux_err_njy", "is_forced")
    return empty | {name: [point[place] for point in points] for place, name in enumerate(names)}


def alerts(n: int, **columns: list[Any]) -> pa.Table:
    types = {
        "healpix_29": pa.int64(),
        "mjd": pa.float64(),
        "first_mjd": pa.float64(),
        "first_mjd_is_bound": pa.bool_(),
        "light_curve": LIGHT_CURVE_TYPE,
        "host_distance_mpc": pa.float64(),
        "host_distance_err_mpc": pa.float64(),
    }
    default = {"healpix_29": 5 << 58, "mjd": 58452.0, "first_mjd_is_bound": False, "light_curve": curve()}
    values = {name: columns.get(name, [default.get(name)] * n) for name in types}
    return pa.table({name: pa.array(values[name], kind) for name, kind in types.items()})


def test_levels_times_and_prior_detections() -> None:
    ours = sky([0.5, 0.3, 0.2] + [0] * 9)
    first = [EVENT_MJD - 1, EVENT_MJD + 1, None, EVENT_MJD + 1, EVENT_MJD - 1, EVENT_MJD + 1]
    table = alerts(
        6,
        first_mjd=first,
        first_mjd_is_bound=[False, False, False, True, True, None],
        healpix_29=[0, 1 << 58, 2 << 58, 3 << 58, -1, 0],
    )
    out = stage.match(table, ours)
    assert out.schema.equals(pa.schema(stage.produces(ours)), check_metadata=True)
    assert out["skymap_s1_credible_level"].to_pylist() == [
        item if item is None else pytest.approx(item) for item in (0.5, 0.8, 1.0, 1.0, None, 0.5)
    ]
    assert out["skymap_s1_density_per_deg2"].to_pylist()[3:5] == [0.0, None]
    assert out["skymap_s1_delay_day"].to_pylist() == [0.5] * 6
    assert out["skymap_s1_first_delay_day"].to_pylist() == [-1, 1, None, 1, -1, 1]
    # A history cut at some time can prove earlier activity, never its absence.
    assert out["skymap_s1_has_prior_detection"].to_pylist() == [True, False, None, None, True, False]
    assert out["skymap_s1_volume_level"].to_pylist() == [None] * 6


def test_a_map_without_a_time_and_a_table_without_rows() -> None:
    ours = sky([1.0] * 12, event_mjd=None)
    table = alerts(2, first_mjd=[58000.0, None], light_curve=[curve((58000.0, 99.0, 1.0, True)), curve()])
    out = stage.match(table, ours)
    for name in ("delay_day", "first_delay_day", "has_prior_detection", "has_prior_forced"):
        assert out[f"skymap_s1_{name}"].to_pylist() == [None, None]
    assert out["skymap_s1_credible_level"].to_pylist() == [pytest.approx(1.0)] * 2
    empty = stage.match(alerts(0), ours)
    assert empty.schema.equals(pa.schema(stage.produces(ours)))
    assert empty.num_rows == 0


# ------------------------------------------------------------------------------------------- forced photometry
BEFORE, AFTER = EVENT_MJD - 3, EVENT_MJD + 3


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([], None),
        ([(BEFORE, 50.0, 10.0, True)], True),
        ([(BEFORE, -50.0, 10.0, True)], True),
        ([(BEFORE, 49.9, 10.0, True)], False),
        ([(BEFORE, 49.9, 10.0, True), (AFTER, 500.0, 10.0, True)], False),
        ([(AFTER, 500.0, 10.0, True)], None),
        ([(EVENT_MJD, 500.0, 10.0, True)], None),
        ([(BEFORE, 500.0, 10.0, False)], None),
        ([(BEFORE, 500.0, None, True)], None),
        ([(BEFORE, None, 10.0, True)], None),
        ([(BEFORE, 500.0, 0.0, True)], None),
        ([(BEFORE, 1.0, 10.0, True), (BEFORE - 1, 80.0, 10.0, True)], True),
    ],
)
def test_prior_forced_flux(points: list[tuple[float, float | None, float | None, bool]], expected: bool | None) -> None:
    table = alerts(3, light_curve=[curve((BEFORE, 900.0, 1.0, True)), curve(*points), curve((BEFORE, 0.0, 1.0, True))])
    found = stage.match(table, sky([1.0] * 12))["skymap_s1_has_prior_forced"].to_pylist()
    assert found == [True, expected, False]


NUMBER = st.one_of(st.none(), st.floats(-200, 200), st.just(math.nan))
POINT = st.tuples(st.floats(EVENT_MJD - 2, EVENT_MJD + 2), NUMBER, NUMBER, st.booleans())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(POINT, max_size=5), min_size=1, max_size=6), st.integers(0, 5))
def test_prior_forced_flux_as_counted_one_by_one(curves: list[list[Any]], cut: int) -> None:
    expected = []
    for points in curves:
        good = [
            (flux, error)
            for mjd, flux, error, forced in points
            if forced and mjd < EVENT_MJD and flux is not None and error is not None and flux == flux and error > 0
        ]
        expected.append(any(abs(flux) >= 5 * error for flux, error in good) if good else None)
    column = pa.array([curve(*points) for points in curves], LIGHT_CURVE_TYPE)
    assert stage.has_prior_forced(column, EVENT_MJD).to_pylist() == expected
    assert stage.has_prior_forced(column.slice(cut), EVENT_MJD).to_pylist() == expected[cut:]


# ------------------------------------------------------------------------------------------- in volume
def test_the_level_in_volume_is_that_of_the_host() -> None:
    ours = sky([3.0] * 6 + [1.0] * 6, is_3d=True)
    cells = [0, 0, 3 << 58, 11 << 58, -1, 0]
    distance = [40.0, 60.0, 55.0, 95.0, 50.0, None]
    error = [2.0, 2.0, None, 0.1, 1.0, None]
    table = alerts(6, healpix_29=cells, host_distance_mpc=distance, host_distance_err_mpc=error)
    found = stage.match(table, ours)["skymap_s1_volume_level"].to_pylist()
    peculiar = 300.0 / cosmology.SPEED_OF_LIGHT_KM_S  # of a nearby host: c z = H0 d
    nearby = 300.0 / 67.66
    made = stage.distance_errors_mpc(np.array([55.0, np.nan, 55.0]), np.array([np.nan, np.nan, 3.0]))
    assert made[0] == pytest.approx(nearby, rel=0.05) and peculiar > 0
    assert np.isnan(made[1]) and made[2] == 3.0
    for place, (cell, mpc, err) in enumerate(zip(cells, distance, error, strict=True)):
        if mpc is None or cell < 0:
            assert found[place] is None
            continue
        err = made[0] if err is None else err
        assert found[place] == pytest.approx(volume_levels(ours, [cell], [mpc], [err])[0], abs=1e-12)
    assert found[0] < found[1]


def test_host_columns_are_wanted_only_where_they_serve() -> None:
    flat, deep = sky([1.0] * 12), sky([1.0] * 12, is_3d=True)
    assert stage.requires(flat, has_host=True) == stage.requires(deep, has_host=False) == stage.REQUIRES
    assert stage.requires(deep, has_host=True) == (*stage.REQUIRES, *stage.HOST_REQUIRES)
    without = alerts(2, host_distance_mpc=[50.0, 50.0]).select(list(stage.REQUIRES))
    assert stage.match(without, deep)["skymap_s1_volume_level"].null_count == 2


def test_parts_do_not_matter() -> None:
    rng = np.random.default_rng(1)
    table = alerts(
        50,
        healpix_29=(rng.random(50) * (12 << 58)).astype(np.int64).tolist(),
        first_mjd=(EVENT_MJD + rng.normal(size=50)).tolist(),
        host_distance_mpc=rng.uniform(20, 120, 50).tolist(),
        light_curve=[curve((EVENT_MJD + a, b, 1.0, True)) for a, b in rng.normal(0, 5, (50, 2)).tolist()],
    )
    ours = sky(list(range(12)), is_3d=True)
    whole = stage.match(table, ours)
    parts = pa.concat_tables([stage.match(table.slice(0, 13), ours), stage.match(table.slice(13), ours)])
    assert parts.combine_chunks().equals(whole.combine_chunks())
