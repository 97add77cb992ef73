"""The packets that gave way to one with another body: kept in ``rejects``, one file a part, whenever they gave way."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import fastavro
import pyarrow as pa

from pipeline import paths
from pipeline.errors import SchemaError
from pipeline.schema import conform
from pipeline.stages.accept import CONFLICTING
from pipeline.stages.settle import Claim, Earlier, Loser, conflict_detail
from pipeline.store import Root, read_table, write_part
from pipeline.surveys.superset import to_version
from pipeline.tables import REJECTS

_ORDER = [("member", "ascending"), ("offset", "ascending"), ("alert_id", "ascending")]


def write(
    root: Root,
    place: str,
    part: Mapping[str, Any],
    losers: Sequence[Loser],
    tables: Mapping[str, pa.Table],
    schemas: Mapping[str, str],
) -> dict[str, Any] | None:
    """Write those of a part's losers that are conflicts; return the file as the ledger lists it, None without any.

    Parameters
    ----------
    place : str
        Folder, relative to the root.
    part : mapping
        As in the ledger.
    tables : mapping
        The part's ``raw``, ``cutouts`` and ``provenance``.
    schemas : mapping
        Writer schemas by id.
    """
    losers = [loser for loser in losers if loser.is_conflict]
    if not losers:
        return None
    rows = pa.array([loser.claim.row for loser in losers], pa.int64())
    provenance = tables["provenance"].take(rows)
    columns = {
        "reason": pa.array([CONFLICTING] * len(losers), pa.string()),
        "detail": pa.array([loser.reason for loser in losers], pa.string()),
        "source": pa.array([loser.claim.source for loser in losers], pa.string()),
        **{name: provenance.column(name) for name in ("member", "offset", "length", "alert_id")},
        "night": pa.array([part["night"]] * len(losers), pa.int32()),
        "body_sha256": provenance.column("body_sha256"),
        "body": pa.array(_bodies(tables, rows, provenance, schemas), pa.large_binary()),
        "writer_schema_id": provenance.column("writer_schema_id"),
    }
    return _write(root, place, conform(pa.table(columns), REJECTS, dataset="rejects"), part["name"])


def _write(root: Root, place: str, table: pa.Table, part: str) -> dict[str, Any]:
    source = table.column("source")[0].as_py()
    name = f"{part}-conflicts.{{content}}.parquet"
    receipt = write_part(table.sort_by(_ORDER), REJECTS, root.path(place), name, dataset="rejects")
    return {**receipt.as_dict(), "path": f"{place}/{receipt.path}", "source": source, "part": part}


def _bodies(
    tables: Mapping[str, pa.Table], rows: pa.Array, provenance: pa.Table, schemas: Mapping[str, str]
) -> list[bytes | None]:
    """Encode rows back into the packets they came from; null where the source had no Avro body."""
    bodies: list[bytes | None] = []
    for place, record in zip(rows.to_pylist(), provenance.to_pylist(), strict=True):
        text = schemas.get(record["writer_schema_id"])
        if text is None:
            bodies.append(None)
            continue
        schema, parsed = _parsed(text)
        one = [tables[name].slice(place, 1) for name in ("raw", "cutouts")]
        joined = one[0]
        for name in one[1].column_names[1:]:
            joined = joined.append_column(name, one[1].column(name))
        buffer = io.BytesIO()
        try:
            fastavro.schemaless_writer(buffer, parsed, to_version(joined, schema)[0])
        except (SchemaError, ValueError, TypeError):
            bodies.append(None)  # re-encoded by someone else: its row does not fill the survey's schema
        else:
            bodies.append(buffer.getvalue())
    return bodies


@lru_cache(maxsize=64)
def _parsed(text: str) -> tuple[Any, Any]:
    schema = json.loads(text)
    return schema, fastavro.parse_schema(schema)


def earlier(root: Root, files: Sequence[Mapping[str, Any]], origins: Mapping[str, str]) -> list[Earlier]:
    """Return the conflicts that stand in committed files of rejects."""
    found = []
    for file in files:
        if "part" not in file:
            continue
        table = read_table(root.path(file["path"]), ["alert_id", "body_sha256"])
        is_native = origins[file["source"]] == "native"
        for alert_id, digest in zip(*(table.column(name).to_pylist() for name in table.column_names), strict=True):
            found.append(Earlier(alert_id, file["part"], is_native, digest, file["source"]))
    return found


def merged(
    root: Root,
    staging: str,
    night: int,
    files: Sequence[dict[str, Any]],
    resting: Sequence[tuple[Earlier, Claim, str | None]],
) -> list[dict[str, Any]]:
    """Bring the files of rejects up to date: one a part, without what is a copy now, each naming the packet that stays.

    Parameters
    ----------
    files : sequence of dict
        Of the night, committed and staged; of a part whose packets gave way in several runs there are two.
    resting : sequence of (Earlier, Claim, str or None)
        See :class:`pipeline.stages.settle.Verdict`.
    """
    by_part: dict[str, list[dict[str, Any]]] = {}
    for file in files:
        if "part" in file:
            by_part.setdefault(file["part"], []).append(file)
    details = {
        (item.part, item.alert_id, item.body_sha256): None
        if reason
        else conflict_detail(winner.body_sha256, item.body_sha256)
        for item, winner, reason in resting
    }
    touched = {part for part, _, _ in details} | {part for part, own in by_part.items() if len(own) > 1}
    out = [file for file in files if file.get("part") not in touched]
    for part in sorted(touched):
        table = pa.concat_tables([read_table(root.path(file["path"])) for file in by_part[part]])
        keys = zip(table.column("alert_id").to_pylist(), table.column("body_sha256").to_pylist(), strict=True)
        told = [
            details.get((part, *key), detail)
            for key, detail in zip(keys, table.column("detail").to_pylist(), strict=True)
        ]
        table = table.set_column(1, REJECTS.field("detail"), pa.array([text or "" for text in told], pa.string()))
        table = table.filter(pa.array([text is not None for text in told], pa.bool_()))
        if table.num_rows:
            out.append(_write(root, f"{staging}/settled/{paths.night_name(night)}/rejects", table, part))
    return out
