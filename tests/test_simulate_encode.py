"""The simulator's Avro encoder against fastavro, and its random numbers."""

from __future__ import annotations

import io

import fastavro
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from pipeline.errors import SchemaError
from pipeline.simulate.draws import QUANTILES, Draws, fill_noise
from pipeline.simulate.encode import Encoder, Heap
from pipeline.simulate.packets import calendar, digits, tar_members, varint

SCHEMA = {
    "type": "record",
    "name": "t.packet",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "word", "type": "string"},
        {
            "name": "inner",
            "type": {
                "type": "record",
                "name": "inner",
                "fields": [
                    {"name": "d", "type": "double"},
                    {"name": "f", "type": ["null", "float"], "default": None},
                    {"name": "b", "type": ["boolean", "null"]},
                ],
            },
        },
        {
            "name": "points",
            "type": [
                "null",
                {
                    "type": "array",
                    "items": {
                        "type": "record",
                        "name": "point",
                        "fields": [{"name": "n", "type": "int"}, {"name": "s", "type": ["null", "bytes"]}],
                    },
                },
            ],
        },
        {"name": "other", "type": ["null", "t.inner"], "default": None},
    ],
}

INNER = st.fixed_dictionaries(
    {
        "d": st.floats(allow_nan=False),
        "f": st.none() | st.floats(allow_nan=False, width=32),
        "b": st.none() | st.booleans(),
    }
)
RECORD = st.fixed_dictionaries(
    {
        "id": st.integers(-(2**63), 2**63 - 1),
        "word": st.text(max_size=12),
        "inner": INNER,
        "points": st.none()
        | st.lists(
            st.fixed_dictionaries({"n": st.integers(-(2**31), 2**31 - 1), "s": st.none() | st.binary(max_size=9)}),
            max_size=4,
        ),
        "other": st.none() | INNER,
    }
)


def _column(columns, name, values, fill=0):
    null = np.array([value is None for value in values], dtype=bool)
    columns.set(name, np.array([fill if value is None else value for value in values]), null)


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORD, min_size=1, max_size=5))
def test_bodies_decode_to_what_was_set(records):
    encoder, heap = Encoder(SCHEMA), Heap()
    packet = encoder.columns("", len(records))
    packet.set("id", np.array([record["id"] for record in records], dtype=np.int64))
    packet.set("word", heap.add([record["word"].encode() for record in records]))
    packet.set("inner", True)
    packet.set("other", True, np.array([record["other"] is None for record in records]))
    for field in ("d", "f", "b"):
        fill = False if field == "b" else 0.0
        _column(packet, f"inner.{field}", [record["inner"][field] for record in records], fill)
        _column(packet, f"other.{field}", [(record["other"] or {}).get(field) for record in records], fill)
    packet.set("points", True, np.array([record["points"] is None for record in records]))
    flat = [point for record in records for point in record["points"] or []]
    points = encoder.columns("points", len(flat))
    points.set("n", np.array([point["n"] for point in flat], dtype=np.int64))
    texts = heap.add([point["s"] or b"" for point in flat])
    points.set("s", texts, np.array([point["s"] is None for point in flat], dtype=bool))
    offsets = np.r_[0, np.cumsum([len(record["points"] or []) for record in records])]
    bodies, at = encoder.encode(packet, {"points": (points, offsets)}, heap)
    parsed = fastavro.parse_schema(SCHEMA)
    for i, record in enumerate(records):
        body = bodies[at[i] : at[i + 1]].tobytes()
        assert fastavro.schemaless_reader(io.BytesIO(body), parsed) == record


def test_a_required_field_left_out_is_an_error():
    encoder = Encoder(SCHEMA)
    with pytest.raises(SchemaError, match="may not be null"):
        encoder.encode(encoder.columns("", 1), {}, Heap())


def test_unions_of_several_types_are_refused():
    with pytest.raises(SchemaError, match="union of several"):
        Encoder({"type": "record", "name": "r", "fields": [{"name": "x", "type": ["null", "int", "string"]}]})


@given(st.integers(-(2**63), 2**63 - 1))
def test_varints_are_those_of_avro(value):
    assert fastavro.schemaless_reader(io.BytesIO(varint(value)), "long") == value


def test_draws_depend_on_seed_key_stream_and_counter_alone():
    keys = np.arange(1000)
    draws = Draws(5)
    whole = draws.normal("a", keys)
    assert np.array_equal(whole[300:400], draws.normal("a", keys[300:400]))
    others = (draws.normal("b", keys), draws.normal("a", keys, counter=1), Draws(6).normal("a", keys))
    for other in others:
        assert abs(np.corrcoef(whole, other)[0, 1]) < 0.12


def test_draws_have_their_distributions():
    keys = np.arange(20000)
    assert kstest(Draws(1).uniform("u", keys), "uniform").pvalue > 1e-3
    assert kstest(Draws(1).normal("n", keys), "norm").pvalue > 1e-3
    assert np.bincount(Draws(1).choice("c", keys, np.array([1.0, 0.0, 3.0])), minlength=3)[1] == 0
    pixels = np.empty(40001, np.float32)
    fill_noise(np.uint64(7), QUANTILES, pixels)
    assert kstest(pixels, "norm").pvalue > 1e-3


def test_text_columns():
    assert digits(np.array([7, 20240115]), 9).tobytes() == b"000000007020240115"
    assert calendar(np.array([2460324.5, 2460325.49, 2451545.0])).tolist() == [20240115, 20240115, 20000101]


def test_tar_members_are_read_by_tarfile():
    import tarfile

    files = [b"x" * 511, b"", b"y" * 512]
    archive = tar_members(np.array([1, 22, 333]), files, 1_700_000_000) + bytes(1024)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = tar.getmembers()
        assert [member.name for member in members] == ["1.avro", "22.avro", "333.avro"]
        assert [tar.extractfile(member).read() for member in members] == files
        assert {member.mtime for member in members} == {1_700_000_000}
