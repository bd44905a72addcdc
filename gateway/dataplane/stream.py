"""
A stream on its way from an upstream to a client, event by event.

Events leave byte for byte as they came, whole: a client never sees half of one, so that an error can
always be said after the last. Each is read on the way, for usage, for its end, and to be sure it is JSON.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

import msgspec

from gateway.dataplane import sse
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.table import Headers
from gateway.dataplane.usage import Tokens, UsageRecord, estimate_tokens, note
from gateway.dataplane.wire import Answer, Event, Texts
from gateway.errors import UpstreamBroken, UpstreamError
from gateway.providers.base import Reply

_DRAIN_S = 0.5
_PREFIX, _END = b"data: ", b"\n\n"


class Wanted(msgspec.Struct, frozen=True):
    """What the client asked for, as far as the answer must follow it."""

    usage: bool = True
    """Whether a stream is to end with an event of usage."""
    prompt_tokens: int = 0
    """Estimate, for an upstream that counts none."""


_DECODE = msgspec.json.Decoder(Event).decode


class Meter:
    """Reads the events of one stream: what they used, whether they ended, whether they failed."""

    __slots__ = ("_any", "_chars", "_events", "_record", "_tokens", "_wanted", "done", "ended")

    def __init__(self, record: UsageRecord, wanted: Wanted) -> None:
        """Usage goes to *record* when `close` is called."""
        self._record = record
        self._wanted = wanted
        self._tokens: Tokens | None = None
        self._any = False
        self._events = 0
        self._chars = 0
        self.ended = False
        """Whether after this an end of the stream is an end and not a cut."""
        self.done = False
        """Whether `[DONE]` came."""

    def see(self, data: bytes) -> bool:
        """
        Note one event's data; whether the client is to get it.

        Raises:
            UpstreamBroken: it is not JSON, or says that the upstream failed.
        """
        if data == sse.DONE:
            self.done = self.ended = True
            return True
        self._any = True
        try:
            if not data.isascii():
                data.decode()
            event = _DECODE(data)
        except msgspec.ValidationError:
            _require_json(data, "an event of the model's stream")
            return True  # another shape is the client's to understand
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            message = "an event of the model's stream is not JSON"
            raise UpstreamBroken(message) from error
        if event.error is not msgspec.UNSET and bytes(event.error) != b"null":
            message = "the model reported an error in the middle of its answer"
            raise UpstreamBroken(message)
        if event.x_groq is not None and event.x_groq.usage is not None:
            self._tokens = event.x_groq.usage
        if event.usage is not None:
            self._tokens = event.usage
            if not event.choices and not self._wanted.usage:
                return False
        for choice in event.choices or ():
            if choice.finish_reason is not None:
                self.ended = True
            delta = choice.delta
            text = choice.text if delta is None else delta.content or delta.reasoning_content
            if text:
                self._chars += len(text)
                self._events += 1
        return True

    def close(self) -> None:
        """
        Write what was used into the record: the upstream's count, or else this gateway's estimate;
        nothing where no event came.

        The estimate is one token for each event with text, or a token for each four characters if that
        is more: servers send at least one token in an event.
        """
        if self._tokens is not None:
            note(self._record, self._tokens)
        elif self._any:
            self._record.estimated = True
            self._record.prompt_tokens = self._wanted.prompt_tokens
            self._record.completion_tokens = max(self._events, -(-self._chars // 4))


async def pass_stream(exchange: Exchange, reply: Reply, headers: Headers, wanted: Wanted) -> None:
    """
    Send the events of *reply* on as they are.

    Raises:
        UpstreamError: it broke off before its end, or an event is not JSON.
    """
    passing = _Passing(exchange, reply.status, headers, wanted)
    deliver = getattr(reply, "deliver", None)
    try:
        if deliver is None:
            async for chunk in reply.chunks():
                passing.write(chunk)
                await exchange.drained()
        else:
            await _deliver(exchange, reply, passing)
        passing.rest()
    except UpstreamError:
        if not exchange.finished:
            raise
    finally:
        passing.meter.close()
    if not exchange.finished:
        exchange.end()


async def _deliver(exchange: Exchange, reply: Any, passing: _Passing) -> None:  # noqa: ANN401 - see `answer`
    """The fast way: pieces go from the upstream's socket to the client's without a task between."""
    inbound = exchange.inbound
    inbound.on_pause, inbound.on_resume = reply.pause, reply.resume
    if not inbound.writable:
        reply.pause()
    passing.give_up = lambda: asyncio.ensure_future(reply.close())
    try:
        await reply.deliver(passing.write)
    finally:
        inbound.on_pause = inbound.on_resume = None
        if passing.timer is not None:
            passing.timer.cancel()


class _Passing:
    """Takes pieces of a stream, gives whole events."""

    __slots__ = ("_exchange", "_headers", "_splitter", "_status", "give_up", "meter", "timer")

    def __init__(self, exchange: Exchange, status: int, headers: Headers, wanted: Wanted) -> None:
        self._exchange = exchange
        self._status = status
        self._headers = headers
        self._splitter = sse.Splitter()
        self.meter = Meter(exchange.record, wanted)
        self.give_up: Any = None
        self.timer: asyncio.TimerHandle | None = None

    def write(self, chunk: bytes) -> None:
        """Send on what *chunk* completes. Raises UpstreamBroken."""
        exchange, meter = self._exchange, self.meter
        if self.is_done():
            return
        if chunk.endswith(_END) and chunk.startswith(_PREFIX) and self._splitter.empty and b"\r" not in chunk:
            if chunk.count(_END) == 1 and b"\n" not in chunk[:-2]:
                out = chunk if meter.see(chunk[6:-2]) else b""
            else:
                out = self._seen([event + _END for event in chunk[:-2].split(_END)])
        else:
            out = self._seen(self._splitter.push(chunk))
        if self.is_done():
            if not exchange.started:
                exchange.start(self._status, self._headers)
            meter.close()
            exchange.end(out)
            self._drain_briefly()
        elif out:
            if not exchange.started:
                exchange.start(self._status, self._headers)
            exchange.write(out)

    def is_done(self) -> bool:
        """Whether `[DONE]` came."""
        return self.meter.done

    def rest(self) -> None:
        """The stream ended. Raises UpstreamBroken unless its answer is complete."""
        if self.meter.done:
            return
        rest = self._splitter.rest()
        if rest.strip():
            if not sse.has_known_fields_only(rest):
                raise cut()
            data = sse.data_of(rest)
            if data is not None and not self.meter.see(data):
                rest = b""
            if not rest.endswith(_END):
                rest = rest.rstrip(b"\r\n") + _END if rest else b""
        if not self.meter.ended:
            raise cut()
        exchange = self._exchange
        if not exchange.started:
            exchange.start(self._status, self._headers)
        self.meter.close()
        exchange.end(rest)

    def _seen(self, events: list[bytes]) -> bytes:
        kept = []
        for event in events:
            if not sse.has_known_fields_only(event):
                message = "the model's stream is not one of server-sent events"
                raise UpstreamBroken(message)
            data = sse.data_of(event)
            if data is None or self.meter.see(data):
                kept.append(event)
            if self.meter.done:
                break
        return b"".join(kept)

    def _drain_briefly(self) -> None:
        """The client has all. The upstream's end of body is waited for, not long, to keep its connection."""
        if self.give_up is not None:
            self.timer = asyncio.get_running_loop().call_later(_DRAIN_S, self.give_up)


async def finish(exchange: Exchange, reply: Reply, data: bytes) -> None:
    """End the answer, then read the upstream's end of body so that its connection can be used again."""
    exchange.end(data)
    with suppress(TimeoutError, UpstreamError, RuntimeError):
        async with asyncio.timeout(_DRAIN_S):
            async for _rest in reply.chunks():
                pass


_ANSWER = msgspec.json.Decoder(Answer).decode


def note_answer(record: UsageRecord, body: bytes, prompt_tokens: int) -> None:
    """
    Write into *record* what a whole answer used; estimated where it does not say.

    Raises:
        UpstreamBroken: it is not JSON, or says that the upstream failed.
    """
    try:
        if not body.isascii():
            body.decode()
        answer = _ANSWER(body)
    except msgspec.ValidationError:
        _require_json(body, "the model's answer")
        answer = Answer()
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        message = "the model's answer is not JSON"
        raise UpstreamBroken(message) from error
    if answer.error is not msgspec.UNSET and bytes(answer.error) != b"null":
        message = "the model reported an error in place of an answer"
        raise UpstreamBroken(message)
    if answer.usage is not None:
        note(record, answer.usage)
        return
    record.estimated = True
    record.prompt_tokens = prompt_tokens
    try:
        choices = msgspec.json.decode(body, type=Texts).choices
    except (msgspec.MsgspecError, UnicodeDecodeError):
        choices = ()
    texts = [choice.text or (choice.message.content if choice.message else None) for choice in choices]
    record.completion_tokens = sum(estimate_tokens(text) for text in texts if isinstance(text, str))


def _require_json(data: bytes, what: str) -> None:
    """For data of another shape than expected, which is found out before it was read to its end."""
    try:
        msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        message = f"{what} is not JSON"
        raise UpstreamBroken(message) from error


def cut() -> UpstreamBroken:
    """A stream that ended before its answer did."""
    return UpstreamBroken("the model's stream ended before its answer was complete")
