"""The 26 statistics: names, definitions, which points they are measured on, and another broker's values."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

from pipeline import lightcurve
from pipeline.features.points import BANDS, by_band, detections
from pipeline.features.statistics import (
    COLUMNS,
    MINIMUM_DETECTIONS,
    NAMES,
    extractor,
    magnitudes,
    of_series,
    statistics,
)
from pipeline.science import SCIENCE, apply
from pipeline.surveys import SURVEYS
from pipeline.tables import LIGHT_CURVE_TYPE


def light_curves(rows: list[list[dict[str, Any]]]) -> pa.StructArray:
    """Return light curves of points given as dictionaries; what a point does not say is null (not forced)."""
    lists = [
        {
            f.name: [point.get(f.name, False if f.name == "is_forced" else None) for point in row]
            for f in LIGHT_CURVE_TYPE
        }
        for row in rows
    ]
    return pa.array(lists, LIGHT_CURVE_TYPE)


def point(mjd: float, flux: float, error: float = 10.0, band: str = "g", **more: Any) -> dict[str, Any]:
    return {"mjd": mjd, "flux_njy": flux, "flux_err_njy": error, "band": band, **more}


def test_names_are_those_of_the_package() -> None:
    assert [name.lower() for name in extractor().names] == list(NAMES)
    assert len(NAMES) == 26
    assert [field.name for field in COLUMNS][25:27] == ["feat_u_stetson_k", "feat_g_mean"]
    assert len(COLUMNS) == 26 * len(BANDS)
    assert extractor() is extractor()


@pytest.mark.parametrize("n", range(6))
def test_a_statistic_is_null_below_its_number_of_detections(n: int) -> None:
    draw = np.random.default_rng(n)
    values = of_series(np.array([0, n]), np.arange(n) + draw.random(n), draw.normal(18, 1, n), np.full(n, 0.1))
    measured = dict(zip(NAMES, np.isfinite(values[0]), strict=True))
    assert measured == {name: n >= minimum for name, minimum in MINIMUM_DETECTIONS.items()}


def test_statistics_follow_their_definitions() -> None:
    draw = np.random.default_rng(26)
    for n in (7, 40):
        t, m, s = np.sort(draw.uniform(59000, 59030, n)), draw.normal(18, 0.4, n), draw.uniform(0.02, 0.2, n)
        got = dict(zip(NAMES, of_series(np.array([0, n]), t, m, s)[0], strict=True))
        weight = s**-2.0
        mean, sigma = m.mean(), m.std(ddof=1)
        weighted = (m * weight).sum() / weight.sum()
        (slope, _), cov = np.polyfit(t - t.mean(), m, 1, w=1 / s, cov="unscaled")
        line = np.polyfit(t - t.mean(), m, 1)
        noise = np.sqrt(((m - np.polyval(line, t - t.mean())) ** 2).sum() / (n - 2))
        pulls = (m - weighted) / s
        phi = stats.norm.cdf((np.sort(m) - mean) / sigma)
        i = np.arange(n)
        anderson = -n - ((2 * i + 1) * np.log(phi) + (2 * (n - i) - 1) * np.log(1 - phi)).sum() / n
        expected = {
            "mean": mean,
            "weighted_mean": weighted,
            "standard_deviation": sigma,
            "median": np.median(m),
            "amplitude": np.ptp(m) / 2,
            "beyond_1_std": (np.abs(m - mean) > sigma).mean(),
            "cusum": np.ptp(np.cumsum(m - mean)) / (n * sigma),
            "kurtosis": stats.kurtosis(m, bias=False),
            "skew": stats.skew(m, bias=False),
            "linear_trend": line[0],
            "linear_trend_noise": noise,
            "linear_trend_sigma": noise / np.sqrt(((t - t.mean()) ** 2).sum()),
            "linear_fit_slope": slope,
            "linear_fit_slope_sigma": np.sqrt(cov[0, 0]),
            "maximum_slope": np.abs(np.diff(m) / np.diff(t)).max(),
            "median_absolute_deviation": np.median(np.abs(m - np.median(m))),
            "median_buffer_range_percentage_10": (np.abs(m - np.median(m)) < 0.1 * np.ptp(m) / 2).mean(),
            "percent_amplitude": np.abs(m - np.median(m)).max(),
            "mean_variance": sigma / mean,
            "anderson_darling_normal": (1 + 4 / n - 25 / n**2) * anderson,
            "chi2": (pulls**2).sum() / (n - 1),
            "stetson_k": np.abs(pulls).sum() / np.sqrt(n * (pulls**2).sum()),
        }
        for name, value in expected.items():
            assert got[name] == pytest.approx(value, rel=1e-6), name


def test_a_constant_light_curve_has_no_ratio_and_no_infinity() -> None:
    values = of_series(np.array([0, 0, 4]), np.array([1.0, 1.0, 2.0, 3.0]), np.full(4, 18.0), np.full(4, 0.1))
    assert np.isnan(values[0]).all()
    got = dict(zip(NAMES, values[1], strict=True))
    assert got["mean"] == 18.0
    assert np.isnan(got["kurtosis"])
    assert not np.isinf(values).any()


def test_points_at_one_time_have_no_slope_and_spoil_no_neighbour() -> None:
    time = np.array([5.0, 5.0, 5.0, 1.0, 2.0, 4.0, 7.0])
    value = np.array([18.0, 18.2, 18.5, 17.0, 17.1, 17.4, 17.3])
    error = np.full(7, 0.1)
    out = of_series(np.array([0, 3, 3, 7]), time, value, error)
    of_time = [name.startswith(("linear_", "maximum_slope")) for name in NAMES]
    assert np.isnan(out[0, of_time]).all()
    assert out[0, NAMES.index("mean")] == pytest.approx(np.mean(value[:3]))
    assert out[0, NAMES.index("standard_deviation")] == pytest.approx(np.std(value[:3], ddof=1))
    assert np.isnan(out[1]).all()
    assert out[2].tobytes() == of_series(np.array([0, 4]), time[3:], value[3:], error[3:])[0].tobytes()
    assert np.isfinite(out[2, of_time]).all()


def test_detections_are_cut_by_band_and_counted_once() -> None:
    curves = light_curves(
        [
            [
                point(1.0, 100.0, exposure=5),
                point(1.0, 101.0, exposure=5, is_forced=True),  # the same exposure: it counts once
                point(2.0, 90.0, exposure=6, is_forced=True),  # forced only: no detection
                point(3.0, -80.0, band="r", exposure=7),
                point(3.5, 70.0, exposure=5),  # the exposure again
                point(4.0, 60.0, band="V"),
                point(5.0, 0.0),
                point(6.0, 50.0, error=0.0),
                point(float("nan"), 40.0),
                {"mjd": 7.0, "band": "g"},
            ],
            [],
            [point(1.0, 30.0, band="y")],
        ]
    )
    for array in (curves, pa.concat_arrays([curves.slice(1, 1), curves]).slice(1)):
        points = detections(array)
        fluxes = [points.flux_njy[a:b].tolist() for a, b in zip(points.offsets[:-1], points.offsets[1:], strict=True)]
        filled = {(BANDS[k // 3], k % 3): values for k, values in enumerate(fluxes) if values}
        assert filled == {("g", 0): [100.0], ("r", 0): [-80.0], ("y", 2): [30.0]}


def test_by_band_agrees_with_sorting() -> None:
    draw = np.random.default_rng(3)
    ends = np.concatenate([[0], np.cumsum(draw.integers(0, 9, 30))])
    band, keep = draw.integers(-1, 6, ends[-1]).astype(np.int8), draw.random(ends[-1]) < 0.7
    segments, index = by_band(ends, band, keep, 6)
    row = lightcurve.row_of_point(ends)
    kept = np.flatnonzero(keep & (band >= 0))
    assert (index == kept[np.lexsort((kept, row[kept], band[kept]))]).all()
    assert (np.diff(segments) == np.bincount(band[kept].astype(int) * 30 + row[kept], minlength=180)).all()


def test_total_flux_is_used_where_half_of_the_points_have_it() -> None:
    total = {"total_flux_njy": 1e4, "total_flux_err_njy": 100.0}
    curves = light_curves(
        [
            [point(1.0, 100.0, **total), point(2.0, -100.0)],  # one of two: total flux, of the one point that has it
            [point(1.0, 100.0, **total), point(2.0, -100.0), point(3.0, 100.0)],  # one of three: difference flux
            [point(1.0, 100.0, total_flux_njy=-5.0, total_flux_err_njy=1.0)],  # known but negative: no magnitude
        ]
    )
    offsets, mjd, mag, error = magnitudes(detections(curves))
    segments = [mag[a:b].tolist() for a, b in itertools.pairwise(offsets)]
    assert segments[3] == [pytest.approx(31.4 - 2.5 * 4)]
    assert segments[4] == [pytest.approx(31.4 - 2.5 * 2)] * 3
    assert segments[5] == []
    assert error[0] == pytest.approx(1.0857362 * 0.01)
    assert mjd[0] == 1.0


def test_statistics_of_one_light_curve_are_those_of_the_package_called_on_it() -> None:
    draw = np.random.default_rng(5)
    rows = [[point(float(t), float(f)) for t, f in enumerate(draw.normal(1e3, 50, n))] for n in (0, 3, 12)]
    points = detections(light_curves(rows))
    got = statistics(points)
    for row, n in ((1, 3), (2, 12)):
        flux = np.array([p["flux_njy"] for p in rows[row]])
        alone = extractor()(
            np.arange(n, dtype=float), 31.4 - 2.5 * np.log10(flux), 1.0857362047581294 * 10 / flux, fill_value=np.nan
        )
        assert got[3 + row] == pytest.approx(np.where(np.isfinite(alone), alone, np.nan), rel=1e-9, nan_ok=True)


@pytest.fixture(scope="module")
def peer_night(shared_data: Path) -> pa.Table:
    files = sorted((shared_data / "peer" / "fink_ztf_20240115").glob("*.parquet"))
    return pa.concat_tables([pq.read_table(file) for file in files], promote_options="permissive")


def test_statistics_agree_with_another_broker_where_definitions_do(peer_night: pa.Table) -> None:
    """All but a few of 748 light curves, wherever both measure the same points of the same flux.

    The other broker takes ``isdiffpos = 1`` for negative, and where one point of a light curve has a reference source
    takes the total flux of all, even of those whose reference source is another: these light curves are left out. The
    slopes of nearly constant light curves differ by the rounding of JD.
    """
    native = peer_night.select(["candid", "schemavsn", "objectId", "candidate", "prv_candidates"])
    raw = native.append_column("alert_id", native["candid"]).append_column("schema_version", native["schemavsn"])
    measured = apply(SCIENCE["light_curve_statistics"], SURVEYS["ztf"].normalise(raw))
    compared = agreeing = 0
    for i, alert in enumerate(
        peer_night.select(["candidate", "prv_candidates", "lc_features_g", "lc_features_r"]).to_pylist()
    ):
        history = [p for p in alert["prv_candidates"] or [] if p["magpsf"] is not None] + [alert["candidate"]]
        near = [p["distnr"] is not None and 0 <= p["distnr"] <= 1.5 for p in history]
        if any(p["isdiffpos"] == "1" for p in history) or any(near) != all(near):
            continue
        for band in "gr":
            theirs = alert[f"lc_features_{band}"]
            if theirs is None:
                continue
            ours = [measured[f"feat_{band}_{name}"][i].as_py() for name in NAMES]
            wanted = [theirs[name.replace("stetson_k", "stetson_K")] for name in NAMES]
            got, expected = np.array(ours, float), np.array(wanted, float)
            expected[~np.isfinite(expected)] = np.nan
            compared += 1
            agreeing += np.allclose(got, expected, rtol=1e-5, atol=1e-7, equal_nan=True)
    assert compared > 600
    assert agreeing / compared >= 0.995
