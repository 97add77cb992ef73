"""Glint streaks: counts against brute force, injected streaks, and what chance alignments give."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from laws.strategies import synthetic_alerts

from pipeline.features import streaks
from pipeline.science import NIGHT, apply

ARCSEC = streaks.ARCSEC


def field(draw: np.random.Generator, n: int, half_width_deg: float = 3.5, dec: float = 30.0) -> np.ndarray:
    ra = 150.0 + draw.uniform(-half_width_deg, half_width_deg, n) / np.cos(np.radians(dec))
    return streaks.unit_vectors(ra, dec + draw.uniform(-half_width_deg, half_width_deg, n))


def on_circle(
    draw: np.random.Generator, n: int, length_deg: float, scatter_arcsec: float, bend_arcsec: float = 0.0
) -> np.ndarray:
    """Return n points of a great circle of any place and direction, at least 10 arcsec apart."""
    start = field(draw, 1, 2.0)[0]
    east = np.cross([0.0, 0.0, 1.0], start)
    east /= np.linalg.norm(east)
    angle = draw.uniform(0.0, np.pi)
    forward = np.cos(angle) * east + np.sin(angle) * np.cross(start, east)
    side = np.cross(start, forward)
    s = (np.arange(n) + draw.uniform(0.0, 0.6, n)) / n
    across = (draw.normal(0.0, scatter_arcsec, n) + bend_arcsec * (2.0 * s - 1.0) ** 2) * ARCSEC
    s = np.radians(s * length_deg)
    points = np.cos(s)[:, None] * start + np.sin(s)[:, None] * forward + across[:, None] * side
    return points / np.linalg.norm(points, axis=1)[:, None]


def brute_force_counts(xyz: np.ndarray) -> dict[tuple[int, int], int]:
    """Count the points near the circle of every pair, pair by pair and point by point."""
    counts = {}
    for i in range(len(xyz)):
        for k in range(i + 1, len(xyz)):
            if 2.0 * np.arcsin(np.linalg.norm(xyz[i] - xyz[k]) / 2.0) <= 10.0 * ARCSEC:
                continue
            normal = np.cross(xyz[i], xyz[k])
            distance = np.arcsin(np.abs(xyz @ normal / np.linalg.norm(normal)))
            count = int((distance <= 5.0 * ARCSEC).sum())
            if count >= 5:
                counts[i, k] = count
    return counts


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 60),
    width=st.sampled_from([0.001, 0.01, 0.03, 1.0]),
    dec=st.sampled_from([-88.0, -30.0, 0.0, 63.0, 89.0]),
)
def test_counts_are_those_of_brute_force(seed: int, n: int, width: float, dec: float) -> None:
    draw = np.random.default_rng(seed)
    xyz = np.vstack([field(draw, n, width, dec), field(draw, n // 5, 0.002, dec)])
    first, second, count = streaks.circle_counts(xyz)
    got = {(int(i), int(k)): int(c) for i, k, c in zip(first, second, count, strict=True)}
    expected = brute_force_counts(xyz)
    assert got == expected


@pytest.mark.parametrize(
    ("n_field", "n_streak", "least"), [(50, 5, 0.85), (200, 5, 0.85), (200, 6, 0.95), (300, 8, 0.95)]
)
def test_injected_streaks_are_found(n_field: int, n_streak: int, least: float) -> None:
    draw = np.random.default_rng(n_field + n_streak)
    found = 0
    for _ in range(20):
        injected = on_circle(draw, n_streak, draw.uniform(0.1, 2.0), 0.25)
        got = streaks.find(np.vstack([field(draw, n_field), injected]))
        wanted = set(range(n_field, n_field + n_streak))
        found += any(len(wanted & set(streak.members.tolist())) >= min(n_streak, 5) for streak in got)
    assert found / 20 >= least


def test_a_bent_streak_is_followed() -> None:
    draw = np.random.default_rng(8)
    got = streaks.find(np.vstack([field(draw, 100), on_circle(draw, 12, 2.0, 0.2, bend_arcsec=4.0)]))
    assert len(got) == 1
    assert len(set(got[0].members.tolist()) & set(range(100, 112))) >= 10
    assert got[0].residual_arcsec < 0.5
    assert 5000.0 < got[0].length_arcsec < 7300.0


def test_chance_alignments_are_not_reported() -> None:
    draw = np.random.default_rng(4)
    assert sum(len(streaks.find(field(draw, n))) for n in [100] * 60 + [300] * 20) == 0
    crowd = np.vstack([field(draw, 40), field(draw, 30, 0.0006)])  # a clump of 30 alerts within 4 arcsec
    assert streaks.find(crowd) == []


def test_chance_is_the_poisson_tail() -> None:
    from scipy.stats import poisson

    for beside, distinct, degree in ((0, 5, 1), (7, 6, 1), (300, 9, 2)):
        expected = (beside + 1) / 299.0
        shapes = 200 * 199 / 2 * (6 if degree == 2 else 1)
        tail = poisson.sf(distinct - degree - 2, expected)
        assert streaks.chance(200, 6, degree, distinct, beside) == pytest.approx(shapes * tail, rel=1e-9)


def night_of(xyz: np.ndarray, **columns: pa.Array) -> pa.Table:
    n = len(xyz)
    values = {
        "alert_id": pa.array(2**53 + 7 + np.arange(n)),
        "ra": pa.array(np.degrees(np.arctan2(xyz[:, 1], xyz[:, 0])) % 360.0),
        "dec": pa.array(np.degrees(np.arcsin(xyz[:, 2]))),
        "mjd": pa.array(np.full(n, 60000.5)),
        "first_mjd": pa.array(np.full(n, 60000.5)),
        "n_detections": pa.array(np.ones(n, dtype=np.int32)),
        "is_positive": pa.array(np.ones(n, dtype=bool)),
        "is_solar_system": pa.array(np.zeros(n, dtype=bool)),
        "is_injected": pa.nulls(n, pa.bool_()),
        "reference_separation_arcsec": pa.nulls(n, pa.float32()),
    } | columns
    table = synthetic_alerts(n, seed=1)
    for name, data in values.items():
        table = table.set_column(table.schema.get_field_index(name), name, data)
    return table


def test_the_link_is_named_after_its_smallest_alert() -> None:
    xyz = on_circle(np.random.default_rng(2), 6, 0.5, 0.2)
    got = apply(NIGHT["glint_streaks"], night_of(xyz))
    assert got.num_rows == 6
    assert set(got["link_id"].to_pylist()) == {f"glint-{2**53 + 7}"}
    assert set(got["glint_n_alerts"].to_pylist()) == {6}
    assert got["score"][0].as_py() > 2.0
    two = night_of(xyz, mjd=pa.array([60000.5] * 3 + [60000.6] * 3), first_mjd=pa.nulls(6, pa.float64()))
    assert apply(NIGHT["glint_streaks"], two).num_rows == 0  # three points in each of two exposures


@pytest.mark.parametrize(
    "columns",
    [
        {"is_solar_system": pa.array([True] + [False] * 4)},
        {"is_positive": pa.array([None] + [True] * 4)},
        {"n_detections": pa.array([2, 1, 1, 1, 1], pa.int32())},
        {"first_mjd": pa.array([59999.0, 60000.5, 60000.5, 60000.5, 60000.5])},
        {"is_injected": pa.array([True, None, None, None, None])},
        {
            "reference_separation_arcsec": pa.array([0.1, None, None, None, None], pa.float32()),
            "reference_mag": pa.array([17.0] * 5, pa.float32()),
            "diff_mag": pa.array([19.0] * 5),
        },
    ],
    ids=lambda columns: next(iter(columns)),
)
def test_four_candidates_are_no_streak(columns: dict[str, pa.Array]) -> None:
    xyz = on_circle(np.random.default_rng(3), 5, 0.5, 0.2)
    assert apply(NIGHT["glint_streaks"], night_of(xyz)).num_rows == 5
    assert apply(NIGHT["glint_streaks"], night_of(xyz, **columns)).num_rows == 0
