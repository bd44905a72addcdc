"""
The one place that speaks HTTP: patient, bounded, and strict about which release answered.

What would be the same for every sample (a refused key, an unknown release, no gateway) is raised
and ends the run. What happened to one request is returned as a Failure, and counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, cast

import aiohttp

from evals.errors import GatewayUnreachable, KeyRefused, ReleaseMoved, ReleaseNotServed
from evals.pace import Pace
from evals.systems.base import Call
from registry.errors import PlatformError
from registry.ids import short

MAX_ANSWER_BYTES = 16_000_000
DIGEST_HEADER = "x-sluicegate-digest"
_CODE = re.compile(r"[a-z][a-z0-9_]{0,63}")
_SETTLE_S = 5.0
"""How long a gateway may take to follow the registry before its answer counts as another release's."""
_RETRY_AFTER_S = 10.0


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait and how often to try again."""

    timeout_s: float = 120.0
    retries: int = 4
    ready_timeout_s: float = 60.0
    first_pause_s: float = 0.25
    """Before the first repetition; doubles each time, with up to as much again at random."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A decoded answer of the release asked for."""

    body: Any
    latency_ms: float
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that found no usable answer; *kind* is a stable code such as `timeout`."""

    kind: str


class Client:
    """A session with one gateway. Use as an async context manager, within one event loop."""

    def __init__(self, url: str, key: str, *, concurrency: int, patience: Patience) -> None:
        """Talk to the gateway at *url* with *key*; nothing is sent yet."""
        self.url = url
        self.patience = patience
        self.pace = Pace(concurrency)
        self.retried = 0
        """Requests repeated so far."""
        self._key = key
        self._concurrency = concurrency
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency),
            timeout=aiohttp.ClientTimeout(total=self.patience.timeout_s, sock_connect=5),
            headers={
                "authorization": f"Bearer {self._key}",
                "user-agent": "sluicegate-evals",
                "cache-control": "no-cache",
            },
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def ask(self, call: Call, digest: str, *, first: bool = False) -> Reply | Failure:
        """
        The answer to *call* by the release *digest*.

        Args:
            first: wait `ready_timeout_s` for a release that is still loading.

        Raises:
            GatewayUnreachable: no connection could be made, after every retry.
            KeyRefused: status 401 or 403.
            ReleaseNotServed: status 404.
            ReleaseMoved: another release answered for longer than a gateway takes to follow.
        """
        started = time.monotonic()
        attempt = 0
        while True:
            async with self.pace.slot() as ticket:
                result, wait_s = await self._try(call, digest, ticket)
            if wait_s is None:
                return cast("Reply | Failure", result)
            attempt += 1
            waited = time.monotonic() - started
            if isinstance(result, ReleaseMoved | ReleaseNotServed):
                over = not first or waited > _SETTLE_S
            elif first and result == Failure("release_not_ready"):
                over = waited > self.patience.ready_timeout_s
            else:
                over = attempt > self.patience.retries
            if over and isinstance(result, PlatformError):
                raise result
            if over:
                return cast("Failure", result)
            self.retried += 1
            pause = min(self.patience.first_pause_s * 2 ** min(attempt - 1, 6), _RETRY_AFTER_S)
            await asyncio.sleep(max(wait_s or 0.0, pause) + random.uniform(0, pause))

    async def _try(
        self, call: Call, digest: str, ticket: int
    ) -> tuple[Reply | Failure | GatewayUnreachable | ReleaseMoved | ReleaseNotServed, float | None]:
        """One attempt; the seconds to wait at least before another, or None when it is final."""
        assert self._session is not None  # noqa: S101 - asked inside the context manager
        begun = time.perf_counter()
        try:
            async with self._session.post(
                self.url + call.path, json=call.body, allow_redirects=False
            ) as response:
                data = await read_bounded(response)
                latency_ms = (time.perf_counter() - begun) * 1000
        except aiohttp.ClientConnectorError as error:
            return GatewayUnreachable(
                f"no gateway answers at {self.url} ({error.os_error.strerror or 'no connection'}); "
                "start it with `gateway serve` or name it with --gateway"
            ), 0.0
        except TimeoutError:
            return Failure("timeout"), None
        except (aiohttp.ClientError, ConnectionError):
            return Failure("connection"), 0.0
        if data is None:
            return Failure("answer_too_large"), None
        if response.status == 429:
            self.pace.slow(ticket)
        if response.status == 200:
            self.pace.good()
            return self._answer(data, response.headers, digest, latency_ms)
        return self._refusal(response.status, data, response.headers)

    def _answer(
        self, data: bytes, headers: Mapping[str, str], digest: str, latency_ms: float
    ) -> tuple[Reply | Failure | ReleaseMoved, float | None]:
        served = headers.get(DIGEST_HEADER)
        if served != digest:
            said = f"release {short(served)}" if served else "no release"
            return ReleaseMoved(
                f"the gateway at {self.url} answered from {said}, not from {short(digest)}: the alias moved "
                "meanwhile, or the gateway serves another registry; run again"
            ), 0.0
        try:
            return Reply(json.loads(data), latency_ms, headers), None
        except (ValueError, RecursionError):
            return Failure("bad_answer"), None

    def _refusal(
        self, status: int, data: bytes, headers: Mapping[str, str]
    ) -> tuple[Failure | ReleaseNotServed, float | None]:
        code, message = error_of(data, headers.get("x-sluicegate-error"))
        kind = code or f"http_{status}"
        if status in (401, 403):
            raise KeyRefused(
                f"the gateway at {self.url} refused the API key ({kind}); make one that may call this "
                "release with `gateway keys create` and set SLUICEGATE_API_KEY"
            )
        if status == 404:
            return ReleaseNotServed(f"the gateway at {self.url} does not serve it ({kind}): {message}"), 0.0
        if status in (429, 503):
            return Failure(kind), retry_after(headers.get("retry-after"))
        return Failure(kind), None


async def read_bounded(response: aiohttp.ClientResponse) -> bytes | None:
    """The whole body, or None when it is longer than an answer may be."""
    told = response.content_length
    if told is not None and "content-encoding" not in response.headers:
        return await response.read() if told <= MAX_ANSWER_BYTES else None
    parts: list[bytes] = []
    size = 0
    async for part in response.content.iter_chunked(65536):
        size += len(part)
        if size > MAX_ANSWER_BYTES:
            return None
        parts.append(part)
    return b"".join(parts)


def error_of(data: bytes, told: str | None = None) -> tuple[str | None, str]:
    """The code and message of an error body: OpenAI's, or a text beside the code *told* in a header."""
    try:
        error = json.loads(data)["error"]
        if isinstance(error, str):
            error = {"code": told, "message": error}
        code, message = error.get("code"), error.get("message")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError):
        return None, "no reason given"
    known = code if isinstance(code, str) and _CODE.fullmatch(code) else None
    return known, str(message or "no reason given")[:300]


def retry_after(text: str | None) -> float:
    """Seconds asked for, at most 10; a date or nothing is 0."""
    return min(float(text), _RETRY_AFTER_S) if text and text.isascii() and text.isdecimal() else 0.0
