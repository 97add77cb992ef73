"""Column groups: what enrichment computes at once, as bound pure functions.

A cross-match with one catalog, one sky map, one science module with its model, one filter: each is a group with a name,
a version, the columns it reads and the columns it gives. Enrichment is nothing but their ordered application.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache

import pyarrow as pa

from pipeline import filters
from pipeline.errors import SchemaError
from pipeline.schema import column, key_of
from pipeline.science.registry import ScienceModule, checked


@dataclass(frozen=True)
class Group:
    """One column group.

    Parameters
    ----------
    name : str
        Unique within a release.
    version : int
        Raised whenever its numbers change.
    requires : tuple of str
        Columns read: of ``alerts`` or of other groups.
    produces : tuple of pyarrow.Field
        Columns given.
    run : callable
        ``run(table) -> table`` with exactly ``produces``, same rows; ``table`` has only ``requires``.
    libs : tuple of str
        Distributions whose version may change the numbers.
    digests : mapping
        Digest of each model, catalog or sky map it is bound to.
    """

    name: str
    version: int
    requires: tuple[str, ...]
    produces: tuple[pa.Field, ...]
    run: Callable[[pa.Table], pa.Table]
    libs: tuple[str, ...] = ()
    digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def definition(self) -> str:
        """Key of the definition: everything but the data."""
        return key_of(
            self.name, self.version, self.requires, self.produces, lib_versions(self.libs), dict(self.digests)
        )

    def key(self, content: Mapping[str, str]) -> str:
        """Return the key of this group over columns with these content hashes (ARCHITECTURE, determinism and keys)."""
        return key_of(self.definition, [content[name] for name in self.requires])


@lru_cache
def lib_versions(distributions: tuple[str, ...]) -> dict[str, str]:
    """Return the installed version of each distribution."""
    return {name: importlib.metadata.version(name) for name in distributions}


def apply(group: Group, table: pa.Table) -> pa.Table:
    """Run one group over the columns it requires and append what it gives.

    Raises
    ------
    SchemaError
        A required column is absent, or the result is not what was declared.
    """
    out = checked(group.name, group.run, table, group.requires, pa.schema(group.produces))
    if out.num_rows != table.num_rows:
        raise SchemaError(f"{group.name} made {out.num_rows} rows of {table.num_rows}")
    for item, data in zip(out.schema, out.columns, strict=True):
        table = table.append_column(item, data)
    return table


def science_group(module: ScienceModule, resources: Mapping[str, object], digests: Mapping[str, str]) -> Group:
    """Bind a science module to its resources (a model, a table)."""

    def run(alerts: pa.Table) -> pa.Table:
        return module.function(alerts, **resources)

    return Group(
        module.name,
        module.version,
        tuple(module.requires),
        tuple(module.produces),
        run,
        tuple(module.libs),
        dict(digests),
    )


def filter_groups(available: set[str]) -> list[Group]:
    """Return one group a registered filter; a filter whose columns are not all available passes nothing.

    A filter that needs a sky map, in a run without one, is a filter that nothing passes: its column is there and False,
    so that a release keeps one schema.
    """
    groups = []
    for item in filters.FILTERS.values():
        produces = (column(f"filter_{item.name}", pa.bool_(), nullable=False, doc=item.description),)
        requires = tuple(item.requires) if set(item.requires) <= available else ("alert_id",)
        groups.append(
            Group(
                f"filter_{item.name}",
                item.version,
                requires,
                produces,
                _filter_run(item.name, set(item.requires) <= available),
            )
        )
    return groups


def _filter_run(name: str, is_applicable: bool) -> Callable[[pa.Table], pa.Table]:
    def run(table: pa.Table) -> pa.Table:
        if is_applicable:
            passed = pa.array(filters.passes(name, table), pa.bool_())
        else:
            passed = pa.repeat(pa.scalar(False), table.num_rows)
        return pa.table({f"filter_{name}": passed})

    return run
