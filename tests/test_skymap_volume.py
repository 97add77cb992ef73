"""Credible volumes: against voxels, draws from real maps, and ligo.skymap; host errors against quadrature."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from real_skymaps import real_maps
from scipy import stats

from pipeline import healpix, skymap
from pipeline.errors import CatalogError
from pipeline.skymap import SkyMap

SR = 4 * np.pi


def norm_of(mu: np.ndarray, sigma: np.ndarray) -> np.ndarray:
    """DISTNORM: 1 over the integral of r^2 N(r; mu, sigma) from 0 on, by plain summation."""
    r = np.linspace(0, 1, 40_001)[:, None] * (np.maximum(mu, 0) + 12 * sigma)
    return 1 / np.trapezoid(r**2 * stats.norm.pdf(r, mu, sigma), r, axis=0)


@pytest.fixture(scope="module")
def few() -> SkyMap:
    """Twelve pixels with distances narrow and wide, near and far, some below 0 in DISTMU, some without."""
    rng = np.random.default_rng(4)
    weight = rng.gamma(1.0, size=12)
    mu = np.array([40, 60, 100, 150, 80, -20, -60, 10, 200, 120, np.inf, 90.0])
    sigma = np.array([2, 15, 30, 20, 40, 30, 25, 20, 60, 8, 1, 25.0])
    norm = norm_of(np.where(np.isfinite(mu), mu, 1), sigma)
    norm[10] = 0
    weight[10] = 0.01
    start = np.arange(12) << 58
    distances = {"distance_mu_mpc": mu, "distance_sigma_mpc": sigma, "distance_norm": norm}
    return skymap.make_skymap(
        "few", None, start, start + (1 << 58), weight / weight.sum() / healpix.cell_area_deg2(0), distances
    )


def test_levels_equal_sums_over_voxels(few: SkyMap) -> None:
    mu, sigma, norm = few.distance_mu_mpc, few.distance_sigma_mpc, few.distance_norm
    has = np.isfinite(mu)
    step = 0.003
    r = np.arange(step / 2, 700, step)
    per_volume = (few.density_per_deg2 * norm)[has, None] * stats.norm.pdf(r, mu[has, None], sigma[has, None])
    mass = per_volume * r**2 * few.area_deg2[has, None] * step
    by = np.argsort(-per_volume.ravel())
    level = np.empty(by.size)
    level[by] = (np.cumsum(mass.ravel()[by]) - 0.5 * mass.ravel()[by]) / mass.sum()  # at the voxel's middle
    level = level.reshape(per_volume.shape)[:, ::331]
    cells = np.repeat(few.start[has], level.shape[1])
    ours = skymap.volume_levels(few, cells, np.tile(r[::331], has.sum())).reshape(level.shape)
    np.testing.assert_allclose(ours, level, atol=1.5e-4)
    assert len(few.volume.level) < 1500


def test_error_of_the_distance_is_averaged_over(few: SkyMap) -> None:
    rng = np.random.default_rng(1)
    row = rng.choice(np.flatnonzero(np.isfinite(few.distance_mu_mpc)), 40)
    distance, error = rng.uniform(5, 200, 40), 10 ** rng.uniform(-3, 2, 40)
    ours = skymap.volume_levels(few, few.start[row], distance, error)
    for k in range(40):
        r = np.linspace(max(distance[k] - 9 * error[k], 1e-9), distance[k] + 9 * error[k], 20_001)
        weight = stats.norm.pdf(r, distance[k], error[k])
        at_each = skymap.volume_levels(few, np.full(len(r), few.start[row[k]]), r)
        assert ours[k] == pytest.approx(np.trapezoid(at_each * weight, r) / np.trapezoid(weight, r), abs=2e-5)
    exact = skymap.volume_levels(few, few.start[row], distance)
    for tiny in (0.0, np.nan, 1e-7, None):
        np.testing.assert_allclose(skymap.volume_levels(few, few.start[row], distance, tiny), exact, atol=1e-6)


def test_what_has_no_distance(few: SkyMap) -> None:
    cells = few.start
    level = skymap.volume_levels(few, cells, 50.0)
    assert np.isnan(level[10])
    assert np.isfinite(np.delete(level, 10)).all()
    assert np.isnan(skymap.volume_levels(few, [cells[0]] * 5 + [-1], [np.nan, 0.0, -3.0, np.inf, np.nan, 5.0])).all()
    assert skymap.volume_levels(few, [cells[0], cells[0]], [5000.0, 1e300]).tolist() == [1.0, 1.0]
    flat = skymap.make_skymap("flat", None, *healpix.ALL_SKY.T.copy(), np.ones(1) / skymap.SKY_DEG2)
    assert np.isnan(skymap.volume_levels(flat, cells, 50.0, 5.0)).all()
    with pytest.raises(CatalogError, match="no distance"):
        flat.volume  # noqa: B018
    part = skymap.make_skymap(
        "part",
        None,
        np.array([0, 1 << 58]),
        np.array([1 << 58, 2 << 58]),
        np.array([1.0, 0.0]) / healpix.cell_area_deg2(0),
        {"distance_mu_mpc": np.array([50, np.inf]), "distance_sigma_mpc": np.ones(2), "distance_norm": np.ones(2)},
    )
    level = skymap.volume_levels(part, [0, 1 << 58, 2 << 58], 50.0)
    assert level[0] < 1e-3
    assert level[1:].tolist() == [1.0, 1.0]  # no probability there, at whatever distance
    nowhere = {
        f"distance_{name}": np.full(2, value) for name, value in [("mu_mpc", np.inf), ("sigma_mpc", 1), ("norm", 0)]
    }
    empty = skymap.make_skymap(
        "none", None, part.start, part.stop, np.full(2, 0.5) / healpix.cell_area_deg2(0), nowhere
    )
    assert np.isnan(skymap.volume_levels(empty, [0, 1 << 58], 50.0)).all()


def draws(ours: SkyMap, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return cells and distances drawn from the map, the distances by inversion on a fine grid."""
    rng = np.random.default_rng(seed)
    has = np.isfinite(ours.distance_mu_mpc) & (ours.distance_norm > 0)
    mass = ours.density_per_deg2 * ours.area_deg2 * has
    row = rng.choice(len(mass), n, p=mass / mass.sum())
    cells = ours.start[row] + (rng.random(n) * (ours.stop - ours.start)[row]).astype(np.int64)
    mu, sigma = ours.distance_mu_mpc[row, None], ours.distance_sigma_mpc[row, None]
    low = np.maximum(mu - 9 * sigma, 0)
    r = low + np.linspace(0, 1, 401) * (np.maximum(mu, 0) + 9 * sigma - low)
    per_length = r**2 * np.exp(-0.5 * ((r - mu) / sigma) ** 2)
    held = np.cumsum(per_length[:, 1:] + per_length[:, :-1], axis=1)
    aim = rng.random(n) * held[:, -1]
    return cells, np.array([np.interp(aim[k], held[k], r[k, 1:]) for k in range(n)])


def test_levels_of_draws_from_real_maps_are_uniform(shared_data: Path) -> None:
    seen = set()
    for place, content in real_maps(shared_data).items():
        ours = skymap.parse_skymap(content, "one", place)
        if not ours.has_distance or ours.digest in seen:
            continue
        seen.add(ours.digest)
        cells, distance = draws(ours, 4000, len(seen))
        level = skymap.volume_levels(ours, cells, distance)
        assert stats.kstest(level, "uniform").pvalue > 0.01, place
    assert len(seen) >= 9


@pytest.mark.interop  # it sorts twenty million voxels
def test_real_map_equals_ligo_skymap(shared_data: Path) -> None:
    """As well as its grid of a thousand steps allows, in which a place is looked up half a step off on average."""
    from ligo.skymap.io import read_sky_map
    from ligo.skymap.postprocess import crossmatch

    file = shared_data / "skymaps" / "lasair_map.fits"
    ours = skymap.parse_skymap(file.read_bytes())
    cells, distance = draws(ours, 3000, 0)
    ra, dec = healpix.pix2ang(29, cells)
    places = SkyCoord(ra * u.deg, dec * u.deg, distance * u.Mpc)
    theirs = crossmatch(read_sky_map(str(file), moc=True), places).searched_prob_vol
    off = np.abs(skymap.volume_levels(ours, cells, distance) - theirs)
    assert np.median(off) < 0.003
    assert off.max() < 0.025


def test_gw170817_and_its_counterpart(shared_data: Path) -> None:
    content = (shared_data / "skymaps" / "gcn_gw170817_skymap.fits.gz").read_bytes()
    ours = skymap.parse_skymap(content)
    cell = healpix.ang2pix(29, [197.45035], [-23.38148])
    assert ours.distance_mean_mpc == pytest.approx(38.6, abs=0.1)
    assert skymap.volume_levels(ours, cell, 40.0)[0] < 0.5
    assert skymap.volume_levels(ours, cell, 40.0, 4.0)[0] < 0.9
    assert skymap.volume_levels(ours, cell, 400.0)[0] > 0.999
