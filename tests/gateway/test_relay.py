"""The relay over real sockets: official client in front, strict upstream behind."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from gateway.dataplane.services import Limits
from gateway.dataplane.table import Route
from gateway.dataplane.usage import UsageRecord
from tests.fakes.parts import CLIENT_KEY, DIGEST, DataPlane, FixedSources, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import USER, Stand, request_bytes, until
from tests.fakes.upstream import MODEL, Fault, Upstream


def test_the_official_client_gets_a_plain_answer(stand: Stand) -> None:
    raw = stand.client.chat.completions.with_raw_response.create(model="support", messages=USER)
    answer = raw.parse()
    assert answer.choices[0].message.content == "forty two"
    assert answer.usage is not None
    assert answer.usage.total_tokens == 9
    assert {name: raw.headers[name] for name in raw.headers if name.startswith("x-sluicegate")} == {
        "x-sluicegate-release": "support",
        "x-sluicegate-digest": DIGEST,
        "x-sluicegate-alias": "production",
    }
    assert raw.headers["x-request-id"].startswith("req_")


def test_the_official_client_gets_a_stream(stand: Stand) -> None:
    stream = stand.client.chat.completions.create(
        model="support", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "forty two"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == 7
    assert (stand.record().prompt_tokens, stand.record().completion_tokens) == (7, 3)


async def _ask(url: str) -> str:
    async with openai.AsyncOpenAI(base_url=url + "/v1", api_key=CLIENT_KEY, max_retries=0) as client:
        plain = await client.chat.completions.create(model="support", messages=USER)
        stream: Any = await client.chat.completions.create(model="support", messages=USER, stream=True)
        text = "".join([chunk.choices[0].delta.content or "" async for chunk in stream])
    return f"{plain.choices[0].message.content} {text}"


def test_the_official_async_client_gets_both(stand: Stand) -> None:
    assert asyncio.run(_ask(stand.url)) == "forty two forty two"


def test_unknown_fields_and_large_integers_survive_both_ways(stand: Stand) -> None:
    body = (
        b'{"model":"support","messages":[{"role":"user","content":"hi","x":1.5}],"seed":12345678901234567890}'
    )
    status, _headers, answer = stand.post("/v1/chat/completions", body)
    assert status == 200
    assert stand.up.seen[0].body == json.loads(body) | {"model": MODEL}
    assert answer["unknown_field"] == {"kept": 12345678901234567890}


def test_client_headers_do_not_reach_the_upstream(stand: Stand) -> None:
    _, headers, _ = stand.post(
        "/v1/chat/completions",
        json.dumps({"model": "support", "messages": USER}).encode(),
        {"cookie": "a=b", "x-secret": "1"},
    )
    sent = {name.lower(): value for name, value in stand.up.seen[0].headers.items()}
    assert "cookie" not in sent
    assert "x-secret" not in sent
    assert CLIENT_KEY not in sent["authorization"]
    assert sent["accept-encoding"] == "identity"
    assert "set-cookie" not in {name.lower() for name in headers}


def test_a_cookie_of_the_upstream_is_never_sent_back(stand: Stand) -> None:
    for _ in range(2):
        stand.client.chat.completions.create(model="support", messages=USER)
    assert [name for seen in stand.up.seen for name in seen.headers if name.lower() == "cookie"] == []


def test_tool_calls_pass_plain_and_streamed(stand: Stand) -> None:
    stand.up.answer = '{"city": "Oslo"}'
    tools: Any = [{"type": "function", "function": {"name": "weather", "parameters": {}}}]
    plain = stand.client.chat.completions.create(model="support", messages=USER, tools=tools)
    assert plain.choices[0].message.tool_calls is not None
    call: Any = plain.choices[0].message.tool_calls[0]
    assert (call.function.name, call.function.arguments) == ("weather", '{"city": "Oslo"}')
    stream: Any = stand.client.chat.completions.create(
        model="support", messages=USER, tools=tools, stream=True
    )
    deltas = [chunk.choices[0].delta.tool_calls for chunk in stream]
    assert "".join(d[0].function.arguments for d in deltas if d) == '{"city": "Oslo"}'


def test_completions_pass(stand: Stand) -> None:
    answer = stand.client.completions.create(model="support", prompt="say")
    assert answer.choices[0].text == "say forty two"


def test_a_model_called_directly_is_relayed(stand: Stand) -> None:
    answer = stand.client.chat.completions.create(model="vllm/tiny", messages=USER)
    assert answer.choices[0].message.content == "forty two"
    embedded = stand.client.embeddings.create(model="vllm/tiny", input=["a", "b"])
    assert [item.embedding for item in embedded.data] == [[0.25, -0.5], [0.25, -0.5]]
    until(lambda: len(stand.records) == 2)
    assert [record.release for record in stand.records] == ["vllm/*", "vllm/*"]


SAID = b'"messages": [{"role": "user", "content": "hi"}]'


@pytest.mark.parametrize(
    ("body", "status", "code", "param"),
    [
        (b"{", 400, "invalid_request", None),
        (b"", 400, "invalid_request", None),
        (b"[]", 400, "invalid_request", None),
        (b'{"model": "support", "x": "\xff"}', 400, "invalid_request", None),
        (b'{"a":' + b"[" * 40_000 + b"]" * 40_000 + b"}", 400, "invalid_request", None),
        (b"{" + SAID + b"}", 400, "invalid_request", "model"),
        (b'{"model": 3, "messages": []}', 400, "invalid_request", "model"),
        (b'{"model": "", "messages": []}', 400, "invalid_request", "model"),
        (b'{"model": "support"}', 400, "invalid_request", "messages"),
        (b'{"model": "support", "messages": []}', 400, "invalid_request", "messages"),
        (b'{"model": "support", "messages": ["hi"]}', 400, "invalid_request", "messages"),
        (b'{"model": "support", "messages": [{}]}', 400, "invalid_request", "messages[0].role"),
        (b'{"model": "support", "stream": "yes", ' + SAID + b"}", 400, "invalid_request", "stream"),
        (b'{"model": "suport", ' + SAID + b"}", 404, "model_not_found", "model"),
        (b'{"model": "nope/x", ' + SAID + b"}", 404, "model_not_found", "model"),
        (b'{"model": "churn", ' + SAID + b"}", 400, "invalid_request", "model"),
        (b'{"model": "loading", ' + SAID + b"}", 503, "release_not_ready", None),
        (b"x" * 100_001, 413, "request_too_large", None),
    ],
)
def test_a_wrong_request_is_refused_before_the_upstream(
    stand: Stand, body: bytes, status: int, code: str, param: str | None
) -> None:
    got, headers, answer = stand.post("/v1/chat/completions", body)
    assert (got, answer["error"]["code"], answer["error"]["param"]) == (status, code, param)
    assert set(answer["error"]) == {"message", "type", "param", "code"}
    assert headers["x-request-id"].startswith("req_")
    assert stand.up.seen == []


def test_an_unknown_model_names_what_is_close_by(stand: Stand) -> None:
    with pytest.raises(openai.NotFoundError, match="there is: support"):
        stand.client.chat.completions.create(model="suport", messages=USER)


def test_a_release_that_loads_says_when_to_come_back(stand: Stand) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        stand.client.chat.completions.create(model="loading", messages=USER)
    assert caught.value.response.headers["retry-after"] == "1"
    assert caught.value.response.headers["x-sluicegate-release"] == "loading"


@pytest.mark.parametrize("authorization", ["", "Bearer", "Bearer ", "Basic abc", "Bearer no", "sk-sg-test"])
def test_without_a_valid_key_nothing_is_answered(stand: Stand, authorization: str) -> None:
    status, headers, answer = stand.post(
        "/v1/chat/completions",
        json.dumps({"model": "support", "messages": USER}).encode(),
        {"authorization": authorization},
    )
    assert status == 401
    assert answer["error"]["type"] == "authentication_error"
    assert headers["www-authenticate"].startswith("Bearer")
    assert stand.up.seen == []


def test_other_methods_and_paths_are_refused(stand: Stand) -> None:
    status, headers, answer = stand.post("/v1/chat/completions", b"", method="GET")
    assert (status, headers["allow"], answer["error"]["code"]) == (405, "POST", "method_not_allowed")
    status, _, answer = stand.post("/v1/nothing", b"{}")
    assert (status, answer["error"]["code"]) == (404, "unknown_url")


def test_a_key_reaches_only_the_models_in_its_scope(up: Upstream) -> None:
    routes = {
        name: Route(name=name, digest=DIGEST, model=MODEL, provider=provider_at(up.url))
        for name in ("support", "other")
    }
    stand = Stand("", up)
    with serving(DataPlane(FixedSources(table_of(routes, ("support",))), stand.records.append)) as stand.url:
        assert [model.id for model in stand.client.models.list()] == ["support", "support@production"]
        with pytest.raises(openai.PermissionDeniedError, match="may not call 'other'"):
            stand.client.chat.completions.create(model="other", messages=USER)
        with pytest.raises(openai.PermissionDeniedError):
            stand.client.chat.completions.create(model="vllm/tiny", messages=USER)
        stand.client.close()


def test_a_body_that_trickles_in_is_given_up(up: Upstream) -> None:
    limits = Limits(max_body_bytes=1000, body_timeout_s=0.1, max_batch_rows=4)
    sources = FixedSources(table_of({}))
    served = serving(DataPlane(sources, list[UsageRecord]().append, limits))
    with served as url, Stand(url, up).connect() as client:
        client.sendall(request_bytes("{}").replace(b"content-length: 2", b"content-length: 200"))
        assert client.recv(4096).startswith(b"HTTP/1.1 408 ")


def test_a_table_is_read_once_perrequest_bytes(stand: Stand) -> None:
    status, _, answer = stand.post("/v1/models", b"", method="GET")
    assert status == 200
    assert [entry["id"] for entry in answer["data"]][:2] == ["churn", "churn@production"]


@pytest.mark.parametrize(
    ("code", "told"),
    [("context_length_exceeded", "context_length_exceeded"), ("a\r\nx-evil: 1", "upstream_error"), (7, "7")],
)
def test_the_code_of_an_error_is_a_header_that_cannot_hold_another(
    stand: Stand, code: object, told: str
) -> None:
    error = json.dumps({"error": {"message": "No.", "code": code}}).encode()
    stand.up.faults.append(Fault(status=400, body=error))
    body = json.dumps({"model": "support", "messages": USER}).encode()
    status, headers, answer = stand.post("/v1/chat/completions", body)
    assert (status, headers["x-sluicegate-error"], answer["error"]["code"]) == (400, told, str(code))
    assert "x-evil" not in headers
