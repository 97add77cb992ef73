"""What a hostile reading of the decoder has found: schemas that mean something else, room that one packet asks for."""

from __future__ import annotations

import dataclasses
import io
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pytest

from pipeline.avro import Fault, HeaderCache, decode, decoding, slow, split_container
from pipeline.avro.arena import Arena, Layout
from pipeline.avro.container import Datum
from pipeline.avro.primitives import MAX_ITEMS
from pipeline.avro.program import compile_program
from pipeline.avro.schema import MAX_VERSION, WriterSchema, writer_schema
from pipeline.avro.target import Target
from pipeline.errors import SchemaError

WORDS = {"type": "enum", "name": "a.X", "symbols": ["P", "Q"]}
SAME_NAME = {"type": "enum", "name": "b.X", "symbols": ["Q", "P"]}


def record(fields: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "record", "name": "r", "fields": [{"name": n, "type": t} for n, t in fields.items()], **more}


def decoded(superset: pa.Schema, *packets: tuple[WriterSchema, bytes]) -> list[dict[str, Any]]:
    """Return the rows as both decoders have them."""
    data = [Datum(body, 0, len(body), schema) for schema, body in packets]
    fast, oracle = decoding.decode(data, superset, []), slow.decode(data, superset, [])
    fast.raw.validate(full=True)
    assert fast.raw.equals(oracle.raw)
    assert fast.faults == oracle.faults
    assert not fast.slow
    return fast.raw.to_pylist()


# --------------------------------------------------------------------------------------- fields of type null
def test_text_that_one_version_has_as_null_only() -> None:
    text = writer_schema(record({"s": ["null", "string"]}, version="1"))
    none = writer_schema(record({"s": ["null"]}, version="2"))
    rows = decoded(pa.schema([("s", pa.string())]), (text, b"\x02\x06abc"), (none, b"\x00"), (text, b"\x02\x06def"))
    assert [row["s"] for row in rows] == ["abc", None, "def"]


def test_list_that_one_version_has_as_null_only() -> None:
    kind = {"type": "array", "items": "int"}
    full = writer_schema(record({"s": ["null", kind], "t": kind}, version="1"))
    none = writer_schema(record({"s": ["null"], "t": {"type": "array", "items": ["null"]}}, version="2"))
    superset = pa.schema([("s", pa.list_(pa.int32())), ("t", pa.list_(pa.int32()))])
    bodies = [
        (full, b"\x02\x04\x02\x04\x00\x02\x0a\x00"),
        (none, b"\x00\x04\x00\x00\x00"),
        (full, b"\x02\x02\x06\x00\x00"),
    ]
    rows = decoded(superset, *bodies)
    assert [row["s"] for row in rows] == [[1, 2], None, [3]]
    assert [row["t"] for row in rows] == [[5], [None, None], []]


# --------------------------------------------------------------------------------------- schemas
@pytest.mark.parametrize(
    ("first", "second"),
    [
        ({"e": WORDS, "f": SAME_NAME, "g": "a.X"}, {"e": WORDS, "f": SAME_NAME, "g": "b.X"}),
        ({"e": {**WORDS, "name": "a.int"}, "g": "int"}, {"e": {**WORDS, "name": "a.int"}, "g": "a.int"}),
    ],
)
def test_schemas_whose_types_share_a_name_have_ids_of_their_own(first: dict[str, Any], second: dict[str, Any]) -> None:
    assert writer_schema(record(first)) != writer_schema(record(second))


def test_types_of_one_name_are_not_mistaken_for_each_other() -> None:
    schemas = [writer_schema(record({"e": WORDS, "f": SAME_NAME, "g": name})) for name in ("a.X", "b.X")]
    superset = pa.schema([(name, pa.string()) for name in "efg"])
    assert [row["g"] for row in decoded(superset, *((schema, bytes(3)) for schema in schemas))] == ["P", "Q"]


def test_name_that_stands_for_two_types_is_refused() -> None:
    fields = {"e": {**WORDS, "name": "X", "namespace": ""}, "f": {**SAME_NAME, "name": "ns.X"}, "g": "X"}
    with pytest.raises(SchemaError, match="field g is of type 'X', which is defined with a namespace and without"):
        writer_schema(record(fields, namespace="ns"))


@pytest.mark.parametrize("kind", [[], ["null", "null"], [["null", "int"], "null"], {"type": "array", "items": []}])
def test_union_of_nothing_or_of_unions_is_refused(kind: Any) -> None:
    with pytest.raises(SchemaError, match=r"field s(\[\])? is a union of nothing"):
        writer_schema(record({"s": kind}))


@pytest.mark.parametrize("size", [2.5, "3", True, None, -1])
def test_fixed_of_a_size_that_is_no_count_is_refused(size: Any) -> None:
    with pytest.raises(SchemaError, match="field s is of size"):
        writer_schema(record({"s": {"type": "fixed", "name": "f", "size": size}}))


@pytest.mark.parametrize("version", ["\ud800", "1\n2", "x" * (MAX_VERSION + 1)])
def test_version_that_no_column_should_hold_is_refused(version: str) -> None:
    with pytest.raises(SchemaError, match="version is none"):
        writer_schema(record({"s": "int"}, version=version))


def test_records_of_nothing_that_unfold_without_end_are_refused() -> None:
    first = {"type": "record", "name": "R0", "fields": [{"name": "z", "type": "null"}]}
    fields: dict[str, Any] = {"a0": first}
    for i in range(1, 60):
        twice = [{"name": name, "type": f"R{i - 1}"} for name in ("p", "q")]
        fields[f"a{i}"] = {"type": "record", "name": f"R{i}", "fields": twice}
    with pytest.raises(SchemaError, match="unfolds to more than"):
        writer_schema(record(fields))


# --------------------------------------------------------------------------------------- room
def _layout(*schemas: dict[str, Any]) -> Layout:
    target = Target(pa.schema([("l", pa.list_(pa.struct([(f"f{i}", pa.float64()) for i in range(30)])))]))
    return Layout(target, [compile_program(schema, target) for schema in schemas])


def _lists(kind: Any, version: str) -> dict[str, Any]:
    item = {"type": "record", "name": "it", "fields": [{"name": f"f{i}", "type": kind} for i in range(30)]}
    return record({"l": {"type": "array", "items": item}}, version=version)


def test_one_long_packet_does_not_make_the_next_batch_huge() -> None:
    layout = _layout(_lists(["null", "double"], "1"))
    layout.learn(1, np.array([1, 100_000]), np.array([1 << 20]))
    arena = Arena(layout, 2_000, 64_000)
    assert len(arena.a8) < 16 << 20
    assert len(arena.heap) < 1 << 20


def test_room_is_learned_from_ordinary_packets() -> None:
    layout = _layout(_lists(["null", "double"], "1"))
    layout.learn(10, np.array([10, 1_000]), np.array([0]))
    assert Arena(layout, 100, 100 * 6_000).domains[2, 1] > 10_000


def test_validity_of_a_run_leaves_that_of_others_alone() -> None:
    some, every = (
        writer_schema(_lists(kind, version)) for kind, version in ((["null", "double"], "1"), ("double", "2"))
    )
    sparse = b"\x04" + bytes(60) + b"\x00"
    full = b"\x06" + bytes(3 * 240) + b"\x00"
    superset = pa.schema(list(some.arrow))
    rows = decoded(superset, *([(some, sparse), (every, full), (every, b"\x00"), (every, full), (some, sparse)] * 5))
    assert [[item["f7"] for item in row["l"]] for row in rows] == [[None] * 2, [0.0] * 3, [], [0.0] * 3, [None] * 2] * 5


# --------------------------------------------------------------------------------------- hostile packets
def _zeros(n: int) -> bytes:
    return encoded("long", n) + bytes(n) + b"\x00"


def encoded(kind: str, value: Any) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, kind, value)
    return out.getvalue()


@pytest.mark.parametrize("columns", [None, ()])
def test_a_packet_of_millions_of_items_is_refused_before_they_are_made(columns: tuple[str, ...] | None) -> None:
    schema = writer_schema(record({"l": {"type": "array", "items": ["null", "double"]}}))
    halves = (encoded("long", MAX_ITEMS // 2) + bytes(MAX_ITEMS // 2)) * 2
    bodies = [_zeros(MAX_ITEMS), _zeros(MAX_ITEMS + 1), halves + b"\x00", halves + b"\x02\x00\x00", _zeros(1)]
    data = [Datum(body, 0, len(body), schema) for body in bodies]
    for way in (decode, slow.decode):
        got = way(data, pa.schema(list(schema.arrow)), (), columns=columns)
        assert got.kept.tolist() == [0, 2, 4]
        assert [reason.partition(" at ")[0] for _, reason in got.faults] == [
            "field l: more items than a packet may have"
        ] * 2


def test_schemas_are_the_same_by_all_of_their_digest() -> None:
    first, second = writer_schema(record({"a": "int"})), writer_schema(record({"b": "int"}))
    double = dataclasses.replace(second, version=first.version, id=first.id)
    assert first != double
    bodies = [Datum(b"\x02", 0, 1, first), Datum(b"\x04", 0, 1, double)]
    superset = pa.schema([("a", pa.int32()), ("b", pa.int32())])
    for way in (decode, slow.decode):
        rows = way(bodies, superset, ()).raw.select(["a", "b"]).to_pylist()
        assert rows == [{"a": 1, "b": None}, {"a": None, "b": 2}]


def test_a_broken_stretch_is_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.avro.container.MAX_FAULT_BYTES", 100)
    out = io.BytesIO()
    fastavro.writer(out, record({"a": "long"}), [{"a": 1}], sync_marker=b"0123456789abcdef")
    data = out.getvalue()
    whole = data[: data.index(b"0123456789abcdef") + 16] + b"\x02\xff" + bytes(5000)
    (fault,) = split_container(whole, HeaderCache())
    assert isinstance(fault, Fault)
    assert fault.length == 5002 and len(fault.body) == 100 and "of 5002 bytes the first 100 are kept" in fault.reason


def test_a_reference_to_a_record_without_fields_is_found() -> None:
    empty = {"type": "record", "name": "nothing", "fields": []}
    assert writer_schema(record({"a": "int", "b": empty, "c": "nothing"})).arrow.field("c").type == pa.struct([])


# --------------------------------------------------------------------------------------- nulls
def test_columns_that_nobody_writes_share_their_zeros_and_do_not_keep_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.avro.arena._MOST_NULLS", 100)
    target = Target(pa.schema([("a", pa.int32()), *((f"f{i}", pa.float64()) for i in range(30)), ("t", pa.string())]))
    layout = Layout(target, [compile_program(record({"a": "int"}), target)])

    def addresses(n: int) -> set[int]:
        arrays = [layout.nulls(node, n) for node in target.nodes[1:]]
        assert all(len(array) == array.null_count == n for array in arrays)
        [array.validate(full=True) for array in arrays]
        return {buffer.address for array in arrays for buffer in array.buffers()}

    assert len(addresses(50)) == 1 and addresses(20) == addresses(50)
    assert len(addresses(5_000)) == 1
    layout.learn(1, np.array([1]), np.array([0]))
    assert layout.nulls(target.nodes[1], 0).buffers()[1].size == 8
