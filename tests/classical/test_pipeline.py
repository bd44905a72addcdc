from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from classical import pipeline
from classical.errors import QualityFailed
from classical.params import ColumnRule, ModelParams, params_digest
from registry.errors import NotFound
from registry.ids import digest_bytes
from tests.classical.conftest import Model, make_model, people, quiet, rows, write_table


def test_equal_inputs_give_one_digest_in_any_folder_with_any_threads(model: Model, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    again = make_model(tmp_path / "elsewhere", people(), jobs=3)
    assert again.trained.content == model.trained.content
    assert again.trained.digest == model.trained.digest


@pytest.mark.parametrize("change", ["rows", "params"])
def test_other_rows_or_parameters_give_another_digest(model: Model, tmp_path: Path, change: str) -> None:
    settings = people()
    if change == "rows":
        write_table(tmp_path, rows(241))
    else:
        settings = replace(settings, model=ModelParams(n_estimators=20, max_depth=4))
    assert make_model(tmp_path, settings).trained.digest != model.trained.digest


def test_the_version_says_what_it_was_made_of(model: Model) -> None:
    training = dict(model.trained.content.training)
    metrics = training.pop("metrics")
    environment = training.pop("environment_digest")
    assert training == {
        "data_digest": model.prepared.table.digest,
        "params_digest": params_digest(model.params),
        "recipe": "random_forest",
        "folds": 3,
        "rows": {
            "train": len(model.prepared.split.train),
            "holdout": len(model.prepared.split.holdout),
        },
    }
    assert metrics == model.trained.metrics
    assert environment.startswith("sha256:")


def test_the_steps_are_told_in_order(tmp_path: Path) -> None:
    said: list[str] = []
    write_table(tmp_path)
    settings = replace(people(), data=replace(people().data, processed_data_path=Path("clean.csv")))
    prepared = pipeline.prepare(settings, tmp_path, tmp_path / "report.json", say=said.append)
    assert [line.split()[0] for line in said] == ["read", "checked", "wrote", "split"]
    assert prepared.table.digest == digest_bytes((tmp_path / "people.csv").read_bytes())
    assert (tmp_path / "clean.csv").read_text().splitlines()[0] == "id,colour,plan,age,income,left"


def test_bad_rows_stop_the_pipeline_before_anything_is_split(tmp_path: Path) -> None:
    write_table(tmp_path)
    settings = replace(people(), quality={"age": ColumnRule(max=20)})
    said: list[str] = []
    with pytest.raises(QualityFailed):
        pipeline.prepare(settings, tmp_path, tmp_path / "report.json", say=said.append)
    assert [line.split()[0] for line in said] == ["read"]
    assert json.loads((tmp_path / "report.json").read_text())["ok"] is False


def test_an_unknown_recipe_stops_before_the_data_is_read(tmp_path: Path) -> None:
    settings = replace(people(), model=ModelParams(algorithm="boosting"))
    with pytest.raises(NotFound, match="boosting"):
        pipeline.prepare(settings, tmp_path, tmp_path / "report.json", say=quiet)


def test_the_run_leads_back_to_code_data_and_version(model: Model) -> None:
    meta = {"git_commit": "abc", "git_dirty": True}
    run = pipeline.run_of("people", model.params, model.trained, meta, actor="ada")
    training = model.trained.content.training
    assert run.tags == {
        "git.commit": "abc",
        "git.dirty": "true",
        "data.digest": training["data_digest"],
        "params.digest": training["params_digest"],
        "environment.digest": training["environment_digest"],
        "model.name": "people",
        "model.digest": model.trained.digest,
        "mlflow.user": "ada",
        "mlflow.source.name": "classical train",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "abc",
    }
    assert run.params["model.random_state"] == run.params["data.random_state"] == "42"
    files = pipeline.files_of(model.params, model.prepared, model.trained, model.artifacts)
    assert digest_bytes(files["model.onnx"]) == model.trained.content.artifact
    assert sorted(files) == ["environment.json", "model.onnx", "params.json", "quality.json"]


def test_circumstances_stay_out_of_the_digest(model: Model, tmp_path: Path) -> None:
    meta = pipeline.circumstances(tmp_path, model.trained)
    assert sorted(meta) == ["git_commit", "git_dirty", "hardware", "parity_max_delta", "seconds"]
    assert pipeline.content_digest(model.trained.content) == model.trained.digest
