"""Sky maps against plain numpy, mocpy, and figures known for real maps."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.io import fits
from astropy.time import Time
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import healpix, skymap
from pipeline.errors import CatalogError
from pipeline.skymaps import read_skymap

DEG2_PER_SR = (180 / np.pi) ** 2
MULTI_ORDER = [
    "LIGO_O3_S190412m_bayestar",
    "LIGO_O3_S190425z_bayestar",
    "LIGO_O3_S190426c_bayestar",
    "LIGO_O3_S190521g_bayestar",
    "lasair_map",
]


def flat_bytes(probability: np.ndarray, *, ordering: str = "NESTED", packed: bool = False, **header: object) -> bytes:
    """Return a flat map as FITS; ``packed`` writes rows of 12 pixels, as healpy packs rows of 1024."""
    data = probability.reshape(-1, 12) if packed else probability
    table = fits.BinTableHDU.from_columns([fits.Column("PROB", "12D" if packed else "D", array=data)])
    table.header.update({"ORDERING": ordering, "NSIDE": healpy.npix2nside(probability.size), "OBJECT": "S200101a"})
    table.header.update({"DATE-OBS": "2018-11-29T03:00:00.000000", **header})
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(out)
    return out.getvalue()


def multi_order_bytes(uniq: np.ndarray, density_per_sr: np.ndarray, **header: object) -> bytes:
    columns = [fits.Column("UNIQ", "K", array=uniq), fits.Column("PROBDENSITY", "D", array=density_per_sr)]
    table = fits.BinTableHDU.from_columns(columns)
    table.header.update({"ORDERING": "NUNIQ", "OBJECT": "S200101a", **header})
    out = io.BytesIO()
    fits.HDUList([fits.PrimaryHDU(), table]).writeto(out)
    return out.getvalue()


def brute_force_levels(density: np.ndarray, mass: np.ndarray) -> np.ndarray:
    levels = np.array([mass[density >= own].sum() for own in density])
    return np.where(density == 0, 1.0, levels)


@given(
    st.lists(st.integers(0, 4), min_size=12, max_size=12).filter(any),
    st.sampled_from(["NESTED", "RING"]),
    st.integers(0, 3),
)
@settings(max_examples=40, deadline=None)
def test_flat_map_equals_brute_force(weights: list[int], ordering: str, order: int) -> None:
    n = 12 << (2 * order)
    nested = np.resize(np.array(weights, dtype=float), n) * (1 + np.arange(n) % 3)
    nested /= nested.sum()
    shipped = healpy.reorder(nested, n2r=True) if ordering == "RING" else nested
    ours = skymap.parse_skymap(flat_bytes(shipped, ordering=ordering, packed=order > 0))
    cells = np.arange(n) << (2 * (29 - order))
    level, density = skymap.levels(ours, cells)
    area = healpix.cell_area_deg2(order)
    np.testing.assert_allclose(density, nested / area, rtol=1e-14)
    np.testing.assert_allclose(level, brute_force_levels(nested, nested), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(level == 1.0, (nested == 0) | (level == 1.0))
    assert ours.area_deg2.sum() == pytest.approx(41252.96125)


def test_multi_order_and_flat_forms_are_one_map() -> None:
    rng = np.random.default_rng(3)
    coarse = rng.choice(12 << 4, 40, replace=False)  # order 2, some split into order 4
    split = coarse[:10]
    kept = np.setdiff1d(np.arange(12 << 4), split)
    fine = (split[:, None] * 16 + np.arange(16)).ravel()
    uniq = np.concatenate([healpix.to_uniq(2, kept), healpix.to_uniq(4, fine)])
    density = rng.integers(0, 5, len(uniq)).astype(float)
    area_sr = np.concatenate([np.full(len(kept), 4 * np.pi / 192), np.full(len(fine), 4 * np.pi / 3072)])
    density /= (density * area_sr).sum()
    shuffled = rng.permutation(len(uniq))
    multi = skymap.parse_skymap(gzip.compress(multi_order_bytes(uniq[shuffled], density[shuffled])))
    flat_density = np.empty(3072)
    flat_density[(kept[:, None] * 16 + np.arange(16)).ravel()] = np.repeat(density[: len(kept)], 16)
    flat_density[fine] = density[len(kept) :]
    flat = skymap.parse_skymap(flat_bytes(flat_density * 4 * np.pi / 3072))
    cells = np.arange(3072) << 50
    np.testing.assert_allclose(skymap.levels(multi, cells), skymap.levels(flat, cells), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        skymap.levels(multi, cells)[0], brute_force_levels(flat_density, flat_density * 4 * np.pi / 3072), atol=1e-12
    )
    assert skymap.region_area_deg2(multi, 0.5) == pytest.approx(skymap.region_area_deg2(flat, 0.5), rel=1e-12)


def test_region_is_the_smallest_that_holds_the_level() -> None:
    probability = np.array([0.4, 0.2, 0.2, 0.1, 0.05, 0.05, 0, 0, 0, 0, 0, 0])
    ours = skymap.parse_skymap(flat_bytes(probability))
    face = 41252.96125 / 12
    for level, faces in [(0.3, 1), (0.4, 1), (0.5, 3), (0.8, 3), (0.85, 4), (0.91, 6), (1.0, 6)]:
        assert skymap.region_area_deg2(ours, level) == pytest.approx(faces * face), level
    level, density = skymap.levels(ours, [-1, 0, 6 << 58, (12 << 58) - 1])
    np.testing.assert_allclose(level, [np.nan, 0.4, 1.0, 1.0])
    np.testing.assert_allclose(density, [np.nan, 0.4 / face, 0.0, 0.0])


def test_map_of_a_part_of_the_sky() -> None:
    uniq = healpix.to_uniq(0, np.array([3, 5]))
    ours = skymap.parse_skymap(multi_order_bytes(uniq, np.array([0.75, 0.25]) * 12 / (4 * np.pi)))
    level, density = skymap.levels(ours, np.arange(12) << 58)
    assert level.tolist() == [1, 1, 1, pytest.approx(0.75), 1, pytest.approx(1.0)] + [1] * 6
    assert (density > 0).sum() == 2


@pytest.mark.filterwarnings("ignore:Error validating header")
@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"no map", "cannot be read as FITS"),
        (b"SIMPLE" * 1000, "cannot be read as FITS"),
        (b"\x1f\x8b broken", "cannot be read as FITS"),
        (flat_bytes(np.full(12, 1 / 12))[:3000], "sky map"),
        (flat_bytes(np.full(12, 0.5)), "sums to 6"),
        (flat_bytes(np.full(12, np.nan)), "not a number"),
        (flat_bytes(np.full(12, 1 / 12), ORDERING="SPIRAL"), "neither NESTED nor RING"),
        (flat_bytes(np.full(12, 1 / 12), COORDSYS="G"), "not equatorial"),
        (flat_bytes(np.full(12, 1 / 12), OBJECT=""), "names no event"),
        (multi_order_bytes(np.array([4, 4, 16]), np.array([1.0, 1.0, 1.0])), "overlap"),
        (multi_order_bytes(np.array([1, 2]), np.array([1.0, 1.0])), "UNIQ"),
    ],
)
def test_what_is_no_map_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(CatalogError, match=message) as caught:
        skymap.parse_skymap(data, source="bad.fits")
    assert "\n" not in str(caught.value)
    assert "bad.fits" in str(caught.value)


def test_absent_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="cannot be read"):
        read_skymap(tmp_path / "none.fits")


def test_event_name_time_and_digest() -> None:
    assert skymap.event_name("S190425z") == "s190425z"
    assert skymap.event_name("GRB 170817A (v2)") == "grb_170817a_v2"
    data = flat_bytes(np.full(12, 1 / 12))
    ours = skymap.parse_skymap(data)
    assert ours.event == "s200101a"
    assert ours.event_mjd == pytest.approx(Time("2018-11-29T03:00:00", scale="utc").tai.mjd, abs=1e-10)
    assert skymap.parse_skymap(data).digest == ours.digest
    assert skymap.parse_skymap(data, event="other").digest != ours.digest
    by_mjd = skymap.parse_skymap(flat_bytes(np.full(12, 1 / 12), **{"DATE-OBS": "", "MJD-OBS": 58451.125}))
    assert by_mjd.event_mjd == pytest.approx(ours.event_mjd, abs=1e-9)
    no_time = skymap.parse_skymap(flat_bytes(np.full(12, 1 / 12), **{"DATE-OBS": "unknown"}))
    assert no_time.event_mjd is None


# ------------------------------------------------------------------------------------------------ real maps
def test_gw170817(shared_data: Path) -> None:
    """The flat map of GW170817 and AT2017gfo, its counterpart in NGC 4993."""
    ours = read_skymap(shared_data / "skymaps" / "gcn_gw170817_skymap.fits.gz")
    assert ours.event == "gw170817"
    assert ours.event_mjd == pytest.approx(Time("2017-08-17T12:41:04.429237", scale="utc").tai.mjd, abs=1e-10)
    assert skymap.region_area_deg2(ours, 0.9) == pytest.approx(27.83, abs=0.01)
    level, density = skymap.levels(ours, healpix.ang2pix(29, [197.45035], [-23.38148]))
    assert level[0] == pytest.approx(0.0637, abs=1e-4)
    row = skymap.rows_at(ours, healpix.ang2pix(29, [197.45035], [-23.38148]))[0]
    assert ours.has_distance
    assert 20 < ours.distance_mu_mpc[row] < 60
    assert density[0] == pytest.approx(0.0896, abs=1e-4)


def test_flat_and_multi_order_forms_of_one_real_map(shared_data: Path) -> None:
    multi = read_skymap(shared_data / "skymaps" / "LIGO_O3_S190425z_bayestar.fits")
    flat = read_skymap(shared_data / "skymaps" / "LIGO_O3_S190425z_bayestar.fits.gz")
    cells = np.arange(786_432) << 42
    np.testing.assert_allclose(skymap.levels(multi, cells), skymap.levels(flat, cells), rtol=0, atol=1e-9)
    assert skymap.region_area_deg2(multi, 0.9) == pytest.approx(skymap.region_area_deg2(flat, 0.9), rel=1e-9)
    assert skymap.region_area_deg2(multi, 0.9) == pytest.approx(10183.15, abs=0.01)


@pytest.mark.parametrize("name", MULTI_ORDER)
def test_real_map_equals_plain_numpy_and_mocpy(shared_data: Path, name: str) -> None:
    from astropy import units as u
    from astropy.coordinates import Latitude, Longitude
    from mocpy import MOC

    file = shared_data / "skymaps" / f"{name}.fits"
    ours = read_skymap(file)
    with fits.open(file) as opened:
        uniq = opened[1].data["UNIQ"].astype(np.int64)
        density = opened[1].data["PROBDENSITY"].astype(float)
    order = np.floor(np.log2(uniq / 4) / 2).astype(int)
    mass = density * 4 * np.pi / 12 / 4.0**order
    some = np.random.default_rng(0).choice(len(uniq), 300, replace=False)
    level = np.array([mass[density >= density[i]].sum() for i in some])
    cells = (uniq[some] - (4 << (2 * order[some]))) << (2 * (29 - order[some]))
    np.testing.assert_allclose(skymap.levels(ours, cells)[0], level, rtol=0, atol=1e-9)
    np.testing.assert_allclose(skymap.levels(ours, cells)[1] * DEG2_PER_SR, density[some], rtol=1e-12)

    moc = MOC.from_valued_healpix_cells(uniq.astype(np.uint64), mass, max_depth=12, cumul_to=0.9)
    rng = np.random.default_rng(1)
    ra, dec = rng.uniform(0, 360, 50_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 50_000)))
    theirs = moc.contains_lonlat(Longitude(ra * u.deg), Latitude(dec * u.deg))
    mine = skymap.levels(ours, healpix.ang2pix(29, ra, dec))[0]
    # mocpy cuts the pixel that crosses the line at pleasure; its tie group is the only place where we may differ.
    crossing = ours.credible_level[ours.credible_level >= 0.9].min()
    clear = mine != crossing
    np.testing.assert_array_equal((mine <= 0.9)[clear], theirs[clear])
    assert clear.mean() > 0.99
