"""Registry of science modules: order, and what applying one checks."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from pipeline.errors import SchemaError
from pipeline.schema import column
from pipeline.science import SCIENCE, ScienceModule, apply, order, science_module


def module(name: str, requires: list[str], produces: list[str], **more: Any) -> ScienceModule:
    def function(alerts: pa.Table, **resources: Any) -> pa.Table:
        return pa.table({one: pa.nulls(alerts.num_rows, pa.float64()) for one in produces})

    fields = tuple(column(one, pa.float64()) for one in produces)
    return ScienceModule(name, 1, function, tuple(requires), fields, **more)


def test_modules_come_after_what_they_require() -> None:
    modules = [
        module("a", ["y"], ["z"]),
        module("b", ["x"], ["y"]),
        module("c", ["mjd"], ["x"]),
        module("d", [], ["w"]),
    ]
    for given in (modules, modules[::-1]):
        assert [one.name for one in order(given)] == ["c", "d", "b", "a"]
    assert [one.name for one in order(SCIENCE.values())][-1] == "supernova"


def test_circles_and_two_producers_are_named() -> None:
    with pytest.raises(SchemaError, match="in a circle: "):
        order([module("a", ["y"], ["x"]), module("b", ["x"], ["y"])])
    with pytest.raises(SchemaError, match="a and b both produce x"):
        order([module("a", [], ["x"]), module("b", [], ["x"])])


def test_applying_holds_a_module_to_its_declaration() -> None:
    table = pa.table({"mjd": [1.0, 2.0], "secret": [1, 2]})
    assert apply(module("a", ["mjd"], ["x"]), table).column_names == ["x"]
    with pytest.raises(SchemaError, match="requires column flux"):
        apply(module("a", ["flux"], ["x"]), table)
    with pytest.raises(SchemaError, match="takes the resources"):
        apply(module("a", ["mjd"], ["x"], resources=("model",)), table)
    wrong = module("a", ["mjd"], ["x"])
    with pytest.raises(SchemaError, match="is missing"):
        apply(ScienceModule("a", 1, wrong.function, ("mjd",), (column("y", pa.float64()),)), table)


def test_registration_returns_the_function_and_refuses_a_second() -> None:
    try:

        @science_module(version=1, requires=["mjd"], produces=[column("clf_x", pa.float64())])
        def halved(alerts: pa.Table) -> pa.Table:
            return pa.table({"clf_x": alerts.column("mjd").slice(1)})

        assert SCIENCE["halved"].function is halved
        with pytest.raises(SchemaError, match="made 1 rows of 2"):
            apply(SCIENCE["halved"], pa.table({"mjd": [1.0, 2.0]}))
        with pytest.raises(ValueError, match="registered twice"):
            science_module(version=2, requires=[], produces=[])(halved)
    finally:
        SCIENCE.pop("halved", None)
