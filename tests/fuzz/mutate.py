"""Changes of sound bodies that know what they change: a kind of thing first, then one of its places, then a change.

A mutation is a list of splices (start, stop, new bytes) of a base, so that every mutant is told by its base and a few
numbers. *Gentle* changes put one sound thing in place of another, so that the mutant must be accepted; *harsh* ones do
what they like.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.fuzz.bases import N_BASES, Base, Shape, base, blocked, encoded, text, versions_of
from tests.fuzz.layout import Kind, Spot, unzigzag, zigzag

Splice = tuple[int, int, bytes]
GENTLE_SHARE = 0.4
"""Mutants with gentle changes only."""
STRETCH = 50
"""Mutants in a row that are of one schema version."""

EXTREMES = (
    *(2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 2**32, 2**32 + 1, -(2**32), 2**63 - 1, -(2**63), 2**62, -(2**62)),
    *(-1, -2, 0, 1, 2, 3, 64, 127, 128, 255, 256, 2**15, 2**16, 2**24, 10**9, 2**53 + 1, 2**61, 2**60 + 1),
)
NOT_TEXT = (
    *(b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf"),
    *(b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80"),
    *(b"\xfe", b"\xff", b"\xff\xfe", b"\xc3", b"\xe2\x82", b"\xf0\x9f\x98", b"\xc3(", b"\xe2(\xa1", b"\xe2\x82("),
    *(b"\xf0(\x8c\xbc", b"\xf0\x90(\xbc", b"\xf0\x90\x8c(", b"\xc3\xc3", b"\xe2\x82\xc0", b"\xf0\x9f\x98\xff"),
)
VARINTS = ("int", "long", "enum", "branch", "string_length", "bytes_length", "key_length", "array_count", "map_count")


# ------------------------------------------------------------------------------------------------ single changes
def flip(old: bytes, rng: random.Random) -> bytes:
    """Change one bit."""
    if not old:
        return rng.randbytes(1)
    at = rng.randrange(len(old))
    return old[:at] + bytes([old[at] ^ 1 << rng.randrange(8)]) + old[at + 1 :]


def stretched(value: int, size: int) -> bytes:
    """Return a varint written longer than it need be."""
    short = zigzag(value)
    if size <= len(short):
        return short
    return bytes(byte | 128 for byte in short) + b"\x80" * (size - len(short) - 1) + b"\x00"


def _harsh_varint(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    value = unzigzag(old, 0)[0]
    return rng.choice((
        lambda: flip(old, rng),
        lambda: zigzag(rng.choice(EXTREMES)),
        lambda: zigzag(value + rng.choice((1, -1, 1, -1, 2, -2, 64, 1000))),
        lambda: zigzag(-value),
        lambda: zigzag(rng.randrange(-(2**63), 2**63) >> rng.randrange(64)),
        lambda: stretched(value, rng.choice((11, 12, 20))),
        lambda: b"\xff" * 9 + bytes([rng.choice((2, 3, 127, 128, 255))]),
        lambda: rng.choice((b"\x80", b"\xff")) * rng.choice((1, 3, 9, 10, 11)),
        lambda: b"",
        lambda: zigzag(spot.kind.size or len(spot.kind.parts)),
    ))()  # fmt: skip


def _stretch(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    return stretched(unzigzag(old, 0)[0], rng.choice((min(len(old) + 1, 10), 3, 5, 9, 10)))


def _value(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    return encoded(spot.kind, rng)


def _union(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    return encoded(spot.kind, rng, Shape(null=0.0 if "null" in spot.where else 0.6))


def _harsh_sized(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    """Give text that is none its right length, or text or bytes a wrong one."""
    if spot.what != "bytes" and rng.random() < 0.7:
        new = b"a" * rng.choice((0, 0, 1, 7, 8, 31)) + rng.choice(NOT_TEXT) + b"z" * rng.choice((0, 0, 1, 8, 40))
        return zigzag(len(new)) + new
    size, data = unzigzag(old, 0)
    return zigzag(max(size + rng.choice((-1, 1, 2, 127)), -2)) + old[data:]


def _text(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    new = text(rng)
    return zigzag(len(new)) + new


def _flip(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    return flip(old, rng)


def _other_bytes(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(len(old)) if rng.random() < 0.5 or not old else flip(old, rng)


def _resize(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    """Cut the end of something of fixed size, or add to it."""
    return old[:-1] if rng.random() < 0.5 else old + rng.randbytes(rng.choice((1, 4, 8)))


def _boolean(spot: Spot, old: bytes, rng: random.Random) -> bytes:
    return bytes([rng.choice((2, 3, 127, 128, 255, rng.randrange(256)))])


# ------------------------------------------------------------------------------------------------ lists
def _items(spot: Spot, body: bytes) -> list[bytes]:
    return [body[start:stop] for start, stop in spot.parts]


def _entry(kind: Kind, rng: random.Random) -> bytes:
    key = b"" if kind.name == "array" else text(rng) + rng.randbytes(8).hex().encode()
    return (zigzag(len(key)) + key if key else b"") + encoded(kind.item, rng, Shape(0.4, (0, 1)))


def _relist(spot: Spot, body: bytes, rng: random.Random) -> bytes:
    """Add, drop or move items; several blocks, with sizes or without."""
    items = _items(spot, body)
    step = rng.randrange(5)
    if step == 0:
        few, many = (1, 2, 3, 20), (1, 2, 3, 20, 400)
        count = rng.choice(few if spot.kind.item.name == "record" else many)
        items += [_entry(spot.kind, rng) for _ in range(count)]
    elif step == 1 and items:
        del items[rng.randrange(len(items))]
    elif step == 2:
        rng.shuffle(items)
    elif step == 3:
        items = []
    return blocked(items, Shape(blocks=rng.choice(("mixed", "sized", "plain"))), rng)


def _harsh_list(spot: Spot, body: bytes, rng: random.Random) -> bytes:
    items = _items(spot, body) or [_entry(spot.kind, rng)]
    data, n = b"".join(items), len(items)
    wrong = rng.choice((-1, 1, -len(data), 2**31, 2**62, -(2**62), rng.randrange(-3, 300)))
    return rng.choice((
        lambda: zigzag(-n) + zigzag(len(data) + wrong) + data + b"\x00",
        lambda: zigzag(-n) + zigzag(rng.choice(EXTREMES)) + data + b"\x00",
        lambda: zigzag(-n) + data + b"\x00",
        lambda: zigzag(n) + data,
        lambda: zigzag(n) + zigzag(n) + data + b"\x00",
        lambda: zigzag(rng.choice((2**20, 2**31, 2**40, 2**62, 2**63 - 1))) * rng.choice((1, 2, 3)) + data + b"\x00",
        lambda: zigzag(-(2**63)) + zigzag(rng.choice((0, 1, len(data)))) + data + b"\x00",
        lambda: zigzag(n + rng.choice((-1, 1, 2))) + data + b"\x00",
        lambda: zigzag(2 * n) + data + data + b"\x00",
        lambda: zigzag(n) + data + zigzag(-n) + zigzag(len(data)) + data + b"\x00",
    ))()  # fmt: skip


def _swap(spot: Spot, body: bytes, rng: random.Random) -> bytes:
    """Swap, drop or double fields of a record."""
    fields = _items(spot, body)
    i, j = rng.randrange(len(fields)), rng.randrange(len(fields))
    step = rng.randrange(3)
    if step == 0:
        fields[i], fields[j] = fields[j], fields[i]
    elif step == 1:
        fields[i] = b""
    else:
        fields[i] *= 2
    return b"".join(fields)


# ------------------------------------------------------------------------------------------------ choosing
Single = Callable[[Spot, bytes, random.Random], bytes]
"""A change of a spot: its old bytes (for a list or record: the whole body) to its new ones."""

GENTLE: dict[str, tuple[Single, ...]] = {
    **dict.fromkeys(("int", "long", "enum"), (_value, _value, _stretch)),
    **dict.fromkeys(("branch", "string_length", "bytes_length", "key_length"), (_stretch,)),
    **dict.fromkeys(("array_count", "map_count", "block_size"), (_stretch,)),
    **dict.fromkeys(("float", "double", "boolean"), (_value,)),
    **dict.fromkeys(("fixed", "bytes_data"), (_other_bytes,)),
    **dict.fromkeys(("string", "key"), (_text,)),
    **dict.fromkeys(("bytes", "record"), (_value,)),
    **dict.fromkeys(("array", "map"), (_relist,)),
    "union": (_union,),
}
HARSH: dict[str, tuple[Single, ...]] = {
    **dict.fromkeys((*VARINTS, "block_size"), (_harsh_varint,)),
    **dict.fromkeys(("float", "double"), (_flip, _flip, _resize)),
    **dict.fromkeys(("fixed", "bytes_data"), (_flip, _resize)),
    **dict.fromkeys(("string_data", "key_data"), (_flip, _flip, _resize)),
    **dict.fromkeys(("string", "key", "bytes"), (_harsh_sized,)),
    **dict.fromkeys(("array", "map"), (_harsh_list,)),
    "boolean": (_boolean, _flip),
    "union": (_union, _flip),
    "record": (_swap,),
}
WHOLE = {"array", "map", "record"}
"""Kinds whose changes are told the whole body, since their parts are extents of it."""


def _cut(body: bytes, rng: random.Random) -> Splice:
    """Shorten, lengthen or double the whole body."""
    size = len(body)
    at = rng.randrange(size + 1)
    return rng.choice((
        lambda: (at, size, b""),
        lambda: (size - 1, size, b""),
        lambda: (0, at, b""),
        lambda: (size, size, body),
        lambda: (size, size, rng.randbytes(rng.choice((1, 1, 7, 500)))),
        lambda: (at, at, rng.randbytes(rng.choice((1, 9, 100)))),
        lambda: (at, min(at + rng.choice((1, 2, 8, 50)), size), b""),
        lambda: (at, size, rng.randbytes(size - at)),
    ))()  # fmt: skip


def _end(source: Base, rng: random.Random) -> Splice:
    """End the body within a thing of any kind, or just before or behind it."""
    places = source.by_kind[rng.choice([kind for kind in source.by_kind if kind not in WHOLE])]
    spot = rng.choice(places[rng.choice(list(places))])
    return (rng.randint(max(spot.start, spot.stop - 10), spot.stop), len(source.body), b"")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One changed body: its base, the splices, the kinds that were changed, and whether all changes were gentle."""

    base: Base
    splices: tuple[Splice, ...]
    kinds: tuple[str, ...]
    is_gentle: bool

    @property
    def body(self) -> bytes:
        return spliced(self.base.body, self.splices)


def spliced(body: bytes, splices: Iterable[Splice]) -> bytes:
    for start, stop, new in sorted(splices, reverse=True):
        body = body[:start] + new + body[stop:]
    return body


def _one(source: Base, is_gentle: bool, rng: random.Random) -> tuple[str, Splice]:
    changes = GENTLE if is_gentle else HARSH
    kinds = [kind for kind in changes if kind in source.by_kind]
    if not is_gentle:
        kinds += ["body", "end"]
    kind = rng.choice(kinds)
    if kind == "body":
        return kind, _cut(source.body, rng)
    if kind == "end":
        return kind, _end(source, rng)
    places = source.by_kind[kind]
    spot = rng.choice(places[rng.choice(list(places))])
    old = source.body if kind in WHOLE else source.body[spot.start : spot.stop]
    return kind, (spot.start, spot.stop, rng.choice(changes[kind])(spot, old, rng))


def mutant(family: str, seed: int, case: int) -> Mutant:
    """Return mutant ``case`` of a family: a pure function of the three."""
    rng = random.Random(f"{family} {seed} {case}")
    number = rng.randrange(N_BASES - 1) if rng.random() < 0.98 else N_BASES - 1
    versions = versions_of(family)
    source = base(family, versions[case // STRETCH * 7 % len(versions)], number)
    all_gentle = rng.random() < GENTLE_SHARE
    kinds, splices = [], []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        kind, (start, stop, new) = _one(source, all_gentle or (bool(splices) and rng.random() < 0.7), rng)
        if all(stop < other[0] or start > other[1] for other in splices):
            kinds.append(kind)
            splices.append((start, stop, new))
    return Mutant(source, tuple(splices), tuple(kinds), all_gentle)
