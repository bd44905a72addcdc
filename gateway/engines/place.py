"""Where in a cluster an engine runs, and with how much."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from registry.errors import BadInput

CACHE = "/var/cache/engine"
"""Folder of the pod for what is downloaded and compiled."""
_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,51}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Place:
    """Where in a cluster an engine runs, and with how much."""

    secret: str
    """Name of the Secret whose `api-key` requests must carry, and whose `hf-token`, if any, the hub wants."""
    namespace: str | None = None
    replicas: int = 1
    cpus: int = 4
    memory_gib: int = 32
    """Main memory of the pod: weights pass through it while they load."""
    cache_gib: int = 100
    """Disk for what is downloaded and compiled."""
    claims: Mapping[str, str] = field(default_factory=dict)
    """PersistentVolumeClaim → absolute folder at which it is mounted, read-only: models and adapters."""
    cache_claim: str | None = None
    """PersistentVolumeClaim that keeps the cache between pods; None loses it with each."""
    start_s: int = 1800
    """From the start of the container to its first token, before it is started anew."""
    stop_s: int = 120
    """For running answers, when a pod is told to go."""
    spare_gpus: bool = False
    """Whether the cluster has GPUs for one more pod while an engine is replaced; else one goes first."""
    node_selector: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse names and numbers that the cluster would refuse."""
        names = [self.secret, self.namespace, self.cache_claim, *self.claims]
        for name in names:
            check_label(name) if name is not None else None
        numbers = {
            "replicas": (self.replicas, 1, 1000),
            "cpus": (self.cpus, 1, 1024),
            "memory_gib": (self.memory_gib, 1, 65_536),
            "cache_gib": (self.cache_gib, 1, 65_536),
            "start_s": (self.start_s, 10, 86_400),
            "stop_s": (self.stop_s, 15, 3600),
        }
        for name, (value, low, high) in numbers.items():
            if not low <= value <= high:
                message = f"{name} {value} is not {low} to {high}"
                raise BadInput(message)
        for claim, folder in self.claims.items():
            if not folder.startswith("/") or ".." in folder or folder.rstrip("/") in ("", "/tmp", CACHE):  # noqa: S108
                message = f"claims.{claim}: {folder!r} is no absolute folder of its own"
                raise BadInput(message)


def check_label(name: str) -> None:
    """Raise BadInput where *name* cannot name an object of a cluster."""
    if not _LABEL.fullmatch(name):
        message = f"{name!r} is not a name in a cluster: 1 to 53 of a-z, 0-9, '-', not at its ends"
        raise BadInput(message)
