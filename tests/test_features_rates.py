"""Rates, colors and ages: hand-made light curves and a plain Python oracle."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.features.rates import COLUMNS
from pipeline.science import SCIENCE, apply
from pipeline.tables import LIGHT_CURVE_TYPE, UPPER_LIMITS_TYPE

Point = tuple[float, float, float, str]
Limit = tuple[float, float, str]


def measure(points: list[Point], limits: Sequence[Limit] = (), mjd: float = 10.0) -> dict[str, Any]:
    """Return the columns of one alert; points are (mjd, flux, error, band), limits (mjd, flux, band)."""
    points = sorted(points)
    n = len(points)
    curve = {name: [None] * n for name in LIGHT_CURVE_TYPE.names}
    columns = list(zip(*points, strict=True)) or [[]] * 4
    curve |= dict(zip(("mjd", "flux_njy", "flux_err_njy", "band"), map(list, columns), strict=True))
    curve["is_forced"] = [False] * n
    ceiling = list(zip(*sorted(limits), strict=True)) or [[]] * 3
    upper = dict(zip(("mjd", "flux_limit_njy", "band"), map(list, ceiling), strict=True)) | {
        "exposure": [None] * len(limits)
    }
    table = pa.table(
        {
            "light_curve": pa.array([curve], LIGHT_CURVE_TYPE),
            "upper_limits": pa.array([upper], UPPER_LIMITS_TYPE),
            "mjd": pa.array([mjd]),
            "first_mjd": pa.array([points[0][0] if points else None], pa.float64()),
        }
    )
    return apply(SCIENCE["light_curve_rates"], table).to_pylist()[0]


def test_a_rising_light_curve() -> None:
    points = [
        (7.0, 1000.0, 100.0, "g"),
        (8.0, 2000.0, 100.0, "g"),
        (10.0, 4000.0, 100.0, "g"),
        (10.2, 5000.0, 50.0, "r"),
    ]
    got = measure(points, limits=[(2.0, 100.0, "g"), (5.0, 400.0, "g"), (6.99, 1.0, "g"), (6.0, 1.0, "r")], mjd=10.2)
    assert got["feat_g_n_detections"] == 3
    assert got["feat_g_peak_mag"] == pytest.approx(31.4 - 2.5 * np.log10(4000.0))
    assert got["feat_g_last_flux_ratio"] == 1.0
    assert got["feat_g_rate_per_day"] == pytest.approx(1000.0 / 4000.0)
    assert got["feat_g_night_rate_mag_per_day"] == pytest.approx(-2.5 * np.log10(2.0) / 2.0)
    assert got["feat_g_limit_rate_mag_per_day"] == pytest.approx(
        -2.5 * np.log10(2.5) / 2.0
    )  # not the limit of that hour
    assert got["feat_g_since_peak_days"] == pytest.approx(0.2)
    assert got["feat_g_span_days"] == 3.0
    assert got["feat_g_minus_r_mag"] == pytest.approx(-2.5 * np.log10(4000.0 / 5000.0))
    assert got["feat_r_minus_i_mag"] is None
    assert got["feat_r_rate_per_day"] is None
    assert got["feat_any_n_bands"] == 2
    assert got["feat_any_positive_fraction"] == 1.0
    assert got["feat_any_age_days"] == pytest.approx(3.2)


def test_a_negative_light_curve_has_no_magnitudes_but_a_slope() -> None:
    got = measure([(1.0, -4000.0, 10.0, "r"), (3.0, -1000.0, 10.0, "r")], limits=[(0.0, 10.0, "r")])
    assert got["feat_r_peak_mag"] is None
    assert got["feat_r_night_rate_mag_per_day"] is None
    assert got["feat_r_limit_rate_mag_per_day"] is None
    assert got["feat_r_last_flux_ratio"] == -0.25
    assert got["feat_r_rate_per_day"] == pytest.approx(0.375)
    assert got["feat_r_positive_fraction"] == 0.0


def test_points_of_one_half_hour_have_no_slope() -> None:
    got = measure([(1.0, 100.0, 10.0, "g"), (1.01, 200.0, 10.0, "g")])
    assert got["feat_g_rate_per_day"] is None
    assert got["feat_g_span_days"] == pytest.approx(0.01)


def test_no_points_give_zero_counts_and_nulls() -> None:
    got = measure([])
    assert {value for name, value in got.items() if name.endswith(("n_detections", "n_bands"))} == {0}
    assert all(value is None for name, value in got.items() if not name.endswith(("n_detections", "n_bands")))
    assert list(got) == [field.name for field in COLUMNS]


drawn_point = st.tuples(
    st.integers(0, 400), st.integers(-50, 50).filter(bool), st.integers(1, 9), st.sampled_from("gr")
)


@settings(max_examples=60, deadline=None)
@given(st.lists(drawn_point, min_size=1, max_size=20))
def test_slope_and_color_agree_with_plain_python(drawn: list[tuple[int, int, int, str]]) -> None:
    points = sorted((t / 40.0, float(f), float(e), b) for t, f, e, b in drawn)
    got = measure(points)
    for band in "gr":
        mine = [p for p in points if p[3] == band]
        if mine and mine[-1][0] - mine[0][0] >= 0.02:
            t, f, e = (np.array([p[k] for p in mine]) for k in range(3))
            slope = np.polyfit(t - t.mean(), f, 1, w=1 / e)[0] / np.abs(f).max()
            assert got[f"feat_{band}_rate_per_day"] == pytest.approx(slope, rel=1e-6, abs=1e-9)
        else:
            assert got[f"feat_{band}_rate_per_day"] is None
    pairs = [
        (min(a[0], b[0]), max(a[0], b[0]), a[1] / b[1])
        for a in points for b in points
        if a[3] == "g" and b[3] == "r" and a[1] > 0 and b[1] > 0 and abs(a[0] - b[0]) <= 1.0
    ]  # fmt: skip
    color = got["feat_g_minus_r_mag"]
    assert (color is None) == (not pairs)
    if pairs:
        assert any(color == pytest.approx(-2.5 * np.log10(ratio)) for _, _, ratio in pairs)
        newest = max(pair[1] for pair in pairs)
        assert any(color == pytest.approx(-2.5 * np.log10(r)) for _, late, r in pairs if late >= newest - 1.0)
