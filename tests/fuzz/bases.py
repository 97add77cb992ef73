"""Sound bodies to start from: small, made up, of every shipped schema version and of made-up schemas."""

from __future__ import annotations

import random
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import pyarrow as pa

from pipeline.avro import WriterSchema, writer_schema
from pipeline.surveys.superset import known_schemas, superset
from tests.avro_oracle import CUTOUTS, body, random_record
from tests.fuzz.layout import Kind, Spot, kind_of, spots_of, zigzag
from tests.fuzz.reference import Reference
from tests.fuzz.schemas import any_record, every, narrower

FAMILIES = ("ztf", "lsst", "elasticc", "every", "any")
"""``every`` has every Avro type in every place, ``any0``, ``any1`` ... are made up at random."""
MADE_UP_CUTOUTS = ("stamp", "maybe_stamp", "f1")
N_BASES = 10
"""Of each schema version."""


@cache
def schemas_of(family: str) -> dict[str, dict[str, Any]]:
    """Return the writer schemas of a family by version."""
    if family == "every":
        return {"1.0": every("1.0", wide=False), "2.0": every("2.0", wide=True)}
    if family.startswith("any"):
        return {"1.0": narrower(any_record(family)), "2.0": any_record(family)}
    return known_schemas(family)


@cache
def versions_of(family: str) -> tuple[str, ...]:
    return tuple(schemas_of(family))


@cache
def superset_of(family: str) -> pa.Schema:
    return superset(list(schemas_of(family).values()))


def cutouts_of(family: str) -> tuple[str, ...]:
    return CUTOUTS.get(family, MADE_UP_CUTOUTS)


# ------------------------------------------------------------------------------------------------ an own encoder
FLOAT_BITS = (0, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC12345, 0x7F800001, 0xFFBFFFFF, 1, 0x7F7FFFFF)
DOUBLE_BITS = (0, 1 << 63, 0x7FF << 52, 0xFFF << 52, 0x7FF8 << 48, 0xFFF8DEADBEEF0000, 0x7FF0000000000001, 1)
TEXTS = ("", "g", "null", "ZTF18abcdefg", "\x00", "\x7f", "é", "߿", "ࠀ", "퟿", "", "\uffff", "𐀀", "\U0010ffff", "🜨天")
INTS = (0, 1, -1, 63, 64, -64, -65, 8191, 8192, 2**31 - 1, -(2**31), 2**30)
LONGS = (*INTS, 2**31, -(2**31) - 1, 2**32, 2**53 + 1, 2**62, 2**63 - 1, -(2**63))


@dataclass(frozen=True, slots=True)
class Shape:
    """How often a union with null is null, how long lists are, and how their blocks are written."""

    null: float = 0.3
    items: tuple[int, ...] = (0, 1, 2, 3)
    blocks: str = "plain"


def blocked(items: list[bytes], shape: Shape, rng: random.Random) -> bytes:
    """Return items as the blocks of an array or map, with byte sizes or without."""
    out = []
    while items:
        cut = len(items) if shape.blocks == "plain" else rng.randint(1, len(items))
        block, items = b"".join(items[:cut]), items[cut:]
        is_sized = shape.blocks == "sized" or (shape.blocks == "mixed" and rng.random() < 0.5)
        out += [zigzag(-cut), zigzag(len(block)), block] if is_sized else [zigzag(cut), block]
    return b"".join([*out, b"\x00"])


def text(rng: random.Random) -> bytes:
    return (rng.choice(("", "", "a" * rng.randrange(40))) + rng.choice(TEXTS) + rng.choice(("", "z" * 9))).encode()


def encoded(kind: Kind, rng: random.Random, shape: Shape = Shape()) -> bytes:
    """Return one random value of a type, encoded; floats are any bits at all."""
    name = kind.name
    if name == "null":
        return b""
    if name == "union":
        nulls = [i for i, part in enumerate(kind.parts) if part.name == "null"]
        values = [i for i in range(len(kind.parts)) if i not in nulls]
        branch = rng.choice(nulls if not values or (nulls and rng.random() < shape.null) else values)
        return zigzag(branch) + encoded(kind.parts[branch], rng, shape)
    if name == "record":
        return b"".join(encoded(part, rng, shape) for part in kind.parts)
    if name == "array":
        items = [encoded(kind.item, rng, shape) for _ in range(rng.choice(shape.items))]
        return blocked(items, shape, rng)
    if name == "map":
        keys = {text(rng): None for _ in range(rng.choice(shape.items))}
        return blocked([zigzag(len(key)) + key + encoded(kind.item, rng, shape) for key in keys], shape, rng)
    return _leaf(kind, rng)


def _leaf(kind: Kind, rng: random.Random) -> bytes:
    name = kind.name
    is_edge = rng.random() < 0.5
    if name == "boolean":
        return bytes([rng.randrange(2)])
    if name == "int":
        return zigzag(rng.choice(INTS) if is_edge else rng.randrange(-(2**31), 2**31))
    if name == "long":
        return zigzag(rng.choice(LONGS) if is_edge else rng.randrange(-(2**63), 2**63) >> rng.randrange(64))
    if name == "float":
        return struct.pack("<I", rng.choice(FLOAT_BITS) if is_edge else rng.getrandbits(32))
    if name == "double":
        return struct.pack("<Q", rng.choice(DOUBLE_BITS) if is_edge else rng.getrandbits(64))
    if name == "enum":
        return zigzag(rng.randrange(kind.size))
    if name == "fixed":
        return rng.randbytes(kind.size)
    value = text(rng) if name == "string" else rng.randbytes(rng.choice((0, 1, 3, 40)))
    return zigzag(len(value)) + value


# ------------------------------------------------------------------------------------------------ bases
@dataclass(frozen=True, slots=True)
class Writer:
    """One schema version: as alertmill knows it, as a tree, and its strict reader."""

    schema: WriterSchema
    kind: Kind
    reference: Reference


@cache
def writer(family: str, version: str) -> Writer:
    schema: Mapping[str, Any] = schemas_of(family)[version]
    kind = kind_of(schema)
    return Writer(writer_schema(schema), kind, Reference(kind))


@dataclass(frozen=True, slots=True)
class Base:
    """A sound body and its spots by what they are and where they stand."""

    family: str
    version: str
    number: int
    body: bytes
    by_kind: Mapping[str, Mapping[str, list[Spot]]]


_SHAPES = (
    Shape(0.0, (1, 2)),
    Shape(0.5, (0, 1, 3), "mixed"),
    Shape(0.3, (1, 2, 5), "sized"),
    Shape(0.95, (0, 1)),
    Shape(0.5, (2, 9), "mixed"),
)


@cache
def base(family: str, version: str, number: int) -> Base:
    """Return base ``number`` of :data:`N_BASES`: the first are written by fastavro, the others by the own encoder."""
    seed = f"{family} {version} {number}"
    schema = schemas_of(family)[version]
    kind = writer(family, version).kind
    if number < 4:
        data = body(schema, random_record(schema, number))
    else:
        data = encoded(kind, random.Random(seed), _SHAPES[(number - 4) % len(_SHAPES)])
    if number == N_BASES - 1:
        data = _with_a_large_stamp(kind, data)
    by_kind: dict[str, dict[str, list[Spot]]] = {}
    for spot in spots_of(kind, data):
        by_kind.setdefault(spot.what, {}).setdefault(spot.where, []).append(spot)
    return Base(family, version, number, data, by_kind)


def _with_a_large_stamp(kind: Kind, data: bytes) -> bytes:
    """Give the first stamp of a body 20 kB."""
    for spot in spots_of(kind, data):
        if spot.what == "bytes":
            stamp = random.Random(1).randbytes(20_000)
            return data[: spot.start] + zigzag(len(stamp)) + stamp + data[spot.stop :]
    return data
