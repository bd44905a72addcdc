"""OpenAI's Responses API as it arrives. Source: "Responses" of OpenAI's API reference."""

from __future__ import annotations

from typing import Any

import msgspec

Item = dict[str, Any]
"""An item of a conversation; its `type` says what it is, and without one it is a message."""


class Reasoning(msgspec.Struct):
    """How much the model thinks first; what else it says is echoed alone."""

    effort: str | None = None
    summary: str | None = None


class TextConfig(msgspec.Struct):
    """In which form, and how wordy."""

    format: dict[str, Any] | None = None
    verbosity: str | None = None


class Request(msgspec.Struct, forbid_unknown_fields=True):
    """The body of `POST /v1/responses`."""

    model: str
    input: str | list[Item] = ""
    instructions: str | None = None
    previous_response_id: str | None = None
    store: bool | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    max_output_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    max_tool_calls: int | None = None
    text: TextConfig | None = None
    reasoning: Reasoning | None = None
    metadata: dict[str, str] | None = None
    include: list[str] | None = None
    truncation: str | None = None
    user: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    prompt_cache_retention: str | None = None
    background: bool | None = None
    conversation: Any = None
    prompt: Any = None
    context_management: Any = None
    moderation: Any = None


class Function(msgspec.Struct):
    """The function of a tool call, or what a stream adds to it."""

    name: str | None = None
    arguments: str | None = None


class Call(msgspec.Struct):
    """A tool call, or what a stream adds to one."""

    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Said(msgspec.Struct):
    """A chat message of the model, or what a stream adds to it."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: Any = None
    """The same under another name, where it is text."""
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class Logprobs(msgspec.Struct):
    """How likely each token was, as OpenAI writes it."""

    content: list[dict[str, Any]] | None = None


class Choice(msgspec.Struct):
    """A choice of a chat answer or of an event."""

    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    logprobs: Logprobs | None = None


class PromptDetails(msgspec.Struct):
    """What part of the prompt came from a cache."""

    cached_tokens: int | None = None


class CompletionDetails(msgspec.Struct):
    """What part of the completion was thinking."""

    reasoning_tokens: int | None = None


class Used(msgspec.Struct):
    """Tokens, as chat completions count them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


class Answer(msgspec.Struct):
    """A chat answer, or one event of its stream."""

    model: str = ""
    choices: list[Choice] = []
    usage: Used | None = None
    error: Any = None
