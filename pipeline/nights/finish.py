"""What needs the whole night: exposures and night modules; one task a night."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import paths
from pipeline.nights.run import remembered
from pipeline.science import registry
from pipeline.stages import exposures as exposure_stage
from pipeline.store import Root, read_table, write_part
from pipeline.tables import EXPOSURES, FLAT


@dataclass(frozen=True)
class FinishJob:
    """One night, with the files of its parts."""

    root: Root
    staging: str
    survey: str
    night: int
    alerts: tuple[str, ...]
    science: tuple[str, ...]
    key: str


def finish_night(job: FinishJob) -> dict[str, Any]:
    """Write a night's exposures and links into staging; return their receipts by dataset."""
    receipt = f"{job.staging}/finished/{paths.night_name(job.night)}-{job.key}.json"
    return remembered(job.root, receipt, lambda: _finish(job))


def _finish(job: FinishJob) -> dict[str, Any]:
    files: dict[str, list[dict[str, Any]]] = {"exposures": [], "links": []}
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
    staged = [file["path"] for group in files.values() for file in group]
    return {"files": files, "seconds": seconds, "staged": staged}


def _gather(job: FinishJob, relative: tuple[str, ...], columns: tuple[str, ...]) -> pa.Table:
    tables = [read_table(job.root.path(path), columns) for path in relative]
    if tables:
        return pa.concat_tables(tables).select(list(columns))
    return pa.schema([FLAT.field(name) for name in columns]).empty_table()


def _write(job: FinishJob, table: pa.Table, schema: pa.Schema, dataset: str, name: str) -> dict[str, Any]:
    place = f"{job.staging}/finished/{paths.night_name(job.night)}/{dataset}"
    receipt = write_part(table, schema, job.root.path(place), f"{name}.{{content}}.parquet", dataset=dataset).as_dict()
    return {**receipt, "path": f"{place}/{receipt['path']}"}
