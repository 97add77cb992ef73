"""The search of an archive: exactly the rows of a brute force, reading no more than the contour needs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import followup_archive as sky
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import healpix
from pipeline.archive import Archive, open_archive
from pipeline.errors import InputError
from pipeline.followup import Search, find, search
from pipeline.followup.columns import EVENT_COLUMNS
from pipeline.skymap import SkyMap, make_skymap

T0 = 57982.5
ORDER = 5
COMPARED = [name for name in EVENT_COLUMNS.names if name != "volume_level"]


def make_map(event: str, centre: int, rng: np.random.Generator, *, t0: float | None = T0, ties: int = 3) -> SkyMap:
    """A map of 40 order-5 pixels around one, of few different densities, so that lines cut groups of ties."""
    cells = np.unique(np.append((centre + np.arange(40) * 3) % (12 << 2 * ORDER), centre))
    density = rng.integers(0, ties + 1, len(cells)).astype(float)
    density[rng.integers(len(cells))] = ties + 2.0
    density /= (density * healpix.cell_area_deg2(ORDER)).sum()
    shift = 2 * (29 - ORDER)
    return make_skymap(event, t0, cells << shift, (cells + 1) << shift, density)


def make_nights(maps: list[SkyMap], rng: np.random.Generator, nights: list[int], per_part: int = 25) -> dict[int, Any]:
    """Alerts in and around the maps, on their pixels' very edges too; objects return, some move, some have nulls."""
    made: dict[int, list[pa.Table]] = {}
    edges = np.concatenate([np.concatenate([item.start, item.stop - 1, item.stop]) for item in maps])
    edges = edges[edges < 12 << 58]
    pool = np.concatenate(
        [rng.choice(edges, 60), healpix.ang2pix(29, rng.uniform(0, 360, 40), rng.uniform(-90, 90, 40))]
    )
    next_id = 2**53 + 1
    for night in nights:
        parts = []
        for _ in range(int(rng.integers(1, 4))):
            chosen = rng.integers(0, len(pool), per_part)
            moves = chosen % 7 == 0
            where = np.where(moves, rng.choice(pool, per_part), pool[chosen])
            ra, dec = healpix.pix2ang(29, where)
            mjd = sky.start_of(night) + np.sort(rng.uniform(0.1, 0.4, per_part))
            first = np.where(rng.random(per_part) < 0.2, np.nan, mjd - rng.choice([0.0, 3.0, 500.0], per_part))
            numbers = chosen + 1000 * rng.integers(0, 4, per_part)  # several objects at one place
            keys = [f"ss:{n}" if m else f"ZTF{n:05d}" for n, m in zip(numbers, moves, strict=True)]
            forced = np.stack([mjd - 6, mjd - rng.uniform(0, 900, per_part)], axis=1)
            snr = rng.choice([0.0, 4.999, 5.0, -7.0, np.nan], (per_part, 2), p=[0.5, 0.2, 0.1, 0.1, 0.1])
            table = sky.alerts_table(
                next_id + np.arange(per_part),
                keys,
                ra,
                dec,
                mjd,
                first_mjd=first,
                is_bound=rng.random(per_part) < 0.3,
                forced_mjd=forced,
                forced_snr=snr,
                healpix_29=where,
            )
            next_id += per_part
            parts.append(table)
        made[night] = parts
    return made


def check(found: pa.Table, expected: list[dict[str, Any]]) -> None:
    rows = found.to_pylist()
    keys = [(row["event"], row["mjd"], row["alert_id"]) for row in rows]
    assert keys == [(row["event"], row["mjd"], row["alert_id"]) for row in expected]
    for row, wanted in zip(rows, expected, strict=True):
        for name, value in wanted.items():
            if isinstance(value, float):
                assert row[name] == pytest.approx(value, abs=1e-9), (name, row["alert_id"])
            else:
                assert row[name] == value, (name, row["alert_id"])


NIGHTS = [20100305, 20160101, 20170809, 20170816, 20170817, 20170818, 20170901, 20190101]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> tuple[sky.Root, list[SkyMap]]:
    rng = np.random.default_rng(5)
    maps = [
        make_map("gw1", 3_000, rng),
        make_map("gw2", 3_010, rng, t0=T0 + 1.2),
        make_map("timeless", 7_000, rng, t0=None),
        make_map("elsewhere", 11_000, rng, t0=T0 - 500),
    ]
    nights: dict[int, Any] = make_nights(maps[:3], rng, NIGHTS)
    nights[20170820] = []  # a night without alerts
    return sky.write_archive(tmp_path_factory.mktemp("archive"), nights), maps


@pytest.mark.parametrize("level", [0.3, 0.5, 0.9, 1.0])
def test_rows_are_those_of_a_brute_force_for_several_maps(archive: Any, level: float) -> None:
    root, maps = archive
    expected = sky.brute_force(root, maps, 20170801, 20170930, level)
    assert {row["event"] for row in expected} >= {"gw1", "gw2", "timeless"}
    check(search(Archive(root), maps, 20170801, 20170930, credible_level=level), expected)


def test_every_kind_of_prior_activity_stands_in_the_test(archive: Any) -> None:
    root, maps = archive
    rows = search(Archive(root), maps, 20100101, 20300101, credible_level=1.0)
    check(rows, sky.brute_force(root, maps, 20100101, 20300101, 1.0))
    timed = rows.filter(pc.not_equal(rows["event"], "timeless"))
    for name in ("has_prior_detection", "has_prior_forced", "has_prior_activity"):
        assert set(timed[name].to_pylist()) == {True, False, None}
    assert set(timed["has_prior_alert"].to_pylist()) == {True, False}
    assert rows.filter(pc.equal(rows["event"], "timeless"))["has_prior_activity"].null_count > 0


def test_window_counts_alerts_around_each_event(archive: Any) -> None:
    root, maps = archive
    found = search(Archive(root), maps[:2], 20170801, 20170930, credible_level=1.0, window_day=(1.0, 14.0))
    check(found, sky.brute_force(root, maps[:2], 20170801, 20170930, 1.0, (1.0, 14.0)))
    assert found.num_rows > 0


def test_an_alert_seven_years_before_the_event_counts_and_only_cells_of_the_object_are_read(tmp_path: Path) -> None:
    skymap = make_map("gw", 3_000, np.random.default_rng(2))
    corner = skymap.start[skymap.density_per_deg2 > 0][:1]  # the corner of a cell of every order from 5 down
    beside = healpix.neighbours(29, corner)[0]
    beside = beside[healpix.cell_at(beside, 6) != healpix.cell_at(corner, 6)][:1]  # 0.4 mas away, in another cell
    ra, dec = healpix.pix2ang(29, np.concatenate([corner, beside]))
    old, new = sky.start_of(20100305) + 0.3, sky.start_of(20170818) + 0.3
    there = sky.alerts_table(np.array([1]), ["ZTFa"], ra[1:], dec[1:], np.array([old]))
    far = sky.alerts_table(np.array([2]), ["ZTFa"], (ra[:1] + 90) % 360, -dec[:1], np.array([old]))
    now = sky.alerts_table(np.array([3, 4]), ["ZTFa", "ZTFb"], ra[[0, 0]], dec[[0, 0]], np.array([new, new + 0.01]))
    root = sky.write_archive(tmp_path, {20100305: [there, far], 20170818: [now]})
    for name in ("alerts", "science/main"):  # a part that cannot hold the object is not opened: its file may be gone
        next(Path(root.folder).glob(f"ztf/{name}/night=20100305/part-00000000-00001*")).unlink()
    rows = search(Archive(root), [skymap], 20170801, 20170930, credible_level=1.0).to_pylist()
    assert [row["has_prior_alert"] for row in rows] == [True, False]
    assert [row["has_prior_detection"] for row in rows] == [False, False]
    assert [row["has_prior_activity"] for row in rows] == [True, False]


def test_each_event_has_its_own_past(tmp_path: Path) -> None:
    """Two events at one place: an alert between them is before one of them alone, and settles nothing for the other."""
    one = make_map("e2016", 3_000, np.random.default_rng(2), t0=sky.start_of(20160601))
    two = make_skymap("e2018", sky.start_of(20180601), one.start, one.stop, one.density_per_deg2)
    ra, dec = healpix.pix2ang(29, one.start[one.density_per_deg2 > 0][:1] + 9)
    nights = {}
    for number, (night, keys) in enumerate({20150101: "a", 20170101: "ab", 20190101: "abc"}.items()):
        ids, mjd = 10 * number + np.arange(len(keys)), np.full(len(keys), sky.start_of(night) + 0.3)
        nights[night] = [sky.alerts_table(ids, list(keys), ra.repeat(len(keys)), dec.repeat(len(keys)), mjd)]
    root = sky.write_archive(tmp_path, nights)
    rows = search(Archive(root), [one, two], 20190101, 20190101, credible_level=1.0).to_pylist()
    told = {(row["event"], row["object_key"]): row["has_prior_alert"] for row in rows}
    assert told == {
        **{("e2016", "a"): True, ("e2016", "b"): False, ("e2016", "c"): False},
        **{("e2018", "a"): True, ("e2018", "b"): True, ("e2018", "c"): False},
    }


def test_nights_without_the_release_are_looked_at_for_earlier_alerts(tmp_path: Path) -> None:
    skymap = make_map("gw", 3_000, np.random.default_rng(2))
    ra, dec = healpix.pix2ang(29, skymap.start[skymap.density_per_deg2 > 0][:1] + 9)
    tables = [
        sky.alerts_table(np.array([number]), ["ZTFa"], ra, dec, np.array([sky.start_of(night) + 0.3]))
        for number, night in enumerate((20160101, 20170818))
    ]
    root = sky.write_archive(tmp_path, {20160101: tables[:1], 20170818: tables[1:]})
    ledger = json.loads(root.path("ztf/ledger/night=20170818.json").read_text())
    ledger["releases"] = {"w2": {}}
    ledger["parts"][0]["files"]["science/w2"] = ledger["parts"][0]["files"]["science"]
    root.path("ztf/ledger/night=20170818.json").write_text(json.dumps(ledger))
    found = search(Archive(root), [skymap], 20170801, 20170930, credible_level=1.0, release="w2")
    assert found["has_prior_alert"].to_pylist() == [True]
    assert search(Archive(root), [skymap], 20150101, 20170101, credible_level=1.0).num_rows == 1


def test_only_parts_whose_cells_touch_the_contour_are_opened(archive: Any) -> None:
    root, maps = archive
    found = find(Archive(root), Search([maps[3]], 20170801, 20170930))
    assert (found.parts_opened, found.nights, found.table.num_rows) == (0, 6, 0)
    every = find(Archive(root), Search(maps, 20170801, 20170930))
    assert 0 < every.parts_opened <= every.parts
    assert every.parts_found <= every.parts_opened


def test_nothing_outside_the_range_counts_and_an_empty_range_is_no_error(archive: Any) -> None:
    root, maps = archive
    found = find(Archive(root), Search(maps, 20180101, 20181231))
    assert (found.nights, found.parts, found.table.num_rows) == (0, 0, 0)
    assert found.table.column_names[-len(EVENT_COLUMNS) :] == EVENT_COLUMNS.names


@settings(max_examples=8)
@given(seed=st.integers(0, 10_000), level=st.sampled_from([0.1, 0.5, 0.9, 0.999, 1.0]), centre=st.integers(0, 12_000))
def test_any_archive_and_map(tmp_path_factory: pytest.TempPathFactory, seed: int, level: float, centre: int) -> None:
    rng = np.random.default_rng(seed)
    maps = [make_map(f"e{n}", (centre + 7 * n) % 12_000, rng, ties=int(rng.integers(1, 5))) for n in range(2)]
    root = sky.write_archive(tmp_path_factory.mktemp("any"), make_nights(maps, rng, [20150101, 20170816, 20170818], 12))
    check(
        search(Archive(root), maps, 20170817, 20170818, credible_level=level),
        sky.brute_force(root, maps, 20170817, 20170818, level),
    )


def test_part_boundaries_do_not_matter(tmp_path: Path) -> None:
    rng = np.random.default_rng(9)
    maps = [make_map("gw", 3_000, rng)]
    nights = make_nights(maps, rng, [20160101, 20170818], 40)
    joined = {night: [pa.concat_tables(parts)] for night, parts in nights.items()}
    cut = {night: [whole[0].slice(at, 7) for at in range(0, whole[0].num_rows, 7)] for night, whole in joined.items()}
    answers = [
        search(Archive(sky.write_archive(tmp_path / str(n), some)), maps, 20170101, 20171231, credible_level=1.0)
        for n, some in enumerate((joined, cut))
    ]
    assert answers[0].num_rows > 5
    assert answers[0].drop_columns(["score"]).equals(answers[1].drop_columns(["score"]))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"credible_level": 0.0}, "credible level 0"),
        ({"credible_level": 1.01}, "credible level 1.01"),
        ({"credible_level": float("nan")}, "credible level nan"),
        ({"start": 20170902}, "20170902 is after 20170901"),
        ({"start": "yesterday"}, "is not a night"),
        ({"release": "w2"}, "release 'w2'"),
        ({"survey": "lsst"}, "survey 'lsst'"),
        ({"window_day": (1.0, 2.0)}, "tells no time"),
        ({"maps": []}, "no sky map"),
    ],
)
def test_what_cannot_be_done_is_told(archive: Any, change: dict[str, Any], told: str) -> None:
    root, maps = archive
    asked = {"maps": maps, "start": 20170810, "stop": 20170901} | change
    with pytest.raises(InputError, match=told):
        find(Archive(root), Search(**asked))


def test_two_maps_of_one_name_are_refused(archive: Any) -> None:
    root, maps = archive
    with pytest.raises(InputError, match="two maps are of event gw1"):
        search(open_archive(root.folder), [maps[0], maps[0]], 20170810, 20170901)
