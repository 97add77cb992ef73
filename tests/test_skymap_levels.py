"""Credible levels of every real map against ligo.skymap; bulk answers, masses and areas against brute force."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.table import Table
from hypothesis import given
from hypothesis import strategies as st
from real_skymaps import real_maps

from pipeline import healpix, skymap
from pipeline.healpix.fits import read_table
from pipeline.skymap import SkyMap, sweep


def tie_masses(ours: SkyMap) -> np.ndarray:
    """Probability of all places exactly as dense as each row of the map."""
    _, group = np.unique(ours.density_per_deg2, return_inverse=True)
    return np.bincount(group, ours.density_per_deg2 * ours.area_deg2)[group]


def check_levels(ours: SkyMap, cells: np.ndarray, theirs: np.ndarray) -> None:
    """Levels are theirs, or theirs lie within our tie group; who is within 90 % differs only in the group it cuts."""
    mine = skymap.levels(ours, cells)[0]
    tied = tie_masses(ours)[skymap.rows_at(ours, cells)]
    assert (theirs <= mine + 1e-4).all()
    assert (theirs >= mine - tied - 1e-4).all()
    cut = ours.credible_level[ours.credible_level >= 0.9].min()
    clear = np.abs(mine - cut) > 1e-12
    np.testing.assert_array_equal((mine <= 0.9)[clear], (theirs <= 0.9)[clear])
    inside = healpix.in_ranges(skymap.region(ours, 0.9), cells)
    np.testing.assert_array_equal(inside[clear], (theirs <= 0.9)[clear])


def test_real_multi_order_maps_equal_ligo_skymap(shared_data: Path) -> None:
    from ligo.skymap.postprocess import crossmatch

    rng = np.random.default_rng(0)
    seen = set()
    for place, content in real_maps(shared_data, largest_bytes=1_000_000).items():
        read = read_table(content)
        ours = skymap.parse_skymap(content, "one", place)
        if "UNIQ" not in read.fields or ours.digest in seen:
            continue
        seen.add(ours.digest)
        table = Table({"UNIQ": read.integers("UNIQ"), "PROBDENSITY": read.floats("PROBDENSITY")})
        ra, dec = healpix.pix2ang(29, ours.start + (ours.stop - ours.start) // 2 + 1)
        ra = np.append(ra, rng.uniform(0, 360, 20_000))
        dec = np.append(dec, np.degrees(np.arcsin(rng.uniform(-1, 1, 20_000))))
        theirs = crossmatch(table, SkyCoord(ra * u.deg, dec * u.deg), contours=[0.5, 0.9])
        cells = healpix.ang2pix(29, ra, dec)
        check_levels(ours, cells, theirs.searched_prob)
        for level, area in zip((0.5, 0.9), theirs.contour_areas, strict=True):
            assert skymap.region_area_deg2(ours, level) == pytest.approx(area, rel=0.02), place
        alone = np.isclose(tie_masses(ours)[skymap.rows_at(ours, cells)], _own_masses(ours, cells), rtol=1e-9)
        alone &= skymap.levels(ours, cells)[1] > 0
        area = skymap.searched_areas(ours, cells)
        np.testing.assert_allclose(area[alone], theirs.searched_area[alone], rtol=1e-9)
        assert (area >= theirs.searched_area * (1 - 1e-9)).all()
    assert len(seen) >= 8


def _own_masses(ours: SkyMap, cells: np.ndarray) -> np.ndarray:
    return (ours.density_per_deg2 * ours.area_deg2)[skymap.rows_at(ours, cells)]


@pytest.mark.parametrize(
    "name",
    [
        "GWsky_LALInference_skymap",
        "LIGO_O3_S190425z_bayestar",
        pytest.param("gcn_gw170817_skymap", marks=pytest.mark.interop),  # twelve million pixels take ligo.skymap long
    ],
)
def test_real_flat_maps_equal_ligo_skymap(shared_data: Path, name: str) -> None:
    from ligo.skymap.postprocess import find_greedy_credible_levels

    content = (shared_data / "skymaps" / f"{name}.fits.gz").read_bytes()
    probability = read_table(content).floats("PROB")
    theirs = find_greedy_credible_levels(probability)
    ours = skymap.parse_skymap(content, "one")
    n = len(probability)
    shift = 58 - 2 * int(np.log2(n // 12) // 2)
    some = np.unique(np.concatenate([ours.start >> shift, np.random.default_rng(0).integers(0, n, 200_000)]))
    check_levels(ours, some << shift, theirs[some])
    area = (theirs <= 0.9).sum() * 41252.96125 / n
    assert skymap.region_area_deg2(ours, 0.9) == pytest.approx(area, rel=0.02)


# ------------------------------------------------------------------------------------------------ in bulk
@st.composite
def maps(draw: st.DrawFn) -> SkyMap:
    """Return a map of some cells of orders 0 to 2, with ties, zeros and holes."""
    weights = np.array(draw(st.lists(st.integers(-1, 3), min_size=12, max_size=12)))
    order = draw(st.integers(0, 2))
    cells = np.arange(12 << (2 * order))
    weight = np.resize(weights, len(cells)) + cells % 2
    weight[0] = 2
    kept = weight >= 0
    start = (cells << (58 - 2 * order))[kept]
    density = weight[kept] / (weight[kept].sum() * healpix.cell_area_deg2(order))
    return skymap.make_skymap("one", None, start, start + (1 << (58 - 2 * order)), density)


positions = st.lists(st.one_of(st.just(-1), st.integers(0, (12 << 58) - 1)), max_size=60)


@given(st.lists(maps(), max_size=4), positions, st.floats(0, 1))
def test_pairs_are_those_in_the_regions(skymaps: list[SkyMap], cells: list[int], level: float) -> None:
    ordered = np.sort(np.array(cells, dtype=np.int64))
    found = sweep.pairs(skymaps, ordered, level)
    expected = [
        (number, row, *(values[0] for values in skymap.levels(one, [cell])))
        for number, one in enumerate(skymaps)
        for row, cell in enumerate(ordered.tolist())
        if healpix.in_ranges(skymap.region(one, level), [cell])[0]
    ]
    assert list(zip(*(column.tolist() for column in found), strict=True)) == expected
    for number, one in enumerate(skymaps):
        mine = found.map_number == number
        for column, same in zip(found[1:], sweep.inside(one, ordered, level), strict=True):
            np.testing.assert_array_equal(column[mine], same)
        np.testing.assert_array_equal(sweep.levels_sorted(one, ordered), skymap.levels(one, ordered))


@given(maps(), positions, st.floats(0, 1))
def test_slices_hold_what_the_ranges_hold(one: SkyMap, cells: list[int], level: float) -> None:
    ordered = np.sort(np.array(cells, dtype=np.int64))
    ranges = skymap.region(one, level)
    found = sweep.slices(ranges, ordered)
    assert found.shape == ranges.shape
    rows = [row for begin, end in found for row in range(begin, end)]
    assert rows == np.flatnonzero(healpix.in_ranges(ranges, ordered)).tolist()


@given(maps(), maps(), st.floats(0, 1), st.integers(0, 3))
def test_mass_and_areas_equal_sums_over_fine_cells(one: SkyMap, other: SkyMap, level: float, shift: int) -> None:
    fine = np.arange(12 << 6)
    cells, area = fine << 52, healpix.cell_area_deg2(3)
    row = skymap.rows_at(one, cells)
    density = np.where(row >= 0, one.density_per_deg2[row], 0.0)
    ranges = skymap.region(other, level)
    ranges = np.maximum(ranges - (shift << 52), 0)  # so that their ends are not the map's own
    held = healpix.in_ranges(ranges, cells)
    assert skymap.mass_in(one, ranges) == pytest.approx((density[held] * area).sum(), abs=1e-12)
    assert skymap.mass_in(one, healpix.ALL_SKY) == pytest.approx(1.0)
    assert skymap.mass_in(one, np.empty((0, 2), np.int64)) == 0.0
    at_least = np.where(
        density > 0, [(area * (density >= own)).sum() for own in density * (1 - 1e-12)], skymap.SKY_DEG2
    )
    np.testing.assert_allclose(skymap.searched_areas(one, cells), at_least, rtol=1e-12)
    assert np.isnan(skymap.searched_areas(one, [-1])).all()


def test_region_and_its_mass(shared_data: Path) -> None:
    """A region holds its level, and so much of the map is in it; over it and what is left, all."""
    content = (shared_data / "skymaps" / "lasair_map.fits").read_bytes()
    ours = skymap.parse_skymap(content)
    ranges = skymap.region(ours, 0.9)
    cut = ours.credible_level[ours.credible_level >= 0.9].min()
    assert skymap.mass_in(ours, ranges) == pytest.approx(cut, abs=1e-12)
    with fits.open(io.BytesIO(content)) as opened:
        assert ours.distance_mean_mpc == opened[1].header["DISTMEAN"]
    edges = np.concatenate([[0], ranges.ravel(), [12 << 58]]).reshape(-1, 2)
    assert skymap.mass_in(ours, edges) == pytest.approx(1 - cut, abs=1e-9)
