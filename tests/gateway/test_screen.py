"""Guardrails on bodies, answers and streams, with the policy's own detectors."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
import openai
import pytest

from gateway.dataplane.request import encode, parse
from gateway.dataplane.screen import Findings, StreamScreen, screen_answer, screen_body
from gateway.dataplane.sse import DONE_EVENT, event_of
from gateway.dataplane.table import Route
from gateway.dataplane.work import Work
from gateway.errors import GuardrailBlocked, InvalidRequest
from gateway.guardrails.policy import TextScreen, compile_policy
from gateway.providers.local_reply import SSE_HEADERS, LocalReply
from registry.entities import GuardrailPolicy, GuardrailRule
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, Scripted, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import USER, Stand
from tests.fakes.upstream import MODEL, Upstream

MAIL = "ann@example.com"


def screen(stage: Any = "output", action: Any = "redact") -> TextScreen:
    compiled = compile_policy(GuardrailPolicy((GuardrailRule("pii", stage, action),)))
    found = compiled.input or compiled.output
    assert found is not None
    return found


def screened(body: dict[str, Any], on: TextScreen) -> tuple[dict[str, Any], Findings]:
    findings: Findings = []
    work = Work(1, 4)
    done = asyncio.run(screen_body(on, parse(json.dumps(body).encode()), work, findings))
    work.close()
    return json.loads(encode(done)), findings


def test_every_text_a_client_wrote_is_screened_and_nothing_else() -> None:
    picture = {"type": "image_url", "image_url": {"url": f"data:{MAIL}"}}
    call = {"id": MAIL, "type": "function", "function": {"name": "f", "arguments": f'{{"to": "{MAIL}"}}'}}
    body = {
        "messages": [
            {"role": "system", "content": f"I am {MAIL}"},
            {"role": "user", "content": [{"type": "text", "text": MAIL}, picture]},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": MAIL, "tool_call_id": MAIL},
        ],
        "user": MAIL,
    }
    got, findings = screened(body, screen("input"))
    arguments = call | {"function": {"name": "f", "arguments": '{"to": "[EMAIL]"}'}}
    assert got == {
        "messages": [
            {"role": "system", "content": "I am [EMAIL]"},
            {"role": "user", "content": [{"type": "text", "text": "[EMAIL]"}, picture]},
            {"role": "assistant", "content": None, "tool_calls": [arguments]},
            {"role": "tool", "content": "[EMAIL]", "tool_call_id": MAIL},
        ],
        "user": MAIL,
    }
    assert findings == [("email", "redact")] * 4


@pytest.mark.parametrize(
    ("field", "value", "clean"),
    [
        ("reasoning", MAIL, "[EMAIL]"),
        ("reasoning_content", MAIL, "[EMAIL]"),
        ("refusal", MAIL, "[EMAIL]"),
        (
            "thinking_blocks",
            [{"type": "thinking", "thinking": MAIL}],
            [{"type": "thinking", "thinking": "[EMAIL]"}],
        ),
        ("of_the_future", {"deep": [{"text": MAIL}, 1, None]}, {"deep": [{"text": "[EMAIL]"}, 1, None]}),
    ],
)
def test_fields_of_messages_that_nobody_listed_are_screened(field: str, value: Any, clean: Any) -> None:
    got, findings = screened(
        {"messages": [{"role": "assistant", "content": None, field: value}]}, screen("input")
    )
    assert got["messages"] == [{"role": "assistant", "content": None, field: clean}]
    assert findings == [("email", "redact")]


def test_a_field_too_deep_to_be_read_is_refused() -> None:
    deep = "[" * 5000 + "]" * 5000
    body = {"messages": msgspec.Raw(f'[{{"role": "user", "content": "a", "x": {deep}}}]'.encode())}
    with pytest.raises(InvalidRequest):
        asyncio.run(screen_body(screen("input"), body, Work(1, 1), []))


@pytest.mark.parametrize("value", [MAIL, [MAIL, "b"], [[1, 2]]])
def test_prompt_and_input_are_screened(value: Any) -> None:
    got, _ = screened({"input": value}, screen("input"))
    assert got["input"] == json.loads(json.dumps(value).replace(MAIL, "[EMAIL]"))


def test_long_texts_are_screened_too() -> None:
    got, _ = screened({"prompt": "word " * 2000 + MAIL}, screen("input"))
    assert got["prompt"].endswith("word [EMAIL]")


def test_a_blocked_request_never_reaches_the_upstream(up: Upstream) -> None:
    up.seen.clear()
    with guarded(up, input=screen("input", "block")) as stand:
        with pytest.raises(openai.BadRequestError) as caught:
            stand.client.chat.completions.create(
                model="support", messages=[{"role": "user", "content": MAIL}]
            )
        assert caught.value.code == "guardrail_blocked"
        assert MAIL not in str(caught.value)
        assert up.seen == []
        assert stand.record().findings[-1][1] == "block"


def test_whole_answers_are_redacted_and_lose_log_probabilities() -> None:
    findings: Findings = []
    message = {"role": "assistant", "content": MAIL, "reasoning_content": MAIL, "audio": {"data": MAIL}}
    answer = {"id": MAIL, "choices": [{"index": 0, "message": message, "logprobs": {"content": [MAIL]}}]}
    got = json.loads(screen_answer(screen(), json.dumps(answer).encode(), findings))
    clean = message | {"content": "[EMAIL]", "reasoning_content": "[EMAIL]"}
    assert got == {"id": MAIL, "choices": [{"index": 0, "message": clean, "logprobs": None}]}
    assert findings == [("email", "redact")] * 2


def test_what_has_no_choices_is_not_touched() -> None:
    assert screen_answer(screen(), b'{"data": [1.50]}', []) == b'{"data": [1.50]}'


@pytest.mark.parametrize("tools", [False, True])
def test_streams_never_show_what_a_plain_answer_would_not(up: Upstream, tools: bool) -> None:
    up.answer = f"Write to {MAIL} or to {MAIL}, thanks"
    options: Any = {"tools": [{"type": "function", "function": {"name": "f"}}]} if tools else {}
    with guarded(up, output=screen()) as stand:
        plain: Any = stand.client.chat.completions.create(model="support", messages=USER, **options)
        stream: Any = stand.client.chat.completions.create(
            model="support", messages=USER, stream=True, **options
        )
        deltas = [chunk.choices[0].delta for chunk in stream]
    message = plain.choices[0].message
    if tools:
        whole = message.tool_calls[0].function.arguments
        text = "".join(d.tool_calls[0].function.arguments or "" for d in deltas if d.tool_calls)
    else:
        whole, text = message.content, "".join(d.content or "" for d in deltas)
    assert text == whole == "Write to [EMAIL] or to [EMAIL], thanks"


def test_a_blocked_stream_ends_in_one_error_event(up: Upstream) -> None:
    pieces = ["word " * 100, "more " * 100, f" {MAIL} ", "rest " * 100]
    events = [
        event_of(json.dumps({"choices": [{"index": 0, "delta": {"content": p}}]}).encode()) for p in pieces
    ]
    reply = LocalReply(200, [*events, DONE_EVENT], SSE_HEADERS)
    with guarded(up, output=screen(action="block"), provider=Scripted(reply)) as stand:
        body = stand.stream()
    events = body.split(b"\n\n")
    assert json.loads(events[-2].removeprefix(b"data: "))["error"]["code"] == "guardrail_blocked"
    assert b"[DONE]" not in body
    assert b"word" in body
    assert b"ann@" not in body
    assert b"rest" not in body


def test_choices_are_held_back_apart() -> None:
    stream = StreamScreen(screen(), [])
    out = [
        stream.push({"id": "1", "choices": [{"index": i, "delta": {"content": piece}}]})
        for piece in ("ann@exa", "mple.com")
        for i in (0, 1)
    ]
    last = stream.finish()
    assert last is not None
    texts = {0: "", 1: ""}
    for event in (*out, last):
        for choice in json.loads(event)["choices"]:
            texts[choice["index"]] += choice["delta"]["content"]
    assert texts == {0: "[EMAIL]", 1: "[EMAIL]"}
    assert json.loads(last)["id"] == "1"
    assert stream.finish() is None


def test_a_stream_that_blocks_raises() -> None:
    stream = StreamScreen(screen(action="block"), [])
    with pytest.raises(GuardrailBlocked):
        stream.push({"choices": [{"index": 0, "text": f"{MAIL} ", "finish_reason": "stop"}]})


class guarded:  # noqa: N801 - reads as a word in `with`
    """A stand whose release has the given screens."""

    def __init__(self, up: Upstream, **parts: Any) -> None:
        given = {"provider": provider_at(up.url)} | parts
        route = Route(name="support", digest=DIGEST, model=MODEL, **given)
        self.stand = Stand("", up)
        self.served = serving(
            DataPlane(FixedSources(table_of({"support": route})), self.stand.records.append)
        )

    def __enter__(self) -> Stand:
        self.stand.url = self.served.__enter__()
        return self.stand

    def __exit__(self, *error: object) -> None:
        self.stand.client.close()
        self.served.__exit__(None, None, None)
