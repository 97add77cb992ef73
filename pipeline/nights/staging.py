"""The files of one part while it is written: one a dataset and night, and the packets refused meanwhile."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import avro, paths
from pipeline.store import Root
from pipeline.store.parts import PartWriter, Pruning
from pipeline.surveys.base import Survey
from pipeline.tables import ALERTS, PROVENANCE, REJECTS

_ALERT_ID = pa.field("alert_id", pa.int64(), nullable=False)


def raw_schema(survey: Survey) -> pa.Schema:
    """Return the declared schema of ``raw``: the survey's superset without cutouts, and what we add."""
    return pa.schema([_ALERT_ID, *avro.raw_schema(survey.superset, survey.cutout_columns)])


def cutouts_schema(survey: Survey) -> pa.Schema:
    """Return the declared schema of ``cutouts``: the stamps as shipped."""
    return pa.schema([_ALERT_ID, *avro.cutout_schema(survey.superset, survey.cutout_columns)])


@dataclass(frozen=True)
class Rows:
    """Consecutive packets of one part.

    Attributes
    ----------
    tables : mapping
        The accepted rows by dataset, all of the same length n.
    night : numpy.ndarray
        Their nights, int32 (n,).
    rejects : mapping
        The refused ones, by the night they are ledgered under.
    """

    tables: Mapping[str, pa.Table]
    night: np.ndarray
    rejects: Mapping[int, pa.Table]

    def by_night(self) -> dict[int, dict[str, pa.Table]]:
        """Return the accepted rows of each night, in their order."""
        nights, counts = np.unique(self.night, return_counts=True)
        tables = self.tables
        if len(nights) > 1:
            order = pa.array(np.argsort(self.night, kind="stable"))
            tables = {name: table.take(order) for name, table in tables.items()}
        starts = np.cumsum(counts) - counts
        return {
            night: {name: table.slice(start, count) for name, table in tables.items()}
            for night, start, count in zip(nights.tolist(), starts.tolist(), counts.tolist(), strict=True)
        }


@dataclass(frozen=True)
class Staged:
    """What was written so far: entries as ledgers list them, all JSON; nights are text."""

    parts: list[dict[str, Any]] = field(default_factory=list)
    notes: dict[str, dict[str, int]] = field(default_factory=dict)
    rejects: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    staged: list[str] = field(default_factory=list)

    def note(self, night: int, counts: Mapping[str, int]) -> None:
        """Add to the notes of a night."""
        notes = self.notes.setdefault(str(night), {})
        for name, count in counts.items():
            notes[name] = notes.get(name, 0) + count


class StagedPart:
    """Writes the files of one part as its rows come; :meth:`close` gives them their names, :meth:`abort` leaves none.

    Parameters
    ----------
    root : Root
        The root.
    staging : str
        Folder of the run in the root.
    survey : Survey
        Whose packets they are.
    source : str
        Name of the source.
    name : str
        Name of the part.
    """

    def __init__(self, root: Root, staging: str, survey: Survey, source: str, name: str) -> None:
        self._root = root
        self._staging = staging
        self._survey = survey
        self._source = source
        self._name = name
        self._nights: dict[int, _NightFiles] = {}
        self._rejects: dict[int, PartWriter] = {}

    def add(self, rows: Rows) -> None:
        """Take the next packets."""
        for home, table in rows.rejects.items():
            if home not in self._rejects:
                self._rejects[home] = self._writer("rejects", REJECTS, self._rejects_folder(home))
            self._rejects[home].append(table)
        for night, tables in rows.by_night().items():
            if night not in self._nights:
                self._nights[night] = _NightFiles(self._survey, self._writers(night))
            self._nights[night].add({**tables, "provenance": self._with_source(tables["provenance"])})

    def _with_source(self, provenance: pa.Table) -> pa.Table:
        number = pa.scalar(paths.source_number(self._source), pa.int32())
        column = pa.repeat(number, provenance.num_rows)
        return provenance.append_column("source_number", column).select(PROVENANCE.names)

    def _writers(self, night: int) -> dict[str, PartWriter]:
        schemas = {
            "raw": raw_schema(self._survey),
            "cutouts": cutouts_schema(self._survey),
            "alerts": ALERTS,
            "provenance": PROVENANCE,
        }
        folder = self._night_folder(night)
        return {name: self._writer(name, schema, f"{folder}/{name}") for name, schema in schemas.items()}

    def _writer(self, dataset: str, schema: pa.Schema, folder: str) -> PartWriter:
        return PartWriter(schema, self._root.path(folder), f"{self._name}.{{content}}.parquet", dataset=dataset)

    def _night_folder(self, night: int) -> str:
        return f"{self._staging}/parts/{paths.night_name(night)}"

    def _rejects_folder(self, home: int) -> str:
        return f"{self._staging}/rejects/{paths.night_name(home)}"

    def close(self, into: Staged) -> None:
        """Finish all files and enter them."""
        for home in sorted(self._rejects):
            file = self._closed(self._rejects.pop(home), self._rejects_folder(home), into)
            into.rejects.setdefault(str(home), []).append({**file, "source": self._source})
        for night in sorted(self._nights):
            files = self._nights[night]
            folder = self._night_folder(night)
            made = {name: self._closed(writer, f"{folder}/{name}", into) for name, writer in files.writers.items()}
            own = {"name": self._name, "night": night, "rows": files.rows, "source": self._source}
            into.parts.append({**own, **files.pruning.as_dict(), "files": made})
            into.note(night, files.notes)
            del self._nights[night]

    def _closed(self, writer: PartWriter, folder: str, into: Staged) -> dict[str, Any]:
        with writer:
            file = writer.close().as_dict()
        file["path"] = f"{folder}/{file['path']}"
        into.staged.append(file["path"])
        return file

    def abort(self) -> None:
        """Leave nothing of the files that are not finished."""
        open_writers: list[PartWriter] = [*self._rejects.values()]
        open_writers += [writer for files in self._nights.values() for writer in files.writers.values()]
        with contextlib.ExitStack() as stack:
            for writer in open_writers:
                stack.callback(writer.abort)


class _NightFiles:
    """One night of a part: its files, and what the ledger says of them."""

    def __init__(self, survey: Survey, writers: Mapping[str, PartWriter]) -> None:
        self.writers = writers
        self.pruning = Pruning()
        self.notes: Counter[str] = Counter()
        self.rows = 0
        self._survey = survey

    def add(self, tables: Mapping[str, pa.Table]) -> None:
        raw, alerts = tables["raw"], tables["alerts"]
        self.rows += raw.num_rows
        self.pruning.add(alerts)
        losses = self._survey.forced_losses(raw).items()
        self.notes.update({f"forced_photometry_{reason.replace(' ', '_')}": count for reason, count in losses})
        differs = int(np.count_nonzero(self._survey.night_disagreement(raw, alerts)))
        self.notes.update({"night_disagreement": differs} if differs else {})
        for name, writer in self.writers.items():
            writer.append(tables[name])
