"""The luminosity switch of the reading API: what is stored, what is made while reading, and what cannot be."""

from __future__ import annotations

from pathlib import Path

import healpy
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from synthetic_archive import HOSTED, write_archive

import pipeline
from pipeline import luminosity
from pipeline.archive import Archive
from pipeline.archive.luminosities import COLUMNS
from pipeline.errors import CatalogError, InputError
from pipeline.photometry import mag_from_flux
from pipeline.stages import luminosity as stage


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    folder = tmp_path_factory.mktemp("archive")
    write_archive(folder, hosts=True)
    return pipeline.open(folder)


@pytest.fixture(scope="module")
def dust_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("dust") / "even.fits"
    healpy.write_map(path, np.full(12, 0.1, dtype=np.float32), nest=True, coord="G", column_names=["EBV"])
    return path


def test_rows_are_those_of_the_stage(archive: Archive) -> None:
    plain = archive.science().to_arrow()
    got = archive.science(luminosity=True).to_arrow()
    assert got.column_names == [*HOSTED.names, *COLUMNS, "night"]
    assert got.select(plain.column_names).equals(plain)
    assert got.select(list(COLUMNS)).equals(stage.match(plain, luminosity.ZTF))
    near = plain["host_distance_mpc"].is_valid()
    assert got["lum_nu_lnu_erg_s"].is_valid().equals(near)
    is_bright = pc.and_(near, pc.greater(plain["flux_njy"], 0))
    assert got["lum_absolute_mag"].is_valid().equals(is_bright)
    assert 0 < pc.sum(is_bright).as_py() < pc.sum(near).as_py() < 90
    assert got["lum_is_extinction_corrected"].unique().to_pylist() == [False, None]


def test_columns_cones_conditions_and_every_frame(archive: Archive) -> None:
    whole = archive.science(luminosity=True).to_arrow()
    few = archive.science(columns=["night", "alert_id"], where=pc.field("diff_mag") < 17, luminosity=True)
    expected = whole.filter(pc.less(whole["diff_mag"], 17)).select(["night", "alert_id", *COLUMNS])
    assert few.to_arrow().equals(expected)
    assert few.count() == expected.num_rows > 0
    assert few.to_polars()["lum_absolute_mag"].null_count() == expected["lum_absolute_mag"].null_count
    assert few.to_duckdb().arrow().read_all().to_pylist() == expected.to_pylist()
    assert archive.science(columns=["alert_id", "lum_absolute_mag"], luminosity=True).columns == ("alert_id", *COLUMNS)
    row = whole.slice(0, 1).to_pylist()[0]
    cone = archive.science(cone=(row["ra"], row["dec"], 1e-4), columns=["alert_id"], luminosity=True).to_arrow()
    assert cone["lum_nu_lnu_erg_s"].to_pylist()[0] == row["lum_nu_lnu_erg_s"]
    with pytest.raises(InputError, match="made while reading"):
        archive.science(where=pc.field("lum_absolute_mag") < -17, luminosity=True)


def test_a_dust_map_corrects_what_is_read(archive: Archive, dust_map: Path) -> None:
    bare = archive.science(luminosity=True).to_arrow()
    seen = archive.science(luminosity=True, dust_map=dust_map).to_arrow()
    assert seen["lum_is_extinction_corrected"].unique().to_pylist() == [True, None]
    brighter = pc.subtract(bare["lum_absolute_mag"], seen["lum_absolute_mag"]).to_numpy()
    expected = np.array([0.1 * luminosity.ZTF[band].extinction for band in bare["band"].to_pylist()])
    np.testing.assert_allclose(brighter[~np.isnan(brighter)], expected[~np.isnan(brighter)], atol=1e-6)
    with pytest.raises(CatalogError, match="there is no dust map"):
        archive.science(luminosity=True, dust_map=dust_map.with_name("absent.fits"))


@pytest.mark.parametrize("is_dusty", [False, True])
def test_every_point_of_a_light_curve(archive: Archive, dust_map: Path, is_dusty: bool) -> None:
    chosen = archive.science(columns=["alert_id"], luminosity=is_dusty, **({"dust_map": dust_map} if is_dusty else {}))
    rows = chosen.light_curves(upper_limits=True, luminosity=True)
    columns = ["alert_id", *(COLUMNS if is_dusty else ()), "light_curve", "upper_limits"]
    assert rows.column_names == columns
    hosts = archive.science(columns=["host_distance_mpc", "host_redshift"]).to_arrow().to_pylist()
    measured = 0
    for row, galaxy in zip(rows.to_pylist(), hosts, strict=True):
        points = row["light_curve"]
        for flux, band, mag, nu_lnu in zip(
            *(points[name] for name in ("flux_njy", "band", "absolute_mag", "nu_lnu_erg_s")), strict=True
        ):
            distance = galaxy["host_distance_mpc"]
            if distance is None or flux is None:
                assert mag is None and nu_lnu is None
                continue
            extinction = 0.1 * luminosity.ZTF[band].extinction if is_dusty else 0.0
            wavelength = luminosity.ZTF[band].wavelength_nm
            expected = luminosity.nu_lnu_erg_s(flux, wavelength, distance, extinction)
            assert nu_lnu == pytest.approx(float(expected), rel=1e-6)
            if flux > 0:
                z = galaxy["host_redshift"] or 0.0
                told = luminosity.absolute_mag(mag_from_flux(flux), distance, z, extinction)
                assert mag == pytest.approx(float(told), abs=1e-6)
            else:
                assert mag is None
            measured += 1
    assert measured > 100
    nothing = archive.science("20190101:", columns=["alert_id"]).light_curves(luminosity=True)
    assert nothing.schema.field("light_curve").type == rows.schema.field("light_curve").type


def test_one_light_curve(archive: Archive) -> None:
    hosted = archive.science(columns=["alert_id"], where=pc.field("host_distance_mpc").is_valid()).to_arrow()
    alert_id = hosted["alert_id"][0].as_py()
    plain, luminous = archive.light_curve(alert_id), archive.light_curve(alert_id, luminosity=True)
    assert luminous.select(plain.column_names).equals(plain)
    assert luminous.column_names == [*plain.column_names, "absolute_mag", "nu_lnu_erg_s"]
    assert luminous["nu_lnu_erg_s"].null_count < luminous.num_rows
    with pytest.raises(InputError, match="alert 5"):
        archive.light_curve(5, luminosity=True)


def test_stored_luminosities_are_read_as_they_are(tmp_path: Path, archive: Archive, dust_map: Path) -> None:
    """A release whose run made them with a dust map keeps them, and its light curves follow them."""
    write_archive(tmp_path, {20181129: [30]}, hosts=True)
    opened = pipeline.open(tmp_path)
    table = opened.science(luminosity=True, dust_map=dust_map).to_arrow().drop_columns(["night"])
    (file,) = (tmp_path / "ztf" / "science").rglob("*.parquet")
    pq.write_table(table, file)
    opened = pipeline.open(tmp_path)
    stored = opened.science(luminosity=True)
    assert stored.made == ()
    assert stored.to_arrow().select(list(COLUMNS)).equals(table.select(list(COLUMNS)))
    assert opened.science(where=pc.field("lum_absolute_mag") < -17).count() > 0
    thicker = tmp_path / "thicker.fits"
    healpy.write_map(thicker, np.full(12, 0.2, dtype=np.float32), nest=True, coord="G", column_names=["EBV"])
    fresh = opened.science(luminosity=True, dust_map=thicker).to_arrow()["lum_extinction_mag"].to_numpy()
    np.testing.assert_allclose(fresh, 2 * table["lum_extinction_mag"].to_numpy(), rtol=1e-6)
    dusty = opened.science(columns=["alert_id"], luminosity=True, dust_map=dust_map).light_curves(luminosity=True)
    plain = opened.science(columns=["alert_id"]).light_curves(luminosity=True)
    for ours, theirs in zip(plain["light_curve"].to_pylist(), dusty["light_curve"].to_pylist(), strict=True):
        assert ours["absolute_mag"] == [pytest.approx(value, abs=1e-6) for value in theirs["absolute_mag"]]


def test_without_hosts_the_line_says_what_to_do(tmp_path: Path) -> None:
    write_archive(tmp_path)
    opened = pipeline.open(tmp_path)
    for ask in (
        lambda: opened.science(luminosity=True),
        lambda: opened.science(columns=["alert_id"]).light_curves(luminosity=True),
        lambda: opened.alerts().light_curves(luminosity=True),
    ):
        with pytest.raises(InputError, match=r"need host galaxies.*run the night with a catalog"):
            ask()
