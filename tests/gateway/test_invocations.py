"""MLflow's scoring protocol."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.fakes.parts import CLIENT_KEY, DIGEST
from tests.fakes.stand import Stand

SURE, UNSURE = {"plan": "basic", "months": 3}, {"plan": "pro", "months": 30}
COLUMNS = ["plan", "months"]
LABELS = {"predictions": ["Yes", "No"]}


def ask(stand: Stand, path: str, body: bytes | Any, headers: dict[str, str] | None = None) -> httpx.Response:
    sent = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json", **(headers or {})}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with httpx.Client(timeout=10) as client:
        return client.post(f"{stand.url}{path}", content=data, headers=sent)


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": COLUMNS, "data": [["basic", 3], ["pro", 30]]}},
        {"dataframe_records": [SURE, UNSURE]},
        {"instances": [SURE, UNSURE]},
        {"instances": [["basic", 3], ["pro", 30]]},
        {"inputs": {"plan": ["basic", "pro"], "months": [3, 30]}},
        {"inputs": [SURE, UNSURE]},
    ],
)
def test_every_json_format_of_mlflow_is_predicted(stand: Stand, body: Any) -> None:
    answer = ask(stand, "/invocations?model=churn", body)
    assert (answer.status_code, answer.json()) == (200, LABELS)
    assert answer.headers["x-sluicegate-digest"] == DIGEST


def test_csv_is_read_by_its_header_and_the_features_types(stand: Stand) -> None:
    text = b'months,plan\n3,basic\n30,"pro, yearly"\n'
    answer = ask(stand, "/invocations?model=churn", text, {"content-type": "text/csv; charset=utf-8"})
    assert answer.json() == LABELS


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({}, "application/json", "exactly one of"),
        ({"instances": [SURE], "inputs": [SURE]}, "application/json", "exactly one of"),
        ({"instances": []}, "application/json", "no row"),
        ({"instances": [[1]]}, "application/json", "instances[0]"),
        ({"inputs": {"plan": ["a"], "months": [1, 2]}}, "application/json", "differ in length"),
        ({"dataframe_split": {"columns": COLUMNS, "data": [[1]]}}, "application/json", "data[0]"),
        ({"instances": [SURE], "params": {"a": 1}}, "application/json", "params"),
        ({"dataframe_records": [{"plan": "basic"}]}, "application/json", "months"),
        (b"months,plan\nmany,basic\n", "text/csv", "line 2"),
        (b"months,plan\n3\n", "text/csv", "line 2"),
    ],
)
def test_what_cannot_be_predicted_is_told_as_mlflow_does(
    stand: Stand, body: Any, kind: str, words: str
) -> None:
    answer = ask(stand, "/invocations?model=churn", body, {"content-type": kind})
    told = answer.json()
    assert (answer.status_code, told["error_code"]) == (400, "BAD_REQUEST")
    assert words in told["message"]


def test_another_kind_of_body_is_refused(stand: Stand) -> None:
    answer = ask(stand, "/invocations?model=churn", b"x", {"content-type": "text/html"})
    assert (answer.status_code, "content-type" in answer.json()["message"]) == (415, True)
    assert answer.headers["x-sluicegate-error"] == "unsupported_media_type"


def test_a_wrong_key_is_told_as_mlflow_does(stand: Stand) -> None:
    answer = ask(stand, "/invocations", {}, {"authorization": "Bearer no"})
    assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")


def test_ping_and_version_take_no_key(stand: Stand) -> None:
    with httpx.Client(timeout=10) as client:
        assert client.get(f"{stand.url}/ping").status_code == 200
        assert client.get(f"{stand.url}/version").text.count(".") >= 1
