"""Packets to decode, the same in every run: real ones where they are at hand, simulated and invented ones besides."""

from __future__ import annotations

import io
import itertools
import json
import tarfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import survey_samples

from pipeline.avro.container import Datum, HeaderCache, split_container
from pipeline.simulate.packets import TAR_END, container_header, tar_members, varint
from pipeline.simulation import simulate
from pipeline.surveys.superset import arrow_schema, known_schemas

Record = dict[str, Any]
NIGHT = 20240212
SYNC = b"0123456789abcdef"
ZTF_HISTORY = {"prv_candidates": 33.7, "fp_hists": 17.3}
"""Mean number of history rows of 24 real packets of 2023, by which histories are drawn."""

_LARGEST_JITTERED = 1000.0
_FIXED = ("ra", "dec", "jd")


@dataclass(frozen=True)
class Corpus:
    """Packets of one writer schema.

    Attributes
    ----------
    key, told : str
        Name in the JSON output, and in the table.
    survey : str
        Whose superset they fill.
    header : bytes
        Of every packet's container, up to its sync marker, as the survey wrote it.
    bodies : list of bytes
        The Avro bodies.
    """

    key: str
    told: str
    survey: str
    header: bytes
    bodies: list[bytes]

    @cached_property
    def files(self) -> list[bytes]:
        """Every packet as the container of one record that the survey ships, header included."""
        head = self.header + SYNC + b"\x02"
        return [b"".join((head, varint(len(body)), body, SYNC)) for body in self.bodies]

    @cached_property
    def schema(self) -> dict[str, Any]:
        """The writer schema, as the header has it."""
        return json.loads(fastavro.reader(io.BytesIO(self.files[0])).metadata["avro.schema"])

    @cached_property
    def arrow(self) -> pa.Schema:
        """The writer schema's fields as Arrow types."""
        return arrow_schema(self.schema)

    @cached_property
    def body_bytes(self) -> int:
        """Length of all bodies."""
        return sum(map(len, self.bodies))

    def write_tar(self, path: Path) -> Path:
        """Write the packets as one plain archive."""
        names = np.arange(len(self.bodies), dtype=np.int64) + 10**15
        path.write_bytes(tar_members(names, self.files, 1_700_000_000) + TAR_END)
        return path


def _ztf_old(real: Path | None, folder: Path, count: int) -> Corpus:
    if real is None:
        return simulated("ztf_3", "ZTF 3.3, simulated", "ztf", "3.3", folder, count)
    archive = real / "alerts/ztf/ztf_public_20181129.tar.gz"
    header, bodies = taken_apart(members(archive, count))
    return Corpus("ztf_3", "ZTF 3.1, a real night", "ztf", header, bodies)


def _ztf_new(real: Path | None, folder: Path, count: int) -> Corpus:
    if real is None:
        return simulated("ztf_4", "ZTF 4.01, simulated", "ztf", "4.01", folder, count)
    files = sorted((real / "alerts/ztf/versions/4.02").rglob("*.avro"))
    told = "ZTF 4.02, real, replicated, with long history"
    return replicated("ztf_4", told, "ztf", [file.read_bytes() for file in files], count, ZTF_HISTORY)


def _rubin_with_stamps(real: Path | None, folder: Path, count: int) -> Corpus:
    if real is None:
        return simulated("rubin_stamps", "Rubin 10.0 with stamps, simulated", "lsst", "10.0", folder, count)
    header = container_header(known_schemas("lsst")["7.4"])
    messages = [file.read_bytes() for file in sorted((real / "alerts/lsst/wire_v7.4").glob("message_*.avro"))]
    files = [b"".join((header, SYNC, b"\x02", varint(len(m) - 5), m[5:], SYNC)) for m in messages]
    return replicated("rubin_stamps", "Rubin 7.4 with stamps, real, replicated", "lsst", files, count)


def _rubin_long(real: Path | None, folder: Path, count: int) -> Corpus | None:
    """Rubin's own rows with hundreds of history rows, which a broker shipped as Parquet, encoded anew."""
    if real is None:
        return None
    _, records = survey_samples.transfer(real / "alerts/lsst/fink_transfer_2026-03-10")
    schema = known_schemas("lsst")["10.0"]
    names = {field["name"] for field in schema["fields"]}
    chosen = [
        {name: _none_if_empty(value) for name, value in record.items() if name in names}
        for record in records
        if len(record["prvDiaSources"] or []) >= 10
    ]
    return Corpus(
        "rubin_long", "Rubin 10.0 without stamps, real, long", "lsst", container_header(schema), encoded(schema, chosen)
    )


def _none_if_empty(value: Any) -> Any:
    """Return None for a record of nulls, which is how Parquet gave a record that was not there."""
    is_empty = isinstance(value, dict) and all(inner is None for inner in value.values())
    return None if is_empty else value


def _elasticc(real: Path | None, folder: Path, count: int) -> Corpus:
    if real is None:
        return invented("elasticc", "ELAsTiCC 0.9, invented", "elasticc_v1", "0.9", 5 * count)
    header, bodies = taken_apart(members(real / "alerts/elasticc/elasticc_5607_alerts.tar.gz", 5 * count))
    return Corpus("elasticc", "ELAsTiCC 0.9, real", "elasticc_v1", header, bodies)


def _ztf_simulated(real: Path | None, folder: Path, count: int) -> Corpus:
    return simulated("ztf_simulated", "ZTF 4.02, simulated", "ztf", "4.02", folder, count)


def _rubin_simulated(real: Path | None, folder: Path, count: int) -> Corpus:
    told = "Rubin 10.0 without stamps, simulated"
    return simulated("rubin_simulated", told, "lsst", "10.0", folder, count, stamps=False)


def _rubin_fake(real: Path | None, folder: Path, count: int) -> Corpus:
    return invented("rubin_fake", "Rubin 11.0 without stamps, invented", "lsst", "11.0", count)


CORPORA: dict[str, Callable[[Path | None, Path, int], Corpus | None]] = {
    "ztf_3": _ztf_old,
    "ztf_4": _ztf_new,
    "ztf_simulated": _ztf_simulated,
    "rubin_stamps": _rubin_with_stamps,
    "rubin_simulated": _rubin_simulated,
    "rubin_fake": _rubin_fake,
    "rubin_long": _rubin_long,
    "elasticc": _elasticc,
}
"""What makes each corpus, from the folder of real alerts or None, a folder for the simulator's files, and the number of
packets wanted; None where it cannot be made."""


# ---------------------------------------------------------------------------------------------- how they are made
def members(archive: Path, count: int) -> list[bytes]:
    """Return the first packets of an archive."""
    with tarfile.open(archive) as opened:
        files = (opened.extractfile(member) for member in opened if member.isfile())
        return [file.read() for file in itertools.islice(files, count) if file is not None]


def taken_apart(files: Sequence[bytes]) -> tuple[bytes, list[bytes]]:
    """Return the header that all containers share, and their bodies."""
    cache = HeaderCache()
    length = cache.get(files[0]).length
    assert all(file.startswith(files[0][:length]) for file in files)
    items = [split_container(file, cache)[0] for file in files]
    return files[0][:length], [item.body for item in items if isinstance(item, Datum)]


def simulated(
    key: str, told: str, survey: str, version: str, folder: Path, count: int, *, stamps: bool = True
) -> Corpus:
    """Return simulated packets; those of Rubin with 10 or more history rows."""
    wanted = count if survey == "ztf" else 2 * count
    made = simulate(NIGHT, survey, wanted, 1, folder / key, schema_version=version, cutouts=stamps)
    header, bodies = taken_apart(members(made.dump, wanted))
    if survey != "ztf":
        schema = fastavro.parse_schema(known_schemas(survey)[version])
        bodies = [body for body in bodies if history_rows(fastavro.schemaless_reader(io.BytesIO(body), schema)) >= 10]
    return Corpus(key, told, survey, header, bodies[:count])


def history_rows(record: Record) -> int:
    """Return the number of rows in a record's lists."""
    return sum(len(value) for value in record.values() if isinstance(value, list))


def replicated(
    key: str,
    told: str,
    survey: str,
    files: Sequence[bytes],
    count: int,
    rows: Mapping[str, float] | None = None,
) -> Corpus:
    """Return packets made of a few real ones: new ids, every measurement shaken, stamps as they were.

    ``rows`` gives the mean length of lists that get a length of their own, drawn from a geometric distribution.
    """
    header = files[0][: HeaderCache().get(files[0]).length]
    schema = json.loads(fastavro.reader(io.BytesIO(files[0])).metadata["avro.schema"])
    records = [next(fastavro.reader(io.BytesIO(file))) for file in files]
    rng = np.random.default_rng(1)
    longer = (_with_history(records[i % len(records)], rows or {}, rng) for i in range(count))
    made = (_renumbered(_shaken(record, rng), i) for i, record in enumerate(longer))
    return Corpus(key, told, survey, header, encoded(schema, made))


def _with_history(record: Record, rows: Mapping[str, float], rng: np.random.Generator) -> Record:
    drawn = {name: int(rng.geometric(1 / mean)) for name, mean in rows.items()}
    return {**record, **{name: list(itertools.islice(itertools.cycle(record[name]), n)) for name, n in drawn.items()}}


def _shaken(value: Any, rng: np.random.Generator, name: str = "") -> Any:
    if isinstance(value, dict):
        return {key: _shaken(inner, rng, key) for key, inner in value.items()}
    if isinstance(value, list):
        return [_shaken(inner, rng) for inner in value]
    if (
        isinstance(value, float)
        and 0 < abs(value) < _LARGEST_JITTERED
        and value != -999
        and not name.startswith(_FIXED)
    ):
        return value * (1 + 1e-3 * rng.standard_normal())
    return value


def _renumbered(record: Record, number: int) -> Record:
    for part in (record, record.get("candidate"), record.get("diaSource")):
        for name in ("candid", "alertId", "diaSourceId"):
            if part is not None and name in part:
                part[name] += number * 1000
    return record


def encoded(schema: dict[str, Any], records: Iterable[Record]) -> list[bytes]:
    """Return the records' Avro bodies."""
    parsed = fastavro.parse_schema(schema)
    out = []
    for record in records:
        buffer = io.BytesIO()
        fastavro.schemaless_writer(buffer, parsed, record)
        out.append(buffer.getvalue())
    return out


def invented(key: str, told: str, survey: str, version: str, count: int) -> Corpus:
    """Return packets without stamps that a schema was filled with: 12 rows a list, one value in ten null."""
    schema = known_schemas(survey)[version]
    rng = np.random.default_rng(2)
    made = []
    for _ in range(count):
        record = filled(schema, rng, {})
        made.append({name: None if name.startswith("cutout") else value for name, value in record.items()})
    return Corpus(key, told, survey, container_header(schema), encoded(schema, made))


def filled(kind: Any, rng: np.random.Generator, named: dict[str, Any], space: str = "") -> Any:
    """Return a value of an Avro type."""
    if isinstance(kind, list):
        inner = [one for one in kind if one != "null"]
        keeps = len(inner) == len(kind) or isinstance(inner[0], dict) or rng.random() < 0.9
        return filled(inner[0], rng, named, space) if keeps else None
    if isinstance(kind, str):
        if kind in named or f"{space}.{kind}" in named:
            return filled(named.get(kind, named.get(f"{space}.{kind}")), rng, named, space)
        return _leaf(kind, rng)
    if kind["type"] == "record":
        full, _, short = kind["name"].rpartition(".")
        space = full or kind.get("namespace", space)
        named[f"{space}.{short}"] = kind
        return {field["name"]: filled(field["type"], rng, named, space) for field in kind["fields"]}
    if kind["type"] == "array":
        return [filled(kind["items"], rng, named, space) for _ in range(12)]
    if kind.get("logicalType", "").startswith("timestamp"):
        return 1_700_000_000_000 * (1000 if kind["logicalType"].endswith("micros") else 1) + int(rng.integers(1 << 40))
    return filled(kind["type"], rng, named, space)


def _leaf(kind: str, rng: np.random.Generator) -> Any:
    if kind in ("float", "double"):
        return float(np.float32(rng.standard_normal()))
    if kind in ("int", "long"):
        return int(rng.integers(0, 1 << (31 if kind == "int" else 62)) >> int(rng.integers(0, 30)))
    if kind == "boolean":
        return bool(rng.random() < 0.5)
    text = "".join(map(chr, rng.integers(97, 123, 8).tolist()))
    return text if kind == "string" else text.encode()
