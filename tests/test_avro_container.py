"""Containers and wire messages apart: every codec, every kind of broken frame."""

from __future__ import annotations

import io
import json
import random
import zlib

import fastavro
import pytest

from pipeline.avro import Datum, Fault, HeaderCache, split_container, split_wire, writer_schema
from pipeline.avro.container import MAX_BLOCK_BYTES, blocks
from pipeline.errors import SourceError
from pipeline.surveys.superset import known_schemas
from tests.avro_oracle import CODECS, body, container, random_record

SCHEMA = {
    "type": "record",
    "name": "alert",
    "version": "9.9",
    "fields": [{"name": "candid", "type": "long"}, {"name": "stamp", "type": "bytes"}],
}
RECORDS = [{"candid": i * 10**12, "stamp": bytes([i]) * (100 + i)} for i in range(30)]


def long(value: int) -> bytes:
    raw = (value << 1) ^ (value >> 63)
    out = bytearray()
    while raw > 127:
        out.append(raw & 127 | 128)
        raw >>= 7
    return bytes([*out, raw])


def handmade(
    count: int, data: bytes, *, codec: bytes = b"null", schema: bytes | None = None, sync: bytes = b"S" * 16
) -> bytes:
    meta = {b"avro.schema": json.dumps(SCHEMA).encode() if schema is None else schema, b"avro.codec": codec}
    head = b"Obj\x01" + long(len(meta))
    for key, value in meta.items():
        head += long(len(key)) + key + long(len(value)) + value
    return head + long(0) + b"S" * 16 + long(count) + long(len(data)) + data + sync


def split(data: bytes) -> list[Datum | Fault]:
    return split_container(data, HeaderCache())


def only_fault(data: bytes) -> Fault:
    (item,) = split(data)
    assert isinstance(item, Fault)
    return item


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("interval", [1, 16000])
def test_every_codec_and_block_size(codec, interval):
    items = split(container(SCHEMA, RECORDS, codec, sync_interval=interval))
    assert [item.body for item in items] == [body(SCHEMA, record) for record in RECORDS]
    assert {item.schema.version for item in items} == {"9.9"}
    assert all(item.length == len(item.body) for item in items)


@pytest.mark.parametrize("interval", [1, 16000])
def test_offsets_point_at_the_bodies(interval):
    data = container(SCHEMA, RECORDS, sync_interval=interval)
    for item in split(data):
        assert data[item.offset : item.offset + item.length] == item.body


def test_a_container_without_records_is_empty_and_no_fault():
    assert split(container(SCHEMA, [])) == []


def test_header_in_blocks_with_sizes():
    text = json.dumps(SCHEMA).encode()
    entry = long(11) + b"avro.schema" + long(len(text)) + text
    data = b"Obj\x01" + long(-1) + long(len(entry)) + entry + long(0) + b"S" * 16
    data += long(1) + long(2) + b"\x02\x00" + b"S" * 16
    (item,) = split(data)
    assert item.body == b"\x02\x00"


def test_cache_knows_headers_by_their_bytes():
    cache = HeaderCache(capacity=2)
    schemas = [{**SCHEMA, "version": str(i)} for i in range(4)]
    data = [container(schema, RECORDS[:1]) for schema in schemas for _ in range(2)]
    random.Random(1).shuffle(data)
    versions = [split_container(item, cache)[0].schema.version for item in data]
    assert versions == [split(item)[0].schema.version for item in data]
    first, again = (split_container(data[0], cache)[0].schema for _ in range(2))
    assert first is again


def test_a_block_of_one_with_two_records_is_a_fault_when_decoded():
    from pipeline.avro.slow import read_body

    two = b"".join(body(SCHEMA, record) for record in RECORDS[:2])
    (item,) = split(handmade(1, two))
    assert "stray bytes" in read_body(item)


def test_too_few_datums_for_the_count():
    three = [body(SCHEMA, record) for record in RECORDS[:3]]
    *good, fault = split(handmade(4, b"".join(three)))
    assert [item.body for item in good] == three
    assert "datum 3 of 4" in fault.reason
    *good, fault = split(handmade(10**15, b"".join(three)))
    assert len(good) == 3 and f"datum 3 of {10**15}" in fault.reason


def test_too_many_datums_for_the_count_spoil_the_last():
    bodies = [body(SCHEMA, record) for record in RECORDS[:3]]
    good, fault = split(handmade(2, b"".join(bodies)))
    assert good.body == bodies[0]
    assert "datum 1 of 2" in fault.reason and "stray" in fault.reason
    assert fault.body == bodies[1] + bodies[2]


def test_a_broken_datum_takes_those_behind_it_in_its_block_and_no_other():
    bodies = [body(SCHEMA, record) for record in RECORDS]
    broken = bodies[2][:6] + b"\xff\xff\xff\xff\x7f" + bodies[2][11:]
    first, second = b"".join([*bodies[:2], broken, *bodies[3:6]]), b"".join(bodies[6:9])
    data = handmade(6, first) + long(3) + long(len(second)) + second + b"S" * 16
    items = split(data)
    assert [item.body for item in items if isinstance(item, Datum)] == bodies[:2] + bodies[6:9]
    (fault,) = [item for item in items if isinstance(item, Fault)]
    assert "datum 2 of 6" in fault.reason and "3 datums behind it" in fault.reason
    assert data[fault.offset : fault.offset + fault.length] == fault.body


def test_a_bad_sync_marker_spoils_its_block_only():
    data = container(SCHEMA, RECORDS[:6], sync_interval=1, sync_marker=b"0123456789abcdef")
    marks = [i for i in range(len(data)) if data.startswith(b"0123456789abcdef", i)]
    at = marks[3]  # behind the third block
    items = split(data[:at] + b"?" + data[at + 1 :])
    kinds = [type(item) for item in items]
    assert kinds == [Datum, Datum, Fault, Datum, Datum]  # the walk goes on at the next marker, behind the fourth
    assert "sync marker" in items[2].reason
    assert items[2].offset + items[2].length == marks[4] + 16


@pytest.mark.parametrize("codec", CODECS)
def test_every_truncation_is_a_fault_and_never_a_wrong_datum(codec):
    data = container(SCHEMA, RECORDS[:4], codec, sync_interval=1)
    whole = split(data)
    for cut in range(len(data)):
        items = split(data[:cut])
        good = [item for item in items if isinstance(item, Datum)]
        assert good == whole[: len(good)]
        assert len(good) < 4
        at_border = len(items) == len(good)
        if at_border:  # cut exactly behind a block: nothing in the file says that more was there
            assert cut in {len(container(SCHEMA, RECORDS[:n], codec, sync_interval=1)) for n in range(4)}


@pytest.mark.parametrize("codec", CODECS[1:])
def test_damaged_compressed_blocks_are_faults(codec):
    data = container(SCHEMA, RECORDS[:8], codec)
    (start,) = [block.offset for block in blocks(data, HeaderCache().get(data))]
    rng = random.Random(2)
    whole = [item.body for item in split(data)]
    for _ in range(150):
        at = rng.randrange(start, len(data) - 16)
        items = split(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
        if codec == "snappy":  # its checksum lets nothing through but what inflates to the same
            assert isinstance(items[0], Fault) or [item.body for item in items] == whole
        assert all(isinstance(item, (Datum, Fault)) for item in items)
        assert len(items) <= len(whole) + 1


@pytest.mark.parametrize("codec", [b"deflate", b"zstandard", b"snappy"])
def test_a_block_that_inflates_without_end_is_a_fault(codec):
    import cramjam

    size = MAX_BLOCK_BYTES + 1
    if codec == b"deflate":
        packer = zlib.compressobj(1, zlib.DEFLATED, -15)
        bomb = b"".join(packer.compress(bytes(1 << 20)) for _ in range(size // (1 << 20) + 1)) + packer.flush()
    elif codec == b"zstandard":
        bomb = bytes(cramjam.zstd.compress(bytes(size)))
    else:
        bomb = _snappy_length(size) + bytes(40)
    fault = only_fault(handmade(1, bomb, codec=codec))
    assert "more than" in fault.reason


def _snappy_length(size: int) -> bytes:
    out = bytearray()
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    return bytes([*out, size])


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", "empty"),
        (b"\xf0\xfc\xf8\x95", "not an Avro object container"),
        (b"Obj\x01", "ends within"),
        (b"Obj\x01" + long(-(2**63)), "ends within"),
        (b"Obj\x01" + long(10**12), "more entries"),
        (b"Obj\x01" + b"\xff" * 11, "64 bits"),
        (b"Obj\x01" + long(1) + long(-4), "reaches beyond"),
        (b"Obj\x01" + long(1) + long(10**9) + b"avro", "reaches beyond"),
        (b"Obj\x01" + long(0) + b"S" * 16, "names no schema"),
        (handmade(1, b"\x00\x00", codec=b"bzip2"), "bzip2"),
        (handmade(1, b"\x00\x00", codec=b"\xff"), "not supported"),
        (handmade(1, b"\x00\x00", schema=b"{"), "not JSON"),
        (handmade(1, b"\x00\x00", schema=b'["null"]'), "not a record"),
        (handmade(1, b"\x00\x00", sync=b"T" * 16), "sync marker"),
        (handmade(1, b"\x00\x00")[:-1], "not whole"),
        (handmade(-1, b"\x00\x00"), "-1 datums"),
        (handmade(1, b"", codec=b"deflate"), "deflate"),
        (handmade(1, b"abc", codec=b"snappy"), "snappy"),
        (handmade(1, b"abc", codec=b"zstandard"), "zstandard"),
    ],
)
def test_a_broken_frame_is_one_fault_with_its_bytes(data, expected):
    fault = only_fault(data)
    assert expected in fault.reason
    assert "\n" not in fault.reason
    assert fault.offset + fault.length <= len(data)


def test_apache_avro_reads_what_we_split():
    avro_datafile = pytest.importorskip("avro.datafile")
    import avro.io

    schema = known_schemas("ztf")["3.3"]
    data = container(schema, [random_record(schema, seed) for seed in range(5)], "deflate")
    oracle = list(avro_datafile.DataFileReader(io.BytesIO(data), avro.io.DatumReader()))
    for item, record in zip(split(data), oracle, strict=True):
        assert item.body == body(schema, record)


def test_wire_message():
    schema = writer_schema(known_schemas("lsst")["7.4"])
    payload = body(known_schemas("lsst")["7.4"], random_record(known_schemas("lsst")["7.4"], 1))
    asked = []

    def resolver(schema_id):
        asked.append(schema_id)
        return schema

    (item,) = split_wire(b"\x00\x00\x00\x02\xc0" + payload, resolver)
    assert (item.body, item.offset, item.schema, asked) == (payload, 5, schema, [704])
    for data in (b"", b"\x00\x00\x00", b"\x01\x00\x00\x02\xc0abc", b"Obj\x01abcdefgh"):
        (fault,) = split_wire(data, resolver)
        assert "not a wire message" in fault.reason

    def knows_none(schema_id):
        raise SourceError(f"schema id {schema_id} is not known")

    with pytest.raises(SourceError, match="705"):
        split_wire(b"\x00\x00\x00\x02\xc1" + payload, knows_none)


def test_fastavro_agrees_on_whole_packets():
    schema = known_schemas("elasticc")["0.9.1"]
    data = container(schema, [random_record(schema, seed) for seed in range(20)], "snappy")
    oracle = [body(schema, record) for record in fastavro.reader(io.BytesIO(data))]
    assert [item.body for item in split(data)] == oracle
