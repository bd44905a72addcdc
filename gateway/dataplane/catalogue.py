"""What there is: `/v1/models`, and the Open Inference Protocol's server and model metadata."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import Any

import msgspec

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.resolve import model_in_path, resolve
from gateway.dataplane.services import Services
from gateway.dataplane.table import Target
from gateway.errors import InvalidRequest, NotReady

EXTENSIONS = ("binary_tensor_data", "model_repository")
"""Of the Open Inference Protocol."""


async def models(exchange: Exchange, services: Services) -> None:
    """`GET /v1/models`: every release and alias that the key may call, sorted."""
    del services
    data = [
        _listed(name, target, exchange)
        for name, target in sorted(exchange.table.targets.items())
        if ":" not in name and exchange.grant.allows(name)
    ]
    exchange.respond(200, msgspec.json.encode({"object": "list", "data": data}))


async def model(exchange: Exchange, services: Services) -> None:
    """`GET /v1/models/{id}`: one of them, or a provider's model that can be called directly."""
    name = exchange.path.removeprefix("/v1/models/")
    if "/" in name:
        await resolve(exchange, name, services)
    else:
        exchange.route_to(exchange.table.find(name, exchange.grant))
    target = exchange.target
    assert target is not None  # noqa: S101 - both ways above set it
    exchange.respond(200, msgspec.json.encode(_listed(name, target, exchange)))


async def server(exchange: Exchange, services: Services) -> None:
    """`GET /v2`."""
    del services
    try:
        number = version("sluicegate")
    except PackageNotFoundError:
        number = "0"
    answer = {
        "name": "sluicegate",
        "version": number,
        "extensions": list(EXTENSIONS),
    }
    exchange.respond(200, msgspec.json.encode(answer))


async def live(exchange: Exchange, services: Services) -> None:
    """`GET /v2/health/live`: this process answers."""
    del services
    exchange.respond(200, b'{"live":true}')


async def ready(exchange: Exchange, services: Services) -> None:
    """`GET /v2/health/ready`: 200 when every release in production can answer, else 503."""
    is_ready = services.sources.ready
    exchange.respond(200 if is_ready else 503, msgspec.json.encode({"live": True, "ready": is_ready}))


async def model_ready(exchange: Exchange, services: Services) -> None:
    """`GET /v2/models/{name}[/versions/{v}]/ready`."""
    del services
    name = model_in_path(exchange.path, "/v2/models/", "/ready")
    target = exchange.table.find(name, exchange.grant)
    exchange.route_to(target)
    is_ready = target.route.problem is None
    exchange.respond(200 if is_ready else 503, msgspec.json.encode({"name": name, "ready": is_ready}))


async def metadata(exchange: Exchange, services: Services) -> None:
    """
    `GET /v2/models/{name}[/versions/{v}]`: the tensors that `infer` takes and gives.

    Raises:
        InvalidRequest: a chat release.
        NotReady: the model is not loaded, so its features are not known.
    """
    del services
    name = model_in_path(exchange.path, "/v2/models/")
    target = exchange.table.find(name, exchange.grant)
    exchange.route_to(target)
    route = target.ready()
    if route.kind != "prediction":
        message = f"release {route.name!r} is a chat release; it has no tensors"
        raise InvalidRequest(message)
    predictor = route.predictor
    if predictor is None:
        raise NotReady
    inputs = [
        {"name": f.name, "datatype": "BYTES" if f.dtype == "text" else "FP64", "shape": [-1]}
        for f in predictor.features
    ]
    classes = list(predictor.classes)
    answer: dict[str, Any] = {
        "name": exchange.path.removeprefix("/v2/models/").partition("/")[0],
        "versions": _versions(route.name, exchange),
        "platform": "onnx_onnxv1",
        "inputs": inputs,
        "outputs": [
            {"name": "label", "datatype": "BYTES", "shape": [-1]},
            {
                "name": "probability",
                "datatype": "FP64",
                "shape": [-1, len(classes)],
                "parameters": {"classes": classes},
            },
        ],
    }
    exchange.respond(200, msgspec.json.encode(answer))


def _versions(release: str, exchange: Exchange) -> list[str]:
    """What may stand behind `/versions/` of *release*: numbers, aliases, digests; each sorted."""
    names = [name.removeprefix(release) for name in exchange.table.targets if name.startswith(release)]
    numbers = sorted(int(name[1:]) for name in names if name.startswith(":"))
    others = sorted(name[1:] for name in names if name.startswith("@"))
    digests = [name for name in others if name.startswith("sha256:")]
    aliases = [name for name in others if not name.startswith("sha256:")]
    return [*map(str, numbers), *aliases, *digests]


def _listed(name: str, target: Target, exchange: Exchange) -> dict[str, Any]:
    """
    An entry of `/v1/models`: OpenAI's fields, and what the gateway knows beyond them.

    `price` is in pico-USD (10^-12) per token and of now, null where nobody has said; `context_tokens` is
    there where the provider tells how long prompt and answer may be together. Both are of the model that
    is asked first.
    """
    route = target.route
    owner = "sluicegate" if route.digest else name.partition("/")[0]
    entry: dict[str, Any] = {"id": name, "object": "model", "created": target.created_s, "owned_by": owner}
    if route.digest:
        entry |= {"kind": route.kind, "digest": route.digest, "ready": route.problem is None}
    if route.balance is not None:
        price = (route.prices or exchange.table.prices).of(route.balance.model_name, exchange.now)
        entry["price"] = price and {
            "input_picousd": price.input_picousd,
            "output_picousd": price.output_picousd,
            "cached_input_picousd": price.cached_input_picousd,
        }
    context = route.provider.status().get("context_tokens") if route.provider is not None else None
    if context is not None:
        entry["context_tokens"] = context
    return entry
