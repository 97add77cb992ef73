"""Every real sample, run whole: the ledger balances, and raw and cutouts on disk hold every field of every packet."""

from __future__ import annotations

import datetime
import io
import json
import math
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from avro_oracle import assert_holds
from test_nights import assert_whole

from pipeline import config as configuration
from pipeline.errors import SchemaError
from pipeline.nights import drive
from pipeline.nights.run import prepare
from pipeline.store import open_root, read_ledgers
from pipeline.surveys.superset import known_schemas

CASES = {
    "ztf night": ("ztf", ["alerts/ztf/ztf_public_20181129.tar.gz"], 498),
    "ztf versions": ("ztf", ["alerts/ztf/versions"], 79),
    "ztf object": ("ztf", ["alerts/ztf/object_ZTF21abiuvdk"], 34),
    "ztf without cutouts": ("ztf", ["alerts/ztf/tar_no_cutouts_v3.5_20210720"], 100),
    "elasticc samples": ("elasticc_v1", ["alerts/elasticc/samples"], 82),
    "rubin wire": ("lsst", ["alerts/lsst/wire_id900", "alerts/lsst/wire_v7.1_v7.3", "alerts/lsst/wire_v7.4"], 9),
}


def run(root: Path, survey: str, inputs: list[Path], **options: Any) -> drive.Outcome:
    settings, _ = configuration.load(
        {"root": str(root), "survey": survey, "report": False, "execution.mode": "serial", **options}, environment={}
    )
    return drive.run_direct(prepare(settings, [str(path) for path in inputs]))


def stored(root: Path, survey: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Every row of raw with its cutouts, and its provenance."""
    for night, ledger in read_ledgers(open_root(root), survey).items():
        for part in ledger["parts"]:
            tables = {name: pq.read_table(root / file["path"]) for name, file in part["files"].items()}
            ids = tables["raw"].column("alert_id")
            for name, table in tables.items():
                assert table.column("alert_id").equals(ids), (night, name)
            for raw, stamps, origin in zip(
                *(tables[name].to_pylist() for name in ("raw", "cutouts", "provenance")), strict=True
            ):
                yield {**raw, **stamps}, origin


def shipped(inputs: list[Path]) -> Iterator[dict[str, Any]]:
    """Every record of the inputs, as fastavro reads it without our help."""
    for folder in inputs:
        for path in sorted(folder.rglob("*")) if folder.is_dir() else [folder]:
            if path.suffix in (".gz", ".tgz", ".tar"):
                with tarfile.open(path) as archive:
                    for member in archive:
                        file = archive.extractfile(member) if member.isfile() else None
                        if file is not None:
                            yield from _records(file.read())
            elif path.is_file():
                yield from _records(path.read_bytes())


def _records(data: bytes) -> Iterator[dict[str, Any]]:
    if data[:4] == b"Obj\x01":
        yield from fastavro.reader(io.BytesIO(data))
    elif data[:1] == b"\x00":
        number = int.from_bytes(data[1:5], "big")
        schema = known_schemas("lsst")[f"{number // 100}.{number % 100}"]
        yield fastavro.schemaless_reader(io.BytesIO(data[5:]), fastavro.parse_schema(schema))


def identity(survey: str, record: dict[str, Any]) -> int:
    if survey == "ztf":
        return record.get("candid") or record["candidate"]["candid"]
    return record["diaSource"]["diaSourceId"]


@pytest.mark.parametrize("case", CASES)
def test_every_field_of_every_packet_is_on_disk(case: str, shared_data: Path, tmp_path: Path) -> None:
    survey, names, n_packets = CASES[case]
    inputs = [shared_data / name for name in names]
    outcome = run(tmp_path / "d", survey, inputs)
    assert not outcome.errors
    counts = [ledger["counts"] for ledger in outcome.ledgers.values()]
    assert sum(c["packets_in"] for c in counts) == n_packets
    assert sum(c["written"] for c in counts) + sum(c["duplicates"] for c in counts) == n_packets
    assert_whole(tmp_path / "d")
    rows = {row["alert_id"]: row for row, _ in stored(tmp_path / "d", survey)}
    seen = 0
    for record in shipped(inputs):
        row = dict(rows[identity(survey, record)])
        ours = [row.pop(name) for name in ("alert_id", "schema_version", "origin_added")]
        assert ours[0] == identity(survey, record)
        assert ours[1]
        assert_holds(_plain(record), _plain(row))
        seen += 1
    assert seen == n_packets


EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def _plain(value: Any) -> Any:
    """Times as microseconds since 1970, whether they came as such or as a time."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return (value - EPOCH) // datetime.timedelta(microseconds=1) if isinstance(value, datetime.datetime) else value


@pytest.mark.slow
def test_all_elasticc_alerts_are_written_and_equal_the_oracle(shared_data: Path, tmp_path: Path) -> None:
    dump = shared_data / "alerts/elasticc/elasticc_5607_alerts.tar.gz"
    # Seven hundred nights in one dump: one part a night, held in one run.
    outcome = run(tmp_path / "d", "elasticc_v2_0", [dump], models=())
    assert sum(ledger["counts"]["written"] for ledger in outcome.ledgers.values()) == 5607
    rows = {row["alert_id"]: row for row, _ in stored(tmp_path / "d", "elasticc_v2_0")}
    for record in shipped([dump]):
        row = dict(rows.pop(record["diaSource"]["diaSourceId"]))
        for name in ("alert_id", "schema_version", "origin_added"):
            del row[name]
        assert_holds(record, row)
    assert not rows


def test_the_corrupt_packets_are_rejected_one_by_one_and_spoil_no_neighbour(shared_data: Path, tmp_path: Path) -> None:
    corrupt = sorted((shared_data / "alerts/ztf/corrupt").glob("*"))
    good = sorted((shared_data / "alerts/ztf/versions/3.3/pitt-google").glob("*"))
    assert len(corrupt) == 15
    dump = tmp_path / "mixed.tar"
    with tarfile.open(dump, "w") as archive:
        for i, path in enumerate(corrupt):
            archive.add(path, path.name)
            archive.add(good[i % len(good)], f"good-{i}.avro")
    outcome = run(tmp_path / "d", "ztf", [dump])
    assert outcome.ledgers[0]["counts"]["rejected"] == 15
    (path,) = (tmp_path / "d/ztf/rejects/night=unknown").glob("*.parquet")
    rows = pq.read_table(path).to_pylist()
    assert {row["member"] for row in rows} == {path.name for path in corrupt}
    assert all(row["reason"] == "undecodable" and row["detail"] for row in rows)
    written = {row["alert_id"] for row, _ in stored(tmp_path / "d", "ztf")}
    assert written == {
        identity("ztf", record) for record in shipped([shared_data / "alerts/ztf/versions/3.3/pitt-google"])
    }


def test_a_transfer_table_is_kept_column_by_column(shared_data: Path, tmp_path: Path) -> None:
    """Story 2: one Rubin night, every alert, asteroids and all."""
    folder = shared_data / "alerts/lsst/fink_transfer_2026-03-10"
    outcome = run(tmp_path / "d", "lsst", [folder])
    assert list(outcome.ledgers) == [20260309]
    assert outcome.ledgers[20260309]["sources"][0]["origin"] == "fink-transfer-parquet"
    theirs = {row["diaSourceId"]: row for path in folder.glob("*.parquet") for row in pq.read_table(path).to_pylist()}
    rows = {row["alert_id"]: row for row, _ in stored(tmp_path / "d", "lsst")}
    assert rows.keys() == theirs.keys()
    for identity_, row in rows.items():
        added = json.loads(row["origin_added"])
        for name, value in theirs[identity_].items():
            if name in added:
                assert_same_json(value, added[name])
            else:
                assert_holds(_plain(value), _plain(row[name]), name)


def assert_same_json(value: Any, text: Any) -> None:
    if isinstance(value, float):
        assert (text == str(value)) if not math.isfinite(value) else text == value
    elif isinstance(value, dict):
        for key, item in value.items():
            assert_same_json(item, text[key])
    elif isinstance(value, list) and value and isinstance(value[0], tuple):
        pairs = dict(value) if isinstance(text, dict) else value
        for key, item in pairs.items() if isinstance(pairs, dict) else enumerate(pairs):
            assert_same_json(item, text[key])
    elif isinstance(value, (list, tuple)):
        for item, other in zip(value, text, strict=True):
            assert_same_json(item, other)
    else:
        assert (value.isoformat() if hasattr(value, "isoformat") else value) == text


def test_the_rubin_night_of_story_two(shared_data: Path, tmp_path: Path) -> None:
    run(tmp_path / "d", "lsst", [shared_data / "alerts/lsst/fink_transfer_2026-03-10"])
    (ledger,) = read_ledgers(open_root(tmp_path / "d"), "lsst").values()
    assert ledger["night"] == "20260309"
    paths = [part["files"]["alerts"]["path"] for part in ledger["parts"]]
    alerts = pa.concat_tables([pq.read_table(tmp_path / "d" / path) for path in paths])
    assert alerts.num_rows == 74
    keys = alerts.column("object_key").to_pylist()
    assert "0" not in keys
    solar = np.array(alerts.column("is_solar_system").to_pylist())
    assert solar.sum() == 20
    assert all(key.startswith("ss:") == bool(flag) or not flag for key, flag in zip(keys, solar, strict=True))
    assert set(alerts.column("utc_date").to_pylist()) == {20260310}


def test_a_packet_with_a_field_nobody_knows_fails_its_source_in_one_line(tmp_path: Path) -> None:
    import ztf_packets as ztf

    schema = known_schemas("ztf")["4.02"]
    schema["fields"].append({"name": "surprise", "type": ["null", "double"], "default": None})
    buffer = io.BytesIO()
    record = {**ztf.record(1), "surprise": 1.0}
    fastavro.writer(buffer, fastavro.parse_schema(schema), [record])
    dump = ztf.write_tar(tmp_path / "a.tar", [("1.avro", buffer.getvalue())])
    with pytest.raises((SchemaError, Exception), match=r"surprise.*a\.tar") as caught:
        run(tmp_path / "d", "ztf", [dump])
    assert len(str(caught.value).splitlines()) == 1
    assert not (tmp_path / "d/ztf").exists()
