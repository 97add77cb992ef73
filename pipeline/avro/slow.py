"""Packets to Arrow tables by fastavro: the oracle of the kernel, and its stand-in for what it does not decode.

Floats keep their bits (signed zeros, infinities, NaN with payload), except that a signalling NaN, which no survey
writes, becomes the quiet one with the same payload on its way through a Python float.
"""

from __future__ import annotations

import io
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import fastavro
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.avro.check import walk
from pipeline.avro.container import Datum
from pipeline.avro.rows import VERSION_FIELD, Decoded, added_json, cutout_schema, plan_schema, points_of, raw_schema
from pipeline.avro.schema import WriterSchema
from pipeline.errors import SourceError
from pipeline.surveys.superset import unheld, widen

BATCH_BYTES = 128 << 20
"""Bodies decoded at once; an Arrow array of strings or stamps holds at most 2 GiB."""


def decode(
    data: Sequence[Datum],
    superset: pa.Schema,
    cutout_columns: Sequence[str],
    *,
    reencoded: bool = False,
    source: str | None = None,
    columns: Collection[str] | None = None,
) -> Decoded:
    """Decode datums of any mix of writer schemas.

    Parameters
    ----------
    data : sequence of Datum
        In source order.
    superset : pyarrow.Schema
        The survey's columns, cutouts included (:func:`pipeline.surveys.superset.superset`).
    cutout_columns : sequence of str
        Which of them are cutouts.
    reencoded : bool
        True for a source that someone else has written anew: top-level fields that the survey has not are then kept
        as JSON in ``origin_added``. In a native source such a field is an error.
    source : str, optional
        Named in the error.
    columns : collection of str, optional
        Top-level fields to keep; the others are null. All, if not given.

    Raises
    ------
    SourceError
        A writer schema has a field that the superset cannot hold without loss.
    """
    groups: dict[WriterSchema, list[int]] = {}
    for index, datum in enumerate(data):
        groups.setdefault(datum.schema, []).append(index)
    faults: list[tuple[int, str]] = []
    kept: list[int] = []
    tables: list[pa.Table] = []
    points: list[np.ndarray] = []
    for schema, indices in groups.items():
        for batch in _batches(data, indices):
            rows, records = _records(data, batch, faults)
            if records:  # a schema that no sound body was written with is nobody's schema: no error
                table = _plan(schema, superset, reencoded, source).table(records)
                tables.append(_projected(table, superset, columns))
                points.append(points_of(tables[-1]))
                kept.extend(rows)
    whole = pa.concat_tables(tables) if tables else plan_schema(superset).empty_table()
    order = np.array(kept, dtype=np.int64)
    sizes = np.concatenate(points) if points else np.zeros(0, dtype=np.int64)
    if len(order) and (np.diff(order) < 0).any():
        into = np.argsort(order, kind="stable")
        whole, sizes, order = whole.take(pa.array(into)), sizes[into], order[into]
    raw = whole.select(raw_schema(superset, cutout_columns).names)
    return Decoded(raw, whole.select(cutout_schema(superset, cutout_columns).names), sizes, order, sorted(faults))


def _projected(table: pa.Table, superset: pa.Schema, columns: Collection[str] | None) -> pa.Table:
    dropped = [field for field in superset if columns is not None and field.name not in columns]
    for field in dropped:
        place = table.schema.get_field_index(field.name)
        table = table.set_column(place, field, pa.nulls(table.num_rows, field.type))
    return table


def _batches(data: Sequence[Datum], indices: list[int]) -> list[list[int]]:
    out: list[list[int]] = [[]]
    size = 0
    for index in indices:
        if size + data[index].length > BATCH_BYTES and out[-1]:
            out.append([])
            size = 0
        out[-1].append(index)
        size += data[index].length
    return out


# --------------------------------------------------------------------------------------- records
def _records(
    data: Sequence[Datum], indices: list[int], faults: list[tuple[int, str]]
) -> tuple[list[int], list[dict[str, Any]]]:
    """Read bodies with fastavro; a body that fails is noted in ``faults`` and left out."""
    rows, records = [], []
    for index in indices:
        record = read_body(data[index])
        if isinstance(record, str):
            faults.append((index, record))
        else:
            rows.append(index)
            records.append(record)
    return rows, records


def read_body(datum: Datum) -> dict[str, Any] | str:
    """Return the record of one datum, or the reason why it has none."""
    body, schema = datum.body, datum.schema
    walked = walk(body, 0, len(body), 1, schema.program)
    if walked.reason is not None:
        return f"{walked.reason} at byte {datum.offset + walked.position}"
    stream = io.BytesIO(body)
    try:
        record = fastavro.schemaless_reader(stream, schema.parsed)
    except Exception as error:  # the check above leaves nothing to fail on; if something does, it is this packet's
        return f"{type(error).__name__} {' '.join(str(error).split())[:160]} at byte {datum.offset + stream.tell()}"
    if stream.tell() != len(body):
        return f"{len(body) - stream.tell()} stray bytes follow the last field at byte {datum.offset + stream.tell()}"
    for name, entries in walked.map_entries.items():
        if entries > _entries(record[name], schema.arrow.field(name).type):
            return f"field {name}: a key stands twice in a map"  # and of two values a dict has kept one
    return record


def _entries(value: Any, dtype: pa.DataType) -> int:
    """Return how many entries the maps of a value have."""
    if value is None or not pa.types.is_nested(dtype):
        return 0
    if pa.types.is_struct(dtype):
        return sum(_entries(value[field.name], field.type) for field in dtype)
    if pa.types.is_map(dtype):
        return len(value) + sum(_entries(item, dtype.item_type) for item in value.values())
    return sum(_entries(item, dtype.value_type) for item in value)


@dataclass(frozen=True, slots=True)
class _Plan:
    """How records of one writer schema become rows of the superset."""

    version: str
    native: pa.Schema
    added: tuple[str, ...]
    target: pa.Schema

    def table(self, records: list[dict[str, Any]]) -> pa.Table:
        """Return the rows of ``records`` as the superset."""
        arrow = pa.Table.from_pylist(records, schema=self.native)
        columns = []
        for field in self.target:
            if field.name == "schema_version":
                columns.append(self._versions(arrow))
            elif field.name == "origin_added":
                columns.append(self._added(records))
            elif field.name in self.native.names:
                columns.append(pa.chunked_array([widen(c, field.type) for c in arrow.column(field.name).chunks]))
            else:
                columns.append(pa.nulls(len(records), field.type))
        return pa.table(columns, schema=self.target)

    def _versions(self, arrow: pa.Table) -> pa.Array | pa.ChunkedArray:
        declared = pa.scalar(self.version, pa.string())
        if VERSION_FIELD not in arrow.column_names or arrow.schema.field(VERSION_FIELD).type != pa.string():
            return pa.repeat(declared, arrow.num_rows)
        own = arrow.column(VERSION_FIELD)
        return pc.if_else(pc.fill_null(pc.not_equal(own, ""), False), own, declared)

    def _added(self, records: list[dict[str, Any]]) -> pa.Array:
        if not self.added:
            return pa.nulls(len(records), pa.string())
        return pa.array([added_json({name: r[name] for name in self.added}) for r in records], pa.string())


@lru_cache(maxsize=256)
def _plan(schema: WriterSchema, superset: pa.Schema, reencoded: bool, source: str | None) -> _Plan:
    native = [field for field in schema.arrow if field.name in superset.names or not reencoded]
    if missing := unheld(superset, pa.schema(native)):
        raise SourceError(
            f"writer schema {schema.id} has field {missing} that the raw columns cannot hold without loss",
            source=source,
            mend="add this version's .avsc to the survey's schemas and decode the source again",
        )
    added = tuple(name for name in schema.arrow.names if name not in superset.names)
    return _Plan(schema.version, pa.schema(native), added, plan_schema(superset))
