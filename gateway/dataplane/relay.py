"""
One request's whole life.

    table  = sources.table                    # one read; never two tables
    grant  = authenticate(headers, table)
    body   = await exchange.body(); parse     # bytes stay bytes
    target = resolve(model)                   # "support@candidate" works
    body   = screen(body); await augment(body); rename
    reply  = await provider.open(call)
    send start; for chunk in reply: send(chunk)
    finally: emit(UsageRecord)
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from gateway.dataplane import catalogue, embeddings, predict, search, sse
from gateway.dataplane.answer import forward
from gateway.dataplane.augment import augment, passages_header
from gateway.dataplane.auth import authenticate
from gateway.dataplane.exchange import ClientGone, Exchange, Receive, Scope, Send
from gateway.dataplane.request import Body, encode, messages_of, model_of, parse, raw, wants_stream
from gateway.dataplane.resolve import resolve
from gateway.dataplane.screen import screen_body
from gateway.dataplane.services import Services
from gateway.dataplane.table import Headers, Route
from gateway.dataplane.usage import UsageRecord
from gateway.errors import (
    GatewayError,
    GuardrailBlocked,
    InternalError,
    InvalidRequest,
    NotReady,
    Stopping,
    UnknownPath,
    UpstreamRefused,
    WrongMethod,
    body_of,
    status_of,
)
from gateway.providers.base import Call, Reply
from registry.clock import Clock
from registry.errors import PlatformError
from registry.ids import sortable_id

Handler = Callable[[Exchange, Services], Awaitable[None]]
_log = logging.getLogger(__name__)
_CLIENT_CLOSED = 499
_JSON = (b"content-type", b"application/json")


class Relay:
    """The data plane as an ASGI callable."""

    def __init__(self, services: Services, emit: Callable[[UsageRecord], None], clock: Clock) -> None:
        """*emit* is told of every request when it ends."""
        self._services = services
        self._emit = emit
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one HTTP request, whatever happens."""
        now = self._clock()
        table = self._services.sources.table
        exchange = Exchange(scope, receive, send, sortable_id("req", now), table)
        try:
            handler, needs_key = _handler(exchange)
            if needs_key:
                exchange.grant = authenticate(exchange.header(b"authorization"), table, now)
                exchange.record.key_id = exchange.grant.id
            await handler(exchange, self._services)
        except ClientGone:
            exchange.gone = True
        except asyncio.CancelledError:
            # Cancelled by `watch`, because the client left, or by the server at the end of its grace.
            if not exchange.gone:
                await _fail(exchange, Stopping())
        except PlatformError as error:
            await _fail(exchange, error)
        except Exception:  # noqa: BLE001 - the last resort of every request
            _log.exception("request %s failed", exchange.record.request_id)
            await _fail(exchange, InternalError())
        finally:
            exchange.leave()
            record = exchange.record
            if exchange.gone:
                record.error = "client_closed"
                record.status = record.status or _CLIENT_CLOSED
            record.duration_s = time.perf_counter() - exchange.started_s
            self._emit(record)


async def complete(exchange: Exchange, services: Services) -> None:
    """`/v1/chat/completions` and `/v1/completions`: prompt, passages, guards, upstream, answer."""
    body, route = await _routed(exchange, services)
    chat = exchange.path.startswith("/v1/chat/")
    if chat:
        messages_of(body)
    elif route.render is not None or route.retriever is not None:
        message = f"release {route.name!r} has a prompt or an index; call it with /v1/chat/completions"
        raise InvalidRequest(message, param="model")
    elif "prompt" not in body:
        message = "prompt: is missing"
        raise InvalidRequest(message, param="prompt")
    stream = wants_stream(body)
    if route.input is not None:
        body = await screen_body(route.input, body, services.work, exchange.record.findings)
    augmented = await augment(route, body, services.work)
    if augmented.grounds:
        exchange.extra.append((b"x-sluicegate-passages", passages_header(augmented.grounds)))
    outgoing = encode({**augmented.body, "model": raw(route.model)})
    call = Call(exchange.path, outgoing, stream, augmented.question, augmented.grounds)
    await _relay(exchange, route, call, services)


async def embed(exchange: Exchange, services: Services) -> None:
    """`/v1/embeddings`: a local embedder where the model names one, else the upstream."""
    body = parse(await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s))
    if await embeddings.answer_locally(exchange, body, services):
        return
    route = await resolve(exchange, model_of(body), services)
    _require_chat(route)
    if route.digest:
        message = f"release {route.name!r} has no index, so there is no embedder to answer with"
        raise InvalidRequest(message, param="model")
    call = Call(exchange.path, encode({**body, "model": raw(route.model)}), stream=False)
    await _relay(exchange, route, call, services)


async def _routed(exchange: Exchange, services: Services) -> tuple[Body, Route]:
    body = parse(await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s))
    route = await resolve(exchange, model_of(body), services)
    _require_chat(route)
    return body, route


async def _relay(exchange: Exchange, route: Route, call: Call, services: Services) -> None:
    """Open the upstream and send its answer on; if the client leaves, the upstream is closed at once."""
    task = asyncio.current_task()
    provider = route.provider
    if provider is None or task is None:
        raise NotReady
    watcher = asyncio.create_task(exchange.watch(task))
    reply: Reply | None = None
    try:
        reply = await provider.open(call)
        await forward(exchange, reply, route.output, services.work)
    finally:
        watcher.cancel()
        if reply is not None:
            await reply.close()


def _require_chat(route: Route) -> None:
    if route.kind != "chat":
        message = f"release {route.name!r} predicts; call it with POST /v2/models/{route.name}/infer"
        raise InvalidRequest(message, param="model")


async def _fail(exchange: Exchange, error: PlatformError) -> None:
    """The error as a status and body, or as the last event of a stream that has begun."""
    exchange.record.error = error.code
    if isinstance(error, GuardrailBlocked):
        exchange.record.findings.append((error.rule, "block"))
    status = status_of(error)
    if exchange.finished:
        return
    if status >= 500 and not isinstance(error, GatewayError):
        _log.error("request %s: %s: %s", exchange.record.request_id, error.code, error.message)
        hidden = GatewayError("the release cannot answer now; /health/ready says why")
        hidden.code = error.code
        error = hidden
    if exchange.started:
        await exchange.end(sse.event_of(body_of(error)) if exchange.streaming else b"")
        return
    await exchange.respond(status, body_of(error), (_JSON, *_error_headers(error)))


def _error_headers(error: PlatformError) -> Headers:
    if isinstance(error, UpstreamRefused):
        return error.headers
    status = status_of(error)
    if status == 401:
        return ((b"www-authenticate", b'Bearer realm="sluicegate"'),)
    if status == 503:
        return ((b"retry-after", b"1"),)
    if isinstance(error, WrongMethod):
        return ((b"allow", (error.param or "POST").encode()),)
    if status in (408, 413):
        return ((b"connection", b"close"),)
    return ()


_EXACT: dict[str, tuple[str, Handler, bool]] = {
    "/v1/chat/completions": ("POST", complete, True),
    "/v1/completions": ("POST", complete, True),
    "/v1/embeddings": ("POST", embed, True),
    "/v1/models": ("GET", catalogue.models, True),
    "/v2": ("GET", catalogue.server, False),
    "/v2/health/live": ("GET", catalogue.live, False),
    "/v2/health/ready": ("GET", catalogue.ready, False),
    "/predict": ("POST", predict.predict, True),
    "/predict/batch": ("POST", predict.predict_batch, True),
}
PATHS = frozenset(_EXACT)
"""Paths of the data plane; besides them everything below `/v1/` and `/v2/`."""


def _handler(exchange: Exchange) -> tuple[Handler, bool]:
    """
    The function for path and method, and whether it needs a key.

    Raises:
        UnknownPath, WrongMethod: there is none.
    """
    path = exchange.path
    exact = _EXACT.get(path)
    if exact is not None:
        exchange.record.route = path
        method, handler, needs_key = exact
    else:
        pattern, method, handler = _by_pattern(path)
        exchange.record.route = pattern
        needs_key = True
    if exchange.method != method:
        message = f"{pattern if exact is None else path} answers {method}, not {exchange.method[:16]}"
        raise WrongMethod(message, param=method)
    return handler, needs_key


def _by_pattern(path: str) -> tuple[str, str, Handler]:
    if path.startswith("/v1/models/"):
        return "/v1/models/{id}", "GET", catalogue.model
    if path.startswith("/v1/vector_stores/") and path.endswith("/search"):
        return "/v1/vector_stores/{release}/search", "POST", search.search
    if path.startswith("/v2/models/"):
        if path.endswith("/infer"):
            return "/v2/models/{name}/infer", "POST", predict.infer
        if path.endswith("/ready"):
            return "/v2/models/{name}/ready", "GET", catalogue.model_ready
        return "/v2/models/{name}", "GET", catalogue.metadata
    raise UnknownPath(f"there is nothing at {path[:200]!r}")
