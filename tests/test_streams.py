"""Other streams: a user's table against the archive, two surveys both ways; brute force is the oracle."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import synthetic_archive
from astropy.table import Table
from xmatch_oracle import brute_force

from pipeline import healpix
from pipeline.archive import Archive, open_archive
from pipeline.archive.pruning import Part
from pipeline.errors import InputError
from pipeline.store.root import open_root
from pipeline.streams import Stream, Targets, match_streams, match_table, read_targets, reading
from pipeline.xmatch import build_index, julian_epoch, propagate

NIGHTS = {"ztf": {20181129: [40, 40], 20181130: [40, 40], 20181203: [30]}, "lsst": {20181129: [50, 20], 20181201: [60]}}
OBJECTS = 24
ARCSEC = 1 / 3600


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Archive:
    """Two surveys that see the same objects: even parts around RA 0, odd ones close to the southern pole."""
    plain = synthetic_archive.alerts_table

    def alerts_of_objects(rng: np.random.Generator, rows: int, **given: Any) -> pa.Table:
        table = plain(rng, rows, **given)
        of = rng.integers(0, OBJECTS, rows)
        places = np.random.default_rng(given["index"] % 2)
        ra = (places.normal(0, 0.01, OBJECTS)[of] + rng.normal(0, 0.4 * ARCSEC, rows)) % 360
        dec = places.normal(0, 0.01, OBJECTS)[of] + rng.normal(0, 0.4 * ARCSEC, rows)
        if given["index"] % 2:
            ra, dec = ra * 500 % 360, dec - 89.9
        values: dict[str, Any] = {"ra": ra, "dec": dec, "healpix_29": healpix.ang2pix(29, ra, dec)}
        values["object_key"] = [f"object {given['index'] % 2} {number}" for number in of]
        values["n_detections"] = np.arange(rows, dtype=np.int32)
        for name, column in values.items():
            at = table.schema.get_field_index(name)
            table = table.set_column(at, table.schema.field(at), pa.array(column))
        return table

    folder = tmp_path_factory.mktemp("streams")
    root = open_root(folder, create=True)
    patch = pytest.MonkeyPatch()
    patch.setattr(synthetic_archive, "alerts_table", alerts_of_objects)
    for seed, (survey, nights) in enumerate(NIGHTS.items()):
        for night, sizes in nights.items():
            number = (date(night // 10000, night // 100 % 100, night % 100) - date(2018, 11, 29)).days
            synthetic_archive.write_night(root, survey, night, sizes, number=number, seed=seed)
    patch.undo()
    return open_archive(folder)


def alerts_of(archive: Archive, survey: str, start: int = 0, stop: int = 99999999) -> pa.Table:
    nights = [night for night in archive.nights(survey) if start <= night <= stop]
    return archive.science(nights, columns=reading.COLUMNS, survey=survey).to_arrow()


def _targets(archive: Archive, rng: np.random.Generator, n: int = 60) -> tuple[np.ndarray, np.ndarray]:
    alerts = pa.concat_tables([alerts_of(archive, survey) for survey in NIGHTS])
    row = rng.integers(0, len(alerts), n)
    ra, dec = (alerts.column(name).to_numpy()[row] for name in ("ra", "dec"))
    ra = ra + rng.normal(0, 0.5 * ARCSEC, n) / np.cos(np.radians(dec))
    dec = np.clip(dec + rng.normal(0, 0.5 * ARCSEC, n), -90, 90)
    ra[:3], dec[:3] = [np.nan, 10.0, 180.0], [0.0, np.nan, 60.0]
    return ra, dec


@pytest.mark.parametrize("kind", ["one radius", "own radii", "moving"])
def test_every_alert_of_every_row(kind: str, archive: Archive, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    ra, dec = _targets(archive, rng)
    n = len(ra)
    radius = np.array([1.5]) if kind == "one radius" else rng.uniform(0.1, 400, n) * (rng.random(n) < 0.9)
    radius = np.where(radius == 0.0, np.nan, radius)
    motion: dict[str, Any] = {}
    if kind == "moving":
        motion = {"pmra": rng.normal(0, 3000, n), "pmdec": rng.normal(0, 3000, n), "epoch": 2016.0}
        motion["pmra"][5] = np.nan
    ids = pa.chunked_array([[f"t{row}" for row in range(n)]])
    told = match_table(
        archive, ["ztf", "lsst"], Targets(ra, dec, radius, ids, **motion), 20181129, 20181201, tmp_path / "out.parquet"
    )
    out = pq.read_table(tmp_path / "out.parquet")
    found = set()
    alerts = [alerts_of(archive, survey, 20181129, 20181201) for survey in ("ztf", "lsst")]
    for survey, table in zip(("ztf", "lsst"), alerts, strict=True):
        for alert in table.to_pylist():
            here = (ra, dec)
            if motion:
                here = propagate(ra, dec, motion["pmra"], motion["pmdec"], julian_epoch(alert["mjd"]) - 2016.0)
            index, rows = build_index(*here)
            own = np.broadcast_to(radius, n)[rows]
            pairs = brute_force(
                np.array([alert["ra"]]), np.array([alert["dec"]]), np.array([1e6]), index, np.nan_to_num(own, nan=-1)
            )
            found |= {
                (survey, alert["alert_id"], int(rows[row]), apart, len(pairs))
                for row, apart in zip(pairs.row, pairs.separation_arcsec, strict=True)
            }
    names = ("survey", "alert_id", "row", "separation_arcsec", "n_neighbours")
    ours = list(zip(*(out[name].to_pylist() for name in names), strict=True))
    assert len(set(ours)) == len(ours) == told.pairs
    assert set(ours) == found
    assert out["id"].to_pylist() == [f"t{row}" for row in out["row"].to_pylist()]
    assert told.rows_without_position == 2
    assert told.rows_matched == len({item[2] for item in ours}) > 30
    assert told.alerts_matched == len({item[:2] for item in ours}) <= told.alerts_read == sum(map(len, alerts))
    tables = dict(zip(("ztf", "lsst"), alerts, strict=True))
    by_id = {(survey, row["alert_id"]): row for survey, table in tables.items() for row in table.to_pylist()}
    for row in out.to_pylist():
        for name in ("night", "object_key", "ra", "dec", "mjd", "band", "diff_mag"):
            assert row[name] == by_id[row["survey"], row["alert_id"]][name]


def test_only_parts_that_the_table_touches_are_read(archive: Archive, tmp_path: Path) -> None:
    one = Targets(np.array([0.0]), np.array([0.0]), np.array([60.0]))
    told = match_table(archive, ["ztf"], one, 20181129, 20181203, tmp_path / "out.parquet")
    assert (told.parts_read, told.parts) == (3, 5)
    nowhere = Targets(np.array([180.0, np.nan]), np.array([40.0, 0.0]), np.array([60.0]))
    told = match_table(archive, ["ztf"], nowhere, 20181129, 20181203, tmp_path / "out.parquet")
    assert (told.parts_read, told.pairs, told.rows_without_position) == (0, 0, 1)
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0
    beyond = Targets(np.array([0.0]), np.array([3.0]), np.array([4 * 3600.0]))  # farther than a neighbouring cell
    told = match_table(archive, ["ztf"], beyond, 20181129, 20181203, tmp_path / "out.parquet")
    assert told.pairs == 110


def test_files_are_the_same_bytes_again(archive: Archive, tmp_path: Path) -> None:
    targets = Targets(*_targets(archive, np.random.default_rng(2)), np.array([2.0]))
    files = []
    for name in ("a", "b"):
        match_table(archive, ["ztf"], targets, 20181129, 20181203, tmp_path / f"{name}.parquet")
        match_streams(Stream(archive, "ztf"), Stream(archive, "lsst"), 20181129, 20181203, tmp_path / name)
        files.append([(tmp_path / f"{name}.parquet").read_bytes()])
        files[-1] += [item.read_bytes() for item in sorted((tmp_path / name).iterdir())]
    assert files[0] == files[1]
    assert sorted(item.name for item in tmp_path.iterdir()) == ["a", "a.parquet", "b", "b.parquet"]


# ------------------------------------------------------------------------------------------------ both ways
def _apart(alerts: pa.Table, others: pa.Table) -> np.ndarray:
    ra, dec, other_ra, other_dec = (
        np.radians(table.column(name).to_numpy()) for table in (alerts, others) for name in ("ra", "dec")
    )
    haversine = np.sin((dec[:, None] - other_dec) / 2) ** 2
    haversine += np.cos(dec)[:, None] * np.cos(other_dec) * np.sin((ra[:, None] - other_ra) / 2) ** 2
    return np.degrees(2 * np.arcsin(np.sqrt(haversine))) * 3600


def _days(night: int) -> int:
    return date(night // 10000, night // 100 % 100, night % 100).toordinal()


def _one_way(mine: pa.Table, others: pa.Table, radius: float, apart_days: int, ahead: float) -> dict[int, tuple]:
    """What every alert gets, alert by alert."""
    apart = _apart(mine, others)
    theirs = others.to_pylist()
    out = {}
    for i, alert in enumerate(mine.to_pylist()):
        eligible = [
            j
            for j in np.flatnonzero(apart[i] <= radius)
            if abs(_days(theirs[j]["night"]) - _days(alert["night"])) <= apart_days
            and theirs[j]["mjd"] <= alert["mjd"] + ahead
        ]
        if eligible:
            best = theirs[min(eligible, key=lambda j: apart[i, j])]
            same = [theirs[j] for j in eligible if theirs[j]["object_key"] == best["object_key"]]
            last = max(same, key=lambda row: row["mjd"])
            out[alert["alert_id"]] = (
                *(best[name] for name in ("alert_id", "night", "mjd", "object_key")),
                *(last[name] for name in ("n_detections", "mjd", "band", "diff_mag")),
                len(eligible),
                len({theirs[j]["object_key"] for j in eligible}),
            )
    return out


_COMPARED = (
    *("other_alert_id", "other_night", "other_mjd", "other_object_key", "other_n_detections", "other_last_mjd"),
    *("other_last_band", "other_last_mag", "n_other_alerts", "n_other_objects"),
)


@pytest.mark.parametrize(
    ("nights_apart", "ahead", "radius"), [(0, 0.0, 2.0), (0, 1.0, 2.0), (1, 0.0, 20.0), (2, 0.05, 60.0), (9, 30.0, 1.0)]
)
def test_both_ways_equal_brute_force(
    nights_apart: int, ahead: float, radius: float, archive: Archive, tmp_path: Path
) -> None:
    first, second = Stream(archive, "ztf"), Stream(archive, "lsst")
    start, stop = 20181129, 20181201
    options = {"radius_arcsec": radius, "nights_apart": nights_apart, "look_ahead_day": ahead}
    told = match_streams(first, second, start, stop, tmp_path / "out", **options)
    everything = {survey: alerts_of(archive, survey) for survey in NIGHTS}
    asked = {survey: alerts_of(archive, survey, start, stop) for survey in NIGHTS}
    for name, mine, other in (("forward", "ztf", "lsst"), ("backward", "lsst", "ztf")):
        out = pq.read_table(tmp_path / "out" / f"{name}.parquet")
        theirs = _one_way(asked[mine], everything[other], radius, nights_apart, ahead)
        assert out["alert_id"].to_pylist() == [item for item in asked[mine]["alert_id"].to_pylist() if item in theirs]
        ours = zip(*(out[column].to_pylist() for column in _COMPARED), strict=True)
        assert dict(zip(out["alert_id"].to_pylist(), ours, strict=True)) == theirs
        assert len(theirs) == getattr(told, name) > 0
        assert (out["separation_arcsec"].to_numpy() <= radius).all()
        assert (out["other_mjd"].to_numpy() <= out["mjd"].to_numpy() + ahead).all()
    met: dict[tuple[str, str], list] = {}
    apart = _apart(asked["ztf"], everything["lsst"])
    mine, others = asked["ztf"].to_pylist(), everything["lsst"].to_pylist()
    for i, j in np.argwhere(apart <= radius):
        if abs(_days(mine[i]["night"]) - _days(others[j]["night"])) <= nights_apart:
            met.setdefault((mine[i]["object_key"], others[j]["object_key"]), []).append((apart[i, j], mine[i]["night"]))
    pairs = pq.read_table(tmp_path / "out" / "pairs.parquet")
    assert list(zip(pairs["object_key"].to_pylist(), pairs["other_object_key"].to_pylist(), strict=True)) == sorted(met)
    for row, key in zip(pairs.to_pylist(), sorted(met), strict=True):
        assert row["separation_arcsec"] == pytest.approx(min(item[0] for item in met[key]), rel=1e-7, abs=1e-7)
        assert row["nights"] == sorted({item[1] for item in met[key]})
        assert row["n_alert_pairs"] == len(met[key])
    assert told.object_pairs == len(met)


def test_nights_that_the_other_stream_has_not_are_told(archive: Archive, tmp_path: Path) -> None:
    told = match_streams(Stream(archive, "ztf"), Stream(archive, "lsst"), 20181129, 20181203, tmp_path / "out")
    assert told.nights_alone == (20181130, 20181203)
    assert told.other_nights_alone == (20181201,)
    assert told.alerts == 190
    assert told.other_alerts == 130


def test_a_stream_is_not_matched_with_itself(archive: Archive, tmp_path: Path) -> None:
    ztf, lsst = Stream(archive, "ztf"), Stream(archive, "lsst")
    with pytest.raises(InputError, match="matched with itself"):
        match_streams(ztf, Stream(open_archive(archive.root), "ztf"), 20181129, 20181130, tmp_path / "out")
    for options, told in (
        ({"radius_arcsec": 0.0}, "radius of 0"),
        ({"radius_arcsec": 7200.0}, "at most 1968"),
        ({"nights_apart": -1}, "from 0 to 36525"),
        ({"look_ahead_day": float("nan")}, "look ahead one from 0 on"),
    ):
        with pytest.raises(InputError, match=told):
            match_streams(ztf, lsst, 20181129, 20181130, tmp_path / "out", **options)
    with pytest.raises(InputError, match="lsst has no night from 20181203"):
        match_streams(ztf, lsst, 20181203, 20181203, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_nothing_half_written(archive: Archive, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ztf, lsst = Stream(archive, "ztf"), Stream(archive, "lsst")
    match_streams(ztf, lsst, 20181129, 20181203, tmp_path / "out")
    before = {item.name: item.read_bytes() for item in (tmp_path / "out").iterdir()}

    class Stops(reading.Silent):
        def advance(self, name: str) -> None:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        match_streams(ztf, lsst, 20181129, 20181129, tmp_path / "out", progress=Stops())
    targets = Targets(np.array([0.0]), np.array([0.0]), np.array([60.0]))
    with pytest.raises(KeyboardInterrupt):
        match_table(archive, ["ztf"], targets, 20181129, 20181129, tmp_path / "t.parquet", progress=Stops())
    assert {item.name: item.read_bytes() for item in (tmp_path / "out").iterdir()} == before
    assert [item.name for item in tmp_path.iterdir()] == ["out"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="holds something else"):
        match_streams(ztf, lsst, 20181129, 20181129, tmp_path / "mine")


# ------------------------------------------------------------------------------------------------ the user's table
@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".fits", ".vot"])
def test_tables_of_any_form(suffix: str, tmp_path: Path) -> None:
    columns = {
        "ID": ["a", "b", "c"],
        "RAJ2000": [1.5, 2.5, 359.0],
        "DEJ2000": [-10.0, 90.0, 0.25],
        "err": [1.0, 2.5, 3.0],
        "pm1": [10.0, -20.5, 0.0],
        "pm2": [1.0, 2.0, 3.5],
    }
    file = tmp_path / f"table{suffix}"
    if suffix == ".parquet":
        pq.write_table(pa.table(columns), file)
    elif suffix == ".csv":
        pa.csv.write_csv(pa.table(columns), file)
    else:
        Table(columns).write(file, format="votable" if suffix == ".vot" else "fits")
    read = read_targets(file, radius_column="err", motion=("pm1", "pm2"), epoch=2016.0)
    assert read.ra.tolist() == columns["RAJ2000"]
    assert read.dec.tolist() == columns["DEJ2000"]
    assert read.radius_arcsec.tolist() == columns["err"]
    assert read.pmra is not None and read.pmra.tolist() == columns["pm1"]
    assert read.pmdec is not None and read.pmdec.tolist() == columns["pm2"]
    assert read.id is not None and read.id.to_pylist() == columns["ID"]
    assert read.epoch == 2016.0
    other = read_targets(file, radius_arcsec=2.0, ra="err", dec="pm2", id_column="pm1")
    assert (other.ra.tolist(), other.dec.tolist()) == (columns["err"], columns["pm2"])
    assert other.radius_arcsec.tolist() == [2.0]
    assert other.id is not None and other.id.to_pylist() == columns["pm1"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"radius_arcsec": 1.0, "radius_column": "err"}, "give one radius"),
        ({}, "give one radius"),
        ({"radius_arcsec": 0.0}, "radius of 0"),
        ({"radius_arcsec": float("nan")}, "radius of nan"),
        ({"radius_column": "none"}, "no column none; it has ra, text"),
        ({"radius_arcsec": 1.0, "dec": "text"}, "holds string, not numbers"),
        ({"radius_arcsec": 1.0}, "no column of a usual name for the declination"),
        (
            {"radius_arcsec": 1.0, "dec": "err", "motion": ("err", "err"), "epoch": float("nan")},
            "epoch nan is not a year",
        ),
        (
            {"radius_arcsec": 1.0, "dec": "err", "motion": ("err", "err"), "epoch": 57_000.0},
            "epoch 57000 is not a year",
        ),
        ({"radius_arcsec": 1.0, "dec": "twice"}, "has column twice more than once"),
    ],
)
def test_bad_tables_are_told_in_one_line(options: dict[str, Any], told: str, tmp_path: Path) -> None:
    columns = [pa.array([1.0]), pa.array(["x"]), *[pa.array([1.0])] * 3]
    pq.write_table(pa.table(columns, names=["ra", "text", "err", "twice", "twice"]), tmp_path / "t.parquet")
    given = options if "dec" in options or "radius_column" not in options else {**options, "dec": "err"}
    with pytest.raises(InputError, match=told):
        read_targets(tmp_path / "t.parquet", **given)


def test_absent_damaged_and_too_long_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="does not exist"):
        read_targets(tmp_path / "no.parquet", radius_arcsec=1.0)
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(InputError, match="cannot be read"):
        read_targets(tmp_path / "bad.parquet", radius_arcsec=1.0)
    monkeypatch.setattr("pipeline.streams.targets.MOST_ROWS", 2)
    table = pa.table({"ra": [1.0, 2.0, 3.0], "dec": [1.0, 2.0, 3.0]})
    pq.write_table(table, tmp_path / "t.parquet")
    pa.csv.write_csv(table, tmp_path / "t.csv")
    for name in ("t.parquet", "t.csv"):
        with pytest.raises(InputError, match="has 3 rows, at most 2"):
            read_targets(tmp_path / name, radius_arcsec=1.0)


@pytest.mark.parametrize("radius_arcsec", [1.0, 60.0, 1900.0, reading.RING_ARCSEC])
def test_no_part_within_the_radius_is_left_out(radius_arcsec: float) -> None:
    """Rows beside the edges and corners of the ledgers' cells, alerts at the radius in any direction."""
    rng = np.random.default_rng(3)
    corners = rng.integers(0, 12 << 12, 2000) << 46
    ra, dec = healpix.pix2ang(29, corners)
    angle, reach = rng.uniform(0, 2 * np.pi, 2000), np.radians(radius_arcsec / 3600)
    other_dec = np.degrees(
        np.arcsin(
            np.clip(
                np.sin(np.radians(dec)) * np.cos(reach) + np.cos(np.radians(dec)) * np.sin(reach) * np.cos(angle), -1, 1
            )
        )
    )
    across = np.sin(angle) * np.sin(reach) * np.cos(np.radians(dec))
    along = np.cos(reach) - np.sin(np.radians(dec)) * np.sin(np.radians(other_dec))
    other_ra = ra + np.degrees(np.arctan2(across, along))
    cells, others = healpix.ang2pix(6, ra, dec), healpix.ang2pix(6, other_ra, other_dec)
    for cell, other in zip(cells, others, strict=True):
        sky = reading.sky_around(np.array([cell]), radius_arcsec)
        assert sky is not None and sky[other] and sky.sum() <= 9
    assert (cells != others).mean() > 0.4
    assert reading.sky_around(cells[:1], reading.RING_ARCSEC * 1.01) is None
    part = Part("ztf", 20181129, "p", 10, {}, cells=(int(others[0]),))
    assert reading.touching([part], reading.sky_around(cells[:1], radius_arcsec)) == (part,)
    assert reading.touching([replace(part, rows=0), replace(part, cells=())], sky) == ()
    assert reading.touching([replace(part, cells=None)], sky) == (replace(part, cells=None),)
