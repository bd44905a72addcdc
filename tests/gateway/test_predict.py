"""Open Inference Protocol, `/predict` and `/predict/batch` over a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.dataplane.table import Route
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, Threshold, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand, until
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


def tensors(plan: list[Any], months: list[Any], **changes: Any) -> dict[str, Any]:
    count = len(months)
    return {
        "inputs": [
            {"name": "plan", "datatype": "BYTES", "shape": [count], "data": plan},
            {"name": "months", "datatype": "FP64", "shape": [count], "data": months} | changes,
        ]
    }


def test_infer_answers_each_row(models: Stand) -> None:
    body = {"id": "42", "parameters": {"x": 1}} | tensors(["a", None], [3, 30.5])
    status, headers, answer = ask(models, "/v2/models/churn/infer", body)
    assert status == 200
    assert answer == {
        "model_name": "churn",
        "model_version": DIGEST,
        "id": "42",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["Yes", "No"]},
            {"name": "probability", "datatype": "FP64", "shape": [2, 2], "data": [0.25, 0.75, 0.75, 0.25]},
        ],
    }
    assert (headers["x-sluicegate-release"], headers["x-sluicegate-digest"]) == ("churn", DIGEST)
    until(lambda: models.records)
    assert (models.records[0].rows, models.records[0].release) == (2, "churn")


def test_a_column_may_be_two_dimensional_and_outputs_chosen(models: Stand) -> None:
    body = tensors(["a"], [3], shape=[1, 1], data=[[3]], datatype="INT64") | {"outputs": [{"name": "label"}]}
    status, _, answer = ask(models, "/v2/models/churn@production/infer", body)
    assert (status, answer["model_name"]) == (200, "churn@production")
    assert answer["outputs"] == [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["Yes"]}]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"name": "plan"}]}, "shape"),
        (tensors(["a"], [3], name="plan"), "plan"),
        (tensors(["a"], [3], name="plan", datatype="BYTES"), "given twice"),
        (tensors(["a"], [3], shape=[2]), "months"),
        (tensors(["a", "b"], [3, 4], shape=[1, 2]), "months"),
        (tensors(["a"], [3], data=[3, 4]), "does not fit 2 values"),
        (tensors(["a"], [3], datatype="BYTES"), "number feature"),
        (tensors(["a"], [3], shape=[0], data=[]), "months"),
        (tensors([], []), "empty"),
        (tensors(["a"], [3], name="weeks"), "months"),
        (tensors(["a"], [None]), "months"),
        (tensors(["a"], [3]) | {"outputs": [{"name": "nope"}]}, "nope"),
    ],
)
def test_a_wrong_tensor_is_a_400_that_names_it(models: Stand, body: Any, told: str) -> None:
    status, _, answer = ask(models, "/v2/models/churn/infer", body)
    assert status == 400
    assert told in answer["error"]["message"]


def test_a_batch_beyond_the_bound_is_refused(models: Stand) -> None:
    status, _, answer = ask(models, "/v2/models/churn/infer", tensors(["a"] * 5, [1] * 5))
    assert (status, answer["error"]["code"]) == (413, "request_too_large")


def test_a_fault_of_the_model_is_a_500_without_its_text(models: Stand) -> None:
    status, headers, answer = ask(models, "/v2/models/churn/infer", tensors(["a"], ["explode"]))
    assert (status, answer["error"]["code"]) == (500, "internal_error")
    assert "secret internals" not in json.dumps(answer)
    assert headers["x-sluicegate-release"] == "churn"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/models/nope/infer", 404),
        ("/v2/models//infer", 404),
        ("/v2/models/a/b/infer", 404),
        ("/v2/models/churn/versions/9/infer", 404),
        ("/v2/models/chat/infer", 400),
    ],
)
def test_other_models_are_refused(models: Stand, path: str, status: int) -> None:
    assert ask(models, path, tensors(["a"], [3]))[0] == status


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


def test_metadata_describes_the_tensors(models: Stand) -> None:
    status, _, answer = models.post("/v2/models/churn", b"", method="GET")
    assert status == 200
    assert answer == {
        "name": "churn",
        "versions": [DIGEST],
        "platform": "onnx_onnxv1",
        "inputs": [
            {"name": "plan", "datatype": "BYTES", "shape": [-1]},
            {"name": "months", "datatype": "FP64", "shape": [-1]},
        ],
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {
                "name": "probability",
                "datatype": "FP64",
                "shape": [-1, 2],
                "parameters": {"classes": ["No", "Yes"]},
            },
        ],
    }
    status, _, answer = models.post("/v2/models/churn/ready", b"", method="GET")
    assert (status, answer) == (200, {"name": "churn", "ready": True})
    for path, expected in (
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
    ):
        assert models.post(path, b"", {"authorization": ""}, "GET")[2] == expected
    assert models.post("/v2", b"", method="GET")[2]["name"] == "sluicegate"
