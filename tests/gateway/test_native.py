"""Upstreams that speak Anthropic's Messages API or OpenAI's Responses API, over a real socket."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.dataplane.table import Route
from gateway.providers.messages_out import to_messages
from gateway.providers.native import APIS, build
from gateway.providers.options import ProviderOptions
from gateway.providers.responses_out import to_responses
from registry.errors import BadSettings
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, balanced, table_of
from tests.fakes.server import serving
from tests.fakes.stand import Stand

KEY = "sk-maker-secret"
WIRE = Path(__file__).parent / "wire"
QUESTION: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Weather in Paris?"}]
TOOL: Any = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@dataclass
class Maker:
    """An upstream that refuses what the real one refuses, and answers what it is given."""

    name: str
    url: str = ""
    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    cut_after: int | None = None
    seen: list[dict[str, Any]] = field(default_factory=list)

    def refuses(self, path: str, headers: Any, body: dict[str, Any]) -> str:
        """Why the real API would not take it; empty when it would."""
        if self.name == "anthropic":
            if path != "/v1/messages":
                return "path"
            if headers["x-api-key"] != KEY or headers["anthropic-version"] != "2023-06-01":
                return "credentials"
            known = {
                "model", "max_tokens", "messages", "system", "stream", "tools", "tool_choice", "temperature",
                "top_p", "top_k", "stop_sequences", "metadata", "thinking", "output_config",
            }  # fmt: skip
            required = {"model", "max_tokens", "messages"}
        else:
            if path != "/v1/responses":
                return "path"
            if headers["authorization"] != f"Bearer {KEY}":
                return "credentials"
            known = {
                "model", "input", "store", "stream", "tools", "tool_choice", "temperature", "top_p", "text",
                "max_output_tokens", "parallel_tool_calls", "reasoning", "user", "include", "top_logprobs",
            }  # fmt: skip
            required = {"model", "input"}
        return ", ".join(sorted((set(body) - known) | (required - set(body))))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        maker: Maker = self.server.maker
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        why = maker.refuses(self.path, self.headers, body)
        maker.seen.append(body)
        status = 400 if why else maker.status
        said = json.dumps({"error": {"message": why, "type": "x"}}).encode() if why else maker.body
        self.send_response(status)
        kind = "text/event-stream" if body.get("stream") and status == 200 else "application/json"
        self.send_header("content-type", kind)
        for name, value in maker.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(said)))
        self.end_headers()
        self.wfile.write(said[: maker.cut_after])
        self.close_connection = maker.cut_after is not None

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        """Nothing."""


@contextmanager
def made(name: str) -> Iterator[Maker]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    server.maker = maker = Maker(name, f"http://127.0.0.1:{server.server_address[1]}/v1")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield maker
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def options(name: str, url: str | None, key: str | None = KEY) -> ProviderOptions:
    return ProviderOptions(name=name, home=Path("unused"), base_url=url, api_key=key, idle_timeout_s=5)


@pytest.fixture(params=["anthropic", "responses"])
def maker(request: pytest.FixtureRequest) -> Iterator[Maker]:
    with made(request.param) as running:
        yield running


@pytest.fixture
def stand(maker: Maker) -> Iterator[Stand]:
    route = Route(
        name="support", digest=DIGEST, model="claude-x",
        provider=build("claude-x", options(maker.name, maker.url)),
    )  # fmt: skip
    found = Stand("", None)  # type: ignore[arg-type]
    with serving(
        DataPlane(FixedSources(table_of({"support": balanced(route)})), found.records.append)
    ) as url:
        found.url = url
        yield found
        found.client.close()


def wire(maker: Maker, name: str) -> bytes:
    """What the API sends, as its makers publish it."""
    return (WIRE / f"{maker.name}.{name}").read_bytes()


def test_a_whole_answer_has_text_call_usage_and_reason(maker: Maker, stand: Stand) -> None:
    maker.body = wire(maker, "json")
    create: Any = stand.client.chat.completions.create
    answer = create(model="support", messages=QUESTION, tools=[TOOL], max_tokens=50)
    (choice,) = answer.choices
    assert choice.message.content == "Let me look."
    (call,) = choice.message.tool_calls
    assert (call.id, call.function.name) == ("call_1", "weather")
    assert json.loads(call.function.arguments) == {"city": "Paris"}
    assert choice.finish_reason == "tool_calls"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (120, 30)
    assert answer.usage.prompt_tokens_details is not None
    assert answer.usage.prompt_tokens_details.cached_tokens == 100
    (record,) = stand.records
    assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (120, 30, 100)
    (seen,) = maker.seen
    assert seen["model"] == "claude-x"


def test_a_stream_has_thought_text_calls_usage_and_reason(maker: Maker, stand: Stand) -> None:
    maker.body = wire(maker, "sse")
    text = thought = arguments = finish = ""
    usage = None
    for chunk in stand.client.chat.completions.create(
        model="support", messages=QUESTION, tools=[TOOL], stream=True, max_tokens=50,
        stream_options={"include_usage": True},
    ):  # fmt: skip
        usage = chunk.usage or usage
        for choice in chunk.choices:
            text += choice.delta.content or ""
            thought += getattr(choice.delta, "reasoning_content", "") or ""
            for call in choice.delta.tool_calls or ():
                arguments += (call.function.arguments if call.function else "") or ""
            finish = choice.finish_reason or finish
    assert (text, thought) == ("Let me look.", "The user wants weather.")
    assert json.loads(arguments) == {"city": "Paris"}
    assert finish == "tool_calls"
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens) == (120, 30)
    assert maker.seen[0]["stream"] is True


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/responses"])
def test_each_api_answers_over_each(maker: Maker, stand: Stand, path: str) -> None:
    maker.body = wire(maker, "json")
    body: dict[str, Any] = {"model": "support"}
    if path == "/v1/messages":
        body |= {"max_tokens": 50, "messages": [{"role": "user", "content": "Weather?"}]}
    else:
        body |= {"input": "Weather?"}
    status, _, answer = stand.post(path, json.dumps(body).encode())
    assert status == 200
    if path == "/v1/messages":
        assert [block["type"] for block in answer["content"]] == ["thinking", "text", "tool_use"]
        assert answer["stop_reason"] == "tool_use"
        assert answer["usage"]["cache_read_input_tokens"] == 100
    else:
        assert [item["type"] for item in answer["output"]] == ["reasoning", "message", "function_call"]
        assert answer["usage"]["input_tokens"] == 120


def test_a_stream_that_is_cut_is_an_error_and_not_an_answer(maker: Maker, stand: Stand) -> None:
    maker.body = wire(maker, "sse")
    maker.cut_after = len(maker.body) // 2
    with pytest.raises(openai.APIError):
        list(stand.client.chat.completions.create(model="support", messages=QUESTION, stream=True))


def test_an_error_in_the_stream_is_told(maker: Maker, stand: Stand) -> None:
    whole = wire(maker, "sse")
    start = whole[: whole.index(b"\n\n") + 2]
    if maker.name == "anthropic":
        event: Any = {"type": "error", "error": {"type": "overloaded_error", "message": "Overloaded"}}
    else:
        event = {"type": "error", "code": "server_error", "message": "Overloaded", "param": None}
    maker.body = start + b"event: error\ndata: " + json.dumps(event).encode() + b"\n\n"
    with pytest.raises(openai.APIError, match="middle of its answer"):
        list(stand.client.chat.completions.create(model="support", messages=QUESTION, stream=True))


@pytest.mark.parametrize(("status", "told"), [(400, 400), (404, 404), (401, 502), (500, 502), (529, 502)])
def test_a_refusal_keeps_its_status_where_that_helps_the_client(
    maker: Maker, stand: Stand, status: int, told: int
) -> None:
    maker.status = status
    error = {"type": "invalid_request_error", "message": f"max_tokens: too many, key {KEY}"}
    maker.body = json.dumps({"type": "error", "error": error}).encode()
    with pytest.raises(openai.APIStatusError) as caught:
        stand.client.chat.completions.create(model="support", messages=QUESTION)
    assert caught.value.status_code == told
    assert KEY not in str(caught.value)
    if told == status:
        assert "max_tokens: too many" in str(caught.value)


def test_a_wish_to_wait_is_passed_on(maker: Maker, stand: Stand) -> None:
    maker.status, maker.headers = 429, {"retry-after": "7"}
    maker.body = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow down"}}'
    with pytest.raises(openai.RateLimitError) as caught:
        stand.client.chat.completions.create(model="support", messages=QUESTION)
    assert caught.value.response.headers["retry-after"] == "7"


def test_what_is_no_answer_is_told_as_such(maker: Maker, stand: Stand) -> None:
    for body in (
        b"not json",
        b"[]",
        b"{}",
        b'{"type":"message","content":[]}',
        b'{"object":"response","output":[]}',
    ):
        maker.body = body
        with pytest.raises(openai.InternalServerError):
            stand.client.chat.completions.create(model="support", messages=QUESTION)


@pytest.mark.parametrize(
    ("field", "value"),
    [("n", 2), ("presence_penalty", 1), ("logit_bias", {"1": 2}), ("no_such", 1), ("frequency_penalty", 0.5)],
)
def test_what_an_api_cannot_carry_is_refused_by_name(
    maker: Maker, stand: Stand, field: str, value: Any
) -> None:
    body = {"model": "support", "messages": QUESTION, field: value}
    status, _, answer = stand.post("/v1/chat/completions", json.dumps(body).encode())
    assert (status, answer["error"]["param"]) == (400, field)
    assert maker.seen == []


@pytest.mark.parametrize("turn", [to_messages, to_responses])
@pytest.mark.parametrize(
    "messages",
    [
        None, [], "hi", [1], [{"role": "robot", "content": "a"}], [{"role": "user"}],
        [{"role": "user", "content": 3}],
        [{"role": "user", "content": [{"type": "video"}]}], [{"role": "user", "content": [3]}],
        [{"role": "assistant", "tool_calls": [3]}], [{"role": "tool", "content": [{"type": "image_url"}]}],
        [{"role": "system", "content": [{"type": "image_url"}]}],
    ],
)  # fmt: skip
def test_malformed_conversations_are_refused(turn: Any, messages: Any) -> None:
    from gateway.errors import InvalidRequest

    with pytest.raises(InvalidRequest, match="messages"):
        turn({"model": "m", "messages": messages})


def test_images_and_hints_for_the_cache_reach_anthropic() -> None:
    content = [
        {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
        {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    ]
    asked = to_messages({"model": "m", "messages": [{"role": "user", "content": content}]})
    assert asked["messages"][0]["content"] == [
        {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}},
    ]


@pytest.mark.parametrize(
    ("model", "thinking", "temperature"),
    [
        ("claude-sonnet-4-5-20250929", {"type": "enabled", "budget_tokens": 2048}, None),
        ("claude-opus-4-6", {"type": "adaptive"}, 0.5),
        ("claude-opus-4-7", {"type": "adaptive"}, None),
    ],
)
def test_models_are_asked_to_think_as_they_know_it(
    model: str, thinking: dict[str, Any], temperature: float | None
) -> None:
    chat = {"messages": QUESTION, "reasoning_effort": "low", "max_tokens": 9000, "temperature": 0.5}
    asked = APIS["anthropic"].asked(chat, model)
    assert (asked["thinking"], asked.get("temperature")) == (thinking, temperature)


def test_a_model_that_waits_for_results_is_not_asked_to_think() -> None:
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "Weather?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "Error: no such city"},
    ]
    asked = to_messages({"messages": messages, "reasoning_effort": "high", "max_tokens": 30_000})
    assert "thinking" not in asked
    assert asked["messages"][-1]["content"] == [
        {"type": "tool_result", "tool_use_id": "call_1", "content": "no such city", "is_error": True}
    ]


@pytest.mark.parametrize("name", ["anthropic", "responses"])
def test_a_provider_without_key_or_with_a_strange_address_says_so(name: str) -> None:
    with pytest.raises(BadSettings, match=f"{name}/m needs a key: set {APIS[name].key}"):
        build("m", options(name, None, None))
    with pytest.raises(BadSettings, match="not an http or https URL"):
        build("m", options(name, "ftp://x"))
