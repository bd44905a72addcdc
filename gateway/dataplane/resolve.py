"""Model name → route."""

from __future__ import annotations

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.services import Services
from gateway.dataplane.table import Route
from gateway.errors import UnknownModel
from registry.ids import is_digest


async def resolve(exchange: Exchange, model: str, services: Services) -> Route:
    """
    The route that *model* names; from here on the answer names its release.

    Raises:
        KeyNotAllowed, UnknownModel: the key may not, or nothing has that name.
        NotReady: its parts are loading, or could not be loaded.
    """
    route = resolve_now(exchange, model, services)
    if route is None:
        target = await services.sources.direct(model)
        exchange.route_to(target)
        route = target.ready()
    return route


def resolve_now(exchange: Exchange, model: str, services: Services) -> Route | None:
    """`resolve` without waiting: None where a `provider/model` is not known yet. Raises the same."""
    if "/" in model:
        exchange.grant.require(model)
        target = services.sources.known(model)
        if target is None:
            return None
    else:
        target = exchange.table.find(model, exchange.grant)
    exchange.route_to(target)
    return target.ready()


def model_in_path(path: str, prefix: str, suffix: str = "") -> str:
    """
    The release that a `/v2/models/NAME[/versions/V]` path names, as a model name.

    V is a digest or a version number.

    Raises:
        UnknownModel: the name is empty or the path has further parts.

    >>> model_in_path("/v2/models/churn/versions/3/infer", "/v2/models/", "/infer")
    'churn:3'
    """
    inner = path.removeprefix(prefix).removesuffix(suffix)
    name, versions, version = inner.partition("/versions/")
    if not name or "/" in name or "/" in version or (versions and not version):
        message = f"no model at {path[:200]!r}"
        raise UnknownModel(message)
    if not versions:
        return name
    return f"{name}@{version}" if is_digest(version) else f"{name}:{version}"
