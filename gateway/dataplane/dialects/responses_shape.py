"""The object of OpenAI's Responses API: what was asked, as it is told back, and what it used."""

from __future__ import annotations

from typing import Any

from gateway.dataplane.dialects.responses_wire import Request, Used

_TOLD = (
    "instructions", "max_output_tokens", "max_tool_calls", "previous_response_id", "prompt_cache_key",
    "safety_identifier", "temperature", "top_logprobs", "top_p", "user",
)  # fmt: skip


def response_of(
    asked: Request, name: str, status: str, *, model: str, created_s: int, is_kept: bool
) -> dict[str, Any]:
    """
    The response called *name* to *asked*, with no output and no usage yet.

    Args:
        status: `in_progress`, `completed`, `incomplete` or `failed`.
        model: who answered; empty tells the model that was asked for.
        created_s: seconds since 1970.
        is_kept: whether it can be read again.
    """
    text, reasoning = asked.text, asked.reasoning
    form: dict[str, Any] = {"format": (text.format if text else None) or {"type": "text"}}
    if text is not None and text.verbosity is not None:
        form["verbosity"] = text.verbosity
    return {
        "id": name,
        "object": "response",
        "created_at": created_s,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "metadata": asked.metadata or {},
        "model": model or asked.model,
        "output": [],
        "parallel_tool_calls": asked.parallel_tool_calls is not False,
        "reasoning": {"effort": reasoning.effort if reasoning else None, "summary": None},
        "store": is_kept,
        "text": form,
        "tool_choice": asked.tool_choice or "auto",
        "tools": asked.tools or [],
        "truncation": "disabled",
        "usage": None,
    } | {field: getattr(asked, field) for field in _TOLD}


def usage_of(used: Used | None) -> dict[str, Any] | None:
    """Tokens in the words of the Responses API; None where the model counted none."""
    if used is None:
        return None
    read, written = used.prompt_tokens_details, used.completion_tokens_details
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": (read and read.cached_tokens) or 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": (written and written.reasoning_tokens) or 0},
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }
