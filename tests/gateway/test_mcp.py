"""The Model Context Protocol at `/mcp`: what it answers, held against the official SDK's own types."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import mcp_types as types
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.mcp_client import VERSIONS
from gateway.dataplane.table import Grant, Route, Subject
from gateway.guardrails.policy import compile_policy
from registry.entities import GuardrailPolicy, GuardrailRule, Limits, PromptContent, PromptMessage
from registry.templates import compile_prompt
from tests.fakes.parts import (
    CLIENT_KEY,
    DIGEST,
    DataPlane,
    FixedSources,
    FoundPassage,
    ListRetriever,
    Threshold,
    memory_limiter,
    provider_at,
    table_of,
)
from tests.fakes.server import serving
from tests.fakes.stand import Stand
from tests.fakes.upstream import MODEL, Fault, Upstream

NARROW = "sk-sg-narrow"
REDACT = compile_policy(GuardrailPolicy((GuardrailRule("pii", "input", "redact"),))).input
PROMPT = PromptContent(
    (
        PromptMessage("system", "Use {% for p in passages %}{{ p.text }}{% endfor %}"),
        PromptMessage("user", "Kindly: {{ question }}"),
    ),
    {"question": "text", "passages": "list"},
)


@pytest.fixture
def stand(up: Upstream) -> Iterator[Stand]:
    up.faults.clear()
    up.seen.clear()
    up.answer = "forty two"
    provider = provider_at(up.url)
    passage = FoundPassage("tower#0", "tower", "The tower", "A tower in Paris.", 0.875)
    routes = {
        "support": Route(
            name="support", digest=DIGEST, model=MODEL, provider=provider, input=REDACT,
            retriever=ListRetriever((passage,)), render=compile_prompt(PROMPT),
            variables=frozenset({"question", "passages"}),
        ),
        "churn": Route(name="churn", digest=DIGEST, kind="prediction", predictor=Threshold()),
        "loading": Route(name="loading", digest=DIGEST, problem="its parts are loading"),
    }  # fmt: skip
    table = table_of(routes, subjects=(Subject("key", "key_1", Limits(rpm=40)),))
    narrow = Grant("key_2", ("churn",), account="key_2")
    grants = {**table.grants, hashlib.sha256(NARROW.encode()).hexdigest(): narrow}
    made = Stand("", up)
    plane = DataPlane(
        FixedSources(replace(table, grants=grants)), made.records.append, limiter=memory_limiter()
    )
    with serving(plane) as url:
        made.url = url
        yield made
        made.client.close()


def say(stand: Stand, method: str, params: Any = None, *, key: str = CLIENT_KEY) -> tuple[int, Any]:
    body: dict[str, Any] = {"jsonrpc": "2.0", "id": 7, "method": method}
    if params is not None:
        body["params"] = params
    headers = {"authorization": f"Bearer {key}", "accept": "application/json, text/event-stream"}
    status, _, answer = stand.post("/mcp", json.dumps(body).encode(), headers)
    assert answer["jsonrpc"] == "2.0"
    assert answer["id"] == 7
    return status, answer.get("result") or answer["error"]


def call(stand: Stand, name: str, key: str = CLIENT_KEY, **arguments: Any) -> tuple[int, Any]:
    return say(stand, "tools/call", {"name": name, "arguments": arguments}, key=key)


@pytest.mark.parametrize(
    ("asked", "given"), [*((v, v) for v in VERSIONS), ("2099-01-01", VERSIONS[-1]), ("", VERSIONS[-1])]
)
def test_the_version_a_client_asks_for_is_spoken_or_the_last_one_offered(
    stand: Stand, asked: str, given: str
) -> None:
    client = {"name": "test", "version": "1"}
    status, result = say(
        stand, "initialize", {"protocolVersion": asked, "capabilities": {}, "clientInfo": client}
    )
    assert status == 200
    told = types.InitializeResult.model_validate(result)
    assert (told.protocol_version, told.server_info.name) == (given, "sluicegate")
    assert told.capabilities.tools is not None
    assert told.capabilities.prompts is not None


def test_notifications_are_accepted_and_not_answered(stand: Stand) -> None:
    body = b'{"jsonrpc":"2.0","method":"notifications/initialized"}'
    status, _, answer = stand.post("/mcp", body)
    assert (status, answer) == (202, None)


def test_tools_are_the_releases_that_can_answer_and_that_the_key_may_use(stand: Stand) -> None:
    _, result = say(stand, "tools/list")
    tools = {tool.name: tool for tool in types.ListToolsResult.model_validate(result).tools}
    assert set(tools) == {"list_releases", "ask_support", "search_support", "predict_churn"}
    schema = tools["predict_churn"].input_schema
    assert schema["properties"] == {
        "plan": {"type": ["string", "null"]},
        "months": {"type": ["number", "null"]},
    }
    _, result = say(stand, "tools/list", key=NARROW)
    assert {tool["name"] for tool in result["tools"]} == {"list_releases", "predict_churn"}
    _, result = call(stand, "list_releases", NARROW)
    assert result["structuredContent"] == {
        "releases": [{"name": "churn", "kind": "prediction", "digest": DIGEST}]
    }


def test_a_question_passes_prompt_passages_and_guards(stand: Stand) -> None:
    status, result = call(stand, "ask_support", question="Which tower? ann@example.org")
    assert status == 200
    told = types.CallToolResult.model_validate(result)
    assert (told.is_error, told.content[0].text) == (False, "forty two")  # type: ignore[union-attr]
    (seen,) = stand.up.seen
    assert [m["content"] for m in seen.body["messages"]] == [
        "Use A tower in Paris.",
        "Kindly: Which tower? [EMAIL]",
    ]
    (record,) = stand.records
    assert (record.route, record.release, record.attempts) == ("/mcp", "support", 1)
    assert record.prompt_tokens > 0
    assert ("email", "redact") in record.findings


def test_passages_and_predictions_are_results_with_structure(stand: Stand) -> None:
    _, result = call(stand, "search_support", query="tower", limit=1)
    (passage,) = types.CallToolResult.model_validate(result).structured_content["passages"]
    assert passage == {"id": "tower#0", "title": "The tower", "text": "A tower in Paris.", "score": 0.875}
    _, result = call(stand, "predict_churn", plan="basic", months=3)
    told = types.CallToolResult.model_validate(result)
    assert told.structured_content == json.loads(told.content[0].text)  # type: ignore[union-attr]
    assert told.structured_content["label"] == "Yes"
    assert told.structured_content["digest"] == DIGEST


def test_a_prompt_is_rendered_with_its_passages(stand: Stand) -> None:
    _, result = say(stand, "prompts/list")
    (prompt,) = types.ListPromptsResult.model_validate(result).prompts
    assert (prompt.name, [a.name for a in prompt.arguments or ()]) == ("support", ["question"])
    _, result = say(stand, "prompts/get", {"name": "support", "arguments": {"question": "Which tower?"}})
    told = types.GetPromptResult.model_validate(result)
    assert [(m.role, m.content.text) for m in told.messages] == [  # type: ignore[union-attr]
        ("user", "Use A tower in Paris."),
        ("user", "Kindly: Which tower?"),
    ]


@pytest.mark.parametrize(
    ("method", "params", "status", "code", "says"),
    [
        ("server/discover", {}, 404, -32601, "is not one of"),
        ("tools/call", {"name": "ask_support"}, 400, -32602, "question: must be text"),
        ("tools/call", {"name": "ask_support", "arguments": {"question": " "}}, 400, -32602, "not empty"),
        (
            "tools/call",
            {"name": "ask_support", "arguments": {"question": "a", "x": 1}},
            400,
            -32602,
            "arguments.x",
        ),
        ("tools/call", {"name": "no_such"}, 400, -32602, "there is no tool 'no_such'"),
        ("tools/call", {"name": "ask_nobody", "arguments": {"question": "a"}}, 404, -32602, "nobody"),
        ("tools/call", {"name": "ask_loading", "arguments": {"question": "a"}}, 503, -32000, "not ready"),
        (
            "tools/call",
            {"name": "search_support", "arguments": {"query": "a", "limit": 0}},
            400,
            -32602,
            "limit",
        ),
        ("tools/call", {"name": "search_churn", "arguments": {"query": "a"}}, 400, -32602, "no index"),
        ("tools/call", {"name": "predict_churn", "arguments": {"months": 3}}, 400, -32602, "'plan'"),
        ("tools/call", {"arguments": {}}, 400, -32602, "params"),
        ("prompts/get", {"name": "churn"}, 400, -32602, "has no prompt"),
    ],
)
def test_what_cannot_be_done_is_an_error_with_its_reason(
    stand: Stand, method: str, params: Any, status: int, code: int, says: str
) -> None:
    got, error = say(stand, method, params)
    assert (got, error["code"]) == (status, code), error
    assert says in error["message"]
    assert error["data"]["status"] == status


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[]", -32600),
        (b'{"jsonrpc":"1.0","id":1,"method":"ping"}', -32600),
        (b"3", -32600),
    ],
)
def test_what_is_no_message_is_refused_as_json_rpc_says(stand: Stand, body: bytes, code: int) -> None:
    status, _, answer = stand.post("/mcp", body)
    assert (status, answer["id"], answer["error"]["code"]) == (400, None, code)
    types.JSONRPCError.model_validate(answer)


def test_a_key_is_needed_and_bounded_here_as_anywhere(stand: Stand) -> None:
    status, _, answer = stand.post("/mcp", b"{}", {"authorization": "Bearer sk-sg-wrong"})
    assert (status, answer["error"]["data"]["code"]) == (401, "invalid_api_key")
    status, error = call(stand, "ask_support", NARROW, question="Why?")
    assert (status, error["data"]["code"]) == (403, "model_not_allowed")
    status, headers, _ = stand.post("/mcp", b"", method="GET")
    assert (status, headers["allow"]) == (405, "POST")


def test_a_model_that_fails_is_an_error_and_not_an_answer(stand: Stand) -> None:
    stand.up.faults.append(Fault(status=500, body=b"{}"))
    status, error = call(stand, "ask_support", question="Why?")
    assert (status, error["code"], error["data"]["code"]) == (502, -32000, "upstream_error")


def test_limits_count_calls_of_tools(stand: Stand) -> None:
    statuses = {call(stand, "predict_churn", plan="basic", months=3)[0] for _ in range(41)}
    assert statuses == {200, 429}


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
        max_leaves=8,
    )
)
def test_any_json_gets_a_message_back(running_stand: Stand, value: Any) -> None:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": value}).encode()
    status, _, answer = running_stand.post("/mcp", body)
    assert status in (400, 404)
    types.JSONRPCError.model_validate(answer)
