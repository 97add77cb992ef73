"""Damaged packets: each becomes a fault or the record that an independent decoder reads, never a crash or a hang."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import fastavro
import numpy as np
import pyarrow as pa
import pytest
import ztf_packets as ztf
from avro_oracle import CUTOUTS, assert_holds, random_record, rows_of

from pipeline.avro import (
    Datum,
    Decoded,
    HeaderCache,
    arena,
    decode,
    decode_frames,
    decoding,
    memory,
    split_container,
    writer_schema,
)
from pipeline.errors import SourceError
from pipeline.surveys.superset import known_schemas, superset
from tests.fuzz import batch, run_fuzz
from tests.fuzz.bases import FAMILIES, N_BASES, base, cutouts_of, encoded, superset_of, versions_of, writer
from tests.fuzz.batch import BATCH, Packet, Tally, Way, batch_of, check, frames_of, run_batch
from tests.fuzz.fences import Fence, fenced_arenas, own_pool
from tests.fuzz.layout import kind_of, zigzag
from tests.fuzz.mutate import NOT_TEXT, mutant
from tests.fuzz.reference import PLAIN, STRICTER, Reference
from tests.fuzz.write_seeds import SEEDS

ROOT = Path(__file__).parents[1]
EXAMPLES = int(os.environ.get("ALERTMILL_FUZZ_EXAMPLES", "300"))
SEED = 20261122
KINDS = {
    *("boolean", "int", "long", "float", "double", "string", "string_length", "string_data", "bytes", "bytes_length"),
    *("bytes_data", "fixed", "enum", "branch", "union", "array", "array_count", "map", "map_count", "block_size"),
    *("key", "key_length", "key_data", "record", "body", "end"),
}


@pytest.fixture(scope="module")
def fences() -> list[Fence]:
    made = [Fence() for _ in range(run_fuzz.N_FENCES)]
    run_fuzz.warm(made)
    return made


def plain(family: str) -> Way:
    return Way(superset_of(family), cutouts_of(family))


# ------------------------------------------------------------------------------------------------ bodies
@pytest.mark.parametrize("family", FAMILIES)
def test_mutants_are_refused_for_a_reason_or_equal_fastavros_record(family: str, fences: list[Fence]) -> None:
    tally = Tally()
    for k in range(5):
        tally.add(run_batch(family, SEED, k * BATCH, BATCH, fences, None))
    assert run_fuzz.faults(tally) == []
    assert sum(tally.cases.values()) == 5 * BATCH


@pytest.mark.parametrize("first", [1200, 1600, 2000, 3400])
def test_maps_beside_dates_that_no_calendar_has_are_searched_for_double_keys(first: int, fences: list[Fence]) -> None:
    assert run_batch("any", 1, first, BATCH, fences, None).defects == []


def test_every_kind_of_thing_is_changed_and_every_rule_broken(fences: list[Fence]) -> None:
    tally = Tally()
    for k in range(10):
        tally.add(run_batch("every", 7, k * BATCH, BATCH, fences, None))
    assert tally.defects == []
    assert {name.split()[1] for name in tally.kinds} == KINDS
    assert min(tally.kinds.values()) > 20  # of 2,000: no kind is rare
    assert {name.split()[1] for name in tally.reasons} >= {*STRICTER, *PLAIN} - {"range"}
    assert tally.notes["signalling NaN kept"] > 100


@pytest.mark.parametrize("family", ["ztf", "lsst", "elasticc", "every"])
def test_kept_bodies_are_judged_as_they_were(family: str, fences: list[Fence]) -> None:
    seeds = [seed for seed in json.loads(SEEDS.read_text()) if seed["family"] == family]
    packets = []
    for seed in seeds:
        body = bytes.fromhex(seed["body"])
        verdict = writer(family, seed["version"]).reference.judge(body)
        assert (verdict.rule, verdict.field) == (seed["rule"], seed["field"])
        packets.append(Packet(body, seed["version"], 0, mutant(family, 0, 0)))
        packets.append(Packet(base(family, seed["version"], 1).body, seed["version"], 0))
    tally = check(family, packets, plain(family), fences, random.Random(1))
    assert tally.defects == []
    assert {seed["rule"] for seed in seeds} >= {None, "short", "text", "branch", "stray"}


def test_gentle_changes_leave_a_sound_body() -> None:
    n_refused = n = 0
    for family in FAMILIES[:4]:
        for case in range(600):
            made = mutant(family, SEED, case)
            if made.is_gentle and "block_size" not in made.base.by_kind:  # sizes of blocks no longer fit what they hold
                n += 1
                n_refused += writer(family, made.base.version).reference.judge(made.body).rule is not None
    assert n > 500 and n_refused == 0


def test_the_same_number_gives_the_same_mutant() -> None:
    for family in FAMILIES[:4]:
        assert mutant(family, 5, 77).body == mutant(family, 5, 77).body
        assert len({mutant(family, 5, case).body for case in range(50)}) > 40


def test_the_reference_refuses_what_no_decoder_reads() -> None:
    for family in FAMILIES[:4]:
        for case in range(300):
            made = mutant(family, SEED, case)
            one = writer(family, made.base.version)
            if one.reference.judge(made.body).rule is None:
                stream = io.BytesIO(made.body)
                fastavro.schemaless_reader(stream, one.schema.parsed)
                assert stream.tell() == len(made.body)


# ------------------------------------------------------------------------------------------------ does it see anything
def _with_row(out: Decoded, column: str, change) -> Decoded:
    """Change the first value of a column of ``raw`` that is not null."""
    values, field = out.raw.column(column).to_pylist(), out.raw.schema.field(column)
    at = next(i for i, value in enumerate(values) if value is not None)
    values[at] = change(values[at])
    place = out.raw.column_names.index(column)
    return replace(out, raw=out.raw.set_column(place, field, pa.array(values, field.type)))


SABOTAGE = {
    "a number changed": lambda out: _with_row(out, "large", lambda v: v ^ 1),
    "a float changed": lambda out: _with_row(out, "double", lambda v: 1.25),
    "a text changed": lambda out: _with_row(out, "name", lambda v: v + "x"),
    "a key changed": lambda out: _with_row(out, "counts", lambda v: [*v, ("?", 1)]),
    "a list cut": lambda out: _with_row(out, "grid", lambda v: [*v, []]),
    "a null": lambda out: _with_row(out, "flags", lambda v: None),
    "the points": lambda out: replace(out, points=out.points + (np.arange(len(out.points)) == 3)),
    "the version": lambda out: _with_row(out, "schema_version", lambda v: "9"),
    "a row lost": lambda out: replace(out, raw=out.raw.slice(1), cutouts=out.cutouts.slice(1), kept=out.kept[1:]),
    "a refusal for nothing": lambda out: replace(
        out,
        raw=out.raw.slice(1),
        cutouts=out.cutouts.slice(1),
        kept=out.kept[1:],
        points=out.points[1:],
        faults=[*out.faults, (int(out.kept[0]), "field last: text is not UTF-8 at byte 3")],
    ),
    "a wrong reason": lambda out: replace(
        out, faults=[(out.faults[0][0], "field last: text is not UTF-8 at byte 3"), *out.faults[1:]]
    ),
    "no byte": lambda out: replace(out, faults=[(out.faults[0][0], "it is broken"), *out.faults[1:]]),
}


@pytest.mark.parametrize("what", SABOTAGE)
def test_a_decoder_that_errs_is_found_out(what: str, fences: list[Fence]) -> None:
    packets = batch_of("every", SEED, 0, 40)

    def broken(*arguments, **options) -> Decoded:
        return SABOTAGE[what](decode_frames(*arguments, **options))

    assert check("every", packets, plain("every"), fences, random.Random(2)).defects == []
    assert check("every", packets, plain("every"), fences, random.Random(2), broken).defects != []


def test_a_decoder_without_a_rule_is_found_out(fences: list[Fence], monkeypatch: pytest.MonkeyPatch) -> None:
    """Were the check of text missing from both the decoder and the reference, fastavro would still tell."""
    kind = writer("every", "2.0").kind
    sound = base("every", "2.0", 4)
    name = next(spot for spots in sound.by_kind["string"].values() for spot in spots if spot.path == "name")
    bodies = [sound.body[: name.start] + zigzag(len(bad)) + bad + sound.body[name.stop :] for bad in NOT_TEXT]
    packets = [Packet(body, "2.0", 0, mutant("every", 0, 0)) for body in bodies]
    assert {writer("every", "2.0").reference.judge(packet.body).rule for packet in packets} == {"text"}
    assert check("every", packets, plain("every"), fences, random.Random(1)).defects == []
    lenient = replace(writer("every", "2.0"), reference=_WithoutText(kind))
    monkeypatch.setattr("tests.fuzz.batch.writer", lambda family, version: lenient)
    assert len(check("every", packets, plain("every"), fences, random.Random(1)).defects) == len(packets)


class _WithoutText(Reference):
    def judge(self, body: bytes):
        verdict = super().judge(body)
        return replace(verdict, rule=None) if verdict.rule == "text" else verdict


def test_the_fence_stops_who_reads_beyond_the_body() -> None:
    script = (
        "from tests.fuzz.fences import Fence; import ctypes; a = Fence().put(b'abc'); print(a.tobytes(), flush=True)\n"
        "ctypes.string_at(a.ctypes.data, 4)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.stdout == "b'abc'\n" and done.returncode == -signal.SIGSEGV


def test_workers_tell_the_same_as_one(fences: list[Fence], capsys: pytest.CaptureFixture[str]) -> None:
    alone = Tally()
    for family, first in run_fuzz.batches(4 * BATCH, ("elasticc", "every")):
        alone.add(run_batch(family, 3, first, BATCH, fences, None))
    tally = run_fuzz.run(4 * BATCH, 3, 2, ("elasticc", "every"))
    assert tally.defects == alone.defects == []
    for name in ("cases", "accepted", "kinds", "reasons", "stricter"):
        assert getattr(tally, name) == getattr(alone, name)
    assert any("elasticc: 400 mutants" in line for line in run_fuzz.report(tally))


def test_a_worker_that_dies_is_a_defect(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = run_fuzz.Worker(["--cases", "800", "--share", "0/0"], dict(os.environ))  # a share of nothing: it fails
    worker.finish()
    assert "ended with 1" in worker.tally.defects[0]
    lopsided = Tally(cases=Counter(ztf=100), by_fastavro=Counter(ztf=95))
    assert "95%" in run_fuzz.faults(lopsided)[0]


# ------------------------------------------------------------------------------------------------ memory and time
@pytest.mark.parametrize("tight", ["rows and texts", "small arenas", "small columns"])
@pytest.mark.parametrize("family", ["ztf", "lsst", "every", "any3"])
def test_room_that_does_not_suffice_changes_nothing(
    family: str, tight: str, fences: list[Fence], monkeypatch: pytest.MonkeyPatch
) -> None:
    if tight == "small arenas":
        monkeypatch.setattr(decoding, "ARENA_BYTES", 2_000)
        monkeypatch.setattr(batch, "PEAK", (24, 6_000, 40 << 20))  # each arena begins with some room
    elif tight == "small columns":
        monkeypatch.setattr(arena, "_MOST_TEXT", 40_000)
    way = replace(plain(family), is_tight=tight == "rows and texts")
    for seed in (1, 2):
        packets = batch_of(family, seed, 0, 60)
        assert check(family, packets, way, fences, random.Random(seed)).defects == []


HOSTILE = {"type": "record", "name": "hostile", "fields": [
    {"name": "id", "type": "long"},
    {"name": "nodes", "type": {"type": "array", "items": ["null", {"type": "record", "name": "node", "fields": [
        {"name": f"f{i}", "type": kind} for i, kind in enumerate(["double"] * 20 + ["string"] * 5)
    ]}]}},
    {"name": "grid", "type": {"type": "array", "items": {"type": "array", "items": {"type": "array", "items": "int"}}}},
    {"name": "names", "type": {"type": "array", "items": "string"}},
]}  # fmt: skip
MANY = 250_000  # fewer than one packet may have
ROW_BYTES = 20 * 8 + 5 * 4 + 4
"""Of one node as a row, to the byte above: what a body of null nodes may ask of each of its bytes."""

HOSTILE_BODIES = {
    "a million nulls for records": zigzag(MANY) + b"\x00" * MANY + b"\x00" + b"\x00\x00",
    "nulls, cut": zigzag(MANY) + b"\x00" * MANY,
    "a count that the body just holds": zigzag(MANY) + b"\x05" * MANY,
    "empty lists": b"\x00" + zigzag(MANY) + b"\x00" * MANY + b"\x00\x00",
    "lists of empty lists": b"\x00" + (zigzag(1) + zigzag(1) + b"\x00\x00") * 1 + b"\x00" + b"\x00",
    "blocks of one": b"\x00\x00" + b"\x02\x00" * MANY + b"\x00",
    "blocks of one with sizes": b"\x00\x00" + b"\x01\x02\x00" * MANY + b"\x00",
    "counts within counts": b"\x00" + (zigzag(MANY) + zigzag(MANY - 10) + zigzag(MANY - 20)) + b"\x00" * MANY,
    "counts far too large": b"\x00" + zigzag(2**62) * 3 + b"\x00" * MANY,
    "a negative count without end": zigzag(-(2**63)) + zigzag(2**40),
    "zeros": b"\x00" * MANY,
    "ones": b"\x01" * MANY,
    "0x7f": b"\x7f" * MANY,
    "0x80": b"\x80" * MANY,
    "0xff": b"\xff" * MANY,
    "twos": b"\x02" * MANY,
}


@pytest.mark.parametrize("name", HOSTILE_BODIES)
def test_a_hostile_body_takes_no_more_than_its_size_allows(name: str) -> None:
    schema, columns = writer_schema(HOSTILE), superset([HOSTILE])
    body = b"\x02" + HOSTILE_BODIES[name]
    good = b"\x04" + bytes(3)
    data = [Datum(b, 0, len(b), schema) for b in (good, body, good, body, good)]
    decode(data[:1], columns, ())
    began = time.process_time()
    with own_pool() as pool, fenced_arenas() as arenas:
        out = decode(data, columns, ())
    assert time.process_time() - began < 2
    assert pool.max_memory() + arenas.peak < 2 * len(body) * ROW_BYTES * 2.6 + (4 << 20)
    is_sound = Reference(kind_of(HOSTILE)).judge(body).rule is None
    assert out.kept.tolist() == ([0, 1, 2, 3, 4] if is_sound else [0, 2, 4])
    assert [out.raw.column("id")[i].as_py() for i in (0, -1)] == [2, 2]
    if is_sound:
        record = fastavro.schemaless_reader(io.BytesIO(body), schema.parsed)
        assert out.raw.slice(1, 1).select(columns.names).to_pylist() == [record]
    after = decode(data[:1], columns, ())  # what it was told of hostile bodies does not make it greedy for long
    assert pa.total_allocated_bytes() < 400 << 20 and after.raw.num_rows == 1


def test_rows_stay_as_they_are_while_buffers_are_used_again() -> None:
    """Batches large enough that their memory goes round: rows, single columns and views of them that outlive others."""

    def decoded(number: int) -> Decoded:
        one, body = writer("lsst", "11.1"), base("lsst", "11.1", number).body
        data = [Datum(body, 0, len(body), one.schema)] * 1_500
        return decode(data, superset_of("lsst"), cutouts_of("lsst"))

    def written(table: pa.Table) -> bytes:
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return sink.getvalue().to_pybytes()

    whole = decoded(4)
    before = written(whole.raw)
    column = decoded(5).raw.column("diaSource").chunk(0)
    column_before = written(pa.table({"a": column}))
    view = decoded(6).raw.column("diaSourceId").chunk(0).to_numpy()
    view_before = view.copy()
    for number in (7, 8, 4, 5, 6, 7):
        decoded(number)
    assert memory._free, "nothing is used again: the batches are too small"
    assert written(whole.raw) == before
    assert written(pa.table({"a": column})) == column_before
    assert (view == view_before).all()


def test_threads_do_not_disturb_each_other() -> None:
    rng = random.Random(3)
    made = [batch_of("ztf", 9, k * BATCH, 60) for k in range(4)]
    fences = [[Fence(), Fence()] for _ in made]
    frames = [frames_of("ztf", packets, fence, rng) for packets, fence in zip(made, fences, strict=True)]
    alone = [decode_frames(frame, superset_of("ztf"), cutouts_of("ztf")) for frame in frames]
    wrong: list[int] = []

    def again(i: int) -> None:
        for _ in range(15):
            out = decode_frames(frames[i], superset_of("ztf"), cutouts_of("ztf"))
            same = out.faults == alone[i].faults and out.kept.tolist() == alone[i].kept.tolist()
            pairs = zip(out.raw.columns, alone[i].raw.columns, strict=True)
            if not same or not all(a.to_pylist() == b.to_pylist() or str(a) == str(b) for a, b in pairs):
                wrong.append(i)

    threads = [threading.Thread(target=again, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("family", FAMILIES)
def test_every_cut_of_a_body_is_judged_alike(family: str, fences: list[Fence]) -> None:
    family = {"any": "any4"}.get(family, family)
    for version in versions_of(family)[-2:]:
        whole = base(family, version, 4).body
        cuts = [Packet(whole[:n], version, 7, mutant(family, 0, 0)) for n in range(len(whole))]
        tally = check(family, cuts, plain(family), fences, random.Random(1))
        assert tally.defects == [] and sum(tally.accepted.values()) == 0


def test_random_bytes_of_every_length_are_judged_alike(fences: list[Fence]) -> None:
    rng = random.Random(11)
    for family in ("elasticc", "every"):
        version = versions_of(family)[-1]
        whole = base(family, version, N_BASES - 4).body
        packets = [
            Packet(body, version, 7, mutant(family, 0, 0))
            for n in range(120)
            for body in (rng.randbytes(n), whole[:n], bytes([rng.choice((0, 1, 2, 128, 255))]) * n)
        ]
        assert check(family, packets, plain(family), fences, rng).defects == []


def test_the_own_encoder_is_read_by_fastavro() -> None:
    rng = random.Random(4)
    for family in ("ztf", "every", "any1", "any2"):
        for version in versions_of(family):
            one = writer(family, version)
            for _ in range(20):
                body = encoded(one.kind, rng)
                stream = io.BytesIO(body)
                fastavro.schemaless_reader(stream, one.schema.parsed)
                assert stream.tell() == len(body)


# ------------------------------------------------------------------------------------------------ whole packets
def _packets() -> list[bytes]:
    schema = known_schemas("ztf")["4.02"]
    packets = []
    for seed in range(8):
        record = random_record(schema, seed) if seed % 2 else ztf.record(seed)
        packets.append(ztf.packet_bytes(record))
    return packets


def _damage(data: bytes, rng: random.Random) -> bytes:
    """Cut, flip, drop or insert bytes; mostly behind the header, where the body is."""
    changed = bytearray(data)
    start = data.index(b"0123456789abcdef")
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        at = rng.randrange(0 if rng.random() < 0.1 else min(start, len(changed) - 1), len(changed))
        kind = rng.choice((0, 0, 1, 1, 1, 1, 2, 3, 4))
        if kind == 0:
            changed[at] = rng.randrange(256)
        elif kind == 1:
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del changed[at : at + rng.choice((1, 3, 100))]
        elif kind == 3:
            changed[at:at] = rng.randbytes(rng.choice((1, 9, 200)))
        else:
            changed[at:at] = b"\xff" * rng.choice((4, 10))
        if len(changed) < 16:
            break
    return bytes(changed[: rng.randrange(len(changed))] if rng.random() < 0.1 else changed)


@pytest.mark.slow
def test_damaged_packets_are_faults_or_what_another_decoder_reads() -> None:
    rng = random.Random(20261122)
    whole = _packets()
    columns, stamps = superset("ztf"), CUTOUTS["ztf"]
    read = faults = 0
    for _ in range(EXAMPLES):
        data = _damage(rng.choice(whole), rng)
        items = split_container(data, HeaderCache())
        datums = [item for item in items if isinstance(item, Datum)]
        try:
            decoded = decode(datums, columns, stamps, source="fuzz.avro")
        except SourceError:  # the damage turned the header into another valid schema
            continue
        faults += len(items) - len(decoded.kept)
        rows = rows_of(decoded).to_pylist()
        read += len(rows)
        for row, index in zip(rows, decoded.kept.tolist(), strict=True):
            stream = io.BytesIO(datums[index].body)
            assert_holds(fastavro.schemaless_reader(stream, datums[index].schema.parsed), row)
            assert stream.tell() == datums[index].length
    assert read > EXAMPLES // 20
    assert faults > EXAMPLES // 4
