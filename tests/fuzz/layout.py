"""Where everything in an Avro body lies: a schema as a tree, and every number, length, text and branch of a body.

Written apart from the decoder, in plain Python, so that neither can copy the other's mistake.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

WIDTH = {"float": 4, "double": 8}


@dataclass(frozen=True, slots=True)
class Kind:
    """An Avro type with all references resolved.

    ``parts`` are the types of a record's fields, of a union's branches, or of the items of an array or map; ``names``
    are a record's field names; ``size`` is the size of a fixed or the number of an enum's symbols.
    """

    name: str
    parts: tuple[Kind, ...] = ()
    names: tuple[str, ...] = ()
    size: int = 0

    @property
    def item(self) -> Kind:
        return self.parts[0]


def kind_of(schema: Any, named: dict[str, Kind] | None = None, space: str = "") -> Kind:
    """Resolve a schema that is not recursive; logical types are the integers they are stored as."""
    named = {} if named is None else named
    if isinstance(schema, list):
        return Kind("union", tuple(kind_of(branch, named, space) for branch in schema))
    if isinstance(schema, str):
        return named.get(schema) or named.get(f"{space}.{schema}") or Kind(schema)
    what = schema["type"]
    if isinstance(what, (dict, list)):
        return kind_of(what, named, space)
    if what in ("array", "map"):
        return Kind(what, (kind_of(schema["items" if what == "array" else "values"], named, space),))
    if what not in ("record", "enum", "fixed"):
        return kind_of(what, named, space)
    return _named_kind(schema, what, named, space)


def _named_kind(schema: Mapping[str, Any], what: str, named: dict[str, Kind], space: str) -> Kind:
    name, space = schema["name"], schema.get("namespace", space)
    full = name if "." in name or not space else f"{space}.{name}"
    if what == "record":
        inner = full.rpartition(".")[0]
        parts = tuple(kind_of(field["type"], named, inner) for field in schema["fields"])
        named[full] = Kind("record", parts, tuple(field["name"] for field in schema["fields"]))
    else:
        named[full] = Kind(what, size=len(schema["symbols"]) if what == "enum" else schema["size"])
    return named[full]


# ------------------------------------------------------------------------------------------------ numbers
def zigzag(value: int) -> bytes:
    """Return the shortest varint of an integer of any size."""
    raw = value << 1 if value >= 0 else -(value << 1) - 1
    out = bytearray()
    while raw > 127:
        out.append(raw & 127 | 128)
        raw >>= 7
    return bytes([*out, raw])


def unzigzag(data: bytes, at: int) -> tuple[int, int]:
    """Return (value, next position) of a varint known to be sound."""
    raw = shift = 0
    while data[at] > 127:
        raw |= (data[at] & 127) << shift
        shift += 7
        at += 1
    raw |= data[at] << shift
    return (raw >> 1) ^ -(raw & 1), at + 1


# ------------------------------------------------------------------------------------------------ spots
@dataclass(frozen=True, slots=True)
class Spot:
    """One thing in a body that can be changed.

    Attributes
    ----------
    what : str
        ``int``, ``string_length``, ``string_text``, ``array``, ``array_count`` and so on.
    start, stop : int
        Its bytes.
    path : str
        Its field, as faults name it.
    where : str
        Surroundings that a decoder may treat apart: depth in lists, within a union, branch taken.
    kind : Kind
        Type of what stands there.
    parts : tuple of (int, int)
        Extents of a record's fields, of an array's items, of a map's entries, or of a union's value.
    """

    what: str
    start: int
    stop: int
    path: str
    where: str
    kind: Kind
    parts: tuple[tuple[int, int], ...] = ()


class Mapper:
    """Walks a sound body and notes all its spots in order of their starts."""

    def __init__(self, body: bytes) -> None:
        self.body = body
        self.spots: list[Spot] = []

    def note(self, what: str, start: int, stop: int, path: str, where: str, kind: Kind, parts: Any = ()) -> int:
        self.spots.append(Spot(what, start, stop, path, where, kind, tuple(parts)))
        return stop

    def walk(self, kind: Kind, at: int, path: str, depth: int = 0, inside: str = "") -> int:
        where = f"{min(depth, 2)}{inside}"
        name = kind.name
        if name == "null":
            return at
        if name in ("int", "long", "enum"):
            return self.note(name, at, unzigzag(self.body, at)[1], path, where, kind)
        if name in WIDTH or name == "fixed":
            return self.note(name, at, at + (WIDTH.get(name) or kind.size), path, where, kind)
        if name == "boolean":
            return self.note(name, at, at + 1, path, where, kind)
        if name in ("string", "bytes"):
            return self._sized(name, at, path, where, kind)
        if name == "union":
            return self._union(kind, at, path, depth, where)
        if name == "record":
            return self._record(kind, at, path, depth, where)
        return self._loop(kind, at, path, depth, where)

    def _sized(self, name: str, at: int, path: str, where: str, kind: Kind) -> int:
        size, data = unzigzag(self.body, at)
        self.note(name, at, data + size, path, where, kind)
        self.note(f"{name}_length", at, data, path, where, kind)
        return self.note(f"{name}_data", data, data + size, path, where, kind)

    def _union(self, kind: Kind, at: int, path: str, depth: int, where: str) -> int:
        branch, inner = unzigzag(self.body, at)
        taken = kind.parts[branch]
        is_null = "null" if taken.name == "null" else "value"
        self.note("branch", at, inner, path, f"{where}{is_null}", kind)
        stop = self.walk(taken, inner, path, depth, "?")
        return self.note("union", at, stop, path, f"{where}{is_null}", kind, [(inner, stop)])

    def _record(self, kind: Kind, at: int, path: str, depth: int, where: str) -> int:
        start, parts = at, []
        for name, part in zip(kind.names, kind.parts, strict=True):
            stop = self.walk(part, at, f"{path}.{name}" if path else name, depth)
            parts.append((at, stop))
            at = stop
        return self.note("record", start, at, path, where, kind, parts)

    def _loop(self, kind: Kind, at: int, path: str, depth: int, where: str) -> int:
        name, start, parts = kind.name, at, []
        inner = f"{path}[]" if name == "array" else f"{path}{{}}"
        while True:
            count, after = unzigzag(self.body, at)
            at = self.note(f"{name}_count", at, after, path, where, kind)
            if count == 0:
                return self.note(name, start, at, path, where, kind, parts)
            if count < 0:
                at = self.note("block_size", at, unzigzag(self.body, at)[1], path, where, kind)
            for _ in range(abs(count)):
                first = at
                if name == "map":
                    at = self._sized("key", at, inner, where, Kind("string"))
                at = self.walk(kind.item, at, inner, depth + 1)
                parts.append((first, at))


def spots_of(kind: Kind, body: bytes) -> list[Spot]:
    """Return every spot of a sound body of a record type."""
    mapper = Mapper(body)
    assert mapper.walk(kind, 0, "") == len(body)
    return mapper.spots
