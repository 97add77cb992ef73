"""``alertmill skymap`` as its user meets it: the kilonova of GW170817 in an archive, files, pictures, bad input."""

from __future__ import annotations

import contextlib
import io
import json
import os
from pathlib import Path
from typing import Any

import followup_archive as sky
import galaxies
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy.table import Table

from pipeline import catalogs, healpix
from pipeline.cli import main
from pipeline.healpix.moc import parse_moc
from pipeline.skymap import make_skymap, region
from pipeline.skymaps import read_skymap, skymap_fits

T0 = 57982.528951727276
"""GW170817, TAI."""
KILONOVA = (197.45035, -23.38148)
MAP = "skymaps/gcn_gw170817_skymap.fits.gz"
NIGHTS = [*range(20170810, 20170832), 20170901]


def field_alerts(rng: np.random.Generator, night: int, size: int, first_id: int) -> pa.Table:
    """Alerts of the field, exposed strip by strip: right ascension 170 to 230 deg, declination -35 to -10 deg."""
    ra = np.sort(rng.uniform(170, 230, size)) % 360
    dec = np.degrees(np.arcsin(rng.uniform(np.sin(np.radians(-35)), np.sin(np.radians(-10)), size)))
    mjd = sky.start_of(night) + np.sort(rng.uniform(0.05, 0.45, size))
    ids = first_id + np.arange(size)
    first = np.where(rng.random(size) < 0.7, mjd - rng.uniform(30, 900, size), mjd)
    return sky.alerts_table(ids, [f"ZTFf{item}" for item in ids], ra, dec, mjd, first_mjd=first)


def special(key: str, alert_id: int, night: int, first_mjd: float, offset_arcsec: float = 0.0, **more: Any) -> pa.Table:
    place = [np.array([value]) for value in (KILONOVA[0], KILONOVA[1] + offset_arcsec / 3600)]
    mjd = np.array([sky.start_of(night) + 0.47])
    return sky.alerts_table(np.array([alert_id]), [key], *place, mjd, first_mjd=np.array([first_mjd]), **more)


def story_nights(per_night: int, part_rows: int, *, seed: int = 3) -> dict[int, list[pa.Table]]:
    """A variable since 2016, the kilonova from the night after the event, and the field."""
    rng = np.random.default_rng(seed)
    nights: dict[int, list[pa.Table]] = {}
    for night in (20160301, 20160705, 20170214):
        nights[night] = [special("ZTF16variable", night, night, 57448.47, 20.0)]
    for night in NIGHTS:
        if night == 20170813:
            nights[night] = []
            continue
        whole = field_alerts(rng, night, per_night, night * 10**6)
        tables = [whole.slice(at, part_rows) for at in range(0, per_night, part_rows)]
        tables[0] = pa.concat_tables([tables[0], special("ZTF16variable", night * 10 + 1, night, 57448.47, 20.0)])
        if 20170818 <= night <= 20170824:
            first = sky.start_of(20170818) + 0.47
            forced = {"forced_mjd": np.array([[T0 - 20, T0 + 0.4]]), "forced_snr": np.array([[3.0, 40.0]])}
            tables[-1] = pa.concat_tables([tables[-1], special("ZTF17kn", night * 10 + 2, night, first, **forced)])
        nights[night] = tables
    return nights


def build_hosts(folder: Path) -> None:
    """A catalog with the kilonova's galaxy at 40 Mpc, 2 kpc away, and others in the field."""
    rng = np.random.default_rng(4)
    n = 500
    table = {
        "name": ["NGC4993", *(f"PGC{i}" for i in range(1, n))],
        "ra": np.append(KILONOVA[0], rng.uniform(170, 230, n - 1)),
        "dec": np.append(KILONOVA[1] + 10.3 / 3600, rng.uniform(-35, -10, n - 1)),
        "lum_dist_mpc": np.append(40.0, rng.uniform(20, 400, n - 1)),
    }
    file = folder.parent / "galaxies.parquet"
    folder.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(table), file)
    catalogs.build(galaxies.declare("galaxies", given=("name", "lum_dist_mpc")), file, folder)


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("story") / "data"
    sky.write_archive(root, story_nights(300, 100))
    build_hosts(root / "catalogs" / "galaxies")
    return root


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No settings but those of a test: an empty working folder, no variable."""
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("ALERTMILL_") and "TEST" not in name]:
        monkeypatch.delenv(name)


def call(*arguments: object) -> tuple[int, str, str]:
    """Exit code, standard output and standard error of a command, in this process."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        main(["skymap", *(str(argument) for argument in arguments)])
    assert isinstance(ended.value.code, int)
    return ended.value.code, out.getvalue(), err.getvalue()


def search(*arguments: object) -> dict[str, Any]:
    code, out, err = call(*arguments, "--json")
    assert code == 0, err
    return json.loads(out)


# ------------------------------------------------------------------------------------------------- story 3
@pytest.fixture(scope="module")
def found(story: Path, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    folder = tmp_path_factory.mktemp("out")
    given = (shared_data / MAP, 20170810, 20170901, "--credible-level", 0.9, "--host", "--luminosity")
    out = ("--out", folder / "kn.parquet", "--plot", folder / "kn.png", "--moc", folder / "kn.fits")
    return search(*given, *out, "--root", story), folder


def test_the_kilonova_is_found_without_a_past_and_with_its_host(found: tuple[dict[str, Any], Path]) -> None:
    told, folder = found
    (event,) = told["events"]
    assert event["event"] == "gw170817"
    assert event["event_utc"] == "2017-08-17T12:41:04.429Z"
    assert event["area_deg2"]["0.9"] == pytest.approx(27.83, abs=0.01)
    best = event["candidates"][0]
    assert best["object_key"] == "ZTF17kn"
    assert best["credible_level"] == pytest.approx(0.0637, abs=1e-4)
    assert best["volume_level"] < 0.9
    assert (best["host_name"], best["host_distance_mpc"]) == ("NGC4993", 40.0)
    assert best["lum_absolute_mag"] == pytest.approx(22.15 - 33.01, abs=0.1)
    table = pq.read_table(folder / "kn.parquet")
    mine = table.filter(pc.equal(table["object_key"], "ZTF17kn"))
    assert mine.num_rows == 7
    for name in ("detection", "forced", "alert", "activity"):
        assert mine[f"has_prior_{name}"].to_pylist() == [False] * 7
    assert mine["delay_day"].to_pylist() == pytest.approx([0.941 + day for day in range(7)], abs=1e-3)
    assert mine["first_delay_day"].to_pylist() == pytest.approx([0.941] * 7, abs=1e-3)


def test_the_variable_beside_it_is_listed_with_its_past(found: tuple[dict[str, Any], Path]) -> None:
    told, folder = found
    table = pq.read_table(folder / "kn.parquet")
    mine = table.filter(pc.equal(table["object_key"], "ZTF16variable"))
    assert mine.num_rows == 22  # a night of the range has no alerts
    assert set(mine["has_prior_alert"].to_pylist()) == set(mine["has_prior_activity"].to_pylist()) == {True}
    assert set(mine["has_prior_forced"].to_pylist()) == {False}
    assert (
        "ZTF16variable" in [item["object_key"] for item in told["events"][0]["candidates"]]
        or told["events"][0]["prior_activity"]["yes"] >= 22
    )


def test_alerts_of_the_field_are_those_of_a_plain_look_up(story: Path, found: Any, shared_data: Path) -> None:
    table = pq.read_table(found[1] / "kn.parquet")
    ranges = region(read_skymap(shared_data / MAP), 0.9)
    every = pa.concat_tables(pq.read_table(file) for file in sorted(story.glob("ztf/science/main/night=2017*/*")))
    night = every["utc_date"].to_numpy()
    inside = healpix.in_ranges(ranges, every["healpix_29"].to_numpy()) & (night >= 20170810)
    expected = sorted(every.filter(pa.array(inside))["alert_id"].to_pylist())
    assert sorted(table["alert_id"].to_pylist()) == expected
    assert table["mjd"].to_pylist() == sorted(table["mjd"].to_pylist())


def test_what_was_covered_is_told_as_a_lower_bound(story: Path, found: Any, shared_data: Path) -> None:
    code, out, _ = call(shared_data / MAP, 20170810, 20170901, "--root", story)
    assert code == 0
    flat = " ".join(out.split())
    assert "a lower bound" in flat
    assert "probability covered by exposures since the event" in flat
    assert "2017-08-17 12:41:04.429 UTC" in flat
    assert "27.8 deg²" in flat
    coverage = found[0]["events"][0]["coverage_since_event"]
    assert coverage["is_lower_bound"]
    assert 0 < coverage["depths"][0]["probability"] < found[0]["events"][0]["coverage"]["depths"][0]["probability"] < 1


def test_only_parts_that_the_contour_touches_are_read(found: Any) -> None:
    read = found[0]["read"]
    assert read["nights"] == 23
    assert read["parts"] == 3 * 22
    assert 22 <= read["parts_found"] <= read["parts_opened"] < read["parts"]


def test_pictures_and_regions_are_written_whole(found: Any, shared_data: Path) -> None:
    told, folder = found
    assert (folder / "kn.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.array_equal(parse_moc((folder / "kn.fits").read_bytes()), region(read_skymap(shared_data / MAP), 0.9))
    assert sorted(item.name for item in folder.iterdir()) == ["kn.fits", "kn.parquet", "kn.png"]
    assert told["files"]["plot"] == [str(folder / "kn.png")]
