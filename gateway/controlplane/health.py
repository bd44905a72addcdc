"""What the gateway says about its own state."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from gateway.controlplane.refresh import Live, is_ready, provider_status
from registry.clock import to_text


def readiness(live: Live) -> dict[str, Any]:
    """
    The body of `/health/ready`: whether every release in production can answer, and each one's state.

    `releases` lists every alias; `digest` is what answers now, `registry_digest` where the registry
    points when that is still loading.
    """
    table = live.table
    releases = []
    for (name, alias), digest in sorted(table.aliases.items()):
        route = table.targets[f"{name}@{alias}"].route
        entry: dict[str, Any] = {
            "name": name,
            "alias": alias,
            "digest": route.digest,
            "ready": is_ready(route),
            "reason": route.detail or provider_status(route).get("problem"),
        }
        if route.digest != digest:
            entry["registry_digest"] = digest
        releases.append(entry)
    return {
        "ready": live.ready,
        "revision": table.revision,
        "registry": {"reachable": live.registry_error is None, "reason": live.registry_error},
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
