"""The official Python client: everything it can ask of chat, completions, embeddings and models."""

from __future__ import annotations

import asyncio
import json
import re
from decimal import Decimal
from typing import Any

import openai
import pytest
from openai.types.chat import ChatCompletionChunk
from pydantic import BaseModel

from tests.fakes.parts import CLIENT_KEY, DIGEST
from tests.fakes.stand import USER, Stand
from tests.fakes.upstream import MODEL

TOOLS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}, "strict": True}}
    for name in ("weather", "time")
]
ARGUMENTS = '{"city": "Tromsø", "at": [1, 2.50]}'


class City(BaseModel):
    """What `parse` is to make of an answer."""

    name: str
    people: int


def text_of(chunks: list[ChatCompletionChunk], index: int = 0) -> str:
    choices = [choice for chunk in chunks for choice in chunk.choices if choice.index == index]
    return "".join(choice.delta.content or "" for choice in choices)


def test_a_plain_answer_is_read_whole(stand: Stand) -> None:
    answer = stand.client.chat.completions.create(model="support", messages=USER)
    assert answer.choices[0].message.content == "forty two"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (7, 2)
    assert answer.model_extra == {"unknown_field": {"kept": 12345678901234567890}}
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


@pytest.mark.parametrize("size", [None, 1, 7])
def test_a_stream_is_the_same_however_the_upstream_cut_it(stand: Stand, size: int | None) -> None:
    stand.up.answer = "Tromsø, 北京 and 🦉"
    stand.up.chunk_bytes = size
    stream = stand.client.chat.completions.create(model="support", messages=USER, stream=True)
    chunks = list(stream)
    assert text_of(chunks) == "Tromsø, 北京 and 🦉"
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.choices for chunk in chunks), "usage was not asked for"


def test_usage_comes_last_in_a_stream_that_asks_for_it(stand: Stand) -> None:
    stream = stand.client.chat.completions.create(
        model="support", messages=USER, stream=True, stream_options={"include_usage": True}
    )
    last = list(stream)[-1]
    assert last.choices == []
    assert last.usage is not None
    assert (last.usage.prompt_tokens, last.usage.completion_tokens) == (7, 3)


def test_the_stream_helper_tells_of_each_piece_and_of_the_whole(stand: Stand) -> None:
    with stand.client.chat.completions.stream(model="support", messages=USER) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    assert [event.delta for event in events if event.type == "content.delta"] == ["", "for", "ty ", "two"]
    assert [event.content for event in events if event.type == "content.done"] == ["forty two"]
    assert final.choices[0].message.content == "forty two"


def test_headers_are_there_for_whoever_asks(stand: Stand) -> None:
    raw = stand.client.chat.completions.with_raw_response.create(model="support", messages=USER)
    assert raw.headers["x-sluicegate-digest"] == DIGEST
    assert raw.headers["openai-version"] == "2020-10-01"
    assert raw.parse().choices[0].message.content == "forty two"
    with stand.client.chat.completions.with_streaming_response.create(model="support", messages=USER) as late:
        assert late.headers["x-sluicegate-release"] == "support"
        assert json.loads(late.read())["choices"][0]["message"]["content"] == "forty two"
    with stand.client.chat.completions.with_streaming_response.create(
        model="support", messages=USER, stream=True
    ) as lines:
        assert list(lines.iter_lines())[-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize("stream", [False, True])
def test_several_choices_arrive_under_their_numbers(stand: Stand, stream: bool) -> None:
    if stream:
        chunks = list(stand.client.chat.completions.create(model="support", messages=USER, n=3, stream=True))
        assert [text_of(chunks, index) for index in range(4)] == ["forty two"] * 3 + [""]
    else:
        answer = stand.client.chat.completions.create(model="support", messages=USER, n=3)
        assert [(c.index, c.message.content) for c in answer.choices] == [(n, "forty two") for n in range(3)]


def test_parallel_tool_calls_arrive_plain(stand: Stand) -> None:
    stand.up.answer = ARGUMENTS
    answer = stand.client.chat.completions.create(model="support", messages=USER, tools=TOOLS)
    calls: Any = answer.choices[0].message.tool_calls
    assert [(call.id, call.function.name, call.function.arguments) for call in calls] == [
        ("call_1", "weather", ARGUMENTS),
        ("call_2", "time", ARGUMENTS),
    ]
    assert answer.choices[0].finish_reason == "tool_calls"
    assert stand.up.seen[0].body["tools"] == TOOLS


def test_parallel_tool_calls_stream_their_arguments(stand: Stand) -> None:
    stand.up.answer = ARGUMENTS
    stand.up.chunk_bytes = 11
    with stand.client.chat.completions.stream(model="support", messages=USER, tools=TOOLS) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
        final = stream.get_final_completion()
    assert {(event.index, event.name, event.arguments) for event in done} == {
        (0, "weather", ARGUMENTS),
        (1, "time", ARGUMENTS),
    }
    calls = final.choices[0].message.tool_calls or []
    assert [call.function.arguments for call in calls] == [ARGUMENTS, ARGUMENTS]


def test_one_tool_is_called_where_parallel_calls_are_not_wanted(stand: Stand) -> None:
    answer = stand.client.chat.completions.create(
        model="support", messages=USER, tools=TOOLS, parallel_tool_calls=False, tool_choice="required"
    )
    assert len(answer.choices[0].message.tool_calls or ()) == 1


def test_an_answer_is_parsed_into_a_model(stand: Stand) -> None:
    stand.up.answer = '{"name": "Oslo", "people": 717710}'
    answer = stand.client.chat.completions.parse(model="support", messages=USER, response_format=City)
    assert answer.choices[0].message.parsed == City(name="Oslo", people=717710)
    sent = stand.up.seen[0].body["response_format"]
    assert (sent["type"], sent["json_schema"]["name"], sent["json_schema"]["strict"]) == (
        "json_schema",
        "City",
        True,
    )
    with stand.client.chat.completions.stream(model="support", messages=USER, response_format=City) as stream:
        assert stream.get_final_completion().choices[0].message.parsed == City(name="Oslo", people=717710)


def test_a_refusal_and_reasoning_pass_plain_and_streamed(stand: Stand) -> None:
    stand.up.message = {"refusal": "I may not.", "reasoning_content": "Let me think."}
    answer: Any = stand.client.chat.completions.create(model="support", messages=USER)
    message = answer.choices[0].message
    assert (message.refusal, message.reasoning_content) == ("I may not.", "Let me think.")
    chunks: Any = list(stand.client.chat.completions.create(model="support", messages=USER, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks]
    assert [delta.refusal for delta in deltas if delta.refusal] == ["I may not."]
    assert [d.reasoning_content for d in deltas if hasattr(d, "reasoning_content")] == ["Let me think."]


@pytest.mark.parametrize("stream", [False, True])
def test_logprobs_pass(stand: Stand, stream: bool) -> None:
    if stream:
        chunks = list(
            stand.client.chat.completions.create(model="support", messages=USER, logprobs=True, stream=True)
        )
        found = [c.choices[0].logprobs.content or [] for c in chunks if c.choices[0].logprobs]
        tokens = [token for content in found for token in content]
    else:
        answer = stand.client.chat.completions.create(model="support", messages=USER, logprobs=True)
        assert answer.choices[0].logprobs is not None
        tokens = answer.choices[0].logprobs.content or []
    assert [(token.token, token.logprob) for token in tokens] == [
        ("for", -0.25),
        ("ty ", -0.25),
        ("two", -0.25),
    ]


def test_parts_of_every_kind_reach_the_upstream(stand: Stand) -> None:
    messages: Any = [
        {"role": "developer", "content": "Be brief.", "name": "ops"},
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "What is this? \u2028 \u0000 \U0001f989"},
                {"type": "image_url", "image_url": {"url": "data:image/png;base64,iV/+=", "detail": "low"}},
                {"type": "input_audio", "input_audio": {"data": "UklGRg==", "format": "wav"}},
                {"type": "file", "file": {"file_id": "file_1"}},
                {"type": "of_the_future", "x": {"y": [None, True, -0.0]}},
            ],
        },
        {"role": "assistant", "content": None, "tool_calls": []},
        {"role": "tool", "tool_call_id": "call_1", "content": "12"},
    ]
    stand.client.chat.completions.create(model="support", messages=messages)
    assert stand.up.seen[0].body == {"messages": messages, "model": MODEL}


def test_the_bytes_of_fields_that_are_not_read_stay_as_they_were(stand: Stand) -> None:
    fields = [
        rb'"seed":12345678901234567890',
        rb'"temperature":0.10',
        rb'"top_p":1e-400',
        rb'"x":1E400',
        rb'"metadata":{ "b" : 1, "a":[1 ,2.0, 1.00] , "b":2}',
        rb'"messages":[{"role":"user", "content":"\u00e9\/\ud83e\udd89", "y":-0}]',
        '"é":"ø"'.encode(),
    ]
    body = b'{"model":"support",' + b",".join(fields) + b"}"
    status, _, _ = stand.post("/v1/chat/completions", body)
    assert status == 200
    sent = stand.up.seen[0].raw
    assert [field for field in fields if field not in sent] == []
    assert len(sent) == len(body) - len(b"support") + len(MODEL)


def test_large_numbers_of_a_client_survive(stand: Stand) -> None:
    stand.client.chat.completions.create(
        model="support",
        messages=USER,
        extra_body={"seed": 2**64 + 1, "nested": {"of": [10**30]}, "scale": 0.1, "user_field": None},
    )
    body = json.loads(stand.up.seen[0].raw, parse_float=Decimal)
    assert (body["seed"], body["nested"], body["scale"], body["user_field"]) == (
        18446744073709551617,
        {"of": [10**30]},
        Decimal("0.1"),
        None,
    )


def test_completions_plain_streamed_echoed_and_several(stand: Stand) -> None:
    create = stand.client.completions.create
    assert create(model="support", prompt="say", echo=True).choices[0].text == "say forty two"
    several = create(model="support", prompt="say", echo=False, n=2)
    assert [choice.text for choice in several.choices] == ["forty two"] * 2
    stream = create(model="support", prompt="say", stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "forty two"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 10


def test_embeddings_are_the_same_as_floats_and_as_base64(stand: Stand) -> None:
    create = stand.client.embeddings.create
    usual = create(model="vllm/tiny", input=["a", "b"])
    floats = create(model="vllm/tiny", input=["a", "b"], encoding_format="float")
    assert [seen.body["encoding_format"] for seen in stand.up.seen] == ["base64", "float"]
    assert [item.embedding for item in usual.data] == [[0.25, -0.5]] * 2
    assert usual.data == floats.data
    assert usual.usage.prompt_tokens == 4
    tokens = create(model="vllm/tiny", input=[[1, 2], [3]])
    assert [item.index for item in tokens.data] == [0, 1]


def test_models_are_listed_and_retrieved_with_their_digest(stand: Stand) -> None:
    listed = {model.id: model for model in stand.client.models.list()}
    assert {"support", "support@production", "churn", "loading"} <= listed.keys()
    one: Any = stand.client.models.retrieve("support")
    assert one == listed["support"]
    assert (one.object, one.owned_by, one.digest, one.ready) == ("model", "sluicegate", DIGEST, True)
    assert (listed["loading"].model_extra or {})["ready"] is False
    direct = stand.client.models.retrieve("vllm/tiny")
    assert (direct.id, direct.owned_by) == ("vllm/tiny", "vllm")
    with pytest.raises(openai.NotFoundError):
        stand.client.models.retrieve("nonesuch")


async def _everything(url: str) -> dict[str, Any]:
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=CLIENT_KEY, timeout=10) as client:
        chat = client.chat.completions
        plain = await chat.create(model="support", messages=USER)
        chunks = [c async for c in await chat.create(model="support", messages=USER, stream=True)]
        async with chat.stream(model="support", messages=USER, tools=TOOLS) as stream:
            final = await stream.get_final_completion()
        at_once = await asyncio.gather(
            *(chat.create(model="support", messages=USER, n=n) for n in range(1, 9))
        )
        raw = await chat.with_raw_response.create(model="support", messages=USER)
        text = await client.completions.create(model="support", prompt="say")
        vectors = await client.embeddings.create(model="vllm/tiny", input="a")
        models = [model.id async for model in client.models.list()]
    return {
        "plain": plain.choices[0].message.content,
        "stream": text_of(chunks),
        "tools": [call.function.name for call in final.choices[0].message.tool_calls or ()],
        "at_once": [len(answer.choices) for answer in at_once],
        "release": raw.headers["x-sluicegate-release"],
        "text": text.choices[0].text,
        "vector": vectors.data[0].embedding,
        "support": "support" in models,
    }


def test_the_async_client_gets_the_same(stand: Stand) -> None:
    stand.up.answer = ARGUMENTS
    assert asyncio.run(_everything(stand.url)) == {
        "plain": ARGUMENTS,
        "stream": ARGUMENTS,
        "tools": ["weather", "time"],
        "at_once": [1, 2, 3, 4, 5, 6, 7, 8],
        "release": "support",
        "text": f"say {ARGUMENTS}",
        "vector": [0.25, -0.5],
        "support": True,
    }


def test_the_wire_of_a_stream_is_events_and_nothing_else(stand: Stand) -> None:
    body = stand.stream()
    assert re.fullmatch(rb"(data: \{[^\n]*\}\n\n)+data: \[DONE\]\n\n", body)
