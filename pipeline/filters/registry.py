"""Declaration and registry of filters: named selections of alerts."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError, SchemaError

Function = TypeVar("Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class AlertFilter:
    """A registered filter.

    Attributes
    ----------
    name : str
        Name of the function; the science dataset has the column ``filter_<name>``.
    version : int
        Raised whenever the selection changes.
    description : str
        One line for lists and reports.
    requires : tuple of str
        Columns of ``science`` it reads: the names of the function's arguments.
    function : callable
        Takes one Arrow array a column and returns one boolean a row.
    """

    name: str
    version: int
    description: str
    requires: tuple[str, ...]
    function: Callable[..., Any]


FILTERS: dict[str, AlertFilter] = {}
"""Filters by name."""


def alert_filter(*, version: int, description: str) -> Callable[[Function], Function]:
    """Register a filter and return its function unchanged.

    The names of the arguments choose the columns: ``def bright(diff_mag): ...`` reads ``diff_mag``.

    Parameters
    ----------
    version : int
        From 1.
    description : str
        One line.
    """

    def register(function: Function) -> Function:
        name = function.__name__
        if name in FILTERS:
            raise ValueError(f"filter {name} is registered twice")
        requires = tuple(inspect.signature(function).parameters)
        FILTERS[name] = AlertFilter(name, version, description, requires, function)
        return function

    return register


def passes(name: str, table: pa.Table) -> NDArray[np.bool_]:
    """Return which rows pass a filter.

    A row passes only where the filter says True: null is not passed, so that a filter and its negation part any table
    in two.

    Parameters
    ----------
    name : str
        Filter.
    table : pyarrow.Table
        Has at least the columns the filter requires.

    Returns
    -------
    numpy.ndarray of bool, shape (n,)

    Raises
    ------
    InputError
        There is no such filter.
    SchemaError
        A column is missing, or the filter did not return one boolean a row.
    """
    if name not in FILTERS:
        raise InputError(f"there is no filter {name!r}", mend=f"known: {', '.join(sorted(FILTERS))}")
    item = FILTERS[name]
    missing = [column for column in item.requires if column not in table.column_names]
    if missing:
        raise SchemaError(f"filter {name} requires column {', '.join(missing)}, which is not there")
    result = item.function(*(table.column(column).combine_chunks() for column in item.requires))
    if isinstance(result, (pa.Array, pa.ChunkedArray)):
        if not pa.types.is_boolean(result.type):
            raise SchemaError(f"filter {name} returned {result.type}, not booleans")
        result = pc.fill_null(result, False).to_numpy(zero_copy_only=False)
    passed = np.asarray(result)
    if passed.dtype != np.bool_ or passed.shape != (table.num_rows,):
        raise SchemaError(f"filter {name} did not return one boolean for each of {table.num_rows} rows")
    return passed
