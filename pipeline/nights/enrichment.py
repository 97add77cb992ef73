"""What a run enriches with: catalogs, sky maps and models by path, bound to the pure stages in each process."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import models, surveys
from pipeline.catalogs import Catalog, open_catalog
from pipeline.dust import open_dust_map
from pipeline.errors import CatalogError
from pipeline.nights.recipe import Recipe
from pipeline.schema import column, key_of, schema_with
from pipeline.science import NIGHT, SCIENCE
from pipeline.science.registry import order
from pipeline.skymap import SkyMap
from pipeline.stages import exposures, host, luminosity
from pipeline.stages import skymap as skymap_stage
from pipeline.stages import xmatch as xmatch_stage
from pipeline.stages.groups import Group, filter_groups, lib_versions, science_group
from pipeline.tables import FLAT


def describe(recipe: Recipe, definitions: Mapping[str, str]) -> dict[str, Any]:
    """Return what the ledger tells of each column group: version, key of its definition, digests, columns.

    Of a sky map also which version of its event it is, where it came from the archive's events.
    """
    told: dict[str, Any] = {
        group.name: {
            "version": group.version,
            "key": definitions[group.name],
            "digests": dict(group.digests),
            "columns": [item.name for item in group.produces],
        }
        for group in bound_groups(recipe)
    }
    for source in recipe.skymaps:
        if source.version is not None:
            told[f"skymap_{source.event}"] |= {"event_version": source.version, "notice": source.notice}
    return told


@lru_cache(maxsize=8)
def bound_groups(recipe: Recipe) -> tuple[Group, ...]:
    """Return the recipe's column groups in the order they run; opened once in each process."""
    catalogs = [_opened(path, digest) for _, path, digest in recipe.catalogs]
    shared = xmatch_stage.OnePass()
    groups = [_catalog_group(catalog, shared) for catalog in catalogs]
    hosts = [catalog for catalog in catalogs if catalog.declaration.host is not None]
    if hosts:
        groups.append(host.group(hosts))
        if recipe.luminosity:
            dust = None if recipe.dust_map is None else open_dust_map(recipe.dust_map)
            groups.append(luminosity.group(surveys.get(recipe.survey).passbands, dust))
    maps = [source.open() for source in recipe.skymaps]
    groups += [_skymap_group(skymap, has_host=bool(hosts)) for skymap in maps]
    groups.append(_nearest_map_group(maps))
    loaded = {name: models.load(name, Path(path) if path else None) for name, path, _ in recipe.models}
    for module in SCIENCE.values():
        if "model" not in module.resources:
            groups.append(science_group(module, {}, {}))
        elif module.name in loaded:
            model = loaded[module.name]
            groups.append(science_group(module, {"model": model}, {"model": model.digest}))
    available = set(FLAT.names) | {item.name for group in groups for item in group.produces}
    groups += filter_groups(available)
    return tuple(order(groups))


def _opened(path: str, digest: str) -> Catalog:
    catalog = open_catalog(path)
    if catalog.digest != digest:
        raise CatalogError(f"catalog {catalog.name} was built anew while the run was going on", mend="run again")
    return catalog


def _catalog_group(catalog: Catalog, shared: xmatch_stage.OnePass) -> Group:
    declaration = catalog.declaration

    def run(alerts: pa.Table) -> pa.Table:
        return xmatch_stage.match(alerts, catalog, declaration, shared)

    produces = tuple(xmatch_stage.produces(declaration))
    requires = xmatch_stage.requires(declaration)
    return _group(f"xmatch_{catalog.name}", xmatch_stage.VERSION, requires, produces, run, catalog.digest)


def _skymap_group(skymap: SkyMap, *, has_host: bool) -> Group:
    def run(alerts: pa.Table) -> pa.Table:
        return skymap_stage.match(alerts, skymap)

    produces = tuple(skymap_stage.produces(skymap))
    requires = skymap_stage.requires(skymap, has_host=has_host)
    return _group(f"skymap_{skymap.event}", skymap_stage.VERSION, requires, produces, run, skymap.digest)


def _nearest_map_group(skymaps: Sequence[SkyMap]) -> Group:
    """Return the group that gives each alert the sky map in which it lies at the lowest credible level."""
    produces = (
        column("skymap_min_credible_level", pa.float64(), doc="lowest credible level over all sky maps of the run"),
        column("skymap_best_event", pa.string(), doc="the event of that sky map; of equal ones the first by name"),
    )
    events = sorted(skymap.event for skymap in skymaps)
    names = tuple(f"skymap_{event}_credible_level" for event in events)

    def run(table: pa.Table) -> pa.Table:
        if not names:
            return pa.table([pa.nulls(table.num_rows, item.type) for item in produces], schema=pa.schema(produces))
        levels = np.stack([table.column(name).to_numpy(zero_copy_only=False) for name in names])
        known = ~np.isnan(levels).all(axis=0)
        best = np.argmin(np.where(np.isnan(levels), np.inf, levels), axis=0)
        lowest = levels[best, np.arange(levels.shape[1])]
        return pa.table(
            [
                pa.array(lowest, pa.float64(), mask=~known),
                pa.array(np.array(events, dtype=object)[best], pa.string(), mask=~known),
            ],
            schema=pa.schema(produces),
        )

    return Group("skymap_best", 1, names or ("alert_id",), produces, run)


def _group(
    name: str,
    version: int,
    requires: tuple[str, ...],
    produces: tuple[pa.Field, ...],
    run: Callable[[pa.Table], pa.Table],
    digest: str,
) -> Group:
    return Group(name, version, tuple(requires), produces, run, digests={"resource": digest})


def definitions(recipe: Recipe) -> dict[str, str]:
    """Return the definition key of each column group by name."""
    return {group.name: group.definition for group in bound_groups(recipe)}


def night_definitions() -> dict[str, str]:
    """Return the definition key of whatever is made of a whole night, by name."""
    modules = {
        name: key_of(name, module.version, module.requires, module.produces, lib_versions(module.libs))
        for name, module in NIGHT.items()
    }
    return {"exposures": key_of(exposures.VERSION, exposures.REQUIRES), **dict(sorted(modules.items()))}


@lru_cache(maxsize=8)
def science_schema(recipe: Recipe) -> pa.Schema:
    """Return the schema of the science dataset: the flat alert columns, then what each group gives."""
    schema = FLAT
    for group in bound_groups(recipe):
        schema = schema_with(schema, group.produces)
    return schema
