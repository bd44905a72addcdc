"""Requests that an upstream answers: chat, completions, embeddings."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from math import ceil
from typing import Any

import msgspec

from gateway.dataplane import embeddings, rerank
from gateway.dataplane.affinity import chat_beginning, key_of
from gateway.dataplane.answer import forward
from gateway.dataplane.augment import augment, passages_header
from gateway.dataplane.balance import Balance
from gateway.dataplane.cache import HEADER as HIT
from gateway.dataplane.cache import Cache
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.fit import fitted
from gateway.dataplane.idempotency import HEADER, once
from gateway.dataplane.prefer import preferred
from gateway.dataplane.request import (
    Body,
    asking_usage,
    encode,
    messages_of,
    model_of,
    parse,
    require_messages,
    wants_stream,
    wants_usage,
)
from gateway.dataplane.reserve import reserve, reserve_now
from gateway.dataplane.resolve import resolve, resolve_now
from gateway.dataplane.screen import screen_body
from gateway.dataplane.services import Services
from gateway.dataplane.stream import Wanted
from gateway.dataplane.table import Route
from gateway.dataplane.usage import UsageRecord
from gateway.dataplane.variants import DEFAULT, Branch, choose
from gateway.errors import CircuitOpen, GatewayError, InvalidRequest, NotReady, Overloaded, UpstreamError
from gateway.providers.base import Call, Ground

_CHAT = "/v1/chat/completions"
_FALLBACK = b"x-sluicegate-fallback"
_PREFERS_ITSELF = ("openrouter/",)
"""Providers that understand `models` and `provider` themselves, and are sent them."""
Answer = Callable[[Exchange, Services, bytes], Coroutine[Any, Any, None]]


class _Outgoing(msgspec.Struct, frozen=True):
    """A request as it goes to whichever upstream is picked."""

    body: Body
    stream: bool
    wanted: Wanted
    balance: Balance
    key: int | None = None
    """Of the prompt's beginning, where that chooses the place."""
    question: str | None = None
    grounds: tuple[Ground, ...] = ()


def complete(exchange: Exchange, services: Services) -> Coroutine[Any, Any, None]:
    """`/v1/chat/completions` and `/v1/completions`: prompt, passages, guards, upstream, answer."""
    return _answered(exchange, services, _complete)


def embed(exchange: Exchange, services: Services) -> Coroutine[Any, Any, None]:
    """`/v1/embeddings`: a local embedder where the model names one, else the upstream."""
    return _answered(exchange, services, _embed)


def _answered(exchange: Exchange, services: Services, answer: Answer) -> Coroutine[Any, Any, None]:
    """The usual case is a body that came with its head, and no Idempotency-Key: nothing stands between."""
    data = exchange.inbound.whole(services.limits.max_body_bytes)
    if data is not None and (services.answers is None or exchange.header(HEADER) is None):
        return answer(exchange, services, data)
    return _awaited(exchange, services, answer, data)


async def _awaited(exchange: Exchange, services: Services, answer: Answer, data: bytes | None) -> None:
    if data is None:
        data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    key = exchange.header(HEADER)
    if key is None or services.answers is None:
        await answer(exchange, services, data)
    else:
        await once(exchange, services.answers, key, data, lambda: answer(exchange, services, data))


async def chat(exchange: Exchange, services: Services, data: bytes) -> None:
    """A chat completion of the request *data*, whatever was asked at the exchange's path."""
    await _complete(exchange, services, data)


async def _complete(exchange: Exchange, services: Services, data: bytes) -> None:
    body = parse(data)
    model = model_of(body)
    route = resolve_now(exchange, model, services, body) or await resolve(exchange, model, services, body)
    _require_chat(route)
    if exchange.path == _CHAT or exchange.dialect is not None:
        require_messages(body)
    elif route.render is not None or route.retriever is not None:
        message = f"release {route.name!r} has a prompt or an index; call it with /v1/chat/completions"
        raise InvalidRequest(message, param="model")
    elif "prompt" not in body:
        message = "prompt: is missing"
        raise InvalidRequest(message, param="prompt")
    stream = wants_stream(body)
    began_s = exchange.elapsed_s()
    balance, is_kept = route.balance, True
    if ("models" in body or "provider" in body) and not first(route).startswith(_PREFERS_ITSELF):
        is_kept = False
        balance, body = await preferred(exchange, route, body, services)
    if balance is None:
        raise NotReady
    size, model = len(data), balance.model_name
    waiting = reserve_now(exchange, services, body=body, size=size, model=model, generates=True)
    if waiting is not None:
        await waiting
    reserved_s = exchange.elapsed_s()
    exchange.record.admit_s += reserved_s - began_s
    if route.input is not None:
        body = await screen_body(route.input, body, services.work, exchange.record.findings)
    target = exchange.target
    if target is not None and target.mirror is not None and "messages" in body:
        exchange.mirrored = body
    question: str | None = None
    grounds: tuple[Ground, ...] = ()
    if route.parameters or route.render is not None or route.retriever is not None:
        branch = _branch(exchange, route) if route.branches else None
        augmented = await augment(route, body, services.work, branch)
        body, question, grounds = augmented.body, augmented.question, augmented.grounds
        if grounds:
            exchange.extra.append((b"x-sluicegate-passages", passages_header(grounds)))
    usage = True
    if stream and not wants_usage(body):
        usage, body = False, asking_usage(body)
    exchange.record.guard_s = exchange.elapsed_s() - reserved_s
    key = key_of(chat_beginning(messages_of(body))) if balance.is_affine and "messages" in body else None
    wanted = Wanted(usage, -(-len(data) // 4))
    outgoing = _Outgoing(body, stream, wanted, balance, key, question, grounds)
    if services.cache is None or not is_kept:
        await _relay(exchange, route, outgoing, services)
    else:
        await _cached(exchange, route, outgoing, services, services.cache)


async def _cached(
    exchange: Exchange, route: Route, outgoing: _Outgoing, services: Services, cache: Cache
) -> None:
    """The answer that an equal request got, or that of an upstream, which is then kept."""
    key = cache.key(exchange, route, outgoing.body, usage=outgoing.wanted.usage)
    kept = cache.get(key) if key is not None else None
    if kept is not None:
        exchange.dialect = None  # it was kept as it was sent
        exchange.record.replayed = True
        exchange.extra.append((HIT, b"hit"))
        exchange.respond(200, kept.body, kept.headers)
        return
    if key is None:
        await _relay(exchange, route, outgoing, services)
        return
    exchange.extra.append((HIT, b"miss"))
    if exchange.copy is None:
        exchange.copy = []
    await _relay(exchange, route, outgoing, services)
    record = exchange.record
    if exchange.finished and not exchange.gone and not record.error and record.status == 200:
        cache.put(key, route, exchange.sent_headers, b"".join(exchange.copy))


def order(exchange: Exchange, services: Services) -> Coroutine[Any, Any, None]:
    """`/v1/rerank`: a local embedder where the model names one, else the upstream."""
    return _answered(exchange, services, _order)


async def _order(exchange: Exchange, services: Services, data: bytes) -> None:
    body = parse(data)
    if not await rerank.answer_locally(exchange, body, data, services):
        await _without_release(exchange, services, body, data)


async def _embed(exchange: Exchange, services: Services, data: bytes) -> None:
    body = parse(data)
    if not await embeddings.answer_locally(exchange, body, services):
        await _without_release(exchange, services, body, data)


async def _without_release(exchange: Exchange, services: Services, body: Body, data: bytes) -> None:
    """What reads and does not write goes to the provider that the model names, as it is."""
    route = await resolve(exchange, model_of(body), services)
    _require_chat(route)
    if route.digest:
        message = f"release {route.name!r} has no index, so there is no embedder to answer with"
        raise InvalidRequest(message, param="model")
    await reserve(exchange, services, body=body, size=len(data), model=first(route))
    if route.balance is None:
        raise NotReady
    outgoing = _Outgoing(body, False, Wanted(prompt_tokens=-(-len(data) // 4)), route.balance)
    await _relay(exchange, route, outgoing, services)


def _branch(exchange: Exchange, route: Route) -> Branch | None:
    """The variant that answers this user; noted, and named in the answer."""
    record = exchange.record
    chosen = choose(route.branches, route.digest, record.user or record.session or record.account)
    record.variant = chosen.name if chosen is not None else DEFAULT
    exchange.extra.append((b"x-sluicegate-variant", record.variant.encode()))
    return chosen


def circuit_open(name: str, wait_s: float) -> CircuitOpen:
    """What a client is told while *name* is left alone for another *wait_s*."""
    seconds = max(1, ceil(wait_s))
    return CircuitOpen(
        f"{name} is left alone after failures; try again in {seconds} s", retry_after_s=seconds
    )


def first(route: Route) -> str:
    """The `provider/model` that is asked first. Raises NotReady where there is none."""
    if route.balance is None:
        raise NotReady
    return route.balance.model_name


async def _relay(exchange: Exchange, route: Route, outgoing: _Outgoing, services: Services) -> None:
    """
    Ask one upstream after the other until one has begun to answer, and send its answer on.

    Raises:
        UpstreamError: the last one tried failed, or one failed after its answer had begun.
        CircuitOpen: none may be tried now.
    """
    balance = outgoing.balance
    plan = balance.plan(outgoing.key)
    record = exchange.record
    trace = services.span(record) if services.span is not None else record.trace.encode()
    began_s = exchange.elapsed_s()
    last: GatewayError | None = None
    while True:
        pick = plan.next()
        if pick is None:
            raise last or circuit_open(balance.model_name, balance.wait_s())
        record.attempts += 1
        record.model, record.upstream, record.fallback = pick.model_name, pick.name, plan.is_fallback
        try:
            translated = exchange.dialect is not None
            body, path = fitted(outgoing.body, pick.model_name, translated=translated), exchange.path
            if translated:
                path = _CHAT
            data = encode({**body, "model": pick.model_json})
            call = Call(path, data, outgoing.stream, outgoing.question, outgoing.grounds, trace)
            reply = await pick.provider.open(call)
            record.upstream_s = exchange.elapsed_s() - began_s
            if record.fallback:
                exchange.extra = [header for header in exchange.extra if header[0] != _FALLBACK]
                exchange.extra.append((_FALLBACK, pick.model_name.encode()))
            try:
                await forward(exchange, reply, route.output, services.work, outgoing.wanted)
            finally:
                await reply.close()
        except (UpstreamError, Overloaded, NotReady) as error:
            pause_s = plan.failed(error)
            if exchange.started or pause_s is None:
                raise
            last = error
            _forget(record)
        except BaseException:
            plan.left()
            if exchange.gone and not record.prompt_tokens:
                record.prompt_tokens, record.estimated = outgoing.wanted.prompt_tokens, True
            raise
        else:
            plan.succeeded()
            return
        if pause_s > 0:
            await asyncio.sleep(pause_s)


def _forget(record: UsageRecord) -> None:
    """Nothing of a failed try is in the answer that another one gives."""
    record.prompt_tokens = record.completion_tokens = record.cached_tokens = record.reasoning_tokens = 0
    record.estimated = record.streaming = False


def _require_chat(route: Route) -> None:
    if route.kind != "chat":
        message = f"release {route.name!r} predicts; call it with POST /v2/models/{route.name}/infer"
        raise InvalidRequest(message, param="model")
