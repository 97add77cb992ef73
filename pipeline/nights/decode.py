"""The decode task: one segment of a source becomes staged parts, one file a dataset and night."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import avro, paths
from pipeline.config import PartLimits
from pipeline.dumps import Segment, Tally
from pipeline.errors import ConservationError
from pipeline.filters import conditions
from pipeline.nights.arrivals import Batch, read_batches
from pipeline.nights.run import remembered
from pipeline.stages.accept import CUT, OTHER_NIGHT, UNDECODABLE, Accepted, accept, undecodable
from pipeline.store import Root, write_part
from pipeline.store.ledger import zero_counts
from pipeline.store.parts import pruning
from pipeline.surveys import get as get_survey
from pipeline.surveys.base import Survey
from pipeline.tables import ALERTS, PROVENANCE, REJECTS

_ALERT_ID = pa.field("alert_id", pa.int64(), nullable=False)


@dataclass(frozen=True)
class DecodeJob:
    """What one decode task needs; picklable."""

    root: Root
    staging: str
    survey: str
    segment: Segment
    night: int | None
    cut: str | None
    limits: PartLimits
    schemas: str | None

    @property
    def name(self) -> str:
        """Name of the segment in errors and receipts."""
        return f"{paths.source_digest(self.segment.source.name)}-{self.segment.number:05d}"


def decode_segment(job: DecodeJob) -> dict[str, Any]:
    """Decode, normalise and stage one segment; return its receipt (see :class:`SegmentWriter`)."""
    return remembered(job.root, f"{job.staging}/decoded/{job.name}.json", lambda: _decode(job))


def _decode(job: DecodeJob) -> dict[str, Any]:
    survey = get_survey(job.survey)
    cut = None if job.cut is None else conditions.parse(job.cut, survey.superset)
    writer = SegmentWriter(job, survey)
    tally = Tally()
    cache = str(job.root.path(paths.REGISTRY))
    for batch in read_batches(job.segment, survey, job.schemas, tally, cache):
        accepted = accept(batch.arrivals, survey, source=job.segment.source.name, night=job.night, cut=cut)
        writer.add(batch, accepted)
    return {**writer.finish(), "skipped": tally.skipped, "sha256": tally.sha256}


def raw_schema(survey: Survey) -> pa.Schema:
    """Return the declared schema of ``raw``: the survey's superset without cutouts, and what we add."""
    return pa.schema([_ALERT_ID, *avro.raw_schema(survey.superset, survey.cutout_columns)])


def cutouts_schema(survey: Survey) -> pa.Schema:
    """Return the declared schema of ``cutouts``: the stamps as shipped."""
    return pa.schema([_ALERT_ID, *avro.cutout_schema(survey.superset, survey.cutout_columns)])


@dataclass
class SegmentWriter:
    """Cuts the stream of accepted rows into parts and writes them, night by night.

    A part ends after the packet at which a limit is reached. Packets that were refused count too, so that where a part
    ends depends on the source alone.
    """

    job: DecodeJob
    survey: Survey
    _pending: list[Accepted] = field(default_factory=list)
    _packets: int = 0
    _bytes: int = 0
    _points: int = 0
    _part: int = 0
    _seen: int = 0
    _rejects: dict[int, list[pa.Table]] = field(default_factory=dict)
    _reject_files: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    _counts: dict[int, dict[str, int]] = field(default_factory=dict)
    _reasons: dict[int, Counter[str]] = field(default_factory=dict)
    _notes: dict[int, Counter[str]] = field(default_factory=dict)
    _other_nights: Counter[int] = field(default_factory=Counter)
    _parts: list[dict[str, Any]] = field(default_factory=list)
    _schemas: dict[str, Any] = field(default_factory=dict)
    _staged: list[str] = field(default_factory=list)

    def add(self, batch: Batch, accepted: Accepted) -> None:
        """Take a batch: its faults and rejects are counted, its rows go to the part they belong to."""
        self._count_rejects(batch, accepted)
        self._schemas.update(batch.schemas)
        start = 0
        for end in self._boundaries(batch):
            self._pending.append(_between(accepted, self._seen + start, self._seen + end))
            self._flush()
            start = end
        self._pending.append(_between(accepted, self._seen + start, self._seen + len(batch.lengths)))
        self._seen += len(batch.lengths)

    def _boundaries(self, batch: Batch) -> Iterator[int]:
        """Yield the places in the batch after whose packet a part ends, and keep the running sums."""
        limits = self.job.limits
        for place, (length, points) in enumerate(zip(batch.lengths.tolist(), batch.points.tolist(), strict=True)):
            self._packets += 1
            self._bytes += length
            self._points += points
            is_full = (
                self._packets >= limits.max_alerts
                or self._bytes >= limits.max_bytes
                or self._points >= limits.max_points
            )
            if is_full:
                self._packets = self._bytes = self._points = 0
                yield place + 1

    def _night(self, night: int) -> tuple[dict[str, int], Counter[str]]:
        return self._counts.setdefault(night, zero_counts()), self._reasons.setdefault(night, Counter())

    def _count_rejects(self, batch: Batch, accepted: Accepted) -> None:
        named = self.job.night if self.job.night is not None else paths.UNKNOWN_NIGHT
        for night, count in zip(*np.unique(accepted.night, return_counts=True), strict=True):
            counts, _ = self._night(int(night))
            counts["packets_in"] += int(count)
            counts["written"] += int(count)
        faults = undecodable(self.job.segment.source.name, batch.faults, batch.fault_sha256)
        for table in (faults, accepted.rejects):
            reasons = np.array(table.column("reason").to_pylist(), dtype=object)
            nights = table.column("night").fill_null(paths.UNKNOWN_NIGHT).to_numpy()
            # A cut row is of the night it was taken in; all others belong to the night the command named.
            homes = np.where((reasons == CUT) & (self.job.night is None), nights, named)
            self._other_nights.update(nights[reasons == OTHER_NIGHT].tolist())
            for home in np.unique(homes).tolist():
                counts, told = self._night(home)
                for reason, count in Counter(reasons[homes == home].tolist()).items():
                    counts["packets_in"] += count
                    counts[{CUT: "cut", OTHER_NIGHT: "other_night"}.get(reason, "rejected")] += count
                    told[reason] += count
                self._rejects.setdefault(home, []).append(table.filter(pa.array(homes == home)))

    def _flush(self) -> None:
        pending = [accepted for accepted in self._pending if accepted.raw.num_rows]
        self._pending = []
        name = paths.part_name(self.job.segment.source.name, self.job.segment.number, self._part)
        self._part += 1
        self._write_rejects(name)
        if not pending:
            return
        nights = np.concatenate([accepted.night for accepted in pending])
        tables = {
            "raw": (pa.concat_tables([a.raw for a in pending]), raw_schema(self.survey)),
            "cutouts": (pa.concat_tables([a.cutouts for a in pending]), cutouts_schema(self.survey)),
            "alerts": (pa.concat_tables([a.alerts for a in pending]), ALERTS),
            "provenance": (pa.concat_tables([a.provenance for a in pending]), PROVENANCE),
        }
        number = pa.repeat(pa.scalar(paths.source_number(self.job.segment.source.name), pa.int32()), len(nights))
        provenance = tables["provenance"][0].append_column("source_number", number).select(PROVENANCE.names)
        tables["provenance"] = (provenance, PROVENANCE)
        for night in np.unique(nights).tolist():
            self._write_part(name, night, nights == night, tables)

    def _write_rejects(self, name: str) -> None:
        """Write the packets refused since the last part ended: they carry their bodies, and are not held for long."""
        for night, tables in sorted(self._rejects.items()):
            place = f"{self.job.staging}/rejects/{paths.night_name(night)}"
            folder = self.job.root.path(place)
            receipt = write_part(
                pa.concat_tables(tables), REJECTS, folder, f"{name}.{{content}}.parquet", dataset="rejects"
            )
            file = {**receipt.as_dict(), "path": f"{place}/{receipt.path}", "source": self.job.segment.source.name}
            self._reject_files.setdefault(night, []).append(file)
            self._staged.append(file["path"])
        self._rejects = {}

    def _write_part(
        self, name: str, night: int, rows: np.ndarray, tables: dict[str, tuple[pa.Table, pa.Schema]]
    ) -> None:
        folder = f"{self.job.staging}/parts/{paths.night_name(night)}"
        chosen = None if rows.all() else pa.array(rows)
        files = {}
        own = {name: table if chosen is None else table.filter(chosen) for name, (table, _) in tables.items()}
        self._note(night, own["raw"], own["alerts"])
        for dataset, (_, schema) in tables.items():
            table = own[dataset]
            place = f"{folder}/{dataset}"
            receipt = write_part(
                table, schema, self.job.root.path(place), f"{name}.{{content}}.parquet", dataset=dataset
            ).as_dict()
            receipt["path"] = f"{place}/{receipt['path']}"
            files[dataset] = receipt
            self._staged.append(receipt["path"])
        self._parts.append(
            {
                "name": name,
                "night": night,
                "rows": int(np.count_nonzero(rows)),
                "source": self.job.segment.source.name,
                **pruning(own["alerts"]),
                "files": files,
            }
        )

    def _note(self, night: int, raw: pa.Table, alerts: pa.Table) -> None:
        notes = self._notes.setdefault(night, Counter())
        losses = self.survey.forced_losses(raw).items()
        notes.update({f"forced_photometry_{reason.replace(' ', '_')}": count for reason, count in losses})
        differs = int(np.count_nonzero(self.survey.night_disagreement(raw, alerts)))
        notes.update({"night_disagreement": differs} if differs else {})

    def finish(self) -> dict[str, Any]:
        """Write what is pending and return the receipt.

        Returns
        -------
        dict
            ``source``, ``segment``, ``parts`` (as in the ledger, with their night), ``nights`` (counts, reasons, notes
            and reject files by night), ``schemas`` (writer schemas by id), ``staged`` (every file written).

        Raises
        ------
        ConservationError
            A packet was read that stands in no count.
        """
        self._flush()
        counted = sum(counts["packets_in"] for counts in self._counts.values())
        if counted != self._seen:
            raise ConservationError(f"{self._seen} packets were read, {counted} counted", part=self.job.name)
        nights = {
            str(night): {
                "counts": self._counts[night],
                "reasons": dict(sorted(self._reasons[night].items())),
                "notes": dict(sorted(self._notes.get(night, Counter()).items())),
                "rejects": self._reject_files.get(night, []),
            }
            for night in sorted(self._counts)
        }
        return {
            "source": self.job.segment.source.name,
            "segment": self.job.segment.number,
            "packets": self._seen,
            "undecodable": sum(reasons[UNDECODABLE] for reasons in self._reasons.values()),
            "nights": nights,
            "parts": self._parts,
            "notes": dict(sorted(self._notes.items())),
            "other_nights": {str(night): count for night, count in sorted(self._other_nights.items())},
            "schemas": {key: json.dumps(value, sort_keys=True) for key, value in sorted(self._schemas.items())},
            "staged": self._staged,
        }


def _between(accepted: Accepted, first: int, last: int) -> Accepted:
    """Return the rows whose packets stand at positions first <= p < last (rejects left out: they are counted)."""
    low, high = np.searchsorted(accepted.position, [first, last]).tolist()
    return Accepted(
        accepted.raw.slice(low, high - low),
        accepted.cutouts.slice(low, high - low),
        accepted.alerts.slice(low, high - low),
        accepted.provenance.slice(low, high - low),
        accepted.night[low:high],
        accepted.position[low:high],
        accepted.rejects.slice(0, 0),
        accepted.reject_position[:0],
    )
