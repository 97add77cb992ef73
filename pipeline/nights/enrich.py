"""The enrichment task: one part of alerts becomes one part of science."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pipeline import paths
from pipeline.nights.earlier import EarlierFile, read_earlier
from pipeline.nights.enrichment import bound_groups, science_schema
from pipeline.nights.recipe import Recipe
from pipeline.nights.run import remembered
from pipeline.schema import content_hash, key_of
from pipeline.stages.groups import apply
from pipeline.store import Root, read_table, write_part
from pipeline.tables import FLAT


@dataclass(frozen=True)
class EnrichJob:
    """One part to enrich; picklable: catalogs, maps and models go by path.

    ``earlier`` are the part's files of former runs, from which column groups are copied whose keys did not change.
    """

    root: Root
    staging: str
    survey: str
    night: int
    part: str
    alerts: str
    recipe: Recipe
    dataset: str
    key: str
    earlier: tuple[EarlierFile, ...] = ()


def science_dataset(release: str) -> str:
    """Return the name under which a part's ledger entry lists the science of a release."""
    return "science" if release == "main" else f"science/{release}"


def part_key(alerts_sha256: str, definitions: Mapping[str, str]) -> str:
    """Return the key of a part's science."""
    return key_of(alerts_sha256, dict(definitions))


def enrich_part(job: EnrichJob) -> dict[str, Any]:
    """Compute the science of one part into staging.

    Returns
    -------
    dict
        The receipt: file, keys of the groups, seconds of each that was computed, and the names of those that were
        copied from an earlier part.
    """
    return remembered(job.root, f"{job.staging}/enriched/{job.part}-{job.key}.json", lambda: _enrich(job))


def _enrich(job: EnrichJob) -> dict[str, Any]:
    groups = bound_groups(job.recipe)
    wanted = {name for group in groups for name in group.requires}
    nested = [name for name in ("light_curve", "upper_limits") if name in wanted]
    table = read_table(job.root.path(job.alerts), [*FLAT.names, *nested]).select([*FLAT.names, *nested])
    table = table.combine_chunks()
    content = {name: content_hash(table.column(name)) for name in table.column_names}
    earlier = read_earlier(job.root, job.earlier, content, groups)
    keys: dict[str, str] = {}
    seconds: dict[str, float] = {}
    copied: list[str] = []
    for group in groups:
        started = time.perf_counter()
        keys[group.name] = group.key(content)
        known = earlier.group(group, keys[group.name])
        if known is not None:
            copied.append(group.name)
            for item in group.produces:
                table = table.append_column(item, known.column(item.name))
                content[item.name] = earlier.content[item.name]
            continue
        table = apply(group, table)
        content.update({item.name: content_hash(table.column(item.name)) for item in group.produces})
        seconds[group.name] = round(time.perf_counter() - started, 4)
    schema = science_schema(job.recipe)
    place = f"{job.staging}/enriched/{paths.night_name(job.night)}"
    receipt = write_part(
        table.select(schema.names),
        pa.schema(schema),
        job.root.path(place),
        f"{job.part}.{{content}}.parquet",
        dataset="science",
        keys=keys,
        content={name: content[name] for name in schema.names},
    ).as_dict()
    file = {**receipt, "path": f"{place}/{receipt['path']}"}
    return {"file": file, "keys": keys, "seconds": seconds, "copied": copied, "staged": [file["path"]]}
