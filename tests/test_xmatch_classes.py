"""Sources with a reach of their own: the pairs of brute force, whatever the reaches."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from xmatch_oracle import SKIES, assert_same_pairs, brute_force, sky

from pipeline.xmatch import Positions, SourceClasses, build_classes, build_index, within_reach


@pytest.mark.parametrize("kind", SKIES)
def test_equals_brute_force(kind: str) -> None:
    rng = np.random.default_rng(SKIES.index(kind))
    index, _ = build_index(*sky(kind, 2000, rng))
    # 30 kpc of galaxies spread evenly in space to 500 Mpc, one of them next door; some without a distance
    reach = np.degrees(0.03 / np.maximum(500 * rng.random(2000) ** (1 / 3), 1.0)) * 3600
    reach[:4] = [18_000.0, 0.0, np.nan, -3.0]
    ra, dec = sky(kind, 200, rng)
    ra[:100], dec[:100] = index.ra[:100], np.clip(index.dec[:100] + rng.normal(0, 0.003, 100), -90, 90)
    ra[150] = np.nan
    theirs = brute_force(ra, dec, np.full(200, 18_000.0), index, np.where(reach > 0, reach, -1.0))
    classes = build_classes(index, reach)
    assert_same_pairs(within_reach(Positions(ra, dec), classes), theirs)
    assert len(theirs) > 30
    assert len(classes) == 1997


@given(st.lists(st.floats(1e-6, 648_000.0), min_size=1, max_size=40), st.integers(0, 1000))
def test_classes_hold_every_source_once(reaches: list[float], seed: int) -> None:
    rng = np.random.default_rng(seed)
    index, _ = build_index(*sky("uniform", len(reaches), rng))
    classes = build_classes(index, reaches)
    assert sorted(classes.rows) == list(range(len(reaches)))
    for number in range(classes.count):
        reach = classes.reach(number)
        assert reach.max() == classes.largest_arcsec[number]
        assert (reach > classes.largest_arcsec[number] / 2.0000001).all() or reach.max() <= 1.0
        part = classes.index(number)
        assert (np.diff(part.healpix_29) >= 0).all()
        np.testing.assert_array_equal(part.ra, index.ra[classes.rows_of(number)])
    ra, dec = sky("uniform", 20, rng)
    theirs = brute_force(ra, dec, np.full(20, 648_000.0), index, reaches)
    assert_same_pairs(within_reach(Positions(ra, dec), classes), theirs)


def test_reach_equal_to_the_separation_is_covered() -> None:
    index, _ = build_index([10.0, 20.0], [0.0, 0.0])
    alert = Positions([10.001], [0.0])
    apart = within_reach(alert, build_classes(index, [5.0, 5.0])).separation_arcsec[0]
    for factor, found in ((1.0, 1), (1 - 1e-12, 0), (1 + 1e-12, 1)):
        assert len(within_reach(alert, build_classes(index, np.full(2, apart * factor)))) == found


def test_arrays_travel_without_a_copy() -> None:
    rng = np.random.default_rng(1)
    index, _ = build_index(*sky("uniform", 500, rng))
    classes = build_classes(index, rng.uniform(0, 9000, 500))
    arrays = classes.arrays()
    for array in arrays.values():
        array.setflags(write=False)  # as memory-mapped ones are
    again = SourceClasses.from_arrays(arrays)
    assert np.shares_memory(again.index(0).ra, classes.ra)
    positions = Positions(*sky("uniform", 300, rng))
    assert_same_pairs(within_reach(positions, again), within_reach(positions, classes))
    with pytest.raises(ValueError, match="lack rows"):
        SourceClasses.from_arrays({name: array for name, array in arrays.items() if name != "rows"})
    for name in ("ra", "starts", "offsets", "largest_arcsec"):
        with pytest.raises(ValueError, match="do not fit"):
            SourceClasses.from_arrays({**arrays, name: arrays[name][:-1]})
    with pytest.raises(ValueError, match="do not fit"):
        SourceClasses.from_arrays({**arrays, "ra": arrays["ra"].astype(np.float32)})


def test_no_classes_no_pairs() -> None:
    index, _ = build_index([1.0, 2.0], [3.0, 4.0])
    classes = build_classes(index, [np.nan, 0.0])
    assert classes.count == len(classes) == 0
    assert len(within_reach(Positions([1.0], [3.0]), classes)) == 0
    assert SourceClasses.from_arrays(classes.arrays()).count == 0
    with pytest.raises(ValueError, match="1 reaches for 2 sources"):
        build_classes(index, [1.0])
