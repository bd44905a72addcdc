"""What a real vLLM answers through the gateway, and what clients are told when it dies."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from tests.live.conftest import Engine

ASKED: Any = [{"role": "user", "content": "Who keeps the gate?"}]
LONG: Any = [{"role": "user", "content": "What is a sluice?"}]
KNOWN = "The keeper of the gate is Ada."
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "sluice_level",
        "description": "The level of a sluice.",
        "parameters": {
            "type": "object",
            "properties": {"sluice": {"type": "integer"}},
            "required": ["sluice"],
        },
    },
}
SCHEMA: Any = {
    "type": "json_schema",
    "json_schema": {
        "name": "gate",
        "schema": {
            "type": "object",
            "properties": {"name": {"type": "string"}, "levels": {"type": "integer"}},
            "required": ["name", "levels"],
            "additionalProperties": False,
        },
    },
}


def ask(client: openai.OpenAI, model: str = "vllm/tiny", messages: Any = ASKED, **more: Any) -> Any:
    return client.chat.completions.create(
        **{"model": model, "messages": messages, "temperature": 0, "max_tokens": 64} | more
    )


def test_plain(client: openai.OpenAI) -> None:
    answer = ask(client)
    assert answer.choices[0].message.content == KNOWN
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.completion_tokens > 3


def test_stream(client: openai.OpenAI) -> None:
    chunks = list(ask(client, stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == KNOWN
    assert (
        chunks[-1].usage.completion_tokens
        == sum(1 for c in chunks if c.choices and c.choices[0].delta.content) + 1
    )


def test_structured_output(client: openai.OpenAI) -> None:
    messages = [{"role": "user", "content": "Describe the gate as JSON."}]
    answer = ask(client, messages=messages, response_format=SCHEMA)
    found = json.loads(answer.choices[0].message.content)
    assert {name: type(value) for name, value in found.items()} == {"name": str, "levels": int}


@pytest.mark.parametrize("stream", [False, True])
def test_tools(client: openai.OpenAI, stream: bool) -> None:
    messages = [{"role": "user", "content": "How high is sluice 7?"}]
    if stream:
        chunks = list(ask(client, messages=messages, tools=[TOOL], stream=True))
        deltas = [call for c in chunks for call in c.choices[0].delta.tool_calls or ()]
        name = "".join(delta.function.name or "" for delta in deltas)
        arguments = "".join(delta.function.arguments or "" for delta in deltas)
    else:
        (call,) = ask(client, messages=messages, tools=[TOOL]).choices[0].message.tool_calls
        name, arguments = call.function.name, call.function.arguments
    assert (name, json.loads(arguments)) == ("sluice_level", {"sluice": 7})


def test_an_adapter_answers_by_its_name(client: openai.OpenAI) -> None:
    assert ask(client, "vllm/keeper").choices[0].message.content == "The water of the gate is Ada."
    assert ask(client).choices[0].message.content == KNOWN


def test_other_apis_over_it(client: openai.OpenAI) -> None:
    response = client.responses.create(model="vllm/tiny", input="Who keeps the gate?", temperature=0)
    assert response.output_text == KNOWN
    url = str(client.base_url).removesuffix("/v1/")
    with anthropic.Anthropic(base_url=url, api_key=client.api_key, max_retries=0) as other:
        message: Any = other.messages.create(
            model="vllm/tiny", max_tokens=64, messages=ASKED, extra_body={"temperature": 0}
        )
        assert message.content[0].text == KNOWN


def test_killed_in_the_middle_of_a_stream_and_back_again(client: openai.OpenAI, engine: Engine) -> None:
    """The client hears of it, the breaker opens, and once the engine is back so are its answers."""
    doomed = children(engine.process.pid)  # looked up before: the stream takes seconds alone
    endless = {"ignore_eos": True}
    stream = ask(client, messages=LONG, stream=True, n=8, temperature=1, max_tokens=900, extra_body=endless)
    for _ in range(3):
        next(stream)
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)
    with pytest.raises(openai.APIError) as caught:
        list(stream)
    assert caught.value.code in ("upstream_broken", "upstream_error", "upstream_unreachable")
    codes = []
    for _ in range(4):
        with pytest.raises(openai.APIStatusError) as refused:
            ask(client)
        codes.append(refused.value.code)
    assert codes[-1] == "circuit_open"
    engine.until("ready")
    deadline = time.monotonic() + 30
    while True:
        try:
            assert ask(client).choices[0].message.content == KNOWN
            break
        except openai.APIStatusError as error:
            assert error.code == "circuit_open"
            assert time.monotonic() < deadline
            time.sleep(0.2)  # until the breaker lets one request try


def children(pid: int) -> list[int]:
    """All processes that *pid* started, and those that they started."""
    parents: dict[int, int] = {}
    for place in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            parents[int(place.parent.name)] = int(place.read_text().rpartition(")")[2].split()[1])
    found, left = [], [pid]
    while left:
        of = left.pop()
        own = [child for child, parent in parents.items() if parent == of]
        found += own
        left += own
    return found
