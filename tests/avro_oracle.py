"""Random packets of any schema, containers by independent writers, and the comparison of records with table rows."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import fastavro
import pyarrow as pa
import zstandard

from pipeline.avro import Datum, Decoded, HeaderCache, split_container

CUTOUTS = {
    "ztf": ("cutoutScience", "cutoutTemplate", "cutoutDifference"),
    "lsst": ("cutoutDifference", "cutoutScience", "cutoutTemplate"),
    "elasticc": ("cutoutDifference", "cutoutTemplate"),
}
CODECS = ("null", "deflate", "snappy", "zstandard")

_FLOATS = (0.0, -0.0, 1.5, float("nan"), float("inf"), float("-inf"), 1e-40, 3.0e38)
_LONGS = (0, -1, 2**53 + 1, 2**63 - 1, -(2**63), 170112044583354426)
_NAMED = ("record", "enum", "fixed")
_TEXTS = ("", "g", "ZTF18abcdefg", "null", "é 天 🜨", "\x00")


def random_value(schema: Any, rng: random.Random, named: dict[str, Any], space: str = "") -> Any:
    """Return a value of an Avro type, edge values included; named types as the schema's namespaces have them."""
    if isinstance(schema, list):
        return random_value(rng.choice(schema), rng, named, space)
    if isinstance(schema, str):
        found = named.get(schema) or named.get(f"{space}.{schema}")
        return random_value(found, rng, named, space) if found else _random_leaf(schema, None, rng)
    kind = schema["type"]
    if kind in _NAMED:
        full = _define(schema, named, space)
    if kind == "record":
        inner = full.rpartition(".")[0]
        return {f["name"]: random_value(f["type"], rng, named, inner) for f in schema["fields"]}
    if kind == "enum":
        return rng.choice(schema["symbols"])
    if kind == "fixed":
        return rng.randbytes(schema["size"])
    if kind == "map":
        keys = rng.sample(_TEXTS, rng.choice((0, 1, 3)))
        return {key: random_value(schema["values"], rng, named, space) for key in keys}
    if kind == "array":
        # the first item is made even for an empty list, so that types named in it are known to what follows
        return [random_value(schema["items"], rng, named, space) for _ in range(4)][: rng.choice((0, 1, 3))]
    return _random_leaf(kind, schema.get("logicalType"), rng)


def _random_leaf(kind: str, logical: str | None, rng: random.Random) -> Any:
    if kind == "null":
        return None
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "int":
        return rng.randrange(10**5) if logical else rng.choice((0, 1, -1, 2**31 - 1, -(2**31), rng.randrange(10**6)))
    if kind == "long":
        return rng.randrange(10**15) if logical else rng.choice((*_LONGS, rng.randrange(10**12)))
    if kind == "float":
        return struct.unpack("f", struct.pack("f", rng.choice((*_FLOATS, rng.gauss(0, 100)))))[0]
    if kind == "double":
        return rng.choice((*_FLOATS, rng.gauss(0, 1e6)))
    if kind == "string":
        return rng.choice(_TEXTS)
    return rng.randbytes(rng.choice((0, 3, 200)))


def define_all(schema: Any, named: dict[str, Any], space: str = "") -> None:
    """Note every named type of a schema, also those in union branches that a random value does not take."""
    if isinstance(schema, list):
        for kind in schema:
            define_all(kind, named, space)
    elif isinstance(schema, dict):
        full = _define(schema, named, space) if schema["type"] in _NAMED else ""
        for field in schema.get("fields", ()):
            define_all(field["type"], named, full.rpartition(".")[0])
        for inner in ("items", "values"):
            define_all(schema.get(inner), named, space)


def _define(schema: Any, named: dict[str, Any], space: str) -> str:
    """Note a named type and return its full name."""
    name = schema["name"]
    full = name if "." in name else ".".join(filter(None, (schema.get("namespace", space), name)))
    named[full] = {**schema, "name": full}
    return full


def random_record(schema: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Return one random record of a record schema."""
    named: dict[str, Any] = {}
    define_all(schema, named)
    return random_value(schema, random.Random(seed), named)


def container(schema: Mapping[str, Any], records: Iterable[Any], codec: str = "null", **options: Any) -> bytes:
    """Return an object container as fastavro writes it; zstandard, which it may not have, is put in afterwards."""
    out = io.BytesIO()
    fastavro.writer(out, dict(schema), list(records), codec="null" if codec == "zstandard" else codec, **options)
    return _as_zstandard(out.getvalue()) if codec == "zstandard" else out.getvalue()


def _as_zstandard(data: bytes) -> bytes:
    reader = fastavro.block_reader(io.BytesIO(data))
    mark = reader._header["sync"]
    out = [data[: data.index(mark) + 16].replace(b"\x14avro.codec\x08null", b"\x14avro.codec\x12zstandard")]
    for block in reader:
        packed = zstandard.compress(block.bytes_.getvalue())
        out += [_long(block.num_records), _long(len(packed)), packed, mark]
    return b"".join(out)


def _long(value: int) -> bytes:
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def body(schema: Mapping[str, Any], record: Mapping[str, Any]) -> bytes:
    """Return one Avro body as fastavro writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(dict(schema)), dict(record))
    return out.getvalue()


def all_datums(packets: Iterable[bytes], cache: HeaderCache | None = None) -> list[Datum]:
    """Take containers apart that hold no fault."""
    cache = cache or HeaderCache()
    items = [item for packet in packets for item in split_container(packet, cache)]
    faults = [item for item in items if not isinstance(item, Datum)]
    assert not faults, faults
    return [item for item in items if isinstance(item, Datum)]


def rows_of(decoded: Decoded) -> pa.Table:
    """Return raw and cutouts side by side, as the packets had them."""
    rows = decoded.raw.drop_columns(["schema_version", "origin_added"])
    for name in decoded.cutouts.column_names:
        rows = rows.append_column(decoded.cutouts.schema.field(name), decoded.cutouts.column(name))
    return rows


def assert_holds(record: Any, row: Any, path: str = "") -> None:
    """Assert that a table row holds a record: each field equal (NaN equals NaN), and every other field null."""
    if isinstance(record, Mapping) and isinstance(row, Mapping):
        for name, value in record.items():
            assert_holds(value, row[name], f"{path}.{name}")
        for name in row:
            assert name in record or row[name] is None, f"{path}.{name} is not in the packet"
    elif isinstance(record, Sequence) and not isinstance(record, (str, bytes)) and isinstance(row, list):
        assert len(record) == len(row), path
        for i, (value, cell) in enumerate(zip(record, row, strict=True)):
            assert_holds(value, cell, f"{path}[{i}]")
    else:
        assert type(record) is type(row), (path, record, row)
        same = record == row or (record != record and row != row)
        assert same and str(record) == str(row), (path, record, row)  # text tells -0.0 from 0.0


def assert_equal(first: Any, second: Any, path: str = "") -> None:
    """Assert that two records are the same, field by field, NaN equal to NaN."""
    if isinstance(first, Mapping):
        assert list(first) == list(second), path
        for name, value in first.items():
            assert_equal(value, second[name], f"{path}.{name}")
    elif isinstance(first, list):
        assert len(first) == len(second), path
        for i, (one, two) in enumerate(zip(first, second, strict=True)):
            assert_equal(one, two, f"{path}[{i}]")
    else:
        assert type(first) is type(second) and repr(first) == repr(second), (path, first, second)
