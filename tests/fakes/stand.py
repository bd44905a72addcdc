"""A relay in front of a fake upstream, and ways to speak to it."""

from __future__ import annotations

import http.client
import json
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any
from urllib.parse import urlsplit

import openai

from gateway.dataplane.breaker import Breaker
from gateway.dataplane.table import Route
from gateway.dataplane.usage import UsageRecord
from tests.fakes.parts import CLIENT_KEY
from tests.fakes.upstream import Upstream

USER: Any = [{"role": "user", "content": "What is it?"}]


@dataclass
class Stand:
    """A relay with the release `support` before a fake upstream."""

    url: str
    up: Upstream
    records: list[UsageRecord] = field(default_factory=list)
    routes: list[Route] = field(default_factory=list)

    def heal(self) -> None:
        """Forget every failure of an upstream."""
        for route in self.routes:
            for upstream in route.balance.upstreams() if route.balance else ():
                upstream.breaker = Breaker()

    @cached_property
    def client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=self.url + "/v1", api_key=CLIENT_KEY, max_retries=0, timeout=10)

    def record(self) -> UsageRecord:
        """What was noted of the first request; waits for its end."""
        until(lambda: self.records)
        return self.records[0]

    def post(
        self, path: str, body: bytes, headers: dict[str, str] | None = None, method: str = "POST"
    ) -> tuple[int, dict[str, str], Any]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        sent = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json"} | (headers or {})
        connection.request(method, path, body, sent)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, dict(response.getheaders()), json.loads(data) if data else None

    def stream(self) -> bytes:
        """The body of a streamed chat completion, as it came."""
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
        body = json.dumps({"model": "support", "messages": USER, "stream": True})
        connection.request("POST", "/v1/chat/completions", body, {"authorization": f"Bearer {CLIENT_KEY}"})
        response = connection.getresponse()
        assert response.getheader("content-type", "").startswith("text/event-stream")
        data = response.read()
        connection.close()
        return data

    def connect(self) -> socket.socket:
        """A bare connection to the relay."""
        parts = urlsplit(self.url)
        return socket.create_connection((parts.hostname or "", parts.port or 0), timeout=5)


def request_bytes(body: str) -> bytes:
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
        f"authorization: Bearer {CLIENT_KEY}\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return (head + body).encode()


def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Return once *condition* holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        threading.Event().wait(0.005)
