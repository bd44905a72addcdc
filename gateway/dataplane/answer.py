"""The upstream's answer to the client: whole, as a stream, or as an error."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from gateway.dataplane import sse
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.failure import failure_of
from gateway.dataplane.screen import StreamScreen, screen_answer
from gateway.dataplane.stream import Meter, Wanted, cut, finish, note_answer, pass_stream
from gateway.dataplane.table import Headers
from gateway.dataplane.work import Work
from gateway.errors import UpstreamBroken, UpstreamError, UpstreamRefused
from gateway.guardrails.policy import TextScreen
from gateway.providers.base import Reply

_PASSED_ON = frozenset({b"content-type", b"openai-processing-ms", b"openai-version"})
_RETRY_HINTS = frozenset({b"retry-after", b"retry-after-ms", b"x-should-retry"})
_PASSED_STATUS = frozenset({400, 404, 409, 413, 422, 429, 503})
"""Upstream errors that tell the client something; others are this gateway's to explain."""
_KEYS = re.compile(r"\b(sk|key|Bearer)[-_ ][\w*.-]{4,}")
_KEY_INVALID = b'"API_KEY_INVALID"'
"""How Gemini says with status 400 what others say with 401."""
_MAX_ERROR_BYTES = 64_000
_ANY_LENGTH = 2**62
"""The transport has the bound."""


async def forward(
    exchange: Exchange, reply: Reply, screen: TextScreen | None, work: Work, wanted: Wanted
) -> None:
    """
    Send *reply* on to the client, through *screen* if there is one, and note its usage.

    Raises:
        UpstreamError: it broke off, was an error, or cannot be read by the screen.
        GuardrailBlocked: the screen refused the text.
    """
    if not 200 <= reply.status < 300:
        raise await refusal(reply)
    headers: Headers = tuple([header for header in reply.headers if header[0] in _PASSED_ON])
    if _is_stream(headers):
        exchange.streaming = exchange.record.streaming = True
        headers = (*headers, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
        if screen is None:
            await pass_stream(exchange, reply, headers, wanted)
        else:
            await _screen_stream(exchange, reply, headers, screen, wanted)
        return
    read = getattr(reply, "read", None)
    if read is not None:
        body: bytes = await read(_ANY_LENGTH)
    else:
        body = b"".join([chunk async for chunk in reply.chunks()])
    note_answer(exchange.record, body, wanted.prompt_tokens)
    if screen is not None:
        body = await _screened(body, screen, exchange, work)
    exchange.respond(reply.status, body, headers)


async def _screen_stream(
    exchange: Exchange, reply: Reply, headers: Headers, screen: TextScreen, wanted: Wanted
) -> None:
    splitter = sse.Splitter()
    guard = StreamScreen(screen, exchange.record.findings)
    meter = Meter(exchange.record, wanted)
    try:
        async for chunk in reply.chunks():
            out = b"".join(_screened_events(splitter.push(chunk), guard, meter))
            if out and not exchange.started:
                exchange.start(reply.status, headers)
            if meter.done:
                meter.close()
                await finish(exchange, reply, out)
                return
            if out:
                exchange.write(out)
                await exchange.drained()
        if not meter.ended or splitter.rest().strip():
            raise cut()
        last = guard.finish()
        meter.close()
        await finish(exchange, reply, sse.event_of(last) if last else b"")
    finally:
        meter.close()


def _screened_events(events: list[bytes], guard: StreamScreen, meter: Meter) -> Iterator[bytes]:
    for event in events:
        data = sse.data_of(event)
        if data is None:
            yield event
        elif not meter.see(data):
            continue
        elif meter.done:
            last = guard.finish()
            if last:
                yield sse.event_of(last)
            yield sse.DONE_EVENT
            return
        else:
            yield sse.event_of(guard.push(_decode(data)))


async def _screened(body: bytes, screen: TextScreen, exchange: Exchange, work: Work) -> bytes:
    try:
        return await work.run(screen_answer, screen, body, exchange.record.findings)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable() from error


def _decode(data: bytes) -> dict[str, object]:
    try:
        decoded: dict[str, object] = msgspec.json.decode(data, type=dict)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _unreadable() from error
    return decoded


def _is_stream(headers: Headers) -> bool:
    for name, value in headers:
        if name == b"content-type":
            return value.startswith(b"text/event-stream")
    return False


def _unreadable() -> UpstreamBroken:
    return UpstreamBroken("the model's answer is not JSON, so its guardrails could not be applied")


async def refusal(reply: Reply) -> UpstreamError:
    """What a client may know of an upstream's error: never the gateway's own credentials."""
    status = reply.status
    headers = tuple((name, value) for name, value in reply.headers if name in _RETRY_HINTS)
    if status not in _PASSED_STATUS:
        message = f"the model answered with status {status}"
        if status in (401, 403):
            return _unknown_key(status, headers)
        return UpstreamRefused(
            message, status=504 if status == 504 else 502, kind="server_error", code="upstream_error",
            headers=headers, upstream_status=status,
        )  # fmt: skip
    body = await _start_of(reply)
    if _KEY_INVALID in body:
        return _unknown_key(status, headers)
    failure = failure_of(body)
    kind = "server_error" if status >= 500 else failure.type or "invalid_request_error"
    return UpstreamRefused(
        _KEYS.sub("[key]", failure.message[:1000]) or f"the model answered with status {status}",
        status=status, kind=kind, code=str(failure.code or "upstream_error"), param=failure.param,
        headers=headers,
    )  # fmt: skip


async def _start_of(reply: Reply) -> bytes:
    body = bytearray()
    async for chunk in reply.chunks():
        body += chunk
        if len(body) > _MAX_ERROR_BYTES:
            break
    return bytes(body)


def _unknown_key(status: int, headers: Headers) -> UpstreamRefused:
    message = "the model refused this gateway's credentials; its operator must correct them"
    return UpstreamRefused(
        message, status=502, kind="server_error", code="upstream_error", headers=headers,
        upstream_status=status if status == 403 else 401,
    )  # fmt: skip
