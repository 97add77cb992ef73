"""The cross-match gives exactly the pairs of brute force: every sky, every radius, every cut of the alerts."""

from __future__ import annotations

import tarfile
from pathlib import Path

import fastavro
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xmatch_oracle import SKIES, assert_same_nearest, assert_same_pairs, brute_force, sky

from pipeline.healpix import ang2pix, pix2ang
from pipeline.xmatch import (
    MatchIndex,
    Positions,
    build_index,
    index_sorted,
    nearest,
    nearest_at,
    within,
    within_at,
)


def check(ra: np.ndarray, dec: np.ndarray, radius: object, index: MatchIndex) -> int:
    theirs = brute_force(ra, dec, radius, index)
    assert_same_pairs(within(ra, dec, radius, index), theirs)
    assert_same_nearest(nearest(ra, dec, radius, index), theirs.nearest(len(ra)))
    return len(theirs)


def beside(index: MatchIndex, n: int, scatter_deg: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Positions around sources, scattered alike in every direction of the sky."""
    row = rng.integers(0, len(index), n)
    dec = np.clip(index.dec[row] + rng.normal(0, scatter_deg, n), -90, 90)
    return index.ra[row] + rng.normal(0, scatter_deg, n) / np.maximum(np.cos(np.radians(dec)), 1e-3), dec


@pytest.mark.parametrize("kind", SKIES)
def test_no_pair_differs(kind: str) -> None:
    rng = np.random.default_rng(SKIES.index(kind))
    index, _ = build_index(*sky(kind, 4000, rng))
    pairs = 0
    for radius in (0.5, 2.0, 30.0, 400.0):
        ra, dec = beside(index, 300, radius / 3600, rng)
        pairs += check(ra, dec, radius, index)
    ra, dec = beside(index, 300, 1e-3, rng)
    pairs += check(ra, dec, 10.0 ** rng.uniform(-3, 3.5, 300), index)
    assert pairs > 500


@pytest.mark.parametrize("order", [0, 1, 3, 6, 8])
def test_offsets_of_any_order_give_the_same(order: int) -> None:
    """Crowded cells, empty cells, cells much smaller than the disc: all ways to look for rows."""
    rng = np.random.default_rng(order)
    made, _ = build_index(
        *(np.concatenate(pair) for pair in zip(sky("clustered", 3000, rng), sky("uniform", 3000, rng), strict=True))
    )
    edges = np.arange((12 << (2 * order)) + 1, dtype=np.int64) << (2 * (29 - order))
    index = MatchIndex(made.healpix_29, made.ra, made.dec, np.searchsorted(made.healpix_29, edges), order)
    for radius in (1.0, 60.0, 1800.0, 40_000.0):
        ra, dec = beside(index, 60, radius / 3600, rng)
        assert check(ra, dec, radius, index) > 0


def test_separation_equal_to_the_radius_is_within() -> None:
    """Per-row radii at the separation, one part in a billion above and below, and one step of float64 beside."""
    rng = np.random.default_rng(3)
    for kind in SKIES:
        index, _ = build_index(*sky(kind, 800, rng))
        ra, dec = beside(index, 150, 2 / 3600, rng)
        found = nearest(ra, dec, 60.0, index)
        ra, dec, apart = (item[found.row >= 0] for item in (ra, dec, found.separation_arcsec))
        assert (nearest(ra, dec, apart, index).separation_arcsec == apart).all()
        assert (nearest(ra, dec, apart * (1 + 1e-9), index).row >= 0).all()
        apart = apart[apart > 0]
        ra, dec = ra[-len(apart) :], dec[-len(apart) :]
        for factor in (1 - 1e-9, 1.0, 1 + 1e-9):
            check(ra, dec, apart * factor, index)
        check(ra, dec, np.nextafter(apart, 0), index)


def test_true_separation_decides_to_one_part_in_a_billion() -> None:
    """The oracle computes in extended precision from the coordinates as they are."""
    rng = np.random.default_rng(4)
    ra, dec = sky("uniform", 2000, rng)
    other_ra, other_dec = ra + rng.normal(0, 3e-4, 2000), np.clip(dec + rng.normal(0, 3e-4, 2000), -90, 90)
    index, rows = build_index(ra, dec)
    wide = np.longdouble
    to_radians = np.arctan(wide(1)) * 4 / 180
    up = np.sin((dec.astype(wide) - other_dec) * to_radians / 2)
    along = np.sin((ra.astype(wide) - other_ra) * to_radians / 2)
    cosines = np.cos(dec.astype(wide) * to_radians) * np.cos(other_dec.astype(wide) * to_radians)
    true = (2 * np.arcsin(np.sqrt(up**2 + cosines * along**2)) / to_radians * 3600).astype(float)
    row_of = np.argsort(rows)
    for factor, is_found in ((1 - 1e-9, False), (1 + 1e-9, True)):
        pairs = within(other_ra, other_dec, true * factor, index)
        hit = np.zeros(2000, dtype=bool)
        hit[pairs.alert[pairs.row == row_of[pairs.alert]]] = True
        assert (hit == is_found).all()


def test_duplicates_are_all_found() -> None:
    index, rows = build_index(np.repeat([10.0, 200.0], 50), np.repeat([5.0, -80.0], 50))
    ra, dec = np.tile([10.0, 200.0, 370.0], 20), np.tile([5.0, -80.0, 5.0], 20)
    assert check(ra, dec, 0.0, index) == 60 * 50
    assert rows[nearest(ra, dec, 0.0, index).row].tolist() == [0, 50, 0] * 20  # of twins the first given


place = st.tuples(
    st.one_of(st.floats(0, 360), st.sampled_from([0.0, 360.0, 90.0, 45.0, 359.9999999, 1e-300])),
    st.one_of(st.floats(-90, 90), st.sampled_from([-90.0, 90.0, 0.0, 41.810314895778596, 89.99999])),
)


@given(st.lists(place, min_size=1, max_size=30), st.data(), st.floats(0, 20))
@settings(max_examples=150)
def test_any_sky(sources: list, data: st.DataObject, exponent: float) -> None:
    """Alerts beside sources at any scale, radii around the distance they were moved by."""
    source = np.array(sources)
    index, _ = build_index(source[:, 0], source[:, 1])
    alerts = data.draw(st.lists(st.tuples(st.integers(0, len(source) - 1), st.floats(0, 360)), max_size=8))
    reach_deg = 2.0 ** (exponent - 15)
    row = np.array([item[0] for item in alerts], dtype=int)
    angle = np.radians([item[1] for item in alerts])
    ra = source[row, 0] + reach_deg * np.cos(angle)
    dec = np.clip(source[row, 1] + reach_deg * np.sin(angle), -90, 90)
    for factor in (0.999, 1.0, 1.001, 3.0):
        check(ra, dec, min(reach_deg * 3600 * factor, 500_000.0), index)


def test_every_cell_edge_is_crossed_where_needed() -> None:
    """Sources just beyond edges and corners of cells of every order, alerts just before them."""
    rng = np.random.default_rng(9)
    for order in range(0, 29, 3):
        cells = rng.integers(0, 12 << (2 * order), 60)
        corner = cells << (2 * (29 - order))  # the southern corner of each: its last cell meets three others
        ra, dec = pix2ang(29, np.concatenate([corner, corner + (np.int64(1) << (2 * (29 - order))) - 1]))
        scatter = 35.0 / (1 << order) / 20
        index, _ = build_index(ra + rng.normal(0, scatter, 120), np.clip(dec + rng.normal(0, scatter, 120), -90, 90))
        check(ra + 1e-9, dec, 3600 * scatter, index)


def test_cuts_and_order_of_the_alerts_do_not_matter() -> None:
    rng = np.random.default_rng(6)
    index, _ = build_index(*sky("clustered", 3000, rng))
    ra, dec = beside(index, 700, 1e-3, rng)
    ra[::50] = np.nan
    radius = rng.uniform(0, 30, 700)
    radius[::70] = np.nan
    whole = within(ra, dec, radius, index)
    turned = rng.permutation(700)
    back = within(ra[turned], dec[turned], radius[turned], index)
    by = np.lexsort((back.row, back.separation_arcsec, turned[back.alert]))
    np.testing.assert_array_equal(turned[back.alert][by], whole.alert)
    np.testing.assert_array_equal(back.row[by], whole.row)
    parts = [
        (start, within(*(item[start : start + 90] for item in (ra, dec, radius)), index)) for start in range(0, 700, 90)
    ]
    np.testing.assert_array_equal(np.concatenate([part.alert + start for start, part in parts]), whole.alert)
    np.testing.assert_array_equal(np.concatenate([part.row for _, part in parts]), whole.row)
    np.testing.assert_array_equal(
        np.concatenate([part.separation_arcsec for _, part in parts]), whole.separation_arcsec
    )


def test_more_pairs_than_room() -> None:
    """Buffers grow: one alert with all sources, many alerts with many."""
    rng = np.random.default_rng(7)
    index, _ = build_index(*sky("clustered", 5000, rng))
    ra, dec = sky("uniform", 3, rng)
    assert check(ra, dec, 648_000.0, index) == 15_000
    ra, dec = beside(index, 200, 1e-3, rng)
    assert check(ra, dec, 200.0, index) > 20_000


def test_positions_serve_many_catalogs() -> None:
    rng = np.random.default_rng(8)
    ra, dec = sky("uniform", 3000, rng)
    ra[7] = np.nan
    positions = Positions(ra, dec, ang2pix(29, ra, dec))
    assert sorted(positions.turn) == list(range(3000))
    high = positions.sorted_cells >> 40
    assert (np.diff(high[high >= 0]) >= 0).all()
    for size in (10, 5000):
        index, _ = build_index(*sky("uniform", size, rng))
        assert_same_nearest(nearest_at(positions, 4000.0, index), nearest(ra, dec, 4000.0, index))
        assert_same_pairs(within_at(positions, 4000.0, index), within(ra, dec, 4000.0, index))
    in_order = np.argsort(positions.healpix_29, kind="stable")
    already = Positions(ra[in_order], dec[in_order])
    assert already.turn.tolist() == list(range(3000))


def test_wrong_sizes_are_refused() -> None:
    index, _ = build_index([1.0], [2.0])
    with pytest.raises(ValueError, match="2 radii for 3 positions"):
        nearest([1.0, 2.0, 3.0], [0.0] * 3, [1.0, 2.0], index)
    with pytest.raises(ValueError, match="1 right ascensions"):
        Positions([1.0], [2.0], [3, 4])


@pytest.fixture(scope="module")
def real_alerts(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the ZTF sample of 2018-11-29 and of Rubin alerts of 2026-03-09."""
    with tarfile.open(shared_data / "alerts" / "ztf" / "ztf_public_20181129.tar.gz") as archive:
        files = [archive.extractfile(member) for member in archive if member.isfile()]
        alerts = [next(iter(fastavro.reader(file)))["candidate"] for file in files if file is not None]
    parts = sorted((shared_data / "alerts" / "lsst" / "fink_transfer_2026-03-10").glob("*.parquet"))
    alerts += [row["diaSource"] for part in parts for row in pq.read_table(part, columns=["diaSource"]).to_pylist()]
    assert len(alerts) == 498 + 74
    return np.array([alert["ra"] for alert in alerts]), np.array([alert["dec"] for alert in alerts])


@pytest.mark.parametrize(
    ("file", "columns", "scale"),
    [
        ("vsx_compact.parquet", ("ra_microdeg", "dec_microdeg"), 1e-6),
        ("gcvs.parquet", ("ra", "dec"), 1.0),
        ("mangrove.parquet", ("ra", "dec"), 1.0),
    ],
)
def test_real_alerts_against_real_catalogs(
    file: str,
    columns: tuple[str, str],
    scale: float,
    shared_data: Path,
    real_alerts: tuple[np.ndarray, np.ndarray],
) -> None:
    table = pq.read_table(shared_data / "catalogs" / file, columns=list(columns))
    index, _ = build_index(*(table.column(name).to_numpy() * scale for name in columns))
    radius = 10 ** np.random.default_rng(1).uniform(-0.3, 3, len(real_alerts[0]))
    assert check(*real_alerts, radius, index) > 5


def test_sorted_rows_make_the_index_that_sorting_makes() -> None:
    index, _ = build_index(*sky("uniform", 3000, np.random.default_rng(2)))
    again = index_sorted(index.healpix_29, index.ra, index.dec)
    assert again.order == index.order
    np.testing.assert_array_equal(again.offsets, index.offsets)
