from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classical import params
from classical.errors import BadParams
from classical.params import ColumnRule, DataParams, FeatureParams, MlflowParams, ModelParams, Params

SMALLEST = """\
data:
  raw_data_path: a.csv
features:
  target: y
  numerical_features: [x]
"""
SEED = """\
data:
  raw_data_path: data/raw/dataset.csv
  processed_data_path: data/processed/clean_dataset.csv
  test_size: 0.2
  random_state: 42
features:
  categorical_features: [category, region]
  numerical_features: [age, income]
  target: target_variable
model:
  algorithm: random_forest
  n_estimators: 100
  max_depth: 10
  min_samples_split: 5
  random_state: 7
training:
  validation_split: 0.2
  cross_validation_folds: 5
  metrics: [accuracy, precision, recall, f1]
mlflow:
  experiment_name: customer_churn_prediction
  tracking_uri: http://localhost:5000
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "params.yaml"
    path.write_text(text)
    return path


def test_a_file_with_every_section_is_read_as_typed_values(tmp_path: Path) -> None:
    loaded = params.load(written(tmp_path, SEED), {})
    assert loaded.model == ModelParams(n_estimators=100, max_depth=10, min_samples_split=5, random_state=7)
    assert loaded.features == FeatureParams("target_variable", ("category", "region"), ("age", "income"))
    assert loaded.mlflow == MlflowParams("customer_churn_prediction", "http://localhost:5000")
    assert loaded.get("mlflow.tracking_uri") == "http://localhost:5000"
    assert loaded.get("features.categorical_features") == ("category", "region")


def test_the_smallest_file_gets_defaults(tmp_path: Path) -> None:
    expected = Params(DataParams(Path("a.csv")), FeatureParams("y", (), ("x",)))
    assert expected == params.load(written(tmp_path, SMALLEST), {})


@pytest.mark.parametrize("path", ["model.nothing", "nothing", "model.algorithm.deeper", ""])
def test_get_gives_the_default_where_there_is_no_such_key(path: str) -> None:
    smallest = Params(DataParams(Path("a.csv")), FeatureParams("y", (), ("x",)))
    assert smallest.get(path, "default") == "default"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SMALLEST + "model:\n  max_dept: 3\n", ":7: model.max_dept: unknown key; did you mean 'max_depth'?"),
        (SMALLEST + "modle: {}\n", ":6: modle: unknown key; did you mean 'model'?"),
        (SMALLEST + "model:\n  max_depth: deep\n", ":7: model.max_depth: expected a whole number"),
        (SMALLEST + "model:\n  n_estimators: 0\n", ":6: model: n_estimators 0 is not between 1 and 10000"),
        (SMALLEST + "training:\n  metrics: [acuracy]\n", "did you mean 'accuracy'?"),
        (SMALLEST + "training:\n  cross_validation_folds: 1\n", "cross_validation_folds 1 is not between 2"),
        (SMALLEST + "mlflow:\n  experiment_name: Not A Name\n", "experiment_name 'Not A Name' is not"),
        (SMALLEST + "quality:\n  z: {min: 1}\n", "quality.z: unknown column"),
        (SMALLEST + "quality:\n  y: {min: 1}\n", "quality.y: min and max are for numerical_features"),
        (SMALLEST + "quality:\n  x: {min: 2, max: 1}\n", ":7: quality.x: min 2 is above max 1"),
        (SMALLEST + "quality:\n  x: {max_null_share: 0.1}\n", "max_null_share needs nullable: true"),
        (SMALLEST + "quality:\n  x: {allowed: ['1']}\n", "quality.x.allowed: this column holds numbers"),
        (SMALLEST + "quality:\n  y: {allowed: [1]}\n", "holds text; put each value in quotes"),
        (SMALLEST.replace("target: y", "target: x"), "column 'x' is named twice"),
        (SMALLEST.replace("  target: y\n", ""), ":3: features: key 'target' is missing"),
        (SMALLEST.replace("[x]", "[]"), "are both empty"),
        (SMALLEST.replace("a.csv", "a.csv\n  id_column: x"), "id_column 'x' must not be a feature"),
    ],
)
def test_a_wrong_file_is_refused_with_place_and_remedy(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(BadParams) as caught:
        params.load(written(tmp_path, text), {})
    assert told in caught.value.message


def test_the_environment_overrides_single_values(tmp_path: Path) -> None:
    env = {
        "MODEL__MAX_DEPTH": "4",
        "MODEL__CLASS_WEIGHT": "balanced",
        "FEATURES__TARGET": "7",
        "TRAINING__METRICS": "[f1]",
        "QUALITY__X__MAX": "3",
        "DATA__ID_COLUMN": "null",
        "MLFLOW__TRACKING_URI": "sqlite:///x.db",
        "MLFLOW_TRACKING_URI": "http://elsewhere",
        "SLUICEGATE_REGISTRY__HOME": "ignored",
        "OTHER__THING": "ignored",
    }
    text = SMALLEST.replace("a.csv", "a.csv\n  id_column: id") + "quality:\n  x: {min: 1}\n"
    loaded = params.load(written(tmp_path, text), env)
    assert loaded.model == ModelParams(max_depth=4, class_weight="balanced")
    assert loaded.features.target == "7"
    assert loaded.training.metrics == ("f1",)
    assert loaded.quality == {"x": ColumnRule(min=1, max=3)}
    assert loaded.data.id_column is None
    assert loaded.mlflow.tracking_uri == "sqlite:///x.db"


def test_mlflows_own_variable_sets_the_uri_without_an_mlflow_section(tmp_path: Path) -> None:
    loaded = params.load(written(tmp_path, SMALLEST), {"MLFLOW_TRACKING_URI": "http://tracking:5000"})
    assert loaded.mlflow == MlflowParams(tracking_uri="http://tracking:5000")


def test_a_required_key_may_come_from_the_environment_alone(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST.replace("data:\n  raw_data_path: a.csv\n", ""))
    assert params.load(path, {"DATA__RAW_DATA_PATH": "b.csv"}).data == DataParams(Path("b.csv"))


@pytest.mark.parametrize(
    ("variable", "text", "told"),
    [
        ("MODEL__MAX_DEPHT", "4", "MODEL__MAX_DEPHT: unknown key; did you mean 'MODEL__MAX_DEPTH'?"),
        ("MODEL__MAX_DEPTH", "deep", "with MODEL__MAX_DEPTH: model.max_depth: expected a whole number"),
        ("MODEL__MAX_DEPTH", "[", "MODEL__MAX_DEPTH: not a valid value"),
        ("MODEL__MAX_DEPTH__X", "1", "MODEL__MAX_DEPTH__X: goes deeper than params.yaml does"),
        ("QUALITY__Z__MIN", "1", "quality.Z: unknown column"),
        ("QUALITY__X__MINN", "1", "did you mean 'QUALITY__X__MIN'?"),
        ("MODEL__", "1", "MODEL__: unknown key"),
    ],
)
def test_a_wrong_override_is_refused_by_name(tmp_path: Path, variable: str, text: str, told: str) -> None:
    with pytest.raises(BadParams) as caught:
        params.load(written(tmp_path, SMALLEST), {variable: text})
    assert told in caught.value.message


def test_a_fault_of_the_file_keeps_its_line_when_something_is_overridden(tmp_path: Path) -> None:
    path = written(tmp_path, SMALLEST + "model:\n  max_dept: 3\n")
    with pytest.raises(BadParams, match=r"params\.yaml:7: model\.max_dept: unknown key"):
        params.load(path, {"MODEL__N_ESTIMATORS": "5"})


def test_flattened_names_never_collide(tmp_path: Path) -> None:
    flat = params.flatten(params.load(written(tmp_path, SEED), {}))
    assert (flat["model.random_state"], flat["data.random_state"]) == ("7", "42")
    assert flat["features.categorical_features"] == "category, region"
    assert "model.class_weight" not in flat


SMALL = Params(DataParams(Path("a.csv")), FeatureParams("y", (), ("x",)))


@given(st.integers(1, 500), st.integers(0, 2**32 - 1))
def test_the_digest_changes_with_what_decides_the_model_only(trees: int, seed: int) -> None:
    changed = replace(SMALL, model=ModelParams(n_estimators=trees, random_state=seed))
    same = (trees, seed) == (100, 42)
    assert (params.params_digest(changed) == params.params_digest(SMALL)) is same
    elsewhere = replace(
        changed,
        data=DataParams(Path("moved/b.csv"), Path("clean.csv")),
        mlflow=MlflowParams("other", "http://other"),
    )
    assert params.params_digest(elsewhere) == params.params_digest(changed)
