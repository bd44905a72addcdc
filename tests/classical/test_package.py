from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from classical import package, train
from classical.errors import ParityFailed
from classical.params import DataParams, FeatureParams, ModelParams, TrainingParams
from classical.predict import load_predictor
from classical.train import Fitted
from registry.entities import Feature
from tests.classical.conftest import Model, make_model, people, rows, write_table


def again(model: Model, jobs: int = 2) -> Fitted:
    return train.fit(model.prepared.split.train, model.params, jobs=jobs)


@pytest.mark.parametrize("name", ["model", "linear"])
def test_the_same_training_gives_the_same_bytes(name: str, request: pytest.FixtureRequest) -> None:
    model: Model = request.getfixturevalue(name)
    stored = model.artifacts.get(model.trained.content.artifact)
    assert package.to_onnx(again(model), model.params) == stored


def test_the_bytes_hold_no_circumstances(model: Model) -> None:
    packed = onnx.load_from_string(model.artifacts.get(model.trained.content.artifact))
    assert (packed.graph.name, packed.doc_string, list(packed.metadata_props)) == ("sluicegate", "", [])
    assert [opset.domain for opset in packed.opset_import] == ["", "ai.onnx.ml"]
    assert all(opset.version <= package.OPSETS[opset.domain] for opset in packed.opset_import)
    assert [item.name for item in packed.graph.input] == ["colour", "plan", "age", "income"]


def test_the_content_says_how_to_call_the_model(model: Model) -> None:
    content = model.trained.content
    frame = model.prepared.split.train
    assert content.features == (
        Feature("colour", "text", nullable=True, values=("blue", "green", "red", "violet")),
        Feature("plan", "text", nullable=False, values=("basic", "full plan")),
        Feature("age", "number", nullable=False, minimum=frame["age"].min(), maximum=frame["age"].max()),
        Feature(
            "income", "number", nullable=True, minimum=frame["income"].min(), maximum=frame["income"].max()
        ),
    )
    assert content.format == "onnx"


def test_a_text_feature_with_very_many_values_is_open(model: Model) -> None:
    frame = model.prepared.split.train.assign(
        colour=[f"#{hashlib.sha256(name.encode()).hexdigest()}" for name in model.prepared.split.train.index]
    )
    many = package.MAX_VALUES // len(frame) + 1
    frame = frame.loc[list(frame.index) * many]
    frame["colour"] = [f"{value}{position}" for position, value in enumerate(frame["colour"])]
    assert package.features_of(frame, model.params)[0].values == ()


@pytest.mark.parametrize("name", ["model", "linear"])
def test_the_packaged_model_repeats_the_trained_one(name: str, request: pytest.FixtureRequest) -> None:
    model: Model = request.getfixturevalue(name)
    assert model.trained.parity.rows == len(model.prepared.split.holdout)
    assert model.trained.parity.max_delta < 1e-5


def test_a_model_that_answers_differently_is_refused(model: Model, linear: Model) -> None:
    other = load_predictor(linear.trained.content, linear.artifacts)
    with pytest.raises(ParityFailed, match=r"differs .* on the hold-out: \d+ labels, probabilities by up to"):
        package.check_parity(again(model), other, model.prepared.split.holdout, model.params)


def test_ties_may_fall_either_way(tmp_path: Path) -> None:
    lines = [f"r{n},{'red' if n % 3 else 'blue'},p,1,1,{'yes' if n % 2 else 'no'}" for n in range(120)]
    write_table(tmp_path, lines)
    settings = people(
        data=DataParams(Path("people.csv"), id_column="id", max_twin_share=1),
        model=ModelParams(algorithm="linear", class_weight="balanced"),
        features=FeatureParams("left", ("colour",), ()),
        training=TrainingParams(0),
        quality={},
    )
    assert make_model(tmp_path, settings).trained.parity.max_delta < 1e-5


@pytest.mark.parametrize(
    ("categorical", "numerical"), [(("colour", "plan"), ()), ((), ("age", "income")), (("plan",), ("age",))]
)
def test_any_mix_of_columns_can_be_packaged(
    tmp_path: Path, categorical: tuple[str, ...], numerical: tuple[str, ...]
) -> None:
    settings = people(
        data=DataParams(Path("people.csv"), id_column="id", max_twin_share=1),
        features=FeatureParams("left", categorical, numerical),
        training=TrainingParams(0),
        quality={},
    )
    names = [feature.name for feature in make_model(tmp_path, settings).trained.content.features]
    assert names == [*categorical, *numerical]


def test_columns_may_have_the_names_of_the_models_own_outputs(tmp_path: Path) -> None:
    header = "id,label,a b,a_b,probabilities,left"
    write_table(tmp_path, [line for line in rows() if ",," not in line], header)
    settings = people(
        features=FeatureParams("left", ("label", "a b"), ("a_b", "probabilities")),
        training=TrainingParams(0),
        quality={},
    )
    model = make_model(tmp_path, settings)
    row = {"label": "red", "a b": "basic", "a_b": 70, "probabilities": 1.5}
    assert load_predictor(model.trained.content, model.artifacts).predict([row]).labels == ("yes",)


def test_more_than_two_classes_are_packaged(tmp_path: Path) -> None:
    lines = [f"{line.rpartition(',')[0]},{'abc'[int(line.split(',')[3]) % 3]}" for line in rows()]
    write_table(tmp_path, lines)
    settings = people(features=replace(people().features, positive_class="b"))
    for algorithm in ("random_forest", "gradient_boosting", "linear"):
        model = make_model(
            tmp_path, replace(settings, model=ModelParams(algorithm=algorithm, n_estimators=5))
        )
        assert model.trained.content.classes == ("a", "c", "b")
        assert model.trained.parity.max_delta < 1e-5
