"""Requests under the names that each provider knows."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from gateway.dataplane.fit import fitted
from gateway.dataplane.request import encode, parse


def sent(model: str, fields: dict[str, Any], *, translated: bool) -> Any:
    body = fitted(parse(msgspec.json.encode(fields)), model, translated=translated)
    return msgspec.json.decode(encode(body))


CHAT = {"messages": [], "max_tokens": 9, "top_k": 4, "user": "u", "verbosity": "low", "temperature": 1}
PLAIN = {"messages": [], "temperature": 1}


@pytest.mark.parametrize(
    ("model", "kept"),
    [
        ("openai/gpt-5", {"max_completion_tokens": 9, "user": "u", "verbosity": "low"}),
        ("azure/gpt-5", {"max_completion_tokens": 9, "user": "u", "verbosity": "low"}),
        ("gemini/gemini-2.5-pro", {"max_tokens": 9, "user": "u"}),
        ("groq/openai/gpt-oss-20b", {"max_tokens": 9, "user": "u"}),
        ("mistral/mistral-small-latest", {"max_tokens": 9}),
        ("openrouter/openai/gpt-5", {"max_tokens": 9, "top_k": 4, "user": "u"}),
        ("together/meta-llama/Llama-4", {"max_tokens": 9, "top_k": 4, "user": "u"}),
        ("tgi/tgi", {"max_tokens": 9, "top_k": 4, "user": "u"}),
        ("sglang/qwen", {"max_tokens": 9, "top_k": 4, "user": "u"}),
        ("vllm/openai/gpt-oss-20b", {"max_tokens": 9, "top_k": 4, "user": "u"}),
    ],
)
def test_a_translated_request_has_only_what_the_provider_knows(model: str, kept: dict[str, Any]) -> None:
    assert sent(model, CHAT, translated=True) == PLAIN | kept


@pytest.mark.parametrize(
    "model", ["openai/gpt-5", "azure/gpt-5", "gemini/g", "groq/g", "openrouter/o", "vllm/v"]
)
def test_what_a_client_of_the_same_dialect_chose_goes_out_as_it_is(model: str) -> None:
    body = parse(msgspec.json.encode(CHAT | {"max_completion_tokens": 5, "stream_options": {}}))
    assert fitted(body, model, translated=False) is body


@pytest.mark.parametrize("model", ["mistral/m", "together/t", "tgi/t"])
def test_a_bound_that_the_provider_would_not_know_goes_out_under_its_older_name(model: str) -> None:
    assert sent(model, PLAIN | {"max_completion_tokens": 5}, translated=False) == PLAIN | {"max_tokens": 5}
    both = PLAIN | {"max_completion_tokens": 5, "max_tokens": 3}
    assert sent(model, both, translated=False) == PLAIN | {"max_tokens": 3}


def test_mistral_is_not_asked_for_the_usage_that_it_always_sends() -> None:
    asked = PLAIN | {"stream": True, "stream_options": {"include_usage": True}}
    assert sent("mistral/m", asked, translated=False) == PLAIN | {"stream": True}
