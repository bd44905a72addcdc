"""What is known of one finished request; metrics are a view of it."""

from __future__ import annotations

import msgspec


class UsageRecord(msgspec.Struct):
    """One request. Text of prompts, answers and keys is never in it."""

    request_id: str
    route: str = "unknown"
    """Path pattern, one of a fixed set."""
    release: str = ""
    """Release name, or `provider/*` for a model called directly; empty before routing."""
    alias: str = ""
    digest: str = ""
    key_id: str = ""
    status: int = 0
    """HTTP status as sent; 499 when the client left before an answer."""
    error: str = ""
    """Error code; empty when all went well. Streams can fail after status 200."""
    duration_s: float = 0.0
    first_byte_s: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    rows: int = 0
    """Predictions made."""
    predict_s: float = 0.0
    """Time inside the model, for predictions."""
    findings: list[tuple[str, str]] = msgspec.field(default_factory=list)
    """(rule, action) of each guardrail that fired."""


class Tokens(msgspec.Struct):
    """The `usage` object of an answer."""

    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Answer(msgspec.Struct):
    usage: Tokens | None = None


_ANSWER = msgspec.json.Decoder(_Answer)


def tokens_of(body: bytes) -> Tokens | None:
    """The usage in an answer or stream event; None where there is none that can be read."""
    try:
        return _ANSWER.decode(body).usage
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None


def estimate_tokens(text: str) -> int:
    """
    About how many tokens *text* has: one for each four bytes of UTF-8, at least one.

    Used where a local model counts none; English text is usually within a third of it.

    >>> estimate_tokens("When was it built?")
    5
    """
    return max(1, -(-len(text.encode()) // 4))
