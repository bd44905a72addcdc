"""Splits of the registry as targets that share their traffic."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import replace

from gateway.dataplane.table import Headers, Mirror, Route, Subject, Target
from gateway.dataplane.table import Share as TargetShare
from registry.entities import Limits, Shadow, Split
from registry.entities.splits import WHOLE

SHADOW = "shadow"
"""The arm that a shadow's records are of."""


def shared_target(
    split: Split, base: Target, routes: Mapping[tuple[str, str], Route], mirror: Mirror | None
) -> Target:
    """*base* with its arms; one that is not served leaves its share to the others."""
    own = _arm(base, base.route, split.alias, mirror)
    arms = [(float(split.rest), own)]
    for arm in split.arms:
        route = routes.get((split.name, arm.digest))
        if route is not None:
            arms.append((float(arm.share), _arm(base, route, arm.name, mirror)))
    return replace(own, share=TargetShare(tuple(arms), split.sticky)) if split.arms else own


def mirror_of(split: Split, shadow: Shadow, route: Route) -> Mirror:
    """What is asked beside the arms of *split*."""
    account = account_of(split.name, split.alias)
    limits = Limits(budget_microusd=shadow.microusd_per_day, budget_period="day")
    subjects = () if shadow.microusd_per_day is None else (Subject("key", account, limits),)
    return Mirror(Target(route, split.alias, arm=SHADOW), shadow.share / WHOLE, account, subjects)


def account_of(name: str, alias: str) -> str:
    """
    What a shadow's spending is counted under; it fits where accounts of keys do.

    >>> account_of("support", "production")
    'shd_2fe749e196499427ce6619b46bd42845'
    """
    return "shd_" + hashlib.sha256(f"{name}@{alias}".encode()).hexdigest()[:32]


def headers_of(route: Route, alias: str = "", arm: str = "") -> Headers:
    """What every answer of *route* says about itself."""
    headers = [
        (b"x-sluicegate-release", route.name.encode()),
        (b"x-sluicegate-digest", route.digest.encode()),
    ]
    if alias:
        headers.append((b"x-sluicegate-alias", alias.encode()))
    if arm:
        headers.append((b"x-sluicegate-arm", arm.encode()))
    return tuple(headers)


def _arm(base: Target, route: Route, name: str, mirror: Mirror | None) -> Target:
    headers = headers_of(route, base.alias, name)
    return Target(route, base.alias, headers, base.created_s, arm=name, mirror=mirror)
