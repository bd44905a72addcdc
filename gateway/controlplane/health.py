"""What the gateway says about its own state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gateway.controlplane.refresh import Live, is_left_alone, is_ready, provider_status
from registry.clock import to_text


def readiness(live: Live) -> dict[str, Any]:
    """
    The body of `/health/ready`: whether every release in production can answer, and each one's state.

    `releases` lists every alias; `digest` is what answers now, `registry_digest` where the registry
    points when that is still loading. A release is not ready while all its upstreams, fallbacks too, are
    left alone after failures; the gateway is, for it serves the others and has to try that one again.
    """
    table = live.table
    releases = []
    for (name, alias), digest in sorted(table.aliases.items()):
        route = table.targets[f"{name}@{alias}"].route
        entry: dict[str, Any] = {
            "name": name,
            "alias": alias,
            "digest": route.digest,
            "ready": is_ready(route) and not is_left_alone(route),
            "reason": route.detail or provider_status(route).get("problem"),
        }
        if is_ready(route) and is_left_alone(route):
            entry["reason"] = "left alone after failures; one request will try it again"
        if route.digest != digest:
            entry["registry_digest"] = digest
        releases.append(entry)
    return {
        "ready": live.ready,
        "revision": table.revision,
        "registry": {
            "reachable": live.registry_error is None,
            "reason": live.registry_error,
            "source": "registry" if live.kept_at is None else "last-known-good",
            "as_of": to_text(live.kept_at) if live.kept_at is not None else None,
        },
        "upstreams": [
            {"name": u.name, "model": u.model_name, "state": u.state(), "in_flight": u.in_flight}
            for u in live.upstreams
        ],
        "releases": releases,
    }


def seed_health(live: Live, now: datetime) -> dict[str, Any]:
    """The body of `/health`: `healthy` exactly when `/health/ready` says ready."""
    table = live.table
    loaded = any(is_ready(table.targets[name].route) for name in table.production("prediction"))
    return {
        "status": "healthy" if live.ready else "unhealthy",
        "model_loaded": loaded,
        "timestamp": to_text(now),
    }
