"""
Anthropic's Messages API as it arrives: strict, as Anthropic is.

Source: "Messages", "Create a Message" and "Errors" of Anthropic's API reference, version 2023-06-01.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

Block = dict[str, Any]
"""A content block; its `type` says what it is."""


class Turn(msgspec.Struct, forbid_unknown_fields=True):
    """One message."""

    role: Literal["user", "assistant", "system"]
    content: str | list[Block]


class Metadata(msgspec.Struct):
    """Whom the request is for."""

    user_id: str | None = None


class ToolChoice(msgspec.Struct):
    """Which tools the model may or must use."""

    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool = False


class Thinking(msgspec.Struct):
    """Whether and how much the model thinks first."""

    type: Literal["enabled", "disabled", "adaptive"]
    budget_tokens: int | None = None


class OutputConfig(msgspec.Struct):
    """How much effort, and in which form."""

    effort: str | None = None
    format: dict[str, Any] | None = None


class Counted(msgspec.Struct, forbid_unknown_fields=True):
    """What both `/v1/messages` and its `count_tokens` take."""

    model: str
    messages: list[Turn]
    system: str | list[Block] | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: ToolChoice | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    cache_control: Any = None


class Request(Counted, forbid_unknown_fields=True, kw_only=True):
    """The body of `POST /v1/messages`."""

    max_tokens: int
    stream: bool | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: list[str] | None = None
    metadata: Metadata | None = None
    service_tier: str | None = None


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
    reasoning: str | None = None
    """`reasoning_content` of vLLM from 0.16 on and of OpenRouter."""
    refusal: str | None = None
    tool_calls: list[Call] | None = None


class Choice(msgspec.Struct):
    """A choice of a chat answer or of an event."""

    index: int = 0
    message: Said | None = None
    delta: Said | None = None
    finish_reason: str | None = None
    stop_reason: Any = None
    """vLLM: the stop sequence that was met."""


class Thought(msgspec.Struct):
    """What part of the answer was thinking."""

    reasoning_tokens: int | None = None


class Details(msgspec.Struct):
    """What part of the prompt came from a cache."""

    cached_tokens: int | None = None


class Used(msgspec.Struct):
    """Tokens, as chat completions count them."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    prompt_tokens_details: Details | None = None
    completion_tokens_details: Thought | None = None


class Answer(msgspec.Struct):
    """A chat answer, or one event of its stream."""

    model: str = ""
    choices: list[Choice] = []
    usage: Used | None = None
    error: Any = None
