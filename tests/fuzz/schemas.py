"""Made-up writer schemas: one with every Avro type in every place that a column can hold, and random ones."""

from __future__ import annotations

import random
from typing import Any


def record(title: str, **fields: Any) -> dict[str, Any]:
    return {"type": "record", "name": title, "fields": [{"name": key, "type": kind} for key, kind in fields.items()]}


def array(items: Any) -> dict[str, Any]:
    return {"type": "array", "items": items}


def mapping(values: Any) -> dict[str, Any]:
    return {"type": "map", "values": values}


def every(version: str, *, wide: bool) -> dict[str, Any]:
    """Every Avro type in every place that a column can hold; the old version is narrower and lacks some fields."""
    real, whole = ("double", "long") if wide else ("float", "int")
    point = record("point", mjd="double", flux=["null", real], flag=["null", "boolean"], tags=array("string"))
    node = record("node", id="long", best=["null", point], points=["null", array(["null", "point"])], name="string")
    fields = {
        "schemavsn": "string",
        "nothing": "null",
        "yes": "boolean",
        "small": whole,
        "large": "long",
        "single": real,
        "double": "double",
        "stamp": "bytes",
        "name": "string",
        "hash": {"type": "fixed", "name": "hash16", "size": 16},
        "one": ["null", {"type": "fixed", "name": "hash1", "size": 1}],
        "kind": {"type": "enum", "name": "kinds", "symbols": ["a", "bb", "ccc"]},
        "maybe_kind": ["kinds", "null"],
        "maybe_hash": ["null", "hash16"],
        "only": ["int"],
        "never": ["null"],
        "late": ["double", "null"],
        "maybe_small": ["null", "int"],
        "maybe_large": ["null", "long"],
        "maybe_yes": ["null", "boolean"],
        "maybe_name": ["null", "string"],
        "day": {"type": "int", "logicalType": "date"},
        "maybe_day": ["null", {"type": "int", "logicalType": "date"}],
        "time": {"type": "long", "logicalType": "timestamp-micros"} if wide else "long",
        "maybe_time": ["null", {"type": "long", "logicalType": "timestamp-millis"}],
        "uuid": {"type": "string", "logicalType": "uuid"},
        "nodes": array(node),
        "maybe_nodes": ["null", array(["null", "node"])],
        "grid": array(array(array("float"))),
        "flags": array("boolean"),
        "kinds_seen": array("kinds"),
        "stamps": ["null", array(["null", "bytes"])],
        "hashes": array("hash16"),
        "days": array({"type": "int", "logicalType": "date"}),
        "counts": mapping("long"),
        "maybe_map": ["null", mapping(["null", "string"])],
        "maps": array(mapping(["null", "double"])),
        "deep": mapping(array(["null", "point"])),
        "cells": mapping(mapping("int")),
        "inner": record("inner", a="int", b=record("innermost", c=["null", record("core", d="float")])),
        "maybe_inner": ["null", "inner"],
        "maybe_stamp": ["null", "bytes"],
        "last": "long",
    }
    if not wide:
        for name in ("late", "cells", "kinds_seen", "one"):
            del fields[name]
        fields = {"last": fields.pop("last"), **fields}
    return {**record("every", **fields), "version": version}


# ------------------------------------------------------------------------------------------------ random schemas
LEAVES = (
    *("boolean", "int", "long", "float", "double", "string", "bytes"),
    {"type": "int", "logicalType": "date"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "string", "logicalType": "uuid"},
)
NARROWER = {"double": ("float", "int", "double"), "long": ("int", "long"), "float": ("int", "float")}
"""What an older version may have had instead, and the column holds without loss; an int becomes a double."""


class _Maker:
    """Makes random types; those with a name are used again, by their short names and their full ones."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.names: list[str] = []
        self.made = 0

    def name(self) -> str:
        self.made += 1
        return f"t{self.made}"

    def fields(self, depth: int, most: int) -> list[dict[str, Any]]:
        return [{"name": f"f{i}", "type": self.type(depth)} for i in range(self.rng.randint(1, most))]

    def type(self, depth: int, *, is_item: bool = False, is_branch: bool = False) -> Any:
        draw = self.rng.random()
        if draw < 0.35 and not is_branch:
            inner = self.type(depth, is_branch=True)
            return self.rng.choice((["null", inner], ["null", inner], [inner, "null"], [inner]))
        if draw < 0.37 and not is_item and not is_branch:
            return self.rng.choice(("null", ["null"]))
        if draw < 0.45 and self.names:
            name = self.rng.choice(self.names)
            return self.rng.choice((name, f"space.{name}"))
        if draw < 0.75 or depth == 0:
            return self.leaf()
        if draw < 0.88:
            fields = [{"name": "g", "type": self.leaf()}, *self.fields(depth - 1, 4)]
            title = self.name()
            self.names.append(title)
            return {"type": "record", "name": title, "fields": fields}
        inner = self.type(depth - 1, is_item=True)
        return array(inner) if draw < 0.97 else mapping(inner)

    def leaf(self) -> Any:
        draw = self.rng.random()
        if draw < 0.85:
            return self.rng.choice(LEAVES)
        title = self.name()
        self.names.append(title)
        if draw < 0.92:
            return {"type": "fixed", "name": title, "size": self.rng.choice((1, 3, 8))}
        symbols = [f"s{'x' * i}" for i in range(self.rng.choice((1, 2, 70)))]
        return {"type": "enum", "name": title, "symbols": symbols}


def any_record(seed: str) -> dict[str, Any]:
    """Return a random record schema."""
    maker = _Maker(random.Random(seed))
    return {"type": "record", "name": "any", "namespace": "space", "version": "2.0", "fields": maker.fields(4, 12)}


def narrower(schema: dict[str, Any]) -> dict[str, Any]:
    """Return an older form of a record schema: narrower numbers, and top-level fields in another order."""
    rng = random.Random(len(str(schema)))
    fields = [{**field, "type": _narrowed(field["type"], rng)} for field in schema["fields"]]
    return {**schema, "version": "1.0", "fields": fields}


def _narrowed(schema: Any, rng: random.Random) -> Any:
    if isinstance(schema, list):
        return [_narrowed(kind, rng) for kind in schema]
    if isinstance(schema, str):
        return rng.choice(NARROWER.get(schema, (schema,)))
    if "logicalType" in schema:
        return schema
    out = dict(schema)
    for key in ("items", "values"):
        if key in schema:
            out[key] = _narrowed(schema[key], rng)
    if "fields" in schema:
        out["fields"] = [{**field, "type": _narrowed(field["type"], rng)} for field in schema["fields"]]
    return out
