"""The upstream's answer to the client: whole, as a stream, or as an error."""

from __future__ import annotations

import asyncio
import re
from contextlib import suppress

import msgspec

from gateway.dataplane import sse
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.screen import StreamScreen, screen_answer
from gateway.dataplane.table import Headers
from gateway.dataplane.usage import Tokens, UsageRecord, tokens_of
from gateway.dataplane.work import Work
from gateway.errors import UpstreamBroken, UpstreamError, UpstreamRefused
from gateway.guardrails.policy import TextScreen
from gateway.providers.base import Reply

_PASSED_ON = frozenset({b"content-type", b"openai-processing-ms", b"openai-version"})
_RETRY_HINTS = frozenset({b"retry-after", b"retry-after-ms", b"x-should-retry"})
_PASSED_STATUS = frozenset({400, 404, 409, 413, 422, 429, 503})
"""Upstream errors that tell the client something; others are this gateway's to explain."""
_KEYS = re.compile(r"\b(sk|key|Bearer)[-_ ][\w*.-]{4,}")
_MAX_ERROR_BYTES = 64_000
_DRAIN_S = 0.5


async def forward(exchange: Exchange, reply: Reply, screen: TextScreen | None, work: Work) -> None:
    """
    Send *reply* on to the client, through *screen* if there is one, and note its usage.

    Raises:
        UpstreamError: it broke off, was an error, or cannot be read by the screen.
        GuardrailBlocked: the screen refused the text.
    """
    if not 200 <= reply.status < 300:
        raise await _refusal(reply)
    headers = tuple((name, value) for name, value in reply.headers if name in _PASSED_ON)
    if _is_stream(headers):
        exchange.streaming = True
        headers = (*headers, (b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no"))
        if screen is None:
            await _pass_stream(exchange, reply, headers)
        else:
            await _screen_stream(exchange, reply, headers, screen)
        return
    body = b"".join([chunk async for chunk in reply.chunks()])
    _note(exchange.record, tokens_of(body))
    if screen is not None:
        body = await _screened(body, screen, exchange, work)
    await exchange.respond(reply.status, body, headers)


async def _pass_stream(exchange: Exchange, reply: Reply, headers: Headers) -> None:
    """Whole events, byte for byte: a client never sees half of one."""
    splitter = sse.Splitter()
    ended = False
    async for chunk in reply.chunks():
        events = splitter.push(chunk)
        if not events:
            continue
        for event in events:
            if b'"usage"' in event:
                _note(exchange.record, tokens_of(sse.data_of(event) or b""))
            ended = ended or _is_last(event)
        if not exchange.started:
            await exchange.start(reply.status, headers)
        await exchange.chunk(b"".join(events))
        if ended and _is_done(events[-1]):
            await _finish(exchange, reply, b"")
            return
    rest = splitter.rest()
    if not ended and not _is_last(rest):
        raise _cut()
    await _finish(exchange, reply, rest)


async def _screen_stream(exchange: Exchange, reply: Reply, headers: Headers, screen: TextScreen) -> None:
    splitter = sse.Splitter()
    guard = StreamScreen(screen, exchange.record.findings)
    ended = False
    async for chunk in reply.chunks():
        out: list[bytes] = []
        for event in splitter.push(chunk):
            data = sse.data_of(event)
            if data is None:
                out.append(event)
            elif data == sse.DONE:
                last = guard.finish()
                out += [sse.event_of(last), sse.DONE_EVENT] if last else [sse.DONE_EVENT]
                await _begin(exchange, reply, headers)
                await _finish(exchange, reply, b"".join(out))
                return
            else:
                decoded = _decode(data)
                if b'"usage"' in data:
                    _note(exchange.record, tokens_of(data))
                ended = ended or _is_last(event)
                out.append(sse.event_of(guard.push(decoded)))
        if out:
            await _begin(exchange, reply, headers)
            await exchange.chunk(b"".join(out))
    if not ended or splitter.rest().strip():
        raise _cut()
    last = guard.finish()
    await _finish(exchange, reply, sse.event_of(last) if last else b"")


async def _begin(exchange: Exchange, reply: Reply, headers: Headers) -> None:
    if not exchange.started:
        await exchange.start(reply.status, headers)


async def _finish(exchange: Exchange, reply: Reply, data: bytes) -> None:
    """End the answer, then read the upstream's end of body so that its connection can be used again."""
    await exchange.end(data)
    with suppress(TimeoutError, UpstreamError, RuntimeError):
        async with asyncio.timeout(_DRAIN_S):
            async for _rest in reply.chunks():
                pass


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
    return any(name == b"content-type" and value.startswith(b"text/event-stream") for name, value in headers)


def _is_done(event: bytes) -> bool:
    return sse.data_of(event) == sse.DONE


def _is_last(event: bytes) -> bool:
    """Whether after *event* an end of the stream is an end and not a cut: `[DONE]`, a finished choice."""
    if b'"finish_reason"' in event:
        compact = event.replace(b" ", b"")
        return b'"finish_reason":"' in compact
    return _is_done(event)


def _note(record: UsageRecord, tokens: Tokens | None) -> None:
    if tokens is not None:
        record.prompt_tokens = tokens.prompt_tokens
        record.completion_tokens = tokens.completion_tokens


def _cut() -> UpstreamBroken:
    return UpstreamBroken("the model's stream ended before its answer was complete")


def _unreadable() -> UpstreamBroken:
    return UpstreamBroken("the model's answer is not JSON, so its guardrails could not be applied")


class _Failure(msgspec.Struct):
    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class _Failed(msgspec.Struct):
    error: _Failure | str | None = None
    message: str | None = None


async def _refusal(reply: Reply) -> UpstreamError:
    """What a client may know of an upstream's error: never the gateway's own credentials."""
    status = reply.status
    headers = tuple((name, value) for name, value in reply.headers if name in _RETRY_HINTS)
    if status not in _PASSED_STATUS:
        message = f"the model answered with status {status}"
        if status in (401, 403):
            message = "the model refused this gateway's credentials; its operator must correct them"
        return UpstreamRefused(
            message, status=504 if status == 504 else 502, kind="server_error", code="upstream_error",
            headers=headers,
        )  # fmt: skip
    failure = _failure(await _start_of(reply))
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


def _failure(body: bytes) -> _Failure:
    try:
        decoded = msgspec.json.decode(body, type=_Failed)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return _Failure()
    if isinstance(decoded.error, _Failure):
        return decoded.error
    return _Failure(message=decoded.error or decoded.message or "")
