"""
A UsageRecord as a span and as metrics, named by OpenTelemetry's conventions for generative AI.

Never text of prompts, answers or keys: a UsageRecord has none. Users and sessions are pseudonyms.

Source: https://opentelemetry.io/docs/specs/semconv/gen-ai/, spans and metrics of clients and of servers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gateway.dataplane.usage import UsageRecord
from registry.clock import from_text

OPERATIONS: Mapping[str, str] = {
    "/v1/chat/completions": "chat",
    "/v1/messages": "chat",
    "/v1/responses": "chat",
    "/v1/completions": "text_completion",
    "/v1/embeddings": "embeddings",
    "/v1/rerank": "rerank",
    "/v1/vector_stores/{release}/search": "retrieval",
    "/v2/models/{name}/infer": "predict",
    "/predict": "predict",
    "/predict/batch": "predict",
    "/invocations": "predict",
}
"""Route → operation; requests of other routes leave neither span nor metric."""
DURATION_S = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_S = (
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0,
)  # fmt: skip
TOKENS = (
    1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864,
)  # fmt: skip
"""Bounds of buckets that the conventions advise."""
_LOCAL = "sluicegate"
"""The provider of what the gateway answers by itself."""


def provider_and_model(record: UsageRecord) -> tuple[str, str]:
    """
    Who answered and what it calls the model; of a request that never got so far, the release.

    >>> provider_and_model(UsageRecord("req_1", release="support", model="openai/gpt-4o-mini"))
    ('openai', 'gpt-4o-mini')
    >>> provider_and_model(UsageRecord("req_1", release="support"))
    ('sluicegate', 'support')
    """
    provider, slash, model = record.model.partition("/")
    if slash and model:
        return provider, model
    return _LOCAL, record.model or record.release


def interval_ns(record: UsageRecord) -> tuple[int, int]:
    """When it arrived and ended, in nanoseconds since 1970."""
    at = from_text(record.at)
    begin = int(at.timestamp()) * 1_000_000_000 + at.microsecond * 1000
    return begin, begin + round(record.duration_s * 1e9)


def failure(record: UsageRecord) -> str:
    """The code of what went wrong, or the status where nothing else is known; empty when all went well."""
    return record.error or (str(record.status) if record.status >= 400 else "")


def common(record: UsageRecord, host: str) -> dict[str, Any]:
    """Attributes of the span and of each metric; all of them from bounded sets, but for the model."""
    provider, model = provider_and_model(record)
    named: dict[str, Any] = {
        "gen_ai.operation.name": OPERATIONS[record.route],
        "gen_ai.provider.name": provider,
        "gen_ai.request.model": model,
        "error.type": failure(record),
    }
    if record.model:
        named["gen_ai.response.model"] = model
    if host:
        address, port = _address(host)
        named["server.address"] = address
        if port:
            named["server.port"] = port
    return {name: value for name, value in named.items() if value != ""}


def attributes(record: UsageRecord, host: str) -> dict[str, Any]:
    """
    All attributes of the span.

    Args:
        host: of the upstream that answered, with a port where it is not the usual one; empty for none.
    """
    made = common(record, host) | {
        "gen_ai.response.id": record.request_id,
        "gen_ai.request.stream": record.streaming,
        "gen_ai.usage.input_tokens": record.prompt_tokens,
        "gen_ai.usage.output_tokens": record.completion_tokens,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "sluicegate.attempts": record.attempts,
        "sluicegate.fallback": record.fallback,
        "sluicegate.replayed": record.replayed,
        "sluicegate.usage.estimated": record.estimated,
    }
    if record.cached_tokens:
        made["gen_ai.usage.cache_read.input_tokens"] = record.cached_tokens
    if record.reasoning_tokens:
        made["gen_ai.usage.reasoning.output_tokens"] = record.reasoning_tokens
    if record.streaming and record.first_byte_s:
        made["gen_ai.response.time_to_first_chunk"] = record.first_byte_s
    if record.cost_microusd is not None:
        # The second name is no convention, but what Langfuse and others read.
        made["sluicegate.cost_usd"] = made["gen_ai.usage.cost"] = record.cost_microusd / 1e6
    if record.findings:
        made["sluicegate.guardrails"] = tuple(f"{rule}:{action}" for rule, action in record.findings)
    if record.rows:
        made["sluicegate.rows"] = record.rows
    named = {
        "sluicegate.release": record.release, "sluicegate.alias": record.alias,
        "sluicegate.digest": record.digest, "sluicegate.variant": record.variant,
        "sluicegate.upstream": record.upstream, "sluicegate.key": record.key_id,
        "sluicegate.account": record.account, "sluicegate.team": record.team,
        "sluicegate.limited": record.limited, "user.id": record.user, "session.id": record.session,
    }  # fmt: skip
    return made | {name: value for name, value in named.items() if value}


def title(record: UsageRecord) -> str:
    """The name of the span."""
    return f"{OPERATIONS[record.route]} {provider_and_model(record)[1]}".strip()


def _address(host: str) -> tuple[str, int | None]:
    name, colon, port = host.rpartition(":")
    if colon and port.isdigit() and (name.endswith("]") or ":" not in name):
        return name.strip("[]"), int(port)
    return host.strip("[]"), None
