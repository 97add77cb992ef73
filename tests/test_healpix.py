"""HEALPix arithmetic against healpy (every order), range sets against plain sets and mocpy."""

from __future__ import annotations

import healpy
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import healpix

BELT_DEG = float(np.degrees(np.arcsin(2 / 3)))


def _hard_positions() -> tuple[np.ndarray, np.ndarray]:
    ra = [0.0, -0.0, 360.0, -360.0, 720.0, -1e-300, -1e-17, -1e-14, 1e-300, np.nextafter(360, 0), 800.25, -123.4]
    ra += [k * 22.5 for k in range(-8, 20)] + [np.nextafter(90, 0), np.nextafter(90, 100)]
    dec = [0.0, 90.0, -90.0, np.nextafter(90, 0), np.nextafter(-90, 0), 1e-300, -1e-20, 89.9999999, -89.43, 89.427]
    dec += [BELT_DEG, -BELT_DEG, np.nextafter(BELT_DEG, 0), np.nextafter(BELT_DEG, 90), 89.42704, -89.42688, 81.8903]
    grid = np.meshgrid(ra, dec)
    rng = np.random.default_rng(29)
    n = 4000
    near_poles = np.where(rng.random(n) < 0.5, 1.0, -1.0) * (90.0 - 10.0 ** rng.uniform(-12, 1, n))
    uniform = np.degrees(np.arcsin(rng.uniform(-1, 1, n)))
    ra_all = np.concatenate([grid[0].ravel(), rng.uniform(-360, 720, 2 * n), rng.integers(0, 65, n) * 5.625])
    return ra_all, np.concatenate([grid[1].ravel(), uniform, near_poles, rng.uniform(-90, 90, n)])


@pytest.mark.parametrize("order", range(30))
def test_bit_identical_to_healpy(order: int) -> None:
    ra, dec = _hard_positions()
    nside = 1 << order
    np.testing.assert_array_equal(
        healpix.ang2pix(order, ra, dec), healpy.ang2pix(nside, ra, dec, nest=True, lonlat=True)
    )
    n_cells = 12 << (2 * order)
    faces = np.arange(12) << (2 * order)
    cells = np.concatenate(
        [np.random.default_rng(order).integers(0, n_cells, 4000), faces, faces + (n_cells // 12 - 1)]
    )
    centres = healpix.pix2ang(order, cells)
    np.testing.assert_array_equal(centres, healpy.pix2ang(nside, cells, nest=True, lonlat=True))
    np.testing.assert_array_equal(healpix.ang2pix(order, *centres), cells)
    np.testing.assert_array_equal(healpix.ring_of(order, cells), healpy.nest2ring(nside, cells))
    np.testing.assert_array_equal(healpix.nested_of(order, cells), healpy.ring2nest(nside, cells))
    expected = healpy.get_all_neighbours(nside, cells, nest=True).T
    np.testing.assert_array_equal(healpix.neighbours(order, cells), expected)


def test_no_position_has_no_cell() -> None:
    bad = [np.nan, np.inf, -np.inf, 90.0000001, -91.0]
    assert (healpix.ang2pix(29, np.zeros(5), bad) == -1).all()
    assert (healpix.ang2pix(29, [np.nan, np.inf], [0, 0]) == -1).all()
    assert np.isnan(healpix.pix2ang(5, [-1])).all()
    assert (healpix.neighbours(5, [-1]) == -1).all()
    assert healpix.cell_at([-1, 12345], 3).tolist() == [-1, 0]
    assert healpix.ang2pix(3, [], []).shape == (0,)
    assert healpix.neighbours(3, []).shape == (0, 8)


def test_misuse_is_refused() -> None:
    with pytest.raises(ValueError, match="order 30"):
        healpix.ang2pix(30, [0], [0])
    with pytest.raises(ValueError, match="2 right ascensions"):
        healpix.ang2pix(3, [0, 1], [0])
    with pytest.raises(ValueError, match="UNIQ"):
        healpix.from_uniq([3])


@given(st.floats(-720, 720), st.floats(-90, 90), st.integers(0, 28))
@settings(max_examples=200, deadline=None)
def test_cells_nest(ra: float, dec: float, order: int) -> None:
    finest = healpix.ang2pix(29, [ra], [dec])
    parent = healpix.cell_at(finest, order)
    # The two roundings of a position on a border may differ by one finest cell: its block must hold the parent.
    around = np.concatenate([finest, healpix.neighbours(29, finest)[0]])
    assert healpix.ang2pix(order, [ra], [dec])[0] in healpix.cell_at(around, order)
    assert healpix.from_uniq(healpix.to_uniq(order, parent))[0][0] == order
    assert healpix.from_uniq(healpix.to_uniq(order, parent))[1][0] == parent[0]


@pytest.mark.parametrize("order", [0, 1, 2, 3, 5, 9, 17, 25])
def test_block_holds_every_disc(order: int) -> None:
    """The promise behind the cross-match: no point within the radius lies outside the 3x3 block."""
    radius = np.radians(healpix.BLOCK_WIDTH_DEG / (1 << order))
    rng = np.random.default_rng(order)
    n = 40_000
    z = rng.uniform(-1, 1, n)
    z[: n // 4] = np.sign(z[: n // 4]) * rng.uniform(0.6, 0.75, n // 4)  # where belt and caps meet
    ra, dec = rng.uniform(0, 2 * np.pi, n), np.arcsin(z)
    ra[n // 2 :] = np.round(ra[n // 2 :] / (np.pi / 2)) * np.pi / 2 + rng.normal(0, 2 * radius, n - n // 2)
    bearing = rng.uniform(0, 2 * np.pi, n)
    dec_there = np.arcsin(np.sin(dec) * np.cos(radius) + np.cos(dec) * np.sin(radius) * np.cos(bearing))
    ra_there = ra + np.arctan2(
        np.sin(bearing) * np.sin(radius) * np.cos(dec), np.cos(radius) - np.sin(dec) * np.sin(dec_there)
    )
    here = healpix.ang2pix(order, np.degrees(ra), np.degrees(dec))
    there = healpix.ang2pix(order, np.degrees(ra_there), np.degrees(dec_there))
    block = np.concatenate([here[:, None], healpix.neighbours(order, here)], axis=1)
    assert (block == there[:, None]).any(axis=1).all()


def test_order_for_radius_is_the_deepest() -> None:
    for radius in [0.0, 1e-9, 2 / 3600, 1.5 / 60, 1.0, 34.9, 35.0]:
        order = healpix.order_for_radius(radius)
        assert healpix.BLOCK_WIDTH_DEG / (1 << order) >= radius
        assert order == 29 or healpix.BLOCK_WIDTH_DEG / (1 << (order + 1)) < radius
    assert healpix.order_for_radius(35.1) == -1
    assert healpix.order_for_radius(float("nan")) == -1
    np.testing.assert_array_equal(healpix.cone_ranges(1, 2, 180), healpix.ALL_SKY)


intervals = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda p: (p[0], p[0] + p[1])), max_size=12)


@given(intervals)
def test_merged_ranges_are_the_same_set(pairs: list[tuple[int, int]]) -> None:
    merged = healpix.merge_ranges(np.array(pairs, dtype=np.int64).reshape(-1, 2))
    expected = sorted({cell for start, stop in pairs for cell in range(start, stop)})
    assert [cell for start, stop in merged for cell in range(start, stop)] == expected
    assert (merged[1:, 0] > merged[:-1, 1]).all()  # disjoint, and not touching
    probes = np.arange(-1, 70)
    np.testing.assert_array_equal(healpix.in_ranges(merged, probes), np.isin(probes, expected))
    np.testing.assert_array_equal(healpix.cells_of_ranges(merged, 28), sorted({cell >> 2 for cell in expected}))


def test_ranges_equal_mocpy() -> None:
    from mocpy import MOC

    rng = np.random.default_rng(4)
    orders = rng.integers(2, 12, 300)
    cells = (rng.random(300) * (12 << (2 * orders))).astype(np.int64)
    ours = healpix.ranges_of(orders, cells)
    moc = MOC.from_healpix_cells(cells.astype(np.uint64), orders.astype(np.uint8), 29)
    np.testing.assert_array_equal(ours, moc.to_depth29_ranges.astype(np.int64))
    assert healpix.ranges_area_deg2(ours) == pytest.approx(moc.sky_fraction * 41252.96125, rel=1e-9)
    assert len(healpix.ranges_of(3, [-1])) == 0
    assert healpix.ranges_area_deg2(healpix.ALL_SKY) == pytest.approx(41252.96125, rel=1e-9)


@given(st.floats(0, 360), st.floats(-90, 90), st.floats(1e-6, 40))
@settings(max_examples=50, deadline=None)
def test_cone_holds_its_disc(ra: float, dec: float, radius: float) -> None:
    ranges = healpix.cone_ranges(ra, dec, radius)
    nside = 1 << min(max(healpix.order_for_radius(radius), 0) + 2, 29)
    inside = healpy.query_disc(nside, healpy.ang2vec(ra, dec, lonlat=True), np.radians(radius), nest=True)
    centres = healpy.pix2ang(nside, inside, nest=True, lonlat=True)
    assert healpix.in_ranges(ranges, healpix.ang2pix(29, *centres)).all()
