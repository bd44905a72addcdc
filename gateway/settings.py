"""The `gateway` section of the settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from registry.errors import BadInput


def default_threads() -> int:
    """All processors but one, at least one: threads that share every core spin against each other."""
    return max(1, len(os.sched_getaffinity(0)) - 1)


@dataclass(frozen=True, slots=True)
class UpstreamSettings:
    """Where one provider is found; values given here win over its usual environment variables."""

    base_url: str | None = None
    """Root of its API, such as `http://10.0.0.7:8000/v1`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds its key."""
    api_key_file: Path | None = None
    """File that holds its key and nothing else; wins over *api_key_env*."""


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

    def __post_init__(self) -> None:
        """Refuse values that could not be served with."""
        if not 0 <= self.port <= 65535:
            message = f"port {self.port} is not 0 to 65535"
            raise BadInput(message)
        for name in (
            "refresh_interval_s", "max_body_bytes", "max_batch_rows", "body_timeout_s", "connect_timeout_s",
            "first_byte_timeout_s", "idle_timeout_s", "total_timeout_s", "max_response_bytes", "threads",
            "max_waiting",
        ):  # fmt: skip
            if getattr(self, name) <= 0:
                message = f"{name} must be above 0, got {getattr(self, name)}"
                raise BadInput(message)
        for name in ("shutdown_grace_s", "unused_grace_s"):
            if getattr(self, name) < 0:
                message = f"{name} must not be negative, got {getattr(self, name)}"
                raise BadInput(message)
