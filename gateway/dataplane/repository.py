"""
The Open Inference Protocol's model repository: what is served, and that the registry decides it.

Source: Open Inference Protocol, "Model Repository Extension", as Triton has it.
"""

from __future__ import annotations

from fnmatch import fnmatchcase

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import decode
from gateway.dataplane.reserve import reserve
from gateway.dataplane.services import Services
from gateway.errors import KeyNotAllowed, RegistryDecides

_MODELS = "/v2/repository/models/"
_REPOSITORY = "/v2/repository/"


class IndexRequest(msgspec.Struct):
    """The body of `index`, which may be empty."""

    ready: bool = False


_INDEX = msgspec.json.Decoder(IndexRequest)


async def index(exchange: Exchange, services: Services) -> None:
    """
    `POST /v2/repository/index`: every version of a classical model that the key may call, with its state.

    A version is what may stand behind `/versions/`: an alias or a number; for the name alone it is the
    digest of what production serves.
    """
    data = await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    asked = decode(data, _INDEX) if data.strip() else IndexRequest()
    await reserve(exchange, services)
    found = []
    for name, target in sorted(exchange.table.targets.items()):
        route = target.route
        if route.kind != "prediction" or "@sha256:" in name or not exchange.grant.allows(name):
            continue
        if asked.ready and route.problem is not None:
            continue
        version = name.removeprefix(route.name)[1:] or route.digest
        state = "READY" if route.problem is None else "UNAVAILABLE"
        reason = route.problem or ""
        found.append({"name": route.name, "version": version, "state": state, "reason": reason})
    exchange.respond(200, msgspec.json.encode(found))


async def load(exchange: Exchange, services: Services) -> None:
    """`POST /v2/repository/models/{name}/load`: see `_refuse`."""
    await _refuse(exchange, services, "/load")


async def unload(exchange: Exchange, services: Services) -> None:
    """`POST /v2/repository/models/{name}/unload`: see `_refuse`."""
    await _refuse(exchange, services, "/unload")


async def _refuse(exchange: Exchange, services: Services, what: str) -> None:
    """
    Say what loads and unloads a model: an alias of the registry.

    Raises:
        KeyNotAllowed: no route pattern of the key names the repository.
        UnknownModel: nothing has that name.
        RegistryDecides: always, otherwise.
    """
    await exchange.body(services.limits.max_body_bytes, services.limits.body_timeout_s)
    await reserve(exchange, services)
    patterns = [pattern for pattern in exchange.grant.routes if pattern.startswith(_REPOSITORY)]
    if not any(fnmatchcase(exchange.path, pattern) for pattern in patterns):
        message = f"{exchange.path[:200]!r} takes a key that names it, such as one made for {_REPOSITORY}*"
        raise KeyNotAllowed(message)
    name = exchange.path.removeprefix(_MODELS).removesuffix(what)
    exchange.table.find(name, exchange.grant)
    message = (
        f"{name[:64]!r} is served for as long as an alias of the registry names it: move or roll back the "
        f"alias, as `registry promote` and `registry rollback` do"
    )
    raise RegistryDecides(message, param="name")
