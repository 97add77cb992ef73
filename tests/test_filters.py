"""Filters: the registry's rules, and each filter on rows made by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from pipeline.errors import InputError, SchemaError
from pipeline.filters import FILTERS, passes
from pipeline.filters.blocks import all_of, is_not_injected, is_on_star, is_real
from pipeline.filters.registry import alert_filter
from pipeline.tables import FLAT

SUPERNOVA = {
    "clf_supernova_class": "supernova",
    "skymap_min_credible_level": 0.3,
    "mjd": 60003.0,
    "first_mjd": 60000.0,
    "n_detections": 3,
    "is_positive": True,
    "reliability": 0.9,
    "reference_separation_arcsec": 4.0,
    "star_score": 0.1,
    "star_separation_arcsec": 2.0,
    "is_solar_system": False,
    "is_glint_flagged": None,
    "is_injected": None,
}
TYPES = {field.name: field.type for field in FLAT} | {
    "clf_supernova_class": pa.string(),
    "skymap_min_credible_level": pa.float64(),
}


def row(**changes: Any) -> pa.Table:
    values = SUPERNOVA | changes
    return pa.table({name: pa.array([value], TYPES[name]) for name, value in values.items()})


@pytest.mark.parametrize("name", ["supernova_candidate", "kilonova_in_skymap", "new_transient"])
def test_a_young_transient_passes(name: str) -> None:
    assert passes(name, row()).tolist() == [True]


@pytest.mark.parametrize("name", ["supernova_candidate", "kilonova_in_skymap", "new_transient"])
@pytest.mark.parametrize(
    "changes",
    [
        {"is_positive": False},
        {"is_positive": None},
        {"reliability": 0.4},
        {"reliability": None},
        {"is_solar_system": True},
        {"is_injected": True},
        {"star_score": 0.99, "star_separation_arcsec": 0.3},
        {"first_mjd": None},
        {"first_mjd": 59000.0},
    ],
    ids=str,
)
def test_what_is_not_a_young_transient_does_not_pass(name: str, changes: dict[str, Any]) -> None:
    assert passes(name, row(**changes)).tolist() == [False]


@pytest.mark.parametrize(
    ("name", "changes", "expected"),
    [
        ("supernova_candidate", {"clf_supernova_class": "other"}, False),
        ("supernova_candidate", {"clf_supernova_class": None}, False),
        ("supernova_candidate", {"first_mjd": 59900.0}, True),
        ("kilonova_in_skymap", {"skymap_min_credible_level": 0.9}, True),
        ("kilonova_in_skymap", {"skymap_min_credible_level": 0.91}, False),
        ("kilonova_in_skymap", {"skymap_min_credible_level": None}, False),
        ("kilonova_in_skymap", {"first_mjd": 59997.0}, False),
        ("kilonova_in_skymap", {"n_detections": 1}, False),
        ("kilonova_in_skymap", {"n_detections": 2, "is_glint_flagged": False}, True),
        ("kilonova_in_skymap", {"n_detections": 2, "is_glint_flagged": True}, False),
        ("new_transient", {"n_detections": 1}, False),
        ("new_transient", {"n_detections": 6}, False),
        ("new_transient", {"reference_separation_arcsec": 1.0}, False),
        ("new_transient", {"reference_separation_arcsec": None}, True),
        ("new_transient", {"star_score": None, "star_separation_arcsec": None}, True),
        ("solar_system", {"is_solar_system": True}, True),
        ("solar_system", {}, False),
        ("solar_system", {"is_solar_system": True, "is_injected": True}, False),
    ],
)
def test_the_cuts_of_each_filter(name: str, changes: dict[str, Any], expected: bool) -> None:
    assert passes(name, row(**changes)).tolist() == [expected]


def test_blocks_keep_the_unknown_unknown() -> None:
    values = pa.array([0.9, 0.2, None])
    assert is_real(values).to_pylist() == [True, False, None]
    assert is_on_star(values, pa.array([1.0, 1.0, 1.0])).to_pylist() == [True, False, False]
    assert is_not_injected(pa.array([True, False, None])).to_pylist() == [False, True, True]
    three = pa.array([True, None, None]), pa.array([None, None, False])
    assert all_of(*three).to_pylist() == [None, None, False]


@pytest.fixture
def registered() -> Any:
    before = dict(FILTERS)
    yield FILTERS
    FILTERS.clear()
    FILTERS.update(before)


def test_the_arguments_choose_the_columns_and_null_is_not_passed(registered: dict[str, Any]) -> None:
    @alert_filter(version=2, description="Brighter than eighteen")
    def bright(diff_mag: pa.Array) -> pa.Array:
        return pc.less(diff_mag, 18.0)

    item = registered["bright"]
    assert (item.version, item.requires, item.function) == (2, ("diff_mag",), bright)
    table = pa.table({"diff_mag": pa.chunked_array([[17.0, None], [19.0]]), "other": [1, 2, 3]})
    assert passes("bright", table).tolist() == [True, False, False]
    with pytest.raises(SchemaError, match="requires column diff_mag"):
        passes("bright", table.drop(["diff_mag"]))
    with pytest.raises(ValueError, match="twice"):
        alert_filter(version=1, description="again")(bright)


def test_a_filter_must_answer_for_every_row(registered: dict[str, Any]) -> None:
    @alert_filter(version=1, description="Numbers, not booleans")
    def numbers(diff_mag: pa.Array) -> pa.Array:
        return diff_mag

    @alert_filter(version=1, description="One boolean too few")
    def short(diff_mag: pa.Array) -> np.ndarray:
        return np.ones(len(diff_mag) - 1, dtype=bool)

    @alert_filter(version=1, description="numpy is as good as Arrow")
    def even(diff_mag: pa.Array) -> np.ndarray:
        return np.arange(len(diff_mag)) % 2 == 0

    table = pa.table({"diff_mag": [1.0, 2.0]})
    with pytest.raises(SchemaError, match="not booleans"):
        passes("numbers", table)
    with pytest.raises(SchemaError, match="one boolean for each of 2"):
        passes("short", table)
    assert passes("even", table).tolist() == [True, False]
    with pytest.raises(InputError, match="no filter 'absent'"):
        passes("absent", table)
