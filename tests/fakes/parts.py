"""In-memory parts of a route: a table that never changes, a retriever, a predictor, an embedder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from gateway.dataplane.balance import Balance
from gateway.dataplane.balance import Upstream as UpstreamPlace
from gateway.dataplane.breaker import Breaker
from gateway.dataplane.limits_memory import MemoryLimiter
from gateway.dataplane.mirror import Mirrors
from gateway.dataplane.relay import Relay
from gateway.dataplane.routes import is_data_plane
from gateway.dataplane.services import Limits, Services
from gateway.dataplane.table import Embedder, Grant, Route, RouteTable, Subject, Target
from gateway.dataplane.usage import UsageRecord
from gateway.dataplane.work import Work
from gateway.errors import NotReady, UnknownModel
from gateway.providers.base import Call, Reply
from gateway.providers.openai import build
from gateway.providers.options import ProviderOptions
from gateway.transport.server import Bounds, Site
from registry.clock import utc_now
from registry.entities import Feature
from registry.errors import BadInput
from tests.fakes.upstream import KEY, MODEL

CLIENT_KEY = "sk-sg-test"
DIGEST = "sha256:" + "ab" * 32
LIMITS = Limits(max_body_bytes=100_000, body_timeout_s=5, max_batch_rows=4)


@dataclass(frozen=True)
class FoundPassage:
    id: str
    document_id: str
    title: str
    text: str
    score: float


@dataclass
class LetterEmbedder:
    name: str = "letters"
    dimension: int = 3

    def embed(self, texts: Sequence[str]) -> Any:
        rows = np.array([[t.count("a") + 1, t.count("b"), len(t)] for t in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@dataclass
class ListRetriever:
    """Finds the passages that share a word with the query, in the order given."""

    passages: Sequence[FoundPassage]
    embedder: LetterEmbedder = field(default_factory=LetterEmbedder)
    asked: list[tuple[str, int]] = field(default_factory=list)

    def retrieve(self, query: str, k: int) -> list[FoundPassage]:
        self.asked.append((query, k))
        words = set(query.lower().replace("?", "").split())
        return [p for p in self.passages if words & set(p.text.lower().replace(".", "").split())][:k]

    def best_sentences(self, query: str, passages: Sequence[FoundPassage], n: int) -> list[FoundPassage]:
        assert query
        return [FoundPassage(p.id, p.document_id, p.title, p.text.split(". ")[0], p.score) for p in passages][
            :n
        ]


class RowError(BadInput):
    code = "bad_features"


@dataclass(frozen=True)
class Labelled:
    labels: tuple[str, ...]
    indices: tuple[int, ...]
    probabilities: tuple[tuple[float, ...], ...]


@dataclass
class Threshold:
    """Says Yes where `months` is below 12; `plan` must be there."""

    features: tuple[Feature, ...] = (Feature("plan", "text"), Feature("months", "number"))
    classes: tuple[str, ...] = ("No", "Yes")

    def predict(self, rows: Sequence[Mapping[str, object]]) -> Labelled:
        indices = tuple(self._one(i, row) for i, row in enumerate(rows))
        probabilities = tuple((0.25, 0.75) if index else (0.75, 0.25) for index in indices)
        return Labelled(tuple(self.classes[i] for i in indices), indices, probabilities)

    def _one(self, number: int, row: Mapping[str, object]) -> int:
        for feature in self.features:
            if feature.name not in row:
                raise RowError(f"row {number}: feature {feature.name!r}: is missing")
        months = row["months"]
        if "explode" in (months, row["plan"]):
            raise RuntimeError("secret internals")
        if not isinstance(months, int | float):
            raise RowError(f"row {number}: feature 'months': expected a number")
        return int(months < 12)


@dataclass
class FixedSources:
    """A table that stays as it is."""

    table: RouteTable
    ready: bool = True
    directs: Mapping[str, Target] = field(default_factory=dict)
    embedders: Mapping[str, Embedder] = field(default_factory=dict)

    def known(self, model: str) -> Target | None:
        del model
        return None

    async def direct(self, model: str) -> Target:
        if model not in self.directs:
            raise UnknownModel(f"no provider for {model!r}", param="model")
        target = self.directs[model]
        return replace(target, route=balanced(target.route)) if target.route.balance is None else target

    async def embedder(self, model: str) -> Embedder | None:
        if model == "broken/embedder":
            raise NotReady
        return self.embedders.get(model)


@dataclass
class Scripted:
    """A provider that gives one reply, made beforehand."""

    reply: Any

    async def start(self) -> None:
        return None

    async def open(self, call: Call) -> Reply:
        reply: Reply = self.reply
        assert call.body
        return reply

    async def close(self) -> None:
        return None

    def status(self) -> dict[str, Any]:
        return {"ready": True}


def provider_at(url: str, **changes: Any) -> Any:
    """A provider that relays to *url* with the fake upstream's key."""
    values: dict[str, Any] = {
        "name": "vllm", "home": Path("unused"), "base_url": url, "api_key": KEY, "connect_timeout_s": 2.0,
        "first_byte_timeout_s": 5.0, "idle_timeout_s": 5.0, "total_timeout_s": 10.0,
    }  # fmt: skip
    return build(MODEL, ProviderOptions(**(values | changes)))


def balanced(route: Route, breaker: Breaker | None = None, **changes: Any) -> Route:
    """*route* with a balance over its one provider."""
    if route.provider is None:
        return route
    upstream = UpstreamPlace("vllm", route.provider, route.model, f"vllm/{route.model}", breaker=breaker)
    return replace(route, balance=Balance([[upstream]], **({"max_retries": 0} | changes)))


def memory_limiter() -> MemoryLimiter:
    """Limits counted in this process, with nothing spent so far."""
    return MemoryLimiter(lambda _subject, _start: 0, utc_now)


def table_of(
    routes: Mapping[str, Route],
    models: tuple[str, ...] = ("*",),
    subjects: tuple[Subject, ...] = (),
    **parts: Any,
) -> RouteTable:
    """A table with each route in production under its name, and one key."""
    routes = {name: balanced(route) if route.balance is None else route for name, route in routes.items()}
    targets: dict[str, Target] = {}
    aliases: dict[tuple[str, str], str] = {}
    for name, route in routes.items():
        headers = (
            (b"x-sluicegate-release", name.encode()),
            (b"x-sluicegate-digest", route.digest.encode()),
            (b"x-sluicegate-alias", b"production"),
        )
        target = Target(route, "production", headers, 1_700_000_000)
        targets |= {name: target, f"{name}@production": target}
        aliases[name, "production"] = route.digest
    digest = hashlib.sha256(CLIENT_KEY.encode()).hexdigest()
    grant = Grant("key_1", models, account="key_1", subjects=subjects)
    return RouteTable(1, targets, {digest: grant}, aliases, **parts)


class DataPlane:
    """The data plane alone, over *sources*; its providers close with it."""

    def __init__(
        self,
        sources: FixedSources,
        emit: Callable[[UsageRecord], None],
        limits: Limits = LIMITS,
        bounds: Bounds | None = None,
        **services: Any,
    ) -> None:
        self.work = Work(2, 8)
        self.sources = sources
        self.services = Services(sources, self.work, limits, **services)
        relay = Relay(self.services, emit, utc_now)
        bounds = bounds or Bounds(max_body_bytes=limits.max_body_bytes)
        self.site = Site(relay, is_data_plane, self, bounds)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 404, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        if isinstance(self.services.mirrors, Mirrors):
            await self.services.mirrors.close()
        for server in self.services.tool_servers.values():
            await server.close()
        for target in (*self.sources.table.targets.values(), *self.sources.directs.values()):
            shadow = target.mirror.target if target.mirror is not None else target
            for route in (target.route, shadow.route):
                places = route.balance.upstreams() if route.balance is not None else ()
                for provider in (route.provider, *(place.provider for place in places)):
                    if provider is not None:
                        await provider.close()
        self.work.close()
        await send({"type": "lifespan.shutdown.complete"})
