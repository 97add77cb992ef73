"""What needs the whole night: exposures, night modules, the night's rejects; one task a night."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import paths
from pipeline.nights.run import remembered
from pipeline.schema import key_of
from pipeline.science import registry
from pipeline.stages import exposures as exposure_stage
from pipeline.store import Root, read_table, write_part
from pipeline.tables import EXPOSURES, FLAT, REJECTS


@dataclass(frozen=True)
class FinishJob:
    """One night, with the files of its parts."""

    root: Root
    staging: str
    survey: str
    night: int
    alerts: tuple[str, ...]
    science: tuple[str, ...]
    rejects: tuple[str, ...]
    replaced: tuple[str, ...]
    key: str


def finish_night(job: FinishJob) -> dict[str, Any]:
    """Write a night's exposures, links and rejects into staging; return their receipts by dataset."""
    receipt = f"{job.staging}/finished/{paths.night_name(job.night)}-{job.key}.json"
    return remembered(job.root, receipt, lambda: _finish(job))


def finish_key(plan_files: list[str]) -> str:
    """Return the key of a night's finishing: the files it reads and the night modules' versions."""
    return key_of(sorted(plan_files), {name: module.version for name, module in registry.NIGHT.items()})


def _finish(job: FinishJob) -> dict[str, Any]:
    files: dict[str, list[dict[str, Any]]] = {"exposures": [], "links": [], "rejects": []}
    seconds: dict[str, float] = {}
    if job.night != paths.UNKNOWN_NIGHT:
        started = time.perf_counter()
        table = exposure_stage.exposures(_gather(job, job.alerts, exposure_stage.REQUIRES))
        files["exposures"].append(_write(job, table, EXPOSURES, "exposures", "part-exposures"))
        seconds["exposures"] = time.perf_counter() - started
        for name, module in sorted(registry.NIGHT.items()):
            started = time.perf_counter()
            links = registry.apply(module, _gather(job, job.science, module.requires))
            files["links"].append(_write(job, links, module.schema, "links", f"part-{name}"))
            seconds[name] = time.perf_counter() - started
    rejects = _rejects(job)
    if rejects.num_rows:
        files["rejects"].append(_write(job, rejects, REJECTS, "rejects", "part-rejects"))
    staged = [file["path"] for group in files.values() for file in group]
    return {"files": files, "seconds": seconds, "rejects": _reject_counts(rejects), "staged": staged}


def _gather(job: FinishJob, relative: tuple[str, ...], columns: tuple[str, ...]) -> pa.Table:
    tables = [read_table(job.root.path(path), columns) for path in relative]
    if tables:
        return pa.concat_tables(tables).select(list(columns))
    return pa.schema([FLAT.field(name) for name in columns]).empty_table()


def _write(job: FinishJob, table: pa.Table, schema: pa.Schema, dataset: str, name: str) -> dict[str, Any]:
    place = f"{job.staging}/finished/{paths.night_name(job.night)}/{dataset}"
    receipt = write_part(table, schema, job.root.path(place), f"{name}.{{content}}.parquet", dataset=dataset).as_dict()
    return {**receipt, "path": f"{place}/{receipt['path']}"}


def _rejects(job: FinishJob) -> pa.Table:
    """Gather the night's rejects: those staged, and of the committed ones those of sources not in this run."""
    tables = []
    for relative in job.rejects:
        table = read_table(job.root.path(relative))
        if not relative.startswith(f"{paths.STAGING}/"):
            others = [source not in job.replaced for source in table.column("source").to_pylist()]
            table = table.filter(pa.array(others, pa.bool_()))
        tables.append(table)
    if not tables:
        return REJECTS.empty_table()
    order = [("source", "ascending"), ("member", "ascending"), ("offset", "ascending"), ("body_sha256", "ascending")]
    return pa.concat_tables(tables).sort_by(order)


def _reject_counts(rejects: pa.Table) -> Mapping[str, int]:
    counts: dict[str, int] = {}
    for source in rejects.column("source").to_pylist():
        counts[source] = counts.get(source, 0) + 1
    return dict(sorted(counts.items()))
