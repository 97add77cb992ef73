"""The reading API against a synthetic archive, with brute force over the tables as oracle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from astropy import units as u
from astropy.coordinates import SkyCoord
from synthetic_archive import ALERTS, FIRST_ID, SCIENCE, write_archive, write_night

import pipeline
from pipeline.archive import Archive
from pipeline.errors import InputError, PartError, StoreError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("archive")
    write_archive(path)
    return path


@pytest.fixture
def archive(folder: Path) -> Archive:
    return pipeline.open(folder)


def everything(folder: Path, dataset: str = "science") -> pa.Table:
    """Every row on disk, read without the API."""
    tables = []
    for path in sorted((folder / "ztf").glob(f"{dataset}/**/*.parquet")):
        table = pq.ParquetFile(path).read()
        night = int(path.parent.name.removeprefix("night="))
        tables.append(table.append_column("night", pa.array([night] * table.num_rows, pa.int32())))
    return pa.concat_tables(tables)


def test_what_is_there(archive: Archive) -> None:
    assert archive.surveys == ["ztf"]
    assert archive.nights() == [20181129, 20181130, 20181202]
    assert archive.ledger(20181129)["counts"]["written"] == 70
    assert archive.ledger("2018-11-30")["night"] == "20181130"
    assert archive.releases() == ["main"]
    assert "ztf: 3 nights" in repr(archive)


def test_all_of_science_equals_the_files(archive: Archive, folder: Path) -> None:
    got = archive.science().to_arrow()
    assert got.schema.names == [*SCIENCE.names, "night"]
    assert got.schema.field("night").type == pa.int32()
    assert got.schema.field("mjd").metadata[b"unit"] == b"d"
    assert got.equals(everything(folder))
    assert archive.science().count() == 90


@pytest.mark.parametrize(
    ("nights", "rows"),
    [
        (20181129, 70),
        ("20181130", 20),
        ("20181129:20181130", 90),
        ("20181130:", 20),
        (":20181129", 70),
        ("20190101:20190201", 0),
        ([20181129, "2018-12-02"], 70),
        (np.int64(20181130), 20),
        (20181202, 0),
        ([], 0),
    ],
)
def test_nights(archive: Archive, nights: object, rows: int) -> None:
    selection = archive.science(nights)
    assert selection.count() == selection.to_arrow().num_rows == rows
    assert selection.to_arrow().schema.names == [*SCIENCE.names, "night"]


@pytest.mark.parametrize("nights", ["20181301", "yesterday", "20181130:20181129", 20181201, 1.5])
def test_nights_that_cannot_be(archive: Archive, nights: object) -> None:
    with pytest.raises(InputError):
        archive.science(nights)  # type: ignore[arg-type]


def test_columns_and_condition(archive: Archive, folder: Path) -> None:
    where = (pc.field("diff_mag") < 17) & (pc.field("night") == 20181129)
    got = archive.science(columns=["night", "alert_id"], where=where)
    full = everything(folder)
    expected = full.filter(pc.and_(pc.less(full["diff_mag"], 17), pc.equal(full["night"], 20181129)))
    assert got.to_arrow().equals(expected.select(["night", "alert_id"]))
    assert got.count() == expected.num_rows > 0
    assert sum(batch.num_rows for batch in got.batches()) == expected.num_rows


def test_null_does_not_pass_a_condition(archive: Archive, folder: Path) -> None:
    below = archive.science(where=pc.field("clf_demo_score") < 0.5).count()
    above = archive.science(where=~(pc.field("clf_demo_score") < 0.5)).count()
    assert below + above == 90 - everything(folder)["clf_demo_score"].null_count


@pytest.mark.parametrize("radius", [0.0, 0.3, 2.5, 15.0, 180.0])
@pytest.mark.parametrize("centre", [(0.0, 20.0), (9.0, 21.0), (359.5, 19.0), (40.0, 90.0), (200.0, -45.0)])
@pytest.mark.parametrize("dataset", ["science", "raw"])
def test_cone_equals_astropy(
    archive: Archive, folder: Path, centre: tuple[float, float], radius: float, dataset: str
) -> None:
    full = everything(folder)
    sky = SkyCoord(full["ra"].to_numpy(), full["dec"].to_numpy(), unit="deg")
    inside = sky.separation(SkyCoord(*centre, unit="deg")).deg <= radius
    selection = getattr(archive, dataset)(columns=["alert_id"], cone=(*centre, radius))
    assert selection.to_arrow()["alert_id"].to_pylist() == full["alert_id"].filter(pa.array(inside)).to_pylist()
    assert selection.count() == inside.sum()


def test_cone_opens_only_what_it_touches(archive: Archive) -> None:
    assert len(archive.science().files) == 3
    assert len(archive.science(cone=(10.0, 20.0, 0.5)).files) == 1
    assert archive.science(cone=(200.0, -60.0, 1.0)).files == []
    assert archive.science(cone=(200.0, -60.0, 1.0)).to_arrow().num_rows == 0


def test_cone_takes_angles(archive: Archive) -> None:
    row = archive.science(20181130, columns=["alert_id", "ra", "dec"]).to_arrow().slice(4, 1).to_pylist()[0]
    for radius in (1 * u.arcsec, 1 / 3600):
        got = archive.science(cone=(row["ra"] * u.deg, row["dec"] + 0.5 / 3600, radius), columns=["alert_id"])
        assert got.to_arrow()["alert_id"].to_pylist() == [row["alert_id"]]
    assert archive.science(cone=(row["ra"], row["dec"] + 1.5 / 3600, 1 * u.arcsec)).count() == 0


@pytest.mark.parametrize("cone", [(1, 2), (1, 91, 1), (1, 2, -1), (float("nan"), 0, 1), "m31", (0, 0, 1 * u.m), 3])
def test_cones_that_cannot_be(archive: Archive, cone: object) -> None:
    with pytest.raises(InputError, match="cone"):
        archive.science(cone=cone)


def test_times(archive: Archive, folder: Path) -> None:
    full = everything(folder)["mjd"].to_numpy()
    low, high = np.quantile(full, [0.3, 0.6])
    for first, last in ((low, high), (None, low), (high, None), (None, None)):
        expected = ((full >= (first or 0)) & (full <= (last or 1e9))).sum()
        for selection in (archive.science(mjd=(first, last)), archive.raw(mjd=(first, last))):
            assert selection.count() == selection.to_arrow().num_rows == expected
    assert len(archive.science(mjd=(58451.0, 58451.31)).files) == 1
    with pytest.raises(InputError, match="time range"):
        archive.science(mjd=58451.0)


def test_raw_condition_speaks_native(archive: Archive, folder: Path) -> None:
    got = archive.raw(where=pc.field("candidate", "magpsf") < 17, cone=(0.0, 20.0, 30.0)).to_arrow()
    full, science = everything(folder, "raw"), everything(folder)
    sky = SkyCoord(science["ra"].to_numpy(), science["dec"].to_numpy(), unit="deg")
    inside = pa.array(sky.separation(SkyCoord(0, 20, unit="deg")).deg <= 30)
    bright = pc.less(pc.struct_field(full["candidate"], "magpsf"), 17)
    assert got.equals(full.filter(pc.and_(bright, inside)))
    assert 0 < got.num_rows < pc.sum(bright).as_py()


def test_every_library_sees_the_same(archive: Archive) -> None:
    where = pc.field("filter_bright")
    for cone in (None, (5.0, 20.0, 8.0)):
        selection = archive.science(
            columns=["alert_id", "night", "diff_mag", "xm_galaxies_name"], where=where, cone=cone
        )
        table = selection.to_arrow()
        assert table.num_rows
        frame = selection.to_pandas()
        assert frame["alert_id"].dtype == pd.ArrowDtype(pa.int64())
        assert frame["alert_id"].tolist() == table["alert_id"].to_pylist()
        assert selection.to_polars().to_arrow()["alert_id"].to_pylist() == table["alert_id"].to_pylist()
        relation = selection.to_duckdb()
        assert relation.columns == table.column_names
        assert sorted(relation.fetchall()) == sorted(tuple(row.values()) for row in table.to_pylist())
        assert len(relation.filter("night = 20181129").fetchall()) <= table.num_rows  # it can be read again
    assert table["alert_id"][0].as_py() > 2**53


def test_duckdb_in_a_connection_of_ones_own(archive: Archive) -> None:
    with duckdb.connect() as connection:
        relation = archive.science().to_duckdb(connection)
        assert relation.aggregate("night, count(*) AS n", "night").order("night").fetchall() == [
            (20181129, 70),
            (20181130, 20),
        ]
        assert archive.science(20181202).to_duckdb(connection).fetchall() == []


def test_light_curves(archive: Archive, folder: Path) -> None:
    selection = archive.science(columns=["diff_mag"], where=pc.field("filter_bright"))
    nested = selection.light_curves(upper_limits=True)
    assert nested.column_names == ["diff_mag", "light_curve", "upper_limits"]
    full = everything(folder, "alerts")
    expected = full.filter(pc.less(full["diff_mag"], 17))
    assert nested["light_curve"].to_pylist() == expected["light_curve"].to_pylist()
    assert nested["upper_limits"].to_pylist() == expected["upper_limits"].to_pylist()
    assert archive.alerts(columns=["alert_id", "light_curve"]).light_curves().num_rows == 90
    empty = archive.science(20181202).light_curves()
    assert empty.num_rows == 0
    assert empty.schema.field("light_curve").type == ALERTS.field("light_curve").type


def test_light_curve_of_one_alert(archive: Archive, folder: Path) -> None:
    full = everything(folder, "alerts")
    row = full.slice(55, 1).to_pylist()[0]
    got = archive.light_curve(row["alert_id"])
    assert got.to_pydict() == row["light_curve"]
    assert got.schema.field("flux_njy").metadata[b"unit"] == b"nJy"
    assert archive.upper_limits(row["alert_id"], nights=20181129).to_pydict() == row["upper_limits"]
    with pytest.raises(InputError, match="no alerts for alert 7"):
        archive.light_curve(7)
    with pytest.raises(InputError):
        archive.light_curve(row["alert_id"], nights=20181130)


def test_cutouts_by_id(archive: Archive, folder: Path) -> None:
    full = everything(folder, "cutouts").drop_columns("night")
    rows = [69, 0, 85, 33, 2, 0]
    ids = [full["alert_id"][row].as_py() for row in rows]
    got = archive.cutouts(ids)
    assert got.equals(full.take(rows))
    assert got["cutoutScience"][4].as_py() is None
    assert archive.cutouts(ids[0]).num_rows == 1
    with pytest.raises(InputError, match=r"no cutouts for alert 1, 2, 3 \.\.\."):
        archive.cutouts([1, 2, 3, 4])
    with pytest.raises(InputError):
        archive.cutouts([])


def test_other_datasets(archive: Archive) -> None:
    assert archive.exposures(20181129).count() == 4
    assert archive.links().to_arrow()["night"].to_pylist() == [20181129] * 5 + [20181130] * 5
    assert archive.rejects(20181202).to_arrow().num_rows == 0
    assert archive.rejects().to_arrow()["night"].null_count == 4  # their own nights could not be read
    assert archive.provenance().count() == 90
    assert "light_curve" in archive.alerts().schema.names


def test_unknown_columns_name_what_is_near(archive: Archive) -> None:
    with pytest.raises(InputError, match=r"no column 'diffmag'.*did you mean diff_mag"):
        archive.science(columns=["diffmag"])
    with pytest.raises(InputError, match=r"no column 'reliabilty'.*reliability"):
        archive.science(where=pc.field("reliabilty") > 0.5)
    with pytest.raises(InputError, match="twice"):
        archive.science(columns=["ra", "ra"])
    with pytest.raises(InputError, match="not a condition"):
        archive.science(where="ra < 5")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="cannot be used"):
        archive.science(where=pc.field("band") < 5)


def test_strays_are_not_read(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    some = next((tmp_path / "copy/ztf/science/main/night=20181129").glob("*.parquet"))
    shutil.copy(some, some.with_name("part-stray.parquet"))
    archive = pipeline.open(tmp_path / "copy")
    assert archive.science().to_arrow().num_rows == 90
    some.unlink()
    with pytest.raises(PartError, match="ledger lists"):
        archive.science().to_arrow()


def test_roots_that_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        pipeline.open(tmp_path / "nothing")
    (tmp_path / "plain").mkdir()
    with pytest.raises(InputError, match="no archive"):
        pipeline.open(tmp_path / "plain")
    (tmp_path / "newer").mkdir()
    (tmp_path / "newer/root.json").write_text('{"layout": 99}')
    with pytest.raises(StoreError, match="layout 99"):
        pipeline.open(tmp_path / "newer")


def test_an_archive_without_nights(tmp_path: Path) -> None:
    write_archive(tmp_path, {})
    archive = pipeline.open(tmp_path)
    assert archive.surveys == archive.nights() == []
    selection = archive.science(columns=["alert_id", "night"], cone=(1, 2, 3))
    assert selection.to_arrow().schema.names == ["alert_id", "night"]
    assert selection.count() == len(selection.to_pandas()) == selection.to_polars().height == 0
    assert selection.to_duckdb().fetchall() == []
    with pytest.raises(InputError, match="run `alertmill run`"):
        archive.ledger(20181129)


def test_two_surveys_are_told_apart(tmp_path: Path) -> None:
    root = write_archive(tmp_path, {20181129: [5]})
    write_night(root, "lsst", 20260309, [7])
    archive = pipeline.open(tmp_path)
    assert archive.nights() == [20181129, 20260309]
    assert archive.nights("lsst") == [20260309]
    with pytest.raises(InputError, match="lsst, ztf"):
        archive.science()
    assert archive.science(survey="lsst").count() == 7
    assert pipeline.open(tmp_path, survey="ztf").science().count() == 5
    for call in (lambda: archive.science(survey="atlas"), lambda: pipeline.open(tmp_path, survey="atlas")):
        with pytest.raises(InputError, match="atlas"):
            call()


def test_releases(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    archive = pipeline.open(tmp_path / "copy")
    with pytest.raises(InputError, match="release 'w2'"):
        archive.science(release="w2")
    releases = tmp_path / "copy/ztf/science/releases.json"
    releases.write_text(json.dumps({"best": "main"}))
    assert archive.science(release="best").count() == 90
    assert archive.science().count() == 90


def test_a_release_schema_fills_old_nights_with_null(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    wider = SCIENCE.append(pa.field("feat_r_new", pa.float32()))
    path = tmp_path / "copy/ztf/science/main/_schema.arrow"
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, wider):
        pass
    got = pipeline.open(tmp_path / "copy").science(columns=["alert_id", "feat_r_new", "night"]).to_arrow()
    assert got["feat_r_new"].null_count == got.num_rows == 90
    path.write_bytes(b"")
    with pytest.raises(StoreError, match="schema of release main"):
        pipeline.open(tmp_path / "copy").science()


def test_a_rerun_is_seen_at_once(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "copy")
    archive = pipeline.open(tmp_path / "copy")
    assert archive.science(20181202).count() == 0
    write_night(archive._root, "ztf", 20181202, [6], number=2)
    assert archive.science(20181202).count() == 6
    assert archive.science(20181202).to_arrow()["alert_id"][0].as_py() == FIRST_ID + 20181202 * 1000
