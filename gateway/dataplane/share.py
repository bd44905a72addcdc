"""Which of the releases that share an alias's traffic answers whom."""

from __future__ import annotations

import hashlib
from math import log
from time import monotonic

from gateway.dataplane.table import Route, Share, Target

_SPAN = 2.0**64


def arm_for(share: Share, seed: str, who: str) -> Target:
    """
    The target for *who*, each with its weight's share of all; one that cannot answer now is passed over.

    Weighted rendezvous hashing, as in C. Schindelhauer and G. Schomaker, "Weighted Distributed Hash Tables",
    SPAA 2005 (the logarithmic method): a release whose weight grows loses nobody, one whose weight shrinks
    wins nobody. All follows from digests, *seed* and *who*, so all processes agree.
    """
    best: Target | None = None
    least = 0.0
    for weight, target in share.arms:
        if best is not None and not _can_answer(target.route):
            continue
        point = hashlib.sha256(f"{seed}\0{target.route.digest}\0{who}".encode()).digest()
        distance = -log((int.from_bytes(point[:8]) + 1) / _SPAN) / weight
        if best is None or distance < least:
            best, least = target, distance
    assert best is not None, "an alias's own release is always an arm"  # noqa: S101
    return best


def _can_answer(route: Route) -> bool:
    """Whether *route* is loaded and any of its upstreams may be asked."""
    if route.problem is not None:
        return False
    if route.breaker is not None:
        return route.breaker.wait_s(monotonic()) <= 0
    return route.balance is None or route.balance.available()
