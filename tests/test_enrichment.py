"""Column groups and their keys, the lowest of several sky maps, exposures; and a run enriched with a simulated sky."""

from __future__ import annotations

import io
import statistics as stats
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from astropy.table import Table
from test_nights import assert_whole, hashes, run

from pipeline.catalogs import build, get_declaration
from pipeline.errors import SchemaError
from pipeline.healpix import ang2pix, to_uniq
from pipeline.nights.enrichment import _nearest_map_group
from pipeline.schema import column, content_hash
from pipeline.simulation import simulate
from pipeline.skymap import SkyMap, parse_skymap
from pipeline.stages.exposures import exposures
from pipeline.stages.groups import Group, apply
from pipeline.store import open_root, read_ledgers
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
