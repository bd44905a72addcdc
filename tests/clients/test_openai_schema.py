"""What the gateway answers, held against OpenAI's own published description of its API."""

from __future__ import annotations

import asyncio
import http.client
import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from jsonschema import Draft202012Validator

from gateway.providers.base import Call, Ground
from gateway.providers.extractive import build
from gateway.providers.options import ProviderOptions
from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import USER, Stand
from tests.fakes.upstream import Fault

SCHEMA = json.loads((Path(__file__).parent / "schema" / "openai.json").read_text())
TOOLS: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]


def problems(name: str, answer: object) -> list[str]:
    """Where *answer* is not a *name* as OpenAI describes it."""
    validator = Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{name}"})
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(answer)]


def check(name: str, answer: object) -> None:
    assert problems(name, answer) == []


def events(stream: bytes) -> list[Any]:
    """The JSON of each event; the last must say that the stream is done."""
    *data, done, rest = stream.split(b"\n\n")
    assert (done, rest) == (b"data: [DONE]", b"")
    return [json.loads(event.removeprefix(b"data: ")) for event in data]


def streamed(stand: Stand, path: str, body: dict[str, Any]) -> list[Any]:
    parts = urlsplit(stand.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    sent = json.dumps(body | {"stream": True})
    connection.request("POST", path, sent, {"authorization": f"Bearer {CLIENT_KEY}"})
    data = connection.getresponse().read()
    connection.close()
    return events(data)


@pytest.mark.parametrize(
    "options",
    [{}, {"n": 2}, {"logprobs": True}, {"tools": TOOLS}, {"stream_options": {"include_usage": True}}],
    ids=["usual", "several", "logprobs", "tools", "usage"],
)
def test_chat_completions_are_as_published(stand: Stand, options: dict[str, Any]) -> None:
    body = {"model": "support", "messages": USER} | options
    chunks = streamed(stand, "/v1/chat/completions", body)
    assert len(chunks) > 3
    for chunk in chunks:
        check("CreateChatCompletionStreamResponse", chunk)
    body.pop("stream_options", None)
    status, _, answer = stand.post("/v1/chat/completions", json.dumps(body).encode())
    assert status == 200
    check("CreateChatCompletionResponse", answer)


def test_completions_are_as_published(stand: Stand) -> None:
    body = {"model": "support", "prompt": "say"}
    for chunk in streamed(stand, "/v1/completions", body)[:-1]:
        reason = "$.choices[0].finish_reason: None is not "  # the published one forgets that it comes last
        found = problems("CreateCompletionResponse", chunk)
        assert all(problem.startswith(reason) for problem in found), found
    _, _, answer = stand.post("/v1/completions", json.dumps(body).encode())
    check("CreateCompletionResponse", answer)


def test_embeddings_are_as_published(stand: Stand) -> None:
    body = {"model": "vllm/tiny", "input": ["a", "b"]}
    _, _, answer = stand.post("/v1/embeddings", json.dumps(body).encode())
    check("CreateEmbeddingResponse", answer)


def test_models_are_as_published(stand: Stand) -> None:
    _, _, listed = stand.post("/v1/models", b"", method="GET")
    check("ListModelsResponse", listed)
    for name in ("support", "support@production", "churn", "loading", "vllm/tiny"):
        _, _, one = stand.post(f"/v1/models/{name}", b"", method="GET")
        check("Model", one)
        assert one["id"] == name


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", {}, 400),
        ("POST", "/v1/chat/completions", b"{}", {"authorization": "Bearer no"}, 401),
        ("POST", "/v1/chat/completions", b'{"model":"x","messages":[{"role":"user","content":""}]}', {}, 404),
        ("GET", "/v1/chat/completions", b"", {}, 405),
        ("POST", "/v1/chat/completions", b"x" * 100_001, {}, 413),
        ("POST", "/v1/chat/completions", b'{"model":"loading","messages":[{"role":"user"}]}', {}, 503),
        ("POST", "/v1/chat/completions", b'{"model":"down","messages":[{"role":"user"}]}', {}, 502),
        ("POST", "/v1/embeddings", b'{"model":"support","input":"a"}', {}, 400),
        ("GET", "/v1/models/nonesuch", b"", {}, 404),
        ("POST", "/v1/nothing", b"", {}, 404),
        ("POST", "/predict", b"{}", {}, 400),
    ],
)
def test_errors_are_as_published(
    stand: Stand, method: str, path: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    got, _, answer = stand.post(path, body, headers, method)
    assert got == status
    check("ErrorResponse", answer)


@pytest.mark.parametrize("status", [400, 401, 429, 500])
def test_errors_of_the_upstream_are_as_published(stand: Stand, status: int) -> None:
    stand.up.faults.extend([Fault(status=status, body=b'{"error": {"code": 7}}')] * 20)
    body = json.dumps({"model": "support", "messages": USER}).encode()
    _, _, answer = stand.post("/v1/chat/completions", body)
    check("ErrorResponse", answer)


def test_an_error_within_a_stream_is_as_published(stand: Stand) -> None:
    stand.up.faults.append(Fault(cut_after=300))
    *_, last, rest = stand.stream().split(b"\n\n")
    assert rest == b""
    check("ErrorResponse", json.loads(last.removeprefix(b"data: ")))


async def _local(*, stream: bool) -> bytes:
    """The gateway's own answer, without a model."""
    provider = build("best-3", ProviderOptions(name="extractive", home=Path("unused"), embed=_flat))
    await provider.start()
    ground = Ground("paris#0", "The Eiffel Tower was finished in 1889.", 0.8)
    body = json.dumps({"model": "best-3", "messages": USER}).encode()
    reply = await provider.open(Call("/v1/chat/completions", body, stream, "When?", (ground,)))
    data = b"".join([chunk async for chunk in reply.chunks()])
    await reply.close()
    await provider.close()
    return data


def _flat(texts: Any) -> Any:
    import numpy as np

    return np.ones((len(texts), 1), dtype=np.float32)


def test_answers_that_no_model_gave_are_as_published() -> None:
    check("CreateChatCompletionResponse", json.loads(asyncio.run(_local(stream=False))))
    for chunk in events(asyncio.run(_local(stream=True))):
        check("CreateChatCompletionStreamResponse", chunk)


def test_the_schema_would_notice() -> None:
    assert problems("ErrorResponse", {"error": {"message": "no", "type": "x", "param": None}}) == [
        "$.error: 'code' is a required property"
    ]
    late = {"id": "1", "object": "chat.completion", "created": 1.5, "model": "m", "choices": []}
    assert problems("CreateChatCompletionResponse", late) == ["$.created: 1.5 is not of type 'integer'"]
