"""Classifier core: fitting, scoring, splitting, judging."""

from __future__ import annotations

import pickle

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import classify
from pipeline.classify import Model
from pipeline.errors import InputError


def separable(n: int = 400, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    matrix = draw.normal(0.0, 1.0, (n, 4)).astype(np.float32)
    matrix[draw.random((n, 4)) < 0.1] = np.nan
    return matrix, np.nan_to_num(matrix[:, 0]) + 0.5 * np.nan_to_num(matrix[:, 1]) > 0.2


def model_of(ubj: bytes) -> Model:
    return Model("toy", ubj, ("a", "b", "c", "d"), (), "yes", "no", 0.5, "")


def test_the_same_rows_give_the_same_bytes_and_scores_of_a_row_are_its_own() -> None:
    matrix, label = separable()
    ubj = classify.fit(matrix, label, rounds=20)
    assert ubj == classify.fit(matrix.copy(), label.copy(), rounds=20)
    model = model_of(ubj)
    score = classify.predict(model, matrix)
    assert score.dtype == np.float32
    assert classify.area_under_curve(score.astype(float), label) > 0.95
    alone = np.array([classify.predict(model, matrix[k : k + 1])[0] for k in range(50)])
    assert (alone == score[:50]).all()
    assert (classify.predict(model, matrix[::-1]) == score[::-1]).all()
    assert classify.predict(model, matrix[:0]).shape == (0,)
    assert (classify.predict(pickle.loads(pickle.dumps(model)), matrix) == score).all()


def test_both_classes_weigh_the_same() -> None:
    draw = np.random.default_rng(1)
    noise, rare = draw.normal(size=(2000, 4)).astype(np.float32), np.arange(2000) < 40
    score = classify.predict(model_of(classify.fit(noise, rare, rounds=1, learning_rate=0.01)), noise)
    assert abs(float(score.mean()) - 0.5) < 0.02


def test_one_class_cannot_be_fitted() -> None:
    with pytest.raises(InputError, match="both classes"):
        classify.fit(np.zeros((5, 4), dtype=np.float32), np.ones(5, dtype=bool))


def test_the_design_matrix_has_nan_for_null() -> None:
    table = pa.table({"n": pa.array([1, None], pa.int32()), "is_x": pa.array([True, None]), "v": pa.array([None, 0.5])})
    got = classify.design_matrix(table, ["v", "is_x", "n"])
    assert got.dtype == np.float32
    assert np.array_equal(got, np.array([[np.nan, 1.0, 1.0], [0.5, np.nan, np.nan]], dtype=np.float32), equal_nan=True)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=1, max_size=30))
def test_the_area_is_the_share_of_ordered_pairs(rows: list[tuple[int, bool]]) -> None:
    score, label = np.array([float(s) for s, _ in rows]), np.array([b for _, b in rows])
    pairs = [(p > n) + 0.5 * (p == n) for p in score[label] for n in score[~label]]
    got = classify.area_under_curve(score, label)
    assert np.isnan(got) if not pairs else got == pytest.approx(np.mean(pairs))


def test_purity_completeness_and_the_best_threshold() -> None:
    score, label = np.array([0.1, 0.4, 0.6, 0.9]), np.array([False, True, False, True])
    assert classify.purity_and_completeness(score, label, 0.5) == (0.5, 0.5)
    assert classify.purity_and_completeness(score, label, 0.3) == (pytest.approx(2 / 3), 1.0)
    purity, completeness = classify.purity_and_completeness(score, label, 0.95)
    assert np.isnan(purity)
    assert completeness == 0.0
    assert 0.1 < classify.best_threshold(score, label) <= 0.4


@given(st.lists(st.text(max_size=4), max_size=40), st.integers(0, 3))
def test_an_object_is_in_one_fold_whatever_the_others(keys: list[str], seed: int) -> None:
    fold = classify.object_fold(keys, 4, seed)
    assert ((fold >= 0) & (fold < 4)).all()
    for key, number in zip(keys, fold, strict=True):
        assert classify.object_fold([key], 4, seed)[0] == number


def test_folds_are_of_equal_size() -> None:
    fold = classify.object_fold([f"ZTF{k}" for k in range(4000)], 4, 0)
    assert (np.abs(np.bincount(fold) - 1000) < 120).all()


def test_intervals_hold_the_value_and_widen_when_alerts_share_objects() -> None:
    draw = np.random.default_rng(3)
    label = np.repeat(draw.random(60) < 0.5, 10)
    score = np.clip(0.5 + np.where(label, 0.15, -0.15) + np.repeat(draw.normal(0.0, 0.2, 60), 10), 0.0, 1.0)
    shared = classify.judge(score, label, [f"o{k // 10}" for k in range(600)], 0.5)
    alone = classify.judge(score, label, [f"o{k}" for k in range(600)], 0.5)
    for name in ("auc", "purity", "completeness"):
        assert shared[name]["low"] <= shared[name]["value"] <= shared[name]["high"]
        assert shared[name]["value"] == alone[name]["value"]
        assert shared[name]["high"] - shared[name]["low"] > 1.5 * (alone[name]["high"] - alone[name]["low"])
    assert shared == classify.judge(score, label, [f"o{k // 10}" for k in range(600)], 0.5)
