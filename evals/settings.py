"""Settings of evals: where the gateway is and how patiently to ask it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from evals.errors import KeyMissing
from registry.errors import BadSettings
from registry.settings import load

KEY_VARIABLE = "SLUICEGATE_API_KEY"
URL_VARIABLE = "SLUICEGATE_BASE_URL"


@dataclass(frozen=True, slots=True)
class EvalsSettings:
    """The `evals` section."""

    gateway: str = ""
    """Root URL of the gateway; empty means SLUICEGATE_BASE_URL, else http://127.0.0.1:8080."""
    concurrency: int = 2
    """Requests under way at once, 1 to 256; latencies are measured under this load."""
    judge_concurrency: int | None = None
    """Calls of a judge under way at once, 1 to 256; by default `concurrency`."""
    timeout_s: float = 120.0
    """Seconds one request may take, from connecting to its last byte."""
    retries: int = 4
    """How often a request is repeated after 429, 503 or a lost connection, 0 to 20."""
    ready_timeout_s: float = 60.0
    """Seconds to wait for a release that the gateway is still loading."""

    def __post_init__(self) -> None:
        """Refuse values outside the ranges above."""
        if not 1 <= self.concurrency <= 256:
            raise BadSettings(f"evals.concurrency is {self.concurrency}; it must be 1 to 256")
        if self.judge_concurrency is not None and not 1 <= self.judge_concurrency <= 256:
            raise BadSettings(f"evals.judge_concurrency is {self.judge_concurrency}; it must be 1 to 256")
        if not 0 <= self.retries <= 20:
            raise BadSettings(f"evals.retries is {self.retries}; it must be 0 to 20")
        if not 0 < self.timeout_s <= 3600 or not 0 < self.ready_timeout_s <= 3600:
            raise BadSettings("evals.timeout_s and evals.ready_timeout_s must be above 0 and at most 3600")


def evals_settings() -> EvalsSettings:
    """The settings in force. Raises BadSettings naming the key."""
    return load("evals", EvalsSettings)


def gateway_url(named: str | None, settings: EvalsSettings, environ: Mapping[str, str] | None = None) -> str:
    """
    The gateway's root URL: *named*, the settings, SLUICEGATE_BASE_URL or the local default.

    A trailing `/v1`, as OpenAI clients write it, is dropped.

    Raises:
        BadSettings: not an http or https URL, or one that holds credentials.

    >>> gateway_url("http://127.0.0.1:9000/v1/", EvalsSettings())
    'http://127.0.0.1:9000'
    """
    env = os.environ if environ is None else environ
    url = named or settings.gateway or env.get(URL_VARIABLE) or "http://127.0.0.1:8080"
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadSettings(f"gateway {url!r} is not a URL such as http://127.0.0.1:8080")
    if parts.username or parts.password or parts.query or parts.fragment:
        raise BadSettings("the gateway's URL has neither credentials nor a query; pass the key with --key")
    return url.rstrip("/").removesuffix("/v1")


def api_key(named: str | None, environ: Mapping[str, str] | None = None, *, required: bool = True) -> str:
    """
    The key for the gateway: *named*, else SLUICEGATE_API_KEY; empty where it is not *required*.

    Raises:
        KeyMissing: neither is set.
        BadSettings: it could not be sent in a header.
    """
    env = os.environ if environ is None else environ
    key = (named or env.get(KEY_VARIABLE) or "").strip()
    if not key:
        if required:
            raise KeyMissing
        return ""
    if not key.isascii() or not key.isprintable():
        raise BadSettings("the API key holds characters that no header can carry; copy it again")
    return key
