"""Light curves: reading, writing, selection and reductions, against plain Python."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import lightcurve as lc
from pipeline import points as points_module
from pipeline.tables import LIGHT_CURVE_TYPE, UPPER_LIMITS_TYPE

BANDS = ("g", "r", "i")
NAMES = [field.name for field in LIGHT_CURVE_TYPE]
POINT = st.fixed_dictionaries(
    {
        "mjd": st.integers(0, 9).map(float),
        "flux_njy": st.one_of(st.none(), st.floats(-9, 9)),
        "flux_err_njy": st.one_of(st.none(), st.floats(0, 9)),
        "band": st.sampled_from([*BANDS, None]),
        "is_forced": st.booleans(),
        "exposure": st.one_of(st.none(), st.integers(1, 4), st.just(2**62 + 1)),
        "total_flux_njy": st.none(),
        "total_flux_err_njy": st.none(),
        "reference": st.one_of(st.none(), st.integers(1, 4)),
    }
)
CURVES = st.lists(st.one_of(st.none(), st.lists(POINT, max_size=7)), max_size=6)
FLOAT = st.one_of(st.just(math.nan), st.floats(-1e6, 1e6))
SEGMENTS = st.lists(st.lists(FLOAT, max_size=7), max_size=6)


def column(curves: list) -> pa.Array:
    rows = [None if c is None else {name: [p[name] for p in c] for name in NAMES} for c in curves]
    return pa.array(rows, type=LIGHT_CURVE_TYPE)


def points(curve: dict) -> list[tuple]:
    return list(zip(*(curve[name] for name in NAMES), strict=True))


def shapes(curves: list) -> list:
    """The same column in every form a caller may hand over: with the rows each form holds."""
    whole, n = column(curves), len(curves)
    chunked = pa.chunked_array([column(curves[: n // 2]), column(curves[n // 2 :])], type=LIGHT_CURVE_TYPE)
    return [(whole, curves), (whole.slice(n // 3), curves[n // 3 :]), (chunked, curves), (chunked[1:-1], curves[1:-1])]


def primary_of(curve: list | None) -> list[tuple]:
    kept = {}
    for place, p in enumerate(curve or []):
        key = place if p["exposure"] is None else (p["exposure"], p["band"])
        if key not in kept or (kept[key][1]["is_forced"] and not p["is_forced"]):
            kept[key] = place, p
    return [tuple(p[name] for name in NAMES) for _, p in sorted(kept.values(), key=lambda item: item[0])]


@settings(deadline=None)  # the first call compiles
@given(CURVES)
def test_primary_and_forced_against_plain_python(curves: list) -> None:
    for given_column, rows in shapes(curves):
        primary, forced = lc.primary(given_column), lc.forced(given_column)
        assert primary.type == forced.type == LIGHT_CURVE_TYPE
        assert [points(c) for c in primary.to_pylist()] == [primary_of(c) for c in rows]
        expected = [[tuple(p[n] for n in NAMES) for p in c or [] if p["is_forced"]] for c in rows]
        assert [points(c) for c in forced.to_pylist()] == expected


@settings(deadline=None)
@given(CURVES)
def test_primary_twice_is_primary(curves: list) -> None:
    once = lc.primary(column(curves))
    assert lc.primary(once).equals(once)


@given(CURVES)
def test_reading_against_plain_python(curves: list) -> None:
    for given_column, rows in shapes(curves):
        flat = [p for c in rows for p in c or []]
        ends = lc.offsets(given_column)
        assert ends.dtype == np.int64
        assert ends.tolist() == np.cumsum([0, *(len(c or []) for c in rows)]).tolist()
        assert lc.row_of_point(ends).tolist() == [row for row, c in enumerate(rows) for _ in c or []]
        flux = lc.floats(lc.elements(given_column, "flux_njy"))
        assert [None if math.isnan(f) else f for f in flux] == [p["flux_njy"] for p in flat]
        exposure = lc.integers(lc.elements(given_column, "exposure"))
        assert [None if e == lc.MISSING else e for e in exposure.tolist()] == [p["exposure"] for p in flat]
        found = lc.codes(lc.elements(given_column, "band"), BANDS)
        assert [None if b < 0 else BANDS[b] for b in found] == [p["band"] for p in flat]


def test_a_null_list_that_hides_elements_counts_as_empty() -> None:
    hidden = pa.ListArray.from_arrays(pa.array([0, 2, 4]), pa.array([1.0, 2.0, 3.0, 4.0]), mask=pa.array([True, False]))
    ends, values = lc.list_rows(hidden)
    assert ends.tolist() == [0, 0, 2]
    assert values.to_pylist() == [3.0, 4.0]


@settings(max_examples=50)
@given(CURVES)
def test_writing_what_was_read(curves: list) -> None:
    rows = [c or [] for c in curves]
    flat = [(row, p) for row, c in enumerate(rows) for p in c]

    def array(name: str, null: float, dtype: type) -> np.ndarray:
        return np.array([null if p[name] is None else p[name] for _, p in flat], dtype=dtype)

    parts = lc.Points(
        row=np.array([row for row, _ in flat], dtype=np.int64),
        mjd=array("mjd", math.nan, np.float64),
        band=np.array([-1 if p["band"] is None else BANDS.index(p["band"]) for _, p in flat], dtype=np.int8),
        exposure=array("exposure", lc.MISSING, np.int64),
        flux_njy=array("flux_njy", math.nan, np.float64),
        flux_err_njy=array("flux_err_njy", math.nan, np.float64),
        total_flux_njy=array("total_flux_njy", math.nan, np.float64),
        total_flux_err_njy=array("total_flux_err_njy", math.nan, np.float64),
        reference=array("reference", lc.MISSING, np.int64),
        is_forced=array("is_forced", False, np.bool_),
    )
    assert lc.to_struct(parts, len(rows), BANDS, LIGHT_CURVE_TYPE).equals(column(rows))
    limits = lc.to_struct(parts, len(rows), BANDS, UPPER_LIMITS_TYPE)
    assert [c["flux_limit_njy"] for c in limits.to_pylist()] == [[p["flux_njy"] for p in c] for c in rows]
    # a shuffled copy comes back in the order of (row, mjd, is_forced, exposure)
    order = np.random.default_rng(0).permutation(len(flat))
    shuffled = lc.in_time_order(parts.where(np.concatenate([order[::2], order[1::2]])))
    keys = sorted((row, p["mjd"], p["is_forced"], p["exposure"] or lc.MISSING) for row, p in flat)
    found = zip(shuffled.row, shuffled.mjd, shuffled.is_forced, shuffled.exposure, strict=True)
    assert [tuple(k.item() for k in key) for key in found] == keys


KEY = st.tuples(st.integers(0, 3), st.sampled_from([1.0, 2.0, 2.0, 3.0, math.inf, math.nan]), st.booleans())
UNORDERED = st.lists(st.tuples(KEY, st.sampled_from([lc.MISSING, 1, 2]), st.booleans()), max_size=40)


def unordered(points: list) -> tuple[lc.Points, np.ndarray]:
    m = len(points)
    out = lc.empty_points(m)
    out.row[:] = [row for (row, _, _), _, _ in points]
    out.mjd[:] = [mjd for (_, mjd, _), _, _ in points]
    out.is_forced[:] = [is_forced for (_, _, is_forced), _, _ in points]
    out.exposure[:] = [exposure for _, exposure, _ in points]
    return out, np.array([keep for _, _, keep in points], dtype=bool)


@settings(deadline=None)
@given(UNORDERED, st.booleans())
def test_time_order_against_a_sort_of_everything(given_points: list, is_sorted: bool) -> None:
    if is_sorted:
        given_points = sorted(given_points, key=lambda p: p[0][1])
    points, keep = unordered(given_points)
    order = lc.time_order(points, 5, keep)
    whole = np.lexsort((points.exposure, points.is_forced, points.mjd, points.row))
    expected = whole[keep[whole]]
    assert order.place.tolist() == expected.tolist()
    assert np.diff(order.ends).tolist() == np.bincount(points.row[keep], minlength=5).tolist()
    assert lc.time_order(points, 5).place.tolist() == whole.tolist()


@settings(deadline=None)
@given(UNORDERED)
def test_detections_against_a_set(given_points: list) -> None:
    points, keep = unordered(given_points)
    points.band[:] = np.arange(len(points.row)) % 2
    order = lc.time_order(points, 4, keep)
    for row, (n, first) in enumerate(
        zip(lc.count_detections(points, order), lc.first_detection(points, order), strict=True)
    ):
        shown = [i for i in np.flatnonzero(keep & ~points.is_forced) if points.row[i] == row]
        keys = {(e, points.band[i]) if (e := points.exposure[i]) != lc.MISSING else (e, -i) for i in shown}
        assert n == len(keys)
        times = sorted(points.mjd[i] for i in shown if not math.isnan(points.mjd[i]))
        assert (first == times[0]) if times else math.isnan(first)


def test_writing_with_the_kernels_as_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    points, _ = unordered([((0, 2.0, True), lc.MISSING, True), ((2, 1.0, False), 7, True), ((2, 3.0, False), 8, True)])
    points.band[:], points.reference[:] = [-1, 2, 0], lc.MISSING
    for name in ("flux_njy", "flux_err_njy", "total_flux_njy", "total_flux_err_njy"):
        getattr(points, name)[:] = [1.5, math.nan, -0.0]
    order = lc.Order(np.array([0, 0, 1, 3]), np.array([1, 0, 2]))
    labels = ("long", "g", "")
    compiled = lc.to_struct(points, 3, labels, LIGHT_CURVE_TYPE, order)
    for name in ("_gather_floats", "_gather_integers", "_gather_flags", "_gather_labels"):
        monkeypatch.setattr(points_module, name, getattr(points_module, name).py_func)
    plain = lc.to_struct(points, 3, labels, LIGHT_CURVE_TYPE, order)
    plain.validate(full=True)
    assert plain.equals(compiled)
    assert plain.field("band").to_pylist() == [[], [""], [None, "long"]]
    assert plain.field("exposure").to_pylist() == [[], [7], [None, 8]]
    assert plain.field("flux_njy").to_pylist() == [[], [None], [1.5, -0.0]]
    assert plain.field("is_forced").to_pylist() == [[], [False], [True, False]]


@settings(deadline=None)  # the first call compiles
@given(SEGMENTS)
def test_reductions_against_numpy(segments: list) -> None:
    ends = np.cumsum([0, *map(len, segments)]).astype(np.int64)
    values = np.array([v for s in segments for v in s], dtype=np.float64)
    finite = [[v for v in s if not math.isnan(v)] for s in segments]
    for kernel, oracle in ((lc.minimum, np.min), (lc.maximum, np.max), (lc.median, np.median)):
        expected = [oracle(s) if s else math.nan for s in finite]
        assert np.array_equal(kernel(ends, values), expected, equal_nan=True)
    assert lc.total(ends, values).tolist() == pytest.approx([sum(s) for s in finite], abs=1e-9)
    assert lc.count(ends).tolist() == [len(s) for s in segments]
    assert lc.count(ends, ~np.isnan(values)).tolist() == [len(s) for s in finite]
    order = lc.argsort(ends, values)
    for begin, s in zip(ends, segments, strict=False):
        expected = np.argsort(np.array(s), kind="stable") + begin
        assert order[begin : begin + len(s)].tolist() == expected.tolist()


def test_many_points_of_one_alert_keep_their_order() -> None:
    """A long history (Rubin: a thousand points) with each exposure twice."""
    n = 3000
    exposure = np.repeat(np.arange(1, n + 1) * 1000, 2)
    ends = np.array([0, 0, 2 * n], dtype=np.int64)
    is_forced = np.tile([True, False], n)
    keep = lc.is_primary(ends, exposure, np.zeros(2 * n, dtype=np.int8), is_forced)
    assert np.array_equal(keep, ~is_forced)
