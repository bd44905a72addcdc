"""MLflow's scoring protocol, and the Open Inference Protocol's binary tensors and repository."""

from __future__ import annotations

import json
import struct
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.tensors import FORMATS, pack, split, unpack
from gateway.errors import InvalidRequest
from tests.fakes.parts import CLIENT_KEY, DIGEST
from tests.fakes.stand import Stand

SURE, UNSURE = {"plan": "basic", "months": 3}, {"plan": "pro", "months": 30}
COLUMNS = ["plan", "months"]
LABELS = {"predictions": ["Yes", "No"]}
HEAD = b"inference-header-content-length"


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
        (b"x", "text/html", "content-type"),
    ],
)
def test_what_cannot_be_predicted_is_told_as_mlflow_does(
    stand: Stand, body: Any, kind: str, words: str
) -> None:
    answer = ask(stand, "/invocations?model=churn", body, {"content-type": kind})
    told = answer.json()
    assert (answer.status_code, told["error_code"]) == (400, "BAD_REQUEST")
    assert words in told["message"]


def test_a_wrong_key_is_told_as_mlflow_does(stand: Stand) -> None:
    answer = ask(stand, "/invocations", {}, {"authorization": "Bearer no"})
    assert (answer.status_code, answer.json()["error_code"]) == (401, "UNAUTHENTICATED")


def test_ping_and_version_take_no_key(stand: Stand) -> None:
    with httpx.Client(timeout=10) as client:
        assert client.get(f"{stand.url}/ping").status_code == 200
        assert client.get(f"{stand.url}/version").text.count(".") >= 1


def binary(data: bytes, size: int | None = None, **more: Any) -> tuple[bytes, dict[str, str]]:
    months = {"binary_data_size": len(data) if size is None else size}
    inputs = [
        {"name": "plan", "shape": [2], "datatype": "BYTES", "data": ["basic", "pro"]},
        {"name": "months", "shape": [2], "datatype": "FP32", "parameters": months},
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + data, {HEAD.decode(): str(len(head))}


def test_binary_tensors_go_in_and_come_out(stand: Stand) -> None:
    body, headers = binary(struct.pack("<2f", 3, 30), parameters={"binary_data_output": True})
    answer = ask(stand, "/v2/models/churn/infer", body, headers)
    assert answer.status_code == 200
    length = int(answer.headers[HEAD.decode()])
    told = json.loads(answer.content[:length])
    sizes = [output["parameters"]["binary_data_size"] for output in told["outputs"]]
    rest = answer.content[length:]
    assert sum(sizes) == len(rest)
    assert unpack("label", "BYTES", rest[: sizes[0]]) == ["Yes", "No"]
    assert unpack("probability", "FP64", rest[sizes[0] :]) == [0.25, 0.75, 0.75, 0.25]


def test_only_the_outputs_that_ask_for_it_are_binary(stand: Stand) -> None:
    wanted = [{"name": "label"}, {"name": "probability", "parameters": {"binary_data": True}}]
    body, headers = binary(struct.pack("<2f", 3, 30), outputs=wanted)
    answer = ask(stand, "/v2/models/churn/infer", body, headers)
    told = json.loads(answer.content[: int(answer.headers[HEAD.decode()])])
    assert told["outputs"][0]["data"] == ["Yes", "No"]
    assert told["outputs"][1]["parameters"] == {"binary_data_size": 32}


@pytest.mark.parametrize(
    ("data", "size", "head", "words"),
    [
        (b"\0" * 7, None, None, "whole number"),
        (b"\0" * 8, 9, None, "binary_data_size"),
        (b"\0" * 8, 4, None, "belong to no tensor"),
        (b"\0" * 8, None, "99999", "Inference-Header-Content-Length"),
        (b"\0" * 8, None, "-1", "Inference-Header-Content-Length"),
        (b"\0" * 4, None, None, "does not fit"),
    ],
)
def test_malformed_binary_tensors_are_refused_by_name(
    stand: Stand, data: bytes, size: int | None, head: str | None, words: str
) -> None:
    body, headers = binary(data, size)
    if head is not None:
        headers[HEAD.decode()] = head
    answer = ask(stand, "/v2/models/churn/infer", body, headers)
    assert answer.status_code == 400
    assert words in answer.json()["error"]["message"]


def test_the_repository_says_what_is_served_and_leaves_it_to_the_registry(stand: Stand) -> None:
    found = ask(stand, "/v2/repository/index", {}).json()
    assert {"name": "churn", "version": DIGEST, "state": "READY", "reason": ""} in found
    assert ask(stand, "/v2/repository/models/churn/load", {}).status_code == 200
    assert ask(stand, "/v2/repository/models/nonesuch/load", {}).status_code == 404
    refused = ask(stand, "/v2/repository/models/churn/unload", {})
    assert (refused.status_code, "alias" in refused.json()["error"]["message"]) == (400, True)


VALUES: dict[str, st.SearchStrategy[Any]] = {
    "BOOL": st.booleans(),
    "BYTES": st.text(),
    "FP16": st.floats(width=16, allow_nan=False),
    "FP32": st.floats(width=32, allow_nan=False),
    "FP64": st.floats(allow_nan=False),
    **{
        f"{sign}INT{bits}": st.integers(
            0 if sign else -(2 ** (bits - 1)), 2 ** (bits if sign else bits - 1) - 1
        )
        for sign in ("", "U")
        for bits in (8, 16, 32, 64)
    },
}


def test_every_datatype_is_tried() -> None:
    assert set(VALUES) == {*FORMATS, "BYTES"}


@given(st.sampled_from(sorted(VALUES)).flatmap(lambda kind: st.tuples(st.just(kind), st.lists(VALUES[kind]))))
def test_what_is_packed_is_unpacked(tensor: tuple[str, list[Any]]) -> None:
    datatype, values = tensor
    assert unpack("x", datatype, pack(datatype, values)) == values


@given(st.binary(max_size=60), st.sampled_from([*FORMATS, "BYTES"]))
def test_any_bytes_are_values_or_a_refusal(data: bytes, datatype: str) -> None:
    try:
        values = unpack("x", datatype, data)
    except InvalidRequest:
        return
    if datatype not in ("BOOL", "FP16", "FP32", "FP64"):
        assert pack(datatype, values) == data


@given(st.binary(max_size=20), st.binary(max_size=4))
def test_any_length_splits_or_is_refused(body: bytes, length: bytes) -> None:
    try:
        head, rest = split(body, length)
    except InvalidRequest:
        return
    assert head + rest == body
