"""One request and its answer, as the data plane's handlers see them."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from datetime import datetime
from typing import Protocol
from urllib.parse import parse_qs

from gateway.dataplane.limits import Hold
from gateway.dataplane.table import Grant, Headers, RouteTable, Target
from gateway.dataplane.usage import UsageRecord
from gateway.errors import UpstreamBroken
from gateway.transport.inbound import ClientGone, Inbound
from registry.entities import Price

__all__ = ["ClientGone", "Dialect", "Exchange"]

_JSON = (b"content-type", b"application/json")


class Dialect(Protocol):
    """
    Answers of a chat completion in another API's shape. One for each request.

    Everything before it, guards and limits too, sees chat completions alone.
    """

    def whole(self, status: int, body: bytes) -> bytes:
        """The body of a whole answer, or of an error where *status* is 400 or more."""
        ...

    def events(self, data: bytes) -> bytes:
        """The events for whole events of a chat stream, `[DONE]` and an error among them; may be empty."""
        ...

    def end(self) -> bytes:
        """The events that are left to send when the stream has ended."""
        ...


class Exchange:
    """Reads the request, writes the answer, and notes what happened. Used by one task."""

    __slots__ = (
        "_close", "_closed", "account", "copy", "dialect", "extra", "finished", "grant", "header", "hold",
        "inbound", "method", "mirrored", "now", "path", "price", "priced", "record", "sent_headers",
        "started", "started_s", "streaming", "table", "target", "tenant",
    )  # fmt: skip

    def __init__(
        self, inbound: Inbound, request_id: str, table: RouteTable, now: datetime,
        close: Callable[[Exchange], None],
    ) -> None:  # fmt: skip
        """
        *table* is the only table this request will see, *now* its only time of day; *close* is called
        once, when all is known.
        """
        self.inbound = inbound
        self.header: Callable[[bytes], bytes | None] = inbound.header
        """The request header of a name (lower case), or None."""
        self.method = inbound.method
        self.path = inbound.path
        self.table = table
        self.now = now
        self.grant = Grant("", ())
        self.target: Target | None = None
        self.hold: Hold | None = None
        self.price: Price | None = None
        """What `priced`, the model it was reserved for, costs."""
        self.priced = ""
        self.tenant: str | None = None
        """Under whom it is counted as in flight; None when it is not."""
        self.record = UsageRecord(request_id)
        self.extra: list[tuple[bytes, bytes]] = []
        self.account = b""
        """Header lines that say what a whole answer took."""
        self.copy: list[bytes] | None = None
        """Pieces of the answer's body, where they are to be kept."""
        self.sent_headers: Headers = ()
        """Those of the answer that do not depend on the request alone, where *copy* is kept."""
        self.mirrored: object = None
        """What a shadow of the target is to be asked when this is answered; see `mirror`."""
        self.dialect: Dialect | None = None
        """What turns the answer into the client's dialect, where that is not chat completions."""
        self.started = False
        """Whether the head of the answer was sent."""
        self.streaming = False
        """Whether the answer is a stream of events."""
        self.finished = False
        self.started_s = time.perf_counter()
        self._close = close
        self._closed = False

    @property
    def gone(self) -> bool:
        """Whether the client left before its answer was whole."""
        return self.inbound.gone

    def query(self, name: str) -> str | None:
        """The first value of a query parameter, or None."""
        values = parse_qs(self.inbound.query.decode("latin-1")).get(name)
        return values[0] if values else None

    def elapsed_s(self) -> float:
        """Since the head of the request arrived."""
        return time.perf_counter() - self.started_s

    def route_to(self, target: Target) -> None:
        """From here on the answer names *target*, and its parts stay open until `leave`."""
        self.leave()
        self.target = target
        target.route.in_flight.count += 1
        record = self.record
        record.release = target.route.name
        record.alias = target.alias
        record.arm = target.arm
        record.digest = target.route.digest

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
        return await self.inbound.body(limit, timeout_s)

    def respond(self, status: int, body: bytes, headers: Headers = (_JSON,)) -> None:
        """Send a whole answer."""
        self.record.status = status
        self.record.first_byte_s = time.perf_counter() - self.started_s
        if self.dialect is not None:
            body = self.dialect.whole(status, body)
        self.close()
        self._start(status, headers, len(body))
        if self.copy is not None:
            self.copy.append(body)
        self.finished = True
        self.inbound.end(body)

    def start(self, status: int, headers: Headers) -> None:
        """Send the head of an answer whose length is not known."""
        self.record.status = status
        self.record.first_byte_s = time.perf_counter() - self.started_s
        self._start(status, headers, None)

    def write(self, data: bytes) -> None:
        """Send a piece of the body; see `drained`."""
        if self.dialect is not None:
            data = self.dialect.events(data)
            if not data:
                return
        if self.copy is not None:
            self.copy.append(data)
        self.inbound.write(data)

    async def drained(self) -> None:
        """Wait while the client reads too slowly. Raises ClientGone."""
        if not self.inbound.writable:
            await self.inbound.drained()

    def end(self, data: bytes = b"") -> None:
        """Send the last piece of the body."""
        if self.dialect is not None:
            data = self.dialect.events(data) + self.dialect.end()
            if getattr(self.dialect, "failed", False) and not self.record.error:
                self.record.error = UpstreamBroken.code
        self.close()
        if self.copy is not None:
            self.copy.append(data)
        self.finished = True
        self.inbound.end(data)

    def close(self) -> None:
        """All is known of this request: settle and note it, before its last byte leaves. Idempotent."""
        if not self._closed:
            self._closed = True
            self.record.duration_s = time.perf_counter() - self.started_s
            self._close(self)

    def _start(self, status: int, headers: Headers, length: int | None) -> None:
        self.started = True
        if self.copy is not None:
            own = self.target.headers if self.target is not None else ()
            self.sent_headers = (*headers, *own)
        target, hold = self.target, self.hold
        ready = b"x-request-id: %b\r\n%b%b%b" % (
            self.record.request_id.encode(),
            target.lines if target is not None else b"",
            hold.lines if hold is not None else b"",
            self.account,
        )
        self.inbound.start(status, (*headers, *self.extra) if self.extra else headers, length, ready)


def pseudonym(name: str) -> str:
    """A stable digest to count a user or session by, 16 hex digits; the name itself is kept nowhere."""
    return hashlib.sha256(name.encode()).hexdigest()[:16]
