"""Laws that hold for every science module, night module and filter, run over the registries."""

from __future__ import annotations

import inspect
import pickle
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import GOLDEN, alerts, all_null, frozen_alerts, synthetic_alerts

import pipeline.filters
import pipeline.science
from pipeline import models
from pipeline.filters import FILTERS, passes
from pipeline.schema import column, content_hashes
from pipeline.science import NIGHT, SCIENCE, apply, order
from pipeline.science.registry import ScienceModule
from pipeline.tables import ALERTS, FLAT, LINKS

MODULES = sorted(SCIENCE)
FILTER_NAMES = sorted(FILTERS)
NO_MODULE = {"__init__", "registry"}
NO_FILTER = {"__init__", "registry", "blocks", "conditions"}
OTHER_COLUMNS = [column("skymap_min_credible_level", pa.float64())]
"""Columns that other stages give and filters read."""

few = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def resources(module: ScienceModule) -> dict[str, Any]:
    return {"model": models.load(module.name)} if "model" in module.resources else {}


def run(name: str, table: pa.Table) -> pa.Table:
    return apply(SCIENCE[name], table, **resources(SCIENCE[name]))


def enriched(table: pa.Table) -> pa.Table:
    """Return the table with the columns of every module, and of other stages, appended."""
    for module in order(SCIENCE.values()):
        result = run(module.name, table)
        for field, data in zip(result.schema, result.columns, strict=True):
            table = table.append_column(field, data)
    level = np.random.Generator(np.random.Philox(key=1)).random(table.num_rows)
    for field in OTHER_COLUMNS:
        table = table.append_column(field, pa.array(level, mask=level > 0.8))
    return table


def with_inputs(name: str, table: pa.Table) -> pa.Table:
    """Return the table with the columns that a module requires of others."""
    for module in order(SCIENCE.values()):
        if module.name == name:
            break
        if set(module.schema.names) & set(SCIENCE[name].requires):
            result = run(module.name, table)
            for field, data in zip(result.schema, result.columns, strict=True):
                table = table.append_column(field, data)
    return table


def cut(table: pa.Table, where: int) -> tuple[pa.Table, pa.Table]:
    return table.slice(0, where), table.slice(where)


# ------------------------------------------------------------------------------------------ science modules
@pytest.mark.parametrize("name", MODULES)
@few
@given(table=alerts(), where=st.integers(0, 12))
def test_a_module_does_not_see_how_the_night_is_cut(name: str, table: pa.Table, where: int) -> None:
    table = with_inputs(name, table)
    whole = run(name, table)
    first, second = cut(table, min(where, table.num_rows))  # slices: Arrow offsets other than zero
    assert pa.concat_tables([run(name, first), run(name, second)]).combine_chunks().equals(whole.combine_chunks())
    chunked = pa.concat_tables([first, second])
    assert run(name, chunked).combine_chunks().equals(whole.combine_chunks())


@pytest.mark.parametrize("name", MODULES)
@few
@given(table=alerts(), seed=st.integers(0, 99))
def test_a_module_follows_the_order_of_the_rows(name: str, table: pa.Table, seed: int) -> None:
    table = with_inputs(name, table)
    shuffle = pa.array(np.random.default_rng(seed).permutation(table.num_rows))
    assert run(name, table.take(shuffle)).equals(run(name, table).take(shuffle).combine_chunks())


@pytest.mark.parametrize("name", MODULES)
@few
@given(table=alerts())
def test_a_module_keeps_its_declaration_and_its_input(name: str, table: pa.Table) -> None:
    table = with_inputs(name, table)
    before = content_hashes(table)
    result = run(name, table)  # holds the schema to the declaration
    assert result.num_rows == table.num_rows
    assert content_hashes(table) == before
    assert result.equals(run(name, table))
    for field, data in zip(result.schema, result.columns, strict=True):
        if pa.types.is_floating(field.type):
            assert np.isfinite(data.drop_null().to_numpy()).all(), f"{field.name} has a value that is not a number"


@pytest.mark.parametrize("name", MODULES)
def test_a_module_takes_no_rows_nulls_and_empty_light_curves(name: str) -> None:
    some = with_inputs(name, synthetic_alerts(9, seed=3))
    assert run(name, some.slice(0, 0)).num_rows == 0
    assert run(name, all_null(some)).num_rows == 9
    assert run(name, with_inputs(name, synthetic_alerts(9, seed=4, longest=0))).num_rows == 9


@pytest.mark.parametrize("name", MODULES)
def test_a_module_reads_only_what_it_requires(name: str) -> None:
    table = with_inputs(name, synthetic_alerts(20, seed=5))
    required = SCIENCE[name].requires
    assert set(required) <= set(table.column_names)
    bare = SCIENCE[name].function(table.select(required), **resources(SCIENCE[name]))
    assert bare.equals(SCIENCE[name].function(table, **resources(SCIENCE[name])))


@pytest.mark.parametrize("name", MODULES)
def test_a_module_gives_its_golden_output(name: str) -> None:
    result = run(name, with_inputs(name, frozen_alerts()))
    expected = pq.read_table(golden_file(name))
    assert result.column_names == expected.column_names
    for field, got, wanted in zip(expected.schema, result.columns, expected.columns, strict=True):
        assert got.is_null().equals(wanted.is_null()), f"{field.name}: nulls moved; raise the version of {name}"
        same = got.equals(wanted)
        if pa.types.is_floating(field.type):  # another CPU may round the last digit otherwise
            same = np.allclose(got.drop_null().to_numpy(), wanted.drop_null().to_numpy(), rtol=1e-6, atol=1e-9)
        assert same, f"{field.name} changed; raise the version of {name} and run write_golden.py"


def golden_file(name: str) -> Path:
    module = (SCIENCE | NIGHT)[name]
    model = "".join(f"-{one.digest[:8]}" for one in resources(module).values())
    return GOLDEN / f"{name}-v{module.version}{model}.parquet"


def test_golden_files_are_those_of_the_registry() -> None:
    held = {file.name for file in GOLDEN.glob("*.parquet")} - {"alerts.parquet", "night.parquet"}
    assert held == {golden_file(name).name for name in [*SCIENCE, *NIGHT]}


def test_the_frozen_alerts_are_what_they_were() -> None:
    table = frozen_alerts()
    assert table.num_rows == 60
    assert table.schema.equals(ALERTS)


# --------------------------------------------------------------------------------------------- registries
@pytest.mark.parametrize("module", [*SCIENCE.values(), *NIGHT.values()], ids=lambda m: m.name)
def test_a_module_pickles_by_reference_and_has_a_whole_card(module: ScienceModule) -> None:
    assert pickle.loads(pickle.dumps(module.function)) is module.function
    assert len(pickle.dumps(module.function)) < 200
    assert module.version >= 1
    card = inspect.getdoc(module.function) or ""
    for heading in ("What: ", "Minimum points: ", "Units: ", "Reference: ", "Surveys: "):
        assert heading in card, f"the card of {module.name} does not say {heading}"
    assert re.search(r"doi:10\.\d{4,}/\S+", card)
    for field in module.produces:
        assert (field.metadata or {}).get(b"doc"), f"{field.name} has no doc"


@pytest.mark.parametrize("module", [*SCIENCE.values(), *NIGHT.values()], ids=lambda m: m.name)
def test_resources_are_the_keyword_arguments(module: ScienceModule) -> None:
    parameters = inspect.signature(module.function).parameters.values()
    keywords = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    assert tuple(keywords) == module.resources
    assert len(parameters) == 1 + len(keywords)


def test_every_file_is_registered_and_columns_are_distinct() -> None:
    files = {file.stem for file in Path(pipeline.science.__file__).parent.glob("*.py")} - NO_MODULE
    assert files == set(SCIENCE) | set(NIGHT)
    files = {file.stem for file in Path(pipeline.filters.__file__).parent.glob("*.py")} - NO_FILTER
    assert files == set(FILTERS)
    produced = [field.name for module in SCIENCE.values() for field in module.produces]
    assert len(set(produced)) == len(produced)
    assert not set(produced) & set(ALERTS.names)
    prefixed = re.compile(r"(feat|clf)_[a-z0-9_]+")
    assert all(prefixed.fullmatch(name) for name in produced)


# -------------------------------------------------------------------------------------------- night modules
@pytest.mark.parametrize("name", sorted(NIGHT))
def test_a_night_module_depends_on_nothing_but_the_alerts(name: str) -> None:
    module, night = NIGHT[name], pq.read_table(GOLDEN / "night.parquet")
    whole = apply(module, night)
    assert whole.num_rows > 0
    for seed in range(3):
        shuffled = night.take(pa.array(np.random.default_rng(seed).permutation(night.num_rows)))
        assert apply(module, shuffled).equals(whole)
    assert apply(module, pa.concat_tables(cut(night, night.num_rows // 3))).equals(whole)
    assert apply(module, night.append_column("unrelated", pa.nulls(night.num_rows))).equals(whole)
    keys = [("module", "ascending"), ("link_id", "ascending"), ("alert_id", "ascending")]
    assert whole.sort_by(keys).equals(whole)
    assert set(whole.column("alert_id").to_pylist()) <= set(night.column("alert_id").to_pylist())
    expected = pq.read_table(golden_file(name))
    assert whole.drop(["score"]).equals(expected.drop(["score"]))
    assert np.allclose(whole.column("score").to_numpy(), expected.column("score").to_numpy(), rtol=1e-6)


@pytest.mark.parametrize("name", sorted(NIGHT))
def test_a_night_module_takes_no_rows_and_nulls_and_reads_little(name: str) -> None:
    module, some = NIGHT[name], synthetic_alerts(9, seed=6)
    assert module.schema.names[: len(LINKS)] == LINKS.names
    assert apply(module, some.slice(0, 0)).num_rows == 0
    assert apply(module, all_null(some)).num_rows <= 9
    assert set(module.requires) <= set(FLAT.names)
    width = sum(max(FLAT.field(name).type.bit_width / 8, 1) for name in module.requires)
    assert width <= 80


# ------------------------------------------------------------------------------------------------- filters
@pytest.mark.parametrize("name", FILTER_NAMES)
@few
@given(table=alerts(), where=st.integers(0, 12))
def test_a_filter_does_not_see_how_the_night_is_cut_and_parts_it_in_two(name: str, table: pa.Table, where: int) -> None:
    table = enriched(table)
    passed = passes(name, table)
    assert passed.dtype == np.bool_
    assert passed.shape == (table.num_rows,)
    first, second = cut(table, min(where, table.num_rows))
    assert (np.concatenate([passes(name, first), passes(name, second)]) == passed).all()
    assert (passes(name, table.select(FILTERS[name].requires)) == passed).all()
    unknown = pa.table({field.name: pa.nulls(table.num_rows, field.type) for field in table.schema})
    assert not passes(name, unknown).any()
    assert table.filter(pa.array(passed)).num_rows + table.filter(pa.array(~passed)).num_rows == table.num_rows


@pytest.mark.parametrize("name", FILTER_NAMES)
def test_a_filter_says_what_it_is(name: str) -> None:
    item = FILTERS[name]
    assert item.version >= 1
    assert 10 < len(item.description) <= 100
    assert inspect.getdoc(item.function)
    assert pickle.loads(pickle.dumps(item.function)) is item.function
    assert item.requires
