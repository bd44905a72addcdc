"""
What a request prefers of the upstreams that could answer it: fields `models` and `provider` of the body.

`models` names further models, asked in turn when the first cannot answer; for models that are called directly
alone, as a release is exactly what was proven. `provider` narrows and orders the places: `order`, `only`,
`ignore`, `allow_fallbacks`, `max_price`, `data_collection`. Neither field is sent on. What was answered by
them is not cached.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from gateway.dataplane.balance import Balance, Upstream
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import Body, field
from gateway.dataplane.services import Services
from gateway.dataplane.table import Route
from gateway.errors import InvalidRequest, NotReady

_FIELDS = ("models", "provider")
_MOST_MODELS = 8
_PICO = 1_000_000
"""Pico-USD for a token in a dollar for a million tokens."""
_MODELS = msgspec.json.Decoder(list[str] | None)


class MaxPrice(msgspec.Struct, forbid_unknown_fields=True):
    """US dollars for a million tokens; None: any price."""

    prompt: float | None = None
    completion: float | None = None


class Preferences(msgspec.Struct, forbid_unknown_fields=True):
    """The field `provider`; names are those of providers, or of one place such as `vllm#2`."""

    order: list[str] = []
    only: list[str] = []
    ignore: list[str] = []
    allow_fallbacks: bool = True
    max_price: MaxPrice | None = None
    data_collection: Literal["allow", "deny"] = "allow"


_PREFERENCES = msgspec.json.Decoder(Preferences | None)


async def preferred(exchange: Exchange, route: Route, body: Body, services: Services) -> tuple[Balance, Body]:
    """
    The upstreams that the request accepts, best first, and its body without what it prefers.

    Raises:
        InvalidRequest: malformed, more models for a release, or nothing is left that it accepts.
        KeyNotAllowed, UnknownModel, NotReady: a further model may not or cannot be asked.
    """
    if route.balance is None:
        raise NotReady
    wanted: Preferences = field(body, "provider", _PREFERENCES) or Preferences()
    tiers = [list(tier) for tier in route.balance.tiers]
    names: Sequence[str] = field(body, "models", _MODELS) or ()
    if names and route.digest:
        message = f"models: {route.name!r} is a release, which names its own fallbacks; leave it out"
        raise InvalidRequest(message, param="models")
    if len(names) > _MOST_MODELS:
        raise InvalidRequest(f"models: {len(names)} are more than {_MOST_MODELS}", param="models")
    known = {tiers[0][0].model_name}
    for name in names:
        if name not in known:
            known.add(name)
            tiers += await _tiers(exchange, name, services)
    if not wanted.allow_fallbacks:
        tiers = tiers[:1]
    kept = [[place for place in tier if _accepts(exchange, wanted, place)] for tier in tiers]
    kept = [tier for tier in kept if tier]
    if not kept:
        there_are = ", ".join(sorted({place.name for tier in tiers for place in tier}))
        message = f"provider: nothing is left of {there_are} by what the request accepts"
        raise InvalidRequest(message, param="provider")
    if wanted.order:
        kept = [ordered for tier in kept for ordered in _in_order(tier, wanted.order)]
        kept.sort(key=lambda tier: _rank(tier[0], wanted.order))
    balance = Balance(kept, max_retries=route.balance.max_retries, total_s=route.balance.total_s)
    return balance, {name: value for name, value in body.items() if name not in _FIELDS}


async def _tiers(exchange: Exchange, name: str, services: Services) -> list[list[Upstream]]:
    if "/" not in name:
        message = f"models: {name[:200]!r} is not provider/model; a release has to be asked for by itself"
        raise InvalidRequest(message, param="models")
    exchange.grant.require(name)
    target = services.sources.known(name) or await services.sources.direct(name)
    balance = target.ready().balance
    if balance is None:
        raise NotReady
    return [list(tier) for tier in balance.tiers]


def _accepts(exchange: Exchange, wanted: Preferences, place: Upstream) -> bool:
    if wanted.only and not _is_any(place, wanted.only):
        return False
    if _is_any(place, wanted.ignore):
        return False
    if wanted.data_collection == "deny" and not place.keeps_nothing:
        return False
    most = wanted.max_price
    if most is None:
        return True
    price = exchange.table.prices.of(place.model_name, exchange.now)
    if price is None:
        return False
    pairs = ((most.prompt, price.input_picousd), (most.completion, price.output_picousd))
    return all(bound is None or picousd <= bound * _PICO for bound, picousd in pairs)


def _is_any(place: Upstream, names: Sequence[str]) -> bool:
    provider = place.model_name.partition("/")[0]
    return any(name in (place.name, provider, place.model_name) for name in names)


def _rank(place: Upstream, order: Sequence[str]) -> int:
    return next((at for at, name in enumerate(order) if _is_any(place, [name])), len(order))


def _in_order(tier: Sequence[Upstream], order: Sequence[str]) -> list[list[Upstream]]:
    """A tier for each rank: places that were asked for before others are tried before them."""
    found: dict[int, list[Upstream]] = {}
    for place in tier:
        found.setdefault(_rank(place, order), []).append(place)
    return [found[rank] for rank in sorted(found)]
