"""Acceptance as it was before it was made fast."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.errors import SchemaError
from pipeline.filters import conditions
from pipeline.schema import conform
from pipeline.stages.accept import CUT, NOT_NORMALISABLE, OTHER_NIGHT, Accepted, Arrivals
from pipeline.surveys.base import Survey
from pipeline.tables import REJECTS

_STRANGE = (SchemaError, pa.ArrowException, ArithmeticError, LookupError, TypeError, ValueError)
"""What a packet's values can make normalisation raise."""


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
    ids = survey.alert_id(raw)
    reasons = survey.faults(raw).to_pylist() if raw.num_rows else []
    details: list[str | None] = list(reasons)
    whole = np.array([reason is None for reason in reasons], dtype=bool)
    alerts, broken = _normalise(_rows(raw, whole), survey)
    rows = np.flatnonzero(whole)
    for place, reason in broken.items():
        details[int(rows[place])] = reason
    whole[rows[list(broken)]] = False
    kinds: list[str | None] = [None if detail is None else NOT_NORMALISABLE for detail in details]
    nights = np.full(raw.num_rows, paths.UNKNOWN_NIGHT, dtype=np.int32)
    nights[whole] = survey.night_of(alerts)
    kept = whole.copy()
    if night is not None:
        _mark(kinds, details, kept & (nights != night), OTHER_NIGHT, [f"night {value}" for value in nights.tolist()])
        kept &= nights == night
    if cut is not None:
        passed = conditions.evaluate(cut, raw)
        _mark(kinds, details, kept & ~passed, CUT, [f"not {cut.text}"] * raw.num_rows)
        kept &= passed
    key = pa.field("alert_id", pa.int64(), nullable=False)
    raw_out = _rows(raw.add_column(0, key, ids), kept)
    cutouts_out = _rows(arrivals.cutouts.add_column(0, key, ids), kept)
    provenance = arrivals.provenance.add_column(0, pa.field("alert_id", pa.int64()), ids)
    provenance = _rows(provenance.append_column("processed_mjd", survey.processed_mjd(raw)), kept)
    return Accepted(
        raw_out,
        cutouts_out,
        _rows(alerts, kept[whole]),
        provenance,
        nights[kept],
        arrivals.position[kept],
        _rejected(arrivals, kinds, details, ids, nights, source),
        arrivals.position[~kept],
    )


def _rows(table: pa.Table, keep: np.ndarray) -> pa.Table:
    """Return the rows to keep; as a rule all of them, and then no stamp is copied."""
    return table if keep.all() else table.filter(pa.array(keep))


def _mark(
    kinds: list[str | None], details: list[str | None], where: np.ndarray, kind: str, detail: Sequence[str]
) -> None:
    for row in np.flatnonzero(where).tolist():
        kinds[row], details[row] = kind, detail[row]


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
    kinds: Sequence[str | None],
    details: Sequence[str | None],
    ids: pa.Array | pa.ChunkedArray,
    nights: np.ndarray,
    source: str,
) -> pa.Table:
    rows = [row for row, kind in enumerate(kinds) if kind is not None]
    taken = arrivals.provenance.take(pa.array(rows, pa.int64()))
    bodies = [arrivals.bodies[row] if arrivals.bodies is not None and kinds[row] != CUT else None for row in rows]
    columns = {
        "reason": pa.array([kinds[row] for row in rows], pa.string()),
        "detail": pa.array([details[row] for row in rows], pa.string()),
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
