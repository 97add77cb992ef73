"""Writer schemas that ship, their superset, and the way back to a version."""

from __future__ import annotations

import json
import random
from importlib import resources

import fastavro
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.avro import decode
from pipeline.errors import InputError, SchemaError
from pipeline.surveys.superset import (
    arrow_schema,
    known_schemas,
    merge,
    superset,
    to_version,
    unheld,
    version_key,
    widen,
)
from tests.avro_oracle import CUTOUTS, all_datums, assert_equal, body, container, random_record, rows_of

FAMILIES = ("ztf", "lsst", "elasticc")
ALL = [(family, version) for family in FAMILIES for version in known_schemas(family)]


def record_schema(*fields: tuple[str, object], name: str = "alert") -> dict:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def test_every_version_in_the_wild_is_there():
    assert {"1.8", "3.1", "3.2", "3.3", "3.5", "4.01", "4.02"} <= set(known_schemas("ztf"))
    assert {"3.0", "7.0", "7.1", "7.2", "7.3", "7.4", "8.0", "9.0", "10.0", "11.0", "11.1"} <= set(
        known_schemas("lsst")
    )
    assert {"0.9", "0.9.1"} <= set(known_schemas("elasticc"))


def test_versions_are_ordered_as_numbers():
    assert list(known_schemas("lsst"))[-3:] == ["10.0", "11.0", "11.1"]
    assert sorted(["10.0", "9.0", "3.3+nullable", "3.3"], key=version_key) == ["3.3", "3.3+nullable", "9.0", "10.0"]


def test_campaigns_share_the_schemas_of_their_family():
    assert known_schemas("elasticc_v2_1") == known_schemas("elasticc")
    assert superset("elasticc_v1") == superset("elasticc")


@pytest.mark.parametrize("name", ["nosuch", "", "../surveys", "ztf/.."])
def test_unknown_survey_is_an_input_error(name):
    with pytest.raises(InputError, match="no schemas"):
        known_schemas(name)


def test_changing_a_returned_schema_changes_no_other():
    known_schemas("ztf")["3.3"]["fields"].clear()
    assert known_schemas("ztf")["3.3"]["fields"]


@pytest.mark.parametrize(("family", "version"), ALL)
def test_shipped_schema_is_valid_and_bare(family, version):
    text = resources.files("pipeline.surveys").joinpath("schemas", family, f"{version}.avsc").read_text("utf-8")
    assert fastavro.parse_schema(json.loads(text))["type"] == "record"
    assert '"doc"' not in text and "__fastavro" not in text


@pytest.mark.parametrize(("family", "version"), ALL)
def test_superset_holds_every_version(family, version):
    assert unheld(superset(family), arrow_schema(known_schemas(family)[version])) is None


@pytest.mark.parametrize("family", FAMILIES)
def test_superset_is_nullable_throughout_and_does_not_depend_on_the_number_of_calls(family):
    def fields(dtype):
        if pa.types.is_struct(dtype):
            for field in dtype:
                yield field
                yield from fields(field.type)
        elif pa.types.is_list(dtype):
            yield from fields(dtype.value_type)

    schema = superset(family)
    assert all(field.nullable for field in fields(pa.struct(list(schema))))
    again = superset(list(known_schemas(family).values()))
    assert again.equals(schema) and again.names == schema.names
    newest = list(known_schemas(family).values())[-1]
    assert schema.names[: len(newest["fields"])] == [field["name"] for field in newest["fields"]]


@pytest.mark.parametrize(
    ("first", "second", "wide"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.float32(), pa.float64(), pa.float64()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int64(), pa.timestamp("us", "UTC"), pa.timestamp("us", "UTC")),
        (pa.null(), pa.list_(pa.string()), pa.list_(pa.string())),
        (
            pa.struct([("a", pa.int32())]),
            pa.struct([("b", pa.int32())]),
            pa.struct([("a", pa.int32()), ("b", pa.int32())]),
        ),
        (pa.list_(pa.int32()), pa.list_(pa.int64()), pa.list_(pa.int64())),
        (pa.map_(pa.string(), pa.float32()), pa.map_(pa.string(), pa.float64()), pa.map_(pa.string(), pa.float64())),
    ],
)
def test_merge_widens_without_loss(first, second, wide):
    assert merge(first, second) == wide
    assert wide == merge(second, first) or pa.types.is_struct(wide)
    assert unheld(pa.schema([("x", wide)]), pa.schema([("x", first)])) is None
    assert unheld(pa.schema([("x", wide)]), pa.schema([("x", second)])) is None


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.int64(), pa.float64()),
        (pa.string(), pa.binary()),
        (pa.string(), pa.int32()),
        (pa.struct([]), pa.list_(pa.int32())),
        (pa.bool_(), pa.int32()),
    ],
)
def test_merge_refuses_what_loses(first, second):
    with pytest.raises(SchemaError, match="diaSource"):
        merge(first, second, "diaSource.x")


def test_unheld_names_the_field():
    columns = superset("ztf")
    foreign = arrow_schema(record_schema(("candidate", record_schema(("newflag", "int"), name="candidate"))))
    assert unheld(columns, foreign) == "candidate.newflag (int32)"
    narrow = arrow_schema(record_schema(("objectId", "long")))
    assert unheld(columns, narrow) == "objectId (int64, the column is string)"


@pytest.mark.parametrize(
    "kind",
    [["int", "string"], {"type": "bytes", "logicalType": "decimal", "precision": 4}, ["null", "alert"], "nosuch"],
)
def test_types_that_no_column_holds_are_refused(kind):
    with pytest.raises(SchemaError, match="field x"):
        arrow_schema(record_schema(("x", kind)))


def test_widen_keeps_nulls_and_slices():
    narrow = pa.list_(pa.struct([("a", pa.int32()), ("inner", pa.struct([("f", pa.float32())]))]))
    wide = pa.list_(
        pa.struct(
            [("b", pa.string()), ("a", pa.int64()), ("inner", pa.struct([("g", pa.int8()), ("f", pa.float64())]))]
        )
    )
    rng = random.Random(4)
    values = [
        None
        if rng.random() < 0.2
        else [
            None if rng.random() < 0.2 else {"a": rng.choice((None, 7)), "inner": rng.choice((None, {"f": 0.5}))}
            for _ in range(rng.randrange(4))
        ]
        for _ in range(50)
    ]
    whole = pa.array(values, narrow)
    for start, length in ((0, 50), (3, 20), (49, 1), (10, 0)):
        got = widen(whole.slice(start, length), wide)
        got.validate(full=True)
        assert got.type == wide
        expected = []
        for row in values[start : start + length]:
            expected.append(
                row
                and [
                    item
                    and {"b": None, "a": item["a"], "inner": item["inner"] and {"g": None, "f": item["inner"]["f"]}}
                    for item in row
                ]
            )
        assert got.to_pylist() == expected


def test_widen_refuses_to_drop_a_field():
    with pytest.raises(SchemaError, match="field a"):
        widen(pa.array([{"a": 1}]), pa.struct([("b", pa.int64())]))


def test_widen_takes_maps_along():
    array = pa.array([[("x", 1.5)], None, []], pa.map_(pa.string(), pa.float32()))
    wide = widen(array.slice(0, 3), pa.map_(pa.string(), pa.float64()))
    assert wide.to_pylist() == [[("x", 1.5)], None, []]


@pytest.mark.parametrize(("family", "version"), ALL)
@settings(max_examples=4, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_packet_to_raw_to_packet_is_an_identity(family, version, seed):
    schema = known_schemas(family)[version]
    records = [random_record(schema, seed + i) for i in range(2)]
    decoded = decode(all_datums([container(schema, records)]), superset(family), CUTOUTS[family])
    back = to_version(rows_of(decoded), schema)
    assert [body(schema, record) for record in back] == [body(schema, record) for record in records]


def test_values_that_live_in_a_wider_column_come_back_exact():
    old = record_schema(("x", "float"), ("n", "int"), ("t", "long"), ("m", {"type": "map", "values": "float"}))
    new = record_schema(
        ("x", "double"),
        ("n", ["null", "double"]),
        ("t", {"type": "long", "logicalType": "timestamp-micros"}),
        ("m", {"type": "map", "values": "double"}),
        ("later", ["null", "int"]),
    )
    union = superset([old, new])
    assert [str(field.type) for field in union][:3] == ["double", "double", "timestamp[us, tz=UTC]"]
    record = {"x": 0.10000000149011612, "n": 2**31 - 1, "t": 2**63 - 1, "m": {"a": 0.20000000298023224}}
    decoded = decode(all_datums([container(old, [record])]), union, ())
    (back,) = to_version(rows_of(decoded), old)
    assert_equal(back, record)


def test_a_field_that_the_version_lacks_does_not_appear():
    ztf = known_schemas("ztf")
    decoded = decode(
        all_datums([container(ztf["4.02"], [random_record(ztf["4.02"], 5)])]), superset("ztf"), CUTOUTS["ztf"]
    )
    names = {field["name"] for field in ztf["3.3"]["fields"]}
    (row,) = to_version(rows_of(decoded), ztf["3.3"])
    assert set(row) == names and "fp_hists" not in row


def test_null_where_the_version_has_none_is_an_error():
    schema = record_schema(("a", "int"), ("b", ["null", "int"]))
    rows = pa.table({"a": pa.array([None], pa.int32()), "b": pa.array([1], pa.int32())})
    with pytest.raises(SchemaError, match="field a is null"):
        to_version(rows, schema)
    with pytest.raises(SchemaError, match="field a is null"):
        to_version(rows.select(["b"]), schema)
    assert to_version(pa.table({"a": pa.array([], pa.int32())}), schema) == []
