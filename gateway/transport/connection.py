"""
One keep-alive connection to an upstream: an asyncio protocol, one request at a time.

It is used again only if nothing but one whole answer has come over it, and all of the request was sent.
There is one timer, which is set anew only when a deadline comes to lie before it.

Source: RFC 9112, sections 9.3 and 9.6.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from typing import Protocol

from gateway.errors import UpstreamBroken, UpstreamTimeout
from gateway.transport.answer import Answers
from gateway.transport.reply import TransportReply, too_large

_NEW, _IDLE, _HEAD, _BODY, _DEAD = range(5)
_WORKING = (_HEAD, _BODY)
_SLICE = 262_144
_WHOLE = 65_536
"""Bodies up to this size leave in one write with their head."""
_TICK_S = 0.001
_NEVER = float("inf")


class Stale(Exception):
    """A used connection was closed before a byte of an answer came: the upstream had let it go."""


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one request may take."""

    first_byte_s: float
    idle_s: float
    total_s: float
    max_bytes: int


class Keeper(Protocol):
    """Who owns connections."""

    def release(self, connection: Connection) -> None:
        """*connection* can take another request."""
        ...

    def discard(self, connection: Connection) -> None:
        """*connection* is of no use any more. Called once."""
        ...


class Connection(asyncio.Protocol):
    """One connection. Where a request fails it is cut and leaves its keeper by itself."""

    __slots__ = (
        "_answers", "_bounds", "_caller_holds", "_deadline", "_full", "_head", "_keeper", "_phase", "_reply",
        "_reply_holds", "_rest", "_timer", "_timer_at", "_total", "_transport", "_whole", "gone",
        "idle_until", "loop", "served",
    )  # fmt: skip

    def __init__(self, keeper: Keeper, bounds: Bounds, loop: asyncio.AbstractEventLoop) -> None:
        """For `create_connection`; idle once made."""
        self.loop = loop
        self.gone: asyncio.Future[None] = loop.create_future()
        """Done when the socket is closed."""
        self.served = 0
        """Requests that were sent over it."""
        self.idle_until = 0.0
        """The loop's time at which an idle connection is closed."""
        self._keeper = keeper
        self._bounds = bounds
        self._phase = _NEW
        self._transport: asyncio.Transport | None = None
        self._answers = Answers()
        self._head: asyncio.Future[TransportReply] | None = None
        self._reply: TransportReply | None = None
        self._rest: memoryview | None = None
        self._whole = True
        self._full = False
        self._caller_holds = self._reply_holds = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = self._deadline = self._total = _NEVER

    @property
    def dead(self) -> bool:
        """Whether it can never be used again."""
        return self._phase == _DEAD

    # For the client and the pool.

    def send(
        self, head: bytes, body: bytes | None, started: float, *, bodiless: bool
    ) -> asyncio.Future[TransportReply]:
        """
        Send a request; the answer once its head has arrived.

        Args:
            head: all but the blank line.
            started: the loop's time from which the first-byte and total timeouts count.
            bodiless: whether the answer has no body, whatever its head says (HEAD).

        Raises (the future):
            Stale: see there. Otherwise as `Transport.request`.
        """
        future: asyncio.Future[TransportReply] = self.loop.create_future()
        self._head = future
        transport = self._transport
        if transport is None or self._phase != _IDLE:
            future.set_exception(Stale() if self.served else UpstreamBroken())
            return future
        self.served += 1
        self._answers.begin(bodiless=bodiless)
        self._phase = _HEAD
        self._whole = True
        bounds = self._bounds
        self._total = started + bounds.total_s
        self._arm(min(started + bounds.first_byte_s, self._total))
        if body is None or len(body) <= _WHOLE:
            transport.write(head + b"\r\n" + body if body else head + b"\r\n")
        else:
            self._rest = memoryview(body)
            transport.write(head + b"\r\n")
            self._upload()
        return future

    def give_up(self, request: asyncio.Future[TransportReply]) -> None:
        """Cut the connection if it still works on *request*, which nobody waits for."""
        if request.done() and not request.cancelled():
            request.exception()  # asyncio complains of errors that nobody looked at
        if self._head is request:
            self.retire()

    def keep_until(self, when: float) -> None:
        """Close it at *when*, the loop's time, if no request comes before."""
        self.idle_until = when
        self._arm(when)

    def hold(self, *, by_reader: bool) -> None:
        """Stop reading until neither the reader of the body nor its full buffer wants that."""
        held = self._caller_holds or self._reply_holds
        if by_reader:
            self._caller_holds = True
        else:
            self._reply_holds = True
        if not held and self._phase == _BODY and self._transport is not None:
            self._deadline = self._total
            self._transport.pause_reading()

    def unhold(self, *, by_reader: bool) -> None:
        """Read again, as far as this side is concerned."""
        held = self._caller_holds or self._reply_holds
        if by_reader:
            self._caller_holds = False
        else:
            self._reply_holds = False
        if held and not (self._caller_holds or self._reply_holds):
            self._read_again()
            if self._phase == _BODY:
                self._arm(min(self.loop.time() + self._bounds.idle_s, self._total))

    def fail(self, error: Exception) -> None:
        """End the request, if there is one, with *error*, and the connection. Idempotent."""
        head, reply = self._head, self._reply
        self.retire()
        if reply is not None:
            reply.end(error)
        elif head is not None and not head.done():
            head.set_exception(error)

    def retire(self) -> None:
        """Cut it. A request on it must have been told, or be of no interest. Idempotent."""
        if self._phase == _DEAD:
            return
        known = self._phase != _NEW
        self._phase = _DEAD
        self._head = self._reply = self._rest = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._transport is not None:
            self._transport.abort()
        if known:
            self._keeper.discard(self)

    def adopt(self) -> bool:
        """Count as one of its keeper's from now on; False where it was lost already."""
        if self._phase != _NEW or self._transport is None:
            return False
        self._phase = _IDLE
        return True

    # What asyncio tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The socket is connected, and TLS agreed on."""
        self._transport = transport  # type: ignore[assignment]  # uvloop's do not derive from asyncio's

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._lost(clean=False, cause=exc)
        self._transport = None
        self._answers.close()
        if not self.gone.done():
            self.gone.set_result(None)

    def eof_received(self) -> bool:
        """The upstream sends nothing more; what it sent stays valid."""
        self._lost(clean=self._was_ended(), cause=None)
        return False

    def pause_writing(self) -> None:
        """The upstream takes the request more slowly than it is written."""
        self._full = True

    def resume_writing(self) -> None:
        """It has caught up."""
        self._full = False
        if self._rest is not None:
            self._upload()

    def data_received(self, data: bytes) -> None:
        """A part of the answer, cut anywhere."""
        if self._phase not in _WORKING:
            self.retire()
            return
        answers = self._answers
        body = answers.feed(data)
        if self._phase == _HEAD and answers.status:
            self._open(answers)
        if body and self._reply is not None:
            self._reply.feed(body)
            if self._phase != _BODY:
                return
        if answers.error is not None and not answers.complete:
            self.fail(answers.error)
        elif answers.complete:
            self._finish()
        elif self._phase == _BODY and not (self._caller_holds or self._reply_holds):
            self._arm(min(self.loop.time() + self._bounds.idle_s, self._total))

    # The rest.

    def _open(self, answers: Answers) -> None:
        """The head is there: the caller gets its reply."""
        reply = TransportReply(answers.status, answers.headers, self, self._bounds.max_bytes)
        self._phase = _BODY
        self._reply = reply
        if answers.status >= 400 and self._rest is not None:
            self._rest = None  # RFC 9112, section 9.3: a refused body is not sent to its end
            self._whole = False
        if self._head is not None and not self._head.done():
            self._head.set_result(reply)
        if answers.length is not None and answers.length > self._bounds.max_bytes and not answers.complete:
            reply.cut(too_large(self._bounds.max_bytes))

    def _upload(self) -> None:
        """Write as much of a large body as the transport takes; it asks for more."""
        rest, transport = self._rest, self._transport
        while rest is not None and transport is not None and not (self._full or transport.is_closing()):
            transport.write(rest[:_SLICE])
            rest = rest[_SLICE:] or None
        if self._phase in _WORKING:
            self._rest = rest

    def _finish(self) -> None:
        """The answer is whole: its connection is used again if nothing speaks against that."""
        reply, transport = self._reply, self._transport
        self._reply = self._head = None
        if (
            self._answers.finish()
            and self._whole
            and self._rest is None
            and transport is not None
            and transport.get_write_buffer_size() == 0
        ):
            if self._caller_holds or self._reply_holds:
                self._caller_holds = self._reply_holds = False
                self._read_again()
            self._phase = _IDLE
            self._keeper.release(self)
        else:
            self.retire()
        if reply is not None:
            reply.end()

    def _was_ended(self) -> bool:
        """Whether the upstream itself ended the stream, which over TLS anyone on the way could seem to."""
        transport = self._transport
        secured = transport.get_extra_info("ssl_object") if transport is not None else None
        if secured is None:
            return True
        try:
            return not secured.read(1)
        except ssl.SSLError:
            return False

    def _lost(self, *, clean: bool, cause: Exception | None) -> None:
        """No more bytes will come; *clean* if the upstream ended them with purpose."""
        if self._phase == _HEAD and not self._answers.begun and self.served > 1:
            self.fail(Stale())
        elif self._phase == _BODY and self._answers.until_close and clean:
            self._whole = False
            self._finish()
        elif self._phase in _WORKING:
            error = UpstreamBroken()
            error.__cause__ = cause
            self.fail(error)
        else:
            self.retire()

    def _read_again(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing() and not transport.is_reading():
            transport.resume_reading()

    def _arm(self, when: float) -> None:
        """Make *when* the deadline of what happens now."""
        self._deadline = when
        if when < self._timer_at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_at = when
            self._timer = self.loop.call_at(when, self._ring)

    def _ring(self) -> None:
        self._timer = None
        self._timer_at = _NEVER
        if self.loop.time() + _TICK_S < self._deadline:
            self._arm(self._deadline)
        elif self._phase == _HEAD:
            wait_s = min(self._bounds.first_byte_s, self._bounds.total_s)
            self.fail(UpstreamTimeout(f"the model did not begin to answer within {wait_s:g} s"))
        elif self._phase == _BODY:
            self.fail(UpstreamTimeout("the model stopped in the middle of its answer"))
        else:
            self.retire()
