"""Declaration and registry of science modules and night modules.

A module is a pure function on Arrow tables. Its declaration says what it reads and what it adds; the runner passes only
the columns it declares, and what it returns must have exactly the declared schema.
"""

from __future__ import annotations

import functools
import graphlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from pipeline.errors import SchemaError
from pipeline.schema import conform
from pipeline.tables import LINKS

Function = TypeVar("Function", bound=Callable[..., pa.Table])


@dataclass(frozen=True)
class ScienceModule:
    """What a science or night module declares.

    Attributes
    ----------
    name : str
        Name of the function.
    version : int
        Raised whenever the numbers change; part of the key of the columns.
    function : callable
        ``function(alerts, **resources) -> pyarrow.Table``.
    requires : tuple of str
        Columns it reads: of ``alerts``, or produced by other modules.
    produces : tuple of pyarrow.Field
        Columns it adds, in order.
    libs : tuple of str
        Distributions whose version changes the numbers.
    resources : tuple of str
        Keyword arguments the runner must pass: a model, a catalog, a sky map.
    """

    name: str
    version: int
    function: Callable[..., pa.Table]
    requires: tuple[str, ...]
    produces: tuple[pa.Field, ...]
    libs: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        """The schema of what the function returns."""
        return pa.schema(self.produces)


SCIENCE: dict[str, ScienceModule] = {}
"""Science modules by name: one row in, one row out, in order."""

NIGHT: dict[str, ScienceModule] = {}
"""Night modules by name: the flat columns of a night in, rows of ``links`` out."""


def science_module(
    *,
    version: int,
    requires: Sequence[str],
    produces: Sequence[pa.Field],
    libs: Sequence[str] = (),
    resources: Sequence[str] = (),
) -> Callable[[Function], Function]:
    """Register a science module and return its function unchanged (so that it pickles by reference).

    Parameters
    ----------
    version : int
        From 1.
    requires : sequence of str
        Columns read.
    produces : sequence of pyarrow.Field
        Columns returned, in order; the table returned has the rows of its argument, in their order.
    libs, resources : sequence of str
        See :class:`ScienceModule`.
    """
    return _registering(SCIENCE, version, requires, tuple(produces), libs, resources)


def night_module(
    *,
    version: int,
    requires: Sequence[str],
    produces: Sequence[pa.Field] = (),
    libs: Sequence[str] = (),
    resources: Sequence[str] = (),
) -> Callable[[Function], Function]:
    """Register a night module and return its function unchanged.

    Parameters
    ----------
    version : int
        From 1.
    requires : sequence of str
        Flat columns read, about 64 bytes an alert at most.
    produces : sequence of pyarrow.Field
        Columns beside those of :data:`pipeline.tables.LINKS`; rows come sorted by (module, link_id, alert_id).
    libs, resources : sequence of str
        See :class:`ScienceModule`.
    """
    return _registering(NIGHT, version, requires, (*LINKS, *produces), libs, resources)


def _registering(
    registry: dict[str, ScienceModule],
    version: int,
    requires: Sequence[str],
    produces: tuple[pa.Field, ...],
    libs: Sequence[str],
    resources: Sequence[str],
) -> Callable[[Function], Function]:
    def register(function: Function) -> Function:
        name = function.__name__
        if name in registry:
            raise ValueError(f"module {name} is registered twice")
        registry[name] = ScienceModule(
            name, version, function, tuple(requires), produces, tuple(libs), tuple(resources)
        )
        return function

    return register


class Declared(Protocol):
    """What has a name, reads columns and gives columns."""

    @property
    def name(self) -> str:
        """Unique name."""

    @property
    def requires(self) -> tuple[str, ...]:
        """Columns it reads."""

    @property
    def produces(self) -> tuple[pa.Field, ...]:
        """Columns it gives."""


Item = TypeVar("Item", bound=Declared)


def order(items: Iterable[Item]) -> list[Item]:
    """Return modules or column groups so that each stands after those whose columns it requires; ties by name.

    Raises
    ------
    SchemaError
        Two have one name or produce one column, or they require each other in a circle.
    """
    by_name: dict[str, Item] = {}
    producer: dict[str, str] = {}
    for item in items:
        if item.name in by_name:
            raise SchemaError(f"two modules are called {item.name}")
        by_name[item.name] = item
        for field in item.produces:
            if field.name in producer:
                raise SchemaError(f"modules {producer[field.name]} and {item.name} both produce {field.name}")
            producer[field.name] = item.name
    sorter = graphlib.TopologicalSorter(
        {item.name: {producer[name] for name in item.requires if name in producer} for item in by_name.values()}
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise SchemaError(f"modules require each other in a circle: {' -> '.join(error.args[1])}") from error
    ordered: list[Item] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered.extend(by_name[name] for name in ready)
        sorter.done(*ready)
    return ordered


def checked(
    name: str, run: Callable[[pa.Table], pa.Table], table: pa.Table, requires: Sequence[str], schema: pa.Schema
) -> pa.Table:
    """Run a function on the columns it declares and hold what it returns to the declared schema.

    Raises
    ------
    SchemaError
        A required column is missing, or the result is not what was declared.
    """
    missing = [column for column in requires if column not in table.column_names]
    if missing:
        raise SchemaError(f"module {name} requires column {', '.join(missing)}, which is not there")
    return conform(run(table.select(list(requires))), schema, dataset=name)


def apply(module: ScienceModule, alerts: pa.Table, **resources: Any) -> pa.Table:
    """Run one module on the columns it declares and hold it to its declaration.

    Parameters
    ----------
    module : ScienceModule
        Of :data:`SCIENCE` or :data:`NIGHT`.
    alerts : pyarrow.Table
        Any table that has the required columns.
    **resources
        Exactly the resources the module names.

    Returns
    -------
    pyarrow.Table
        Exactly ``module.schema``.

    Raises
    ------
    SchemaError
        A required column or resource is missing, or the result is not what was declared.
    """
    if set(resources) != set(module.resources):
        raise SchemaError(f"module {module.name} takes the resources {list(module.resources)}, not {list(resources)}")
    run = functools.partial(module.function, **resources)
    result = checked(module.name, run, alerts, module.requires, module.schema)
    if SCIENCE.get(module.name) is module and result.num_rows != alerts.num_rows:
        raise SchemaError(f"module {module.name} made {result.num_rows} rows of {alerts.num_rows}")
    return result
