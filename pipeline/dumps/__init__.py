"""Dumps: the sources of an input, their segments, and the packets or tables in them."""

from pipeline.dumps.cutting import MAX_BYTES, MAX_PACKETS, Mark, Segment, Start, Tally, segments
from pipeline.dumps.framing import Reader, wire_frames
from pipeline.dumps.reading import datums, frames_in_tar, read_frames
from pipeline.dumps.reencoded import TableBatch, tables
from pipeline.dumps.registry import SchemaResolver
from pipeline.dumps.seek import SeekPoint, SeekPoints
from pipeline.dumps.sources import Source, check_unchanged, list_sources, source_sha256

__all__ = [
    "MAX_BYTES",
    "MAX_PACKETS",
    "Mark",
    "Reader",
    "SchemaResolver",
    "SeekPoint",
    "SeekPoints",
    "Segment",
    "Source",
    "Start",
    "TableBatch",
    "Tally",
    "check_unchanged",
    "datums",
    "frames_in_tar",
    "list_sources",
    "read_frames",
    "segments",
    "source_sha256",
    "tables",
    "wire_frames",
]
