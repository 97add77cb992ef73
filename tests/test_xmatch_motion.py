"""Sources that move: propagation against astropy, matches against brute force over propagated positions."""

from __future__ import annotations

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.time import Time
from xmatch_oracle import SKIES, assert_same_pairs, brute_force, sky

from pipeline.xmatch import (
    MatchIndex,
    Pairs,
    Positions,
    build_index,
    build_motion_classes,
    julian_epoch,
    motion_reach_arcsec,
    nearest_at,
    nearest_moving,
    propagate,
    within_moving,
)

BARNARD = (269.452076958619, 4.693364966, -801.551, 10362.394)  # ra, dec (2016), pmra, pmdec: Gaia DR3


def _separation_mas(ra: np.ndarray, dec: np.ndarray, other: SkyCoord) -> np.ndarray:
    return SkyCoord(ra, dec, unit="deg").separation(other).mas


@pytest.mark.parametrize("years", [-50.0, 10.0, 50.0])
def test_propagation_equals_astropy(years: float) -> None:
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 400), np.degrees(np.arcsin(rng.uniform(-1, 1, 400)))
    dec[:60] = 90 - 10 ** rng.uniform(-5, 0, 60)  # within 36 mas of the pole
    dec[60:120] = -dec[:60]
    speed, angle = 10 ** rng.uniform(0, 4.02, 400), rng.uniform(0, 2 * np.pi, 400)
    pmra, pmdec = speed * np.sin(angle), speed * np.cos(angle)
    ra[-1], dec[-1], pmra[-1], pmdec[-1] = BARNARD
    # At a distance, so that astropy's light-travel and relativistic terms do not swell with an imagined speed.
    stars = SkyCoord(
        ra * u.deg,
        dec * u.deg,
        pm_ra_cosdec=pmra * u.mas / u.yr,
        pm_dec=pmdec * u.mas / u.yr,
        distance=np.full(400, 2.0) * u.pc,
        radial_velocity=np.zeros(400) * u.km / u.s,
        obstime=Time(2016.0, format="jyear", scale="tcb"),
    )
    theirs = stars.apply_space_motion(new_obstime=Time(2016.0 + years, format="jyear", scale="tcb"))
    moved_ra, moved_dec = propagate(ra, dec, pmra, pmdec, years)
    apart = _separation_mas(moved_ra, moved_dec, SkyCoord(theirs.ra, theirs.dec))
    assert apart.max() < 1.0
    assert _separation_mas(ra, dec, SkyCoord(theirs.ra, theirs.dec)).max() > 5e4
    assert ((moved_ra >= 0) & (moved_ra < 360)).all()


def test_what_does_not_move_stays_to_the_bit() -> None:
    ra, dec = np.array([0.1, 123.456789, 359.9]), np.array([-90.0, 89.9999, 0.3])
    for pmra, pmdec, years in ((0.0, 0.0, 30.0), (5.0, 7.0, 0.0), (np.nan, 5.0, 30.0), (5.0, np.nan, 30.0)):
        moved_ra, moved_dec = propagate(ra, dec, pmra, pmdec, years)
        np.testing.assert_array_equal(moved_ra, ra)
        np.testing.assert_array_equal(moved_dec, dec)


def _field(kind: str, rng: np.random.Generator) -> tuple[MatchIndex, np.ndarray, np.ndarray]:
    """Sources from still to faster than Barnard's star, some of unknown motion."""
    index, _ = build_index(*sky(kind, 1500, rng))
    speed, angle = 10 ** rng.uniform(-1, 4.2, 1500), rng.uniform(0, 2 * np.pi, 1500)
    speed[rng.random(1500) < 0.2] = 0.0
    pmra, pmdec = speed * np.sin(angle), speed * np.cos(angle)
    pmra[rng.random(1500) < 0.1] = np.nan
    pmdec[rng.random(1500) < 0.1] = np.nan
    return index, pmra, pmdec


def _brute(
    ra: np.ndarray, dec: np.ndarray, year: np.ndarray, radius: np.ndarray, index: MatchIndex, pm: tuple, epoch: float
) -> Pairs:
    """Move all sources to the time of each alert, one after the other."""
    found = []
    for i in range(len(ra)):
        if np.isnan(year[i]):
            continue
        moved = propagate(index.ra, index.dec, *pm, year[i] - epoch)
        here = MatchIndex(index.healpix_29, *moved, index.offsets, index.order)
        pairs = brute_force(ra[i : i + 1], dec[i : i + 1], radius[i : i + 1], here)
        found.append(Pairs(pairs.alert + i, pairs.row, pairs.separation_arcsec))
    return Pairs(*(np.concatenate([getattr(item, name) for item in found]) for name in Pairs.__dataclass_fields__))


@pytest.mark.parametrize("kind", SKIES)
def test_equals_brute_force(kind: str) -> None:
    rng = np.random.default_rng(SKIES.index(kind))
    index, pmra, pmdec = _field(kind, rng)
    classes = build_motion_classes(index, pmra, pmdec)
    year = rng.uniform(1950, 2070, 150)
    row = rng.integers(0, 1500, 150)
    ra, dec = (
        np.array([propagate(index.ra[j], index.dec[j], pmra[j], pmdec[j], year[k] - 2016.0) for k, j in enumerate(row)])
        .reshape(150, 2)
        .T
    )
    dec = np.clip(dec + rng.normal(0, 2e-4, 150), -90, 90)
    ra[5], year[7] = np.nan, np.nan
    radius = rng.uniform(0, 4, 150)
    radius[9:12] = [np.nan, -1.0, 0.0]
    theirs = _brute(ra, dec, year, radius, index, (pmra, pmdec), 2016.0)
    pairs = within_moving(Positions(ra, dec), year, radius, index, classes, pmra, pmdec, 2016.0)
    assert_same_pairs(pairs, theirs)
    assert 60 < len(np.unique(theirs.alert)) < 150
    found = nearest_moving(Positions(ra, dec), year, radius, index, classes, pmra, pmdec, 2016.0)
    first = theirs.nearest(150)
    np.testing.assert_array_equal(found.row, first.row)
    np.testing.assert_array_equal(found.separation_arcsec, first.separation_arcsec)
    np.testing.assert_array_equal(found.n_neighbours, first.n_neighbours)
    turned = rng.permutation(150)
    again = nearest_moving(
        Positions(ra[turned], dec[turned]), year[turned], radius[turned], index, classes, pmra, pmdec, 2016.0
    )
    np.testing.assert_array_equal(again.row, found.row[turned])


def test_barnards_star_is_found_where_it_is() -> None:
    ra, dec, pmra, pmdec = ([value] for value in BARNARD)
    index, _ = build_index(ra, dec)
    pm = np.array(pmra), np.array(pmdec)
    classes = build_motion_classes(index, *pm)
    star = SkyCoord(
        ra * u.deg,
        dec * u.deg,
        pm_ra_cosdec=pmra * u.mas / u.yr,
        pm_dec=pmdec * u.mas / u.yr,
        distance=[1.8282] * u.pc,
        radial_velocity=[-110.5] * u.km / u.s,
        obstime=Time(2016.0, format="jyear"),
    )
    then = Time(60400.0, format="mjd", scale="tai")
    seen = star.apply_space_motion(new_obstime=then)
    year = julian_epoch(60400.0)
    assert float(year) == pytest.approx(then.tt.jyear, abs=2e-6)
    found = nearest_moving(Positions(seen.ra.deg, seen.dec.deg), year, 1.0, index, classes, *pm, 2016.0)
    assert found.row.tolist() == [0]
    assert found.separation_arcsec[0] < 0.1  # its perspective acceleration is left out
    assert nearest_at(Positions(seen.ra.deg, seen.dec.deg), 60.0, index).row.tolist() == [-1]
    stale = nearest_moving(Positions(ra, dec), year, 60.0, index, classes, *pm, 2016.0)
    assert stale.row.tolist() == [-1]  # where it was eight years before there is nothing


def test_without_motion_it_is_the_plain_match() -> None:
    rng = np.random.default_rng(4)
    index, _ = build_index(*sky("clustered", 1000, rng))
    still = np.where(rng.random(1000) < 0.5, 0.0, np.nan)
    positions = Positions(index.ra[:300] + 1e-4, index.dec[:300])
    classes = build_motion_classes(index, still, still)
    assert len(classes) == 0
    moving = nearest_moving(positions, 2050.0, 3.0, index, classes, still, still, 2016.0)
    plain = nearest_at(positions, 3.0, index)
    np.testing.assert_array_equal(moving.row, plain.row)
    np.testing.assert_array_equal(moving.separation_arcsec, plain.separation_arcsec)
    np.testing.assert_array_equal(moving.n_neighbours, plain.n_neighbours)


def test_reach_bounds_the_motion() -> None:
    rng = np.random.default_rng(5)
    index, pmra, pmdec = _field("uniform", rng)
    reach = motion_reach_arcsec(pmra, pmdec, 2016.0, 1990.0, 2030.0)
    for year in (1990.0, 2003.0, 2030.0):
        moved = SkyCoord(*propagate(index.ra, index.dec, pmra, pmdec, year - 2016.0), unit="deg")
        apart = SkyCoord(index.ra, index.dec, unit="deg").separation(moved).arcsec
        assert (apart <= reach * (1 + 1e-9) + 1e-7).all()
    assert (reach[np.isnan(pmra) | np.isnan(pmdec)] == 0.0).all()
    assert motion_reach_arcsec([1000.0], [0.0], 2016.0, 2026.0, 2000.0).tolist() == [16.0]
