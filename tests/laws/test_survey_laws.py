"""Laws that hold for every survey in the registry."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from survey_samples import raw_schema, raw_table

from pipeline.healpix import ang2pix
from pipeline.schema import content_hashes
from pipeline.surveys import SURVEYS
from pipeline.tables import ALERTS

NAMES = list(SURVEYS)


def ztf_record(rng: random.Random, key: int) -> dict:
    def point() -> dict:
        return {
            "jd": 2458000.5 + rng.randrange(800) / 16,
            "fid": rng.choice([1, 2, 3, 7]),
            "pid": rng.randrange(40),
            "candid": rng.choice([None, rng.randrange(1000)]),
            "isdiffpos": rng.choice("tf10"),
            "magpsf": rng.choice([None, 18 + rng.random()]),
            "sigmapsf": rng.random(),
            "diffmaglim": 20.5,
            "distnr": rng.random() * 2,
            "magnr": 17.0,
            "sigmagnr": 0.01,
            "field": 500,
            "rcid": rng.randrange(3),
            "magzpsci": 26.0,
            "forcediffimflux": rng.gauss(0, 100),
            "procstatus": rng.choice("0006"),
        }

    where = {"ra": rng.uniform(0, 360), "dec": rng.uniform(-90, 90), "fid": 1, "candid": key + 10**18}
    return {
        "objectId": f"ZTF{key % 5}",
        "candidate": {**point(), **where},
        "prv_candidates": rng.choice([None, [point() for _ in range(rng.randrange(9))]]),
        "fp_hists": rng.choice([None, [point() for _ in range(rng.randrange(9))]]),
    }


def rubin_record(rng: random.Random, key: int) -> dict:
    def point() -> dict:
        return {
            "diaSourceId": rng.randrange(1, 40),
            "visit": 2026030900000 + rng.randrange(20),
            "detector": rng.randrange(3),
            "midpointMjdTai": 61100.0 + rng.randrange(160) / 16,
            "midPointTai": 61100.0 + rng.randrange(160) / 16,
            "band": rng.choice("ugrizyq"),
            "filterName": rng.choice("ugrizYq"),
            "psfFlux": rng.gauss(0, 500),
            "psfFluxErr": rng.random() * 100,
            "psFlux": rng.gauss(0, 500),
            "scienceFlux": rng.gauss(0, 500),
        }

    source = {**point(), "band": "g", "filterName": "g", "diaSourceId": key + 10**17}
    source |= {"ra": rng.uniform(0, 360), "dec": rng.uniform(-90, 90), "decl": rng.uniform(-90, 90)}
    source |= {"diaObjectId": rng.choice([None, 0, key % 3]), "ssObjectId": rng.choice([None, 0, key % 4])}
    return {
        "diaSource": source,
        "prvDiaSources": rng.choice([None, [point() for _ in range(rng.randrange(9))]]),
        "prvDiaForcedSources": rng.choice([None, [point() for _ in range(rng.randrange(9))]]),
        "diaObject": rng.choice([None, {"diaObjectId": 7}]),
    }


RECORD: dict[str, Callable[[random.Random, int], dict]] = {
    name: ztf_record if name == "ztf" else rubin_record for name in NAMES
}


@cache
def raw_of(name: str, n: int = 60) -> pa.Table:
    """Rows with ids beyond 2**53, null, empty and long histories."""
    rng = random.Random(20181129)
    return raw_table(name, [RECORD[name](rng, key) for key in range(1, n + 1)])


def identical(left: pa.Table, right: pa.Table) -> bool:
    return left.schema == right.schema and content_hashes(left) == content_hashes(right)


@pytest.mark.parametrize("name", NAMES)
def test_rows_order_and_schema(name: str) -> None:
    survey, raw = SURVEYS[name], raw_of(name)
    alerts = survey.normalise(raw)
    assert survey.faults(raw).null_count == raw.num_rows == alerts.num_rows
    assert alerts.schema.equals(ALERTS, check_metadata=True)
    assert alerts["alert_id"].to_pylist() == survey.alert_id(raw).to_pylist()
    assert alerts["alert_id"].to_pylist() == [10**18 + k if name == "ztf" else 10**17 + k for k in range(1, 61)]
    cells = ang2pix(29, alerts["ra"].to_numpy(), alerts["dec"].to_numpy())
    assert alerts["healpix_29"].to_pylist() == cells.tolist()
    alerts.validate(full=True)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("cut", [0, 1, 23, 59, 60])
def test_partition_invariance_with_slices(name: str, cut: int) -> None:
    survey, raw = SURVEYS[name], raw_of(name)
    parts = pa.concat_tables([survey.normalise(raw.slice(0, cut)), survey.normalise(raw.slice(cut))])
    assert identical(parts, survey.normalise(raw))
    chunked = pa.concat_tables([raw.slice(0, cut), raw.slice(cut)])
    assert identical(survey.normalise(chunked), survey.normalise(raw))


@pytest.mark.parametrize("name", NAMES)
def test_permutation_equivariance(name: str) -> None:
    survey, raw = SURVEYS[name], raw_of(name)
    order = np.random.default_rng(3).permutation(raw.num_rows)
    assert identical(survey.normalise(raw.take(order)), survey.normalise(raw).take(order))


@pytest.mark.parametrize("name", NAMES)
def test_determinism_and_input_unchanged(name: str) -> None:
    survey, raw = SURVEYS[name], raw_of(name)
    before = content_hashes(raw)
    assert identical(survey.normalise(raw), survey.normalise(raw))
    assert content_hashes(raw) == before


@pytest.mark.parametrize("name", NAMES)
def test_no_rows(name: str) -> None:
    survey = SURVEYS[name]
    for raw in (raw_schema(name).empty_table(), raw_of(name).slice(5, 0), pa.table({})):
        alerts = survey.normalise(raw)
        assert alerts.schema == ALERTS and alerts.num_rows == 0
        for found in (survey.faults(raw), survey.alert_id(raw), survey.processed_mjd(raw), survey.night_of(alerts)):
            assert len(found) == 0
        assert len(survey.night_disagreement(raw, alerts)) == 0
        assert survey.forced_losses(raw) == {}


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_nulls_are_faults_and_not_crashes(name: str) -> None:
    survey = SURVEYS[name]
    raw = pa.table([pa.nulls(3, field.type) for field in raw_schema(name)], schema=raw_schema(name))
    assert survey.faults(raw).null_count == 0
    assert survey.alert_id(raw).null_count == 3
    assert survey.processed_mjd(raw).null_count == 3


@pytest.mark.parametrize("name", NAMES)
def test_only_native_columns_are_read(name: str) -> None:
    survey, raw = SURVEYS[name], raw_of(name)
    misleading = raw
    for column in ("alert_id", "schema_version", "origin_added", "night"):
        misleading = misleading.append_column(column, pa.array(["x"] * raw.num_rows))
    assert identical(survey.normalise(misleading), survey.normalise(raw))


@pytest.mark.parametrize("name", NAMES)
def test_columns_that_a_version_lacks_may_be_missing(name: str) -> None:
    survey = SURVEYS[name]
    records = raw_of(name).slice(0, 8).to_pylist()
    for record in records:
        record.pop("fp_hists", None)
        record.pop("diaObject", None)
        record["prvDiaForcedSources" if "diaSource" in record else "prv_candidates"] = None
    rows = [drop_nulls(record) for record in records]
    names = sorted({name for row in rows for name in row})
    lacking = pa.table({name: pa.array([row.get(name) for row in rows]) for name in names})
    assert set(lacking.column_names) < set(raw_schema(name).names)
    assert identical(survey.normalise(lacking), survey.normalise(raw_table(name, records)))


def drop_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: drop_nulls(v) for k, v in value.items() if v is not None}
    return [drop_nulls(v) for v in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", NAMES)
def test_the_trigger_stands_in_the_light_curve_exactly_once(name: str) -> None:
    for alert in SURVEYS[name].normalise(raw_of(name)).to_pylist():
        curve = alert["light_curve"]
        points = zip(curve["mjd"], curve["exposure"], curve["is_forced"], curve["flux_njy"], strict=True)
        assert list(points).count((alert["mjd"], alert["exposure"], False, alert["flux_njy"])) == 1


@pytest.mark.parametrize("name", NAMES)
def test_light_curves_are_ordered_and_lists_equally_long(name: str) -> None:
    alerts = SURVEYS[name].normalise(raw_of(name))
    for curve, n in zip(alerts["light_curve"].to_pylist(), alerts["n_light_curve"].to_pylist(), strict=True):
        assert {len(values) for values in curve.values()} == {n}
        keys = [
            (m, f, -1 if e is None else e)
            for m, f, e in zip(curve["mjd"], curve["is_forced"], curve["exposure"], strict=True)
        ]
        assert keys == sorted(keys)
    assert not pc.any(pc.greater(alerts["first_mjd"], pc.add(alerts["mjd"], 100))).as_py()


@pytest.mark.parametrize("name", [name for name in NAMES if name != "ztf"])
def test_no_object_key_joins_two_objects(name: str) -> None:
    survey, raw = SURVEYS[name], raw_of(name)
    joined: dict[str, set] = {}
    for key, record in zip(survey.normalise(raw)["object_key"].to_pylist(), raw.to_pylist(), strict=True):
        source, dia_object = record["diaSource"], record["diaObject"] or {}
        found = source["diaObjectId"] or dia_object.get("diaObjectId")
        identity = ("object", found) if found else ("ss", source.get("ssObjectId"))
        joined.setdefault(key, set()).add(identity if identity[1] else ("source", source["diaSourceId"]))
    assert all(len(identities) == 1 for identities in joined.values())
    assert len(joined) > 3 and not joined.keys() & {"0", "", "ss:0", "src:0"}


@pytest.mark.parametrize("name", NAMES)
def test_a_survey_is_data_and_functions_by_reference(name: str) -> None:
    survey = SURVEYS[name]
    assert pickle.loads(pickle.dumps(survey)) == survey
    assert survey.name == name
    assert set(survey.cutout_columns) <= set(survey.superset.names)
    assert not set(survey.cutout_columns) & set(raw_schema(name).names)
