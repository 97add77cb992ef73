"""Alerts of LIGO, Virgo and KAGRA as Avro: object containers (SCiMMA) and bare Kafka messages.

The framing and its bounds are those of :mod:`pipeline.avro`; but as no column is made of a notice, its schema may have
unions that no column holds (``gcn_notice_id`` is an integer or a string).
"""

from __future__ import annotations

import io
import json
from functools import cache
from typing import Any

import fastavro
import pyarrow as pa

from pipeline.avro.check import compile_schema, walk
from pipeline.avro.container import MAX_HEADER_BYTES, SYNC_BYTES, Datum, Fault, Header, blocks, split_block
from pipeline.avro.schema import MAX_SCHEMA_BYTES, WriterSchema
from pipeline.errors import CatalogError, PipelineError
from pipeline.skymap.notices.event import STATUSES

MAX_INFLATED_BYTES = 256 << 20
_WIRE_HEADER = 5


def _field(name: str, *types: Any) -> dict[str, Any]:
    return {"name": name, "type": types[0] if len(types) == 1 else list(types)}


def _record(name: str, *fields: dict[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": f"igwn.alerts.{name}", "fields": list(fields)}


def _alert_schema() -> dict[str, Any]:
    numbers, texts = {"type": "map", "values": "double"}, {"type": "array", "items": "string"}
    bins = {"type": "array", "items": "double"}
    statuses = [status.upper() for status in STATUSES]
    event = _record(
        "EventInfo",
        _field("time", "string"),
        _field("far", "double"),
        _field("significant", "boolean"),
        _field("instruments", texts),
        *(_field(name, "string") for name in ("group", "pipeline", "search")),
        *(_field(name, numbers) for name in ("classification", "properties")),
        _field(
            "mchirp_source", "null", _record("MchirpInfo", _field("bin_edges", bins), _field("probabilities", bins))
        ),
        *(_field(name, "null", "double") for name in ("duration", "central_frequency")),
        _field("skymap", "null", "bytes"),
    )
    coincidence = _record(
        "ExternalCoincInfo",
        _field("gcn_notice_id", "int", "string"),
        *(_field(name, "string") for name in ("ivorn", "observatory", "search")),
        _field("time_difference", "double"),
        *(_field(name, "null", "double") for name in ("time_coincidence_far", "time_sky_position_coincidence_far")),
        _field("combined_skymap", "null", "bytes"),
    )
    return _record(
        "Alert",
        _field("alert_type", {"type": "enum", "name": "igwn.alerts.AlertType", "symbols": statuses}),
        *(_field(name, "string") for name in ("time_created", "superevent_id")),
        _field("event", "null", event),
        _field("external_coinc", "null", coincidence),
        _field("urls", {"type": "map", "values": "string"}),
    )


ALERT_SCHEMA = _alert_schema()
"""Schema igwn.alerts as of version 1.3: what a bare message, which brings none, is read with."""

_HEADER = {
    "type": "record",
    "name": "org.apache.avro.file.Header",
    "fields": [
        _field("magic", {"type": "fixed", "name": "magic", "size": 4}),
        _field("meta", {"type": "map", "values": "bytes"}),
        _field("sync", {"type": "fixed", "name": "sync", "size": SYNC_BYTES}),
    ],
}


def read_records(data: bytes, source: str) -> list[dict[str, Any]]:
    """Return the records of a container, or of one Kafka message (a zero byte, the number of a schema, the body).

    Raises
    ------
    CatalogError
        It is damaged, or a message of another schema.
    """
    if data[:4] == b"Obj\x01":
        return _container(data, source)
    body = data[_WIRE_HEADER:]
    schema = _writer(json.dumps(ALERT_SCHEMA))
    walked = walk(body, 0, len(body), 1, schema.program)
    if walked.reason is not None:
        raise CatalogError(
            f"notice is a bare Avro message, but none of schema igwn.alerts: {walked.reason}",
            source=source,
            mend="save it as an Avro container or as JSON",
        )
    return [_record_of(Datum(body, _WIRE_HEADER, len(body), schema), source)]


def _container(data: bytes, source: str) -> list[dict[str, Any]]:
    header_schema = _writer(json.dumps(_HEADER))
    walked = walk(data, 0, min(len(data), MAX_HEADER_BYTES), 1, header_schema.program, more=True)
    if walked.reason is not None:
        raise CatalogError(f"notice is no whole Avro container: {walked.reason}", source=source)
    end = int(walked.ends[0])
    meta = fastavro.schemaless_reader(io.BytesIO(data[:end]), header_schema.parsed)["meta"]
    text = meta.get("avro.schema", b"")
    if len(text) > MAX_SCHEMA_BYTES:
        raise CatalogError(f"the schema of the notice has {len(text)} bytes", source=source)
    try:
        schema = _writer(text.decode())
    except (PipelineError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        told = getattr(error, "message", error)
        raise CatalogError(f"the schema of the notice cannot be used: {told}", source=source) from error
    codec = meta.get("avro.codec", b"null").decode("ascii", "replace")
    header = Header(end - SYNC_BYTES, codec, schema)
    records = []
    left = MAX_INFLATED_BYTES
    for block in blocks(data, header):
        for item in [block] if isinstance(block, Fault) else split_block(data, block, header, left):
            if isinstance(item, Fault):
                raise CatalogError(f"notice is damaged: {item.reason}", source=source)
            left = max(left - item.length, 0)
            records.append(_record_of(item, source))
    return records


@cache
def _writer(text: str) -> WriterSchema:
    schema = json.loads(text)
    if not isinstance(schema, dict):
        raise TypeError("it is no record")
    program = compile_schema(schema)  # first: it bounds what the parser unfolds
    return WriterSchema("notice", "notice", "", fastavro.parse_schema(schema), pa.schema([]), program, schema)


def _record_of(datum: Datum, source: str) -> dict[str, Any]:
    try:
        record = fastavro.schemaless_reader(io.BytesIO(datum.body), datum.schema.parsed)
    except Exception as error:  # the walk before leaves little to fail on; whatever it is, it is this notice's
        raise CatalogError(f"notice cannot be read: {type(error).__name__} {error}", source=source) from error
    if not isinstance(record, dict):
        raise CatalogError("notice is no record", source=source)
    return record
