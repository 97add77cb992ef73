"""The decode task: one segment of a source becomes staged parts, one file a dataset and night."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from types import TracebackType
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import paths
from pipeline.config import PartLimits
from pipeline.dumps import Segment, Tally
from pipeline.errors import ConservationError
from pipeline.filters import conditions
from pipeline.nights.arrivals import Batch, read_batches
from pipeline.nights.behind import Behind
from pipeline.nights.progress import Progress, State
from pipeline.nights.run import remembered
from pipeline.nights.staging import Rows, Staged, StagedPart
from pipeline.stages.accept import CUT, OTHER_NIGHT, UNDECODABLE, Accepted, accept, undecodable
from pipeline.store import Root
from pipeline.store.ledger import zero_counts
from pipeline.surveys import get as get_survey
from pipeline.surveys.base import Survey

_DATASETS = ("raw", "cutouts", "alerts", "provenance")


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

    @property
    def receipt(self) -> str:
        """Path of the receipt in the root."""
        return f"{self.staging}/decoded/{self.name}.json"

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the rows and the parts, besides this version of the programs; JSON."""
        segment, source = self.segment, self.segment.source
        return {
            "survey": self.survey,
            "source": [source.name, source.kind, source.origin, source.size, source.mtime_ns, source.state],
            "segment": [segment.number, segment.start, segment.stop],
            "night": self.night,
            "cut": self.cut,
            "limits": self.limits.model_dump(),
            "schemas": self.schemas,
        }


def decode_segment(job: DecodeJob) -> dict[str, Any]:
    """Decode, normalise and stage one segment; return its receipt (see :class:`SegmentWriter`).

    A task on a ``.tar.gz`` that was killed goes on where its last part ended. What it writes is the same; but it cannot
    tell the ``sha256`` of what it has not read.
    """
    return remembered(job.root, job.receipt, lambda: _decode(job))


def _decode(job: DecodeJob) -> dict[str, Any]:
    survey = get_survey(job.survey)
    cut = None if job.cut is None else conditions.parse(job.cut, survey.superset)
    cache = str(job.root.path(paths.REGISTRY))
    tally, start, known, keep = Tally(), None, None, None
    if job.segment.source.kind == "tar.gz":
        progress = Progress(job.root, f"{job.receipt.removesuffix('.json')}.progress", job.identity)
        tally, start, known, keep = progress.tally, progress.start, progress.state, progress.keep
    with SegmentWriter(job, survey, state=known, on_part=keep) as writer:
        for batch in read_batches(job.segment, survey, job.schemas, tally, cache, start):
            accepted = accept(batch.arrivals, survey, source=job.segment.source.name, night=job.night, cut=cut)
            writer.add(batch, accepted)
        return {**writer.finish(), "skipped": tally.skipped, "sha256": tally.sha256}


@dataclass
class Counted:
    """Packets counted so far; nights are text, as in JSON."""

    packets: int = 0
    part: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    other_nights: dict[str, int] = field(default_factory=dict)
    schemas: dict[str, str] = field(default_factory=dict)

    def count(self, night: int, column: str, number: int, reason: str | None = None) -> None:
        """Count packets of a night under one of the ledger's columns."""
        counts = self.counts.setdefault(str(night), zero_counts())
        reasons = self.reasons.setdefault(str(night), {})
        counts["packets_in"] += number
        counts[column] += number
        if reason is not None:
            reasons[reason] = reasons.get(reason, 0) + number


class SegmentWriter:
    """Cuts the stream of accepted rows into parts and writes them, night by night, in a thread of its own.

    A part ends after the packet at which a limit is reached. Packets that were refused count too, so that where a part
    ends depends on the source alone. Used as a context manager, it leaves no file behind that is not finished.

    Parameters
    ----------
    job : DecodeJob
        The task.
    survey : Survey
        Whose packets they are.
    state : dict, optional
        Of an earlier task on the same segment, as ``on_part`` was given it: the next packet to add is the one at
        position ``state["packets"]``.
    on_part : callable, optional
        Called with the state at the end of each part, when its files are durable; in the writing thread.
    """

    def __init__(
        self,
        job: DecodeJob,
        survey: Survey,
        *,
        state: State | None = None,
        on_part: Callable[[State], None] | None = None,
    ) -> None:
        known = json.loads(json.dumps(state or {}))
        self.job = job
        self.survey = survey
        self._counted = Counted(**known.get("counted", {}))
        self._staged = Staged(**known.get("staged", {}))
        self._on_part = on_part
        self._since = np.zeros(3, dtype=np.int64)  # packets, bytes and points since the last part ended
        self._behind = Behind()
        self._part: StagedPart | None = None
        self._unfinished: list[StagedPart] = []

    def __enter__(self) -> SegmentWriter:
        self._behind.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._behind.__exit__(kind, error, traceback)
        for part in self._unfinished:
            part.abort()

    def add(self, batch: Batch, accepted: Accepted) -> None:
        """Take a batch: its packets are counted, and go to the parts they belong to.

        Raises
        ------
        PipelineError
            What went wrong in writing, perhaps for an earlier batch.
        """
        rejects, refused = self._rejects(batch, accepted)
        base, start, packets = self._counted.packets, 0, len(batch.lengths)
        self._counted.schemas |= {key: json.dumps(value, sort_keys=True) for key, value in batch.schemas.items()}
        for end, is_last in [*((end, True) for end in self._boundaries(batch)), (packets, False)]:
            if end > start:
                low, high = np.searchsorted(accepted.position, [base + start, base + end]).tolist()
                first, last = np.searchsorted(refused, [base + start, base + end]).tolist()
                tables = {name: getattr(accepted, name).slice(low, high - low) for name in _DATASETS}
                homes = self._homes(rejects.slice(first, last - first))
                self._take(Rows(tables, accepted.night[low:high], homes), end - start)
            if is_last:
                self._end_part()
            start = end

    def _boundaries(self, batch: Batch) -> Iterator[int]:
        """Yield the places in the batch after whose packet a part ends, and keep the running sums."""
        if not len(batch.lengths):
            return
        sums = np.cumsum([np.ones_like(batch.lengths), batch.lengths, batch.points], axis=1)
        limits = np.array([self.job.limits.max_alerts, self.job.limits.max_bytes, self.job.limits.max_points])
        before = -self._since
        while True:
            end = 1 + min(int(np.searchsorted(*pair)) for pair in zip(sums, before + limits, strict=True))
            if end > len(batch.lengths):
                break
            yield end
            before = sums[:, end - 1]
        self._since = sums[:, -1] - before

    def _rejects(self, batch: Batch, accepted: Accepted) -> tuple[pa.Table, np.ndarray]:
        """Return what is refused of a batch and its positions, in source order."""
        base = self._counted.packets
        is_fault = np.ones(len(batch.lengths), dtype=bool)
        is_fault[batch.arrivals.position - base] = False
        if not batch.faults and not accepted.rejects.num_rows:
            return accepted.rejects, accepted.reject_position
        faults = undecodable(self.job.segment.source.name, batch.faults, batch.fault_sha256)
        position = np.concatenate([np.flatnonzero(is_fault) + base, accepted.reject_position])
        order = np.argsort(position)
        return pa.concat_tables([faults, accepted.rejects]).take(pa.array(order)), position[order]

    def _homes(self, rejects: pa.Table) -> dict[int, pa.Table]:
        """Count what is refused, and divide it by the night it is ledgered under."""
        if not rejects.num_rows:
            return {}
        named = self.job.night if self.job.night is not None else paths.UNKNOWN_NIGHT
        reasons = np.array(rejects.column("reason").to_pylist(), dtype=object)
        nights = rejects.column("night").fill_null(paths.UNKNOWN_NIGHT).to_numpy()
        # A cut row is of the night it was taken in; all others belong to the night the command named.
        homes = np.where((reasons == CUT) & (self.job.night is None), nights, named)
        others = self._counted.other_nights
        for night in nights[reasons == OTHER_NIGHT].tolist():
            others[str(night)] = others.get(str(night), 0) + 1
        for (home, reason), count in Counter(zip(homes.tolist(), reasons.tolist(), strict=True)).items():
            column = {CUT: "cut", OTHER_NIGHT: "other_night"}.get(reason, "rejected")
            self._counted.count(home, column, count, reason)
        return {home: rejects.filter(pa.array(homes == home)) for home in np.unique(homes).tolist()}

    def _take(self, rows: Rows, packets: int) -> None:
        self._counted.packets += packets
        for night, count in zip(*np.unique(rows.night, return_counts=True), strict=True):
            self._counted.count(int(night), "written", int(count))
        if self._part is None:
            source = self.job.segment.source.name
            name = paths.part_name(source, self.job.segment.number, self._counted.part)
            self._part = StagedPart(self.job.root, self.job.staging, self.survey, source, name)
            self._unfinished.append(self._part)
        self._behind.ask(self._part.add, rows)

    def _end_part(self) -> None:
        self._counted.part += 1
        self._behind.ask(self._close_part, self._part, asdict(self._counted))
        self._part = None

    def _close_part(self, part: StagedPart, counted: dict[str, Any]) -> None:
        """Finish a part's files; this and what follows from it is done by the writing thread."""
        part.close(self._staged)
        self._unfinished.remove(part)
        if self._on_part is not None:
            self._on_part(json.loads(json.dumps({"counted": counted, "staged": asdict(self._staged)})))

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
        PipelineError
            What went wrong in writing.
        """
        if self._part is not None:
            self._end_part()
        self._behind.finish()
        counted, staged = self._counted, self._staged
        told = sum(counts["packets_in"] for counts in counted.counts.values())
        if told != counted.packets:
            raise ConservationError(f"{counted.packets} packets were read, {told} counted", part=self.job.name)
        nights = {
            night: {
                "counts": counted.counts[night],
                "reasons": dict(sorted(counted.reasons[night].items())),
                "notes": dict(sorted(staged.notes.get(night, {}).items())),
                "rejects": staged.rejects.get(night, []),
            }
            for night in sorted(counted.counts, key=int)
        }
        return {
            "source": self.job.segment.source.name,
            "segment": self.job.segment.number,
            "packets": counted.packets,
            "undecodable": sum(reasons.get(UNDECODABLE, 0) for reasons in counted.reasons.values()),
            "nights": nights,
            "parts": staged.parts,
            "other_nights": dict(sorted(counted.other_nights.items(), key=lambda item: int(item[0]))),
            "schemas": dict(sorted(counted.schemas.items())),
            "staged": staged.staged,
        }
