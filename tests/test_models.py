"""Model registry, training, and the ``alertmill models`` command."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from laws.strategies import synthetic_alerts

from pipeline import models, training
from pipeline.classify import design_matrix, predict
from pipeline.cli.models import command
from pipeline.errors import CatalogError, InputError
from pipeline.science import SCIENCE, apply, order
from pipeline.science import supernova as module
from pipeline.training import Labelled, Trained

RECIPE = training.recipe_of("supernova")


@pytest.fixture(scope="module")
def alerts() -> pa.Table:
    return synthetic_alerts(500, seed=11)


@pytest.fixture(scope="module")
def truth(alerts: pa.Table) -> pa.Table:
    """Return labels that can be learnt: an alert is a supernova by its magnitude."""
    mag = np.nan_to_num(alerts.column("diff_mag").to_numpy(), nan=25.0)
    return pa.table({"alert_id": alerts.column("alert_id"), "class": pa.array(np.where(mag < 15.5, "sn_ia", "agn"))})


@pytest.fixture(scope="module")
def data(alerts: pa.Table, truth: pa.Table) -> Labelled:
    return training.labelled(RECIPE, [alerts], truth)


@pytest.fixture(scope="module")
def trained(data: Labelled) -> Trained:
    return training.train(RECIPE, data, seed=3)


@pytest.fixture
def folder(trained: Trained, tmp_path: Path) -> Path:
    models.save(tmp_path, trained.model, trained.card, trained.golden)
    return tmp_path


def edit_card(folder: Path, **changes: Any) -> None:
    file = folder / "supernova" / "card.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


# ------------------------------------------------------------------------------------------------ training
def test_training_learns_and_says_how_well(trained: Trained, data: Labelled) -> None:
    metrics = trained.card["held_out"]["metrics"]
    assert metrics["auc"]["value"] > 0.9
    assert metrics["auc"]["low"] <= metrics["auc"]["value"] <= metrics["auc"]["high"]
    assert 0.0 < trained.model.threshold < 1.0
    assert trained.card["data"]["alerts"] == len(data.alert_id)
    assert len(trained.model.ubj) < 300_000
    assert trained.golden.num_rows >= 10


def test_training_depends_on_neither_order_nor_tables(alerts: pa.Table, truth: pa.Table, trained: Trained) -> None:
    shuffle = pa.array(np.random.default_rng(0).permutation(alerts.num_rows))
    shuffled = alerts.take(shuffle)
    again = training.labelled(RECIPE, [shuffled.slice(0, 77), shuffled.slice(77)], truth.take(shuffle))
    result = training.train(RECIPE, again, seed=3)
    assert result.model == trained.model
    assert result.card == trained.card
    assert result.golden.equals(trained.golden)
    assert training.train(RECIPE, again, seed=4).card["split"]["seed"] == 4


def test_only_rows_that_can_be_scored_are_trained_on(alerts: pa.Table, truth: pa.Table, data: Labelled) -> None:
    usable = (alerts.column("n_detections").to_numpy() >= 3) & ~alerts.column("is_solar_system").to_numpy()
    assert set(data.alert_id.tolist()) == set(alerts.column("alert_id").to_numpy()[usable].tolist())
    half = training.labelled(RECIPE, [alerts], truth.slice(0, 250))
    assert set(half.alert_id.tolist()) <= set(truth.column("alert_id").to_pylist()[:250])


def test_bad_labels_are_named(alerts: pa.Table, truth: pa.Table, data: Labelled) -> None:
    with pytest.raises(InputError, match="no column class"):
        training.labelled(RECIPE, [alerts], truth.drop(["class"]))
    with pytest.raises(InputError, match="truth table has an alert more than once"):
        training.labelled(RECIPE, [alerts], pa.concat_tables([truth, truth.slice(0, 1)]))
    with pytest.raises(InputError, match="an alert is there more than once"):
        training.labelled(RECIPE, [alerts, alerts], truth)
    with pytest.raises(InputError, match="no alerts"):
        training.labelled(RECIPE, [], truth)
    with pytest.raises(InputError, match="too few objects"):
        training.train(RECIPE, replace(data, label=np.full(len(data.label), "agn")))
    with pytest.raises(InputError, match="known: supernova"):
        training.recipe_of("kilonova")


# ------------------------------------------------------------------------------------------------ registry
def test_a_model_comes_back_as_it_was(folder: Path, trained: Trained, data: Labelled) -> None:
    model = models.load("supernova", folder)
    assert replace(model, digest="") == trained.model
    assert len(model.digest) == 64
    assert (predict(model, data.matrix) == predict(trained.model, data.matrix)).all()
    assert models.available(folder) == {"supernova": folder / "supernova"}
    assert models.card("supernova", folder)["feature_versions"] == dict(model.feature_versions)
    assert not list(folder.rglob("*.pkl"))


def test_saving_is_byte_identical(folder: Path, trained: Trained, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = tmp_path_factory.mktemp("again")
    models.save(other, trained.model, trained.card, trained.golden)
    for file in sorted((folder / "supernova").iterdir()):
        assert file.read_bytes() == (other / "supernova" / file.name).read_bytes()


def test_another_feature_version_is_an_error(folder: Path) -> None:
    edit_card(folder, feature_versions={"light_curve_statistics": 99, "light_curve_rates": 1})
    with pytest.raises(CatalogError, match="trained on light_curve_statistics version 99, here it is 1"):
        models.load("supernova", folder)
    edit_card(folder, feature_versions={"gone": 1})
    with pytest.raises(CatalogError, match="here it is absent"):
        models.load("supernova", folder)


def test_features_that_the_module_does_not_read_are_an_error(folder: Path) -> None:
    edit_card(folder, features=["ra"])
    with pytest.raises(CatalogError, match="needs ra"):
        models.load("supernova", folder)


def test_damage_is_found(folder: Path) -> None:
    where = folder / "supernova"
    golden = pq.read_table(where / "golden.parquet")
    moved = golden.set_column(golden.num_columns - 1, "score", pa.array(golden["score"].to_numpy() + np.float32(0.01)))
    pq.write_table(moved, where / "golden.parquet")
    with pytest.raises(CatalogError, match="golden rows"):
        models.load("supernova", folder)
    (where / "golden.parquet").unlink()
    with pytest.raises(CatalogError, match="golden rows of model supernova cannot be read"):
        models.load("supernova", folder)
    (where / "model.ubj").write_bytes((where / "model.ubj").read_bytes()[:-1])
    with pytest.raises(CatalogError, match="sha256"):
        models.load("supernova", folder)
    (where / "card.json").write_text("{}")
    with pytest.raises(CatalogError, match="not complete"):
        models.load("supernova", folder)
    (where / "card.json").write_text("{")
    with pytest.raises(CatalogError, match="cannot be read"):
        models.load("supernova", folder)


def test_an_unknown_model_names_the_known(folder: Path) -> None:
    with pytest.raises(CatalogError, match="no model 'kilonova'; known: supernova"):
        models.load("kilonova", folder)


# ------------------------------------------------------------------------------------------- shipped model
def test_the_shipped_model_loads_and_is_small() -> None:
    model = models.load("supernova")
    assert model.features == module.FEATURES
    assert sum(file.stat().st_size for file in (models.PACKAGED / "supernova").iterdir()) < 400_000
    card = models.card("supernova")
    assert card["held_out"]["metrics"]["auc"]["low"] > 0.5
    assert card["split"]["by"] == "object_key"


def test_the_module_scores_what_can_be_scored_and_says_why_not(folder: Path, alerts: pa.Table) -> None:
    model = models.load("supernova", folder)
    table = alerts
    for one in order(SCIENCE[name] for name in module.FEATURE_MODULES):
        result = apply(one, table)
        for field, column in zip(result.schema, result.columns, strict=True):
            table = table.append_column(field, column)
    got = apply(SCIENCE["supernova"], table, model=model)
    known = alerts.column("is_solar_system").to_numpy()
    few = alerts.column("n_detections").to_numpy() < module.MINIMUM_DETECTIONS
    reason = got.column("clf_supernova_reason").to_pylist()
    assert [r == "solar_system" for r in reason] == known.tolist()
    assert [r == "fewer_than_3_detections" for r in reason] == (few & ~known).tolist()
    scored = ~known & ~few
    assert got.column("clf_supernova_score").is_valid().to_pylist() == scored.tolist()
    score = got.column("clf_supernova_score").to_numpy()[scored]
    assert (score == predict(model, design_matrix(table, model.features)[scored])).all()
    wanted = np.where(score >= np.float32(model.threshold), "supernova", "other").tolist()
    assert got.column("clf_supernova_class").drop_null().to_pylist() == wanted


# ------------------------------------------------------------------------------------------------- command
def test_the_command_trains_lists_and_shows(alerts: pa.Table, truth: pa.Table, tmp_path: Path) -> None:
    (tmp_path / "alerts").mkdir()
    pq.write_table(alerts, tmp_path / "alerts" / "in.parquet")
    pq.write_table(truth, tmp_path / "truth.parquet")
    out = str(tmp_path / "models")
    arguments = ["--input", str(tmp_path / "alerts"), "--truth", str(tmp_path / "truth.parquet"), "--out", out]

    def say(*words: str) -> str:
        return CliRunner().invoke(command, words, catch_exceptions=False).output

    assert "auc" in say("train", "supernova", *arguments)
    listed = json.loads(say("list", "--models", out, "--json"))
    assert listed["supernova"]["threshold"] > 0.0
    assert json.loads(say("card", "supernova", "--models", out)) == listed["supernova"]
    assert listed["supernova"]["model_sha256"][:12] in say("list", "--models", out)
    with pytest.raises(InputError, match="no truth table"):
        say("train", "supernova", "--input", out, "--truth", str(tmp_path / "absent"), "--out", out)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no Parquet files"):
        say("train", "supernova", "--input", str(tmp_path / "empty"), *arguments[2:])
