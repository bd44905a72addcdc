"""Anthropic's own Python client against backends that speak chat completions."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pytest
from anthropic.types import Message, TextBlock, ThinkingBlock, ToolUseBlock

from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import Stand
from tests.fakes.upstream import Fault

ASKED: Any = [{"role": "user", "content": "What is it?"}]
ARGUMENTS = '{"city": "Tromsø", "at": [1, 2.5]}'
TOOLS: Any = [
    {"name": name, "description": f"The {name}.", "input_schema": {"type": "object"}}
    for name in ("weather", "time")
]


@pytest.fixture
def client(stand: Stand) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=stand.url, api_key=CLIENT_KEY, max_retries=0, timeout=10) as made:
        yield made


def create(client: anthropic.Anthropic, **more: Any) -> Message:
    made: Message = client.messages.create(**{"model": "support", "max_tokens": 64, "messages": ASKED} | more)
    return made


def test_a_plain_answer_is_read_whole(stand: Stand, client: anthropic.Anthropic) -> None:
    answer = create(client, system="Be brief.", stop_sequences=["END"], extra_body={"temperature": 0.5})
    assert answer.content == [TextBlock(type="text", text="forty two")]
    assert (answer.role, answer.stop_reason, answer.stop_sequence) == ("assistant", "end_turn", None)
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (7, 2)
    assert answer.id.startswith("msg_")
    assert stand.up.seen[0].path == "/v1/chat/completions"
    assert stand.up.seen[0].body == {
        "model": "tiny",
        "messages": [{"role": "system", "content": "Be brief."}, *ASKED],
        "max_tokens": 64,
        "temperature": 0.5,
        "stop": ["END"],
    }


@pytest.mark.parametrize("size", [None, 1, 7])
def test_a_stream_is_the_same_however_the_upstream_cut_it(
    stand: Stand, client: anthropic.Anthropic, size: int | None
) -> None:
    stand.up.answer = "Tromsø, 北京 and 🦉"
    stand.up.chunk_bytes = size
    with client.messages.stream(model="support", max_tokens=64, messages=ASKED) as stream:
        text = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert text == "Tromsø, 北京 and 🦉"
    assert final.content[0].model_dump(exclude={"citations", "parsed_output"}) == {
        "type": "text",
        "text": text,
    }
    assert (final.stop_reason, final.usage.input_tokens) == ("end_turn", 7)
    assert final.usage.output_tokens > 0


@pytest.mark.parametrize("streamed", [False, True])
def test_parallel_tool_calls_arrive(stand: Stand, client: anthropic.Anthropic, streamed: bool) -> None:
    stand.up.answer = ARGUMENTS
    stand.up.chunk_bytes = 11
    if streamed:
        with client.messages.stream(
            model="support", max_tokens=64, messages=ASKED, tools=TOOLS, tool_choice={"type": "any"}
        ) as stream:
            answer: Any = stream.get_final_message()
    else:
        answer = create(client, tools=TOOLS, tool_choice={"type": "any"})
    calls = [block for block in answer.content if isinstance(block, ToolUseBlock)]
    assert [(call.id, call.name, call.input) for call in calls] == [
        ("call_1", "weather", json.loads(ARGUMENTS)),
        ("call_2", "time", json.loads(ARGUMENTS)),
    ]
    assert answer.stop_reason == "tool_use"
    assert stand.up.seen[0].body["tool_choice"] == "required"
    assert stand.up.seen[0].body["tools"][0]["function"] == {
        "name": "weather",
        "description": "The weather.",
        "parameters": {"type": "object"},
    }


def test_a_conversation_with_tools_images_and_thinking_reaches_the_model(
    stand: Stand, client: anthropic.Anthropic
) -> None:
    picture = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "iVBO"}}
    turns = [
        {"role": "user", "content": [{"type": "text", "text": "What is this?"}, picture]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "Let me look.", "signature": "abc"},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "look", "input": {"at": "é"}},
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "gone", "is_error": True},
                {"type": "text", "text": "And now?"},
            ],
        },
    ]
    create(client, messages=turns, system=[{"type": "text", "text": "A"}, {"type": "text", "text": "B"}])
    assert stand.up.seen[0].body["messages"] == [
        {"role": "system", "content": "A\n\nB"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBO"}},
            ],
        },
        {
            "role": "assistant",
            "content": "I look.",
            "reasoning_content": "Let me look.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "look", "arguments": '{"at": "é"}'},
                }
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "Error: gone"},
        {"role": "user", "content": "And now?"},
    ]


@pytest.mark.parametrize("streamed", [False, True])
def test_reasoning_becomes_thinking(stand: Stand, client: anthropic.Anthropic, streamed: bool) -> None:
    stand.up.message = {"reasoning_content": "Let me think."}
    asked: Any = {"type": "enabled", "budget_tokens": 2048}
    if streamed:
        with client.messages.stream(
            model="support", max_tokens=4096, messages=ASKED, thinking=asked
        ) as stream:
            answer: Any = stream.get_final_message()
    else:
        answer = create(client, thinking=asked, max_tokens=4096)
    first = answer.content[0]
    assert isinstance(first, ThinkingBlock)
    assert first.thinking == "Let me think."
    assert stand.up.seen[0].body["reasoning_effort"] == "low"


def test_tokens_are_counted_before_anything_is_asked(stand: Stand, client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="support", messages=ASKED, system="Be brief.")
    assert counted.input_tokens == 6
    assert stand.up.seen == []


@pytest.mark.parametrize(
    ("more", "kind", "words"),
    [
        ({"model": "nonesuch"}, anthropic.NotFoundError, "nonesuch"),
        ({"max_tokens": 0}, anthropic.BadRequestError, "max_tokens"),
        ({"messages": []}, anthropic.BadRequestError, "messages"),
        (
            {"tools": [{"type": "web_search_20250305", "name": "web_search"}]},
            anthropic.BadRequestError,
            "tools.0",
        ),
        ({"extra_body": {"container": "x"}}, anthropic.BadRequestError, "container"),
        ({"extra_body": {"api_base": "http://x"}}, anthropic.BadRequestError, "api_base"),
        (
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}],
                    }
                ]
            },
            anthropic.BadRequestError,
            "messages.0.content.0.source",
        ),
    ],
)
def test_what_cannot_be_asked_raises_the_clients_own_class(
    stand: Stand, client: anthropic.Anthropic, more: Any, kind: type[anthropic.APIStatusError], words: str
) -> None:
    with pytest.raises(kind) as caught:
        create(client, **more)
    body: Any = caught.value.body
    assert body["type"] == "error"
    assert words in body["error"]["message"]
    assert body["request_id"].startswith("req_")
    assert stand.up.seen == []


@pytest.mark.parametrize(
    ("status", "kind"),
    [(429, "rate_limit_error"), (503, "overloaded_error"), (500, "api_error"), (401, "api_error")],
)
def test_an_upstreams_error_is_told_in_anthropics_words(
    stand: Stand, client: anthropic.Anthropic, status: int, kind: str
) -> None:
    stand.up.faults.append(Fault(status=status, body=b'{"error": {"message": "No."}}'))
    with pytest.raises(anthropic.APIStatusError) as caught:
        create(client)
    body: Any = caught.value.body
    assert body["error"]["type"] == kind


def test_a_wrong_key_is_an_authentication_error(stand: Stand) -> None:
    with (
        anthropic.Anthropic(base_url=stand.url, api_key="sk-no", max_retries=0) as client,
        pytest.raises(anthropic.AuthenticationError) as caught,
    ):
        create(client)
    body: Any = caught.value.body
    assert body["error"]["type"] == "authentication_error"


def test_a_stream_that_breaks_off_ends_with_an_error(stand: Stand, client: anthropic.Anthropic) -> None:
    stand.up.faults.append(Fault(cut_after=300))
    with (
        client.messages.stream(model="support", max_tokens=64, messages=ASKED) as stream,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        list(stream)
    body: Any = caught.value.body
    assert body["error"]["type"] == "api_error"


def test_a_stream_that_is_done_without_a_finish_ends_with_an_error(
    stand: Stand, client: anthropic.Anthropic
) -> None:
    chunk = {"id": "c", "model": "tiny", "choices": [{"index": 0, "delta": {"content": "half"}}]}
    stand.up.faults.append(Fault(raw=b"data: %b\n\ndata: [DONE]\n\n" % json.dumps(chunk).encode()))
    with (
        client.messages.stream(model="support", max_tokens=64, messages=ASKED) as stream,
        pytest.raises(anthropic.APIStatusError) as caught,
    ):
        list(stream)
    body: Any = caught.value.body
    assert body["error"]["type"] == "api_error"


def test_the_async_client_gets_the_same(stand: Stand) -> None:
    async def ask() -> list[str]:
        async with anthropic.AsyncAnthropic(base_url=stand.url, api_key=CLIENT_KEY, timeout=10) as client:
            plain = await client.messages.create(model="support", max_tokens=9, messages=ASKED)
            async with client.messages.stream(model="support", max_tokens=9, messages=ASKED) as stream:
                text = "".join([piece async for piece in stream.text_stream])
        assert isinstance(plain.content[0], TextBlock)
        return [plain.content[0].text, text]

    assert asyncio.run(ask()) == ["forty two"] * 2


def test_usage_is_recorded_as_of_any_other_request(stand: Stand, client: anthropic.Anthropic) -> None:
    create(client)
    record = stand.record()
    assert (record.route, record.prompt_tokens, record.completion_tokens) == ("/v1/messages", 7, 2)
