"""Handlers of APIs that are answered by chat completions: Anthropic's Messages."""

from __future__ import annotations

import msgspec

from gateway.dataplane.complete import chat
from gateway.dataplane.dialects import messages as anthropic
from gateway.dataplane.dialects.messages_reply import Messages
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.idempotency import HEADER, once
from gateway.dataplane.reserve import reserve
from gateway.dataplane.resolve import resolve
from gateway.dataplane.services import Services
from gateway.dataplane.usage import estimate_tokens


async def messages(exchange: Exchange, services: Services) -> None:
    """
    `POST /v1/messages`: prompt, passages, guards and upstream as for a chat completion.

    Raises:
        InvalidRequest: malformed, or something that chat completions cannot carry.
    """
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    key = exchange.header(HEADER)
    if key is None or services.answers is None:
        await _message(exchange, services, data)
    else:
        await once(exchange, services.answers, key, data, lambda: _message(exchange, services, data))


async def _message(exchange: Exchange, services: Services, data: bytes) -> None:
    asked = msgspec.json.encode(anthropic.to_chat(data))
    exchange.dialect = Messages(exchange.record.request_id, -(-len(asked) // 4))
    await chat(exchange, services, asked)


async def count_tokens(exchange: Exchange, services: Services) -> None:
    """
    `POST /v1/messages/count_tokens`: an estimate, one token for each four bytes of what the model reads.

    Raises:
        InvalidRequest: as `messages`.
    """
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    exchange.dialect = Messages(exchange.record.request_id)
    asked = anthropic.to_count(data)
    await resolve(exchange, asked["model"], services)
    await reserve(exchange, services)
    tokens = sum(map(estimate_tokens, anthropic.texts_of(asked)))
    exchange.dialect = None
    exchange.respond(200, msgspec.json.encode({"input_tokens": tokens}))
