"""Snapshot → RouteTable. Heavy parts load beside the running table; an alias move swaps a pointer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from gateway.controlplane.balances import Balances
from gateway.controlplane.load import Loader
from gateway.controlplane.parts import Key, Part, Parts
from gateway.controlplane.shares import headers_of, mirror_of, shared_target
from gateway.dataplane.request import raw
from gateway.dataplane.table import Grant, InFlight, Prices, Route, RouteTable, Subject, Target
from gateway.dataplane.variants import Branch
from gateway.settings import GatewaySettings
from registry.clock import from_text
from registry.entities import ApiKey, Limits, Price, ServedRelease, Snapshot
from registry.workspace import Workspace

LOADING = "its parts are loading"
_SHADOW = "shadow"
_EVER = from_text("1970-01-01T00:00:00Z")
FREE = {
    pattern: Price(pattern, _EVER, 0, 0)
    for pattern in ("extractive/*", "hashing/*", "llamacpp/*", "mcp/*", "minilm/*")
}
"""Providers that run inside the gateway, and tools, cost no money for each token, unless a price says so."""


@dataclass(frozen=True, slots=True)
class Compiled:
    """A table, and the parts it stands on."""

    table: RouteTable
    wanted: frozenset[Key]


class Compiler:
    """Compiles snapshots; remembers which parts each release stands on. Owned by one event loop."""

    def __init__(
        self, settings: GatewaySettings, workspace: Workspace, parts: Parts, store: str = "chroma"
    ) -> None:
        """Load what *workspace* holds under *settings*; indexes lie in *store*."""
        self._executor = ThreadPoolExecutor(2, thread_name_prefix="gateway-load")
        self._parts = parts
        self.load = Loader(settings, workspace, parts, self._executor, os.environ, store)
        self._keys_of: dict[str, frozenset[Key]] = {}
        self._in_flight: dict[str, InFlight] = {}
        self.balances = Balances(settings)

    def compile(self, snapshot: Snapshot, previous: RouteTable) -> Compiled:
        """
        The table for *snapshot* as far as its parts are loaded; those that are not begin to load.

        An alias whose new release still loads keeps the route it had in *previous*: nothing that
        worked stops working while something else is being made ready.
        """
        routes: dict[tuple[str, str], Route] = {}
        targets: dict[str, Target] = {}
        numbers: dict[str, Target] = {}
        for served in snapshot.releases:
            route = self._route(served)
            name, digest = served.version.name, served.version.digest
            routes[name, digest] = route
            created_s = int(served.version.created_at.timestamp())
            target = Target(route, "", headers_of(route), created_s)
            numbers[f"{name}:{served.version.number}"] = numbers[f"{name}@{digest}"] = target
        kept: set[str] = set()
        for (name, alias), digest in snapshot.aliases.items():
            current = routes.get((name, digest)) or _broken(name, digest, snapshot.broken)
            if current.problem == LOADING:
                before = previous.targets.get(f"{name}@{alias}")
                if before is not None and before.route.problem is None:
                    current = before.route
                    kept.add(current.digest)
            made = numbers.get(f"{name}@{current.digest}")
            target = Target(current, alias, headers_of(current, alias), made.created_s if made else 0)
            targets[f"{name}@{alias}"] = target
            if alias == "production":
                targets[name] = target
        shadows = self._share(snapshot, routes, targets)
        digests = {digest for _, digest in routes} | kept | shadows
        self._forget_all_but(digests)
        wanted = frozenset(key for digest in digests for key in self._keys_of.get(digest, ()))
        rules: dict[tuple[str, str], Limits] = {(r.kind, r.subject): r.limits for r in snapshot.limits}
        grants = {key.digest: _grant(key, rules) for key in snapshot.keys if key.revoked_at is None}
        table = RouteTable(
            snapshot.revision, numbers | targets, grants, dict(snapshot.aliases),
            limits={key: limits for key, limits in rules.items() if key[0] != "team"},
            prices=_prices(snapshot.prices), unproven=snapshot.unproven,
        )  # fmt: skip
        return Compiled(table, wanted)

    def close(self) -> None:
        """Stop the loading threads; what they load now ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _share(
        self, snapshot: Snapshot, routes: Mapping[tuple[str, str], Route], targets: dict[str, Target]
    ) -> set[str]:
        """Let *targets* share their traffic; returns what else must stay loaded for that."""
        served = {release.version.digest: release for release in snapshot.releases}
        shadows: set[str] = set()
        for split in snapshot.splits:
            base = targets.get(f"{split.name}@{split.alias}")
            if base is None or base.route.digest != split.base:
                continue  # its release still loads, or cannot be served: the split waits
            mirror = None
            if split.shadow is not None and split.shadow.digest in served:
                key = f"{_SHADOW}:{split.shadow.digest}"
                shadows.add(key)
                mirror = mirror_of(split, split.shadow, self._route(served[split.shadow.digest], key))
            shared = shared_target(split, base, routes, mirror)
            targets[f"{split.name}@{split.alias}"] = shared
            if split.alias == "production":
                targets[split.name] = shared
        return shadows

    def _route(self, served: ServedRelease, key: str = "") -> Route:
        """*key*: where it shares neither connections nor breakers with the release's other uses."""
        content, digest = served.content, served.version.digest
        parts = self.load.parts_of(served)
        own = _SHADOW if key else ""
        places = self.load.places(content, parts.get("index"), own) if served.model is None else []
        providers = [part for tier in places for *_, part in tier]
        key = key or digest
        self._keys_of[key] = frozenset(part.key for part in (*parts.values(), *providers))
        in_flight = self._in_flight.setdefault(key, InFlight())
        for part in (*parts.values(), *providers):
            part.users.add(in_flight)
        problem, detail = _problem(parts, providers)
        values = {name: part.value for name, part in parts.items()}
        guards = values.get("guardrails")
        return Route(
            name=served.version.name,
            digest=digest,
            kind=content.kind,
            model=content.model.partition("/")[2],
            provider=next((part.value for part in providers if part.loaded), None),
            retriever=values.get("index"),
            retrieval=content.retrieval,
            predictor=values.get("model"),
            render=values.get("prompt"),
            variables=frozenset(served.prompt.variables) if served.prompt else frozenset(),
            branches=_branches(served, parts),
            parameters={name: raw(value) for name, value in _parameters(served).items()},
            input=guards.input if guards else None,
            output=guards.output if guards else None,
            problem=problem,
            detail=detail,
            in_flight=in_flight,
            balance=self.balances.of(places),
            breaker=self.balances.breaker(key) if served.model is not None else None,
            prices=_prices(served.prices) if served.prices else None,
        )

    def _forget_all_but(self, digests: set[str]) -> None:
        for digest in [d for d in self._keys_of if d not in digests]:
            del self._keys_of[digest]
        self.balances.forget_all_but(self._parts.keys, digests)
        for digest in [d for d, users in self._in_flight.items() if d not in digests and not users.count]:
            del self._in_flight[digest]


def _problem(parts: Mapping[str, Part], providers: Sequence[Part]) -> tuple[str | None, str]:
    """What keeps a release from answering: any of its parts, or its providers if none can be used."""
    for part in parts.values():
        if part.problem is not None:
            return part.problem, part.detail
    waiting = [name for name, part in parts.items() if not part.loaded]
    if providers and not any(part.loaded for part in providers):
        failed = next((part for part in providers if part.problem is not None), None)
        if failed is not None and all(part.problem is not None for part in providers):
            return failed.problem, failed.detail
        waiting.append("provider")
    elif providers and not providers[0].loaded and providers[0].problem is None:
        waiting.append("provider")
    return (LOADING, f"loading: {', '.join(waiting)}") if waiting else (None, "")


def _broken(name: str, digest: str, broken: Mapping[str, str]) -> Route:
    detail = broken.get(digest, "the registry did not say what this release is made of")
    return Route(name=name, digest=digest, problem="it cannot be served", detail=detail)


def _grant(key: ApiKey, rules: Mapping[tuple[str, str], Limits]) -> Grant:
    subjects: list[Subject] = []
    if not key.limits.unlimited:
        subjects.append(Subject("key", key.account, key.limits))
    team = rules.get(("team", key.team)) or rules.get(("team", "*"))
    if key.team and team is not None:
        subjects.append(Subject("team", key.team, team))
    return Grant(key.id, key.models, key.expires_at, key.routes, key.account, key.team, tuple(subjects))


def _parameters(served: ServedRelease) -> dict[str, Any]:
    """What a release sets in every request: its parameters, and what its prompt and tool schemas offer."""
    prompt = served.prompt
    tools = [*served.tools, *((prompt.tools or ()) if prompt else ())]
    offered: dict[str, Any] = {"tools": tools} if tools else {}
    if prompt is not None and prompt.response_schema is not None:
        schema = {"name": served.version.name, "schema": prompt.response_schema, "strict": True}
        offered["response_format"] = {"type": "json_schema", "json_schema": schema}
    return offered | dict(served.content.parameters)


def _branches(served: ServedRelease, parts: Mapping[str, Part]) -> tuple[Branch, ...]:
    return tuple(
        Branch(
            variant.name,
            variant.weight,
            parts[f"variant {variant.name}"].value,
            frozenset(served.variants[variant.name].variables),
        )
        for variant in served.content.variants or ()
    )


def _prices(prices: Sequence[Price]) -> Prices:
    """Prices by exact model, and by pattern with the longest first; each latest first."""
    found: dict[str, list[Price]] = {pattern: [price] for pattern, price in FREE.items()}
    for price in prices:
        found.setdefault(price.model, []).append(price)
    # Sorted, then reversed: of two for the same moment the one set last comes first.
    ordered = {
        model: tuple(reversed(sorted(some, key=lambda price: price.effective_from)))  # noqa: C413 - stable
        for model, some in found.items()
    }
    patterns = sorted((model for model in ordered if "*" in model), key=lambda model: (-len(model), model))
    exact = {model: some for model, some in ordered.items() if "*" not in model}
    return Prices(exact, tuple((pattern, ordered[pattern]) for pattern in patterns))
