"""Ask a release a question through OpenAI's chat completions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from evals.dataset import Sample
from evals.systems.base import Call, Options, Output, ToolCall, pick
from registry.entities import ReleaseContent


class ChatSystem:
    """One user message a sample; the release's own prompt, parameters and guardrails apply."""

    batch = 1

    def __init__(self, options: Options) -> None:
        """Needs nothing of *options*."""
        self.options = options

    def suits(self, release: ReleaseContent) -> str | None:
        """None for chat releases."""
        return None if release.kind == "chat" else f"a {release.kind} release does not chat"

    def call(self, model: str, samples: Sequence[Sample]) -> Call:
        """`POST /v1/chat/completions` with nothing set but the question."""
        (sample,) = samples
        message = {"role": "user", "content": sample.query}
        return Call("/v1/chat/completions", {"model": model, "messages": [message]})

    def read(self, body: Any, samples: Sequence[Sample], latency_ms: float) -> list[Output]:  # noqa: ANN401, ARG002
        """The first choice: its text (null is empty), its tool calls and why it ended."""
        message = pick(body, "choices", 0, "message", kind=dict)
        text, finish = message.get("content"), body["choices"][0].get("finish_reason")
        usage = body.get("usage") or {}
        refused = message.get("refusal") or finish == "content_filter"
        return [
            Output(
                latency_ms=latency_ms,
                text=text if isinstance(text, str) else "",
                prompt_tokens=_count(usage, "prompt_tokens"),
                completion_tokens=_count(usage, "completion_tokens"),
                tool_calls=tuple(map(_tool_call, message.get("tool_calls") or ())),
                finish="refusal" if refused else finish if isinstance(finish, str) else "",
            )
        ]


def _tool_call(call: Any) -> ToolCall:  # noqa: ANN401
    name = pick(call, "function", "name", kind=str)
    return ToolCall(name, pick(call, "function", "arguments", kind=str))


def _count(usage: Any, field: str) -> int:  # noqa: ANN401
    value = usage.get(field) if isinstance(usage, dict) else None
    return value if isinstance(value, int) else 0
