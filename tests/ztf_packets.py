"""Small ZTF packets made for tests: valid by the shipped schema, with only the fields that matter set by the test."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import fastavro

from pipeline.surveys.superset import known_schemas

NIGHT_JD = 2458451.7519213
"""Start of an exposure in the night 20181129 (UTC date)."""


def blank(schema: Any, named: dict[str, Any] | None = None) -> Any:
    """The emptiest value of a schema: null where it may be, else zero, empty text, or a record of such."""
    named = {} if named is None else named
    if isinstance(schema, list):
        return None if "null" in schema else blank(schema[0], named)
    if isinstance(schema, dict):
        kind = schema["type"]
        if kind == "record":
            named[schema["name"]] = named[f"{schema.get('namespace', '')}.{schema['name']}"] = schema
            return {field["name"]: blank(field["type"], named) for field in schema["fields"]}
        if kind == "array":
            return []
        return blank(kind, named)
    if schema in named:
        return blank(named[schema], named)
    return {"string": "", "bytes": b"", "float": 0.0, "double": 0.0, "boolean": False}.get(schema, 0)


def record(candid: int, version: str = "4.02", **candidate: Any) -> dict[str, Any]:
    """One packet's record."""
    packet = blank(known_schemas("ztf")[version])
    packet.update(schemavsn=version, publisher="test", objectId=f"ZTF18test{candid % 1000:03d}", candid=candid)
    packet["candidate"].update(
        jd=NIGHT_JD,
        fid=1,
        pid=candid // 1_000_000,
        candid=candid,
        isdiffpos="t",
        nid=697,
        rcid=0,
        field=248,
        ra=26.85 + (candid % 997) * 1e-3,
        dec=-26.96,
        magpsf=18.5,
        sigmapsf=0.1,
        diffmaglim=19.6,
        ndethist=1,
        ncovhist=3,
        programid=1,
        rb=0.9,
        nbad=0,
        exptime=30.0,
        jdstarthist=NIGHT_JD,
    )
    packet["candidate"].update(candidate)
    return packet


def packet_bytes(packet: dict[str, Any], version: str = "4.02") -> bytes:
    """The packet as its own object container."""
    buffer = io.BytesIO()
    schema = fastavro.parse_schema(known_schemas("ztf")[version])
    fastavro.writer(buffer, schema, [packet], sync_marker=b"0123456789abcdef")
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]], mode: str = "w") -> Path:
    """A tar of members, with fixed times."""
    with tarfile.open(path, mode, format=tarfile.USTAR_FORMAT) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def night_tar(path: Path, candids: list[int], version: str = "4.02", mode: str = "w", **candidate: Any) -> Path:
    """A tar of packets of one night."""
    made = [(f"{c}.avro", packet_bytes(record(c, version, **candidate), version)) for c in candids]
    return write_tar(path, made, mode)
