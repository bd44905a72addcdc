"""What is known of one finished request; metrics are a view of it."""

from __future__ import annotations

import msgspec

_MOST_TOKENS = 10**9
"""More than any model reads or writes in one request."""


class UsageRecord(msgspec.Struct):
    """
    One request, noted once when it ends; metrics, logs and bills are views of it.

    Text of prompts, answers and keys is never in it, and neither is a user's or session's name: both
    are there as digests.
    """

    request_id: str
    at: str = ""
    """When it arrived, as `registry.clock.to_text` writes it."""
    route: str = "unknown"
    """Path pattern, one of a fixed set."""
    release: str = ""
    """Release name, or `provider/*` for a model called directly; empty before routing."""
    alias: str = ""
    digest: str = ""
    arm: str = ""
    """Which of the releases that share the alias's traffic answered; empty where none do."""
    variant: str = ""
    """Which of the release's prompts was used; empty where it has one only."""
    model: str = ""
    """`provider/model` that answered."""
    upstream: str = ""
    """Which of a provider's places answered, as settings name it."""
    key_id: str = ""
    account: str = ""
    team: str = ""
    user: str = ""
    session: str = ""
    status: int = 0
    """HTTP status as sent; 499 when the client left before an answer."""
    error: str = ""
    """Error code; empty when all went well. Streams can fail after status 200."""
    streaming: bool = False
    attempts: int = 0
    """Upstream calls made; more than one means retries or fallbacks."""
    fallback: bool = False
    """Whether something other than the release's first model, or a default answer, was given."""
    replayed: bool = False
    """Whether an equal request's answer was given again."""
    duration_s: float = 0.0
    first_byte_s: float = 0.0
    """From the request's head to the first byte of the answer's body; 0 when there was none."""
    admit_s: float = 0.0
    """Phases: key, limits and admission; then `guard_s`, `upstream_s`."""
    guard_s: float = 0.0
    """Input guardrails, prompt and retrieval."""
    upstream_s: float = 0.0
    """From the first upstream call to the head of the answer that was used."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    """Part of the prompt tokens that the provider read from its cache."""
    reasoning_tokens: int = 0
    """Part of the completion tokens."""
    estimated: bool = False
    """Whether the token counts are this gateway's estimate, as the upstream gave none."""
    cost_microusd: int | None = None
    """Millionths of a US dollar; None when no price is known."""
    rows: int = 0
    """Predictions made."""
    predict_s: float = 0.0
    """Time inside the model, for predictions."""
    limited: str = ""
    """The limit that refused it, such as `key.rpm`."""
    feedback: tuple[str, str] | None = None
    """Name and sign of what was said of another request's answer."""
    trace: str = ""
    """The caller's `traceparent`, where it sent a valid one."""
    findings: list[tuple[str, str]] = msgspec.field(default_factory=list)
    """(rule, action) of each guardrail that fired."""


class _PromptDetails(msgspec.Struct):
    cached_tokens: int | None = None


class _CompletionDetails(msgspec.Struct):
    reasoning_tokens: int | None = None


class Tokens(msgspec.Struct):
    """The `usage` object of an answer or of a stream's last event."""

    prompt_tokens: int = 0
    completion_tokens: int = 0
    total_tokens: int = 0
    prompt_tokens_details: _PromptDetails | None = None
    completion_tokens_details: _CompletionDetails | None = None


def note(record: UsageRecord, tokens: Tokens) -> None:
    """
    Write the upstream's own count into *record*; a count that cannot be is brought to one that can.

    What a total has more than its parts was thought and is billed as written: Gemini counts it there only.
    """
    record.prompt_tokens = _counted(tokens.prompt_tokens, _MOST_TOKENS)
    record.completion_tokens = _counted(tokens.completion_tokens, _MOST_TOKENS)
    thought = _counted(tokens.total_tokens, _MOST_TOKENS) - record.prompt_tokens - record.completion_tokens
    if thought > 0:
        record.completion_tokens += thought
        record.reasoning_tokens = thought
    if tokens.prompt_tokens_details is not None:
        record.cached_tokens = _counted(tokens.prompt_tokens_details.cached_tokens or 0, record.prompt_tokens)
    if tokens.completion_tokens_details is not None:
        reasoning = tokens.completion_tokens_details.reasoning_tokens or record.reasoning_tokens
        record.reasoning_tokens = _counted(reasoning, record.completion_tokens)


def _counted(tokens: int, most: int) -> int:
    return min(max(0, tokens), most)


def estimate_tokens(text: str) -> int:
    """
    About how many tokens *text* has: one for each four bytes of UTF-8, at least one.

    Used where a local model counts none; English text is usually within a third of it.

    >>> estimate_tokens("When was it built?")
    5
    """
    return max(1, -(-len(text.encode()) // 4))
