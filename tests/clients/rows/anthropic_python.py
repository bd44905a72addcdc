"""Anthropic's Python client; `test_anthropic_python.py` tries it in depth."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import TextBlock, ToolUseBlock

from tests.clients.rows.expected import ARGUMENTS
from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import USER, Stand

NAME, PACKAGE = "anthropic (Python)", "anthropic"
TOOLS: Any = [{"name": "weather", "input_schema": {"type": "object"}}]


def _client(stand: Stand) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=stand.url, api_key=CLIENT_KEY, max_retries=0, timeout=10)


def plain(stand: Stand) -> None:
    with _client(stand) as client:
        answer = client.messages.create(model="support", max_tokens=64, messages=USER)
    assert answer.content == [TextBlock(type="text", text="forty two")]
    assert answer.usage.input_tokens == 7


def stream(stand: Stand) -> None:
    with (
        _client(stand) as client,
        client.messages.stream(model="support", max_tokens=64, messages=USER) as pieces,
    ):
        assert "".join(pieces.text_stream) == "forty two"


def tools(stand: Stand) -> None:
    stand.up.answer = ARGUMENTS
    with _client(stand) as client:
        answer = client.messages.create(model="support", max_tokens=64, messages=USER, tools=TOOLS)
    (call,) = answer.content
    assert isinstance(call, ToolUseBlock)
    assert (call.name, call.input) == ("weather", json.loads(ARGUMENTS))


def count(stand: Stand) -> None:
    with _client(stand) as client:
        assert client.messages.count_tokens(model="support", messages=USER).input_tokens > 0


def errors(stand: Stand) -> None:
    with _client(stand) as client, pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="nonesuch", max_tokens=64, messages=USER)


TRIALS = {"plain": plain, "stream": stream, "tools": tools, "count tokens": count, "typed errors": errors}
