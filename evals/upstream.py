"""POST JSON to an OpenAI-compatible server: paced, bounded in time, size and repetitions."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import aiohttp
import msgspec

from evals.client import Patience, Reply, error_of, read_bounded, retry_after
from evals.pace import Pace

_LONGEST_PAUSE_S = 10.0
_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504))


@dataclass(frozen=True, slots=True)
class Refused:
    """No usable answer, after every repetition; *kind* is a stable code such as `rate_limited`."""

    kind: str
    status: int = 0
    """The last HTTP status; 0 where no answer came."""


class Upstream:
    """A session with one server. Use as an async context manager, within one event loop."""

    def __init__(
        self,
        url: str,
        key: str,
        *,
        concurrency: int,
        patience: Patience,
        observe: Callable[[str], None] | None = None,
    ) -> None:
        """
        Talk to the server at *url* (which ends in `/v1` where its paths do); nothing is sent yet.

        Args:
            observe: told the kind of each attempt that failed.
        """
        self.url = url.rstrip("/")
        self.pace = Pace(concurrency)
        self.patience = patience
        self.calls = 0
        """Attempts made so far."""
        self.retried = 0
        self._key = key
        self._observe = observe
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        """Open the session."""
        headers = {
            "user-agent": "sluicegate-evals",
            "content-type": "application/json",
            "cache-control": "no-cache",
        }
        if self._key:
            headers["authorization"] = f"Bearer {self._key}"
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self.pace.most),
            timeout=aiohttp.ClientTimeout(total=self.patience.timeout_s, sock_connect=5),
            headers=headers,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close every connection."""
        if self._session is not None:
            await self._session.close()

    async def post(self, path: str, body: Mapping[str, Any] | bytes) -> Reply | Refused:
        """
        The decoded answer with status 200, or why there is none; *body* is JSON, or its bytes.

        Repeats after 408, 409, 425, 429, 5xx and lost connections, with growing pauses or as told by
        `retry-after`; a timeout is final.
        """
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        attempt = 0
        while True:
            found, wait_s = await self._try(path, data)
            if isinstance(found, Reply):
                return found
            if self._observe:
                self._observe(found.kind)
            attempt += 1
            if wait_s is None or attempt > self.patience.retries:
                return found
            self.retried += 1
            pause = min(self.patience.first_pause_s * 2 ** min(attempt - 1, 6), _LONGEST_PAUSE_S)
            await asyncio.sleep(max(wait_s, pause) + random.uniform(0, pause))

    async def _try(self, path: str, data: bytes) -> tuple[Reply | Refused, float | None]:
        assert self._session is not None  # noqa: S101 - asked inside the context manager
        async with self.pace.slot() as ticket:
            self.calls += 1
            begun = time.perf_counter()
            try:
                async with self._session.post(
                    self.url + path,
                    data=data,
                    allow_redirects=False,
                ) as response:
                    body = await read_bounded(response)
            except TimeoutError:
                return Refused("timeout"), None
            except (aiohttp.ClientError, ConnectionError, OSError):
                return Refused("connection"), 0.0
            latency_ms = (time.perf_counter() - begun) * 1000
            status = response.status
            if status == 429:
                self.pace.slow(ticket)
            elif status == 200:
                self.pace.good()
        if body is None:
            return Refused("answer_too_large", status), None
        if status != 200:
            return _refusal(status, body, response.headers)
        try:
            return Reply(msgspec.json.decode(body), latency_ms, response.headers), None
        except (msgspec.DecodeError, RecursionError):
            return Refused("bad_answer", status), None


def _refusal(status: int, body: bytes, headers: Mapping[str, str]) -> tuple[Refused, float | None]:
    code, _ = error_of(body)
    kind = "rate_limited" if status == 429 else f"http_{status}"
    if status == 400 and code in ("content_filter", "content_policy_violation"):
        return Refused("refused", status), None
    return Refused(kind, status), retry_after(headers.get("retry-after")) if status in _AGAIN else None
