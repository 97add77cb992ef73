"""``alertmill skymap`` as its user meets it: the kilonova of GW170817 in an archive, files, pictures, bad input."""

from __future__ import annotations

import contextlib
import gzip
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
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from astropy.utils.exceptions import AstropyUserWarning
from test_notices import voevent

from pipeline import catalogs, healpix
from pipeline.cli import main
from pipeline.healpix.moc import parse_moc
from pipeline.skymap import SkyMap, make_skymap, region
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


@pytest.fixture(scope="module")
def real_map(shared_data: Path) -> SkyMap:
    return read_skymap(shared_data / MAP)


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
    assert set(mine["has_prior_forced"].to_pylist()) == {False, None}  # null: none measured before the event
    assert (
        "ZTF16variable" in [item["object_key"] for item in told["events"][0]["candidates"]]
        or told["events"][0]["prior_activity"]["yes"] >= 22
    )


def test_alerts_of_the_field_are_those_of_a_plain_look_up(story: Path, found: Any, real_map: SkyMap) -> None:
    table = pq.read_table(found[1] / "kn.parquet")
    ranges = region(real_map, 0.9)
    every = pa.concat_tables(pq.read_table(file) for file in sorted(story.glob("ztf/science/main/night=2017*/*")))
    night = every["utc_date"].to_numpy()
    inside = healpix.in_ranges(ranges, every["healpix_29"].to_numpy()) & (night >= 20170810)
    expected = sorted(every.filter(pa.array(inside))["alert_id"].to_pylist())
    assert sorted(table["alert_id"].to_pylist()) == expected
    assert table["mjd"].to_pylist() == sorted(table["mjd"].to_pylist())


def test_what_was_covered_is_told_as_a_lower_bound(story: Path, found: Any, small_map: Path) -> None:
    code, out, _ = call(small_map, 20170810, 20170901, "--root", story)
    assert code == 0
    flat = " ".join(out.split())
    assert "a lower bound" in flat
    assert "probability covered by exposures since the event" in flat
    assert "2017-08-17 12:41:04" in flat
    assert "90 % in " in flat
    coverage = found[0]["events"][0]["coverage_since_event"]
    assert coverage["is_lower_bound"]
    assert 0 < coverage["depths"][0]["probability"] < found[0]["events"][0]["coverage"]["depths"][0]["probability"] < 1


def test_only_parts_that_the_contour_touches_are_read(found: Any) -> None:
    read = found[0]["read"]
    assert read["nights"] == 23
    assert read["parts"] == 3 * 22
    assert 22 <= read["parts_found"] <= read["parts_opened"] < read["parts"]


def test_what_chance_would_do_is_told_beside(story: Path, small_map: Path, tmp_path: Path) -> None:
    given = (small_map, 20170810, 20170901, "--root", story, "--significance", "--out", tmp_path / "a.parquet")
    told = search(*given)
    (event,) = told["significance"]["events"]
    assert event["expected"] > 0
    table = pq.read_table(tmp_path / "a.parquet").filter(pc.field("object_key") == "ZTF17kn")
    assert 0 < pc.max(table["p_chance"]).as_py() < 1
    assert set(table["selection"].to_pylist()) <= {"bronze", "silver", "gold"}
    assert "unrelated new transients expected" in call(*given)[1]


def test_a_notice_given_as_a_file_has_its_own_stream(story: Path, tmp_path: Path) -> None:
    notice = tmp_path / "gbm.xml"
    notice.write_bytes(voevent(time="2017-08-17T12:41:06", date="2017-08-17T12:50:00"))
    told = search(notice, 20170810, 20170901, "--root", story, "--significance")
    assert told["significance"]["events"][0]["stream"] == "fermi-gbm"


def test_pictures_and_regions_are_written_whole(found: Any, real_map: SkyMap) -> None:
    told, folder = found
    assert (folder / "kn.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert np.array_equal(parse_moc((folder / "kn.fits").read_bytes()), region(real_map, 0.9))
    assert sorted(item.name for item in folder.iterdir()) == ["kn.fits", "kn.parquet", "kn.png"]
    assert told["files"]["plot"] == [str(folder / "kn.png")]


def test_flat_and_multi_order_forms_of_a_map_find_the_same(shared_data: Path, tmp_path: Path) -> None:
    files = [shared_data / "skymaps" / f"LIGO_O3_S190425z_bayestar.{end}" for end in ("fits", "fits.gz")]
    rng = np.random.default_rng(6)
    cells = rng.choice(healpix.cells_of_ranges(region(read_skymap(files[0]), 0.95), 9), 3_000)
    ra, dec = healpix.pix2ang(29, (cells << 40) + rng.integers(0, 1 << 40, 3_000))
    mjd = sky.start_of(20190426) + np.sort(rng.uniform(0.1, 0.4, 3_000))
    alerts = sky.alerts_table(np.arange(3_000), [f"ZTF{n}" for n in range(3_000)], ra, dec, mjd)
    root = sky.write_archive(tmp_path / "data", {20190426: [alerts]}).folder
    tables = []
    for name, file in zip(("multi", "flat"), files, strict=True):
        out = tmp_path / f"{name}.parquet"
        assert call(f"{name}={file}", 20190425, 20190430, "--root", root, "--out", out)[0] == 0
        tables.append(pq.read_table(out))
    one, two = tables
    assert 1_000 < one.num_rows < 3_000
    assert one["alert_id"].equals(two["alert_id"])
    assert one["credible_level"].to_pylist() == pytest.approx(two["credible_level"].to_pylist(), abs=1e-9)
    assert one["probdensity"].to_pylist() == pytest.approx(two["probdensity"].to_pylist(), rel=1e-5)


# ------------------------------------------------------------------------------------------- without real maps
@pytest.fixture(scope="module")
def small_map(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of 40 order-6 pixels around the kilonova."""
    centre = healpix.ang2pix(6, [KILONOVA[0]], [KILONOVA[1]])
    cells = np.unique(
        np.concatenate([centre, *healpix.neighbours(6, np.append(centre, healpix.neighbours(6, centre)))])
    )
    density = 1.0 / (2.0 + np.abs(cells - centre[0]))
    density /= (density * healpix.cell_area_deg2(6)).sum()
    made = make_skymap("s1", T0, cells << 46, (cells + 1) << 46, density)
    file = tmp_path_factory.mktemp("map") / "s1.fits"
    file.write_bytes(skymap_fits(made))
    return file


def test_several_maps_in_one_pass_write_a_picture_and_a_region_each(
    story: Path, small_map: Path, tmp_path: Path
) -> None:
    told = search(
        *(small_map, f"other={small_map}", 20170810, 20170901, "--root", story, "--out", tmp_path / "a.fits"),
        *("--plot", tmp_path / "a.png", "--moc", tmp_path / "a.json", "--window", 1, 3, "--credible-level", 1),
    )
    assert [item["event"] for item in told["events"]] == ["s1", "other"]
    assert [item["alerts"] for item in told["events"]] == [told["events"][0]["alerts"]] * 2
    names = ["a-other.json", "a-other.png", "a-s1.json", "a-s1.png", "a.fits"]
    assert sorted(item.name for item in tmp_path.iterdir()) == names
    with pytest.warns(AstropyUserWarning, match="NULL"):
        table = Table.read(tmp_path / "a.fits")
    assert list(table["event"]) == sorted(table["event"])
    assert max(table["delay_day"]) <= 3
    assert min(table["delay_day"]) >= -1
    assert np.array_equal(parse_moc((tmp_path / "a-s1.json").read_bytes()), region(read_skymap(small_map), 1.0))


def test_positions_need_no_archive_and_keep_every_row(small_map: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("who,ra,dec\na,197.45035,-23.38148\nb,,1\nc,10,10\n")
    code, out, err = call(small_map, "--positions", tmp_path / "t.csv", "--out", tmp_path / "t.vot")
    assert (code, err) == (0, "")
    assert "3 positions, 1 of them null" in out
    back = Table.read(tmp_path / "t.vot")
    assert list(back["who"]) == ["a", "b", "c"]
    assert back["credible_level"][0] < 0.5
    assert back["credible_level"].tolist()[1:] == [None, 1.0]
    shown = call(small_map, "--positions", tmp_path / "t.csv")[1]
    assert "197.45" in shown
    told = search(small_map, "--positions", tmp_path / "t.csv", "--plot", tmp_path / "t.png")
    assert (told["rows"], told["rows_without_position"]) == (3, 1)
    assert (tmp_path / "t.png").stat().st_size > 10_000


def test_an_event_of_the_archive_and_a_notice_are_maps_too(story: Path, shared_data: Path) -> None:
    notices = shared_data / "skymaps" / "lvk_alert_json"
    main_of = ["events", "add", str(notices / "MS181101ab-update.json.gz"), "--root", str(story)]
    with pytest.raises(SystemExit) as ended, contextlib.redirect_stdout(io.StringIO()):
        main(main_of)
    assert ended.value.code == 0
    notice = search(notices / "MS181101ab-update.json.gz", 20170810, 20170901, "--root", story)
    assert notice["events"][0]["event"] == "ms181101ab"
    code, _, err = call(notices / "MS181101ab-retraction.json", 20170810, 20170901, "--root", story)
    assert code == 2
    assert "was retracted" in err


def test_a_map_without_time_and_a_night_without_alerts(story: Path, small_map: Path, tmp_path: Path) -> None:
    made = read_skymap(small_map)
    timeless = make_skymap("never", None, made.start, made.stop, made.density_per_deg2)
    (tmp_path / "never.fits").write_bytes(skymap_fits(timeless))
    told = search(tmp_path / "never.fits", 20170810, 20170901, "--root", story)["events"][0]
    assert told["event_utc"] is None
    assert told["coverage_since_event"] is None
    assert told["prior_activity"] == {"yes": 0, "no": 0, "unknown": told["alerts"]}
    code, out, _ = call(small_map, 20170813, 20170813, "--root", story, "--plot", tmp_path / "none.png")
    assert code == 0
    assert "no alert within the contour" in out
    assert (tmp_path / "none.png").is_file()


def test_the_answer_is_the_same_bytes_again(story: Path, small_map: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        given = (small_map, 20170810, 20170901, "--root", story, "--out", tmp_path / f"{name}.parquet")
        assert call(*given, "--plot", tmp_path / f"{name}.png", "--host")[0] == 0
    for suffix in ("parquet", "png"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


NOTICE = """<VOEvent ivorn="ivo://x/Fermi#GBM_Flt_Pos_1" role="observation">
<Who><Date>2017-08-17T12:42:00</Date></Who><What><Param name="TrigID" value="7"/></What>
<WhereWhen><ObsDataLocation><ObservationLocation><AstroCoords>
<Time><TimeInstant><ISOTime>2017-08-17T12:41:06</ISOTime></TimeInstant></Time>
<Position2D><Value2><C1>197.4</C1><C2>-23.4</C2></Value2><Error2Radius>3</Error2Radius></Position2D>
</AstroCoords></ObservationLocation></ObsDataLocation></WhereWhen></VOEvent>"""


def test_a_notice_is_known_by_its_bytes_and_its_name_is_made_safe(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ra,dec\n197.4,-23.4\n")
    (tmp_path / "note.txt").write_text("\n" + NOTICE)
    (tmp_path / "note.txt.gz").write_bytes(gzip.compress(NOTICE.encode()))
    table = ("--positions", "t.csv", "--plot", "p.png")
    for given, named in (("note.txt", "gbm7"), ("note.txt.gz", "gbm7"), ("Q 1/../x=./note.txt", "q_1_x")):
        assert [item["event"] for item in search(given, *table)["events"]] == [named]
    follow_up = NOTICE.replace("x/Fermi#GBM_Flt_Pos_1", "x/SWIFT#XRT_Pos_1")  # the time is when XRT observed
    (tmp_path / "xrt.xml").write_text(follow_up)
    assert search("xrt.xml", *table)["events"][0]["event_utc"] is None
    search("A/../b=note.txt", "C=note.txt.gz", *table)
    assert {item.name for item in tmp_path.glob("p-*")} == {"p-a_b.png", "p-c.png"}


def test_nights_before_a_table_do_not_matter(small_map: Path, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("ra,dec\n197.45035,-23.38148\n")
    told = search(small_map, 20170810, 20170901, "--positions", "t.csv")
    assert told == search(small_map, "--positions", "t.csv")


BAD = {
    "S1 20170810 20170901": "S1 is neither a file nor an event",
    "MAP 20170902 20170901": "20170902 is after 20170901",
    "MAP 20170810": "a map, the first and the last night are needed",
    "MAP 20170810 tomorrow": "'tomorrow' is not a night",
    "damaged.fits 20170810 20170901": "damaged.fits",
    "MAP 20170810 20170901 --root nowhere": "root nowhere does not exist",
    "MAP 20170810 20170901 --root empty": "empty holds no archive",
    "MAP 20170810 20170901 --survey lsst": "survey 'lsst' is not in the archive",
    "MAP 20170810 20170901 --release w2": "release 'w2'",
    "MAP 20170810 20170901 --credible-level 0": "--credible-level 0 is not",
    "MAP 20170810 20170901 --credible-level 1.5": "--credible-level 1.5 is not",
    "MAP 20170810 20170901 --out a.xlsx": "form of --out a.xlsx is not known",
    "MAP 20170810 20170901 --out no/a.csv": "folder no of --out does not exist",
    "MAP 20170810 20170901 --plot a.gif": "form of --plot a.gif",
    "MAP 20170810 20170901 --moc a.txt": "form of --moc a.txt",
    "MAP 20170810 20170901 --window -3 1": "window -3 1 is empty",
    "MAP 20170810 20170901 --catalog nothing": "no built catalog",
    "MAP MAP 20170810 20170901": "two maps are of event s1",
    "MAP --positions wrong.csv": "the table has no column dec",
    "MAP --positions none.csv": "table none.csv does not exist",
    "MAP 20170810 --positions wrong.csv": "20170810 is neither a file nor an event",
    "=note.xml 20170810 20170901": "=note.xml names no event",
    "MAP --positions wrong.csv --host": "--host is for a search",
}


@pytest.mark.parametrize("given", BAD)
def test_bad_input_is_one_clear_line(story: Path, small_map: Path, tmp_path: Path, given: str) -> None:
    (tmp_path / "damaged.fits").write_bytes(small_map.read_bytes()[:6_000])
    (tmp_path / "wrong.csv").write_text("ra,decl\n1,2\n")
    (tmp_path / "note.xml").write_text(NOTICE)
    (tmp_path / "empty").mkdir()
    before = sorted(item.name for item in tmp_path.iterdir())
    arguments = [str(small_map) if word == "MAP" else word for word in given.split()]
    root = [] if "--root" in given else ["--root", str(story)]
    code, out, err = call(*arguments, *root)
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 1, err
    assert lines[0].startswith("alertmill: ")
    assert BAD[given] in lines[0]
    assert "Traceback" not in err
    assert sorted(item.name for item in tmp_path.iterdir()) == before
