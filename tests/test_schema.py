"""Declared schemas, conformity, content hashes and keys."""

from __future__ import annotations

import pickle
import struct
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import InputError, PipelineError, SchemaError
from pipeline.schema import ContentHash, column, conform, content_hash, content_hashes, key_of

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


# ------------------------------------------------------------------------- the content hash, in plain Python
NUMBERS = {"int64": "<q", "int32": "<i", "float": "<f", "double": "<d", "bool": "<?"}
KINDS: dict[str, pa.DataType] = {
    "int64": pa.int64(),
    "int32": pa.int32(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "large_binary": pa.large_binary(),
    "fixed_size_binary[4]": pa.binary(4),
    "null": pa.null(),
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int64": st.integers(-(2**63), 2**63 - 1),
    "int32": st.integers(-(2**31), 2**31 - 1),
    "float": st.floats(width=32),
    "double": st.floats(),
    "bool": st.booleans(),
    "string": st.text(max_size=5),
    "large_binary": st.binary(max_size=5),
    "fixed_size_binary[4]": st.binary(min_size=4, max_size=4),
    "null": st.none(),
}
Shape = str | tuple[str, Any]
"""A type: the name of a plain one, or ("list" | "large_list", shape), ("map", shape), ("struct", [shapes])."""


def shapes() -> st.SearchStrategy[Shape]:
    def deeper(inner: st.SearchStrategy[Shape]) -> st.SearchStrategy[Shape]:
        lists = st.tuples(st.sampled_from(["list", "large_list", "map"]), inner)
        return lists | st.tuples(st.just("struct"), st.lists(inner, min_size=1, max_size=3))

    return st.recursive(st.sampled_from(sorted(KINDS)), deeper, max_leaves=4)


def kind_of(shape: Shape) -> pa.DataType:
    if isinstance(shape, str):
        return KINDS[shape]
    name, inner = shape
    if name == "struct":
        return pa.struct([(f"f{place}", kind_of(one)) for place, one in enumerate(inner)])
    if name == "map":
        return pa.map_(pa.string(), kind_of(inner))
    return {"list": pa.list_, "large_list": pa.large_list}[name](kind_of(inner))


def text_of(shape: Shape) -> str:
    if isinstance(shape, str):
        return shape
    name, inner = shape
    if name == "struct":
        return f"struct<{', '.join(f'f{place}: {text_of(one)}' for place, one in enumerate(inner))}>"
    return f"map<string, {text_of(inner)}>" if name == "map" else f"{name}<{text_of(inner)}>"


def values_of(shape: Shape) -> st.SearchStrategy[Any]:
    if isinstance(shape, str):
        return st.none() | VALUES[shape]
    name, inner = shape
    if name == "struct":
        return st.none() | st.fixed_dictionaries({f"f{place}": values_of(one) for place, one in enumerate(inner)})
    if name == "map":
        return st.none() | st.lists(st.tuples(st.text(max_size=2), values_of(inner)), max_size=3)
    return st.none() | st.lists(values_of(inner), max_size=3)


def plain_digest(shape: Shape, values: list[Any]) -> bytes:
    """The definition, over Python values: count, turns of nulls, lengths, values and children of one node."""
    is_null = [False, *(value is None for value in values)]
    turns = [place - 1 for place in range(1, len(is_null)) if is_null[place] != is_null[place - 1]]
    there = [value for value in values if value is not None]
    lengths = data = b""
    children: list[bytes] = []
    is_counted = False
    if isinstance(shape, str):
        if shape in NUMBERS:
            data = b"".join(struct.pack(NUMBERS[shape], value) for value in there)
        elif shape == "string":
            there = [value.encode() for value in there]
        if shape in ("string", "large_binary"):
            is_counted = True
        if shape not in NUMBERS and shape != "null":
            data = b"".join(there)
    elif shape[0] == "struct":
        children = [plain_digest(one, [value[f"f{i}"] for value in there]) for i, one in enumerate(shape[1])]
    else:
        is_counted = True
        joined = [item for value in there for item in value]
        inner: Shape = shape[1]
        if shape[0] == "map":
            inner = ("struct", ["string", shape[1]])
            joined = [{"f0": key, "f1": value} for key, value in joined]
        children = [plain_digest(inner, joined)]
    if is_counted:
        lengths = b"".join(struct.pack("<q", len(value)) for value in there)
    streams = [b"".join(struct.pack("<q", turn) for turn in turns), lengths, data]
    parts = [struct.pack("<q", len(values)), *(blake3(one).digest() for one in streams)]
    return blake3(b"".join([*parts, *children])).digest()


@given(st.data())
def test_content_hash_is_as_defined_however_the_column_comes(data: st.DataObject) -> None:
    """Whole, in pieces, out of a larger array: the same as plain Python makes of the values."""
    shape = data.draw(shapes())
    values = data.draw(st.lists(values_of(shape), max_size=12))
    array = pa.array(values, kind_of(shape))
    wanted = blake3(text_of(shape).encode() + b"\0" + plain_digest(shape, values)).hexdigest()[:32]
    assert content_hash(array) == wanted
    before = pa.array(data.draw(st.lists(values_of(shape), max_size=9)), array.type)
    inside = pa.concat_arrays([before, array, before]).slice(len(before), len(array))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(array)), max_size=4)))
    pieces = [inside[first:last] for first, last in pairwise([0, *cuts, len(array)])]
    made = ContentHash(array.type)
    for piece in pieces:
        made.update(piece)
    assert made.hexdigest() == made.hexdigest() == wanted
    assert content_hash(pa.chunked_array(pieces, array.type)) == wanted


def test_content_hash_of_nulls_that_hide_something() -> None:
    """Lists, structs and text under nulls: what lies in their buffers does not count."""
    is_valid = pa.py_buffer(b"\x05")  # yes, no, yes
    offsets = pa.py_buffer(np.array([0, 1, 3, 4], np.int32).tobytes())
    child = pa.array([1.0, 77.0, 88.0, 2.0])
    hidden = pa.Array.from_buffers(pa.list_(pa.float64()), 3, [is_valid, offsets], children=[child])
    assert content_hash(hidden) == content_hash(pa.array([[1.0], None, [2.0]], hidden.type))
    text = pa.Array.from_buffers(pa.string(), 3, [is_valid, offsets, pa.py_buffer(b"axxb")])
    assert content_hash(text) == content_hash(pa.array(["a", None, "b"], pa.string()))
    fields = pa.StructArray.from_arrays([child[:3]], ["x"], mask=pa.array([False, True, False]))
    assert content_hash(fields) == content_hash(pa.array([{"x": 1.0}, None, {"x": 88.0}], fields.type))


def test_content_hash_of_a_dictionary_is_that_of_its_values() -> None:
    values = pa.array(["g", "r", None, "g"])
    assert content_hash(values.dictionary_encode()) == content_hash(values)


def test_content_hash_does_not_know_what_list_items_are_called() -> None:
    """Parquet calls them element, Arrow item; names of record fields count."""
    values = [[1.0], None]
    names = [pa.list_(pa.field(name, pa.float64(), nullable=name == "item")) for name in ("item", "element")]
    assert len({content_hash(pa.array(values, kind)) for kind in names}) == 1
    assert content_hash(pa.array([{"a": 1}])) != content_hash(pa.array([{"b": 1}]))


def test_content_hash_of_what_is_not_stored() -> None:
    with pytest.raises(TypeError, match="string_view"):
        content_hash(pa.array(["a"], pa.string_view()))


def test_content_hashes_are_by_column_and_stay_as_they_are() -> None:
    """These very digits stand in archives: a change makes every night's science be computed anew."""
    table = pa.table({"id": pa.array([1, 2], pa.int64()), "name": ["a", None]})
    assert content_hashes(table) == {
        "id": "625c0cea16719fbaac699765ed3a43ba",
        "name": "cab623e7ed750961d5bfac803ee7f315",
    }


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
