"""`/predict` and `/predict/batch` over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.dataplane.table import Route
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, Threshold, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import Upstream

OTHER = "sha256:" + "cd" * 32


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    routes = {
        "churn": Route(name="churn", digest=DIGEST, kind="prediction", predictor=Threshold()),
        "chat": Route(name="chat", digest=OTHER),
    }
    stand = Stand("", Upstream())
    with serving(DataPlane(FixedSources(table_of(routes)), stand.records.append)) as stand.url:
        yield stand


@pytest.fixture
def models(running: Stand) -> Stand:
    running.records.clear()
    return running


def ask(
    stand: Stand, path: str, body: Any, headers: dict[str, str] | None = None
) -> tuple[int, dict[str, str], Any]:
    return stand.post(path, json.dumps(body).encode(), headers)


def test_predict_answers_one_row_with_the_only_model_in_production(models: Stand) -> None:
    status, _, answer = ask(models, "/predict", {"features": {"plan": "a", "months": 3}})
    assert status == 200
    assert answer.pop("processing_time") > 0
    assert answer == {"prediction": 1, "probability": [0.25, 0.75], "label": "Yes", "model_version": DIGEST}


@pytest.mark.parametrize(
    ("query", "headers"), [("?model=churn@production", {}), ("", {"x-sluicegate-model": "churn"})]
)
def test_predict_takes_the_model_from_query_or_header(
    models: Stand, query: str, headers: dict[str, str]
) -> None:
    status, _, answer = ask(models, f"/predict{query}", {"features": {"plan": "a", "months": 30}}, headers)
    assert (status, answer["label"]) == (200, "No")


def test_predict_batch_answers_a_list(models: Stand) -> None:
    rows = [{"features": {"plan": "a", "months": months}} for months in (3, 30)]
    status, _, answer = ask(models, "/predict/batch", rows)
    assert status == 200
    assert answer == [
        {"id": 0, "prediction": 1, "probability": [0.25, 0.75], "label": "Yes"},
        {"id": 1, "prediction": 0, "probability": [0.75, 0.25], "label": "No"},
    ]


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/predict", {"features": {"plan": "a"}}, "months"),
        ("/predict", {"feature": {}}, "feature"),
        ("/predict", {"features": {"plan": "a", "months": "3"}}, "months"),
        ("/predict", [], "object"),
        ("/predict/batch", [], "empty"),
        ("/predict/batch", {}, "array"),
        ("/predict/batch", [{"features": {"plan": "a"}}], "months"),
        ("/predict?model=chat", {"features": {}}, "chat release"),
    ],
)
def test_bad_features_are_a_400_that_names_them(models: Stand, path: str, body: Any, told: str) -> None:
    status, _, answer = ask(models, path, body)
    assert status == 400
    assert told in answer["error"]["message"]


def test_predictions_need_a_key(models: Stand) -> None:
    for path in ("/predict", "/predict/batch", "/v2/models/churn/infer"):
        assert ask(models, path, {}, {"authorization": ""})[0] == 401


def test_with_several_models_one_must_be_named() -> None:
    routes = {n: Route(name=n, kind="prediction", predictor=Threshold()) for n in ("churn", "fraud")}
    stand = Stand("", Upstream())
    with serving(DataPlane(FixedSources(table_of(routes)), stand.records.append)) as stand.url:
        status, _, answer = ask(stand, "/predict", {"features": {}})
    assert status == 400
    assert "churn, fraud" in answer["error"]["message"]
