"""Gradient-boosted classifiers on declared feature columns: fit, predict, judge.

A model is a value (:class:`Model`): its trees as bytes, its features by name and version. Everything runs on one thread
with fixed seeds, so that the same rows give the same bytes; a score depends on its own row only.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline.errors import InputError

Float = NDArray[np.float64]


@dataclass(frozen=True)
class Model:
    """A trained binary classifier.

    Attributes
    ----------
    name : str
        Name in the registry.
    ubj : bytes
        The trees, in xgboost's UBJSON form.
    features : tuple of str
        Columns, in the order of the trees' inputs.
    feature_versions : tuple of (str, int)
        Version of each science module that the features come from.
    positive, negative : str
        Names of the two classes.
    threshold : float
        Score from which a row is called ``positive``.
    digest : str
        sha256 of the card, which holds that of the trees; part of every key.
    """

    name: str
    ubj: bytes
    features: tuple[str, ...]
    feature_versions: tuple[tuple[str, int], ...]
    positive: str
    negative: str
    threshold: float
    digest: str


def design_matrix(table: pa.Table, features: Sequence[str]) -> NDArray[np.float32]:
    """Return the columns as float32, shape ``(n, len(features))``, NaN for null."""
    out = np.full((table.num_rows, len(features)), np.nan, dtype=np.float32)
    for j, name in enumerate(features):
        data = table.column(name)
        if pa.types.is_boolean(data.type):
            data = pc.cast(data, pa.int8())
        out[:, j] = pc.cast(data, pa.float64()).to_numpy(zero_copy_only=False)
    return out


def predict(model: Model, matrix: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the score of every row, float32 (n,), from 0 to 1.

    Parameters
    ----------
    model : Model
        The model.
    matrix : numpy.ndarray of float32, shape (n, len(model.features))
        NaN for what is not measured.
    """
    if len(matrix) == 0:
        return np.empty(0, dtype=np.float32)
    score = _booster(model.ubj).inplace_predict(np.ascontiguousarray(matrix), missing=np.nan, validate_features=False)
    return np.asarray(score, dtype=np.float32)


@functools.lru_cache(maxsize=16)
def _booster(ubj: bytes) -> Any:
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(ubj))
    booster.set_param({"nthread": 1})
    return booster


def fit(
    matrix: NDArray[np.float32],
    is_positive: NDArray[np.bool_],
    *,
    rounds: int = 120,
    depth: int = 5,
    learning_rate: float = 0.1,
    seed: int = 0,
) -> bytes:
    """Fit gradient-boosted trees with both classes given equal weight.

    Parameters
    ----------
    matrix : numpy.ndarray of float32, shape (n, k)
        Features, NaN for what is not measured.
    is_positive : numpy.ndarray of bool, shape (n,)
        The class.
    rounds, depth, learning_rate : int, int, float
        Trees, their depth, the share of each.
    seed : int
        Of the column sampling.

    Returns
    -------
    bytes
        The trees, UBJSON. The same arguments give the same bytes.

    Raises
    ------
    InputError
        One of the classes has no rows.

    References
    ----------
    Chen & Guestrin 2016, doi:10.1145/2939672.2939785
    """
    import xgboost

    n_positive = int(is_positive.sum())
    if n_positive == 0 or n_positive == len(is_positive):
        raise InputError(f"a classifier needs rows of both classes: {n_positive} of {len(is_positive)} are positive")
    weight = np.where(is_positive, 0.5 / n_positive, 0.5 / (len(is_positive) - n_positive)) * len(is_positive)
    parameters = {
        "objective": "binary:logistic",
        "tree_method": "hist",
        "max_depth": depth,
        "eta": learning_rate,
        "min_child_weight": 5.0,
        "colsample_bytree": 0.5,
        "seed": seed,
        "nthread": 1,
    }
    data = xgboost.DMatrix(matrix, label=is_positive.astype(np.float32), weight=weight, nthread=1)
    return bytes(xgboost.train(parameters, data, num_boost_round=rounds).save_raw("ubj"))


def object_fold(object_keys: Sequence[str], n_folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold of every row, int64 (n,), from 0: one hash of (seed, object), so an object is never split.

    The fold of an object does not depend on which other objects there are, nor on their order.
    """

    def fold(key: str) -> int:
        digest = hashlib.blake2b(f"{seed}:{key}".encode(), digest_size=8).digest()
        return int.from_bytes(digest, "little") % n_folds

    known = {key: fold(key) for key in set(object_keys)}
    return np.fromiter((known[key] for key in object_keys), dtype=np.int64, count=len(object_keys))


# ------------------------------------------------------------------------------------------------ judging
def area_under_curve(score: Float, is_positive: NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve: the chance that a positive scores above a negative, ties counting half."""
    n_positive, n = int(is_positive.sum()), len(is_positive)
    if n_positive in (0, n):
        return float("nan")
    _, inverse, counts = np.unique(score, return_inverse=True, return_counts=True)
    rank = np.cumsum(counts) - (counts - 1) / 2.0
    return float(
        (rank[inverse][is_positive].sum() - n_positive * (n_positive + 1) / 2) / (n_positive * (n - n_positive))
    )


def purity_and_completeness(score: Float, is_positive: NDArray[np.bool_], threshold: float) -> tuple[float, float]:
    """Return what share of the called is positive, and what share of the positive is called; NaN where of none."""
    called = score >= threshold
    hits = float((called & is_positive).sum())
    n_called, n_positive = int(called.sum()), int(is_positive.sum())
    return (hits / n_called if n_called else float("nan"), hits / n_positive if n_positive else float("nan"))


def best_threshold(score: Float, is_positive: NDArray[np.bool_]) -> float:
    """Return the score at which the harmonic mean of purity and completeness is largest, of a grid of 0.01.

    Of equally good ones the middle: between two classes that are well apart, not at the edge of one.
    """
    grid = np.round(np.arange(0.05, 1.0, 0.01), 2)
    values = np.full(len(grid), -1.0)
    for k, threshold in enumerate(grid):
        purity, completeness = purity_and_completeness(score, is_positive, float(threshold))
        if purity + completeness > 0.0:
            values[k] = 2.0 * purity * completeness / (purity + completeness)
    best = np.flatnonzero(values == values.max())
    return float(grid[best[len(best) // 2]])


def judge(
    score: Float,
    is_positive: NDArray[np.bool_],
    object_keys: Sequence[str],
    threshold: float,
    *,
    n_bootstrap: int = 200,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Return AUC, purity and completeness with 95 % intervals, objects drawn with replacement.

    Parameters
    ----------
    score, is_positive : numpy.ndarray, shape (n,)
        Scores of rows that the model has not seen, and their class.
    object_keys : sequence of str, length n
        Whole objects are drawn: alerts of one object are not independent.
    threshold : float
        For purity and completeness.
    n_bootstrap, seed : int
        Draws, and the seed of the counter-based generator that makes them.

    Returns
    -------
    dict
        ``{"auc": {"value", "low", "high"}, "purity": ..., "completeness": ...}``.
    """

    def measure(rows: NDArray[np.int64]) -> tuple[float, float, float]:
        auc = area_under_curve(score[rows], is_positive[rows])
        return (auc, *purity_and_completeness(score[rows], is_positive[rows], threshold))

    _, group = np.unique(np.asarray(object_keys, dtype=str), return_inverse=True)
    by_group = np.argsort(group, kind="stable")
    members = np.split(by_group, np.cumsum(np.bincount(group))[:-1]) if len(group) else []
    generator = np.random.Generator(np.random.Philox(key=seed))
    draws = np.array(
        [
            measure(np.concatenate([members[i] for i in generator.integers(0, len(members), len(members))]))
            for _ in range(n_bootstrap if members else 0)
        ]
    ).reshape(-1, 3)
    values = measure(np.arange(len(score)))
    out = {}
    for k, name in enumerate(("auc", "purity", "completeness")):
        drawn = draws[~np.isnan(draws[:, k]), k]
        low, high = np.percentile(drawn, [2.5, 97.5]) if len(drawn) else (float("nan"), float("nan"))
        out[name] = {"value": round(values[k], 6), "low": round(float(low), 6), "high": round(float(high), 6)}
    return out
