"""Dust maps: the polar projection against astropy's, HEALPix maps against healpy, and what is no map."""

from __future__ import annotations

import pickle
from pathlib import Path

import healpy
import numpy as np
import pytest
from astropy.coordinates import SkyCoord
from astropy.io import fits
from astropy.wcs import WCS

from pipeline.dust import open_dust_map
from pipeline.errors import CatalogError

SIDE = 256


def header_of(sign: int) -> fits.Header:
    """The header of a polar image as the SFD files have it, smaller."""
    scale = SIDE / 2
    header = fits.Header()
    header["CTYPE1"], header["CTYPE2"] = "GLON-ZEA", "GLAT-ZEA"
    header["CRPIX1"] = header["CRPIX2"] = SIDE / 2 + 0.5
    header["CRVAL1"], header["CRVAL2"] = 90.0, 90.0 * sign
    header["LONPOLE"] = 180.0
    step = np.degrees(np.sqrt(2) / scale)
    header["CD1_1"], header["CD2_2"] = -step, step
    header["LAM_NSGP"], header["LAM_SCAL"] = sign, scale
    return header


@pytest.fixture
def polar(tmp_path: Path) -> Path:
    """Images whose value is 0.001 x + 0.01 y + 5 in the north, 7 in the south: bilinear interpolation is exact."""
    y, x = np.mgrid[:SIDE, :SIDE]
    for end, sign, base in (("ngp", 1, 5.0), ("sgp", -1, 7.0)):
        data = (base + 0.001 * x + 0.01 * y).astype(np.float32)
        fits.PrimaryHDU(data, header_of(sign)).writeto(tmp_path / f"SFD_dust_4096_{end}.fits")
    return tmp_path


def sky(n: int = 2000) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return rng.uniform(0, 360, n), np.degrees(np.arcsin(rng.uniform(-1, 1, n)))


def projected(longitude: np.ndarray, latitude: np.ndarray, sign: int) -> tuple[np.ndarray, np.ndarray]:
    """Pixel by SFD's own formula (their appendix C), written down apart from the code."""
    rho = SIDE / 2 * np.sqrt(1 - sign * np.sin(latitude))
    return rho * np.cos(longitude) + SIDE / 2 - 0.5, -sign * rho * np.sin(longitude) + SIDE / 2 - 0.5


def test_polar_images_are_interpolated_in_their_projection(polar: Path) -> None:
    ra, dec = sky()
    places = SkyCoord(ra, dec, unit="deg").galactic
    found = open_dust_map(polar).ebv_mag(ra, dec)
    for sign, base in ((1, 5.0), (-1, 7.0)):
        here = (sign * places.b.deg > 0.5) & (found > 0)
        x, y = projected(places.l.rad[here], places.b.rad[here], sign)
        np.testing.assert_allclose(found[here], base + 0.001 * x + 0.01 * y, atol=2e-6)
        assert here.sum() > 800


def test_the_projection_is_the_one_that_the_headers_tell(polar: Path) -> None:
    """The world coordinate system of the images, as astropy reads it, puts the same pixel at the same place."""
    ra, dec = sky(500)
    places = SkyCoord(ra, dec, unit="deg").galactic
    for sign in (1, -1):
        here = sign * places.b.deg > 0.5
        told = WCS(header_of(sign)).world_to_pixel_values(places.l.deg[here], places.b.deg[here])
        np.testing.assert_allclose(told, projected(places.l.rad[here], places.b.rad[here], sign), atol=1e-6)


def test_poles_equator_and_no_position(polar: Path) -> None:
    opened = open_dust_map(polar)
    poles = SkyCoord([0.0, 0.0], [90.0, -90.0], frame="galactic", unit="deg").icrs
    middle = SIDE / 2 - 0.5
    np.testing.assert_allclose(
        opened.ebv_mag(poles.ra.deg, poles.dec.deg), [5 + 0.011 * middle, 7 + 0.011 * middle], atol=1e-4
    )
    equator = SkyCoord(np.arange(0, 360, 0.5), np.zeros(720), frame="galactic", unit="deg").icrs
    assert np.isfinite(opened.ebv_mag(equator.ra.deg, equator.dec.deg)).all()
    assert np.isnan(opened.ebv_mag([np.nan, 0.0, 0.0], [0.0, 91.0, np.nan])).all()


def test_a_map_is_named_by_folder_or_by_either_file_and_travels(polar: Path) -> None:
    opened = open_dust_map(polar)
    for name in ("SFD_dust_4096_ngp.fits", "SFD_dust_4096_sgp.fits"):
        assert open_dust_map(polar / name).digest == opened.digest
    again = pickle.loads(pickle.dumps(opened))
    assert again.ebv_mag([10.0], [50.0]) == opened.ebv_mag([10.0], [50.0])
    file = polar / "SFD_dust_4096_sgp.fits"
    file.write_bytes(file.read_bytes()[:-2880] + bytes(2880))
    assert open_dust_map(polar).digest != opened.digest


@pytest.mark.parametrize("is_nested", [True, False])
@pytest.mark.parametrize("frame", ["G", "C"])
def test_healpix_maps_equal_healpy(is_nested: bool, frame: str, tmp_path: Path) -> None:
    nside = 32
    values = np.random.default_rng(2).random(healpy.nside2npix(nside)).astype(np.float32)
    values[::7] = healpy.UNSEEN
    healpy.write_map(tmp_path / "map.fits", values, nest=is_nested, coord=frame, column_names=["EBV"])
    ra, dec = sky()
    places = SkyCoord(ra, dec, unit="deg")
    lon, lat = (places.galactic.l.deg, places.galactic.b.deg) if frame == "G" else (ra, dec)
    expected = values[healpy.ang2pix(nside, lon, lat, nest=is_nested, lonlat=True)].astype(float)
    found = open_dust_map(tmp_path / "map.fits").ebv_mag(ra, dec)
    np.testing.assert_array_equal(found, np.where(expected < 0, np.nan, expected))
    assert 100 < np.isnan(found).sum() < 1000


def test_what_is_no_map_is_told_in_one_line(polar: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.fits").write_text("no FITS")
    fits.PrimaryHDU(np.zeros((4, 4))).writeto(tmp_path / "image.fits")
    truncated = polar / "SFD_dust_4096_ngp.fits"
    for name in ("absent.fits", "empty", "text.fits", "image.fits"):
        with pytest.raises(CatalogError, match="give the folder of SFD_dust"):
            open_dust_map(tmp_path / name)
    (polar / "SFD_dust_4096_sgp.fits").write_bytes(truncated.read_bytes())
    with pytest.raises(CatalogError, match="not one of each hemisphere"):
        open_dust_map(polar)
    (polar / "SFD_dust_4096_sgp.fits").unlink()
    with pytest.raises(CatalogError, match="there is no dust map at"):
        open_dust_map(truncated)
