"""The compiled state of the registry: plain frozen data that one request reads once."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any, Literal, Protocol

import msgspec

from gateway.dataplane.balance import Balance
from gateway.dataplane.breaker import Breaker
from gateway.dataplane.variants import Branch
from gateway.errors import KeyNotAllowed, NotReady, UnknownModel
from gateway.guardrails.policy import TextScreen
from gateway.providers.base import Provider
from gateway.transport.inbound import lines_of
from registry.entities import Feature, Limits, Price, Retrieval, Sticky, SubjectKind
from registry.templates import Render

Headers = tuple[tuple[bytes, bytes], ...]


@dataclass(frozen=True, slots=True)
class Prices:
    """What models cost, by exact name and by pattern."""

    exact: Mapping[str, tuple[Price, ...]] = field(default_factory=dict)
    """`provider/model` → its prices, latest first."""
    patterns: tuple[tuple[str, tuple[Price, ...]], ...] = ()
    """The same for patterns, longest first."""

    def of(self, model: str, now: datetime) -> Price | None:
        """What `provider/model` *model* costs at *now*, by its own price or else its longest pattern's."""
        for price in self.exact.get(model, ()):
            if price.effective_from <= now:
                if price.withdrawn:
                    break
                return price
        for pattern, prices in self.patterns:
            if fnmatchcase(model, pattern):
                for price in prices:
                    if price.effective_from <= now:
                        if price.withdrawn:
                            break
                        return price
        return None


class Passage(Protocol):
    """A passage, or one sentence of it, that retrieval found."""

    @property
    def id(self) -> str:
        """Id of the passage, `<document>#<n>`."""
        ...

    @property
    def document_id(self) -> str:
        """Id of the document it is from."""
        ...

    @property
    def title(self) -> str:
        """The document's title."""
        ...

    @property
    def text(self) -> str:
        """What is shown to the model."""
        ...

    @property
    def score(self) -> float:
        """Cosine with the question, in [-1, 1]."""
        ...


class Embedder(Protocol):
    """Texts to unit vectors, locally; thread-safe."""

    @property
    def name(self) -> str:
        """Name of the plug-in."""
        ...

    @property
    def dimension(self) -> int:
        """Length of each vector."""
        ...

    def embed(self, texts: Sequence[str]) -> Any:  # noqa: ANN401 - numpy is not imported here
        """A float32 array (n, d)."""
        ...


class Retriever(Protocol):
    """Query to passages; blocking and thread-safe."""

    @property
    def embedder(self) -> Embedder:
        """The embedder that made the index."""
        ...

    def retrieve(self, query: str, k: int) -> Sequence[Passage]:
        """At most *k* passages, best first."""
        ...

    def best_sentences(self, query: str, passages: Any, n: int) -> Sequence[Passage]:  # noqa: ANN401
        """At most *n* sentences of *passages*, best first."""
        ...


class Predictions(Protocol):
    """One label, class index and probability row for each input row."""

    @property
    def labels(self) -> Sequence[str]:
        """The most probable class of each row."""
        ...

    @property
    def indices(self) -> Sequence[int]:
        """The same as positions in the model's classes."""
        ...

    @property
    def probabilities(self) -> Sequence[Sequence[float]]:
        """One for each row and class."""
        ...


class Predictor(Protocol):
    """A loaded classical model; blocking and thread-safe."""

    @property
    def features(self) -> Sequence[Feature]:
        """What each row must hold."""
        ...

    @property
    def classes(self) -> Sequence[str]:
        """What a row may turn out to be."""
        ...

    def predict(self, rows: Sequence[Mapping[str, object]]) -> Predictions:
        """Validate and predict; raises an error that names row and feature."""
        ...


class InFlight:
    """How many requests use a route now; its parts stay open while any does."""

    __slots__ = ("count",)

    def __init__(self) -> None:
        self.count = 0


@dataclass(frozen=True, slots=True)
class Route:
    """One release, or one provider's model, with every part it needs already constructed."""

    name: str
    """Release name; `provider/*` for a model called directly."""
    digest: str = ""
    kind: Literal["chat", "prediction"] = "chat"
    model: str = ""
    """What the upstream calls its model."""
    provider: Provider | None = None
    retriever: Retriever | None = None
    retrieval: Retrieval = field(default_factory=Retrieval)
    predictor: Predictor | None = None
    render: Render | None = None
    variables: frozenset[str] = frozenset()
    branches: tuple[Branch, ...] = ()
    """Prompts that share its traffic with *render*."""
    parameters: Mapping[str, msgspec.Raw] = field(default_factory=dict)
    """Request fields the release sets, as JSON."""
    input: TextScreen | None = None
    output: TextScreen | None = None
    problem: str | None = None
    """Why it cannot answer, as clients are told; None when it can."""
    detail: str = ""
    """The same for the operator, with paths and causes."""
    in_flight: InFlight = field(default_factory=InFlight, compare=False)
    balance: Balance | None = None
    """Chooses the upstream of each request; None where nothing is relayed."""
    breaker: Breaker | None = None
    """Of a classical model; None where there is none."""
    prices: Prices | None = None
    """Its own price table; None: the prices in force."""


@dataclass(frozen=True, slots=True)
class Share:
    """What an alias's traffic is shared between, its own release first."""

    arms: tuple[tuple[float, Target], ...]
    """(weight, target); each of another release."""
    sticky: Sticky = "user"


@dataclass(frozen=True, slots=True)
class Mirror:
    """A release that is asked beside another, and answers nobody."""

    target: Target
    rate: float
    """Share of the requests, in (0, 1]."""
    account: str = ""
    """What its use is counted under."""
    subjects: tuple[Subject, ...] = ()
    """Its account with its bound, where what it spends is bounded."""


@dataclass(frozen=True, slots=True)
class Target:
    """A route under one of the names a client may ask for."""

    route: Route
    alias: str = ""
    headers: Headers = ()
    """What every answer of this route says about itself."""
    created_s: int = 0
    """When the release was made, in seconds since 1970."""
    arm: str = ""
    """What it is called among those that share an alias's traffic; empty where none do."""
    share: Share | None = None
    """Who answers in its place, and how often; None: nobody."""
    mirror: Mirror | None = None
    """Who is asked too."""
    lines: bytes = field(init=False, compare=False)
    """*headers* as they are sent."""

    def __post_init__(self) -> None:
        """Make what every answer needs once."""
        object.__setattr__(self, "lines", lines_of(self.headers))

    def ready(self) -> Route:
        """
        The route, if it can answer.

        Raises:
            NotReady: its parts are loading, or could not be loaded.
        """
        if self.route.problem is not None:
            message = f"release {self.route.name!r} is not ready: {self.route.problem}"
            raise NotReady(message)
        return self.route


@dataclass(frozen=True, slots=True)
class Subject:
    """One that limits count, with its limits."""

    kind: SubjectKind
    id: str
    limits: Limits


@dataclass(frozen=True, slots=True)
class Grant:
    """What one API key may do."""

    id: str
    models: tuple[str, ...]
    expires_at: datetime | None = None
    routes: tuple[str, ...] = ("*",)
    """Path patterns it may call."""
    account: str = ""
    """What its use is counted under."""
    team: str = ""
    subjects: tuple[Subject, ...] = ()
    """The key's account and its team, where they have limits."""

    def allows(self, model: str) -> bool:
        """
        Whether *model* is covered: by `*`, by its release's name, or by a pattern.

        A pattern without a slash never covers `provider/model`.

        >>> grant = Grant("key_1", ("support", "openai/*"))
        >>> [grant.allows(m) for m in ("support@candidate", "openai/gpt-4o", "churn")]
        [True, True, False]
        """
        if model in self.models or "*" in self.models:
            return True
        name = model.partition("@")[0] if "/" not in model else model
        name = name.partition(":")[0] if "/" not in model else name
        return any(
            pattern == name
            or ("*" in pattern and ("/" in pattern) == ("/" in model) and fnmatchcase(name, pattern))
            for pattern in self.models
        )

    def require_route(self, path: str) -> None:
        """
        Raise KeyNotAllowed unless *path* is covered by one of the route patterns.

        >>> Grant("key_1", ("*",), routes=("/v1/*",)).require_route("/v1/models")
        """
        if self.routes != ("*",) and not any(fnmatchcase(path, pattern) for pattern in self.routes):
            message = f"this API key may not call {path[:200]!r}; it may call: {', '.join(self.routes)}"
            raise KeyNotAllowed(message)

    def require(self, model: str) -> None:
        """Raise KeyNotAllowed unless *model* is covered."""
        if not self.allows(model):
            message = f"this API key may not call {model[:200]!r}; it may call: {', '.join(self.models)}"
            raise KeyNotAllowed(message, param="model")


@dataclass(frozen=True, slots=True)
class RouteTable:
    """Every name that can be asked for and every key that may ask."""

    revision: int = -1
    """Revision of the registry it was compiled from; -1 before the first."""
    targets: Mapping[str, Target] = field(default_factory=dict)
    """`support`, `support@candidate`, `support@sha256:…`, `support:3` → target."""
    grants: Mapping[str, Grant] = field(default_factory=dict)
    """SHA-256 of a key, hex → what it may do; revoked keys are not here."""
    aliases: Mapping[tuple[str, str], str] = field(default_factory=dict)
    """(release, alias) → digest that the registry names."""
    limits: Mapping[tuple[str, str], Limits] = field(default_factory=dict)
    """(kind, subject) → limits of teams, users, sessions and models; subject `*` is each other one."""
    prices: Prices = field(default_factory=Prices)
    unproven: frozenset[tuple[str, str]] = frozenset()
    """(release, alias) of every alias that stands on no evidence: somebody broke the glass."""

    def find(self, model: str, grant: Grant) -> Target:
        """
        The target that *model* names.

        Raises:
            KeyNotAllowed: the key does not cover it.
            UnknownModel: no such release or alias; names what is close by.
        """
        grant.require(model)
        target = self.targets.get(model)
        if target is None:
            raise UnknownModel(self._unknown(model, grant), param="model")
        return target

    def production(self, kind: str) -> list[str]:
        """Sorted names of the releases of *kind* whose alias production is set."""
        return sorted(
            name
            for name, alias in self.aliases
            if alias == "production" and name in self.targets and self.targets[name].route.kind == kind
        )

    def _unknown(self, model: str, grant: Grant) -> str:
        shown = model[:200]
        name = model.partition("@")[0].partition(":")[0]
        aliases = sorted(alias for release, alias in self.aliases if release == name)
        if "@sha256:" in model or ":" in model:
            return (
                f"{shown!r} is not served: only releases that an alias points at, and each previous "
                f"production, are; aliases of {name[:64]!r}: {', '.join(aliases) or 'none'}"
            )
        if aliases:
            refs = ", ".join(f"{name}@{alias}" for alias in aliases)
            return f"{shown!r} does not exist: nothing was promoted there yet; there is: {refs}"
        known = sorted(target for target in self.targets if ":" not in target and grant.allows(target))
        close = difflib.get_close_matches(shown, known, n=3, cutoff=0.5) or known[:5]
        hint = f"; there is: {', '.join(close)}" if close else "; `GET /v1/models` lists what there is"
        return f"no release or model {shown!r}{hint}"
