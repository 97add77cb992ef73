"""Column groups and their keys, the lowest of several sky maps, exposures; and a run enriched with a simulated sky."""

from __future__ import annotations

import io
import json
import shutil
import statistics as stats
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from test_events import lvk, skymap
from test_nights import assert_whole, hashes, run
from test_notices import as_json

from pipeline.catalogs import build, get_declaration
from pipeline.errors import CatalogError, InputError, SchemaError
from pipeline.events import EventStore
from pipeline.healpix import ang2pix, to_uniq
from pipeline.nights import enrich as enriching
from pipeline.nights.enrichment import _nearest_map_group
from pipeline.nights.recipe import expanded
from pipeline.schema import column, content_hash
from pipeline.simulation import Simulated, simulate
from pipeline.skymap import SkyMap, parse_skymap
from pipeline.skymaps import skymap_fits
from pipeline.stages.exposures import exposures
from pipeline.stages.groups import Group, apply
from pipeline.store import open_root, read_ledger, read_ledgers
from pipeline.tables import FLAT


# --------------------------------------------------------------------------------------- groups
def _group(**more: Any) -> Group:
    def double(table: pa.Table) -> pa.Table:
        return pa.table({"y": pa.array([2 * x for x in table.column("x").to_pylist()], pa.int64())})

    given = {"name": "double", "version": 1, "requires": ("x",), "produces": (column("y", pa.int64()),), "run": double}
    return Group(**{**given, **more})


def test_a_key_follows_definition_and_content_and_nothing_else() -> None:
    content = {"x": content_hash(pa.array([1, 2])), "other": "a"}
    key = _group().key(content)
    assert key == _group().key({**content, "other": "b"})
    assert key != _group().key({**content, "x": content_hash(pa.array([1, 3]))})
    for more in ({"version": 2}, {"digests": {"model": "d"}}, {"libs": ("numpy",)}, {"requires": ("x", "other")}):
        assert _group(**more).key(content) != key


def test_a_group_gets_what_it_requires_and_gives_what_it_declares() -> None:
    table = pa.table({"x": pa.array([1, 2], pa.int64()), "z": pa.array([0, 0], pa.int64())})
    assert apply(_group(), table).column("y").to_pylist() == [2, 4]
    with pytest.raises(SchemaError, match="declared string"):
        apply(_group(produces=(column("y", pa.string()),)), table)
    with pytest.raises(SchemaError, match="rows"):
        apply(_group(run=lambda t: pa.table({"y": pa.array([1], pa.int64())})), table)
    with pytest.raises(SchemaError, match="requires"):
        apply(_group(requires=("absent",)), table)


# --------------------------------------------------------------------------------------- sky maps
def _map(event: str, weights: list[float]) -> SkyMap:
    """A map of order 0 with these probabilities of its twelve pixels."""
    area = 4 * np.pi / 12
    table = Table({"UNIQ": to_uniq(0, np.arange(12)), "PROBDENSITY": np.array(weights) / sum(weights) / area})
    table["PROBDENSITY"].unit = "sr-1"
    table.meta.update({"ORDERING": "NUNIQ", "MOCORDER": 0, "OBJECT": event})
    buffer = io.BytesIO()
    table.write(buffer, format="fits")
    return parse_skymap(buffer.getvalue(), event)


def test_the_map_of_the_lowest_level_is_named_and_ties_go_to_the_first_name() -> None:
    group = _nearest_map_group([_map("b", [1.0] * 12), _map("a", [1.0] * 12)])
    table = pa.table(
        {
            "skymap_a_credible_level": pa.array([0.2, 0.9, 0.5, None, None]),
            "skymap_b_credible_level": pa.array([0.7, 0.1, 0.5, 0.3, None], pa.float64()),
        }
    )
    out = group.run(table.select(list(group.requires)))
    assert out.column("skymap_min_credible_level").to_pylist() == [0.2, 0.1, 0.5, 0.3, None]
    assert out.column("skymap_best_event").to_pylist() == ["a", "b", "a", "b", None]


def test_without_a_map_there_is_no_level() -> None:
    group = _nearest_map_group([])
    out = group.run(pa.table({"alert_id": pa.array([1, 2], pa.int64())}).select(list(group.requires)))
    assert out.to_pydict() == {"skymap_min_credible_level": [None, None], "skymap_best_event": [None, None]}


# --------------------------------------------------------------------------------------- exposures
def test_exposures_agree_with_counting_row_by_row() -> None:
    rng = np.random.default_rng(5)
    rows = []
    for _ in range(60):
        exposure = None if rng.random() < 0.1 else int(rng.integers(1, 6)) * 7
        seeing = None if rng.random() < 0.3 else float(np.float32(rng.uniform(1, 4)))
        base = 0 if exposure is None else exposure
        rows.append({
            "exposure": exposure, "detector": base % 3, "field": 100 + base, "mjd": 58000.0 + 50 - base, "band": "g",
            "limit_mag": 19.0 + base, "seeing_arcsec": seeing,
            "healpix_29": int(ang2pix(29, rng.uniform(0, 360, 1), rng.uniform(-80, 80, 1))[0]),
        })  # fmt: skip
    names = list(rows[0])
    alerts = pa.Table.from_pylist(rows, schema=pa.schema([FLAT.field(name).with_nullable(True) for name in names]))
    alerts = alerts.cast(pa.schema([FLAT.field(name) for name in names]))
    found = exposures(alerts).to_pylist()
    assert [row["exposure"] for row in found] == [35, 28, 21, 14, 7]
    for row in found:
        mine = [one for one in rows if one["exposure"] == row["exposure"]]
        seen = [one["seeing_arcsec"] for one in mine if one["seeing_arcsec"] is not None]
        assert row["n_alerts"] == len(mine)
        assert row["seeing_arcsec"] == pytest.approx(stats.median(seen), rel=1e-6)
        assert row["cells"] == sorted({one["healpix_29"] >> 38 for one in mine})
        assert (row["limit_mag"], row["mjd"], row["field"]) == tuple(mine[0][k] for k in ("limit_mag", "mjd", "field"))


# --------------------------------------------------------------------------------------- a whole run
def test_a_simulated_sky_is_found_again(tmp_path: Path) -> None:
    made = simulate(20240212, "ztf", 200, 11, tmp_path / "sim", cutouts=False)
    for name in ("sim_galaxies", "sim_variables"):
        build(get_declaration(name), tmp_path / f"sim/catalogs/{name}.parquet", tmp_path / "built" / name)
    options = {
        "catalogs": tuple(f"{name}={tmp_path}/built/{name}" for name in ("sim_galaxies", "sim_variables")),
        "skymaps": (f"{made.event}={made.skymap}",),
        "models": ("supernova",),
    }
    outcome = run(tmp_path / "d", made.dump, night=20240212, **options)
    assert not outcome.errors
    (ledger,) = read_ledgers(open_root(tmp_path / "d"), "ztf").values()
    (part,) = ledger["parts"]
    science = pq.read_table(tmp_path / "d" / part["files"]["science"]["path"])
    truth = {row["alert_id"]: row for row in pq.read_table(made.truth).to_pylist()}
    found = 0
    for row in science.to_pylist():
        true = truth[row["alert_id"]]
        if true["event_name"] is not None:
            assert row[f"skymap_{made.event.lower()}_credible_level"] <= 0.9
            assert row["skymap_best_event"] == made.event.lower()
            assert row["xm_sim_galaxies_lum_dist_mpc"] == pytest.approx(true["lum_dist_mpc"], rel=1e-6)
            found += 1
        if true["class"] == "rr_lyrae" and row["xm_sim_variables_n_neighbours"]:  # some are not catalogued
            assert row["xm_sim_variables_separation_arcsec"] < 1.5
            assert row["xm_sim_variables_period_day"] == pytest.approx(true["period_days"], rel=1e-6)
            found += 1
        assert (row["clf_supernova_score"] is None) == (row["clf_supernova_reason"] is not None)
    assert found > 10
    assert_whole(tmp_path / "d")
    before = hashes(tmp_path / "d")
    again = run(tmp_path / "d", made.dump, night=20240212, **{**options, "skymaps": ()})
    assert not again.is_up_to_date
    changed = {path.split("/")[1] for path in set(before) ^ set(hashes(tmp_path / "d"))}
    assert changed == {"science"}, "another sky map leaves decoded parts as they are"
    work = again.ledgers[20240212]["work"]
    assert {name for name, parts in work.items() if "computed" in parts} == {"skymap_best", "filter_kilonova_in_skymap"}


# --------------------------------------------------------------------------------------- only what changed
NIGHT = 20240212
EVENT = "S240212x"
OPTIONS: dict[str, Any] = {"models": ("supernova",), "part.max_alerts": 70, "skymaps": (EVENT,)}
OWN = {"skymap_s240212x", "skymap_best", "filter_kilonova_in_skymap"}
"""What a new map of the event changes: its own columns, and what reads them."""


def _notice(status: str, created: str, seed: int) -> bytes:
    return lvk(created, status, seed=seed, superevent_id=EVENT, event={"time": "2024-02-11T18:00:00Z"})


@pytest.fixture(scope="module")
def night(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    return simulate(NIGHT, "ztf", 200, 11, tmp_path_factory.mktemp("sim"), cutouts=False)


@pytest.fixture(scope="module")
def first(night: Simulated, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An archive of three parts, matched with a built catalog and the first map of an event."""
    root = tmp_path_factory.mktemp("first") / "d"
    build(
        get_declaration("sim_galaxies"),
        night.dump.parent / "catalogs/sim_galaxies.parquet",
        root / "catalogs/sim_galaxies",
    )
    EventStore(root).add(_notice("PRELIMINARY", "2024-02-12T00:00:00Z", 1))
    assert not run(root, night.dump, night=NIGHT, **OPTIONS).errors
    return root


@pytest.fixture
def root(first: Path, tmp_path: Path) -> Iterator[Path]:
    shutil.copytree(first, tmp_path / "d")
    yield tmp_path / "d"


def _work(root: Path) -> dict[str, dict[str, int]]:
    ledger = read_ledger(open_root(root), "ztf", NIGHT)
    assert ledger is not None
    return ledger["work"]


def _science(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((root / "ztf/science/main").rglob("part-*.parquet"))}


def test_the_first_run_computes_all_and_pins_the_version(first: Path) -> None:
    work = _work(first)
    assert set(work) >= OWN | {"xmatch_sim_galaxies", "supernova"}, "catalogs that are built are matched unasked"
    assert {tuple(parts.items()) for parts in work.values()} == {(("computed", 3),)}
    ledger = read_ledger(open_root(first), "ztf", NIGHT)
    assert ledger is not None
    told = ledger["groups"]["skymap_s240212x"]
    stored = EventStore(first).located(EVENT)
    assert (told["event_version"], told["notice"]) == (1, stored.digest)
    assert told["digests"]["resource"] == EventStore(first).skymap(EVENT).digest


def test_a_newer_map_recomputes_its_own_columns_and_gives_the_bytes_of_a_full_run(
    root: Path, night: Simulated, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = _science(root)
    EventStore(root).add(_notice("UPDATE", "2024-02-12T09:00:00Z", 2))
    ran: list[str] = []

    def counted(group: Group, table: pa.Table) -> pa.Table:
        ran.append(group.name)
        return apply(group, table)

    monkeypatch.setattr(enriching, "apply", counted)
    outcome = run(root, night.dump, night=NIGHT, **OPTIONS)
    assert sorted(ran) == sorted([*OWN] * 3)
    work = _work(root)
    assert {name for name, parts in work.items() if parts == {"computed": 3}} == OWN
    assert {name for name, parts in work.items() if parts == {"copied": 3}} == set(work) - OWN
    assert outcome.ledgers[NIGHT]["groups"]["skymap_s240212x"]["event_version"] == 2
    stages = {entry["stage"] for entry in outcome.ledgers[NIGHT]["timing"] if entry["stage"].startswith("enrich: ")}
    assert stages == {f"enrich: {name}" for name in OWN}
    ran.clear()
    again = root.parent / "again"
    shutil.copytree(root / "catalogs", again / "catalogs")
    shutil.copytree(root / "events", again / "events")
    run(again, night.dump, night=NIGHT, **OPTIONS)
    assert len(ran) == 3 * len(work)
    assert _science(root) == _science(again) != before
    assert_whole(root)


def test_a_new_version_with_the_same_map_changes_nothing(root: Path, night: Simulated) -> None:
    same = json.loads(_notice("UPDATE", "2024-02-12T09:00:00Z", 1))
    same["event"]["far"] = 1e-12
    assert EventStore(root).add(as_json(same)).version == 2
    assert run(root, night.dump, night=NIGHT, **OPTIONS).is_up_to_date


def test_a_damaged_or_foreign_part_is_not_copied_from(root: Path, night: Simulated) -> None:
    EventStore(root).add(_notice("UPDATE", "2024-02-12T09:00:00Z", 2))
    one, two, three = sorted((root / "ztf/science/main").rglob("part-*.parquet"))
    scores = pq.read_table(one).column("clf_supernova_score")
    _forge(one, "clf_supernova_score")  # as readable as before, with the same footer, and wrong
    two.unlink()
    three.write_bytes(three.read_bytes()[:-100])
    run(root, night.dump, night=NIGHT, **OPTIONS)
    work = _work(root)
    assert work["supernova"] == work["skymap_s240212x"] == {"computed": 3}
    again = next((root / "ztf/science/main").rglob(f"{one.name.split('.')[0]}.*"))
    assert pq.read_table(again).column("clf_supernova_score").equals(scores)
    assert_whole(root)


def _forge(path: Path, name: str) -> None:
    table, footer = pq.read_table(path), pq.read_metadata(path).metadata
    place = table.schema.get_field_index(name)
    forged = table.set_column(place, table.schema.field(name), pa.nulls(table.num_rows, table.schema.field(name).type))
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(forged)
        writer.add_key_value_metadata({key: footer[key] for key in (b"alertmill.content", b"alertmill.keys")})


def test_a_part_with_other_rows_is_not_copied_from(root: Path) -> None:
    from pipeline.nights.earlier import EarlierFile, read_earlier
    from pipeline.store.parts import sha256_of

    ledger = read_ledger(open_root(root), "ztf", NIGHT)
    assert ledger is not None
    one, two, _ = (part["files"]["science"] for part in ledger["parts"])
    group = Group("supernova", 1, (), (column("clf_supernova_score", pa.float32()),), lambda table: table)
    table = pq.read_table(root / one["path"])
    content = {"alert_id": content_hash(table.column("alert_id"))}
    files = [EarlierFile(item["path"], item["sha256"]) for item in (two, one)]
    found = read_earlier(open_root(root), files, content, [group])
    assert found.columns is not None and found.columns.num_rows == table.num_rows
    assert found.columns.column(0).equals(table.column("clf_supernova_score"))
    assert found.group(group, found.keys["supernova"]) is not None
    assert found.group(group, "another key") is None
    other = Group("supernova", 1, (), (column("clf_supernova_score", pa.float64()),), lambda table: table)
    assert found.group(other, found.keys["supernova"]) is None, "a column of another type is computed anew"
    assert read_earlier(open_root(root), files[:1], content, [group]).columns is None
    assert sha256_of(root / one["path"]) == one["sha256"]


def test_force_computes_all_anew(root: Path, night: Simulated) -> None:
    before = _science(root)
    run(root, night.dump, night=NIGHT, force=True, **OPTIONS)
    assert {tuple(parts) for parts in _work(root).values()} == {("computed",)}
    assert _science(root) == before


def test_another_release_copies_from_the_main_one(root: Path, night: Simulated) -> None:
    run(root, night.dump, night=NIGHT, release="w2", **{**OPTIONS, "skymaps": ()})
    work = _work(root)
    assert {name for name, parts in work.items() if "computed" in parts} == {"skymap_best", "filter_kilonova_in_skymap"}
    assert work["supernova"] == {"copied": 3}


# --------------------------------------------------------------------------------------- what is named
def test_events_that_cannot_be_matched_are_refused_before_any_work(root: Path, night: Simulated) -> None:
    before = hashes(root)
    store = EventStore(root)
    store.add(lvk("2024-02-12T00:00:00Z", superevent_id="MS240212a"))
    for names, words in (
        (("S999",), "there is no event S999 in the archive; known: ms240212a, s240212x"),
        (("MS240212a",), "test or simulated"),
        ((EVENT, EVENT.lower()), "twice"),
    ):
        with pytest.raises(InputError, match=words):
            run(root, night.dump, night=NIGHT, **{**OPTIONS, "skymaps": names})
    store.add(lvk("2024-02-13T00:00:00Z", "RETRACTION", superevent_id=EVENT))
    with pytest.raises(CatalogError, match="retracted on 2024-02-13"):
        run(root, night.dump, night=NIGHT, **OPTIONS)
    assert hashes(root) == before


def test_the_map_of_a_version_that_was_pinned_is_used_whatever_comes_meanwhile(root: Path) -> None:
    from pipeline import config
    from pipeline.nights.recipe import make_recipe

    recipe = make_recipe(config.load({"root": str(root), "skymaps": (EVENT,), "models": ()}, environment={})[0])
    (source,) = recipe.skymaps
    store = EventStore(root)
    store.add(_notice("EARLYWARNING", "2024-02-11T23:00:00Z", 3))  # takes number 1
    assert store.located(EVENT).version == 2
    assert source.version == 1 and source.open().digest == source.digest
    file = root / "map.fits"
    file.write_bytes(skymap_fits(skymap(5)))
    named = make_recipe(config.load({"root": str(root), "skymaps": (f"X={file}",)}, environment={})[0]).skymaps[0]
    assert (named.event, named.version) == ("x", None)
    file.write_bytes(skymap_fits(skymap(6)))
    with pytest.raises(CatalogError, match="changed while the run"):
        named.open()


def test_catalogs_by_star_name_or_none(first: Path, tmp_path: Path) -> None:
    folder = first / "catalogs"
    assert expanded(("*",), folder) == ("sim_galaxies",)
    assert expanded((), folder) == expanded(("none",), folder) == ()
    assert expanded(("*", "other=/x"), folder) == ("other=/x", "sim_galaxies")
    assert expanded(("*", "sim_galaxies=/x"), folder) == ("sim_galaxies=/x",)
    assert expanded(("*",), tmp_path / "nowhere") == ()
    with pytest.raises(InputError, match="none stands beside"):
        expanded(("none", "gcvs"), folder)


def test_a_catalog_of_an_older_layout_is_told_and_not_left_aside(root: Path, night: Simulated) -> None:
    meta = root / "catalogs/sim_galaxies/meta.json"
    meta.write_text(json.dumps({**json.loads(meta.read_text()), "layout": 1}))
    with pytest.raises(CatalogError, match=r"layout 1.*build it again"):
        run(root, night.dump, night=NIGHT, **OPTIONS)


def test_luminosities_need_hosts(root: Path, night: Simulated) -> None:
    with pytest.raises(InputError, match="host galaxies"):
        run(root, night.dump, night=NIGHT, **{**OPTIONS, "catalogs": ("none",), "luminosity": True})
