"""Open Inference Protocol over a socket."""

from __future__ import annotations

import gzip
import hashlib
import json
import struct
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.media import inflated
from gateway.dataplane.table import Grant, Route, RouteTable, Target
from gateway.errors import GatewayError
from tests.fakes.parts import CLIENT_KEY, DIGEST, LIMITS, DataPlane, FixedSources, Threshold, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand, until
from tests.fakes.upstream import Upstream

OTHER, NEXT = "sha256:" + "cd" * 32, "sha256:" + "ef" * 32
KEEPER_KEY, NARROW_KEY = "sk-sg-keeper", "sk-sg-narrow"
LENGTH = "inference-header-content-length"
VERSIONS = ["1", "2", "candidate", "production", DIGEST, NEXT]


def table() -> RouteTable:
    churn = Route(name="churn", digest=DIGEST, kind="prediction", predictor=Threshold())
    newer = replace(churn, digest=NEXT, predictor=Threshold(classes=("Stays", "Leaves")))
    loading = Route(name="fraud", digest=OTHER, kind="prediction", problem="its parts are loading")
    made = table_of({"churn": churn, "chat": Route(name="chat", digest=OTHER), "fraud": loading})
    old, new = Target(churn), Target(newer, "candidate")
    more = {"churn:1": old, f"churn@{DIGEST}": old, "churn:2": new, f"churn@{NEXT}": new}
    keeper = Grant("key_2", ("*",), routes=("/v1/*", "/v2/repository/models/*"), account="key_2")
    narrow = Grant("key_3", ("fraud",), routes=("/v2/*",), account="key_3")
    keys = {
        hashlib.sha256(key.encode()).hexdigest(): grant
        for key, grant in ((KEEPER_KEY, keeper), (NARROW_KEY, narrow))
    }
    targets = {**made.targets, **more, "churn@candidate": new}
    return replace(made, targets=targets, grants={**made.grants, **keys})


@pytest.fixture(scope="module")
def running() -> Iterator[Stand]:
    stand = Stand("", Upstream())
    with serving(DataPlane(FixedSources(table()), stand.records.append)) as stand.url:
        yield stand


@pytest.fixture
def models(running: Stand) -> Stand:
    running.records.clear()
    return running


def ask(
    stand: Stand,
    path: str,
    body: bytes | Any = None,
    headers: Mapping[str, str | None] | None = None,
    method: str = "POST",
) -> httpx.Response:
    sent = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json", **(headers or {})}
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with httpx.Client(timeout=10) as client:
        given = {name: value for name, value in sent.items() if value is not None}
        return client.request(method, f"{stand.url}{path}", content=data, headers=given)


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    """Status, code and message of an error, which has the protocol's shape and no other."""
    told = answer.json()
    assert list(told) == ["error"]
    assert isinstance(told["error"], str)
    return answer.status_code, answer.headers["x-sluicegate-error"], told["error"]


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
    answer = ask(models, "/v2/models/churn/infer", body)
    assert answer.status_code == 200
    assert answer.json() == {
        "model_name": "churn",
        "model_version": DIGEST,
        "id": "42",
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [2], "data": ["Yes", "No"]},
            {"name": "probability", "datatype": "FP64", "shape": [2, 2], "data": [0.25, 0.75, 0.75, 0.25]},
        ],
    }
    assert (answer.headers["x-sluicegate-release"], answer.headers["x-sluicegate-digest"]) == (
        "churn",
        DIGEST,
    )
    until(lambda: models.records)
    assert (models.records[0].rows, models.records[0].release) == (2, "churn")


def test_a_column_may_be_two_dimensional_and_outputs_chosen(models: Stand) -> None:
    body = tensors(["a"], [3], shape=[1, 1], data=[[3]], datatype="INT64") | {"outputs": [{"name": "label"}]}
    told = ask(models, "/v2/models/churn@production/infer", body).json()
    assert told["model_name"] == "churn@production"
    assert told["outputs"] == [{"name": "label", "datatype": "BYTES", "shape": [1], "data": ["Yes"]}]


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ({}, "inputs"),
        ({"inputs": []}, "inputs"),
        ({"inputs": [{"name": "plan"}]}, "shape"),
        (tensors(["a"], [3], name="plan"), "plan"),
        (tensors(["a"], [3], name="plan", datatype="BYTES"), "given twice"),
        (tensors(["a"], [3], shape=[2]), "months"),
        (tensors(["a"], [3], shape=[-1]), "months"),
        (tensors(["a"], [3], shape=[]), "months"),
        (tensors(["a", "b"], [3, 4], shape=[1, 2]), "months"),
        (tensors(["a"], [3], data=[3, 4]), "does not fit 2 values"),
        (tensors(["a"], [3], data=[[3]]), "value 0 is not a number"),
        (tensors(["a", "b"], [3, 4], shape=[2, 1], data=[[3], 4]), "value 0 is not a number"),
        (tensors(["a"], [3], datatype="BYTES"), "number feature"),
        (tensors(["a"], [3], datatype="BOOL"), "number feature"),
        (tensors(["a"], [3], datatype="FP7"), "is none of"),
        (tensors(["a"], ["explode"]), "value 0 is not a number"),
        (tensors(["a"], [True]), "value 0 is not a number"),
        (tensors(["a"], [3.5], datatype="INT32"), "value 0 is not a whole number"),
        (tensors(["a", "b"], [None, 256], datatype="UINT8"), "a value is not 0 to 255"),
        (tensors(["a"], [-129], datatype="INT8"), "a value is not -128 to 127"),
        (tensors([7], [3]), "value 0 is not text"),
        (tensors(["a"], [3], shape=[0], data=[]), "months"),
        (tensors([], []), "empty"),
        (tensors(["a"], [3], name="weeks"), "months"),
        (tensors(["a"], [None]), "months"),
        (tensors(["a"], [3], parameters={"shared_memory_region": "x"}), "shared_memory_region"),
        (tensors(["a"], [3]) | {"outputs": [{"name": "nope"}]}, "nope"),
        (tensors(["a"], [3]) | {"outputs": [{"name": "label"}, {"name": "label"}]}, "twice"),
        (
            tensors(["a"], [3]) | {"outputs": [{"name": "label", "parameters": {"classification": 1}}]},
            "classification",
        ),
    ],
)
def test_a_wrong_tensor_is_a_400_that_names_it(models: Stand, body: Any, told: str) -> None:
    status, code, message = refusal(ask(models, "/v2/models/churn/infer", body))
    assert (status, code) in ((400, "invalid_request"), (400, "bad_features"))
    assert told in message


def test_a_batch_beyond_the_bound_is_refused(models: Stand) -> None:
    answer = ask(models, "/v2/models/churn/infer", tensors(["a"] * 5, [1] * 5))
    assert refusal(answer)[:2] == (413, "request_too_large")


def test_a_fault_of_the_model_is_a_500_without_its_text(models: Stand) -> None:
    answer = ask(models, "/v2/models/churn/infer", tensors(["explode"], [3]))
    assert refusal(answer)[:2] == (500, "internal_error")
    assert "secret internals" not in answer.text
    assert answer.headers["x-sluicegate-release"] == "churn"


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("/v2/models/nope/infer", 404, "model_not_found"),
        ("/v2/models//infer", 404, "model_not_found"),
        ("/v2/models/a/b/infer", 404, "model_not_found"),
        ("/v2/models/churn/versions/9/infer", 404, "model_not_found"),
        ("/v2/models/churn/versions/nobody/infer", 404, "model_not_found"),
        ("/v2/models/churn/versions//infer", 404, "model_not_found"),
        ("/v2/models/churn/versions/1/2/infer", 404, "model_not_found"),
        ("/v2/models/churn@production/versions/1/infer", 404, "model_not_found"),
        ("/v2/models/chat/infer", 400, "invalid_request"),
        ("/v2/models/fraud/infer", 503, "release_not_ready"),
        ("/v2/models/infer", 405, "method_not_allowed"),
        ("/v2/nothing", 404, "unknown_url"),
    ],
)
def test_other_models_are_refused(models: Stand, path: str, status: int, code: str) -> None:
    assert refusal(ask(models, path, tensors(["a"], [3])))[:2] == (status, code)


def test_a_wrong_key_is_told_in_the_protocols_shape(models: Stand) -> None:
    for path in ("/v2/models/churn/infer", "/v2/repository/index"):
        answer = ask(models, path, {}, {"authorization": "Bearer no"})
        assert refusal(answer)[:2] == (401, "invalid_api_key")


def test_metadata_names_every_version_and_each_can_be_asked(models: Stand) -> None:
    told = ask(models, "/v2/models/churn", method="GET").json()
    assert (told["name"], told["versions"]) == ("churn", VERSIONS)
    body = tensors(["a"], [3]) | {"outputs": [{"name": "label"}]}
    found = {}
    for version in told["versions"]:
        place = f"/v2/models/churn/versions/{version}"
        assert ask(models, f"{place}/ready", method="GET").json()["ready"] is True
        assert ask(models, place, method="GET").json() == told | {
            "outputs": ask(models, place, method="GET").json()["outputs"]
        }
        answer = ask(models, f"{place}/infer", body).json()
        assert answer["model_name"] == "churn"
        found[version] = (answer["model_version"], answer["outputs"][0]["data"])
    old, new = (DIGEST, ["Yes"]), (NEXT, ["Leaves"])
    assert found == dict(zip(VERSIONS, (old, new, new, old, old, new), strict=True))


def test_metadata_describes_the_tensors(models: Stand) -> None:
    answer = ask(models, "/v2/models/churn", method="GET")
    assert answer.json() == {
        "name": "churn",
        "versions": VERSIONS,
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
    assert refusal(ask(models, "/v2/models/chat", method="GET"))[0] == 400
    assert refusal(ask(models, "/v2/models/ready", method="GET"))[:2] == (404, "model_not_found")


def test_server_and_models_say_whether_they_are_ready(models: Stand) -> None:
    for path, expected in (
        ("/v2/health/live", {"live": True}),
        ("/v2/health/ready", {"live": True, "ready": True}),
    ):
        assert ask(models, path, b"", {"authorization": None}, "GET").json() == expected
    about = ask(models, "/v2", b"", {"authorization": None}, "GET").json()
    assert (about["name"], about["extensions"]) == ("sluicegate", ["binary_tensor_data", "model_repository"])
    ready = ask(models, "/v2/models/churn/ready", method="GET")
    assert (ready.status_code, ready.json()) == (200, {"name": "churn", "ready": True})
    loading = ask(models, "/v2/models/fraud/ready", method="GET")
    assert (loading.status_code, loading.json()) == (503, {"name": "fraud", "ready": False})
    assert refusal(ask(models, "/v2/models/nope/ready", method="GET"))[:2] == (404, "model_not_found")


def test_the_index_lists_what_a_key_may_ask_by_version(models: Stand) -> None:
    found = ask(models, "/v2/repository/index", b"").json()
    assert {(one["name"], one["version"], one["state"]) for one in found} == {
        *(("churn", version, "READY") for version in VERSIONS if version != NEXT),
        ("fraud", OTHER, "UNAVAILABLE"),
        ("fraud", "production", "UNAVAILABLE"),
    }
    assert {one["reason"] for one in found if one["name"] == "fraud"} == {"its parts are loading"}
    ready = ask(models, "/v2/repository/index", {"ready": True}).json()
    assert {one["name"] for one in ready} == {"churn"}
    narrow = ask(models, "/v2/repository/index", {}, {"authorization": f"Bearer {NARROW_KEY}"}).json()
    assert {one["name"] for one in narrow} == {"fraud"}
    assert refusal(ask(models, "/v2/repository/index", {"ready": 7}))[:2] == (400, "invalid_request")


@pytest.mark.parametrize("what", ["load", "unload"])
def test_the_registry_alone_decides_what_is_served(models: Stand, what: str) -> None:
    keeper = {"authorization": f"Bearer {KEEPER_KEY}"}
    for key in (CLIENT_KEY, NARROW_KEY):
        answer = ask(models, f"/v2/repository/models/fraud/{what}", {}, {"authorization": f"Bearer {key}"})
        assert refusal(answer)[:2] == (403, "model_not_allowed")
    status, code, message = refusal(ask(models, f"/v2/repository/models/churn/{what}", {}, keeper))
    assert (status, code, "alias" in message) == (409, "registry_decides", True)
    answer = ask(models, f"/v2/repository/models/nonesuch/{what}", {}, keeper)
    assert refusal(answer)[:2] == (404, "model_not_found")


KINDS = [
    (None, 200), ("application/json", 200), ("Application/JSON; charset=utf-8", 200),
    ("application/octet-stream", 415), ("text/plain", 415), ("application/x-www-form-urlencoded", 415),
    ("multipart/form-data; boundary=x", 415), ("application/json-patch+json", 415), ("", 415),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "status"), KINDS)
def test_only_json_and_bytes_after_it_are_read(models: Stand, kind: str | None, status: int) -> None:
    answer = ask(models, "/v2/models/churn/infer", tensors(["a"], [3]), {"content-type": kind})
    assert answer.status_code == status
    if status == 415:
        assert refusal(answer)[1] == "unsupported_media_type"


@pytest.mark.parametrize(
    ("encoding", "pack"), [("gzip", gzip.compress), ("DEFLATE", zlib.compress), ("identity", bytes)]
)
def test_a_compressed_body_is_unpacked(models: Stand, encoding: str, pack: Any) -> None:
    body, headers = binary(struct.pack("<2f", 3, 30))
    answer = ask(models, "/v2/models/churn/infer", pack(body), {**headers, "content-encoding": encoding})
    assert answer.json()["outputs"][0]["data"] == ["Yes", "No"]


@pytest.mark.parametrize(
    ("encoding", "body", "status"),
    [
        ("br", b"{}", 415),
        ("gzip, gzip", b"{}", 415),
        ("gzip", b"{}", 400),
        ("gzip", gzip.compress(b"{}" * 99, mtime=0)[:-9], 400),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"x", 400),
        ("deflate", gzip.compress(b"{}", mtime=0), 400),
        ("gzip", gzip.compress(b" " * 50_000_000, 9, mtime=0), 413),
        ("deflate", b"", 400),
    ],
)
def test_a_body_that_cannot_be_unpacked_is_refused(
    models: Stand, encoding: str, body: bytes, status: int
) -> None:
    assert len(body) <= LIMITS.max_body_bytes
    answer = ask(models, "/v2/models/churn/infer", body, {"content-encoding": encoding})
    assert refusal(answer)[0] == status


@given(st.binary(max_size=300), st.integers(0, 300), st.sampled_from([b"gzip", b"deflate"]))
def test_what_was_compressed_comes_back_or_is_too_large(data: bytes, limit: int, encoding: bytes) -> None:
    packed = gzip.compress(data, mtime=0) if encoding == b"gzip" else zlib.compress(data)
    try:
        found = inflated(packed, encoding, limit)
    except GatewayError as error:
        assert (error.code, len(data) > limit) == ("request_too_large", True)
    else:
        assert (found, len(data) <= limit) == (data, True)


def binary(data: bytes, size: int | None = None, **more: Any) -> tuple[bytes, dict[str, str]]:
    months = {"binary_data_size": len(data) if size is None else size}
    inputs = [
        {"name": "plan", "shape": [2], "datatype": "BYTES", "data": ["basic", "pro"]},
        {"name": "months", "shape": [2], "datatype": "FP32", "parameters": months},
    ]
    head = json.dumps({"inputs": inputs, **more}).encode()
    return head + data, {LENGTH: str(len(head)), "content-type": "application/octet-stream"}


def test_binary_tensors_go_in_and_come_out(models: Stand) -> None:
    body, headers = binary(struct.pack("<2f", 3, 30), parameters={"binary_data_output": True})
    answer = ask(models, "/v2/models/churn/infer", body, headers)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/octet-stream")
    length = int(answer.headers[LENGTH])
    told = json.loads(answer.content[:length])
    sizes = [output["parameters"]["binary_data_size"] for output in told["outputs"]]
    rest = answer.content[length:]
    assert sum(sizes) == len(rest)
    assert rest[: sizes[0]] == b"\x03\0\0\0Yes\x02\0\0\0No"
    assert struct.unpack("<4d", rest[sizes[0] :]) == (0.25, 0.75, 0.75, 0.25)


def test_only_the_outputs_that_ask_for_it_are_binary(models: Stand) -> None:
    wanted = [{"name": "label"}, {"name": "probability", "parameters": {"binary_data": True}}]
    body, headers = binary(struct.pack("<2f", 3, 30), outputs=wanted)
    answer = ask(models, "/v2/models/churn/infer", body, headers)
    told = json.loads(answer.content[: int(answer.headers[LENGTH])])
    assert told["outputs"][0]["data"] == ["Yes", "No"]
    assert told["outputs"][1]["parameters"] == {"binary_data_size": 32}


def test_a_number_that_is_none_is_a_missing_value(models: Stand) -> None:
    body, headers = binary(struct.pack("<2f", 3, float("nan")))
    status, code, message = refusal(ask(models, "/v2/models/churn/infer", body, headers))
    by_json = refusal(ask(models, "/v2/models/churn/infer", tensors(["basic", "pro"], [3, None])))
    assert (status, code, message) == by_json


@pytest.mark.parametrize(
    ("data", "size", "head", "words"),
    [
        (b"\0" * 7, None, None, "whole number"),
        (b"\0" * 8, 9, None, "binary_data_size"),
        (b"\0" * 8, -1, None, "binary_data_size"),
        (b"\0" * 8, 4, None, "belong to no tensor"),
        (b"\0" * 8, None, "99999", "Inference-Header-Content-Length"),
        (b"\0" * 8, None, "-1", "Inference-Header-Content-Length"),
        (b"\0" * 4, None, None, "does not fit"),
    ],
)
def test_malformed_binary_tensors_are_refused_by_name(
    models: Stand, data: bytes, size: int | None, head: str | None, words: str
) -> None:
    body, headers = binary(data, size)
    if head is not None:
        headers[LENGTH] = head
    status, _, message = refusal(ask(models, "/v2/models/churn/infer", body, headers))
    assert (status, words in message) == (400, True)


def test_values_come_once(models: Stand) -> None:
    inputs = tensors(["a"], [3], parameters={"binary_data_size": 8})
    head = json.dumps(inputs).encode()
    body = head + struct.pack("<d", 3)
    answer = ask(models, "/v2/models/churn/infer", body, {LENGTH: str(len(head))})
    assert refusal(answer)[0] == 400
    assert "both data and binary_data_size" in answer.json()["error"]
