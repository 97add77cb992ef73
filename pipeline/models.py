"""Models on disk: a folder a model, with its trees, its card and golden rows.

``<folder>/<name>/model.ubj`` holds the trees, ``card.json`` what they are, were trained on and how they were judged,
``golden.parquet`` a few rows with the score they must get. Loading checks all three, so that a damaged file, a model
made for other features, or a library that scores otherwise stops a run before its first part. No pickles.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

import pipeline
from pipeline.classify import Model, design_matrix, predict
from pipeline.errors import CatalogError
from pipeline.science import SCIENCE

PACKAGED = Path(pipeline.__file__).parent / "_models"
"""Folder of the models that come with the package."""

CARD_VERSION = 1

_TREES, _CARD, _GOLDEN = "model.ubj", "card.json", "golden.parquet"
_GOLDEN_TOLERANCE = 1e-6


def available(folder: Path | None = None) -> dict[str, Path]:
    """Return the models by name with their folders: those of ``folder``, then the packaged ones not named there."""
    found: dict[str, Path] = {}
    for base in (folder, PACKAGED):
        if base is not None and base.is_dir():
            for card in sorted(base.glob(f"*/{_CARD}")):
                found.setdefault(card.parent.name, card.parent)
    return dict(sorted(found.items()))


def card(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Return the card of a model.

    Raises
    ------
    CatalogError
        There is no such model, or its card cannot be read.
    """
    return _read_card(_folder_of(name, folder))[0]


def load(name: str, folder: Path | None = None) -> Model:
    """Load a model and check it.

    Parameters
    ----------
    name : str
        Name in the registry.
    folder : pathlib.Path, optional
        Folder of models asked before the packaged one.

    Returns
    -------
    Model
        Ready to score, in this process or another.

    Raises
    ------
    CatalogError
        There is no such model; a file is damaged; the trees are not those of the card; its features or their version
        are not those of this installation; its golden rows get another score.
    """
    where = _folder_of(name, folder)
    text, body = _read_card(where)
    try:
        ubj = (where / _TREES).read_bytes()
    except OSError as error:
        raise CatalogError(f"model {name} cannot be read: {error}") from error
    if hashlib.sha256(ubj).hexdigest() != text["model_sha256"]:
        raise CatalogError(f"model {name} is damaged: {_TREES} does not have the sha256 of its card", source=str(where))
    versions = {str(module): int(version) for module, version in text["feature_versions"].items()}
    check_features(name, tuple(text["features"]), versions)
    model = Model(
        name=name,
        ubj=ubj,
        features=tuple(text["features"]),
        feature_versions=tuple(sorted(versions.items())),
        positive=text["classes"]["positive"],
        negative=text["classes"]["negative"],
        threshold=float(text["threshold"]),
        digest=hashlib.sha256(body).hexdigest(),
    )
    _check_golden(model, where / _GOLDEN)
    return model


def check_features(name: str, features: tuple[str, ...], versions: Mapping[str, int]) -> None:
    """Refuse a model that was trained on features other than those computed here.

    Raises
    ------
    CatalogError
        A science module it was trained on is absent or of another version, or a feature is not among the columns that
        the module of the model's name reads.
    """
    for module, version in versions.items():
        here = SCIENCE[module].version if module in SCIENCE else None
        if here != version:
            raise CatalogError(
                f"model {name} was trained on {module} version {version}, here it is {here or 'absent'}",
                mend=f"train it again: alertmill models train {name}",
            )
    if name not in SCIENCE:
        raise CatalogError(f"model {name} belongs to no science module")
    unknown = sorted(set(features) - set(SCIENCE[name].requires))
    if unknown:
        raise CatalogError(f"model {name} needs {', '.join(unknown)}, which module {name} does not read")


def save(folder: Path, model: Model, text: Mapping[str, Any], golden: pa.Table) -> Model:
    """Write a model, its card and golden rows into ``folder/<name>`` and return it as loaded from there.

    Parameters
    ----------
    folder : pathlib.Path
        Folder of models; made if absent.
    model : Model
        Its digest is made anew: it is that of the card.
    text : mapping
        What the card says beside what the model itself holds: data, split, metrics, seed, libraries.
    golden : pyarrow.Table
        Rows of ``model.features``; their score is added here.
    """
    where = folder / model.name
    where.mkdir(parents=True, exist_ok=True)
    full = {
        "card_version": CARD_VERSION,
        "name": model.name,
        "model_sha256": hashlib.sha256(model.ubj).hexdigest(),
        "classes": {"positive": model.positive, "negative": model.negative},
        "threshold": model.threshold,
        "features": list(model.features),
        "feature_versions": dict(model.feature_versions),
        **text,
    }
    matrix = design_matrix(golden, model.features)
    columns = [pa.array(matrix[:, j], from_pandas=True) for j in range(matrix.shape[1])]
    rows = pa.table([*columns, pa.array(predict(model, matrix))], names=[*model.features, "score"])
    (where / _TREES).write_bytes(model.ubj)
    pq.write_table(rows, where / _GOLDEN, compression="zstd")
    (where / _CARD).write_text(json.dumps(full, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    return load(model.name, folder)


def _folder_of(name: str, folder: Path | None) -> Path:
    found = available(folder)
    if name not in found:
        known = f"known: {', '.join(found)}" if found else "there are none"
        raise CatalogError(f"there is no model {name!r}; {known}")
    return found[name]


def _read_card(where: Path) -> tuple[dict[str, Any], bytes]:
    try:
        body = (where / _CARD).read_bytes()
        text = json.loads(body)
    except (OSError, ValueError) as error:
        raise CatalogError(f"the card of model {where.name} cannot be read: {error}") from error
    wanted = {"card_version", "classes", "features", "feature_versions", "model_sha256", "threshold"}
    if not isinstance(text, dict) or wanted - set(text):
        raise CatalogError(f"the card of model {where.name} is not complete", source=str(where))
    if text["card_version"] != CARD_VERSION:
        raise CatalogError(f"the card of model {where.name} is of version {text['card_version']}, not {CARD_VERSION}")
    return text, body


def _check_golden(model: Model, path: Path) -> None:
    try:
        rows = pq.read_table(path)
        expected = rows.column("score").to_numpy()
        got = predict(model, design_matrix(rows, model.features))
    except (OSError, KeyError, pa.ArrowInvalid) as error:
        raise CatalogError(f"the golden rows of model {model.name} cannot be read: {error}") from error
    if not np.allclose(got, expected, rtol=0.0, atol=_GOLDEN_TOLERANCE):
        raise CatalogError(
            f"model {model.name} does not give its golden rows the score on its card",
            mend="install the library versions of the lock file",
        )
