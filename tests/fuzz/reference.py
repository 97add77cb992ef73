"""A strict reader of Avro bodies: what must be refused, by which rule, in which field and at which byte.

Plain Python from the specification, slow and short; it allocates nothing and returns no values.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tests.fuzz.layout import WIDTH, Kind

STRICTER = {
    "varint": "an integer of more than 64 bits or ten bytes",
    "negative": "a length below zero, or a count of -2^63",
    "branch": "a union branch that the schema has not",
    "symbol": "an enum symbol that the schema has not",
    "boolean": "a boolean other than 0 and 1",
    "range": "an int of more than 32 bits",
    "block": "a block size that its items do not have",
    "text": "text that is not UTF-8",
    "key": "a map key that stands twice",
}
"""Rules by which a body is refused that a lenient decoder reads: there is no second reading of what we accept."""

PLAIN = {"short": "the body ends too early, or a length or count goes beyond it", "stray": "bytes follow the record"}
"""Rules by which every decoder refuses."""


class Refused(Exception):  # noqa: N818 (the word of the decoder)
    """A body is not sound: which rule, and the extent of the thing at fault."""

    def __init__(self, rule: str, start: int, stop: int) -> None:
        super().__init__(rule)
        self.rule, self.start, self.stop = rule, start, stop
        self.path: list[str] = []


@dataclass(frozen=True, slots=True)
class Verdict:
    """``rule`` is None for a sound body; ``field``, ``start`` and ``stop`` say where it is not."""

    rule: str | None
    field: str = ""
    start: int = 0
    stop: int = 0
    twice: bool = False


Read = Callable[[bytes, int], int]


class Reference:
    """The strict reader of one schema.

    Parameters
    ----------
    kind : Kind
        A record.
    """

    def __init__(self, kind: Kind) -> None:
        self._twice = False
        self._read = self._reader(kind)

    def judge(self, body: bytes) -> Verdict:
        self._twice = False
        try:
            stop = self._read(body, 0)
            if stop != len(body):
                raise Refused("stray", stop, len(body))
        except Refused as fault:
            path = "".join(reversed(fault.path)).lstrip(".")
            return Verdict(fault.rule, path, fault.start, fault.stop, self._twice)
        return Verdict(None, twice=self._twice)

    # -------------------------------------------------------------------------------------------- leaves
    def _reader(self, kind: Kind) -> Read:
        name = kind.name
        if name == "null":
            return lambda data, at: at
        if name in WIDTH or name == "fixed":
            return _fixed(WIDTH.get(name) or kind.size)
        if name == "union":
            return self._union(kind)
        if name == "record":
            return self._record(kind)
        if name in ("array", "map"):
            return self._loop(kind)
        if name == "enum":
            return _enum(kind.size)
        return _LEAVES[name]

    def _union(self, kind: Kind) -> Read:
        readers = [self._reader(part) for part in kind.parts]
        count = len(readers)

        def read(data: bytes, at: int) -> int:
            branch, after = varint(data, at)
            if not 0 <= branch < count:
                raise Refused("branch", at, after)
            return readers[branch](data, after)

        return read

    def _record(self, kind: Kind) -> Read:
        readers = [self._reader(part) for part in kind.parts]

        def read(data: bytes, at: int) -> int:
            i = 0
            try:
                for i, inner in enumerate(readers):  # noqa: B007 (told by the fault)
                    at = inner(data, at)
            except Refused as fault:
                fault.path.append(f".{kind.names[i]}")
                raise
            return at

        return read

    def _loop(self, kind: Kind) -> Read:
        inner, is_map = self._reader(kind.item), kind.name == "map"
        fewest = least(kind.item) + is_map

        def read(data: bytes, at: int) -> int:
            keys = set()
            while True:
                count, at, declared = _block(data, at, fewest)
                if count == 0:
                    return at
                try:
                    for _ in range(count):
                        if is_map:
                            first, at = at, _string(data, at)
                            text = data[varint(data, first)[1] : at]
                            self._twice |= text in keys
                            keys.add(text)
                        at = inner(data, at)
                except Refused as fault:
                    fault.path.append("{}" if is_map else "[]")
                    raise
                if declared >= 0 and declared != at:
                    raise Refused("block", min(declared, at), max(declared, at))

        return read


def varint(data: bytes, at: int) -> tuple[int, int]:
    raw = 0
    for i in range(10):
        if at + i >= len(data):
            raise Refused("short", at, at + i)
        byte = data[at + i]
        raw |= (byte & 127) << (7 * i)
        if i == 9 and byte > 1:
            raise Refused("varint", at, at + 10)
        if byte < 128:
            return (raw >> 1) ^ -(raw & 1), at + i + 1
    raise AssertionError("unreachable")


def least(kind: Kind) -> int:
    """Return the fewest bytes that a value of a type takes."""
    if kind.name == "record":
        return sum(least(part) for part in kind.parts)
    if kind.name == "union":
        return 1 + min(least(part) for part in kind.parts)
    return {"null": 0, "fixed": kind.size, **WIDTH}.get(kind.name, 1)


def _block(data: bytes, at: int, fewest: int) -> tuple[int, int, int]:
    """Return (items, position of the first, end that the block declares or -1)."""
    count, after = varint(data, at)
    declared = -1
    if count < 0:
        size, after = varint(data, after)
        if not 0 <= size <= len(data) - after:
            raise Refused("block", at, after)
        if count == -(2**63):
            raise Refused("negative", at, after)
        declared, count = after + size, -count
    if count * fewest > len(data) - after:
        raise Refused("short", at, after)
    return count, after, declared


def _fixed(size: int) -> Read:
    def read(data: bytes, at: int) -> int:
        if size > len(data) - at:
            raise Refused("short", at, len(data))
        return at + size

    return read


def _enum(symbols: int) -> Read:
    def read(data: bytes, at: int) -> int:
        value, after = varint(data, at)
        if not 0 <= value < symbols:
            raise Refused("symbol", at, after)
        return after

    return read


def _int(data: bytes, at: int) -> int:
    value, after = varint(data, at)
    if not -(2**31) <= value < 2**31:
        raise Refused("range", at, after)
    return after


def _boolean(data: bytes, at: int) -> int:
    if at >= len(data):
        raise Refused("short", at, at)
    if data[at] > 1:
        raise Refused("boolean", at, at + 1)
    return at + 1


def _bytes(data: bytes, at: int) -> int:
    size, after = varint(data, at)
    if size < 0:
        raise Refused("negative", at, after)
    if size > len(data) - after:
        raise Refused("short", at, after)
    return after + size


def _string(data: bytes, at: int) -> int:
    stop = _bytes(data, at)
    try:
        data[varint(data, at)[1] : stop].decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("text", at, stop) from None
    return stop


def _long(data: bytes, at: int) -> int:
    return varint(data, at)[1]


_LEAVES: dict[str, Read] = {"int": _int, "long": _long, "boolean": _boolean, "bytes": _bytes, "string": _string}
