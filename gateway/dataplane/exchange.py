"""One request and its answer on the wire."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from gateway.dataplane.table import Grant, Headers, RouteTable, Target
from gateway.dataplane.usage import UsageRecord
from gateway.errors import BodyTimeout, BodyTooLarge

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

_JSON = (b"content-type", b"application/json")


class ClientGone(Exception):
    """The client left before its request or its answer was whole."""


class Exchange:
    """Reads the request, writes the answer, and notes what happened. Used by one task."""

    __slots__ = (
        "_receive", "_request_headers", "_send", "extra", "finished", "gone", "grant", "method", "path",
        "record", "scope", "started", "started_s", "streaming", "table", "target",
    )  # fmt: skip

    def __init__(
        self, scope: Scope, receive: Receive, send: Send, request_id: str, table: RouteTable
    ) -> None:
        """Wrap one ASGI call; *table* is the only table this request will see."""
        self.scope = scope
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.table = table
        self.grant = Grant("", ())
        self.target: Target | None = None
        self.record = UsageRecord(request_id)
        self.extra: list[tuple[bytes, bytes]] = []
        self.started = False
        """Whether the head of the answer was sent."""
        self.streaming = False
        """Whether the answer is a stream of events."""
        self.finished = False
        self.gone = False
        """Whether the client left."""
        self.started_s = time.perf_counter()
        self._request_headers: dict[bytes, bytes] = dict(scope["headers"])
        self._receive = receive
        self._send = send

    def header(self, name: bytes) -> bytes | None:
        """The request header *name* (lower case), or None."""
        return self._request_headers.get(name)

    def query(self, name: str) -> str | None:
        """The first value of a query parameter, or None."""
        values = parse_qs(self.scope.get("query_string", b"").decode("latin-1")).get(name)
        return values[0] if values else None

    def route_to(self, target: Target) -> None:
        """From here on the answer names *target*, and its parts stay open until `leave`."""
        self.leave()
        self.target = target
        target.route.in_flight.count += 1
        self.record.release = target.route.name
        self.record.alias = target.alias
        self.record.digest = target.route.digest

    def leave(self) -> None:
        """Let go of the target's parts. Idempotent."""
        if self.target is not None:
            self.target.route.in_flight.count -= 1
            self.target = None

    async def body(self, limit: int, timeout_s: float) -> bytes:
        """
        The whole request body.

        Raises:
            BodyTooLarge: it has more than *limit* bytes; as soon as that is known.
            BodyTimeout: it did not arrive within *timeout_s*.
            ClientGone: the client left first.
        """
        length = self.header(b"content-length")
        if length is not None and length.isdigit() and int(length) > limit:
            raise _too_large(limit)
        try:
            async with asyncio.timeout(timeout_s):
                message = await self._receive()
                body = _part(message)
                _check_length(body, limit)
                if not message.get("more_body", False):
                    return body
                parts = bytearray(body)
                while message.get("more_body", False):
                    message = await self._receive()
                    parts += _part(message)
                    _check_length(parts, limit)
                return bytes(parts)
        except TimeoutError as error:
            message_text = f"the request body did not arrive within {timeout_s:g} s"
            raise BodyTimeout(message_text) from error

    async def watch(self, task: asyncio.Task[None]) -> None:
        """Wait until the client leaves, then cancel *task*. Begins after the body was read."""
        while (await self._receive())["type"] != "http.disconnect":
            pass
        if not self.finished:
            self.gone = True
            task.cancel()

    async def respond(
        self, status: int, body: bytes, headers: Iterable[tuple[bytes, bytes]] = (_JSON,)
    ) -> None:
        """Send a whole answer."""
        await self.start(status, (*headers, (b"content-length", str(len(body)).encode())))
        self.finished = True
        await self._send({"type": "http.response.body", "body": body, "more_body": False})

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer; every answer names its request, release and digest."""
        self.started = True
        self.record.status = status
        self.record.first_byte_s = time.perf_counter() - self.started_s
        own = self.target.headers if self.target is not None else ()
        request_id = (b"x-request-id", self.record.request_id.encode())
        await self._send(
            {
                "type": "http.response.start",
                "status": status,
                "headers": [*headers, request_id, *own, *self.extra],
            }
        )

    async def chunk(self, data: bytes) -> None:
        """Send a piece of the body; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""
        self.finished = True
        await self._send({"type": "http.response.body", "body": data, "more_body": False})


def _part(message: MutableMapping[str, Any]) -> bytes:
    if message["type"] == "http.disconnect":
        raise ClientGone
    part: bytes = message.get("body", b"")
    return part


def _check_length(body: bytes | bytearray, limit: int) -> None:
    if len(body) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than {limit} bytes, which is what this gateway accepts")
