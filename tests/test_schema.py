"""Declared schemas, conformity, content hashes and keys."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError, PipelineError, SchemaError
from pipeline.schema import column, conform, content_hash, key_of

SCHEMA = pa.schema([column("id", pa.int64(), nullable=False), column("flux_njy", pa.float64(), unit="nJy", doc="flux")])

LISTS = st.lists(st.none() | st.lists(st.none() | st.floats(width=64), max_size=4), max_size=12)
STRUCTS = st.lists(
    st.none()
    | st.fixed_dictionaries({"band": st.none() | st.text(max_size=3), "mjd": st.lists(st.floats(), max_size=3)}),
    max_size=10,
)


def test_conform_orders_columns_and_gives_them_unit_and_doc() -> None:
    table = conform(pa.table({"flux_njy": [1.0], "id": pa.array([7], pa.int64())}), SCHEMA)
    assert table.column_names == ["id", "flux_njy"]
    assert table.schema.field("flux_njy").metadata == {b"unit": b"nJy", b"doc": b"flux"}


@pytest.mark.parametrize(
    ("table", "told"),
    [
        (pa.table({"id": pa.array([1], pa.int64())}), "flux_njy is missing"),
        (pa.table({"id": pa.array([1], pa.int64()), "flux_njy": [1.0], "x": [1]}), "x is not declared"),
        (pa.table({"id": pa.array([1], pa.int32()), "flux_njy": [1.0]}), "id is int32, declared int64"),
        (pa.table({"id": pa.array([None], pa.int64()), "flux_njy": [1.0]}), "id has 1 nulls"),
        (pa.table([[1], [1.0], [2.0]], names=["id", "flux_njy", "flux_njy"]), "more than once"),
    ],
)
def test_conform_refuses(table: pa.Table, told: str) -> None:
    with pytest.raises(SchemaError, match=told):
        conform(table, SCHEMA)


def _chunked(array: pa.Array, cut: int) -> pa.ChunkedArray:
    return pa.chunked_array([array.slice(0, cut), array.slice(cut)], array.type)


@given(LISTS, st.integers(0, 12))
def test_content_hash_of_lists_depends_on_values_alone(values: list, cut: int) -> None:
    array = pa.array(values, pa.list_(pa.float64()))
    padded = pa.concat_arrays([pa.array([[9.0], None], array.type), array, pa.array([[8.0]], array.type)])
    assert content_hash(array) == content_hash(_chunked(array, min(cut, len(array))))
    assert content_hash(array) == content_hash(padded.slice(2, len(array)))


@given(STRUCTS, st.integers(0, 10))
def test_content_hash_of_structs_depends_on_values_alone(values: list, cut: int) -> None:
    kind = pa.struct([("band", pa.string()), ("mjd", pa.list_(pa.float64()))])
    array = pa.array(values, kind)
    padded = pa.concat_arrays([pa.array([{"band": "x", "mjd": [1.0]}], kind), array])
    assert content_hash(array) == content_hash(_chunked(array, min(cut, len(array))))
    assert content_hash(array) == content_hash(padded.slice(1))


@given(LISTS, LISTS)
def test_content_hash_tells_different_values_apart(first: list, second: list) -> None:
    a, b = (pa.array(values, pa.list_(pa.float64())) for values in (first, second))
    assert (content_hash(a) == content_hash(b)) == (repr(first) == repr(second))


def test_content_hash_sees_nulls_types_and_splits() -> None:
    def h(values: list, kind: pa.DataType) -> str:
        return content_hash(pa.array(values, kind))

    assert h([1, None], pa.int64()) != h([1, 0], pa.int64())
    assert h([1], pa.int64()) != h([1], pa.int32())
    assert h([[1], [2, 3]], pa.list_(pa.int64())) != h([[1, 2], [3]], pa.list_(pa.int64()))
    assert h([None], pa.list_(pa.int64())) != h([[]], pa.list_(pa.int64()))
    assert h(["ab", "c"], pa.string()) != h(["a", "bc"], pa.string())
    assert h([True, False], pa.bool_()) != h([False, True], pa.bool_())
    garbage = pa.Array.from_buffers(pa.int64(), 2, [pa.py_buffer(b"\x01"), pa.py_buffer(np.array([5, 77]).tobytes())])
    assert content_hash(garbage) == h([5, None], pa.int64())


def test_keys_ignore_what_is_not_set_and_the_order_of_mappings() -> None:
    assert key_of({"a": 1, "b": None, "c": {}}) == key_of({"a": 1})
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})
    assert key_of([1, 2]) != key_of([2, 1])
    assert key_of("1") != key_of(1)
    with pytest.raises(TypeError):
        key_of(object())


def test_errors_are_one_line_and_survive_a_process_boundary() -> None:
    error = InputError("input x\nis missing", source="x", mend="check the path")
    assert str(error) == "input x is missing (source x); check the path"
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is InputError
    assert isinstance(again, PipelineError)
    assert str(again) == str(error)
