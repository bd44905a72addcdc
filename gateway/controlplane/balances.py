"""The balances of all routes, over upstreams whose health and load outlive a recompilation."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from gateway.controlplane.parts import Key, Part
from gateway.dataplane.balance import Balance, Upstream
from gateway.dataplane.breaker import Breaker
from gateway.settings import GatewaySettings

_INSIDE = ("extractive", "llamacpp")
"""Providers that run inside the gateway."""
Places = Sequence[Sequence[tuple[str, str, float, Part]]]
"""Tiers of (label, `provider/model`, weight, provider part)."""


class Balances:
    """Makes balances; remembers each upstream by the part it stands on. Owned by one event loop."""

    def __init__(self, settings: GatewaySettings) -> None:
        """Thresholds, retries and timeouts are those of *settings*."""
        self._settings = settings
        self._upstreams: dict[Key, Upstream] = {}
        self._breakers: dict[str, Breaker] = {}

    def of(self, places: Places) -> Balance | None:
        """The balance over those of *places* that are loaded; None when none is."""
        tiers = [[self._upstream(*place) for place in tier if place[-1].loaded] for tier in places]
        tiers = [tier for tier in tiers if tier]
        if not tiers:
            return None
        settings = self._settings
        affine = [self._is_affine(tier[0].model_name) for tier in tiers]
        return Balance(
            tiers, max_retries=settings.max_retries, total_s=settings.total_timeout_s, affine=affine
        )

    def breaker(self, digest: str) -> Breaker:
        """The breaker of a classical release."""
        return self._breakers.setdefault(digest, self._new())

    def upstreams(self) -> list[Upstream]:
        """Every upstream that a route or a direct call uses."""
        return list(self._upstreams.values())

    def forget_all_but(self, keys: Collection[Key], digests: Collection[str]) -> None:
        """Drop what no release stands on; upstreams with requests under way stay."""
        for key in [k for k, u in self._upstreams.items() if k not in keys and not u.in_flight]:
            del self._upstreams[key]
        for digest in [digest for digest in self._breakers if digest not in digests]:
            del self._breakers[digest]

    def _upstream(self, label: str, model_name: str, weight: float, part: Part) -> Upstream:
        upstream = self._upstreams.get(part.key)
        if upstream is None or upstream.provider is not part.value:
            model = model_name.partition("/")[2]
            upstream = self._upstreams[part.key] = Upstream(
                label, part.value, model, model_name, weight=weight, breaker=self._new(),
                retry_ratio=self._settings.retry_ratio, keeps_nothing=self._keeps_nothing(model_name),
            )  # fmt: skip
        return upstream

    def _is_affine(self, model_name: str) -> bool:
        upstream = self._settings.upstreams.get(model_name.partition("/")[0])
        return upstream is not None and upstream.affinity == "prefix"

    def _keeps_nothing(self, model_name: str) -> bool:
        name = model_name.partition("/")[0]
        upstream = self._settings.upstreams.get(name)
        return name in _INSIDE or (upstream is not None and upstream.keeps_nothing)

    def _new(self) -> Breaker:
        return Breaker(self._settings.breaker_failures, self._settings.breaker_open_s)
