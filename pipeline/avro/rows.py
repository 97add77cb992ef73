"""What decoding gives: rows of the superset of all versions, in source order, and what could not be decoded."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

VERSION_FIELD = "schemavsn"
"""Top-level field in which ZTF packets carry the version of their content. It is preferred to the writer schema's own
version attribute, which differs in packets that another broker has written anew."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """What :func:`decode` returns; rows of all four are the same, in source order.

    Attributes
    ----------
    raw : pyarrow.Table
        ``schema_version``, the superset without cutouts, ``origin_added``.
    cutouts : pyarrow.Table
        The cutout columns.
    points : numpy.ndarray
        int64 (n,): 1 + total length of the record's top-level lists, the size of its light curve.
    kept : numpy.ndarray
        int64 (n,): index of each row's datum in the input.
    faults : list of (int, str)
        Index of each datum that could not be decoded, and why.
    slow : dict of str to str
        Ids of the writer schemas whose packets fastavro has read, and why the kernel does not decode them.
    """

    raw: pa.Table
    cutouts: pa.Table
    points: np.ndarray
    kept: np.ndarray
    faults: list[tuple[int, str]]
    slow: dict[str, str] = field(default_factory=dict)


def raw_schema(superset: pa.Schema, cutout_columns: Sequence[str]) -> pa.Schema:
    """Return the schema of :attr:`Decoded.raw`."""
    inner = [item for item in superset if item.name not in cutout_columns]
    return pa.schema([pa.field("schema_version", pa.string()), *inner, pa.field("origin_added", pa.string())])


def cutout_schema(superset: pa.Schema, cutout_columns: Sequence[str]) -> pa.Schema:
    """Return the schema of :attr:`Decoded.cutouts`."""
    return pa.schema([superset.field(name) for name in cutout_columns if name in superset.names])


def points_of(table: pa.Table) -> np.ndarray:
    """Return 1 + the total length of each row's top-level lists, int64 (n,)."""
    total = np.ones(table.num_rows, dtype=np.int64)
    for item in table.schema:
        if pa.types.is_list(item.type):
            lengths = pc.fill_null(pc.list_value_length(table.column(item.name)), 0)
            total += lengths.to_numpy().astype(np.int64)
    return total


def plan_schema(superset: pa.Schema) -> pa.Schema:
    """Return the superset with ``schema_version`` before and ``origin_added`` behind it."""
    return pa.schema([pa.field("schema_version", pa.string()), *superset, pa.field("origin_added", pa.string())])


def added_json(values: dict[str, Any]) -> str:
    """Return the canonical JSON of values that a re-encoder added: keys sorted, NaN and infinities as strings.

    Integers beyond 2^53 and timestamps stay exact (numbers and ISO text); bytes are hexadecimal.
    """
    return json.dumps(_jsonable(values), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


_JSON: dict[type, Callable[[Any], Any]] = {
    float: lambda value: value if math.isfinite(value) else str(value),
    bytes: lambda value: value.hex(),
    dict: lambda value: {str(key): _jsonable(item) for key, item in value.items()},
    list: lambda value: [_jsonable(item) for item in value],
    tuple: lambda value: [_jsonable(item) for item in value],
}


def _jsonable(value: Any) -> Any:
    if value is None or isinstance(value, (str, bool, int)):
        return value
    convert = _JSON.get(type(value))
    return convert(value) if convert else value.isoformat()
