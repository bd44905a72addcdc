"""Snapshot → RouteTable. Heavy parts load beside the running table; an alias move swaps a pointer."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gateway.controlplane.load import Loader
from gateway.controlplane.parts import Key, Part, Parts
from gateway.dataplane.request import raw
from gateway.dataplane.table import Grant, Headers, InFlight, Route, RouteTable, Target
from gateway.settings import GatewaySettings
from registry.entities import ApiKey, ServedRelease, Snapshot
from registry.workspace import Workspace

LOADING = "its parts are loading"


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
        self.load = Loader(settings, workspace, parts, self._executor, os.environ, store)
        self._keys_of: dict[str, frozenset[Key]] = {}
        self._in_flight: dict[str, InFlight] = {}

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
            target = Target(route, "", _headers(route, ""), created_s)
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
            target = Target(current, alias, _headers(current, alias), made.created_s if made else 0)
            targets[f"{name}@{alias}"] = target
            if alias == "production":
                targets[name] = target
        digests = {digest for _, digest in routes} | kept
        self._forget_all_but(digests)
        wanted = frozenset(key for digest in digests for key in self._keys_of.get(digest, ()))
        grants = {key.digest: _grant(key) for key in snapshot.keys if key.revoked_at is None}
        table = RouteTable(snapshot.revision, numbers | targets, grants, dict(snapshot.aliases))
        return Compiled(table, wanted)

    def close(self) -> None:
        """Stop the loading threads; what they load now ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    def _route(self, served: ServedRelease) -> Route:
        content, digest = served.content, served.version.digest
        parts = self.load.parts_of(served)
        self._keys_of[digest] = frozenset(part.key for part in parts.values())
        in_flight = self._in_flight.setdefault(digest, InFlight())
        for part in parts.values():
            part.users.add(in_flight)
        problem, detail = _problem(parts)
        values = {name: part.value for name, part in parts.items()}
        guards = values.get("guardrails")
        return Route(
            name=served.version.name,
            digest=digest,
            kind=content.kind,
            model=content.model.partition("/")[2],
            provider=values.get("provider"),
            retriever=values.get("index"),
            retrieval=content.retrieval,
            predictor=values.get("model"),
            render=values.get("prompt"),
            variables=frozenset(served.prompt.variables) if served.prompt else frozenset(),
            parameters={name: raw(value) for name, value in content.parameters.items()},
            input=guards.input if guards else None,
            output=guards.output if guards else None,
            problem=problem,
            detail=detail,
            in_flight=in_flight,
        )

    def _forget_all_but(self, digests: set[str]) -> None:
        for digest in [d for d in self._keys_of if d not in digests]:
            del self._keys_of[digest]
        for digest in [d for d, users in self._in_flight.items() if d not in digests and not users.count]:
            del self._in_flight[digest]


def _problem(parts: Mapping[str, Part]) -> tuple[str | None, str]:
    for part in parts.values():
        if part.problem is not None:
            return part.problem, part.detail
    waiting = [name for name, part in parts.items() if not part.loaded]
    return (LOADING, f"loading: {', '.join(waiting)}") if waiting else (None, "")


def _broken(name: str, digest: str, broken: Mapping[str, str]) -> Route:
    detail = broken.get(digest, "the registry did not say what this release is made of")
    return Route(name=name, digest=digest, problem="it cannot be served", detail=detail)


def _headers(route: Route, alias: str) -> Headers:
    headers = [
        (b"x-sluicegate-release", route.name.encode()),
        (b"x-sluicegate-digest", route.digest.encode()),
    ]
    if alias:
        headers.append((b"x-sluicegate-alias", alias.encode()))
    return tuple(headers)


def _grant(key: ApiKey) -> Grant:
    return Grant(key.id, key.models, key.expires_at)
