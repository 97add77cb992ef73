"""Real packets as ``raw`` tables, and how to make one from records."""

from __future__ import annotations

import io
import struct
import tarfile
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.surveys import get
from pipeline.surveys.superset import known_schemas

Record = dict[str, Any]


def raw_schema(survey: str) -> pa.Schema:
    """Schema of ``raw``: the survey's superset without cutouts."""
    cutouts = get(survey).cutout_columns
    return pa.schema([field for field in get(survey).superset if field.name not in cutouts])


def raw_table(survey: str, records: list[Record]) -> pa.Table:
    return pa.Table.from_pylist(records, schema=raw_schema(survey))


def packets(data: bytes, survey: str = "") -> list[Record]:
    """Records of a container file, or of one Confluent message of a known version."""
    if data[:4] == b"Obj\x01":
        return list(fastavro.reader(io.BytesIO(data)))
    major, minor = divmod(struct.unpack(">I", data[1:5])[0], 100)
    schema = known_schemas(survey)[f"{major}.{minor}"]
    return [fastavro.schemaless_reader(io.BytesIO(data[5:]), fastavro.parse_schema(schema))]


def without_stamps(record: Record) -> Record:
    return {key: value for key, value in record.items() if not key.startswith("cutout")}


def tarred(path: Path) -> list[Record]:
    records = []
    with tarfile.open(path) as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(".avro"):
                stream = archive.extractfile(member)
                records += [without_stamps(r) for r in fastavro.reader(stream)]
    return records


def files(survey: str, paths: list[Path]) -> list[Record]:
    return [without_stamps(r) for path in paths for r in packets(path.read_bytes(), survey)]


def transfer(folder: Path) -> tuple[pa.Table, list[Record]]:
    """The peer's Parquet of one Rubin night: raw table of native columns, and the same as records."""
    native = raw_schema("lsst").names
    tables = []
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        tables.append(table.select([name for name in native if name in table.column_names]))
    table = pa.concat_tables(tables)
    return table, table.to_pylist()
