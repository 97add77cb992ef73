"""Sources of an input, their segments and packets."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import pickle
import random
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.avro import Datum, Fault, decode, slow
from pipeline.dumps import (
    Reader,
    SchemaResolver,
    Tally,
    cutting,
    datums,
    list_sources,
    read_frames,
    segments,
    source_sha256,
)
from pipeline.dumps.cutting import MAX_BYTES
from pipeline.errors import InputError, SourceError
from pipeline.schema import content_hashes
from pipeline.surveys.superset import known_schemas, superset
from tests.avro_oracle import CUTOUTS, assert_holds, body, container, random_record, rows_of

SCHEMA = {
    "type": "record",
    "name": "alert",
    "version": "1.0",
    "fields": [{"name": "candid", "type": "long"}, {"name": "stamp", "type": "bytes"}],
}


def packet(i: int, size: int = 50) -> bytes:
    return container(SCHEMA, [{"candid": i, "stamp": bytes([i % 256]) * size}])


def fill(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def write_tar(path: Path, entries: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def one(path: Path):
    (source,) = list_sources([str(path)])
    return source


def read(source, tally=None, **limits):
    reader = Reader(SchemaResolver("lsst"))
    return [item for segment in segments(source, **limits) for item in datums(segment, reader, tally)]


def candids(items) -> list[int]:
    data = [item for _, item in items if isinstance(item, Datum)]
    return decode(data, superset([SCHEMA]), ()).raw.column("candid").to_pylist()


PACKETS = {f"night/{i:03d}.avro": packet(i) for i in range(25)}


# --------------------------------------------------------------------------------------- listing
def test_kinds_are_told_by_content(tmp_path):
    fill(
        tmp_path,
        {
            "a.dat": packet(1),
            "wire.avro": b"\x00\x00\x00\x02\xc0" + bytes(50),
            "bare.avro": b"\xf0\xfc\xf8",
            "zeros.avro": bytes(5000),
            "night/x.avro": packet(2),
        },
    )
    write_tar(tmp_path / "plain.bin", PACKETS)
    write_tar(tmp_path / "night.tgz", PACKETS, "w:gz")
    write_tar(tmp_path / "empty.tar", {})
    pq.write_table(pa.table({"candid": [1]}), tmp_path / "t.parquet")
    kinds = {
        "a.dat": "avro",
        "wire.avro": "wire",
        "bare.avro": "avro",
        "zeros.avro": "avro",
        "night": "folder",
        "plain.bin": "tar",
        "night.tgz": "tar.gz",
        "empty.tar": "tar",
        "t.parquet": "parquet",
    }
    sources = list_sources([str(tmp_path / name) for name in kinds])
    assert {source.name: source.kind for source in sources} == kinds
    for source in sources:
        if source.kind != "folder":
            stat = Path(source.path).stat()
            assert (source.size, source.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert pickle.loads(pickle.dumps(sources)) == sources


@pytest.mark.parametrize(
    ("name", "data", "expected"),
    [
        ("none.tar", None, "does not exist"),
        ("empty.avro", b"", "is empty"),
        ("notes.txt", b"hello", "no known kind"),
        ("night.tar", b"hello", "damaged"),
        ("night.tar.gz", b"hello", "damaged"),
        ("night.tar.gz", b"\x1f\x8b" + bytes(20), "damaged gzip"),
        ("night.avro.gz", gzip.compress(packet(1)), "not of a tar archive"),
        ("t.parquet", b"PAR1" + bytes(30), "damaged Parquet"),
    ],
)
def test_an_input_that_cannot_be_used_is_one_line(tmp_path, name, data, expected):
    if data is not None:
        (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as error:
        list_sources([str(tmp_path / name)])
    assert expected in str(error.value) and name in str(error.value) and "\n" not in str(error.value)


def test_a_path_given_twice_is_an_error(tmp_path):
    (tmp_path / "a.avro").write_bytes(packet(1))
    with pytest.raises(InputError, match="twice"):
        list_sources([str(tmp_path / "a.avro"), str(tmp_path / "." / "a.avro")])


def test_names_are_short_relative_and_unique(tmp_path):
    fill(tmp_path, {"one/night.avro": packet(1), "two/night.avro": packet(2), "two/other.avro": packet(3)})
    names = [s.name for s in list_sources([str(tmp_path / "one/night.avro"), str(tmp_path / "two/night.avro")])]
    assert names == ["one/night.avro", "two/night.avro"]
    assert one(tmp_path / "two/other.avro").name == "other.avro"


def test_folder_of_many_things(tmp_path):
    folder = fill(
        tmp_path / "dump",
        {
            "b/2.avro": packet(2),
            "a/1.avro": packet(1),
            "a/._1.avro": b"\x00\x05\x16\x07" + bytes(60),
            "README.md": b"text",
            "a/sums.sha256": b"0 a",
            ".hidden": b"x",
            "noext": packet(3),
        },
    )
    write_tar(folder / "more.tar", {"9.avro": packet(9)})
    pq.write_table(pa.table({"candid": [1]}), folder / "p1.parquet")
    pq.write_table(pa.table({"candid": [2]}), folder / "p2.parquet")
    sources = list_sources([str(folder)])
    assert [(s.name, s.kind) for s in sources] == [
        ("dump", "folder"),
        ("dump/*.parquet", "parquet"),
        ("dump/more.tar", "tar"),
    ]
    tally = Tally()
    items = read(sources[0], tally)
    assert [member for member, _ in items] == ["a/1.avro", "b/2.avro", "noext"]
    assert candids(items) == [1, 2, 3]
    assert sorted(tally.skipped) == [".hidden", "README.md", "a/._1.avro", "a/sums.sha256"]
    assert sources[0].size == sum(len(packet(i)) for i in (1, 2, 3))


def test_folder_without_packets_is_a_source_with_none(tmp_path):
    source = one(fill(tmp_path / "dump", {"README": b"nothing yet"}))
    (segment,) = segments(source)
    assert (source.kind, segment.n_packets, segment.skipped) == ("folder", 0, ("README",))
    assert read(source) == []


def test_bucket_layout(tmp_path):
    files = {f"year=2026/month=03/{i % 3}/{i}.avro": packet(i) for i in range(9)}
    source = one(fill(tmp_path / "bucket", files))
    items = read(source)
    assert [member for member, _ in items] == sorted(files)
    assert sorted(candids(items)) == list(range(9)) and source.origin == "native"


def test_file_names_that_are_not_utf8(tmp_path):
    folder = tmp_path / "dump"
    folder.mkdir()
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.avro")).write_bytes(packet(4))
    ((member, item),) = read(one(folder))
    assert member == "\\xff.avro" and item.schema.version == "1.0"
    assert member.encode()  # it can be stored


# --------------------------------------------------------------------------------------- segments
def make(tmp_path, kind: str, files: dict[str, bytes]) -> Path:
    if kind == "folder":
        return fill(tmp_path / "dump", files)
    if kind == "avro":
        path = tmp_path / "dump.avro"
        records = [{"candid": i, "stamp": bytes([i]) * 50} for i in range(len(files))]
        path.write_bytes(container(SCHEMA, records, sync_interval=1))
        return path
    return write_tar(tmp_path / f"dump.{kind}", files, "w:gz" if kind == "tar.gz" else "w")


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz", "avro"])
@pytest.mark.parametrize("limits", [{}, {"max_packets": 1}, {"max_packets": 7}, {"max_bytes": 1000}, {"max_bytes": 1}])
def test_segments_give_every_packet_once_in_order(tmp_path, kind, limits):
    source = one(make(tmp_path, kind, PACKETS))
    cut = pickle.loads(pickle.dumps(segments(source, **limits)))
    assert [segment.number for segment in cut] == list(range(len(cut)))
    assert candids(read(source, **limits)) == list(range(25))
    if kind == "tar.gz":
        assert len(cut) == 1 and cut[0].n_packets == -1
        return
    assert sum(segment.n_packets for segment in cut) == 25
    assert max(segment.n_packets for segment in cut) <= limits.get("max_packets", 25)
    if limits:
        assert len(cut) > 1
    for segment in random.Random(1).sample(cut, len(cut)):  # any one alone, in any order
        assert len(list(datums(segment, Reader()))) == segment.n_packets


def test_a_tar_and_its_tar_gz_and_its_folder_give_the_same(tmp_path):
    folder = fill(tmp_path / "dump", PACKETS)
    tar, tgz = write_tar(tmp_path / "d.tar", PACKETS), write_tar(tmp_path / "d.tar.gz", PACKETS, "w:gz")
    expected = read(one(folder))
    assert read(one(tar)) == expected and read(one(tgz)) == expected


def test_offsets_are_those_in_the_file(tmp_path):
    path = make(tmp_path, "avro", PACKETS)
    data = path.read_bytes()
    for member, item in read(one(path), max_packets=4):
        assert member is None
        assert data[item.offset : item.offset + item.length] == item.body


def test_a_block_of_many_records_is_cut_only_between_blocks(tmp_path):
    path = tmp_path / "x.avro"
    records = [{"candid": i, "stamp": b"x" * 50} for i in range(100)]
    path.write_bytes(container(SCHEMA, records, "deflate", sync_interval=500))
    cut = segments(one(path), max_packets=30)
    assert len(cut) > 3 and sum(segment.n_packets for segment in cut) == 100
    assert candids(read(one(path), max_packets=30)) == list(range(100))


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_members_that_are_no_packets_are_named(tmp_path, kind):
    entries = {
        "night/": b"",
        "night/README": b"text",
        "night/1.avro": packet(1),
        "night/._1.avro": b"\x00\x05\x16\x07",
        "night/MD5SUMS": b"",
        "night/2": packet(2),
        "night/3.avro": b"",
    }
    tally = Tally()
    source = one(make(tmp_path, kind, entries))
    items = read(source, tally)
    assert [name.rstrip("/") for name in tally.skipped] == ["night", "night/README", "night/._1.avro", "night/MD5SUMS"]
    assert tally.packets == 3 and candids(items) == [1, 2]
    member, fault = items[-1]
    assert (member, fault.member, "empty" in fault.reason) == ("night/3.avro", "night/3.avro", True)


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "folder"])
def test_damaged_packets_spoil_no_neighbour(tmp_path, kind):
    files = dict(PACKETS)
    rng = random.Random(4)
    damaged = rng.sample(sorted(files), 8)
    for name in damaged:
        files[name] = rng.choice((files[name][: rng.randrange(len(files[name]))], rng.randbytes(300), bytes(900)))
    items = read(one(make(tmp_path, kind, files)), max_packets=6)
    assert {member for member, item in items if isinstance(item, Fault)} == set(damaged)
    assert candids(items) == [i for i, name in enumerate(sorted(files)) if name not in damaged]


@pytest.mark.parametrize("kind", ["tar", "tar.gz", "folder"])
def test_a_member_that_is_too_large_is_a_fault(tmp_path, monkeypatch, kind):
    monkeypatch.setattr(cutting, "MAX_MEMBER_BYTES", 5000)
    items = read(one(make(tmp_path, kind, {"1.avro": packet(1), "2.avro": packet(2, 6000), "3.avro": packet(3)})))
    assert candids(items) == [1, 3] and "more than the 5000" in items[1][1].reason and MAX_BYTES > 5000


@pytest.mark.parametrize("kind", ["tar", "tar.gz"])
def test_a_cut_archive_is_refused_after_the_packets_before_the_cut(tmp_path, kind):
    path = make(tmp_path, kind, {f"{i}.avro": packet(i, 3000) for i in range(9)})
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    source = one(path)
    got = []
    with pytest.raises(SourceError) as error:
        for segment in segments(source):
            for item in datums(segment, Reader()):
                got.append(item)
    assert "cut" in str(error.value) and source.name in str(error.value)
    assert candids(got) == list(range(len(got))) and (0 < len(got) < 9) == (kind == "tar.gz")  # a tar is walked first


def test_a_damaged_container_is_one_fault(tmp_path):
    path = tmp_path / "x.avro"
    path.write_bytes(b"Obj\x01" + bytes(40))
    ((member, fault),) = read(one(path))
    assert member is None and isinstance(fault, Fault)


def test_a_broken_block_of_a_large_container_is_one_fault(tmp_path):
    path = make(tmp_path, "avro", PACKETS)
    data = bytearray(path.read_bytes())
    at = read(one(path))[10][1].offset
    data[at + 3 : at + 60] = b"\xff" * 57
    path.write_bytes(bytes(data))
    for limits in ({}, {"max_packets": 3}, {"max_packets": 1}):
        items = read(one(path), **limits)
        good = candids(items)
        faults = [item for _, item in items if isinstance(item, Fault)]
        reasons = decode([i for _, i in items if isinstance(i, Datum)], superset([SCHEMA]), ()).faults
        assert len(good) + len(reasons) + len(faults) >= 24 and good == [i for i in range(25) if i in good]
        assert len(good) >= 23


# --------------------------------------------------------------------------------------- identity
def test_sha256_of_a_source(tmp_path):
    tgz = make(tmp_path, "tar.gz", PACKETS)
    tally = Tally()
    read(one(tgz), tally)
    assert source_sha256(one(tgz)) == tally.sha256 == hashlib.sha256(tgz.read_bytes()).hexdigest()
    folder = fill(tmp_path / "dump", {**PACKETS, "README": b"1"})
    before = source_sha256(one(folder))
    (folder / "README").write_bytes(b"2")
    assert source_sha256(one(folder)) == before
    (folder / "night/000.avro").write_bytes(packet(7))
    assert source_sha256(one(folder)) != before
    lines = b"".join(
        name.encode() + b"\0" + hashlib.sha256((folder / name).read_bytes()).hexdigest().encode() + b"\n"
        for name in sorted(PACKETS)
    )
    assert source_sha256(one(folder)) == hashlib.sha256(lines).hexdigest()


def test_reading_only_a_part_leaves_nothing_open(tmp_path):
    for kind in ("tar", "tar.gz", "avro"):
        for segment in segments(one(make(tmp_path, kind, PACKETS))):
            stream = read_frames(segment, Reader())
            assert len(next(stream)[0])
            stream.close()


# --------------------------------------------------------------------------------------- real dumps
def check(path: Path, family: str, n: int, oracle) -> None:
    for source in list_sources([str(path)]):
        assert source.origin == "native"
        items = read(source)
        data = [item for _, item in items if isinstance(item, Datum)]
        assert len(data) == len(items)
        decoded = decode(data, superset(family), CUTOUTS[family])
        assert decoded.faults == [] and decoded.raw.num_rows == n
        slowly = slow.decode(data, superset(family), CUTOUTS[family])
        for ours, theirs in ((decoded.raw, slowly.raw), (decoded.cutouts, slowly.cutouts)):
            assert content_hashes(ours) == content_hashes(theirs)  # to the bit, NaN and signed zeros too
        for start in range(0, n, 500):
            for k, row in enumerate(rows_of(decoded).slice(start, 500).to_pylist()):
                assert_holds(oracle(items[start + k][0]), row)


def records_of_tar(path: Path):
    import fastavro

    out = {}
    with tarfile.open(path) as archive:
        for info in archive:
            if info.isfile():
                out[info.name] = next(fastavro.reader(archive.extractfile(info)))
    return out


@pytest.mark.parametrize(
    ("name", "family", "n"),
    [
        ("ztf/ztf_public_20181129.tar.gz", "ztf", 498),
        ("ztf/tar_no_cutouts_v3.5_20210720", "ztf", 100),
        ("elasticc/elasticc_5607_alerts.tar.gz", "elasticc", 5607),
    ],
)
def test_every_packet_of_the_real_archives(shared_data, name, family, n):
    path = shared_data / "alerts" / name
    (archive,) = [path] if path.is_file() else sorted(path.iterdir())
    check(path, family, n, records_of_tar(archive).__getitem__)


@pytest.mark.parametrize("name", ["wire_id900", "wire_v7.1_v7.3", "wire_v7.4"])
def test_every_real_wire_message(shared_data, name):
    import fastavro

    folder = shared_data / "alerts/lsst" / name

    def oracle(member):
        data = (folder / member).read_bytes()
        if data[:4] == b"Obj\x01":
            return next(fastavro.reader(io.BytesIO(data)))
        schema_id = int.from_bytes(data[1:5], "big")
        schema = known_schemas("lsst")[f"{schema_id // 100}.{schema_id % 100}"]
        return fastavro.schemaless_reader(io.BytesIO(data[5:]), schema)

    check(folder, "lsst", sum(1 for file in folder.rglob("*") if file.is_file()), oracle)


def test_the_corrupt_packets_among_good_ones(shared_data, tmp_path):
    corrupt = {file.name: file.read_bytes() for file in (shared_data / "alerts/ztf/corrupt").iterdir()}
    good = {file.name: file.read_bytes() for file in (shared_data / "alerts/ztf/object_ZTF21abiuvdk").iterdir()}
    names = sorted([*corrupt, *good], key=lambda name: hashlib.sha256(name.encode()).digest())
    path = write_tar(tmp_path / "mixed.tar", {name: (corrupt | good)[name] for name in names})
    items = read(one(path), max_packets=10)
    data = [(member, item) for member, item in items if isinstance(item, Datum)]
    decoded = decode([item for _, item in data], superset("ztf"), CUTOUTS["ztf"])
    faults = {member for member, item in items if isinstance(item, Fault)} | {data[i][0] for i, _ in decoded.faults}
    assert faults == set(corrupt) and len(corrupt) == 15
    assert [data[i][0] for i in decoded.kept] == [name for name in names if name in good]


def test_random_packets_of_all_surveys_survive_a_tar(tmp_path):
    for family, cutouts in CUTOUTS.items():
        schemas = known_schemas(family)
        records = {f"{v}.avro": (schemas[v], random_record(schemas[v], i)) for i, v in enumerate(schemas)}
        path = write_tar(tmp_path / f"{family}.tar", {n: container(s, [r], "deflate") for n, (s, r) in records.items()})
        items = read(one(path), max_packets=4)
        assert [member for member, _ in items] == list(records)
        assert [item.body for _, item in items] == [body(s, r) for s, r in records.values()]
        assert decode([item for _, item in items], superset(family), cutouts).faults == []
