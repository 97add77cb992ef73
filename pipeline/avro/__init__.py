"""Avro bytes to Arrow: containers and wire messages apart, bodies checked and decoded, faults instead of failures."""

from pipeline.avro.container import Datum, Fault, HeaderCache, split_container
from pipeline.avro.decoding import decode, decode_frames
from pipeline.avro.frames import Frames
from pipeline.avro.rows import Decoded, cutout_schema, raw_schema
from pipeline.avro.schema import WriterSchema, writer_schema
from pipeline.avro.wire import split_wire

__all__ = [
    "Datum",
    "Decoded",
    "Fault",
    "Frames",
    "HeaderCache",
    "WriterSchema",
    "cutout_schema",
    "decode",
    "decode_frames",
    "raw_schema",
    "split_container",
    "split_wire",
    "writer_schema",
]
