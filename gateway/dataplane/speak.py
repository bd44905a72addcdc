"""Handlers of APIs that are answered by chat completions: Anthropic's Messages and OpenAI's Responses."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from gateway.dataplane.complete import chat
from gateway.dataplane.dialects import messages as anthropic
from gateway.dataplane.dialects import responses as openai
from gateway.dataplane.dialects.messages_reply import Messages
from gateway.dataplane.dialects.responses_reply import Keep, Responses
from gateway.dataplane.dialects.responses_wire import Item
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.idempotency import HEADER, once
from gateway.dataplane.reserve import reserve
from gateway.dataplane.resolve import resolve
from gateway.dataplane.services import Services
from gateway.dataplane.stored import Kept
from gateway.dataplane.usage import estimate_tokens
from gateway.errors import InvalidRequest, UnknownResponse

Answer = Callable[[Exchange, Services, bytes], Awaitable[None]]
_ITEMS = msgspec.json.Decoder(list[dict[str, Any]])
_RESPONSES = "/v1/responses/"
_MOST_ITEMS, _ITEMS_IN_PAGE = 100, 20


async def messages(exchange: Exchange, services: Services) -> None:
    """
    `POST /v1/messages`: prompt, passages, guards and upstream as for a chat completion.

    Raises:
        InvalidRequest: malformed, or something that chat completions cannot carry.
    """
    await _answered(exchange, services, _message)


async def count_tokens(exchange: Exchange, services: Services) -> None:
    """
    `POST /v1/messages/count_tokens`: an estimate, one token for each four bytes of what the model reads.

    Raises:
        InvalidRequest: as `messages`.
    """
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    asked = anthropic.to_count(data)
    await resolve(exchange, asked["model"], services)
    await reserve(exchange, services)
    tokens = sum(map(estimate_tokens, anthropic.texts_of(asked)))
    exchange.respond(200, msgspec.json.encode({"input_tokens": tokens}))


async def respond(exchange: Exchange, services: Services) -> None:
    """
    `POST /v1/responses`: as a chat completion; kept for `previous_response_id` unless `store` is false.

    Raises:
        InvalidRequest: malformed, or something that chat completions cannot carry.
        UnknownResponse: no such response of this account is kept.
    """
    await _answered(exchange, services, _response)


async def response(exchange: Exchange, services: Services) -> None:
    """`GET /v1/responses/{id}`: a response that was kept. Raises UnknownResponse."""
    await reserve(exchange, services)
    exchange.respond(200, _kept(exchange, services, exchange.path.removeprefix(_RESPONSES)).response)


async def forget_response(exchange: Exchange, services: Services) -> None:
    """`DELETE /v1/responses/{id}`: forget it now. Raises UnknownResponse."""
    await reserve(exchange, services)
    name = exchange.path.removeprefix(_RESPONSES)
    if services.responses is None or not services.responses.drop(exchange.record.account, name):
        raise _unknown(name)
    answer = {"id": name, "object": "response", "deleted": True}
    exchange.respond(200, msgspec.json.encode(answer))


async def input_items(exchange: Exchange, services: Services) -> None:
    """
    `GET /v1/responses/{id}/input_items`: what it answered, a page of *limit* from behind *after*, oldest last
    unless *order* is `asc`.

    Raises:
        UnknownResponse: it is not kept.
        InvalidRequest: `limit` is not in 1 to 100, `order` is another word, or no item is called `after`.
    """
    await reserve(exchange, services)
    name = exchange.path.removeprefix(_RESPONSES).removesuffix("/input_items")
    kept = _kept(exchange, services, name)
    items = _ITEMS.decode(kept.items)[: kept.inputs]
    found = [{"id": f"item_{at}", "type": "message", **_shown(item)} for at, item in enumerate(items)]
    exchange.respond(200, msgspec.json.encode(_page(exchange, found)))


def _page(exchange: Exchange, found: list[Item]) -> dict[str, Any]:
    order, limit, after = (exchange.query(name) for name in ("order", "limit", "after"))
    if order not in (None, "asc", "desc"):
        raise _wrong("order", "must be asc or desc")
    if limit is not None and not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= _MOST_ITEMS):
        raise _wrong("limit", f"must be a whole number from 1 to {_MOST_ITEMS}")
    if order != "asc":
        found.reverse()
    begin = 0
    if after is not None:
        begin = next((at for at, item in enumerate(found, 1) if item["id"] == after), 0)
        if not begin:
            raise _wrong("after", "names no input item of this response")
    end = begin + int(limit or _ITEMS_IN_PAGE)
    page = found[begin:end]
    first, last = (page[0]["id"], page[-1]["id"]) if page else (None, None)
    more = end < len(found)
    return {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": more}


def _wrong(name: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: {why}", param=name)


async def _answered(exchange: Exchange, services: Services, answer: Answer) -> None:
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    key = exchange.header(HEADER)
    if key is None or services.answers is None:
        await answer(exchange, services, data)
    else:
        await once(exchange, services.answers, key, data, lambda: answer(exchange, services, data))


async def _message(exchange: Exchange, services: Services, data: bytes) -> None:
    asked = msgspec.json.encode(anthropic.to_chat(data))
    exchange.dialect = Messages(exchange.record.request_id, -(-len(asked) // 4))
    await chat(exchange, services, asked)


async def _response(exchange: Exchange, services: Services, data: bytes) -> None:
    asked = openai.read(data)
    items = openai.items_of(asked)
    if asked.previous_response_id is not None:
        items = [*_ITEMS.decode(_kept(exchange, services, asked.previous_response_id).items), *items]
    sent = msgspec.json.encode(openai.to_chat(asked, items))
    keep = _keeping(exchange, services, items) if asked.store is not False else None
    created_s = int(exchange.now.timestamp())
    exchange.dialect = Responses(exchange.record.request_id, asked, created_s, keep)
    await chat(exchange, services, sent)


def _keeping(exchange: Exchange, services: Services, items: list[Item]) -> Keep | None:
    kept = services.responses
    if kept is None:
        return None
    tenant = exchange.record.account

    def keep(made: dict[str, Any]) -> None:
        whole = msgspec.json.encode([*items, *made["output"]])
        kept.put(tenant, made["id"], msgspec.json.encode(made), whole, len(items))

    return keep


def _kept(exchange: Exchange, services: Services, name: str) -> Kept:
    kept = services.responses.get(exchange.record.account, name) if services.responses is not None else None
    if kept is None:
        raise _unknown(name)
    return kept


def _unknown(name: str) -> UnknownResponse:
    message = f"no response {name[:80]!r} is kept; send the whole input instead of previous_response_id"
    return UnknownResponse(message, param="previous_response_id")


def _shown(item: Item) -> Item:
    """A message's text as a part, as the API shows it."""
    if isinstance(item.get("content"), str) and item.get("role") != "assistant":
        return {**item, "content": [{"type": "input_text", "text": item["content"]}]}
    return item
