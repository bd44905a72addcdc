"""The `gateway` section of the settings."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from registry import secrets
from registry.errors import BadInput

_SERVER_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")


def default_threads() -> int:
    """All processors but one, at least one: threads that share every core spin against each other."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


def _check_key(reference: str | None, *others: object) -> None:
    if reference is None:
        return
    if any(other is not None for other in others):
        message = "api_key: leave out api_key_env and api_key_file where a reference is given"
        raise BadInput(message)
    try:
        secrets.check(reference)
    except BadInput as error:
        message = f"api_key: {error.message}"
        raise BadInput(message) from error


@dataclass(frozen=True, slots=True)
class ReplicaSettings:
    """One more place that serves the same models as its provider's `base_url`."""

    base_url: str
    """Root of its API."""
    weight: float = 1.0
    """Its share of new requests, against 1 for `base_url`; 0 is used only when the others cannot be."""
    api_key_env: str | None = None
    """Name of the environment variable that holds its key; by default the provider's key."""
    api_key: str | None = None
    """Reference to its key, such as `vault:secret/data/vllm#key`; never the key itself."""

    def __post_init__(self) -> None:
        """Refuse weights that mean nothing, and keys that stand here."""
        _check_key(self.api_key, self.api_key_env)
        if not 0 <= self.weight <= 1000:
            message = f"weight {self.weight:g} is not 0 to 1000"
            raise BadInput(message)


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Where one provider is found; values given here win over its usual environment variables."""

    base_url: str | None = None
    """Root of its API, such as `http://10.0.0.7:8000/v1`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds its key."""
    api_key_file: Path | None = None
    """File that holds its key and nothing else; wins over *api_key_env*."""
    api_key: str | None = None
    """Reference to its key, such as `vault:secret/data/openai#key`; never the key itself."""
    keeps_nothing: bool = False
    """Whether its contract says that it keeps nothing of requests: `data_collection: deny` asks for that."""
    replicas: tuple[ReplicaSettings, ...] = ()
    """Further places with the same models; requests are spread over all."""
    affinity: Literal["none", "prefix"] = "none"
    """`prefix`: prompts that begin alike go to the same place, whose cache has read that beginning."""
    proxy: str | None = None
    """Forward proxy, such as `http://proxy:3128`; needs *http_client* aiohttp."""
    http_client: Literal["native", "aiohttp"] = "native"
    """This gateway's own HTTP/1.1 client, or aiohttp's."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's, PEM."""
    client_certificate: Path | None = None
    """Certificate and private key that this gateway shows (mutual TLS), PEM."""

    def __post_init__(self) -> None:
        """Refuse a key that stands here, or in two places."""
        _check_key(self.api_key, self.api_key_env, self.api_key_file)


@dataclass(frozen=True, slots=True)
class OtlpSettings:
    """Where spans and metrics of requests go by OTLP over HTTP; see docs/how-to/telemetry.md."""

    endpoint: str = ""
    """Root that `/v1/traces` and `/v1/metrics` come behind; empty: OTEL_EXPORTER_OTLP_ENDPOINT, or none."""
    headers_env: str | None = None
    """Environment variable that holds headers to send, `name=value,name=value`, values percent-encoded."""
    headers_file: Path | None = None
    """File that holds one `name: value` a line; wins over *headers_env*."""
    traces: bool = True
    """Whether a span is sent for each request to a model."""
    metrics: bool = True
    """Whether metrics are sent; Prometheus has its own in any case."""
    sample_ratio: float = 1.0
    """The share of traces that begin here to send, 0 to 1; for others their caller has decided."""
    timeout_s: float = 10.0
    """For one export, repeated tries included."""
    interval_s: float = 5.0
    """How long a span may wait for others to be sent with it."""
    metrics_interval_s: float = 60.0
    """Between two exports of metrics."""
    max_waiting: int = 10_000
    """Requests whose spans wait; those of more are dropped and counted."""

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.endpoint and not self.endpoint.startswith(("http://", "https://")):
            message = f"endpoint {self.endpoint!r} does not begin with http:// or https://"
            raise BadInput(message)
        if not 0 <= self.sample_ratio <= 1:
            message = f"sample_ratio {self.sample_ratio:g} is not 0 to 1"
            raise BadInput(message)
        for name in ("timeout_s", "interval_s", "metrics_interval_s", "max_waiting"):
            if getattr(self, name) <= 0:
                message = f"{name} must be above 0, got {getattr(self, name)}"
                raise BadInput(message)


@dataclass(frozen=True, slots=True)
class McpServerSettings:
    """A server of the Model Context Protocol whose tools are offered at `/mcp`; see docs/how-to/mcp.md."""

    url: str
    """Where it speaks Streamable HTTP, such as `https://tools.example.com/mcp`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds its key, sent as `Authorization: Bearer`."""
    api_key_file: Path | None = None
    """File that holds its key and nothing else; wins over *api_key_env*."""
    api_key: str | None = None
    """Reference to its key, such as `vault:secret/data/tools#key`; never the key itself."""
    tools: tuple[str, ...] = ("*",)
    """Patterns of the tools that are offered; all others are not there."""
    guardrails: str = ""
    """Guardrail policy of the registry, such as `strict:3`, that screens arguments and results."""
    connect_timeout_s: float = 5.0
    """To reach it, waiting for a pooled connection included."""
    timeout_s: float = 60.0
    """For the answer to one request, from its first byte to its last."""
    max_response_bytes: int = 4_000_000
    """Larger answers are cut off with an error."""
    list_s: float = 60.0
    """How long its list of tools is believed."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's, PEM."""
    client_certificate: Path | None = None
    """Certificate and private key that this gateway shows (mutual TLS), PEM."""

    def __post_init__(self) -> None:
        """Refuse what could not be called, and a key that stands here."""
        _check_key(self.api_key, self.api_key_env, self.api_key_file)
        if not self.url.startswith(("http://", "https://")):
            message = f"url {self.url!r} does not begin with http:// or https://"
            raise BadInput(message)
        for name in ("connect_timeout_s", "timeout_s", "max_response_bytes", "list_s"):
            if getattr(self, name) <= 0:
                message = f"{name} must be above 0, got {getattr(self, name)}"
                raise BadInput(message)


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """The `gateway` section. Nothing here is needed to begin."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 for every interface."""
    port: int = 8080
    """TCP port, 0 to 65535; 0 takes a free one and says which."""
    refresh_interval_s: float = 0.2
    """How often the registry is asked whether anything moved."""
    max_body_bytes: int = 10_000_000
    """Larger request bodies are refused with 413."""
    max_batch_rows: int = 1000
    """Larger prediction batches and embedding lists are refused."""
    body_timeout_s: float = 30.0
    """How long a client may take to send its request body."""
    connect_timeout_s: float = 5.0
    """To reach an upstream, waiting for a pooled connection included."""
    first_byte_timeout_s: float = 120.0
    """From a request sent upstream to the head of its answer."""
    idle_timeout_s: float = 60.0
    """Between two pieces of an upstream's answer."""
    total_timeout_s: float = 600.0
    """From a request sent upstream to the end of its answer."""
    max_response_bytes: int = 64_000_000
    """Larger upstream answers are cut off with an error."""
    shutdown_grace_s: float = 10.0
    """How long running requests may go on after SIGTERM or SIGINT."""
    unused_grace_s: float = 60.0
    """How long a model, index or provider stays loaded after the last release left it."""
    default_predict: str = ""
    """Model of `/predict` where the request names none; empty: the only one in production."""
    threads: int = field(default_factory=default_threads)
    """Threads of each local model and of retrieval."""
    max_waiting: int = 256
    """Requests that may wait for a worker thread; more are answered 503."""
    upstreams: Mapping[str, UpstreamSettings] = field(default_factory=dict)
    """Provider name → where it is."""
    mcp: Mapping[str, McpServerSettings] = field(default_factory=dict)
    """Name → server of the Model Context Protocol whose tools are offered as `NAME__TOOL` at `/mcp`."""
    workers: int = 1
    """Processes that serve the port."""
    keep_alive_s: float = 65.0
    """How long an idle client connection stays open."""
    head_timeout_s: float = 10.0
    """How long a client may take to send the head of a request."""
    max_head_bytes: int = 65_536
    """Larger request heads are refused with 431."""
    max_in_flight: int = 4096
    """Requests at the same time in each process; more are answered 503."""
    max_lag_ms: float = 3.0
    """How long one turn of the event loop may take when many requests arrive; beyond it fewer are let in,
    and the others answered 503 at once."""
    limits_store: str = ""
    """Redis or Valkey that counts limits for all gateways, such as `redis://10.0.0.5:6379/0`; empty: in
    this process alone."""
    limits_store_down: Literal["open", "closed"] = "closed"
    """While that store cannot be reached: serve without limits, or answer 503 where limits apply."""
    unknown_price: Literal["warn", "refuse"] = "warn"
    """What to do with a model that has no price; where a money budget applies it is always refused."""
    default_max_tokens: int = 1024
    """Completion tokens to reserve where a request names no maximum."""
    max_retries: int = 2
    """Further upstream calls after one that failed before its answer began."""
    retry_ratio: float = 0.2
    """Retries may be at most this share of an upstream's recent requests, and always ten in ten seconds."""
    breaker_failures: int = 5
    """Failures in a row after which an upstream or model is left alone."""
    breaker_open_s: float = 60.0
    """For how long, before one request tries it again."""
    default_prediction: bool = False
    """Whether `/predict` answers `default_value`, flagged `fallback`, while its model is left alone."""
    fallbacks: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """`provider/model` called directly → models to ask instead when it cannot answer, in order."""
    idempotency_s: float = 86_400.0
    """How long an answer is kept for its Idempotency-Key; 0 keeps none."""
    cache_s: Mapping[str, float] = field(default_factory=dict)
    """Release or `provider/model`, or `*` → seconds for which equal requests of an account get one answer."""
    responses_s: float = 3600.0
    """How long a response is kept in this process's memory for `previous_response_id`; 0 keeps none."""
    log_requests: bool = False
    """Whether each request is one line of JSON on stderr; never with text of prompts or answers."""
    otlp: OtlpSettings = field(default_factory=OtlpSettings)
    """Where spans and metrics of requests go by OpenTelemetry's protocol."""
    registry_api: bool = True
    """Whether the registry is offered under `/api/v1`, to its users; API keys read served prompts there."""
    usage_days: int = 400
    """How long single usage records, and feedback, are kept in the registry; sums stay."""

    def __post_init__(self) -> None:
        """Refuse values that could not be served with."""
        if not 0 <= self.port <= 65535:
            message = f"port {self.port} is not 0 to 65535"
            raise BadInput(message)
        for name in (
            "refresh_interval_s", "max_body_bytes", "max_batch_rows", "body_timeout_s", "connect_timeout_s",
            "first_byte_timeout_s", "idle_timeout_s", "total_timeout_s", "max_response_bytes", "threads",
            "max_waiting", "workers", "keep_alive_s", "head_timeout_s", "max_head_bytes", "max_in_flight",
            "max_lag_ms", "default_max_tokens", "breaker_failures", "breaker_open_s", "usage_days",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                message = f"{name} must be above 0, got {getattr(self, name)}"
                raise BadInput(message)
        for name in self.mcp:
            if not _SERVER_NAME.fullmatch(name):
                message = f"mcp.{name}: a server's name is 1 to 32 of a-z, 0-9 and -, such as files"
                raise BadInput(message)
        for name, seconds in self.cache_s.items():
            if seconds < 0:
                message = f"cache_s.{name} must not be negative, got {seconds}"
                raise BadInput(message)
        for name in (
            "shutdown_grace_s",
            "unused_grace_s",
            "max_retries",
            "retry_ratio",
            "idempotency_s",
            "responses_s",
        ):
            if getattr(self, name) < 0:
                message = f"{name} must not be negative, got {getattr(self, name)}"
                raise BadInput(message)
