"""The cross-match kernel against brute force over all pairs, and against astropy."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord, search_around_sky
from hypothesis import given, settings
from hypothesis import strategies as st
from xmatch_oracle import SKIES, sky

from pipeline.xmatch import MatchIndex, build_index, nearest, within


def _all_separations(ra: np.ndarray, dec: np.ndarray, other_ra: np.ndarray, other_dec: np.ndarray) -> np.ndarray:
    step = np.radians((ra[:, None] - other_ra + 180.0) % 360.0 - 180.0)
    up = np.radians(dec[:, None] - other_dec)
    haversine = np.sin(up / 2) ** 2 + np.cos(np.radians(dec))[:, None] * np.cos(np.radians(other_dec)) * (
        np.sin(step / 2) ** 2
    )
    return np.degrees(2 * np.arcsin(np.sqrt(np.minimum(haversine, 1.0)))) * 3600


def _check_against_brute_force(
    ra: np.ndarray, dec: np.ndarray, radius: np.ndarray, index: MatchIndex, *, tolerance: float = 1e-7
) -> None:
    separations = _all_separations(ra, dec, index.ra, index.dec)
    with np.errstate(invalid="ignore"):
        inside = separations <= radius[:, None]
        doubtful = np.abs(separations - radius[:, None]) < tolerance  # rounding decides: either answer is right
    pairs = within(ra, dec, radius, index)
    ours = np.zeros_like(inside)
    ours[pairs.alert, pairs.row] = True
    assert len(pairs.row) == ours.sum()  # no pair twice
    np.testing.assert_array_equal(ours | doubtful, inside | doubtful)
    np.testing.assert_allclose(pairs.separation_arcsec, separations[pairs.alert, pairs.row], rtol=1e-9, atol=tolerance)
    steps = np.lexsort((pairs.row, pairs.separation_arcsec, pairs.alert))
    np.testing.assert_array_equal(steps, np.arange(len(steps)))

    found = nearest(ra, dec, radius, index)
    np.testing.assert_array_equal(found.n_neighbours, ours.sum(axis=1))
    first = np.flatnonzero(np.diff(pairs.alert, prepend=-1))
    row, separation = np.full(len(ra), -1), np.full(len(ra), np.nan)
    row[pairs.alert[first]] = pairs.row[first]
    separation[pairs.alert[first]] = pairs.separation_arcsec[first]
    np.testing.assert_array_equal(found.row, row)  # smallest separation, then smallest row
    np.testing.assert_array_equal(found.separation_arcsec, separation)


@pytest.mark.parametrize("kind", SKIES)
@pytest.mark.parametrize("per_row", [False, True])
def test_equals_brute_force(kind: str, per_row: bool) -> None:
    rng = np.random.default_rng([SKIES.index(kind), per_row])
    index, rows = build_index(*sky(kind, 1500, rng))
    assert len(rows) == len(index) == 1500
    ra, dec = sky(kind, 400, rng)
    near = rng.integers(0, 1500, 200)  # half of the alerts lie beside a source
    ra[:200], dec[:200] = index.ra[near], np.clip(index.dec[near] + rng.normal(0, 1e-4, 200), -90, 90)
    radius = 10.0 ** rng.uniform(-2, 5.5, 400) if per_row else np.full(400, 20.0)
    if per_row:
        radius[:4] = [np.nan, -1.0, 0.0, np.inf]
    _check_against_brute_force(ra, dec, radius, index, tolerance=2e-3 if per_row else 1e-7)


positions = st.tuples(
    st.one_of(st.floats(-10, 370), st.sampled_from([0.0, 360.0, 90.0, 45.0, 359.9999999])),
    st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 0.0, 41.810314895778596, 89.99999])),
)


@given(
    st.lists(positions, max_size=25),
    st.lists(positions, max_size=8),
    st.sampled_from([0.0, 1.5, 60.0, 3600.0, 50_000.0, 120_000.0, 130_000.0, 600_000.0]),
)
@settings(max_examples=150, deadline=None)
def test_any_positions(sources: list, alerts: list, radius: float) -> None:
    source = np.array(sources, dtype=float).reshape(-1, 2)
    alert = np.array(alerts, dtype=float).reshape(-1, 2)
    index, _ = build_index(source[:, 0], source[:, 1])
    # Close to the antipode the haversine keeps only half of the digits: 180 deg minus 3e-3 arcsec.
    _check_against_brute_force(alert[:, 0], alert[:, 1], np.full(len(alert), radius), index, tolerance=5e-3)


def test_equals_astropy() -> None:
    rng = np.random.default_rng(5)
    index, _ = build_index(*sky("clustered", 4000, rng))
    ra, dec = sky("clustered", 1000, rng)
    ours = within(ra, dec, 15.0, index)
    alerts, sources = SkyCoord(ra, dec, unit="deg"), SkyCoord(index.ra, index.dec, unit="deg")
    alert, row, separation, _ = search_around_sky(alerts, sources, 15 * u.arcsec)
    by = np.lexsort((row, separation.arcsec, alert))
    np.testing.assert_array_equal(ours.alert, alert[by])
    np.testing.assert_array_equal(ours.row, row[by])
    np.testing.assert_allclose(ours.separation_arcsec, separation.arcsec[by], rtol=1e-8, atol=1e-9)
    found = nearest(ra, dec, 3600.0, index)
    row, separation, _ = alerts.match_to_catalog_sky(sources)
    np.testing.assert_array_equal(found.row, np.where(separation.arcsec <= 3600, row, -1))


def test_result_belongs_to_the_alert_alone() -> None:
    rng = np.random.default_rng(6)
    index, _ = build_index(*sky("clustered", 3000, rng))
    ra, dec = sky("clustered", 500, rng)
    radius = rng.uniform(0, 30, 500)
    whole = nearest(ra, dec, radius, index)
    for rows in (rng.permutation(500), np.arange(100, 300), np.array([7]), np.array([], dtype=int)):
        part = nearest(ra[rows], dec[rows], radius[rows], index)
        np.testing.assert_array_equal(part.row, whole.row[rows])
        np.testing.assert_array_equal(part.separation_arcsec, whole.separation_arcsec[rows])
        np.testing.assert_array_equal(part.n_neighbours, whole.n_neighbours[rows])


def test_ties_take_the_smaller_row() -> None:
    index, rows = build_index([10.0, 10.0, 10.0], [1.0, -1.0, 1.0])
    found = nearest([10.0], [0.0], 3600.0, index)
    assert found.n_neighbours.tolist() == [3]
    assert found.row.tolist() == [0]
    twins = nearest([10.0], [1.0], 1.0, index)
    assert rows[twins.row].tolist() == [0]  # rows of one cell stay in the order given
    assert twins.separation_arcsec.tolist() == [0.0]


def test_no_position_no_match() -> None:
    index, rows = build_index([np.nan, 10.0, 10.0, np.inf, 5.0], [0.0, 95.0, 20.0, 0.0, np.nan])
    assert rows.tolist() == [2]
    found = nearest([np.nan, 10.0, 10.0, np.inf], [20.0, np.nan, 20.0, 0.0], 1.0, index)
    assert found.row.tolist() == [-1, -1, 0, -1]
    assert found.n_neighbours.tolist() == [0, 0, 1, 0]
    nothing, _ = build_index([], [])
    assert nearest([1.0], [2.0], 1e6, nothing).row.tolist() == [-1]
    assert len(within([1.0], [2.0], 1e6, nothing).row) == 0


def test_small_separations_across_the_wrap_keep_their_digits() -> None:
    index, _ = build_index([1e-8], [0.0])
    found = nearest([360.0 - 1e-8], [0.0], 1.0, index)
    assert found.separation_arcsec[0] == pytest.approx(2e-8 * 3600, rel=1e-5)


def test_given_cells_give_the_same() -> None:
    from pipeline.healpix import ang2pix

    rng = np.random.default_rng(8)
    index, _ = build_index(*sky("uniform", 200_000, rng))
    assert index.order > 4
    ra, dec = sky("uniform", 5000, rng)
    ours, given_cells = nearest(ra, dec, 600.0, index), nearest(ra, dec, 600.0, index, ang2pix(29, ra, dec))
    np.testing.assert_array_equal(ours.row, given_cells.row)
    some = rng.integers(0, 5000, 40)
    separations = _all_separations(ra[some], dec[some], index.ra, index.dec)
    np.testing.assert_array_equal(ours.n_neighbours[some], (separations <= 600).sum(axis=1))
