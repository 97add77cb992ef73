"""Damaged packets: each becomes a fault or the record that an independent decoder reads, never a crash or a hang."""

from __future__ import annotations

import io
import os
import random

import fastavro
import pytest
import ztf_packets as ztf
from avro_oracle import CUTOUTS, assert_holds, random_record, rows_of

from pipeline.avro import Datum, HeaderCache, decode, split_container
from pipeline.errors import SourceError
from pipeline.surveys.superset import known_schemas, superset

EXAMPLES = int(os.environ.get("ALERTMILL_FUZZ_EXAMPLES", "300"))


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
