"""
The server's side of HTTP/1.1: an asyncio protocol on httptools that uvicorn runs.

Requests of the data plane go to a *lane*, a function that may answer at once or return a coroutine;
everything else goes to an ASGI application. Both share the connection, its pipelining and bounds.

Framing is strict, so that nothing in front of the gateway can read a request otherwise than it does:
both lengths, any transfer coding but `chunked`, a bare LF, folded headers, another version than 1.0
and 1.1, no or two `Host` headers are each refused with 400, and the connection is closed.

Source: RFC 9112, sections 3.2, 6.1, 6.3, 9.3 and 11.2.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Protocol

import httptools
import msgspec

from gateway.transport.bridge import ASGI, serve_asgi
from gateway.transport.inbound import Inbound, lines_of

Lane = Callable[[Inbound], Coroutine[Any, Any, None] | None]
_MAX_FIELDS = 256
_MAX_PIPELINED = 16
_LINGER_S = 1.0
_SWEEP_S = 0.25
_FOREVER = float("inf")
_FRAMING = frozenset({b"content-length", b"transfer-encoding"})
_VERSIONS = frozenset({"1.0", "1.1"})


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one connection may cost."""

    max_head_bytes: int = 65_536
    max_body_bytes: int = 10_000_000
    head_timeout_s: float = 10.0
    """For the head of a request, from its first byte, or from the connection."""
    keep_alive_s: float = 65.0
    """Between two requests."""
    write_timeout_s: float = 60.0
    """How long a client may read nothing while an answer waits for it."""
    body_timeout_s: float = 60.0
    """For the body of a request that the application answers, from its head."""


class ServerState(Protocol):
    """What uvicorn shares among connections."""

    connections: set[Any]
    tasks: set[asyncio.Task[None]]
    default_headers: list[tuple[bytes, bytes]]


@dataclass(slots=True)
class Site:
    """What all connections of one server share. Owned by one event loop."""

    lane: Lane
    """
    Serves a request of the data plane. Exceptions of its coroutine are its own to handle, and it calls
    `Inbound.done` at its end.
    """
    is_lane: Callable[[str], bool]
    """Whether a path belongs to the data plane."""
    application: ASGI
    """Serves everything else."""
    bounds: Bounds = field(default_factory=Bounds)
    connections: set[Connection] = field(default_factory=set)
    sweeper: asyncio.TimerHandle | None = None
    _seen: list[tuple[bytes, bytes]] = field(default_factory=list)
    _head: bytes = b""

    def protocol(
        self, config: object, server_state: ServerState, app_state: object, _loop: object = None
    ) -> Connection:
        """A connection, made as uvicorn makes its own protocols."""
        del config, app_state, _loop
        return Connection(self, server_state)

    def default_head(self, headers: list[tuple[bytes, bytes]]) -> bytes:
        """*headers* as lines; they change once a second, with the date."""
        if headers is not self._seen:
            self._seen = headers
            self._head = lines_of(headers)
        return self._head

    def joined(self, connection: Connection) -> None:
        """Begin to look after *connection*."""
        self.connections.add(connection)
        if self.sweeper is None:
            self._sweep_later()

    def _sweep_later(self) -> None:
        bounds = self.bounds
        pause = min(_SWEEP_S, bounds.head_timeout_s / 4, bounds.keep_alive_s / 4, bounds.write_timeout_s / 4)
        self.sweeper = asyncio.get_running_loop().call_later(pause, self._sweep)

    def _sweep(self) -> None:
        """One timer for all connections: those past their deadline are closed."""
        now = asyncio.get_running_loop().time()
        for connection in [c for c in self.connections if c.deadline <= now]:
            connection.expire()
        self.sweeper = None
        if self.connections:
            self._sweep_later()


class Connection(asyncio.Protocol):
    """One client connection."""

    def __init__(self, site: Site, state: ServerState) -> None:
        """Serve *site*; *state* is how uvicorn knows of connections and running tasks."""
        self._site = site
        self._state = state
        self._loop = asyncio.get_running_loop()
        self._parser = httptools.HttpRequestParser(self)
        self._transport: asyncio.Transport | None = None
        self._active: Inbound | None = None
        self._reading: Inbound | None = None
        self._waiting: deque[Inbound] = deque()
        self._target = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._head_bytes = 0
        self._body_bytes = 0
        """As sent, with the framing of chunks, their extensions and trailers."""
        self._refusal: tuple[int, str] | None = None
        self._discarding = False
        self._closing = False
        self._reading_paused = False
        self._held_back = False
        self.paused = False
        """Whether the client reads too slowly."""
        self.deadline = self._loop.time() + site.bounds.head_timeout_s
        """The loop's time at which the connection is given up; infinite while a request runs."""

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client connected."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's do not derive from asyncio's
        self._state.connections.add(self)
        self._site.joined(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone, or the connection was closed here."""
        del exc
        self._state.connections.discard(self)
        self._site.connections.discard(self)
        self._transport = None
        self._closing = True
        self.paused = False
        self._waiting.clear()
        reading, self._reading = self._reading, None
        active, self._active = self._active, None
        if active is not None:
            active.lost()
        if reading is not None and reading is not active:
            reading.lost()

    def data_received(self, data: bytes) -> None:
        """Bytes came: parse them, and serve what is whole."""
        if self._discarding or self._closing:
            return
        if self._reading is None:
            self._head_bytes += len(data)
        else:
            self._body_bytes += len(data)
            bounds = self._site.bounds
            if self._body_bytes > 8 * bounds.max_body_bytes + bounds.max_head_bytes:
                self._refuse(413, "the request's chunks are mostly not data")
                return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserError:
            self._refuse(400, "the request is not valid HTTP/1.1")
            return
        if self._refusal is not None:
            self._refuse(*self._refusal)
            return
        if self._reading is None and self._head_bytes > self._site.bounds.max_head_bytes:
            self._refuse(431, f"the request's head is larger than {self._site.bounds.max_head_bytes} bytes")
            return
        if self._waiting and self._active is None:
            self._next()

    def eof_received(self) -> None:
        """A client that stops sending is taken to have left, as most servers do."""

    def pause_writing(self) -> None:
        """The client reads too slowly."""
        self.paused = True
        self.deadline = self._loop.time() + self._site.bounds.write_timeout_s
        if self._active is not None:
            self._active.flow(paused=True)

    def resume_writing(self) -> None:
        """The client caught up."""
        self.paused = False
        if self._active is not None:
            self.deadline = _FOREVER
            self._active.flow(paused=False)

    # What the parser tells.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._target = b""
        self._fields = []
        if self._active is None:
            self.deadline = self._loop.time() + self._site.bounds.head_timeout_s

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field, or a trailer."""
        if self._reading is None:  # else it is a trailer, which nobody here asked for
            self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is whole: check it, and let the request wait to be served."""
        parser = self._parser
        if self._reading is not None:
            return  # a head made by `_stay`
        version = parser.get_http_version()
        target, headers = self._target, self._fields
        fields = dict(headers)
        usual = (
            len(fields) == len(headers) <= _MAX_FIELDS
            and b"host" in fields
            and b"transfer-encoding" not in fields
            and version == "1.1"
            and target[:1] == b"/"
            and target.isascii()
            and b"#" not in target
            and 0 < self._head_bytes <= self._site.bounds.max_head_bytes
        )
        self._head_bytes = self._body_bytes = 0
        if not usual or self._refusal is not None:
            self._refusal = self._refusal or _problem(
                target, headers, version, self._site.bounds.max_head_bytes
            )
            if self._refusal is not None:
                return
            target = _origin_form(target)
        method = parser.get_method()
        inbound = Inbound(
            self, "POST" if method == b"POST" else method.decode("ascii"), target, headers, fields, version,
            keep_alive=parser.should_keep_alive(),
        )  # fmt: skip
        self._reading = inbound
        self._waiting.append(inbound)
        if len(self._waiting) >= _MAX_PIPELINED:
            self._pause_reading()
        if self._active is None:
            self.deadline = _FOREVER

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        reading = self._reading
        if reading is not None and reading.feed(body) > self._site.bounds.max_body_bytes:
            self._discarding = True

    def on_message_complete(self) -> None:
        """The body is whole."""
        if self._parser.should_upgrade() and _has_body(self._fields):
            return  # its body is still to come
        reading, self._reading = self._reading, None
        if reading is not None:
            reading.finished()

    # What requests and the server tell.

    def default_head(self) -> bytes:
        """The header lines every answer has, such as the date."""
        return self._site.default_head(self._state.default_headers)

    def send(self, data: bytes) -> None:
        """Write to the client; nothing once it is gone."""
        if self._transport is not None:
            self._transport.write(data)

    def wanted(self, inbound: Inbound) -> None:
        """The body of *inbound* will be read: say so to a client that waits to be told."""
        if (inbound.header(b"expect") or b"").lower() == b"100-continue" and inbound.version == "1.1":
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")

    def answered(self, inbound: Inbound) -> None:
        """The answer of *inbound* ended: take the next request, or close."""
        if inbound is not self._active:
            return
        self._active = None
        if not inbound.keep_alive or not inbound.complete or self._closing:
            self._linger(quietly=inbound.complete)
            return
        self.deadline = self._loop.time() + self._site.bounds.keep_alive_s
        if self._waiting:
            self._loop.call_soon(self._next)
        elif self._reading_paused:
            self._resume_reading()

    def done(self, inbound: Inbound) -> None:
        """The task of *inbound* ends."""
        if inbound.task is not None:
            self._state.tasks.discard(inbound.task)

    def hold_back(self, pause_s: float) -> None:
        """Read nothing more from this client for a while: it was told to try again later."""
        self._held_back = True
        self._pause_reading()
        self._loop.call_later(pause_s, self._release)

    def _release(self) -> None:
        self._held_back = False
        self._resume_reading()

    def abort(self) -> None:
        """Cut the connection at once."""
        if self._transport is not None:
            self._transport.abort()

    def shutdown(self) -> None:
        """The server stops: close when idle, else after the running answer."""
        if self._active is None and not self._waiting:
            if self._transport is not None:
                self._transport.close()
        else:
            self._closing = self._active is None
            for inbound in (self._active, *self._waiting):
                if inbound is not None:
                    inbound.keep_alive = False

    def expire(self) -> None:
        """The deadline passed: of a head, of an idle connection, or of a client that does not read."""
        self.deadline = _FOREVER
        if self._active is not None or self._discarding:
            self.abort()
        elif self._head_bytes:
            self._refuse(408, "the head of the request took too long to arrive")
        elif self._transport is not None:
            self._transport.close()

    def _next(self) -> None:
        """Serve the request that has waited longest, if none runs."""
        while self._active is None and self._waiting and not self._closing:
            inbound = self._active = self._waiting.popleft()
            self.deadline = _FOREVER
            site = self._site
            if site.is_lane(inbound.path):
                running = site.lane(inbound)
            else:
                bounds = site.bounds
                running = serve_asgi(
                    inbound, site.application, self._transport, bounds.max_body_bytes, bounds.body_timeout_s
                )
            if running is not None:
                task = inbound.task = self._loop.create_task(running)
                self._state.tasks.add(task)
        if self._reading_paused and len(self._waiting) < _MAX_PIPELINED:
            self._resume_reading()

    def _stay(self, rest: bytes) -> None:
        """
        The client asked for another protocol, which it may: it gets its answer in this one, then the end.

        The parser leaves the body of such a request unread, so another one reads it.
        """
        reading = self._reading
        if reading is None:
            self._discarding = True
            if self._waiting:
                self._waiting[-1].keep_alive = False
            return
        reading.keep_alive = False
        framing = lines_of([field for field in reading.headers if field[0] in _FRAMING])
        self._parser = httptools.HttpRequestParser(self)
        try:
            self._parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n" + rest)
        except httptools.HttpParserError:
            self._refuse(400, "the request is not valid HTTP/1.1")

    def _refuse(self, status: int, message: str) -> None:
        """Answer what is not a request that can be served, after those that came before it, and close."""
        self._discarding = True
        self._refusal = None
        reading, self._reading = self._reading, None
        if reading is not None and self._waiting and self._waiting[-1] is reading:
            self._waiting.pop()
        before = self._waiting[-1] if self._waiting else self._active
        if before is not None:
            if reading is before:
                before.lost()
                self.abort()
            before.keep_alive = False
            if self._active is None:
                self._next()
            return
        code = {408: "request_timeout", 431: "request_too_large"}.get(status, "invalid_request")
        body = {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": code}}
        inbound = Inbound(self, "POST", b"/", [], {}, "1.1", keep_alive=False)
        inbound.complete = True
        self._active = inbound
        data = msgspec.json.encode(body)
        inbound.start(status, ((b"content-type", b"application/json"),), len(data))
        inbound.end(data)

    def _linger(self, *, quietly: bool) -> None:
        """Close. Where the client may still be sending, wait a moment first, so that it reads its answer."""
        self._closing = True
        transport = self._transport
        if transport is None:
            return
        if quietly or not transport.can_write_eof():
            transport.close()
            return
        self._discarding = True
        self._release()
        transport.write_eof()
        self.deadline = self._loop.time() + _LINGER_S

    def _pause_reading(self) -> None:
        if not self._reading_paused and self._transport is not None and not self._transport.is_closing():
            self._reading_paused = True
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if self._held_back or not self._reading_paused:
            return
        if self._transport is not None and not self._transport.is_closing():
            self._reading_paused = False
            self._transport.resume_reading()


def _has_body(fields: list[tuple[bytes, bytes]]) -> bool:
    return any(name in _FRAMING and value != b"0" for name, value in fields)


def _problem(
    target: bytes, fields: list[tuple[bytes, bytes]], version: str, max_bytes: int
) -> tuple[int, str] | None:
    """Why a head is refused, though the parser took it."""
    if version not in _VERSIONS:
        return 400, "the request's version is not HTTP/1.0 or HTTP/1.1"
    if len(fields) > _MAX_FIELDS:
        return 431, f"the request has more than {_MAX_FIELDS} header fields"
    if not target.isascii() or b"#" in target or _origin_form(target)[:1] != b"/":
        return 400, "the request's target is not a path"
    hosts = 0
    size = len(target)
    for name, value in fields:
        size += len(name) + len(value) + 4
        if name == b"host":
            hosts += 1
        elif name == b"transfer-encoding" and (value.lower() != b"chunked" or version == "1.0"):
            return 400, "the request's transfer-encoding is not understood; use chunked or content-length"
    if size > max_bytes:
        return 431, f"the request's head is larger than {max_bytes} bytes"
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        return 400, "the request must have one Host header"
    return None


def _origin_form(target: bytes) -> bytes:
    """The path and query of a target that may be a whole URL; empty where it is neither."""
    if target[:1] == b"/":
        return target
    scheme, separator, rest = target.partition(b"://")
    if not separator or scheme.lower() not in (b"http", b"https"):
        return b""
    authority, slash, path = rest.partition(b"/")
    return b"" if b"@" in authority or not authority else slash + path or b"/"
