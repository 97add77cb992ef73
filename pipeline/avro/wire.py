"""Confluent wire messages: a zero byte, the schema id (4 bytes, big endian), the body."""

from __future__ import annotations

from collections.abc import Callable

from pipeline.avro.container import Datum, Fault
from pipeline.avro.schema import WriterSchema

WIRE_HEADER_BYTES = 5
NOT_WIRE = "not a wire message (magic byte 0, schema id, body)"
MAX_SCHEMA_ID = 1 << 24
"""Registries number their schemas from 1 up: a larger id is damage, not a schema nobody has heard of."""


def is_wire(data: bytes | memoryview) -> bool:
    """Whether the data starts as a Confluent wire message does: a zero byte and a schema id that can be one."""
    if len(data) <= WIRE_HEADER_BYTES or data[0] != 0:
        return False
    return 0 < int.from_bytes(data[1:WIRE_HEADER_BYTES], "big") < MAX_SCHEMA_ID


def split_wire(data: bytes, resolver: Callable[[int], WriterSchema]) -> list[Datum | Fault]:
    """Take one Confluent wire message apart: a zero byte, the schema id (4 bytes, big endian), the body.

    Parameters
    ----------
    data : bytes
        One message.
    resolver : callable
        Returns the writer schema of an id; raises :class:`pipeline.errors.SourceError` for an id it does not know.
    """
    if not is_wire(data):
        return [Fault(NOT_WIRE, 0, len(data), data)]
    schema = resolver(int.from_bytes(data[1:WIRE_HEADER_BYTES], "big"))
    body = data[WIRE_HEADER_BYTES:]
    return [Datum(body, WIRE_HEADER_BYTES, len(body), schema)]
