"""The bounds check: nothing passes it that has more than one reading, or none."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.avro.check import compile_schema, walk
from pipeline.avro.schema import parse_text, writer_schema
from pipeline.errors import SchemaError
from pipeline.surveys.superset import known_schemas
from tests.avro_oracle import body, random_record


def program(*kinds):
    fields = [{"name": f"f{i}", "type": kind} for i, kind in enumerate(kinds)]
    return compile_schema({"type": "record", "name": "r", "fields": fields})


def reason(data: bytes, *kinds) -> str | None:
    return walk(data, 0, len(data), 1, program(*kinds)).reason


def zigzag(value: int) -> bytes:
    raw = (value << 1) ^ (value >> 63)
    out = bytearray()
    while raw > 127:
        out.append(raw & 127 | 128)
        raw >>= 7
    return bytes([*out, raw])


@given(st.integers(-(2**63), 2**63 - 1))
def test_every_long_passes(value):
    assert reason(zigzag(value), "long") is None


@given(st.integers(-(2**63), 2**63 - 1))
def test_int_takes_32_bits(value):
    fits = -(2**31) <= value < 2**31
    assert (reason(zigzag(value), "int") is None) == fits


@pytest.mark.parametrize("data", [b"\x80" * 10 + b"\x00", b"\xff" * 9 + b"\x02", b"\xff" * 20])
def test_an_integer_of_more_than_64_bits_is_refused(data):
    assert "64 bits" in reason(data, "long")


@given(st.binary(max_size=12))
@settings(max_examples=400)
def test_text_passes_exactly_when_python_decodes_it(text):
    try:
        text.decode("utf-8")
        sound = True
    except UnicodeDecodeError:
        sound = False
    assert (reason(zigzag(len(text)) + text, "string") is None) == sound
    assert reason(zigzag(len(text)) + text, "bytes") is None


@pytest.mark.parametrize(
    "text",
    [
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf8\x88\x80\x80",
        b"\xc3",
    ],
)
def test_text_in_forbidden_forms_is_refused(text):
    with pytest.raises(UnicodeDecodeError):
        text.decode()
    assert "UTF-8" in reason(zigzag(len(text)) + text, "string")


@pytest.mark.parametrize(
    ("data", "kinds", "expected"),
    [
        (zigzag(-29) + b"abc", ["bytes"], "length"),
        (zigzag(-1) + b"abc", ["string"], "length"),
        (zigzag(2**62) + b"abc", ["bytes"], "length"),
        (zigzag(-1), [["null", "int"]], "branch"),
        (zigzag(2), [["null", "int"]], "branch"),
        (b"\x02", ["boolean"], "boolean"),
        (b"", ["boolean"], "ends within"),
        (b"\x00\x00", ["float"], "ends within"),
        (b"", ["long"], "ends within"),
        (b"\x80", ["long"], "ends within"),
        (zigzag(2), [{"type": "enum", "name": "e", "symbols": ["a", "b"]}], "symbol"),
        (zigzag(-1), [{"type": "enum", "name": "e", "symbols": ["a", "b"]}], "symbol"),
        (b"abc", [{"type": "fixed", "name": "x", "size": 4}], "ends within"),
        (zigzag(10**9), [{"type": "array", "items": "long"}], "item count"),
        (zigzag(-(2**63)) + zigzag(1) + b"\x00", [{"type": "array", "items": "long"}], "item count"),
        (zigzag(-1) + zigzag(-5) + b"\x02\x00", [{"type": "array", "items": "long"}], "item count"),
        (zigzag(-2) + zigzag(3) + b"\x02\x02\x00", [{"type": "array", "items": "long"}], "block size"),
        (zigzag(1) + zigzag(1) + b"a", [{"type": "map", "values": "long"}], "ends within"),
        (b"\x02\x02", ["int"], "1 stray bytes"),
    ],
)
def test_damage_has_a_reason(data, kinds, expected):
    assert expected in reason(data, *kinds)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (zigzag(2) + b"\x02\x04" + zigzag(1) + b"\x06" + b"\x00", {"type": "array", "items": "long"}),
        (zigzag(-2) + zigzag(2) + b"\x02\x04" + b"\x00", {"type": "array", "items": "long"}),
        (b"\x00", {"type": "array", "items": "long"}),
        (zigzag(1) + b"\x02a\x02" + b"\x00", {"type": "map", "values": "long"}),
        (zigzag(1) + zigzag(1) + b"\x02\x00" + b"\x00", {"type": "array", "items": {"type": "array", "items": "int"}}),
        (b"", "null"),
        (b"abcd", {"type": "fixed", "name": "x", "size": 4}),
    ],
)
def test_what_the_format_allows_passes(data, kind):
    assert reason(data, kind) is None


def test_a_fault_names_field_and_byte():
    fields = [{"name": "jd", "type": "double"}, {"name": "band", "type": ["null", "string"]}]
    compiled = program({"type": "array", "items": {"type": "record", "name": "candidate", "fields": fields}})
    data = zigzag(2) + bytes(8) + b"\x00" + bytes(8) + b"\x02" + zigzag(-3)
    walked = walk(data, 0, len(data), 1, compiled)
    assert walked.reason == "field f0[].band: length is negative or beyond the body"
    assert walked.position == len(data)


def test_several_datums_in_a_row():
    data = zigzag(5) + zigzag(600) + zigzag(-1)
    walked = walk(data, 0, len(data), 3, program("int"))
    assert walked.reason is None
    assert walked.ends.tolist() == [1, 3, 4]
    broken = walk(data + b"\x80", 0, len(data) + 1, 4, program("int"))
    assert broken.ends.tolist() == [1, 3, 4] and "ends within" in broken.reason
    stray = walk(data, 0, len(data), 2, program("int"))
    assert stray.ends.tolist() == [1] and "stray" in stray.reason


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "array", "items": "null"},
        {"type": "array", "items": {"type": "record", "name": "empty", "fields": []}},
        {"type": "array", "items": {"type": "fixed", "name": "none", "size": 0}},
    ],
)
def test_items_without_bytes_are_refused(schema):
    with pytest.raises(SchemaError, match="take no bytes"):
        program(schema)


def test_a_schema_that_unfolds_without_end_is_refused():
    laughs = [{"type": "record", "name": "r0", "fields": [{"name": "a", "type": "int"}]}]
    for i in range(1, 40):
        fields = [{"name": name, "type": f"r{i - 1}"} for name in "ab"]
        laughs.append({"type": "record", "name": f"r{i}", "fields": fields})
    schema = {"type": "record", "name": "top", "fields": [{"name": f"x{i}", "type": r} for i, r in enumerate(laughs)]}
    with pytest.raises(SchemaError, match="unfolds"):
        writer_schema(schema)


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b'"string"',
        b"[" * 100_000,
        b'{"type": "record"}',
        b'{"type": "record", "name": "r", "fields": [{"name": "a"}]}',
        b'{"type": "record", "name": "r", "fields": [{"name": "a", "type": "nosuch"}]}',
        b'{"type": "record", "name": "r", "fields": [{"name": "a", "type": "r"}]}',
        b'{"type":"record","name":"r","fields":[{"name":"a","type":{"type":"fixed","name":"f","size":-1}}]}',
        b'{"type": "record", "name": "r", "fields": [{"name": "a", "type": "int"}, {"name": "a", "type": "int"}]}',
        b'[{"type": "record", "name": "r", "fields": []}]',
        b"\xff\xfe",
    ],
)
def test_a_text_that_is_no_usable_schema_is_a_schema_error(text):
    with pytest.raises(SchemaError):
        parse_text(text)


def test_deeply_nested_schema_is_a_schema_error():
    schema = "int"
    for _ in range(3000):
        schema = {"type": "array", "items": schema}
    with pytest.raises(SchemaError):
        writer_schema({"type": "record", "name": "r", "fields": [{"name": "a", "type": schema}]})


def test_schema_id_ignores_documentation_and_key_order():
    plain = known_schemas("ztf")["3.3"]
    told = {**dict(reversed(plain.items())), "doc": "alert"}
    told["fields"] = [{**field, "doc": "what"} for field in plain["fields"]]
    assert writer_schema(told).id == writer_schema(plain).id
    assert writer_schema(plain).id.startswith("3.3:")
    assert writer_schema({**plain, "fields": plain["fields"][:-1]}).id != writer_schema(plain).id


@pytest.mark.parametrize(("family", "version"), [("lsst", "7.4"), ("elasticc", "0.9.1"), ("ztf", "4.02")])
def test_version_comes_from_attribute_or_name(family, version):
    assert writer_schema(known_schemas(family)[version]).version == version


def test_version_without_attribute_is_the_declared_one_and_never_empty():
    schema = known_schemas("ztf")["3.3+nullable"]
    assert writer_schema(schema, "3.0").version == "3.0"
    assert writer_schema(schema).version == "unknown"


@pytest.mark.parametrize("family", ["ztf", "lsst", "elasticc"])
def test_every_cut_of_a_packet_is_found(family):
    schema = list(known_schemas(family).values())[-1]
    compiled = writer_schema(schema).program
    data = body(schema, random_record(schema, 3))
    assert walk(data, 0, len(data), 1, compiled).reason is None
    rng = random.Random(1)
    for cut in [0, 1, len(data) - 1, *(rng.randrange(len(data)) for _ in range(40))]:
        walked = walk(data, 0, cut, 1, compiled)
        assert walked.reason is not None and walked.position <= cut and not len(walked.ends)


def test_the_data_may_be_any_buffer():
    data = zigzag(3)
    for view in (data, bytearray(data), memoryview(data), np.frombuffer(data, np.uint8)):
        assert walk(view, 0, 1, 1, program("int")).reason is None
