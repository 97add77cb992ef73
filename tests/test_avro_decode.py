"""Decoding: every field of every packet equals what fastavro reads, and damage is a fault."""

from __future__ import annotations

import io
import json
import random
import struct

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.avro import Datum, Fault, HeaderCache, cutout_schema, decode, raw_schema, split_container, writer_schema
from pipeline.avro.decoding import ARENA_BYTES
from pipeline.avro.rows import added_json
from pipeline.errors import PipelineError, SourceError
from pipeline.surveys.superset import known_schemas, superset, to_version
from tests.avro_oracle import (
    CODECS,
    CUTOUTS,
    all_datums,
    assert_equal,
    assert_holds,
    body,
    container,
    random_record,
    rows_of,
)

ALL = [(family, version) for family in CUTOUTS for version in known_schemas(family)]
SMALL = {
    "type": "record",
    "name": "alert",
    "version": "1.0",
    "fields": [
        {"name": "candid", "type": "long"},
        {"name": "mag", "type": ["null", "float"]},
        {"name": "history", "type": {"type": "array", "items": "double"}},
        {"name": "limits", "type": ["null", {"type": "array", "items": "float"}]},
        {"name": "name", "type": "string"},
        {"name": "stamp", "type": ["null", "bytes"]},
    ],
}
SMALL_SUPERSET = superset([SMALL])


def small(i: int, **changes) -> dict:
    return {"candid": i, "mag": None, "history": [1.0] * (i % 3), "limits": None, "name": "x", "stamp": b"s", **changes}


def decode_small(packets, **options):
    return decode(all_datums(packets), SMALL_SUPERSET, ("stamp",), **options)


# --------------------------------------------------------------------------------------- sound packets
@pytest.mark.parametrize(("family", "version"), ALL)
@settings(max_examples=3, deadline=None)
@given(seed=st.integers(0, 2**32), codec=st.sampled_from(CODECS))
def test_raw_holds_what_fastavro_reads(family, version, seed, codec):
    schema = known_schemas(family)[version]
    written = [random_record(schema, seed + i) for i in range(3)]
    data = container(schema, written, codec, sync_interval=1)
    decoded = decode(all_datums([data]), superset(family), CUTOUTS[family])
    records = list(fastavro.reader(io.BytesIO(container(schema, written))))
    assert decoded.faults == [] and decoded.kept.tolist() == [0, 1, 2]
    for record, row in zip(records, rows_of(decoded).to_pylist(), strict=True):
        assert_holds(record, row)


def test_mixed_versions_keep_source_order():
    schemas = list(known_schemas("ztf").values())
    rng = random.Random(3)
    order = [rng.randrange(len(schemas)) for _ in range(40)]
    records = [random_record(schemas[k], i) for i, k in enumerate(order)]
    packets = [container(schemas[k], [record]) for k, record in zip(order, records, strict=True)]
    decoded = decode(all_datums(packets), superset("ztf"), CUTOUTS["ztf"])
    rows = rows_of(decoded).to_pylist()
    for packet, row in zip(packets, rows, strict=True):
        assert_holds(next(fastavro.reader(io.BytesIO(packet))), row)
    for start in (0, 13):
        alone = decode(all_datums(packets[start : start + 1]), superset("ztf"), CUTOUTS["ztf"])
        assert_equal(rows_of(alone).to_pylist()[0], rows[start])
        assert alone.points[0] == decoded.points[start]


def test_tables_have_the_declared_schema_also_without_rows():
    for family, cutouts in CUTOUTS.items():
        union = superset(family)
        decoded = decode([], union, cutouts)
        assert decoded.raw.schema == raw_schema(union, cutouts)
        assert decoded.cutouts.schema == cutout_schema(union, cutouts)
        assert decoded.raw.column_names[0] == "schema_version" and decoded.raw.column_names[-1] == "origin_added"
        assert not set(cutouts) & set(decoded.raw.column_names)
        schema = next(iter(known_schemas(family).values()))
        one = decode(all_datums([container(schema, [random_record(schema, 1)])]), union, cutouts)
        assert one.raw.schema == decoded.raw.schema and one.cutouts.schema == decoded.cutouts.schema
        assert len(decoded.points) == len(decoded.kept) == 0


def test_points_are_one_and_the_lengths_of_the_lists():
    packets = [container(SMALL, [small(0), small(2, limits=[1.0, 2.0, 3.0]), small(1, limits=[])])]
    assert decode_small(packets).points.tolist() == [1, 1 + 2 + 3, 1 + 1]
    assert decode_small(packets).points.dtype == np.int64


@pytest.mark.parametrize(
    "bits", [0x7FC00000, 0xFFC00000, 0x7FC12345, 0xFFFFFFFF, 0x7F800000, 0xFF800000, 0x80000000, 1]
)
def test_floats_keep_their_bits(bits):
    data = container(SMALL, [small(1, mag=1.0)])
    (datum,) = all_datums([data])
    at = datum.body.index(struct.pack("<f", 1.0))
    changed = datum.body[:at] + struct.pack("<I", bits) + datum.body[at + 4 :]
    decoded = decode([Datum(changed, 0, len(changed), datum.schema)], SMALL_SUPERSET, ())
    assert decoded.raw.column("mag").chunk(0).buffers()[1].to_pybytes()[:4] == struct.pack("<I", bits)


def test_doubles_keep_their_bits():
    bits = [0x7FF8000000000001, 0xFFF8DEADBEEF0000, 0x7FF0000000000000, 0x8000000000000000]
    record = small(1, history=[struct.unpack("<d", struct.pack("<Q", b))[0] for b in bits])
    values = decode_small([container(SMALL, [record])]).raw.column("history").chunk(0).values
    assert values.to_numpy().view(np.uint64).tolist() == bits


def test_timestamps_are_those_of_the_oracle():
    schema = known_schemas("lsst")["8.0"]
    record = random_record(schema, 11)
    record["diaSource"]["time_processed"] = 1_700_000_000_123_457
    data = container(schema, [record])
    (row,) = rows_of(decode(all_datums([data]), superset("lsst"), CUTOUTS["lsst"])).to_pylist()
    oracle = next(fastavro.reader(io.BytesIO(data)))["diaSource"]["time_processed"]
    assert row["diaSource"]["time_processed"] == oracle and oracle.microsecond == 123_457


def test_timestamps_out_of_range_of_a_calendar_come_back():
    schema = known_schemas("lsst")["8.0"]
    record = random_record(schema, 11)
    record["diaSource"]["time_processed"] = -(2**63)
    decoded = decode(all_datums([container(schema, [record])]), superset("lsst"), CUTOUTS["lsst"])
    assert body(schema, to_version(rows_of(decoded), schema)[0]) == body(schema, record)


def test_batches_do_not_show(monkeypatch):
    packets = [container(SMALL, [small(i, name=str(i)) for i in range(20)])]
    whole = decode_small(packets)
    monkeypatch.setattr("pipeline.avro.decoding.ARENA_BYTES", 100)
    cut = decode_small(packets)
    assert ARENA_BYTES > 100 and cut.raw.equals(whole.raw) and cut.raw.column(0).num_chunks > 3


# --------------------------------------------------------------------------------------- versions, foreign fields
def test_schema_version_is_the_packets_own():
    ztf = known_schemas("ztf")
    packets = []
    for schema, own in ((ztf["3.3"], "3.2"), (ztf["3.3"], ""), (ztf["3.3+nullable"], None), (ztf["1.8"], None)):
        record = random_record(schema, 2)
        if "schemavsn" in record:
            record["schemavsn"] = own
        packets.append(container(schema, [record]))
    versions = decode(all_datums(packets), superset("ztf"), CUTOUTS["ztf"]).raw.column("schema_version")
    assert versions.to_pylist() == ["3.2", "3.3", "unknown", "1.8"]
    assert decode_small([container(SMALL, [small(1)])]).raw.column("schema_version").to_pylist() == ["1.0"]


def test_a_field_without_column_fails_the_source_in_one_line():
    schema = {**SMALL, "fields": [*SMALL["fields"], {"name": "novel", "type": "int"}]}
    datums = all_datums([container(schema, [small(1, novel=3)])])
    with pytest.raises(SourceError) as error:
        decode(datums, SMALL_SUPERSET, (), source="night.tar")
    line = str(error.value)
    assert "novel (int32)" in line and "night.tar" in line and ".avsc" in line and "\n" not in line


def test_a_wider_field_than_its_column_fails_the_source():
    schema = {**SMALL, "fields": [{"name": "mag", "type": "double"}]}
    with pytest.raises(SourceError, match="mag"):
        decode(all_datums([container(schema, [{"mag": 1.0}])]), SMALL_SUPERSET, ())


def test_a_foreign_schema_that_fits_is_accepted():
    schema = {"type": "record", "name": "other", "fields": [
        {"name": "name", "type": {"type": "enum", "name": "e", "symbols": ["a", "b"]}},
        {"name": "candid", "type": "int"},
        {"name": "stamp", "type": {"type": "fixed", "name": "f", "size": 3}},
    ]}  # fmt: skip
    decoded = decode(all_datums([container(schema, [{"name": "b", "candid": 7, "stamp": b"abc"}])]), SMALL_SUPERSET, ())
    row = decoded.raw.to_pylist()[0]
    assert (row["name"], row["candid"], row["stamp"], row["mag"]) == ("b", 7, b"abc", None)


def test_damaged_bodies_of_a_foreign_schema_fail_no_source():
    schema = {**SMALL, "fields": [*SMALL["fields"], {"name": "novel", "type": "int"}]}
    (datum,) = all_datums([container(schema, [small(1, novel=3)])])
    cut = Datum(datum.body[:-1], 0, datum.length - 1, datum.schema)
    (good,) = all_datums([container(SMALL, [small(2)])])
    decoded = decode([cut, good], SMALL_SUPERSET, ())
    assert decoded.kept.tolist() == [1] and decoded.faults[0][0] == 0


def test_added_fields_of_a_reencoded_source_are_kept_as_json():
    added = [{"name": "rf_score", "type": "double"}, {"name": "tags", "type": {"type": "map", "values": "string"}}]
    schema = {**SMALL, "fields": [*SMALL["fields"], *added]}
    records = [small(i, rf_score=score, tags={"b": "é", "a": "1"}) for i, score in enumerate((0.5, float("nan")))]
    decoded = decode_small([container(schema, records)], reencoded=True)
    assert decoded.raw.column("origin_added").to_pylist() == [
        '{"rf_score":0.5,"tags":{"a":"1","b":"é"}}',
        '{"rf_score":"nan","tags":{"a":"1","b":"é"}}',
    ]
    native = decode_small([container(SMALL, [small(0)])], reencoded=True)
    assert native.raw.column("origin_added").to_pylist() == [None]


def test_added_json_is_exact_for_large_ids_and_bytes():
    import datetime

    moment = datetime.datetime(2026, 3, 9, tzinfo=datetime.UTC)
    text = added_json({"id": 2**53 + 1, "b": b"\x00\xff", "t": moment, "l": [(1, float("inf"))], "n": None})
    assert text == '{"b":"00ff","id":9007199254740993,"l":[[1,"inf"]],"n":null,"t":"2026-03-09T00:00:00+00:00"}'


# --------------------------------------------------------------------------------------- damage
def test_faults_spoil_no_neighbour():
    datums = all_datums([container(SMALL, [small(i) for i in range(5)], sync_interval=1)])
    datums[1] = Datum(datums[1].body + b"\x00", 500, datums[1].length + 1, datums[1].schema)
    datums[3] = Datum(b"", 700, 0, datums[3].schema)
    decoded = decode(datums, SMALL_SUPERSET, ())
    assert decoded.kept.tolist() == [0, 2, 4]
    assert decoded.raw.column("candid").to_pylist() == [0, 2, 4]
    assert [index for index, _ in decoded.faults] == [1, 3]
    assert "stray bytes" in decoded.faults[0][1] and "field candid" in decoded.faults[1][1]
    assert "at byte 7" in decoded.faults[1][1]


@pytest.mark.parametrize(
    ("family", "version"), [("ztf", "4.02"), ("ztf", "1.8"), ("lsst", "10.0"), ("elasticc", "0.9")]
)
def test_mutated_bodies_give_faults_or_the_value_that_is_there(family, version):
    schema = known_schemas(family)[version]
    (datum,) = all_datums([container(schema, [random_record(schema, 17)])])
    rng = random.Random(5)
    mutants = []
    for _ in range(300):
        data = bytearray(datum.body)
        for _ in range(rng.choice((1, 1, 3))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if rng.random() < 0.3:
            del data[rng.randrange(len(data)) :]
        mutants.append(Datum(bytes(data), 0, len(data), datum.schema))
    decoded = decode(mutants, superset(family), CUTOUTS[family])
    assert len(decoded.kept) + len(decoded.faults) == len(mutants)
    assert all(reason and "\n" not in reason and "at byte" in reason for _, reason in decoded.faults)
    assert len(decoded.faults) > 20
    for index, record in zip(decoded.kept, to_version(rows_of(decoded), schema), strict=True):
        assert len(body(schema, record)) <= mutants[index].length  # longer spellings of a number are allowed


@pytest.mark.parametrize("codec", CODECS)
def test_mutated_packets_raise_nothing_but_what_is_declared(codec):
    schema = known_schemas("elasticc")["0.9"]
    data = container(schema, [random_record(schema, i) for i in range(3)], codec, sync_interval=1)
    header = data.index(b"\x00", data.index(b"avro.schema"))
    rng = random.Random(6)
    cache = HeaderCache()
    for _ in range(150):
        changed = bytearray(data)
        start = rng.choice((0, header))
        for _ in range(rng.choice((1, 2, 20))):
            changed[rng.randrange(start, len(data))] = rng.randrange(256)
        items = split_container(bytes(changed[: rng.choice((len(data), rng.randrange(len(data))))]), cache)
        good = [item for item in items if isinstance(item, Datum)]
        assert all(isinstance(item, (Datum, Fault)) for item in items)
        try:
            decoded = decode(good, superset("elasticc"), CUTOUTS["elasticc"])
        except SourceError as error:  # the damage made a sound schema with a field of another name
            assert "cannot hold" in str(error)
            continue
        assert len(decoded.kept) + len(decoded.faults) == len(good)


def test_decode_of_random_bytes_is_a_fault():
    schema = writer_schema(known_schemas("ztf")["3.3"])
    rng = random.Random(8)
    noise = [rng.randbytes(rng.randrange(4000)) for _ in range(200)]
    decoded = decode([Datum(data, 0, len(data), schema) for data in noise], superset("ztf"), CUTOUTS["ztf"])
    assert len(decoded.faults) == 200 and decoded.raw.num_rows == 0


# --------------------------------------------------------------------------------------- real packets
def oracle_of(data: bytes):
    return next(fastavro.reader(io.BytesIO(data)))


def check_files(files, family):
    cache = HeaderCache()
    packets = [file.read_bytes() for file in files]
    assert packets
    decoded = decode(all_datums(packets, cache), superset(family), CUTOUTS[family])
    assert decoded.faults == [] and decoded.raw.num_rows == len(packets)
    for packet, row in zip(packets, rows_of(decoded).to_pylist(), strict=True):
        assert_holds(oracle_of(packet), row)
    return decoded


def test_real_ztf_packets_of_every_version(shared_data):
    for folder in ("versions", "object_ZTF21abiuvdk"):
        decoded = check_files(sorted((shared_data / "alerts/ztf" / folder).rglob("*.avro")), "ztf")
        assert pa.compute.all(pa.compute.is_valid(decoded.raw.column("candidate"))).as_py()


def test_real_rubin_samples(shared_data):
    decoded = check_files(sorted((shared_data / "alerts/lsst/alert_packet_samples").rglob("*.avro")), "lsst")
    assert {"3.0", "7.4", "11.0"} <= set(decoded.raw.column("schema_version").to_pylist())


def test_real_elasticc_samples(shared_data):
    check_files(sorted((shared_data / "alerts/elasticc/samples").glob("*.avro")), "elasticc")


def test_real_packets_come_back_byte_for_byte(shared_data):
    for file in sorted((shared_data / "alerts/ztf/versions").rglob("*.avro")):
        data = file.read_bytes()
        (datum,) = all_datums([data])
        schema = fastavro.reader(io.BytesIO(data)).writer_schema
        (back,) = to_version(rows_of(decode([datum], superset("ztf"), CUTOUTS["ztf"])), schema)
        assert_equal(back, oracle_of(data))


def test_apache_avro_agrees_on_a_sample(shared_data):
    pytest.importorskip("avro")
    import avro.io
    import avro.schema

    files = sorted((shared_data / "alerts/ztf/versions").rglob("*.avro"))[::9]
    files += sorted((shared_data / "alerts/lsst/alert_packet_samples").rglob("*.avro"))[::4]
    for file in files:
        family = "ztf" if "ztf" in file.parts else "lsst"
        data = file.read_bytes()
        (datum,) = all_datums([data])
        schema = avro.schema.parse(json.dumps(fastavro.reader(io.BytesIO(data)).writer_schema))
        record = avro.io.DatumReader(schema).read(avro.io.BinaryDecoder(io.BytesIO(datum.body)))
        (row,) = rows_of(decode([datum], superset(family), CUTOUTS[family])).to_pylist()
        assert_holds(record, row)


def test_the_corrupt_packets_give_a_fault_each(shared_data):
    files = sorted((shared_data / "alerts/ztf/corrupt").iterdir())
    assert len(files) == 15
    for file in files:
        items = split_container(file.read_bytes(), HeaderCache())
        good = [item for item in items if isinstance(item, Datum)]
        decoded = decode(good, superset("ztf"), CUTOUTS["ztf"])
        reasons = [item.reason for item in items if isinstance(item, Fault)] + [reason for _, reason in decoded.faults]
        assert decoded.raw.num_rows == 0 and len(reasons) == 1 and reasons[0], file.name


@pytest.mark.parametrize("part", [0, 1, 2])
def test_truncated_real_packets_raise_nothing(shared_data, part):
    (file,) = sorted((shared_data / "alerts/ztf/versions/4.02/boom").iterdir())
    data = file.read_bytes()
    cache = HeaderCache()
    for cut in range(part * 211, len(data), 633):
        items = split_container(data[:cut], cache)
        assert [type(item) for item in items] in ([Fault], []) and (items or cut == 0 or cut > 20_000)


def test_every_error_of_this_module_is_declared():
    with pytest.raises(PipelineError):
        writer_schema({"type": "record", "name": "r", "fields": None})
