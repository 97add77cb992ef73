"""Training of the classifiers that science modules use: labelled alerts in, a checked model out.

Nothing depends on the order of the rows or on how they are cut into tables. Objects, never alerts, are split: alerts of
one object are too alike for a model to be judged on one and trained on another.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pipeline import classify
from pipeline.classify import Model, design_matrix
from pipeline.errors import InputError
from pipeline.schema import content_hash, key_of
from pipeline.science import SCIENCE, apply, order
from pipeline.science import supernova as supernova_module

FOLDS = 4
"""Objects are hashed into this many folds; the first is held out for judging, the others train."""

_GOLDEN_ROWS = 16


@dataclass(frozen=True)
class Recipe:
    """What a classifier is trained on.

    ``positive_classes`` are the classes of the truth table that count as ``positive``; all others are ``negative``.
    ``modules`` compute the features; rows need ``minimum_detections`` and no known Solar System object.
    """

    name: str
    positive: str
    negative: str
    positive_classes: tuple[str, ...]
    features: tuple[str, ...]
    modules: tuple[str, ...]
    minimum_detections: int


RECIPES = {
    "supernova": Recipe(
        name="supernova",
        positive="supernova",
        negative="other",
        positive_classes=("sn_ia", "sn_core_collapse", "slsn", "pisn"),
        features=supernova_module.FEATURES,
        modules=supernova_module.FEATURE_MODULES,
        minimum_detections=supernova_module.MINIMUM_DETECTIONS,
    )
}
"""Classifiers that can be trained, by name."""


@dataclass(frozen=True)
class Labelled:
    """Labelled rows, sorted by alert id; arrays of ``n`` rows."""

    alert_id: NDArray[np.int64]
    object_key: NDArray[np.str_]
    label: NDArray[np.str_]
    matrix: NDArray[np.float32]


@dataclass(frozen=True)
class Trained:
    """A trained model, what its card shall say beside what the model holds, and its golden rows."""

    model: Model
    card: dict[str, Any]
    golden: pa.Table


def recipe_of(name: str) -> Recipe:
    """Return the recipe of a classifier, or fail with the names there are."""
    if name not in RECIPES:
        raise InputError(f"there is no recipe for a model {name!r}", mend=f"known: {', '.join(RECIPES)}")
    return RECIPES[name]


def labelled(recipe: Recipe, alerts: Iterable[pa.Table], truth: pa.Table) -> Labelled:
    """Compute the features of the alerts that can be scored and have a label.

    Parameters
    ----------
    recipe : Recipe
        What to train.
    alerts : iterable of pyarrow.Table
        Tables of :data:`pipeline.tables.ALERTS`.
    truth : pyarrow.Table
        Columns ``alert_id`` and ``class``.

    Raises
    ------
    InputError
        The truth has no such columns or an alert twice, or an alert comes twice.
    """
    missing = {"alert_id", "class"} - set(truth.column_names)
    if missing:
        raise InputError(f"the truth table has no column {', '.join(sorted(missing))}")
    label_of = dict(zip(truth.column("alert_id").to_pylist(), truth.column("class").to_pylist(), strict=True))
    if len(label_of) != truth.num_rows:
        raise InputError("the truth table has an alert more than once")
    modules = order(SCIENCE[name] for name in recipe.modules)
    ids: list[NDArray[np.int64]] = []
    keys: list[str] = []
    labels: list[str] = []
    matrices: list[NDArray[np.float32]] = []
    for table in alerts:
        chosen = table.filter(_usable(recipe, table, label_of))
        for module in modules:
            measured = apply(module, chosen)
            for field, data in zip(measured.schema, measured.columns, strict=True):
                chosen = chosen.append_column(field, data)
        ids.append(chosen.column("alert_id").to_numpy())
        keys.extend(chosen.column("object_key").to_pylist())
        labels.extend(label_of[one] for one in chosen.column("alert_id").to_pylist())
        matrices.append(design_matrix(chosen, recipe.features))
    if not ids:
        raise InputError("there are no alerts to train on")
    alert_id = np.concatenate(ids)
    by_id = np.argsort(alert_id, kind="stable")
    if len(np.unique(alert_id)) != len(alert_id):
        raise InputError("an alert is there more than once")
    return Labelled(
        alert_id[by_id],
        np.array(keys, dtype=np.str_)[by_id],
        np.array(labels, dtype=np.str_)[by_id],
        np.concatenate(matrices)[by_id],
    )


def _usable(recipe: Recipe, table: pa.Table, label_of: dict[int, str]) -> pa.Array:
    has_label = pa.array([label_of.get(one) is not None for one in table.column("alert_id").to_pylist()], pa.bool_())
    enough = pc.greater_equal(table.column("n_detections"), recipe.minimum_detections)
    return pc.and_(pc.and_(has_label, enough), pc.invert(table.column("is_solar_system")))


def train(recipe: Recipe, data: Labelled, *, seed: int = 0) -> Trained:
    """Train a classifier, choose its threshold and judge it on objects it has not seen.

    The objects of one fold are held out. The threshold is the best of the others' out-of-fold scores (largest harmonic
    mean of purity and completeness); the model that ships is trained on all of the others, never on the held out.

    Parameters
    ----------
    recipe : Recipe
        What to train.
    data : Labelled
        Rows, as :func:`labelled` gives them.
    seed : int
        Of the split, the trees and the bootstrap.

    Raises
    ------
    InputError
        There are too few objects of a class for every fold to have some.
    """
    positive = np.isin(data.label, recipe.positive_classes)
    fold = classify.object_fold(data.object_key.tolist(), FOLDS, seed)
    for k in range(FOLDS):
        if not 0 < positive[fold == k].sum() < (fold == k).sum():
            raise InputError(
                f"too few objects to train {recipe.name}: a quarter of them holds one class only", mend="add alerts"
            )
    held_out = fold == 0
    out_of_fold = np.full(len(positive), np.nan)
    for k in range(1, FOLDS):
        rest = ~held_out & (fold != k)
        partial = _model(recipe, classify.fit(data.matrix[rest], positive[rest], seed=seed), 0.5)
        out_of_fold[fold == k] = classify.predict(partial, data.matrix[fold == k])
    threshold = classify.best_threshold(out_of_fold[~held_out], positive[~held_out])
    model = _model(recipe, classify.fit(data.matrix[~held_out], positive[~held_out], seed=seed), threshold)
    score = classify.predict(model, data.matrix[held_out])
    metrics = classify.judge(
        score.astype(np.float64), positive[held_out], data.object_key[held_out].tolist(), threshold, seed=seed
    )
    card = {
        "data": _describe(data, positive),
        "split": {"by": "object_key", "folds": FOLDS, "held_out_fold": 0, "seed": seed},
        "held_out": {
            "alerts": int(held_out.sum()),
            "objects": len(np.unique(data.object_key[held_out])),
            "metrics": metrics,
            "intervals": "95 %, bootstrap over objects",
            "called_positive_by_class": _called(data.label[held_out], score >= np.float32(threshold)),
        },
        "training": {"algorithm": "xgboost hist, binary:logistic, classes of equal weight", "seed": seed},
        "libraries": {"xgboost": importlib.metadata.version("xgboost-cpu")},
    }
    return Trained(model, card, _golden(recipe, data.matrix[held_out], score))


def _model(recipe: Recipe, ubj: bytes, threshold: float) -> Model:
    return Model(
        name=recipe.name,
        ubj=ubj,
        features=recipe.features,
        feature_versions=tuple(sorted((name, SCIENCE[name].version) for name in recipe.modules)),
        positive=recipe.positive,
        negative=recipe.negative,
        threshold=threshold,
        digest="",
    )


def _describe(data: Labelled, positive: NDArray[np.bool_]) -> dict[str, Any]:
    digest = key_of(
        content_hash(pa.array(data.alert_id)),
        content_hash(pa.array(data.label.tolist(), pa.string())),
        content_hash(pa.array(data.matrix.reshape(-1))),
    )
    names, counts = np.unique(data.label, return_counts=True)
    return {
        "digest": digest,
        "alerts": len(positive),
        "objects": len(np.unique(data.object_key)),
        "positive_alerts": int(positive.sum()),
        "alerts_by_class": {str(name): int(count) for name, count in zip(names, counts, strict=True)},
    }


def _called(label: NDArray[np.str_], called: NDArray[np.bool_]) -> dict[str, str]:
    return {
        str(name): f"{int(called[label == name].sum())} of {int((label == name).sum())}" for name in np.unique(label)
    }


def _golden(recipe: Recipe, matrix: NDArray[np.float32], score: NDArray[np.float32]) -> pa.Table:
    """Return rows spread evenly over the range of scores."""
    by_score = np.argsort(score, kind="stable")
    rows = by_score[np.unique(np.linspace(0, len(score) - 1, _GOLDEN_ROWS).astype(int))]
    return pa.table(
        [pa.array(matrix[rows, j], from_pandas=True) for j in range(matrix.shape[1])], list(recipe.features)
    )
