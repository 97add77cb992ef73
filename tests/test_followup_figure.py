"""The figure of a sky map: projections against the standard's, places and ticks where they belong, same bytes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import followup_archive as sky
import matplotlib.image
import numpy as np
import pyarrow as pa
import pytest
from astropy.wcs import WCS

from pipeline import healpix
from pipeline.archive.pruning import separation_deg
from pipeline.followup.summary import area_text
from pipeline.report import skymap as drawing
from pipeline.report import write_report
from pipeline.report.projections import Gnomonic, Mollweide
from pipeline.report.skymap import Marks, marks_of, projection_of, skymap_figure
from pipeline.skymap import SkyMap, event_name, fisher_skymap, make_skymap
from pipeline.skymaps import read_skymap, skymap_fits


def wcs(code: str, ra: float, dec: float) -> WCS:
    made = WCS(naxis=2)
    made.wcs.ctype = [f"RA---{code}", f"DEC--{code}"]
    made.wcs.crval, made.wcs.crpix, made.wcs.cdelt = [ra, dec], [0, 0], [-1, 1]
    return made


@pytest.mark.parametrize(("ra", "dec"), [(197.4, -23.4), (0.1, 0.0), (120.0, 89.5), (33.0, -90.0)])
def test_gnomonic_is_the_standard_s_tan(ra: float, dec: float) -> None:
    rng = np.random.default_rng(1)
    x, y = rng.uniform(-20, 20, (2, 500))
    got_ra, got_dec = Gnomonic(ra, dec, 28.0).inverse(x, y)
    their_x, their_y = wcs("TAN", ra, dec).wcs_world2pix(got_ra, got_dec, 0)
    np.testing.assert_allclose((their_x + 1, their_y + 1), (x, y), atol=1e-8)
    np.testing.assert_allclose(Gnomonic(ra, dec, 28.0).forward(got_ra, got_dec), (x, y), atol=1e-9)


def test_mollweide_is_the_standard_s_mol() -> None:
    rng = np.random.default_rng(2)
    ra, dec = rng.uniform(0, 360, 2_000), np.degrees(np.arcsin(rng.uniform(-1, 1, 2_000)))
    x, y = Mollweide().forward(ra, dec)
    their_x, their_y = wcs("MOL", 0.0, 0.0).wcs_world2pix(ra, dec, 0)
    scale = np.degrees(1.0)
    np.testing.assert_allclose((x * scale, y * scale), (their_x + 1, their_y + 1), atol=1e-6)
    back_ra, back_dec = Mollweide().inverse(x, y)
    np.testing.assert_allclose(np.abs((back_ra - ra + 180) % 360 - 180) * np.cos(np.radians(dec)), 0, atol=1e-7)
    np.testing.assert_allclose(back_dec, dec, atol=1e-7)
    poles = Mollweide().forward(np.zeros(2), np.array([90.0, -90.0]))
    np.testing.assert_allclose(poles[1], [np.sqrt(2), -np.sqrt(2)], atol=1e-9)
    assert np.isnan(Mollweide().inverse(np.array([2.9]), np.array([0.0]))[0]).all()


def test_right_ascension_grows_to_the_left() -> None:
    for projection in (Mollweide(), Gnomonic(359.5, 40.0, 5.0)):
        x, _ = projection.forward(np.array([358.5, 359.5, 0.5]), np.full(3, 40.0))
        assert x[0] > x[1] > x[2]


def test_small_regions_are_enlarged_and_large_ones_shown_on_the_whole_sky() -> None:
    for ra, dec, radius in ((0.01, -5.0, 0.002), (359.9, 20.0, 5.0), (30.0, 89.0, 3.0)):
        chosen = projection_of(fisher_skymap("x", None, ra, dec, radius))
        assert isinstance(chosen, Gnomonic)
        assert chosen.radius == pytest.approx(1.15 * radius, rel=0.1)
        x, y = chosen.forward(np.array([ra]), np.array([dec]))
        assert np.hypot(x, y)[0] < 0.1 * radius
    assert isinstance(projection_of(fisher_skymap("x", None, 10, 10, 35.0)), Mollweide)


@pytest.fixture(scope="module")
def lopsided() -> SkyMap:
    """A map that is dense in the east (left) of its centre at 100, 10."""
    order = 7
    cells = healpix.cells_of_ranges(healpix.cone_ranges(100.0, 10.0, 4.0), order)
    cells = cells[separation_deg(100.0, 10.0, *healpix.pix2ang(order, cells)) < 4]
    ra, _ = healpix.pix2ang(order, cells)
    density = np.where(ra > 100, 4.0, 1.0)
    density /= (density * healpix.cell_area_deg2(order)).sum()
    shift = 2 * (29 - order)
    return make_skymap("s1", 58_000.0, cells << shift, (cells + 1) << shift, density)


def test_alerts_and_shades_stand_where_they_should(lopsided: SkyMap) -> None:
    plain = skymap_figure(lopsided)
    picture = matplotlib.image.imread(io.BytesIO(plain))
    rows, columns = picture.shape[0] // 2, picture.shape[1] // 2
    middle = picture[rows - 60 : rows + 60]
    assert middle[:, columns - 200 : columns - 60, 0].mean() < middle[:, columns + 60 : columns + 200, 0].mean() - 0.05
    east = Marks(np.array([101.5]), np.array([10.0]), np.array([False]))
    drawn = skymap_figure(lopsided, east)
    changed = (matplotlib.image.imread(io.BytesIO(drawn)) != picture).any(axis=2)
    inside = changed[150:1000]  # the legend changes too
    assert inside[:, :columns].any()
    assert not inside[:, columns:].any()
    assert skymap_figure(lopsided, east) == drawn


@pytest.mark.parametrize("radius_deg", [1e-4, 2e-3, 0.05])
def test_labels_of_the_smallest_circles_are_not_cut(radius_deg: float) -> None:
    picture = matplotlib.image.imread(io.BytesIO(skymap_figure(fisher_skymap("x", None, 206.4, -44.0386, radius_deg))))
    white = (picture[..., :3] == 1.0).all(axis=(0, 2))
    assert white[:5].all()
    assert white[-5:].all()
    assert not white[5:120].all()


def test_areas_of_any_size_have_few_digits() -> None:
    texts = ["41,253 deg²", "0.0100 deg²", "28.8 arcmin²", "32.4 arcsec²", "0 deg²"]
    assert [area_text(area) for area in (41253.0, 0.01, 0.008, 0.009 / 3600, 0.0)] == texts


def test_exposures_tint_their_cells_alone(lopsided: SkyMap) -> None:
    cell = healpix.ang2pix(10, [98.0], [10.0])
    seen = Marks(seen=healpix.ranges_of(6, cell >> 8))
    plain, tinted = (matplotlib.image.imread(io.BytesIO(skymap_figure(lopsided, m))) for m in (Marks(), seen))
    changed = (plain != tinted).any(axis=2)[150:1000]
    assert changed[:, plain.shape[1] // 2 :].any()
    assert not changed[:, : plain.shape[1] // 2].any()


def test_marks_are_those_of_the_event_and_never_injected() -> None:
    table = pa.table(
        {
            "event": ["a", "a", "b", "a"],
            "ra": [1.0, 2.0, 3.0, 4.0],
            "dec": [0.0] * 4,
            "is_injected": [False, None, False, True],
            "has_prior_activity": [True, None, False, False],
        }
    )
    marks = marks_of(table, "a", np.zeros((0, 2), dtype=np.int64))
    assert marks.ra.tolist() == [1.0, 2.0]
    assert marks.has_prior_activity.tolist() == [True, False]


@pytest.mark.parametrize(
    ("ra", "step", "text"),
    [
        (197.5, 600, "13h10m"),
        (0.0, 3600, "0h"),
        (180.0, 10800, "12h"),
        (0.0125, 1, "0h00m03s"),
        (0.01, 0.2, "0h00m02.4s"),
        (359.99, 0.05, "23h59m57.60s"),
    ],
)
def test_hours_have_the_digits_of_their_step(ra: float, step: float, text: str) -> None:
    assert drawing._hours(ra, step) == text


@pytest.mark.parametrize("change", ["none", "moved", "other"])
def test_the_night_report_shows_the_map_that_the_run_had(tmp_path: Path, lopsided: SkyMap, change: str) -> None:
    night, mjd = 20170904, sky.start_of(20170904) + 0.2
    file = tmp_path / "S1.fits"
    file.write_bytes(skymap_fits(lopsided))
    ra, dec = np.array([100.0, 101.0, 30.0]), np.array([10.0, 11.0, -5.0])
    alerts = sky.alerts_table(np.arange(3), ["o1", "o2", "o3"], ra, dec, np.full(3, mjd))
    root = sky.write_archive(tmp_path / "data", {night: [alerts]})
    ledger_file = root.path(f"ztf/ledger/night={night}.json")
    ledger = json.loads(ledger_file.read_text())
    ledger["settings"] = {"skymaps": [f"S1={file}"]}
    ledger["groups"] = {f"skymap_{event_name('S1')}": {"digests": {"skymap": read_skymap(file, "S1").digest}}}
    ledger_file.write_text(json.dumps(ledger))
    if change == "moved":
        file.unlink()
    elif change == "other":
        file.write_bytes(skymap_fits(fisher_skymap("s1", 58_000.0, 100, 10, 3)))
    page = write_report(root.folder, "ztf", night)
    text = page.read_text()
    picture = page.parent / "skymap-s1.png"
    assert '<section id="events">' in text
    assert picture.is_file() == (change == "none")
    told = {"none": "2 alerts of this night", "moved": "no longer where", "other": "map has changed"}
    assert told[change] in text
    assert ("A lower bound" in text) == (change == "none")
