"""Re-encoded sources: another broker's Parquet and Avro, column by column."""

from __future__ import annotations

import io
import json

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.avro import Datum, decode, raw_schema
from pipeline.dumps import Reader, Tally, datums, list_sources, segments, tables
from pipeline.errors import SourceError
from pipeline.schema import content_hash
from pipeline.surveys.superset import known_schemas, superset, widen
from tests.avro_oracle import CUTOUTS, all_datums, assert_holds, container, random_record, rows_of


def batches(path, family, **options):
    out = []
    for source in list_sources([str(path)]):
        for segment in segments(source):
            out += tables(segment, superset(family), CUTOUTS[family], **options)
    return out


def transfer(tmp_path, family="ztf", n=12, drop=(), **added):
    """Write a transfer file of random packets with the peer's columns beside them; return path and its rows."""
    version = {"ztf": "3.3", "lsst": "10.0"}[family]
    schema = known_schemas(family)[version]
    packets = [container(schema, [random_record(schema, i)]) for i in range(n)]
    rows = rows_of(decode(all_datums(packets), superset(family), CUTOUTS[family]))
    native = [field["name"] for field in schema["fields"] if field["name"] not in drop]
    table = rows.select(native)
    for name, values in {"fink_broker_version": ["4.02"] * n, **added}.items():
        table = table.append_column(name, pa.array(values))
    path = tmp_path / "part-0.parquet"
    pq.write_table(table, path, row_group_size=5)
    return path, rows


@pytest.mark.parametrize("family", ["ztf", "lsst"])
def test_survey_columns_come_through_type_by_type(tmp_path, family):
    path, rows = transfer(tmp_path, family)
    got = batches(path, family, batch_rows=5)
    assert [batch.first_row for batch in got] == [0, 5, 10]
    raw = pa.concat_tables([batch.decoded.raw for batch in got])
    cutouts = pa.concat_tables([batch.decoded.cutouts for batch in got])
    assert raw.schema == raw_schema(superset(family), CUTOUTS[family])
    for name in rows.column_names:
        data = cutouts.column(name) if name in cutouts.column_names else raw.column(name)
        for got_row, row in zip(data.to_pylist(), rows.column(name).to_pylist(), strict=True):
            assert_holds(row, got_row, name)
    expected = decode([], superset(family), CUTOUTS[family])
    assert cutouts.schema == expected.cutouts.schema
    assert list_sources([str(path)])[0].origin == "fink-transfer-parquet"


def test_columns_that_are_missing_are_null(tmp_path):
    path, rows = transfer(tmp_path, drop=(*CUTOUTS["ztf"], "publisher"))
    (batch,) = batches(path, "ztf")
    assert batch.decoded.cutouts.num_rows == rows.num_rows
    assert all(batch.decoded.cutouts.column(name).null_count == rows.num_rows for name in CUTOUTS["ztf"])
    assert batch.decoded.raw.column("publisher").null_count == rows.num_rows
    assert batch.decoded.raw.column("candid").equals(rows.column("candid"))


def test_added_columns_become_json(tmp_path):
    scores = [0.5, float("nan"), *[None] * 10]
    path, _ = transfer(tmp_path, rf_score=scores, tags=[{"a": 1}] * 12, big=[2**60 + 1] * 12)
    (batch,) = batches(path, "ztf")
    added = [json.loads(text) for text in batch.decoded.raw.column("origin_added").to_pylist()]
    assert [item["rf_score"] for item in added] == [0.5, "nan", *[None] * 10]
    assert all(item["big"] == 2**60 + 1 and item["tags"] == {"a": 1} for item in added)
    assert all(set(item) == {"fink_broker_version", "rf_score", "tags", "big"} for item in added)


@pytest.mark.parametrize(
    ("column", "texts", "versions"),
    [
        ("schemavsn", ["3.3", "4.02"], ["3.3", "4.02"]),
        ("lsst_schema_version", ["lsst.v10_0", "lsst.v7_4"], ["10.0", "7.4"]),
        ("lsst_schema_version", ["odd text", None], ["odd text", "unknown"]),
        ("other", ["1", "2"], ["unknown", "unknown"]),
    ],
)
def test_schema_version(tmp_path, column, texts, versions):
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"diaSourceId": [1, 2], column: texts}), path)
    (batch,) = batches(path, "lsst")
    assert batch.decoded.raw.column("schema_version").to_pylist() == versions


def test_points_and_rows(tmp_path):
    path, rows = transfer(tmp_path)
    (batch,) = batches(path, "ztf")
    lengths = [len(row or []) for row in rows.column("prv_candidates").to_pylist()]
    assert batch.decoded.points.tolist() == [1 + n for n in lengths]
    assert batch.decoded.kept.tolist() == list(range(12)) and batch.decoded.faults == []


def test_row_digests_tell_rows_apart_and_not_batches(tmp_path):
    path, _ = transfer(tmp_path)
    whole = [digest for batch in batches(path, "ztf") for digest in batch.sha256]
    cut = [digest for batch in batches(path, "ztf", batch_rows=5) for digest in batch.sha256]
    assert whole == cut and len(set(whole)) == 12 and {len(digest) for digest in whole} == {32}


def test_storage_types_of_other_writers(tmp_path):
    path, rows = transfer(tmp_path)
    table = pq.read_table(path)
    kinds = {
        "objectId": pa.dictionary(pa.int32(), pa.string()),
        "publisher": pa.large_string(),
        "schemavsn": pa.string_view(),
    }
    for name, kind in kinds.items():
        table = table.set_column(table.schema.get_field_index(name), name, table.column(name).cast(kind))
    struct = pa.struct([("fileName", pa.large_string()), ("stampData", pa.large_binary())])
    at = table.schema.get_field_index("cutoutScience")
    table = table.set_column(at, "cutoutScience", table.column("cutoutScience").cast(struct))
    pq.write_table(table, path)
    (batch,) = batches(path, "ztf")
    for name in kinds:
        assert batch.decoded.raw.column(name).to_pylist() == rows.column(name).to_pylist()
    assert batch.decoded.cutouts.column("cutoutScience").to_pylist() == rows.column("cutoutScience").to_pylist()


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"other": [1]}, "no column of the survey"),
        ({"candid": [1.5]}, "candid"),
        ({"candidate": [{"jd": 1.0, "unheard_of": 2}]}, "unheard_of"),
        ({"candid": pa.array([2**63], pa.uint64())}, "candid"),
    ],
)
def test_a_file_that_does_not_fit_is_one_line(tmp_path, table, expected):
    path = tmp_path / "odd.parquet"
    pq.write_table(pa.table(table), path)
    with pytest.raises(SourceError) as error:
        batches(path, "ztf")
    assert expected in str(error.value) and "odd.parquet" in str(error.value) and "\n" not in str(error.value)


def test_a_damaged_file_is_a_source_error(tmp_path):
    path, _ = transfer(tmp_path)
    data = bytearray(path.read_bytes())
    data[100:2000] = bytes(1900)
    path.write_bytes(bytes(data))
    with pytest.raises(SourceError, match="damaged"):
        batches(path, "ztf")


def test_a_folder_is_cut_between_files(tmp_path):
    for i in range(5):
        pq.write_table(pa.table({"candid": [10 * i, 10 * i + 1]}), tmp_path / f"part-{i}.parquet")
    (tmp_path / "_SUCCESS").write_bytes(b"")
    (source,) = list_sources([str(tmp_path)])
    assert source.origin == "parquet"
    cut = segments(source, max_packets=4)
    assert [segment.n_packets for segment in cut] == [4, 4, 2]
    tally = Tally()
    got = [batch for segment in cut for batch in tables(segment, superset("ztf"), (), tally)]
    assert [batch.member for batch in got] == [f"part-{i}.parquet" for i in range(5)]
    assert [c for batch in got for c in batch.decoded.raw.column("candid").to_pylist()] == [
        10 * i + k for i in range(5) for k in (0, 1)
    ]
    assert tally.skipped == ["_SUCCESS"] and tally.packets == 10


def test_a_table_has_no_packets_and_packets_no_tables(tmp_path):
    path, _ = transfer(tmp_path)
    (segment,) = segments(list_sources([str(path)])[0])
    with pytest.raises(SourceError, match="no packets"):
        list(datums(segment, Reader()))


def test_the_peers_avro_is_told_by_its_columns(tmp_path):
    schema = known_schemas("ztf")["3.3"]
    added = [{"name": name, "type": ["string", "null"]} for name in ("fink_broker_version", "cdsxmatch")]
    records = [{**random_record(schema, i), "fink_broker_version": "4.02", "cdsxmatch": None} for i in range(3)]
    path = tmp_path / "part.avro"
    path.write_bytes(container({**schema, "name": "topLevelRecord", "fields": [*schema["fields"], *added]}, records))
    (source,) = list_sources([str(path)])
    assert source.origin == "fink-transfer-avro"
    data = [item for segment in segments(source) for _, item in datums(segment, Reader())]
    decoded = decode(data, superset("ztf"), CUTOUTS["ztf"], reencoded=True)
    assert set(decoded.raw.column("origin_added").to_pylist()) == {'{"cdsxmatch":null,"fink_broker_version":"4.02"}'}
    with pytest.raises(SourceError, match="fink_broker_version"):
        decode(data, superset("ztf"), CUTOUTS["ztf"])


# --------------------------------------------------------------------------------------- the peer's real files
@pytest.mark.parametrize(
    ("folder", "family", "n"),
    [
        ("alerts/lsst/fink_transfer_2026-03-10", "lsst", 74),
        ("peer/fink_rubin_v10", "lsst", 27),
        ("peer/fink_ztf_20240115", "ztf", 425),
        ("peer/fink_filters_tde", "ztf", 21),
        ("peer/fink_filters_symbiotic", "ztf", 20),
    ],
)
def test_real_transfer_files_column_by_column(shared_data, folder, family, n):
    union, cutouts = superset(family), CUTOUTS[family]
    got = batches(shared_data / folder, family)
    assert sum(batch.decoded.raw.num_rows for batch in got) == n
    for batch in got:
        raw, stamps = batch.decoded.raw, batch.decoded.cutouts
        own = pq.read_table(shared_data / folder / batch.member).slice(batch.first_row, raw.num_rows)
        for name in own.column_names:
            if name not in union.names:
                continue
            mine = stamps.column(name) if name in cutouts else raw.column(name)
            theirs = pa.chunked_array([widen(c, union.field(name).type) for c in own.column(name).chunks])
            assert mine.equals(theirs) or content_hash(mine) == content_hash(theirs), name
            if name != "mpc_orbits":  # whose three moments the file has as integers
                for one, two in zip(
                    own.column(name).slice(0, 1).to_pylist(), mine.slice(0, 1).to_pylist(), strict=True
                ):
                    assert_holds(one, two, name)
        for text in raw.column("origin_added").to_pylist()[:5]:
            assert set(json.loads(text)) == {name for name in own.column_names if name not in union.names}
        assert (np.array(batch.decoded.points) > 0).all()


def test_real_transfer_avro(shared_data):
    (source,) = list_sources([str(shared_data / "peer/fink_ztf_transfer_2026")])
    assert (source.kind, source.origin) == ("folder", "fink-transfer-avro")
    tally = Tally()
    items = [item for segment in segments(source) for item in datums(segment, Reader(), tally)]
    data = [item for _, item in items if isinstance(item, Datum)]
    decoded = decode(data, superset("ztf"), CUTOUTS["ztf"], reencoded=True)
    text = (shared_data / "peer/fink_ztf_transfer_2026" / items[0][0]).read_bytes()
    records = list(fastavro.reader(io.BytesIO(text)))
    assert len(records) == decoded.raw.num_rows == 31
    for record, row in zip(records, rows_of(decoded).to_pylist(), strict=True):
        assert_holds({name: value for name, value in record.items() if name in row}, row)
    assert len(tally.skipped) == 2
