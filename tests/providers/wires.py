"""How each provider is spoken to and what it answers, as it publishes it; `wire/<provider>` has the bytes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.providers.eventstream import framed

FOLDER = Path(__file__).parent / "wire"
KEY = "kA9vTq3Zw7Lm2Xc5Bn8RsPd4"
"""No prefix tells that it is a key: those of several providers look like any word."""
TEXT = "It was built in 1889."
OPENAI_FIELDS = frozenset(
    (
        "audio", "frequency_penalty", "function_call", "functions", "logit_bias", "logprobs",
        "max_completion_tokens", "max_tokens", "messages", "metadata", "modalities", "model", "n",
        "parallel_tool_calls", "prediction", "presence_penalty", "prompt_cache_key", "reasoning_effort",
        "response_format", "safety_identifier", "seed", "service_tier", "stop", "store", "stream",
        "stream_options", "temperature", "tool_choice", "tools", "top_logprobs", "top_p", "user", "verbosity",
        "web_search_options",
    )
)  # fmt: skip
"""What `POST /v1/chat/completions` of OpenAI takes; it refuses all else."""
_NEWER = frozenset(("prompt_cache_key", "safety_identifier", "verbosity"))
_MISTRAL_FIELDS = frozenset(
    (
        "frequency_penalty", "max_tokens", "messages", "metadata", "model", "n", "parallel_tool_calls",
        "prediction", "presence_penalty", "prompt_mode", "random_seed", "reasoning_effort", "response_format",
        "safe_prompt", "stop", "stream", "temperature", "tool_choice", "tools", "top_p",
    )
)  # fmt: skip
_MESSAGES_FIELDS = frozenset(
    (
        "max_tokens", "messages", "metadata", "model", "service_tier", "stop_sequences", "stream", "system",
        "temperature", "thinking", "tool_choice", "tools", "top_k", "top_p",
    )
)  # fmt: skip
_RESPONSES_FIELDS = frozenset(
    (
        "include", "input", "instructions", "max_output_tokens", "metadata", "model", "parallel_tool_calls",
        "prompt_cache_key", "reasoning", "safety_identifier", "service_tier", "store", "stream",
        "temperature", "text", "tool_choice", "tools", "top_logprobs", "top_p", "user",
    )
)  # fmt: skip


@dataclass(frozen=True)
class Wire:
    """One provider on the wire."""

    path: str = "/v1/chat/completions"
    """Where a chat completion is posted to."""
    base: str = "/v1"
    """Path of the address that the gateway is given."""
    model: str = "some-model"
    key_header: str = "authorization"
    key_prefix: str = "Bearer "
    headers: Mapping[str, str] = field(default_factory=dict)
    """Further headers that must be there."""
    fields: frozenset[str] | None = None
    """The only fields of a body that are taken; None where others are passed over."""
    names_model: bool = True
    """Whether the body names the model; elsewhere the path does."""
    asks_usage: bool = True
    """Whether a stream must be asked for its usage."""
    stops: bool = True
    """Whether it can be told where to stop."""
    shows_cuts: bool = True
    """Whether a stream that ended too early, but as HTTP ends, can be told from a whole one."""
    stream_path: str = ""
    """Where a stream is asked for, if elsewhere."""
    stream_type: str = "text/event-stream"
    folder: str = ""
    """Whose fixtures are replayed; those of the provider's own name by default."""
    tool_id: str = ""
    """Of its tool call; empty where the client makes one up."""
    usage: tuple[int, int, int, int] = (17, 9, 0, 0)
    """Tokens of prompt and answer; of those, read from a cache and thought."""
    reason: str = ""
    """Part of its refusal that the client must be told."""
    before: str = ""
    """What the refusal says of a field, where it says so apart from the reason."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """What its SDK reads by itself."""


_CLAUDE = "anthropic.claude-3-haiku-20240307-v1:0"
_GOOGLE = "/v1/projects/some-project/locations/europe-west1/publishers/google/models/gemini-2.5-flash"
AWS_SIGNATURE = "AWS4-HMAC-SHA256 Credential=AKIAFAKEFAKEFAKEFAKE/"
WIRES: Mapping[str, Wire] = {
    "anthropic": Wire(
        "/v1/messages", "", "claude-sonnet-4-5", "x-api-key", "", {"anthropic-version": "2023-06-01"},
        fields=_MESSAGES_FIELDS, asks_usage=False, tool_id="toolu_01A09q90qw90lq917835lq9",
        usage=(17, 9, 4, 0), reason="max_tokens: 500000",
    ),
    "azure": Wire(
        "/openai/v1/chat/completions", "", "my-deployment", "api-key", "", fields=OPENAI_FIELDS,
        tool_id="call_9fQ2", usage=(17, 9, 4, 2), reason="content management policy",
    ),
    "bedrock": Wire(
        f"/model/{_CLAUDE}/converse", "", _CLAUDE, key_prefix=AWS_SIGNATURE, names_model=False,
        asks_usage=False, stream_path=f"/model/{_CLAUDE}/converse-stream",
        stream_type="application/vnd.amazon.eventstream", tool_id="tooluse_kZJMlvQm",
        reason="model identifier is invalid",
        environment={
            "AWS_ACCESS_KEY_ID": "AKIAFAKEFAKEFAKEFAKE", "AWS_SECRET_ACCESS_KEY": KEY,
            "AWS_REGION": "eu-west-1",
        },
    ),
    "gemini": Wire(
        "/v1beta/openai/chat/completions", "/v1beta/openai", "gemini-2.5-flash",
        fields=OPENAI_FIELDS - _NEWER, tool_id="function-call-8130", usage=(17, 44, 0, 35),
        reason='Unknown name "colour"',
    ),
    "groq": Wire(
        "/openai/v1/chat/completions", "/openai/v1", "llama-3.3-70b-versatile", fields=OPENAI_FIELDS - _NEWER,
        tool_id="call_k8hk", reason="'colour' is unsupported",
    ),
    "litellm": Wire(
        folder="openai", model="openai/gpt-4o-mini", fields=OPENAI_FIELDS, tool_id="call_9fQ2",
        usage=(17, 9, 4, 2), reason="decimal above maximum",
    ),
    "mistral": Wire(
        model="mistral-small-latest", fields=_MISTRAL_FIELDS, asks_usage=False, tool_id="D681PevKs",
        before="colour: ", reason="Extra inputs are not permitted",
    ),
    "ollama": Wire(model="llama3.2", tool_id="call_hm0v", reason="invalid message content type"),
    "openai": Wire(
        model="gpt-4o-mini", fields=OPENAI_FIELDS, tool_id="call_9fQ2", usage=(17, 9, 4, 2),
        reason="decimal above maximum",
    ),
    "openrouter": Wire(
        "/api/v1/chat/completions", "/api/v1", "openai/gpt-4o-mini", tool_id="call_9fQ2", usage=(17, 9, 4, 2),
        reason="unsupported parameter",
    ),
    "responses": Wire(
        "/v1/responses", model="gpt-5-pro", fields=_RESPONSES_FIELDS, asks_usage=False, stops=False,
        tool_id="call_9fQ2", usage=(17, 9, 4, 2), reason="max_output_tokens",
    ),
    "sglang": Wire(model="Qwen/Qwen3-8B", tool_id="call_4f1b", reason="longer than the model's context"),
    "tgi": Wire(model="tgi", tool_id="0", reason="must be <= 4096"),
    "together": Wire(
        model="meta-llama/Llama-3.3-70B-Instruct-Turbo", tool_id="call_kw2u", reason="must be positive"
    ),
    "vertex_ai": Wire(
        f"{_GOOGLE}:generateContent", "", "gemini-2.5-flash", names_model=False, asks_usage=False,
        stream_path=f"{_GOOGLE}:streamGenerateContent",
        shows_cuts=False,  # litellm reads a missing finishReason as STOP
        usage=(17, 9, 0, 4), reason="must have a text parameter",
        environment={"VERTEXAI_PROJECT": "some-project", "VERTEXAI_LOCATION": "europe-west1"},
    ),
    "vllm": Wire(model="Qwen/Qwen3-8B", tool_id="chatcmpl-tool-3f", reason="maximum context length"),
}  # fmt: skip
LOCAL = frozenset(("extractive", "llamacpp"))
"""Providers inside the gateway, which speak to nobody."""


def whole(provider: str, name: str) -> bytes:
    """The body of a whole answer."""
    return (_folder(provider) / f"{name}.json").read_bytes()


def stream(provider: str, name: str) -> bytes:
    """The bytes of a stream; what is no text on the wire stands in the fixture as one event a line."""
    path = _folder(provider) / f"{name}.sse"
    if path.exists():
        return path.read_bytes()
    lines = path.with_suffix(".events").read_text().splitlines()
    return b"".join(framed(*json.loads(line)) for line in lines)


def has(provider: str, name: str) -> bool:
    """Whether there is a fixture of that name."""
    return bool(list(_folder(provider).glob(f"{name}.*")))


def error(provider: str, name: str) -> tuple[int, bytes]:
    """Status, which stands in the fixture's name, and body."""
    (path,) = _folder(provider).glob(f"{name}.*.json")
    return int(path.suffixes[0][1:]), path.read_bytes()


def unknown_fields(wire: Wire, body: Mapping[str, Any]) -> list[str]:
    """Fields that the provider refuses."""
    return [] if wire.fields is None else sorted(set(body) - wire.fields)


def _folder(provider: str) -> Path:
    return FOLDER / (WIRES[provider].folder or provider)
