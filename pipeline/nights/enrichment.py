"""What a run enriches with: catalogs, sky maps and models by path, bound to the pure stages in each process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import models
from pipeline.catalogs import Catalog, open_catalog
from pipeline.config import Config
from pipeline.errors import CatalogError, InputError
from pipeline.schema import column, key_of, schema_with
from pipeline.science import NIGHT, SCIENCE
from pipeline.science.registry import order
from pipeline.skymap import SkyMap
from pipeline.skymaps import read_skymap
from pipeline.stages import exposures
from pipeline.stages import skymap as skymap_stage
from pipeline.stages import xmatch as xmatch_stage
from pipeline.stages.groups import Group, filter_groups, lib_versions, science_group
from pipeline.tables import FLAT


@dataclass(frozen=True)
class Recipe:
    """Where the resources stand, with the digest each had when the run was prepared. Picklable, hashable.

    Attributes
    ----------
    catalogs, skymaps, models : tuple of (name, path, digest)
        A model's path is empty for one that is shipped.
    """

    catalogs: tuple[tuple[str, str, str], ...]
    skymaps: tuple[tuple[str, str, str], ...]
    models: tuple[tuple[str, str, str], ...]

    def describe(self, definitions: dict[str, str]) -> dict[str, Any]:
        """Return what the ledger tells of each column group: version, key of its definition, digests."""
        return {
            group.name: {
                "version": group.version,
                "key": definitions[group.name],
                "digests": dict(group.digests),
                "columns": [item.name for item in group.produces],
            }
            for group in bound_groups(self)
        }


def make_recipe(config: Config) -> Recipe:
    """Find and open everything a run enriches with.

    Raises
    ------
    CatalogError
        A catalog, sky map or model is absent or damaged.
    InputError
        One is given twice, or not as NAME=PATH where that is needed.
    """
    folder = Path(config.catalog_folder or Path(config.root) / "catalogs")
    catalogs = []
    for name, path in _named(config.catalogs, "catalog"):
        catalog = open_catalog(Path(path) if path else folder / name)
        if catalog.name != name:
            raise CatalogError(f"{path or folder / name} holds catalog {catalog.name}, not {name}", mend="name it so")
        catalogs.append((name, str(catalog.path), catalog.digest))
    skymaps = []
    for event, path in _named(config.skymaps, "skymap"):
        if path is None:
            raise InputError(f"sky map {event!r} has no file", mend="write EVENT=FILE")
        read_skymap(path, event)
        skymaps.append((event, str(Path(path).absolute()), _sha256(path)))
    chosen = []
    for name, path in _named(config.models, "model"):
        model = models.load(name, None if path is None else Path(path))
        chosen.append((name, "" if path is None else str(Path(path).absolute()), model.digest))
    recipe = Recipe(tuple(catalogs), tuple(skymaps), tuple(chosen))
    missing = sorted({resource for module in SCIENCE.values() for resource in module.resources} - {"model"})
    if missing:
        raise InputError(f"science modules want resources that no setting gives: {', '.join(missing)}")
    return recipe


def _named(items: tuple[str, ...], what: str) -> list[tuple[str, str | None]]:
    pairs = [(name, path or None) for name, _, path in (item.partition("=") for item in items)]
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or "" in names:
        raise InputError(f"{what} {', '.join(twice) or '(without a name)'} is given twice or without a name")
    return pairs


def _sha256(path: str) -> str:
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=8)
def bound_groups(recipe: Recipe) -> tuple[Group, ...]:
    """Return the recipe's column groups in the order they run; opened once in each process."""
    groups = [_catalog_group(open_catalog(path), digest) for _, path, digest in recipe.catalogs]
    maps = [(read_skymap(path, event), digest) for event, path, digest in recipe.skymaps]
    groups += [_skymap_group(skymap, digest) for skymap, digest in maps]
    groups.append(_nearest_map_group([skymap for skymap, _ in maps]))
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


def _catalog_group(catalog: Catalog, digest: str) -> Group:
    declaration = catalog.declaration

    def run(alerts: pa.Table) -> pa.Table:
        return xmatch_stage.match(alerts, catalog, declaration)

    produces = tuple(xmatch_stage.produces(declaration))
    return _group(f"xmatch_{catalog.name}", xmatch_stage.VERSION, xmatch_stage.REQUIRES, produces, run, digest)


def _skymap_group(skymap: SkyMap, digest: str) -> Group:
    def run(alerts: pa.Table) -> pa.Table:
        return skymap_stage.match(alerts, skymap)

    produces = tuple(skymap_stage.produces(skymap))
    return _group(f"skymap_{skymap.event}", skymap_stage.VERSION, skymap_stage.REQUIRES, produces, run, digest)


def _nearest_map_group(skymaps: list[SkyMap]) -> Group:
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
