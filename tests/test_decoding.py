"""The kernel beside fastavro: the same rows, bit by bit, the same faults in the same words, whatever comes between."""

from __future__ import annotations

import random

import fastavro
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.avro import Datum, Frames, HeaderCache, decode, decode_frames, slow, split_container, writer_schema
from pipeline.avro.arena import Arena
from pipeline.avro.container import Fault
from pipeline.avro.decoding import program_of
from pipeline.avro.program import Program
from pipeline.errors import SchemaError
from pipeline.schema import content_hashes
from pipeline.surveys.superset import known_schemas, superset, unheld
from tests.avro_oracle import CUTOUTS, body, random_record

_INNER = {
    "type": "record",
    "name": "inner",
    "fields": [
        {"name": "text", "type": ["string", "null"]},
        {"name": "flags", "type": {"type": "array", "items": "boolean"}},
        {"name": "code", "type": ["null", {"type": "fixed", "name": "code", "size": 3}]},
        {"name": "kind", "type": {"type": "enum", "name": "kind", "symbols": ["star", "galaxy", "agn"]}},
    ],
}
ALL_TYPES = {
    "type": "record",
    "name": "alert",
    "namespace": "test",
    "fields": [
        {"name": "id", "type": "long"},
        {"name": "nothing", "type": "null"},
        {"name": "only_null", "type": ["null"]},
        {"name": "only_int", "type": ["int"]},
        {"name": "is_new", "type": ["null", "boolean"]},
        {"name": "first", "type": ["null", _INNER]},
        {"name": "second", "type": "inner"},
        {"name": "many", "type": ["null", {"type": "array", "items": ["null", "inner"]}]},
        {"name": "nested", "type": {"type": "array", "items": {"type": "array", "items": ["float", "null"]}}},
        {"name": "names", "type": {"type": "array", "items": ["null", "string"]}},
        {"name": "scores", "type": {"type": "map", "values": ["null", "double"]}},
        {"name": "deep", "type": ["null", {"type": "map", "values": {"type": "array", "items": "inner"}}]},
        {"name": "day", "type": ["null", {"type": "int", "logicalType": "date"}]},
        {"name": "clock", "type": {"type": "int", "logicalType": "time-millis"}},
        {"name": "when", "type": {"type": "long", "logicalType": "timestamp-nanos"}},
        {"name": "uuid", "type": {"type": "string", "logicalType": "uuid"}},
        {"name": "kind2", "type": ["null", "kind"]},
        {"name": "stamp", "type": ["null", "bytes"]},
        {"name": "end", "type": "double"},
    ],
}
OLDER = {
    "type": "record",
    "name": "alert",
    "fields": [
        {"name": "end", "type": "float"},
        {"name": "many", "type": {"type": "array", "items": {**_INNER, "fields": _INNER["fields"][:2]}}},
        {"name": "id", "type": "int"},
        {"name": "names", "type": {"type": "array", "items": "string"}},
        {"name": "is_old", "type": "boolean"},
        {"name": "only_int", "type": ["null", "int"]},
    ],
}
BOTH = superset([OLDER, ALL_TYPES])


def value(schema, rng: random.Random, named: dict):
    """Return a random value of any of the types above."""
    if isinstance(schema, list):
        return value(rng.choice(schema), rng, named)
    if isinstance(schema, str) and schema in named:
        return value(named[schema], rng, named)
    kind = schema if isinstance(schema, str) else schema["type"]
    if kind == "record":
        named[schema["name"]] = schema
        return {f["name"]: value(f["type"], rng, named) for f in schema["fields"]}
    if kind in ("array", "map"):
        items = [value(schema["items" if kind == "array" else "values"], rng, named) for _ in range(4)]
        items = items[: rng.choice((0, 0, 1, 2, 4))]
        return items if kind == "array" else {f"k{i}": item for i, item in enumerate(items)}
    if kind in ("fixed", "enum"):
        named[schema["name"]] = schema
        return rng.randbytes(schema["size"]) if kind == "fixed" else rng.choice(schema["symbols"])
    simple = {
        "null": lambda: None,
        "boolean": lambda: rng.random() < 0.5,
        "int": lambda: rng.choice((0, -1, 63, 64, 2**31 - 1, -(2**31), rng.randrange(86_400_000))),
        "long": lambda: rng.choice((0, -(2**63), 2**63 - 1, 2**53 + 1, rng.randrange(2**40))),
        "float": lambda: rng.choice((0.0, -0.0, 1.5, float("inf"), 2.0**-149)),
        "double": lambda: rng.choice((0.0, -0.0, 0.1, float("-inf"), 5e-324)),
        "string": lambda: rng.choice(("", "g", "Ωmega 天", "x" * 40)),
        "bytes": lambda: rng.randbytes(rng.choice((0, 1, 300))),
    }
    return simple[kind]()


def lean(schema):
    """Return the schema without logical types, so that the writer takes plain numbers."""
    if isinstance(schema, list):
        return [lean(kind) for kind in schema]
    if isinstance(schema, dict):
        return {key: lean(part) if key != "name" else part for key, part in schema.items() if key != "logicalType"}
    return [lean(part) for part in schema] if isinstance(schema, tuple) else schema


def lean_fields(schema):
    return {**schema, "fields": [{"name": f["name"], "type": lean(f["type"])} for f in schema["fields"]]}


def some(schema, n: int, seed: int) -> list[Datum]:
    rng = random.Random(seed)
    named: dict = {}
    define(schema, named)
    bodies = [body(lean_fields(schema), value(schema, rng, named)) for _ in range(n)]
    return [Datum(data, 7 * i, len(data), writer_schema(schema)) for i, data in enumerate(bodies)]


def define(kind, named: dict) -> None:
    if isinstance(kind, list):
        for one in kind:
            define(one, named)
    elif isinstance(kind, dict):
        if "name" in kind:
            named[kind["name"]] = kind
        for part in (kind["type"], kind.get("items"), kind.get("values")):
            define(part, named)
        for field in kind.get("fields", []):
            define(field["type"], named)


def assert_same(fast, slowly) -> None:
    for ours, theirs in ((fast.raw, slowly.raw), (fast.cutouts, slowly.cutouts)):
        ours.validate(full=True)
        assert ours.schema == theirs.schema
        assert content_hashes(ours) == content_hashes(theirs)
    assert fast.points.tolist() == slowly.points.tolist()
    assert fast.kept.tolist() == slowly.kept.tolist()
    assert fast.faults == slowly.faults


def both(data, union, cutouts=(), **options):
    fast = decode(data, union, cutouts, **options)
    assert_same(fast, slow.decode(data, union, cutouts, **options))
    return fast


# --------------------------------------------------------------------------------------- the same rows
@pytest.mark.parametrize("family", list(CUTOUTS))
def test_every_schema_of_a_survey_alone_and_mixed(family):
    schemas = {version: writer_schema(schema) for version, schema in known_schemas(family).items()}
    union, cutouts = superset(family), CUTOUTS[family]
    mixed = []
    for version, schema in schemas.items():
        bodies = [body(known_schemas(family)[version], random_record(schema.source, seed)) for seed in range(4)]
        data = [Datum(text, 0, len(text), schema) for text in bodies]
        assert isinstance(program_of(schema, union, None, False), Program)
        assert len(both(data, union, cutouts).kept) == 4
        mixed += data
    random.Random(1).shuffle(mixed)
    assert len(both(mixed, union, cutouts).kept) == len(mixed)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 12))
def test_every_type_of_avro(seed, n):
    data = some(ALL_TYPES, n, seed)
    assert n == 0 or isinstance(program_of(data[0].schema, superset([ALL_TYPES]), None, False), Program)
    assert len(both(data, superset([ALL_TYPES]), ("stamp",)).kept) == n


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 12))
def test_two_schemas_by_turns_fill_the_same_columns(seed, n):
    data = some(ALL_TYPES, n, seed) + some(OLDER, n, seed + 1)
    random.Random(seed).shuffle(data)
    both(data, BOTH, ("stamp",))
    both([datum for datum in data if datum.schema.source is OLDER], BOTH, ("stamp",))


@settings(max_examples=80, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_damaged_packets_leave_no_trace_in_their_neighbours(seed):
    rng = random.Random(seed)
    data = some(ALL_TYPES, 8, seed) + some(OLDER, 4, seed)
    rng.shuffle(data)
    damaged = []
    for datum in data:
        text = bytearray(datum.body)
        if rng.random() < 0.5:
            for _ in range(rng.choice((1, 2, 4))):
                at = rng.randrange(len(text))
                text[at] = rng.choice((0, 1, 2, 3, 127, 128, 255, rng.randrange(256)))
            text = text[: rng.randrange(1, len(text))] if rng.random() < 0.2 else text
            text += rng.randbytes(2) if rng.random() < 0.1 else b""
        damaged.append(Datum(bytes(text), datum.offset, len(text), datum.schema))
    fast, slowly = (way(damaged, BOTH, ("stamp",)) for way in (decode, slow.decode))
    doubles = {index for index, reason in fast.faults if "twice" in reason}
    assert [fault for fault in fast.faults if fault[0] not in doubles] == slowly.faults
    assert fast.kept.tolist() == [index for index in slowly.kept.tolist() if index not in doubles]
    sound = [damaged[index] for index in fast.kept.tolist()]
    alone = slow.decode(sound, BOTH, ("stamp",))
    assert content_hashes(fast.raw) == content_hashes(alone.raw)
    assert content_hashes(fast.cutouts) == content_hashes(alone.cutouts)


# --------------------------------------------------------------------------------------- room
def test_growing_from_nothing_changes_nothing(monkeypatch):
    monkeypatch.setattr("pipeline.avro.arena._SLACK", 0.0)
    data = some(ALL_TYPES, 30, 5) + some(OLDER, 30, 6)
    whole = slow.decode(data, BOTH, ("stamp",))
    original = Arena.__init__

    def small(self, layout, n, n_bytes):
        layout.rows_each = np.zeros(layout.target.n_domains)
        layout.bytes_each = np.zeros(max(len(layout.text_at), 1))
        original(self, layout, n, n_bytes)
        self.domains[2, 1:] = 0
        self._place()

    monkeypatch.setattr(Arena, "__init__", small)
    grown = []
    monkeypatch.setattr(Arena, "grow_rows", lambda self, *a, of=Arena.grow_rows: (grown.append(a), of(self, *a)))
    assert_same(decode(data, BOTH, ("stamp",)), whole)
    assert grown


def test_what_does_not_fit_the_offsets_of_one_column_is_divided(monkeypatch):
    data = some(ALL_TYPES, 20, 9)
    big = some(ALL_TYPES, 1, 10)[0]
    whole = slow.decode(data, superset([ALL_TYPES]), ("stamp",))
    monkeypatch.setattr("pipeline.avro.arena._MOST_TEXT", 5000)
    assert_same(decode(data, superset([ALL_TYPES]), ("stamp",)), whole)
    long = {"type": "record", "name": "r", "fields": [{"name": "text", "type": "string"}]}
    text = body(long, {"text": "y" * 6000})
    data = [Datum(text, 0, len(text), writer_schema(long))]
    assert decode(data, superset([long]), ()).faults == [(0, "the packet holds more items or text than a column can")]
    assert big.length


# --------------------------------------------------------------------------------------- projection
@pytest.mark.parametrize("columns", [(), ("id",), ("many", "deep"), ("stamp", "end"), ("first", "nothing", "scores")])
def test_columns_that_are_not_wanted_are_checked_and_left_null(columns):
    data = some(ALL_TYPES, 10, 3)
    data[4] = Datum(data[4].body + b"x", 0, data[4].length + 1, data[4].schema)
    data[7] = Datum(data[7].body[:-3], 0, data[7].length - 3, data[7].schema)
    chosen = both(data, superset([ALL_TYPES]), ("stamp",), columns=columns)
    assert [index for index, _ in chosen.faults] == [4, 7]
    for name in chosen.raw.column_names:
        if name not in (*columns, "schema_version"):
            assert chosen.raw.column(name).null_count == 8


# --------------------------------------------------------------------------------------- beside the kernel
UNIONS = {
    "type": "record",
    "name": "r",
    "fields": [{"name": "a", "type": ["null", "int", "long"]}, {"name": "b", "type": ["float", "double", "null"]}],
}


def test_unions_of_several_types_go_the_slow_way_and_keep_their_place():
    union = superset([UNIONS])
    plain = {"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}]}
    records = [{"a": ("long", 2**40), "b": None}, {"a": 5, "b": 1.5}, {"a": None, "b": None}]
    texts = [body(UNIONS, record) for record in records]
    mixed = [Datum(text, 0, len(text), writer_schema(UNIONS)) for text in texts]
    for i, number in enumerate((7, 8)):
        text = body(plain, {"a": number})
        mixed.insert(2 * i + 1, Datum(text, 0, len(text), writer_schema(plain)))
    fast = both(mixed, union)
    assert fast.raw.column("a").to_pylist() == [2**40, 7, 5, 8, None]
    assert list(fast.slow.values()) == ["field a is a union of several types"]
    assert fast.kept.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    "kinds", [["int", "string"], ["long", "double"], ["null", "bytes", "string"], ["boolean", "int"]]
)
def test_unions_that_no_column_holds_are_refused(kinds):
    with pytest.raises(SchemaError, match="union of several types"):
        writer_schema({"type": "record", "name": "r", "fields": [{"name": "a", "type": kinds}]})


def test_a_key_that_stands_twice_in_a_map_is_a_fault():
    maps = {"type": "record", "name": "r", "fields": [{"name": "m", "type": {"type": "map", "values": "int"}}]}
    good = body(maps, {"m": {"a": 1, "b": 2}})
    bad = b"\x04\x02a\x02\x02a\x04\x00"
    data = [Datum(text, 0, len(text), writer_schema(maps)) for text in (good, bad, good)]
    decoded = decode(data, superset([maps]), ())
    assert decoded.faults == [(1, "field m: a key stands twice in a map")]
    assert decoded.raw.column("m").to_pylist() == [[("a", 1), ("b", 2)]] * 2
    assert decoded.raw.column("schema_version").to_pylist() == ["unknown"] * 2


# --------------------------------------------------------------------------------------- frames
def test_frames_and_their_faults():
    data = some(ALL_TYPES, 6, 2)
    buffer = np.frombuffer(b"".join(datum.body for datum in data[:3]) + b"--" + data[4].body, dtype=np.uint8)
    sizes = [datum.length for datum in data[:3]]
    start = np.array([0, sizes[0], 0, sizes[0] + sizes[1], sum(sizes) + 2])
    stop = np.array([sizes[0], sizes[0] + sizes[1], 0, sum(sizes), len(buffer)])
    fault = Fault("no packet", 3, 2, b"xx")
    schema = np.array([0, 0, -1, 0, 0], dtype=np.int32)
    frame = Frames(buffer, start, stop, start, pa.nulls(5, pa.string()), schema, (data[0].schema,), {2: fault})
    decoded = decode_frames([frame, frame], superset([ALL_TYPES]), ("stamp",))
    assert decoded.kept.tolist() == [0, 1, 3, 4, 5, 6, 8, 9]
    alone = slow.decode([*data[:3], data[4]] * 2, superset([ALL_TYPES]), ("stamp",))
    assert content_hashes(decoded.raw) == content_hashes(alone.raw)
    assert frame.body(2) == b"xx" and frame.body(1) == data[1].body
    assert frame.lengths().tolist() == [*sizes[:2], 2, sizes[2], data[4].length]


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (0, 99), (5, 3)])
def test_frames_beyond_their_buffer_are_a_defect(start, stop):
    schema = some(ALL_TYPES, 1, 1)[0].schema
    one = np.array([start]), np.array([stop]), np.array([0])
    frame = Frames(np.zeros(10, np.uint8), *one, pa.nulls(1, pa.string()), np.zeros(1, np.int32), (schema,))
    with pytest.raises(ValueError, match="beyond"):
        decode_frames([frame], superset([ALL_TYPES]), ())


def test_a_signalling_nan_is_only_changed_where_it_is_widened():
    narrow = {"type": "record", "name": "r", "fields": [{"name": "x", "type": "float"}]}
    wide = {"type": "record", "name": "r", "fields": [{"name": "x", "type": "double"}]}
    text = bytes.fromhex("010080ff")
    data = [Datum(text, 0, 4, writer_schema(narrow))]
    same = decode(data, superset([narrow]), ()).raw.column("x").chunk(0).buffers()[1].to_pybytes()[:4]
    assert same == text
    wider = decode(data, superset([narrow, wide]), ()).raw.column("x").to_numpy().view(np.uint64)
    assert wider.tolist() == [0xFFF8000020000000]
    assert fastavro.__version__


def test_a_key_that_stands_twice_is_a_fault_on_the_slow_way_too():
    kinds = ["null", "int", "long"]
    inner = {"type": "record", "name": "i", "fields": [{"name": "m", "type": {"type": "map", "values": "string"}}]}
    fields = [{"name": "n", "type": kinds}, {"name": "l", "type": {"type": "array", "items": ["null", inner]}}]
    schema = {
        "type": "record",
        "name": "r",
        "fields": [*fields, {"name": "o", "type": {"type": "map", "values": "i"}}],
    }
    twice = b"\x02\x06" + b"\x04\x00\x02" + b"\x04\x02k\x02a\x02k\x02b\x00" + b"\x00" + b"\x00"
    once = (
        b"\x02\x06" + b"\x04\x00\x02" + b"\x04\x02k\x02a\x02j\x02b\x00" + b"\x00" + b"\x02\x02x\x02\x02k\x02a\x00\x00"
    )
    data = [Datum(text, 0, len(text), writer_schema(schema)) for text in (once, twice, once)]
    for way in (decode, slow.decode):
        decoded = way(data, superset([schema]), ())
        assert decoded.faults == [(1, "field l: a key stands twice in a map")] and decoded.kept.tolist() == [0, 2]
        assert decoded.raw.column("o").to_pylist() == [[("x", {"m": [("k", "a")]})]] * 2


@pytest.mark.parametrize(("family", "least"), [("ztf", 50), ("lsst", 15), ("elasticc", 50)])
def test_every_real_container_by_both_decoders(shared_data, family, least):
    cache = HeaderCache()
    files = [path for path in sorted((shared_data / "alerts" / family).rglob("*")) if path.is_file()]
    texts = [path.read_bytes() for path in files if path.stat().st_size < 4 << 20 and "corrupt" not in path.parts]
    items = [item for text in texts if text[:4] == b"Obj\x01" for item in split_container(text, cache)]
    native = [item for item in items if not unheld(superset(family), item.schema.arrow)]
    assert len(native) >= least
    assert len(both(native, superset(family), CUTOUTS[family]).kept) == len(native)
