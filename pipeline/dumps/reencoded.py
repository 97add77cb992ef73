"""Re-encoded sources: tables that another broker made of the packets, with its own columns beside the survey's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.avro.rows import VERSION_FIELD, Decoded, added_json, cutout_schema, points_of, raw_schema
from pipeline.avro.schema import UNKNOWN_VERSION
from pipeline.dumps.cutting import Segment, Tally
from pipeline.dumps.digests import row_digests
from pipeline.dumps.sources import printable
from pipeline.errors import SourceError
from pipeline.surveys.superset import unheld, widen

BATCH_ROWS = 500
_VERSION_COLUMNS = (VERSION_FIELD, "lsst_schema_version")
_VERSION_TEXT = re.compile(r"^(?:[A-Za-z]\w*\.)?v?(\d+(?:[._]\d+)*)$")


@dataclass(frozen=True, slots=True)
class TableBatch:
    """Consecutive rows of one file.

    Attributes
    ----------
    member : str or None
        File within the folder; None where the source is one file.
    first_row : int
        Row of the file that row 0 is.
    decoded : Decoded
        As decoding packets gives it; ``kept`` counts from ``first_row``. Nothing can be at fault in a row.
    sha256 : list of bytes
        For each row the sha256 of its column names and values: there is no Avro body to hash.
    schema_id : str
        Digest of the file's survey columns, in the place of a writer schema id.
    """

    member: str | None
    first_row: int
    decoded: Decoded
    sha256: list[bytes]
    schema_id: str


def tables(
    segment: Segment,
    superset: pa.Schema,
    cutout_columns: Sequence[str],
    tally: Tally | None = None,
    batch_rows: int = BATCH_ROWS,
) -> Iterator[TableBatch]:
    """Stream the rows of a Parquet segment.

    The survey's columns go to ``raw`` and ``cutouts`` by name; columns it has not go to ``origin_added``; survey
    columns that the file has not are null.

    Raises
    ------
    SourceError
        A file is damaged, has no column of the survey, or has one that the superset cannot hold without loss.
    """
    tally = Tally() if tally is None else tally
    tally.skipped.extend(segment.skipped)
    for name in segment.members:
        path = Path(segment.source.path, name) if name else Path(segment.source.path)
        where = f"{segment.source.name}/{printable(name)}" if name else segment.source.name
        try:
            with pq.ParquetFile(path) as file:
                mapping = _Mapping(file.schema_arrow, superset, tuple(cutout_columns), where)
                first = 0
                for batch in file.iter_batches(batch_size=batch_rows):
                    decoded, digests = mapping.rows(pa.Table.from_batches([batch]))
                    yield TableBatch(printable(name) or None, first, decoded, digests, mapping.schema_id)
                    first += batch.num_rows
                    tally.packets += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            text = " ".join(str(error).split())[:160]
            raise SourceError(f"the Parquet file is damaged: {text}", source=where) from None


class _Mapping:
    """How the columns of one file become rows of the superset."""

    def __init__(self, schema: pa.Schema, superset: pa.Schema, cutout_columns: tuple[str, ...], where: str) -> None:
        self.simple = pa.schema([pa.field(field.name, _simple(field.type)) for field in schema])
        self.native = pa.schema([field for field in self.simple if field.name in superset.names])
        if not len(self.native):
            raise SourceError("no column of the survey is in this Parquet file", source=where)
        if missing := unheld(superset, self.native):
            raise SourceError(
                f"column {missing} does not fit the survey's raw columns without loss",
                source=where,
                mend="add this version's .avsc to the survey's schemas and decode the source again",
            )
        self.added = [name for name in schema.names if name not in superset.names]
        self.superset = superset
        self.cutout_columns = cutout_columns
        digest = hashlib.sha256("\n".join(f"{f.name}:{f.type}" for f in self.native).encode()).hexdigest()[:12]
        self.schema_id = f"parquet:{digest}"

    def rows(self, table: pa.Table) -> tuple[Decoded, list[bytes]]:
        """Return the rows of one batch and their digests."""
        table = table.cast(self.simple)
        columns = {}
        for field in self.superset:
            if field.name in self.native.names:
                chunks = table.column(field.name).chunks
                columns[field.name] = pa.chunked_array([widen(chunk, field.type) for chunk in chunks], field.type)
            else:
                columns[field.name] = pa.nulls(table.num_rows, field.type)
        columns["schema_version"] = _versions(table)
        texts = [added_json(record) for record in table.select(self.added).to_pylist()] if self.added else None
        columns["origin_added"] = (
            pa.nulls(table.num_rows, pa.string()) if texts is None else pa.array(texts, pa.string())
        )
        raw = raw_schema(self.superset, self.cutout_columns)
        cutouts = cutout_schema(self.superset, self.cutout_columns)
        whole = pa.table([columns[name] for name in raw.names], schema=raw)
        stamps = pa.table([columns[name] for name in cutouts.names], schema=cutouts)
        return Decoded(whole, stamps, points_of(whole), np.arange(table.num_rows), []), row_digests(table)


def _simple(dtype: pa.DataType) -> pa.DataType:
    """Return the type without what other writers choose for storage: large offsets, views, dictionaries."""
    if pa.types.is_dictionary(dtype):
        return _simple(dtype.value_type)
    if pa.types.is_large_string(dtype) or pa.types.is_string_view(dtype):
        return pa.string()
    if pa.types.is_large_binary(dtype) or pa.types.is_binary_view(dtype) or pa.types.is_fixed_size_binary(dtype):
        return pa.binary()
    if pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype):
        return pa.list_(_simple(dtype.value_type))
    if pa.types.is_struct(dtype):
        return pa.struct([pa.field(field.name, _simple(field.type)) for field in dtype])
    return dtype


def _versions(table: pa.Table) -> pa.Array:
    """Return each row's schema version as the survey writes it: ``lsst.v10_0`` is ``10.0``."""
    name = next((name for name in _VERSION_COLUMNS if name in table.column_names), None)
    if name is None:
        return pa.repeat(pa.scalar(UNKNOWN_VERSION), table.num_rows)
    texts = pc.cast(table.column(name), pa.string()).to_pylist()
    return pa.array([_version(text) for text in texts], pa.string())


def _version(text: str | None) -> str:
    match = _VERSION_TEXT.match(text or "")
    return match[1].replace("_", ".") if match else text or UNKNOWN_VERSION
