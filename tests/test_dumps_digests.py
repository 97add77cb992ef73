"""Row digests: of the row's values alone."""

from __future__ import annotations

import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pipeline.dumps.digests import row_digests

TYPE = pa.struct(
    [
        ("text", pa.string()),
        ("blob", pa.binary()),
        ("flag", pa.bool_()),
        ("number", pa.int32()),
        ("lists", pa.list_(pa.struct([("x", pa.float64()), ("band", pa.string())]))),
        ("map", pa.map_(pa.string(), pa.float32())),
        ("nothing", pa.null()),
    ]
)
SMALL = st.sampled_from([0.0, -0.0, 1.5, float("inf")])
POINT = st.none() | st.fixed_dictionaries(
    {"x": st.none() | SMALL, "band": st.none() | st.sampled_from(["", "g", "gr"])}
)
ROW = st.none() | st.fixed_dictionaries(
    {
        "text": st.none() | st.sampled_from(["", "a", "ab"]),
        "blob": st.none() | st.sampled_from([b"", b"a", b"\x00"]),
        "flag": st.none() | st.booleans(),
        "number": st.none() | st.integers(-2, 2),
        "lists": st.none() | st.lists(POINT, max_size=3),
        "map": st.none() | st.lists(st.tuples(st.sampled_from("ab"), SMALL), max_size=2),
        "nothing": st.none(),
    }
)


def _table(rows: list) -> pa.Table:
    return pa.table({"one": pa.array(rows, TYPE), "two": pa.array(range(len(rows)), pa.int8())}).drop_columns(["two"])


@given(st.lists(ROW, min_size=1, max_size=8), st.integers(0, 8))
def test_a_digest_is_of_the_row_and_not_of_its_batch(rows: list, cut: int) -> None:
    whole = row_digests(_table(rows))
    assert whole == [digest for row in rows for digest in row_digests(_table([row]))]
    table = pa.concat_tables([_table([None, rows[0]]), _table(rows)]).combine_chunks().slice(2)
    assert row_digests(table) == whole
    assert row_digests(pa.concat_tables([table.slice(0, cut), table.slice(cut)])) == whole


@given(ROW, ROW)
def test_digests_tell_different_rows_apart(first: object, second: object) -> None:
    a, b = row_digests(_table([first, second]))
    stored = _table([first, second]).column(0).to_pylist()
    assert (a == b) == (repr(stored[0]) == repr(stored[1]))


def test_neighbouring_values_cannot_trade_bytes_and_types_and_names_count() -> None:
    rows = pa.table({"a": ["x", "xy"], "b": ["yz", "z"]})
    assert len(set(row_digests(rows))) == 2
    lists = pa.table({"a": [[[1], [2, 3]], [[1, 2], [3]]]})
    assert len(set(row_digests(lists))) == 2
    kinds = [pa.table({"a": pa.array([1], kind)}) for kind in (pa.int32(), pa.int64())] + [pa.table({"b": [1]})]
    assert len({row_digests(table)[0] for table in kinds}) == 3
    assert row_digests(rows.select(["b", "a"])) == row_digests(rows)
    assert row_digests(rows.slice(0, 0)) == []
