"""Declaration and registry of science modules and night modules.

A module is a pure function on Arrow tables. Its declaration says what it reads and what it adds; the runner passes only
the columns it declares, and what it returns must have exactly the declared schema.
"""

from __future__ import annotations

import graphlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

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


def order(modules: Iterable[ScienceModule]) -> list[ScienceModule]:
    """Return the modules so that each stands after those whose columns it requires; ties by name.

    Raises
    ------
    SchemaError
        Two modules produce one column, or modules require each other in a circle.
    """
    by_name = {module.name: module for module in modules}
    producer: dict[str, str] = {}
    for module in by_name.values():
        for field in module.produces:
            if field.name in producer:
                raise SchemaError(f"modules {producer[field.name]} and {module.name} both produce {field.name}")
            producer[field.name] = module.name
    sorter = graphlib.TopologicalSorter(
        {module.name: {producer[name] for name in module.requires if name in producer} for module in by_name.values()}
    )
    try:
        sorter.prepare()
    except graphlib.CycleError as error:
        raise SchemaError(f"modules require each other in a circle: {' -> '.join(error.args[1])}") from error
    ordered: list[ScienceModule] = []
    while sorter.is_active():
        ready = sorted(sorter.get_ready())
        ordered.extend(by_name[name] for name in ready)
        sorter.done(*ready)
    return ordered


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
    missing = [name for name in module.requires if name not in alerts.column_names]
    if missing:
        raise SchemaError(f"module {module.name} requires column {', '.join(missing)}, which is not there")
    if set(resources) != set(module.resources):
        raise SchemaError(f"module {module.name} takes the resources {list(module.resources)}, not {list(resources)}")
    result = conform(module.function(alerts.select(module.requires), **resources), module.schema, dataset=module.name)
    if SCIENCE.get(module.name) is module and result.num_rows != alerts.num_rows:
        raise SchemaError(f"module {module.name} made {result.num_rows} rows of {alerts.num_rows}")
    return result
