"""One batch of mutants with sound packets between them: decoded together, and judged one by one."""

from __future__ import annotations

import io
import json
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa

from pipeline.avro import Datum, Decoded, Fault, WriterSchema, decode, decode_frames
from pipeline.avro.frames import NO_SCHEMA, Frames
from pipeline.avro.rows import added_json
from tests.fuzz.bases import N_BASES, base, cutouts_of, superset_of, writer
from tests.fuzz.compare import difference, differing_row, flat, signalling, table_difference
from tests.fuzz.fences import Fence, fenced_arenas, own_pool, tight_arenas
from tests.fuzz.mutate import Mutant, mutant
from tests.fuzz.reference import STRICTER, Verdict

BATCH = 200
GOOD_EVERY = 6
N_SCHEMAS = 300
"""Random schemas, each for one batch in turn."""
SHUFFLED = 0.03
"""Batches whose versions change from packet to packet; in the others they come in stretches."""
FENCED = 0.8
"""Batches decoded into memory that ends at a forbidden page; the others use the decoder's own buffers again."""
SECONDS = 5.0
"""Most CPU time of one batch, a hundred times the usual."""
PEAK = (24, 6_000, 6 << 20)
"""Most memory at once: so many bytes for each byte of body and for each packet, and so many in any case.
Four times that where the decoder begins without room: what it grew out of is counted as if it were still there."""

TOLD = re.compile(r"field (?P<field>[^:]+): (?P<what>.+) at byte (?P<byte>\d+)")
TWICE = re.compile(r"field (?P<field>[^:]+): a key stands twice in a map")
STRAY = re.compile(r"(?P<left>\d+) stray bytes follow the last field at byte (?P<byte>\d+)")
RULES = {
    "the body ends within it": {"short"},
    "union branch out of range": {"branch"},
    "length is negative or beyond the body": {"negative", "short"},
    "text is not UTF-8": {"text"},
    "integer of more than 64 bits": {"varint"},
    "boolean is neither 0 nor 1": {"boolean"},
    "item count is negative or beyond the body": {"negative", "short", "block"},
    "enum symbol out of range": {"symbol"},
    "int of more than 32 bits": {"range"},
    "block size of an array does not fit its items": {"block"},
}
"""What the decoder may say, and the rules of the reference that each stands for."""


@dataclass(frozen=True, slots=True)
class Packet:
    """One body of a batch; ``mutant`` is None for a sound one, whose neighbours must not harm it."""

    body: bytes
    version: str
    offset: int
    mutant: Mutant | None = None


@dataclass(slots=True)
class Tally:
    """What came out: counts, and each defect with what it takes to see it again."""

    cases: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    by_fastavro: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    kinds_accepted: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    stricter: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    most: dict[str, float] = field(default_factory=dict)
    defects: list[str] = field(default_factory=list)

    def add(self, other: Tally) -> None:
        for name in ("cases", "accepted", "by_fastavro", "kinds", "kinds_accepted", "reasons", "stricter", "notes"):
            getattr(self, name).update(getattr(other, name))
        for name, value in other.most.items():
            self.most[name] = max(value, self.most.get(name, 0.0))
        self.defects += other.defects


# ------------------------------------------------------------------------------------------------ what is decoded
def batch_of(family: str, seed: int, first: int, count: int = BATCH) -> list[Packet]:
    """Return mutants ``first`` to ``first + count`` with sound packets between them."""
    rng = random.Random(f"{family} {seed} {first} between")
    out = []
    for i in range(count):
        made = mutant(family, seed, first + i)
        version = made.base.version
        if i % GOOD_EVERY == 0:
            out.append(Packet(base(family, version, rng.randrange(N_BASES - 1)).body, version, rng.randrange(10**6)))
        out.append(Packet(made.body, version, rng.randrange(10**6), made))
    if rng.random() < SHUFFLED:
        rng.shuffle(out)
    return out


def frames_of(family: str, packets: Sequence[Packet], fences: Sequence[Fence], rng: random.Random) -> list[Frames]:
    """Lay packets out in one buffer for each fence, close together or with something between them."""
    cuts = sorted(rng.randrange(len(packets) + 1) for _ in fences[1:])
    edges = [0, *cuts, len(packets)]
    return [
        _frame(family, packets[a:b], fence, rng) for a, b, fence in zip(edges, edges[1:], fences, strict=False)
    ]  # fmt: skip


def _frame(family: str, packets: Sequence[Packet], fence: Fence, rng: random.Random) -> Frames:
    data, start, stop = bytearray(), [], []
    places: dict[WriterSchema, int] = {}
    schema = [places.setdefault(writer(family, packet.version).schema, len(places)) for packet in packets]
    for packet in packets:
        data += rng.randbytes(rng.choice((0, 0, 0, 5, 40)))
        start.append(len(data))
        data += packet.body
        stop.append(len(data))
    return Frames(
        fence.put(bytes(data)),
        np.array(start, dtype=np.int64),
        np.array(stop, dtype=np.int64),
        np.array([packet.offset for packet in packets], dtype=np.int64),
        pa.nulls(len(packets), pa.string()),
        np.array(schema, dtype=np.int32),
        tuple(places),
    )


def with_faults(frames: Sequence[Frames]) -> tuple[list[Frames], list[int]]:
    """Put a fault before each frame; return the frames and the places of the faults among all packets."""
    out, places, base_place = [], [], 0
    for frame in frames:
        fault = {0: Fault("the file is empty", 0, 0)}
        arrays = {
            "start": np.concatenate([[0], frame.start]),
            "stop": np.concatenate([[0], frame.stop]),
            "offset": np.concatenate([[0], frame.offset]),
            "schema": np.concatenate([[NO_SCHEMA], frame.schema]).astype(np.int32),
        }
        members = pa.nulls(len(frame) + 1, pa.string())
        out.append(Frames(frame.data, member=members, schemas=frame.schemas, faults=fault, **arrays))
        places.append(base_place)
        base_place += len(out[-1])
    return out, places


# ------------------------------------------------------------------------------------------------ the slow oracle
@dataclass(frozen=True, slots=True)
class Way:
    """How a batch is decoded: projected or whole, native or re-encoded by someone else, with room or without."""

    superset: pa.Schema
    cutouts: tuple[str, ...]
    columns: frozenset[str] | None = None
    reencoded: bool = False
    is_tight: bool = False


def read(packet: Packet, family: str) -> dict[str, Any] | None:
    """Return fastavro's record, or None if it refuses the body or leaves bytes over."""
    stream = io.BytesIO(packet.body)
    try:
        record = fastavro.schemaless_reader(stream, writer(family, packet.version).schema.parsed)
    except Exception:  # whatever it makes of nonsense
        return None
    return record if stream.tell() == len(packet.body) else None


def expected(family: str, rows: Sequence[tuple[Packet, dict[str, Any]]], way: Way) -> pa.Table:
    """Return the table of fastavro's records, by pyarrow's own conversion of Python objects."""
    records = [record for _, record in rows]
    kept = [name for name in way.superset.names if way.columns is None or name in way.columns]
    table = pa.Table.from_pylist([{k: r[k] for k in kept if k in r} for r in records], schema=way.superset)
    versions = [
        record.get("schemavsn") or writer(family, packet.version).schema.version
        if way.columns is None or "schemavsn" in way.columns
        else writer(family, packet.version).schema.version
        for packet, record in rows
    ]
    added: list[str | None] = [None] * len(rows)
    if way.reencoded:
        extra = [{k: v for k, v in record.items() if k not in way.superset.names} for record in records]
        added = [added_json(values) if values else None for values in extra]
    table = table.add_column(0, pa.field("schema_version", pa.string()), pa.array(versions, pa.string()))
    return table.append_column(pa.field("origin_added", pa.string()), pa.array(added, pa.string()))


def points(record: dict[str, Any], way: Way) -> int:
    lists = [item.name for item in way.superset if pa.types.is_list(item.type)]
    return 1 + sum(len(record.get(name) or ()) for name in lists if way.columns is None or name in way.columns)


# ------------------------------------------------------------------------------------------------ judging
@contextmanager
def watched(packets: Sequence[Packet], tally: Tally, *, is_fenced: bool, is_tight: bool) -> Iterator[None]:
    """Note the peak of memory and the time; too much of either is a defect."""
    began = time.process_time()
    tight = tight_arenas() if is_tight else nullcontext()
    with own_pool() as pool, tight, fenced_arenas() if is_fenced else nullcontext() as arenas:
        yield
    seconds, n_bytes = time.process_time() - began, sum(len(packet.body) for packet in packets)
    peak = pool.max_memory() + (arenas.peak if arenas else 0)
    room = (PEAK[0] * n_bytes + PEAK[1] * len(packets) + PEAK[2]) * (4 if is_tight else 1)
    tally.most = {"seconds": seconds, "MB": peak / 1e6, "peak / allowed": peak / room}
    if seconds > SECONDS:
        tally.defects.append(f"the batch took {seconds:.1f} s")
    if peak > room:
        tally.defects.append(f"the batch took {peak} bytes for bodies of {n_bytes}")


Decode = Callable[..., Decoded]


def decoded_by(
    family: str, packets: Sequence[Packet], way: Way, fences: Sequence[Fence], rng: random.Random, run: Decode | None
) -> Decoded:
    """Decode a batch as frames, or as datums, which must be the same."""
    options: dict[str, Any] = {"reencoded": way.reencoded, "columns": way.columns, "source": "fuzz"}
    if run is None and rng.random() < 0.25:
        data = [Datum(p.body, p.offset, len(p.body), writer(family, p.version).schema) for p in packets]
        return decode(data, way.superset, way.cutouts, **options)
    frames = frames_of(family, packets, fences, rng)
    if run is not None or rng.random() < 0.5:
        return (run or decode_frames)(frames, way.superset, way.cutouts, **options)
    frames, faulty = with_faults(frames)
    out = decode_frames(frames, way.superset, way.cutouts, **options)
    place = np.delete(np.arange(sum(map(len, frames))), faulty)
    back = {int(old): new for new, old in enumerate(place)}
    kept = np.array([back[int(k)] for k in out.kept], dtype=np.int64)
    return Decoded(out.raw, out.cutouts, out.points, kept, [(back[k], why) for k, why in out.faults])


def check(
    family: str,
    packets: Sequence[Packet],
    way: Way,
    fences: Sequence[Fence],
    rng: random.Random,
    run: Decode | None = None,
) -> Tally:
    """Decode a batch, judge every packet of it, and compare every row with fastavro's."""
    tally = Tally()
    with watched(packets, tally, is_fenced=rng.random() < FENCED, is_tight=way.is_tight):
        decoded = decoded_by(family, packets, way, fences, rng, run)
    for table in (decoded.raw, decoded.cutouts):
        table.validate(full=True)
    kept, faults = decoded.kept.tolist(), dict(decoded.faults)
    if sorted([*kept, *faults]) != list(range(len(packets))) or kept != sorted(kept):
        tally.defects.append("packets and rows do not match")
        return tally
    taken = set(kept)
    rows = []
    for place, packet in enumerate(packets):
        record = read(packet, family)
        verdict = writer(family, packet.version).reference.judge(packet.body)
        if place in taken:
            wrong = wrongly_kept(record is not None, verdict, way)
        else:
            wrong = wrongly_refused(faults[place], record is not None, verdict, packet)
        if wrong:
            tally.defects.append(f"{wrong}: {told(family, packet)}")
        if place in taken and record is not None:
            rows.append((place, packet, record))
        _count(tally, family, packet, place in taken, record is not None, verdict)
    _compare(family, decoded, kept, rows, way, tally)
    return tally


def wrongly_kept(is_read: bool, verdict: Verdict, way: Way) -> str | None:
    """Return what is wrong with an accepted packet, or None.

    A key that stands twice is not seen in a map that is left out, nor by fastavro, which reads re-encoded packets; the
    row must then still be fastavro's.
    """
    if verdict.rule is not None or not is_read:
        return f"accepted, but {verdict.rule} in {verdict.field} at {verdict.start}, fastavro reads it: {is_read}"
    if verdict.twice and way.columns is None and not way.reencoded:
        return "accepted, but a map has a key twice"
    return None


def wrongly_refused(reason: str, is_read: bool, verdict: Verdict, packet: Packet) -> str | None:
    """Return what is wrong with the refusal of a packet, or None."""
    if packet.mutant is None:
        return f"a sound packet is refused ({reason})"
    if TWICE.fullmatch(reason):
        return None if verdict.twice and verdict.rule is None else f"told {reason!r}, not {verdict}"
    found, stray = TOLD.fullmatch(reason), STRAY.fullmatch(reason)
    match = found or stray
    if not match or "\n" in reason:
        return f"no field and byte in {reason!r}"
    if is_read and verdict.rule not in STRICTER:
        return f"refused ({reason}), though fastavro reads it"
    rules = RULES.get(found["what"], set()) if found else {"stray"}
    if verdict.rule not in rules or (found and found["field"] != verdict.field):
        return f"told {reason!r}, not {verdict}"
    at = int(match["byte"]) - packet.offset
    return None if verdict.start <= at <= verdict.stop else f"told byte {at} in {reason!r}, not {verdict}"


def told(family: str, packet: Packet) -> str:
    """Return what it takes to make a packet again."""
    return json.dumps({"family": family, "version": packet.version, "body": packet.body[:4000].hex()})


def _count(tally: Tally, family: str, packet: Packet, is_kept: bool, is_read: bool, verdict: Verdict) -> None:
    if packet.mutant is None:
        return
    family = family.rstrip("0123456789")
    tally.cases[family] += 1
    tally.accepted[family] += is_kept
    tally.by_fastavro[family] += is_read
    for kind in set(packet.mutant.kinds):
        tally.kinds[f"{family} {kind}"] += 1
        tally.kinds_accepted[f"{family} {kind}"] += is_kept
    if not is_kept:
        rule = verdict.rule or "key"
        tally.reasons[f"{family} {rule}"] += 1
        if is_read:
            tally.stricter[f"{family} {rule}"] += 1


def _compare(family: str, decoded: Decoded, kept: list[int], rows: list[Any], way: Way, tally: Tally) -> None:
    """Compare the rows of all packets that both accept."""
    places = [place for place, _, _ in rows]
    mask = np.isin(kept, places)
    table = expected(family, [(packet, record) for _, packet, record in rows], way)
    stamps = [name for name in way.cutouts if name in way.superset.names]
    for part, names in ((decoded.raw, None), (decoded.cutouts, stamps)):
        ours = part if mask.all() else part.filter(pa.array(mask))
        theirs = table.drop_columns(stamps) if names is None else table.select(names)
        if found := table_difference(ours, theirs):
            row = differing_row(ours, theirs)
            exact = table_difference(ours.slice(row, 1), theirs.slice(row, 1))
            tally.defects.append(f"{found} ({exact}): {told(family, rows[row][1])}")
        tally.notes["signalling NaN kept"] += sum(signalling(flat(column)) for column in ours.columns)
    numbers = pa.array(decoded.points[mask], pa.int64())
    if found := difference(numbers, pa.array([points(record, way) for _, _, record in rows], pa.int64()), "points"):
        tally.defects.append(found)


# ------------------------------------------------------------------------------------------------ a batch by number
def way_of(family: str, rng: random.Random) -> Way:
    """Return one of the ways to decode; most batches go the plain one."""
    columns, cutouts = superset_of(family), cutouts_of(family)
    choice = rng.random()
    if choice < 0.2:
        names = [name for name in columns.names if rng.random() < 0.5]
        return Way(columns, cutouts, frozenset(names), is_tight=choice < 0.02)
    if choice < 0.25 and family == "every":
        fewer = pa.schema([item for item in columns if item.name not in ("maps", "uuid", "grid")])
        return Way(fewer, cutouts, reencoded=True)
    return Way(columns, cutouts, is_tight=choice > 0.9)


def run_batch(family: str, seed: int, first: int, count: int, fences: Sequence[Fence], run: Decode | None) -> Tally:
    """Make, decode and judge one batch: a pure function of family, seed and first case, but for its time."""
    rng = random.Random(f"{family} {seed} {first} way")
    if family == "any":
        family = f"any{first // BATCH % N_SCHEMAS}"
    return check(family, batch_of(family, seed, first, count), way_of(family, rng), fences, rng, run)
