"""
One request's whole life.

    table  = sources.table                    # one read; never two tables
    grant  = authenticate(headers, table)
    admission.enter(grant.account)            # room in this process, or 503 at once
    body   = await exchange.body(); parse     # bytes stay bytes
    target = resolve(model)                   # "support@candidate" works
    await reserve(…)                          # requests, tokens, money, or 429
    body   = screen(body); await augment(body); rename
    pick   = balance.plan().next()            # and the next one, while nothing was sent
    reply  = await pick.provider.open(call)
    send start; for chunk in reply: send(chunk)
    close  : settle, note in the journal      # before the last byte leaves
"""

from __future__ import annotations

import asyncio
import logging
import random
import re
from collections.abc import Callable, Coroutine
from typing import Any

from gateway.dataplane import sse
from gateway.dataplane.auth import authenticate
from gateway.dataplane.exchange import ClientGone, Exchange
from gateway.dataplane.reserve import settle
from gateway.dataplane.routes import Handler, dialect_of, handler_of
from gateway.dataplane.services import Services
from gateway.dataplane.table import Headers
from gateway.dataplane.trace import HEADER, parent_of
from gateway.dataplane.usage import UsageRecord
from gateway.errors import (
    CircuitOpen,
    GatewayError,
    GuardrailBlocked,
    InternalError,
    Overloaded,
    RateLimited,
    Stopping,
    UnknownGeneration,
    UpstreamRefused,
    WrongMethod,
    body_of,
    status_of,
)
from gateway.transport.inbound import Inbound
from registry.clock import Clock, to_text
from registry.errors import PlatformError
from registry.ids import SortableIds

_log = logging.getLogger(__name__)
_CLIENT_CLOSED = 499
_JSON = (b"content-type", b"application/json")
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_HOLD_BACK_S = (0.5, 0.9)
"""Shorter than the second that `Retry-After` says."""


class Relay:
    """The data plane: a lane of the server."""

    def __init__(self, services: Services, emit: Callable[[UsageRecord], None], clock: Clock) -> None:
        """*emit* is told of every request once, when all is known of it, before its last byte leaves."""
        self._services = services
        self._emit = emit
        self._clock = clock
        self._ids = SortableIds("req")
        self._second = -1
        self._stamped = ""

    def __call__(self, inbound: Inbound) -> Coroutine[Any, Any, None] | None:
        """Refuse a request at once, or return the rest of its life."""
        now = self._clock()
        table = self._services.sources.table
        seconds = now.timestamp()
        exchange = Exchange(inbound, self._ids.next(seconds), table, now, self._close)
        record = exchange.record
        if int(seconds) != self._second:
            self._second = int(seconds)
            self._stamped = to_text(now)[:20]
        record.at = f"{self._stamped}{now.microsecond:06d}Z"
        if HEADER in inbound.fields:
            record.trace = parent_of(inbound.fields[HEADER])
        try:
            handler, needs_key = handler_of(exchange)
            if needs_key:
                grant = exchange.grant = authenticate(_credentials(inbound), table, now)
                record.key_id, record.account, record.team = grant.id, grant.account or grant.id, grant.team
                grant.require_route(exchange.path)
                self._services.admission.enter(record.account)
                exchange.tenant = record.account
        except PlatformError as error:
            self._refuse(exchange, error)
            return None
        record.admit_s = exchange.elapsed_s()
        return self._live(exchange, handler)

    async def _live(self, exchange: Exchange, handler: Handler) -> None:
        """Answer one request, whatever happens."""
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - the server runs this in a task
        exchange.inbound.on_gone = task.cancel
        try:
            if exchange.gone:
                raise ClientGone  # before this began
            await handler(exchange, self._services)
        except ClientGone:
            pass  # noted below
        except asyncio.CancelledError:
            # Because the client left, or by the server at the end of its grace.
            if not exchange.gone:
                _fail(exchange, Stopping())
        except PlatformError as error:
            _fail(exchange, error)
        except Exception:  # noqa: BLE001 - the last resort of every request
            _log.exception("request %s failed", exchange.record.request_id)
            _fail(exchange, InternalError())
        finally:
            exchange.inbound.on_gone = None
            exchange.close()
            exchange.leave()
            exchange.inbound.done()

    def _refuse(self, exchange: Exchange, error: PlatformError) -> None:
        """Answer without having read the body; one told to come back is not listened to for a while."""
        if isinstance(error, Overloaded):
            exchange.inbound.hold_back(random.uniform(*_HOLD_BACK_S))
        _fail(exchange, error)

    def _close(self, exchange: Exchange) -> None:
        record = exchange.record
        if exchange.gone:
            record.error = "client_closed"
            record.status = record.status or _CLIENT_CLOSED
        if exchange.tenant is not None:
            self._services.admission.leave(exchange.tenant)
            exchange.tenant = None
        settle(exchange)
        if exchange.mirrored is not None and self._services.mirrors is not None:
            self._services.mirrors.offer(exchange)
        if not exchange.started:
            _account_for(exchange)
        self._emit(record)


def _credentials(inbound: Inbound) -> bytes | None:
    """The `Authorization` header, or what Anthropic's clients send in its place."""
    given = inbound.header(b"authorization")
    if given is None:
        key = inbound.header(b"x-api-key")
        return b"Bearer " + key if key is not None else None
    return given


def _account_for(exchange: Exchange) -> None:
    """What a whole answer says of its own cost and time."""
    record = exchange.record
    if not record.attempts:
        return
    lines = b"server-timing: %b\r\n" % timing(record)
    if record.cost_microusd is not None:
        lines += b"x-sluicegate-cost-usd: %d.%06d\r\n" % divmod(record.cost_microusd, 1_000_000)
    exchange.account = lines


def timing(record: UsageRecord) -> bytes:
    """The phases so far as a `Server-Timing` header, in milliseconds (W3C Server Timing, section 4)."""
    return b"admit;dur=%.2f, guard;dur=%.2f, upstream;dur=%.2f" % (
        record.admit_s * 1000,
        record.guard_s * 1000,
        record.upstream_s * 1000,
    )


def _fail(exchange: Exchange, error: PlatformError) -> None:
    """The error as a status and body, or as the last event of a stream that has begun."""
    record = exchange.record
    record.error = error.code
    if isinstance(error, GuardrailBlocked):
        record.findings.append((error.rule, "block"))
    elif isinstance(error, RateLimited):
        record.limited = error.rule
    status = status_of(error)
    if exchange.finished:
        return
    if status >= 500 and not isinstance(error, GatewayError):
        _log.error("request %s: %s: %s", record.request_id, error.code, error.message)
        hidden = GatewayError("the release cannot answer now; /health/ready says why")
        hidden.code = error.code
        error = hidden
    if not exchange.started:
        make = dialect_of(exchange.path) if exchange.dialect is None else None
        if make is not None:
            exchange.dialect = make(record.request_id)
        told = (b"x-sluicegate-error", _told(error.code))
        exchange.respond(status, body_of(error), (_JSON, told, *_error_headers(error)))
    elif exchange.streaming:
        exchange.end(sse.event_of(body_of(error)))
    else:
        exchange.close()
        exchange.inbound.abort()


def _told(code: str) -> bytes:
    """An error's code as a header; what an upstream calls its errors may be anything."""
    return code.encode() if _CODE.fullmatch(code) else b"upstream_error"


def _error_headers(error: PlatformError) -> Headers:
    if isinstance(error, UpstreamRefused | RateLimited):
        return error.headers
    if isinstance(error, CircuitOpen):
        return ((b"retry-after", b"%d" % error.retry_after_s),)
    if isinstance(error, UnknownGeneration) and error.recent:
        return ((b"retry-after", b"1"),)
    status = status_of(error)
    if status == 401:
        return ((b"www-authenticate", b'Bearer realm="sluicegate"'),)
    if status == 503:
        return ((b"retry-after", b"1"),)
    if isinstance(error, WrongMethod):
        return ((b"allow", (error.param or "POST").encode()),)
    return ()
