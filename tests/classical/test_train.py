from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from classical import data, train
from classical.errors import BadData
from classical.params import METRICS, FeatureParams, ModelParams, TrainingParams
from registry.errors import NotFound
from tests.classical.conftest import Model, people, write_table

FOREST = people()


def test_the_model_beats_the_majority_and_says_how_sure_it_is(model: Model) -> None:
    metrics = model.trained.metrics
    assert metrics["accuracy"] > metrics["baseline_accuracy"] + 0.1
    assert metrics["cv_accuracy_mean"] > 0.75
    assert 0 < metrics["cv_accuracy_std"] < 0.1
    positive = {"precision_positive", "recall_positive", "f1_positive", "roc_auc"}
    scored = {*METRICS, *positive}
    folded = {f"cv_{name}_{part}" for name in scored for part in ("mean", "std")}
    assert set(metrics) == scored | folded | {"baseline_accuracy"}
    assert all(0 <= value <= 1 and round(value, 6) == value for value in metrics.values())


def test_the_positive_class_comes_last(model: Model) -> None:
    assert model.trained.content.classes == ("yes", "no")
    neutral = replace(FOREST, features=replace(FOREST.features, positive_class=None))
    frame = model.prepared.split.train
    fitted = train.fit(frame, replace(neutral, training=TrainingParams(0)))
    assert fitted.classes == ("no", "yes")
    assert fitted.metrics == {}


def test_cross_validation_counts_its_fits_and_can_be_left_out(model: Model) -> None:
    settings = replace(FOREST, training=TrainingParams(2, validation_split=0.3, metrics=("f1",)))
    ticks: list[int] = []
    fitted = train.fit(model.prepared.split.train, settings, tick=ticks.append)
    assert ticks == [1] * train.steps(settings) == [1, 1, 1, 1]
    named = ("f1", "precision_positive", "recall_positive", "f1_positive", "roc_auc")
    folds = [f"cv_{name}_{part}" for part in ("mean", "std") for name in named]
    assert list(fitted.metrics) == [*folds, *(f"validation_{name}" for name in named)]


def test_threads_do_not_change_a_tree(model: Model) -> None:
    frame = model.prepared.split.train
    settings = replace(FOREST, training=TrainingParams(2))
    one, many = train.fit(frame, settings, jobs=1), train.fit(frame, settings, jobs=3)
    rows = train.matrix(frame, settings.features)
    assert one.metrics == many.metrics
    assert one.pipeline.predict_proba(rows).tolist() == many.pipeline.predict_proba(rows).tolist()


def test_another_seed_gives_another_forest(model: Model) -> None:
    frame = model.prepared.split.train
    rows = train.matrix(frame, FOREST.features)
    seeds = [
        train.fit(
            frame,
            replace(FOREST, model=replace(FOREST.model, random_state=seed), training=TrainingParams(0)),
        )
        for seed in (1, 2)
    ]
    assert seeds[0].pipeline.predict_proba(rows).tolist() != seeds[1].pipeline.predict_proba(rows).tolist()


def test_known_answers_have_known_scores() -> None:
    settings = replace(FOREST, features=FeatureParams("y", (), ("x",), positive_class="b"), quality={})
    sure = {0: [0.9, 0.1], 1: [0.2, 0.8]}
    scores = train.score([0, 0, 0, 1], [sure[0], sure[0], sure[1], sure[1]], settings, ["a", "b"])
    assert scores == {
        "accuracy": 0.75,
        "precision": 0.875,
        "recall": 0.75,
        "f1": 0.766667,
        "precision_macro": 0.75,
        "recall_macro": 0.833333,
        "f1_macro": 0.733333,
        "precision_positive": 0.5,
        "recall_positive": 1.0,
        "f1_positive": 0.666667,
        "roc_auc": 0.833333,
    }


def test_a_class_never_predicted_counts_zero_without_a_warning() -> None:
    settings = replace(FOREST, features=FeatureParams("y", (), ("x",)), quality={})
    scores = train.score([0, 1], [[1.0, 0.0], [1.0, 0.0]], settings, ["a", "b"])
    assert (scores["precision_macro"], scores["recall_macro"]) == (0.25, 0.5)


@given(st.lists(st.sampled_from("abc"), min_size=1), st.lists(st.sampled_from("abc"), min_size=1))
def test_no_constant_answer_beats_the_majority_on_its_own_rows(
    train_side: list[str], other: list[str]
) -> None:
    own = train.majority_accuracy(train_side, train_side)
    assert all(own >= round(train_side.count(name) / len(train_side), 6) for name in "abc")
    assert 0 <= train.majority_accuracy(train_side, other) <= 1


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["a,x,p,1,2,no", "b,x,p,1,2,no"], "holds 1 class; a classifier needs two"),
        (
            ["a,x,p,1,2,no", "b,x,p,1,2,yes", "c,x,p,1,2,yes"],
            "class 'no' has 1 training rows, fewer than the 3",
        ),
        (
            [f"{n},x,p,1,,{'yes' if n % 2 else 'no'}" for n in range(8)],
            "'income' has no value in the training rows",
        ),
        ([f"{n},x,p,1,2,{'a' if n % 2 else 'b'}" for n in range(8)], "positive_class 'no' is not in column"),
    ],
)
def test_rows_that_cannot_be_trained_on_are_refused(tmp_path: Path, lines: list[str], told: str) -> None:
    frame = data.read(write_table(tmp_path, lines), FOREST).frame
    with pytest.raises(BadData, match=told):
        train.fit(frame, FOREST)


def test_an_unknown_recipe_is_refused_with_those_there_are(model: Model) -> None:
    with pytest.raises(
        NotFound, match=r"no plug-in 'boosting' in sluicegate\.recipes.*linear, random_forest"
    ):
        train.fit(model.prepared.split.train, replace(FOREST, model=ModelParams(algorithm="boosting")))
