"""The stories of the sky that must work as a whole, told by the command line alone."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from ztf_packets import packet_bytes, record

import pipeline

KILONOVA_JD = 2460352.8351042  # 2024-02-12 08:02:33.003 UTC, start of the exposure
NIGHT = 20240212


def alertmill(*arguments: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline.cli", *map(str, arguments)], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == code, done.stderr
    return done.stdout if code == 0 else done.stderr


def kilonova(folder: Path) -> Path:
    packet = record(
        2599335100015015001,
        jd=KILONOVA_JD,
        nid=(date(2024, 2, 12) - date(2017, 1, 1)).days,
        ra=148.6188113,
        dec=-18.6363575,
        magpsf=18.25,
        sigmapsf=0.07,
        fid=2,
        jdstarthist=KILONOVA_JD - 1.9 / 24,
    )
    file = folder / "kn.avro"
    file.write_bytes(packet_bytes(packet))
    return file


@pytest.fixture(scope="module")
def slide(tmp_path_factory: pytest.TempPathFactory, shared_data: Path) -> dict[str, Any]:
    """The kilonova of the slide, run beside a built Mangrove."""
    folder = tmp_path_factory.mktemp("slide")
    root = folder / "d"
    alertmill("catalogs", "build", "mangrove", shared_data / "catalogs" / "mangrove.parquet", "--root", root)
    alertmill("run", str(NIGHT), "--survey", "ztf", "--input", kilonova(folder), "--root", root, "--direct", "--serial")
    (row,) = pipeline.open(root).science(NIGHT, luminosity=True).to_arrow().to_pylist()
    return row


def test_the_kilonova_of_the_slide_has_its_host(slide: dict[str, Any]) -> None:
    assert slide["host_catalog"] == "mangrove"
    assert slide["host_name"] == "NGC3052"
    assert slide["host_alias"] == "09542791-1838202"
    assert slide["host_distance_mpc"] == pytest.approx(57.2517, abs=1e-4)
    assert slide["host_distance_err_mpc"] is None  # unknown, not zero
    assert slide["host_separation_arcsec"] == pytest.approx(12.579, abs=1e-3)
    assert slide["host_separation_kpc"] == pytest.approx(3.432, abs=1e-3)


def test_its_absolute_magnitude_is_that_of_the_message(slide: dict[str, Any]) -> None:
    assert slide["lum_absolute_mag"] == pytest.approx(-15.539, abs=1e-3)
    assert slide["lum_is_extinction_corrected"] is False
    assert (slide["mjd"] - slide["first_mjd"]) * 24 == pytest.approx(1.9, abs=1e-3)


def test_the_nearest_of_mangrove_stands_beside_it(slide: dict[str, Any]) -> None:
    assert slide["is_mangrove_covered"] is True
    assert slide["xm_mangrove_hyperleda_name"] == "NGC3052"
    assert slide["xm_mangrove_ang_dist_mpc"] == pytest.approx(56.2777, abs=1e-4)
    assert slide["xm_mangrove_separation_arcsec"] == pytest.approx(slide["host_separation_arcsec"])


def test_maps_of_one_event_in_two_forms_answer_alike(tmp_path: Path, shared_data: Path) -> None:
    """S190425z, multi-order and flat: levels at any position of a table are equal."""
    table = tmp_path / "positions.csv"
    table.write_text("name,ra,dec\na,242.0,25.0\nb,240.5,32.1\nc,75.0,-30.0\nd,10.0,80.0\n")
    answers = []
    for name in ("LIGO_O3_S190425z_bayestar.fits", "LIGO_O3_S190425z_bayestar.fits.gz"):
        out = tmp_path / f"{name}.parquet"
        told = alertmill(
            "skymap", shared_data / "skymaps" / name, "--positions", table, "--out", out, "--json", "--root", tmp_path
        )
        json.loads(told)
        import pyarrow.parquet as pq

        answers.append(pq.read_table(out).to_pylist())
    for one, other in zip(*answers, strict=True):
        assert one["name"] == other["name"]
        assert one["credible_level"] == pytest.approx(other["credible_level"], abs=1e-9)
        assert one["probdensity"] == pytest.approx(other["probdensity"], rel=1e-5)


def test_the_density_told_is_that_which_the_map_ships(tmp_path: Path, shared_data: Path) -> None:
    """PROBDENSITY of the pixel that holds the position, in the map's own unit."""
    import healpy
    from astropy.io import fits

    file = shared_data / "skymaps" / "LIGO_O3_S190425z_bayestar.fits"
    table = tmp_path / "positions.csv"
    table.write_text("ra,dec\n242.0,25.0\n")
    alertmill("skymap", file, "--positions", table, "--out", tmp_path / "out.csv", "--root", tmp_path)
    header, row = (tmp_path / "out.csv").read_text().split()
    told = dict(zip(header.replace('"', "").split(","), row.split(","), strict=True))
    shipped = fits.getdata(file, 1)
    for order in range(12):
        uniq = healpy.ang2pix(1 << order, 242.0, 25.0, nest=True, lonlat=True) + (4 << (2 * order))
        found = shipped["PROBDENSITY"][shipped["UNIQ"] == uniq]
        if len(found):
            assert float(told["probdensity"]) == pytest.approx(float(found[0]), rel=1e-12)
            return
    raise AssertionError("no pixel holds the position")
