from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from classical import data
from classical.errors import BadFeatures
from classical.predict import Predictions, Predictor, load_predictor
from registry.entities import ModelContent
from registry.errors import NotFound, VersionTampered
from registry.versions import plain
from tests.classical.conftest import Model

ROW = {"colour": "red", "plan": "basic", "age": 70, "income": 100.5}


@pytest.fixture(scope="module")
def predictor(model: Model) -> Predictor:
    return load_predictor(model.trained.content, model.artifacts)


def test_rows_are_answered_in_order_with_label_index_and_probabilities(predictor: Predictor) -> None:
    answer = predictor.predict([ROW, {**ROW, "age": 20, "plan": "full plan"}, ROW])
    assert answer.labels == ("yes", "no", "yes")
    assert answer.indices == (0, 1, 0)
    assert predictor.classes == ("yes", "no")
    assert [round(sum(row), 5) for row in answer.probabilities] == [1.0, 1.0, 1.0]
    assert answer.probabilities[0] == answer.probabilities[2]


def test_no_rows_give_no_answers(predictor: Predictor) -> None:
    assert predictor.predict([]) == Predictions((), (), ())


def test_the_features_are_those_that_were_registered(model: Model, predictor: Predictor) -> None:
    assert predictor.features == model.trained.content.features
    predictor.warm()


@pytest.mark.parametrize(
    ("change", "row", "told"),
    [
        ({"age": None}, 1, "row 1: feature 'age': expected number, got null"),
        ({"age": "70"}, 1, "row 1: feature 'age': expected number, got text"),
        ({"age": True}, 1, "row 1: feature 'age': expected number, got true/false"),
        ({"age": [1]}, 1, "row 1: feature 'age': expected number, got list"),
        ({"age": math.nan}, 1, "row 1: feature 'age': expected a finite number"),
        ({"age": math.inf}, 1, "row 1: feature 'age': expected a finite number"),
        ({"age": 10**400}, 1, "row 1: feature 'age': expected a finite number"),
        ({"income": "1"}, 1, "row 1: feature 'income': expected number or null, got text"),
        ({"income": math.nan}, 1, "row 1: feature 'income': expected a finite number"),
        ({"plan": 3}, 1, "row 1: feature 'plan': expected text, got a number"),
        ({"plan": None}, 1, "row 1: feature 'plan': expected text, got nothing"),
        ({"plan": "  "}, 1, "row 1: feature 'plan': expected text, got nothing"),
        ({"colour": False}, 1, "row 1: feature 'colour': expected text or null, got true/false"),
        ({"size": 1}, 1, "row 1: feature 'size': unknown; the model does not have it"),
    ],
)
def test_a_cell_of_the_wrong_kind_is_refused_by_row_and_feature(
    predictor: Predictor, change: Mapping[str, object], row: int, told: str
) -> None:
    with pytest.raises(BadFeatures) as caught:
        predictor.predict([ROW, {**ROW, **change}])
    assert caught.value.message.startswith(told)
    assert (caught.value.row, caught.value.feature, caught.value.code) == (
        row,
        next(iter(change)),
        "bad_features",
    )


@pytest.mark.parametrize("name", sorted(ROW))
def test_a_missing_feature_is_refused_even_where_null_is_fine(predictor: Predictor, name: str) -> None:
    row = {key: value for key, value in ROW.items() if key != name}
    with pytest.raises(BadFeatures, match=f"row 0: feature '{name}': missing; expected"):
        predictor.predict([row])


def test_a_gap_is_null_and_blank_text_is_a_gap(predictor: Predictor) -> None:
    gaps = [{**ROW, "colour": colour, "income": None} for colour in (None, "", " \t")]
    answers = predictor.predict(gaps).probabilities
    assert answers[0] == answers[1] == answers[2]


def test_a_category_that_training_never_saw_is_answered(predictor: Predictor) -> None:
    assert predictor.predict([{**ROW, "colour": "ultramarine 🌊"}]).labels == ("yes",)


CELLS = st.fixed_dictionaries(
    {
        "colour": st.none() | st.text(max_size=8) | st.sampled_from(["red", "green", "blue"]),
        "plan": st.sampled_from(["basic", "full plan", "other"]),
        "age": st.integers(-(2**60), 2**60) | st.floats(-1e30, 1e30),
        "income": st.none() | st.floats(-1e30, 1e30),
    }
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(rows=st.lists(CELLS, min_size=1, max_size=6))
def test_a_row_is_answered_the_same_alone_and_in_a_batch(
    predictor: Predictor, rows: list[dict[str, Any]]
) -> None:
    together = predictor.predict(rows)
    alone = [predictor.predict([row]) for row in rows]
    assert [answer.labels[0] for answer in alone] == list(together.labels)
    for one, whole in zip(alone, together.probabilities, strict=True):
        assert one.probabilities[0] == pytest.approx(whole, abs=1e-6)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(row=st.dictionaries(st.sampled_from([*ROW, "other"]), JSON, max_size=5))
def test_any_row_is_answered_or_refused_by_name(predictor: Predictor, row: dict[str, Any]) -> None:
    try:
        assert len(predictor.predict([row]).labels) == 1
    except BadFeatures as refused:
        assert refused.feature in {*ROW, *row}


def test_many_threads_get_the_answers_of_one(model: Model, predictor: Predictor) -> None:
    rows = data.plain_rows(model.prepared.split.holdout, model.params)
    expected = [predictor.predict([row]) for row in rows]
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda row: predictor.predict([row]), rows)) == expected


def test_the_whole_hold_out_scores_what_training_said(model: Model, predictor: Predictor) -> None:
    holdout = model.prepared.split.holdout
    labels = predictor.predict(data.plain_rows(holdout, model.params)).labels
    right = sum(label == expected for label, expected in zip(labels, holdout["left"], strict=True))
    assert round(right / len(labels), 6) == model.trained.metrics["accuracy"]


def test_changed_or_absent_bytes_never_load(model: Model) -> None:
    content = model.trained.content
    other = model.artifacts.put(b"another blob")
    model.artifacts.path(other).write_bytes(b"changed")
    with pytest.raises(VersionTampered):
        load_predictor(replace(content, artifact=other), model.artifacts)
    with pytest.raises(NotFound):
        load_predictor(replace(content, artifact="sha256:" + "0" * 64), model.artifacts)


def test_an_unknown_format_is_refused_with_those_there_are(model: Model) -> None:
    content = replace(model.trained.content, format="skops")  # type: ignore[arg-type]
    with pytest.raises(NotFound, match=r"no plug-in 'skops' in sluicegate\.runtimes; there are: onnx"):
        load_predictor(content, model.artifacts)


SERVE = """
import json, sys
from pathlib import Path
from classical.predict import load_predictor
from registry import parse
from registry.artifacts import Artifacts
from registry.entities import ModelContent

told = json.loads(sys.stdin.read())
content = parse.build(told["content"], ModelContent)
answer = load_predictor(content, Artifacts(Path(told["folder"]))).predict([told["row"]])
heavy = {"sklearn", "pandas", "mlflow", "skl2onnx", "pandera", "scipy", "onnx", "sqlalchemy"}
print(json.dumps({"labels": answer.labels, "heavy": sorted(heavy & set(sys.modules))}))
"""


def test_serving_needs_nothing_of_what_trained(model: Model) -> None:
    told = {"content": plain(model.trained.content), "folder": str(model.artifacts.folder), "row": ROW}
    done = subprocess.run(
        [sys.executable, "-c", SERVE],
        input=json.dumps(told),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert json.loads(done.stdout) == {"labels": ["yes"], "heavy": []}
    assert done.stderr == ""


def test_content_survives_the_registrys_json(model: Model) -> None:
    from registry import parse

    told = json.loads(json.dumps(plain(model.trained.content)))
    assert parse.build(told, ModelContent) == model.trained.content
