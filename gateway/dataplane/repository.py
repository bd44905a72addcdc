"""
The Open Inference Protocol's model repository: what is served, and that the registry decides it.

Source: Open Inference Protocol, "Model Repository Extension", as Triton has it.
"""

from __future__ import annotations

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import decode
from gateway.dataplane.reserve import reserve
from gateway.dataplane.services import Services
from gateway.errors import InvalidRequest

_PREFIX = "/v2/repository/models/"


class IndexRequest(msgspec.Struct):
    """The body of `index`, which may be empty."""

    ready: bool = False


_INDEX = msgspec.json.Decoder(IndexRequest)


async def index(exchange: Exchange, services: Services) -> None:
    """`POST /v2/repository/index`: every prediction release that the key may call, with its state."""
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    asked = decode(data, _INDEX) if data.strip() else IndexRequest()
    await reserve(exchange, services)
    found = []
    for name, target in sorted(exchange.table.targets.items()):
        route = target.route
        if route.kind != "prediction" or ":" in name or not exchange.grant.allows(name):
            continue
        if asked.ready and route.problem is not None:
            continue
        state = "READY" if route.problem is None else "UNAVAILABLE"
        found.append({"name": name, "version": route.digest, "state": state, "reason": route.problem or ""})
    exchange.respond(200, msgspec.json.encode(found))


async def load(exchange: Exchange, services: Services) -> None:
    """
    `POST /v2/repository/models/{name}/load`: 200 where it is served already.

    Raises:
        UnknownModel, NotReady: it is not.
    """
    name = exchange.path.removeprefix(_PREFIX).removesuffix("/load")
    await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    await reserve(exchange, services)
    exchange.route_to(exchange.table.find(name, exchange.grant))
    if exchange.target is not None:
        exchange.target.ready()
    exchange.respond(200, b"{}")


async def unload(exchange: Exchange, services: Services) -> None:
    """`POST /v2/repository/models/{name}/unload`: never; raises InvalidRequest that says what does."""
    await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    await reserve(exchange, services)
    message = "what is served is what the registry's aliases name: move or roll back an alias instead"
    raise InvalidRequest(message)
