"""Model name → route."""

from __future__ import annotations

from gateway.dataplane.exchange import Exchange
from gateway.dataplane.request import Body
from gateway.dataplane.reserve import person_of, session_of
from gateway.dataplane.services import Services
from gateway.dataplane.share import arm_for
from gateway.dataplane.table import Route, Share, Target
from gateway.errors import UnknownModel

_NOTHING: Body = {}


async def resolve(exchange: Exchange, model: str, services: Services, body: Body = _NOTHING) -> Route:
    """
    The route that *model* names; from here on the answer names its release.

    Args:
        body: of the request, where it may say who the user is: an alias may be shared between releases.

    Raises:
        KeyNotAllowed, UnknownModel: the key may not, or nothing has that name.
        NotReady: its parts are loading, or could not be loaded.
    """
    route = resolve_now(exchange, model, services, body)
    if route is None:
        target = await services.sources.direct(model)
        exchange.route_to(target)
        route = target.ready()
    return route


def resolve_now(exchange: Exchange, model: str, services: Services, body: Body = _NOTHING) -> Route | None:
    """`resolve` without waiting: None where a `provider/model` is not known yet. Raises the same."""
    if "/" in model:
        exchange.grant.require(model)
        target = services.sources.known(model)
        if target is None:
            return None
    else:
        target = exchange.table.find(model, exchange.grant)
        if target.share is not None:
            target = _arm(exchange, target, target.share, body)
    exchange.route_to(target)
    return target.ready()


def _arm(exchange: Exchange, target: Target, share: Share, body: Body) -> Target:
    """Who answers: the same for as long as the one whom requests stick by is the same."""
    who = ""
    sticky = share.sticky
    if sticky == "key":
        who = exchange.record.account
    elif sticky != "request":
        if sticky == "user":
            who = person_of(exchange, body)
        who = who or session_of(exchange)
    return arm_for(share, f"{target.route.name}@{target.alias}", who or exchange.record.request_id)


def model_in_path(path: str, prefix: str, suffix: str = "") -> str:
    """
    The release that a `/v2/models/NAME[/versions/V]` path names, as a model name.

    V is a version number, an alias or a digest.

    Raises:
        UnknownModel: the name is empty or the path has further parts.

    >>> model_in_path("/v2/models/churn/versions/3/infer", "/v2/models/", "/infer")
    'churn:3'
    >>> model_in_path("/v2/models/churn/versions/candidate/infer", "/v2/models/", "/infer")
    'churn@candidate'
    """
    inner = path.removeprefix(prefix).removesuffix(suffix)
    name, versions, version = inner.partition("/versions/")
    if not name or "/" in name or "/" in version or (versions and not version):
        message = f"no model at {path[:200]!r}"
        raise UnknownModel(message)
    if not versions:
        return name
    return f"{name}:{version}" if version.isdigit() else f"{name}@{version}"
