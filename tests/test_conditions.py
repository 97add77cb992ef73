"""Conditions on the survey's own fields."""

from __future__ import annotations

import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.filters.conditions import evaluate, parse

RAW = pa.table(
    {
        "objectId": ["a", "b", "it's", None],
        "candidate": [
            {"rb": 0.55, "nbad": 0, "isdiffpos": "t"},
            {"rb": None, "nbad": 0, "isdiffpos": "f"},
            {"rb": float("nan"), "nbad": 1, "isdiffpos": "t"},
            None,
        ],
        "ssSource": [{"rb": 1.0}] * 4,
    }
).cast(
    pa.schema(
        [
            ("objectId", pa.string()),
            ("candidate", pa.struct([("rb", pa.float32()), ("nbad", pa.int32()), ("isdiffpos", pa.string())])),
            ("ssSource", pa.struct([("rb", pa.float64())])),
        ]
    )
)


@pytest.mark.parametrize(
    ("text", "passed"),
    [
        ("candidate.rb >= 0.55", [True, False, False, False]),
        ("candidate.rb != 3", [True, False, False, False]),
        ("nbad = 0", [True, True, False, False]),
        ("nbad == 0 and isdiffpos = 'f'", [False, True, False, False]),
        ("nbad < 1; candidate.rb > 0.5", [True, False, False, False]),
        ("objectId = 'it''s'", [False, False, True, False]),
        ("nbad <= 0.5", [True, True, False, False]),
    ],
)
def test_rows_pass_only_where_the_condition_is_true(text: str, passed: list[bool]) -> None:
    assert evaluate(parse(text, RAW.schema), RAW).tolist() == passed


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("rb > 0.5", "ambiguous"),
        ("nope > 0.5", "not in the survey's packets"),
        ("nbad > 'x'", "compares a int32"),
        ("candidate.rb >= 0.55 or nbad = 0", "not understood"),
        ("__import__('os').system('x') = 1", "not understood"),
        ("", "empty"),
    ],
)
def test_whatever_is_not_a_comparison_is_refused(text: str, told: str) -> None:
    with pytest.raises(InputError, match=told):
        parse(text, RAW.schema)
