"""Acceptance: a packet enters the archive only if it was decoded and normalised; all others become rejects.

After this stage no other one removes or reorders a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.errors import SchemaError
from pipeline.filters import conditions
from pipeline.schema import conform
from pipeline.surveys.base import Survey
from pipeline.tables import REJECTS

UNDECODABLE = "undecodable"
NOT_NORMALISABLE = "not_normalisable"
OTHER_NIGHT = "other_night"
CUT = "cut"
CONFLICTING = "conflicting"

_STRANGE = (SchemaError, pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError)
"""What a packet's values can make normalisation raise."""


@dataclass(frozen=True)
class Arrivals:
    """A batch of packets that were decoded, in source order; all members have the same length n.

    Parameters
    ----------
    raw, cutouts : pyarrow.Table
        Survey columns, ``schema_version`` and ``origin_added`` in ``raw``; without ``alert_id``.
    provenance : pyarrow.Table
        ``member, offset, length, body_sha256, writer_schema_id``.
    position : numpy.ndarray
        Place of each row among all packets of the segment, int64 (n,).
    bodies : sequence of bytes, optional
        The Avro bodies; kept only for rejects. None for sources that have none.
    """

    raw: pa.Table
    cutouts: pa.Table
    provenance: pa.Table
    position: np.ndarray
    bodies: Sequence[bytes] | None


@dataclass(frozen=True)
class Accepted:
    """Rows that entered, table by table with the same rows, their nights (n,) and positions (n,), and the rejects."""

    raw: pa.Table
    cutouts: pa.Table
    alerts: pa.Table
    provenance: pa.Table
    night: np.ndarray
    position: np.ndarray
    rejects: pa.Table
    reject_position: np.ndarray


def accept(
    arrivals: Arrivals,
    survey: Survey,
    *,
    source: str,
    night: int | None = None,
    cut: conditions.Condition | None = None,
) -> Accepted:
    """Normalise a batch and divide it into accepted rows and rejects.

    Parameters
    ----------
    arrivals : Arrivals
        The batch.
    survey : Survey
        Whose rules apply.
    source : str
        Name of the source, for the rejects.
    night : int, optional
        The night the command named: rows of other nights are rejected as ``other_night``, with their bodies.
    cut : Condition, optional
        The declared input cut; rows for which it is not TRUE are rejected as ``cut``.
    """
    raw = arrivals.raw
    ids, reasons = survey.alert_id(raw), survey.faults(raw)
    whole = reasons.is_null().to_numpy(zero_copy_only=False)
    refused = {int(row): (NOT_NORMALISABLE, reasons[int(row)].as_py()) for row in np.flatnonzero(~whole)}
    alerts, broken = _normalise(_rows(raw, whole), survey)
    if broken:
        rows = np.flatnonzero(whole)[list(broken)]
        refused |= {int(row): (NOT_NORMALISABLE, reason) for row, reason in zip(rows, broken.values(), strict=True)}
        whole[rows] = False
    nights = np.full(raw.num_rows, paths.UNKNOWN_NIGHT, dtype=np.int32)
    nights[whole] = survey.night_of(alerts)
    kept = whole.copy()
    if night is not None:
        others = np.flatnonzero(kept & (nights != night))
        refused |= {int(row): (OTHER_NIGHT, f"night {nights[row]}") for row in others}
        kept[others] = False
    if cut is not None:
        failed = np.flatnonzero(kept & ~conditions.evaluate(cut, raw))
        refused |= {int(row): (CUT, f"not {cut.text}") for row in failed}
        kept[failed] = False
    key = pa.field("alert_id", pa.int64(), nullable=False)
    provenance = arrivals.provenance.add_column(0, pa.field("alert_id", pa.int64()), ids)
    provenance = provenance.append_column("processed_mjd", survey.processed_mjd(raw))
    return Accepted(
        _rows(raw.add_column(0, key, ids), kept),
        _rows(arrivals.cutouts.add_column(0, key, ids), kept),
        _rows(alerts, kept[whole]),
        _rows(provenance, kept),
        nights[kept],
        arrivals.position[kept],
        _rejected(arrivals, refused, ids, nights, source),
        arrivals.position[~kept],
    )


def _rows(table: pa.Table, keep: np.ndarray) -> pa.Table:
    """Return the rows to keep; as a rule all of them, and then no stamp is copied."""
    return table if keep.all() else table.filter(pa.array(keep))


def _normalise(raw: pa.Table, survey: Survey) -> tuple[pa.Table, dict[int, str]]:
    """Normalise rows; if the batch cannot be, row by row, so that a strange packet spoils no neighbour."""
    try:
        return survey.normalise(raw), {}
    except _STRANGE:
        good, broken = [], {}
        for row in range(raw.num_rows):
            try:
                good.append(survey.normalise(raw.slice(row, 1)))
            except _STRANGE as error:
                broken[row] = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        return (pa.concat_tables(good) if good else survey.normalise(raw.slice(0, 0))), broken


def _rejected(
    arrivals: Arrivals,
    refused: Mapping[int, tuple[str, str]],
    ids: pa.Array | pa.ChunkedArray,
    nights: np.ndarray,
    source: str,
) -> pa.Table:
    """Return the rejects of the rows refused, given with their reason and detail."""
    if not refused:
        return REJECTS.empty_table()
    rows = sorted(refused)
    taken = arrivals.provenance.take(pa.array(rows, pa.int64()))
    whole = arrivals.bodies
    bodies = [whole[row] if whole is not None and refused[row][0] != CUT else None for row in rows]
    columns = {
        "reason": pa.array([refused[row][0] for row in rows], pa.string()),
        "detail": pa.array([refused[row][1] for row in rows], pa.string()),
        "source": pa.array([source] * len(rows), pa.string()),
        "member": taken.column("member"),
        "offset": taken.column("offset"),
        "length": taken.column("length"),
        "alert_id": ids.take(pa.array(rows, pa.int64())),
        "night": pa.array([int(nights[row]) or None for row in rows], pa.int32()),
        "body_sha256": taken.column("body_sha256"),
        "body": pa.array(bodies, pa.large_binary()),
        "writer_schema_id": taken.column("writer_schema_id"),
    }
    return conform(pa.table(columns), REJECTS, dataset="rejects")


def undecodable(
    source: str, faults: Sequence[tuple[str | None, int, bytes, str]], sha256s: Sequence[bytes]
) -> pa.Table:
    """Return the rejects of packets that could not be decoded.

    Parameters
    ----------
    source : str
        Name of the source.
    faults : sequence of (member, offset, body, detail)
        What came, and why it could not be read.
    sha256s : sequence of bytes
        Digest of each body.
    """
    n = len(faults)
    columns = {
        "reason": pa.array([UNDECODABLE] * n, pa.string()),
        "detail": pa.array([fault[3] for fault in faults], pa.string()),
        "source": pa.array([source] * n, pa.string()),
        "member": pa.array([fault[0] for fault in faults], pa.string()),
        "offset": pa.array([fault[1] for fault in faults], pa.int64()),
        "length": pa.array([len(fault[2]) for fault in faults], pa.int64()),
        "alert_id": pa.nulls(n, pa.int64()),
        "night": pa.nulls(n, pa.int32()),
        "body_sha256": pa.array(list(sha256s), pa.binary(32)),
        "body": pa.array([fault[2] for fault in faults], pa.large_binary()),
        "writer_schema_id": pa.nulls(n, pa.string()),
    }
    return conform(pa.table(columns), REJECTS, dataset="rejects")
