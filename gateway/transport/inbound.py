"""One request as it arrived on the wire, and its answer as it leaves."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING
from urllib.parse import unquote

from gateway.errors import BodyTimeout, BodyTooLarge

if TYPE_CHECKING:
    from gateway.transport.server import Connection

Headers = Sequence[tuple[bytes, bytes]]
_STATUS_LINES = {
    status.value: b"HTTP/1.1 %d %s\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}
_BODILESS = frozenset({204, 304})


class ClientGone(Exception):
    """The client left before its request or its answer was whole."""


class Inbound:
    """
    A request whose head has arrived. Its answer is written with `start`, `write` and `end`.

    Writing never waits: after the client has left it does nothing, and while the client reads too
    slowly it buffers; whoever writes much asks `writable`, or is told by `on_pause` and `on_resume`.
    """

    __slots__ = (
        "_body", "_chunked", "_connection", "_head", "_late", "_size", "_waiter", "bodiless",
        "complete", "ended", "fields", "gone", "header", "headers", "keep_alive", "method",
        "on_gone", "on_pause", "on_resume", "path", "query", "started", "task", "version",
    )  # fmt: skip

    def __init__(
        self, connection: Connection, method: str, target: bytes, headers: list[tuple[bytes, bytes]],
        fields: dict[bytes, bytes], version: str, *, keep_alive: bool,
    ) -> None:  # fmt: skip
        """*headers* have lower-case names; *fields* are their last values; *target* is in origin form."""
        self._connection = connection
        self.method = method
        self.query = b""
        if b"?" in target:
            target, _, self.query = target.partition(b"?")
        text = target.decode("ascii")
        self.path = unquote(text) if "%" in text else text
        self.headers = headers
        self.fields = fields
        self.header: Callable[[bytes], bytes | None] = fields.get
        """The last request header of a name (lower case), or None."""
        self.version = version
        self.keep_alive = keep_alive
        self.complete = False
        """Whether the whole body arrived."""
        self.started = False
        """Whether the head of the answer was given."""
        self.ended = False
        self.gone = False
        """Whether the client left before the answer ended."""
        self.bodiless = method == "HEAD"
        self.task: asyncio.Task[None] | None = None
        self.on_gone: Callable[[], object] | None = None
        self.on_pause: Callable[[], None] | None = None
        self.on_resume: Callable[[], None] | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._late = False
        self._waiter: asyncio.Future[None] | None = None
        self._head: bytes | None = None
        self._chunked = False

    def whole(self, limit: int) -> bytes | None:
        """The whole body, once, if it is there already and within *limit*; None: wait for it with `body`."""
        if not self.complete or self._size > limit:
            return None
        parts, self._body = self._body, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def body(self, limit: int, timeout_s: float) -> bytes:
        """
        The whole request body.

        Raises:
            BodyTooLarge: it has more than *limit* bytes; as soon as that is known.
            BodyTimeout: it did not arrive within *timeout_s*.
            ClientGone: the client left first.
        """
        if not self.complete:
            await self._arrived(limit, timeout_s)
        if self._size > limit:
            raise _too_large(limit)
        parts, self._body = self._body, []
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def start(self, status: int, headers: Headers, length: int | None = None, ready: bytes = b"") -> None:
        """
        The head of the answer; it leaves with the first bytes of the body.

        Args:
            length: of the body in bytes; None where it is not known yet.
            ready: further header lines, as `lines_of` makes them.
        """
        self.started = True
        framing = b""
        if status in _BODILESS:
            self.bodiless = True
        elif length is not None:
            framing = b"content-length: %d\r\n" % length
        elif self.version == "1.1":
            self._chunked = not self.bodiless
            framing = b"transfer-encoding: chunked\r\n"
        else:
            self.keep_alive = False
        if not self.complete:
            self.keep_alive = False
        if not self.keep_alive:
            framing += b"connection: close\r\n"
        elif self.version == "1.0":
            framing += b"connection: keep-alive\r\n"
        self._head = b"%b%b%b%b%b\r\n" % (
            _STATUS_LINES.get(status) or b"HTTP/1.1 %d Status\r\n" % status,
            self._connection.default_head(),
            ready,
            lines_of(headers),
            framing,
        )

    def write(self, data: bytes) -> None:
        """A piece of the body."""
        if self.gone or self.ended or not data:
            return
        if self.bodiless:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._head is not None:
            data, self._head = self._head + data, None
        self._connection.send(data)

    def end(self, data: bytes = b"") -> None:
        """The last piece of the body, possibly empty. Idempotent."""
        if self.ended:
            return
        self.ended = True
        if self.gone:
            return
        if self.bodiless:
            data = b""
        elif self._chunked:
            data = b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data) if data else b"0\r\n\r\n"
        if self._head is not None:
            data, self._head = self._head + data, None
        if data:
            self._connection.send(data)
        self._connection.answered(self)

    def abort(self) -> None:
        """Cut the connection: the client must not take what it has for a whole answer."""
        self.ended = True
        self._connection.abort()

    def done(self) -> None:
        """For who answers: nothing more will be done for this request."""
        self._connection.done(self)

    def hold_back(self, pause_s: float) -> None:
        """Read nothing more from this client for a while."""
        self._connection.hold_back(pause_s)

    @property
    def writable(self) -> bool:
        """Whether the client keeps up."""
        return not self._connection.paused

    async def drained(self) -> None:
        """Return once the client has caught up. Raises ClientGone."""
        while self._connection.paused and not self.gone:
            await self._wait()
        if self.gone:
            raise ClientGone

    def feed(self, data: bytes) -> int:
        """For the connection: a piece of the body arrived; returns the bytes so far."""
        self._size += len(data)
        self._body.append(data)
        if self._waiter is not None:
            self._wake()
        return self._size

    def finished(self) -> None:
        """For the connection: the body is whole."""
        self.complete = True
        if self._waiter is not None:
            self._wake()

    def lost(self) -> None:
        """For the connection: the client is gone."""
        if not self.ended:
            self.gone = True
            self._wake()
            if self.on_gone is not None:
                self.on_gone()

    def flow(self, *, paused: bool) -> None:
        """For the connection: the client fell behind, or caught up."""
        told = self.on_pause if paused else self.on_resume
        if told is not None:
            told()
        if not paused:
            self._wake()

    async def _arrived(self, limit: int, timeout_s: float) -> None:
        timer = asyncio.get_running_loop().call_later(timeout_s, self._expire)
        length = self.header(b"content-length")
        try:
            if length is not None and int(length) > limit:
                raise _too_large(limit)
            self._connection.wanted(self)
            while not self.complete and self._size <= limit:
                if self._late:
                    message = f"the request body did not arrive within {timeout_s:g} s"
                    raise BodyTimeout(message)
                await self._wait()
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._late = True
        self._wake()

    async def _wait(self) -> None:
        if self.gone:
            raise ClientGone
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter  # where this is cancelled, nobody is left to be woken
        self._waiter = None
        if self.gone:
            raise ClientGone

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def lines_of(headers: Headers) -> bytes:
    """*headers* as they stand on the wire; worth keeping where they are sent often."""
    return b"".join([b"%b: %b\r\n" % header for header in headers])


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(f"the request body is larger than {limit} bytes, which is what this gateway accepts")
