"""
The nouns of Sluicegate: frozen values, no behaviour beyond their own validity.

A *content* class is what a version's digest covers. Everything in it is plain JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, NamedTuple

from registry.errors import BadInput
from registry.refs import check_alias, check_name

Kind = Literal["prompt", "index", "model", "dataset", "suite", "guardrail-policy", "gate-policy", "release"]
VariableType = Literal["text", "number", "boolean", "list"]
Role = Literal["system", "user", "assistant"]
Action = Literal["block", "redact", "warn", "observe"]
Verdict = Literal["pass", "fail", "inconclusive"]
BudgetPeriod = Literal["day", "month", "total"]
SubjectKind = Literal["key", "team", "user", "session", "model"]
"""Whom a limit counts: a key's account, its team, the end user or session it names, a model or release."""


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable, numbered, content-addressed entry of the registry."""

    kind: Kind
    name: str
    number: int
    digest: str
    content: Mapping[str, Any]
    """What the digest covers, as plain JSON."""
    meta: Mapping[str, Any]
    """Circumstances of the first push (commit, run id); not covered by the digest."""
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class PromptMessage:
    """One message template of a prompt."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class PromptContent:
    """A chat prompt: Jinja templates and the types of every variable they use."""

    messages: tuple[PromptMessage, ...]
    variables: Mapping[str, VariableType] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a prompt without messages."""
        if not self.messages:
            message = "a prompt needs at least one message"
            raise BadInput(message)


@dataclass(frozen=True, slots=True)
class Chunker:
    """How documents become passages."""

    method: Literal["sentences"] = "sentences"
    max_chars: int = 400
    overlap_sentences: int = 0

    def __post_init__(self) -> None:
        """Refuse sizes that cannot hold text."""
        if not 50 <= self.max_chars <= 20_000 or not 0 <= self.overlap_sentences <= 5:
            message = "chunker: max_chars is 50 to 20000, overlap_sentences 0 to 5"
            raise BadInput(message)


@dataclass(frozen=True, slots=True)
class Embedder:
    """Which embedder made the vectors, by the digest of its weights."""

    name: str
    digest: str
    dimension: int


@dataclass(frozen=True, slots=True)
class IndexContent:
    """The manifest of a retrieval index: everything that decides what it returns."""

    corpus_digest: str
    """Over the canonical documents, sorted by id."""
    chunker: Chunker
    embedder: Embedder
    documents: int
    passages: int
    passages_digest: str
    """Blob of passages, JSON Lines sorted by id; vectors follow from it and the embedder."""


@dataclass(frozen=True, slots=True)
class Feature:
    """One input column of a classical model."""

    name: str
    dtype: Literal["text", "number"]
    nullable: bool = True
    values: tuple[str, ...] = ()
    """Categories seen in training, for text; empty when open."""
    minimum: float | None = None
    maximum: float | None = None


@dataclass(frozen=True, slots=True)
class ModelContent:
    """A trained model: bytes that load without pickle, and how to call them."""

    format: Literal["onnx"]
    artifact: str
    """Digest of the blob that holds the model."""
    features: tuple[Feature, ...]
    classes: tuple[str, ...]
    training: Mapping[str, Any]
    """Digests of data, parameters and environment lock; the held-out metrics."""


@dataclass(frozen=True, slots=True)
class DatasetContent:
    """An immutable evaluation set: JSON Lines in the artifact store."""

    artifact: str
    rows: int
    columns: tuple[str, ...]
    source: str = ""
    licence: str = ""


@dataclass(frozen=True, slots=True)
class GuardrailRule:
    """One check of a guardrail policy."""

    detector: str
    """Name of a plug-in in `sluicegate.guardrails`: injection, pii, secrets."""
    stage: Literal["input", "output"]
    action: Action
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GuardrailPolicy:
    """What is checked on the way in and on the way out, and what then happens."""

    rules: tuple[GuardrailRule, ...]


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What must be proven before *alias* of the release of the same name may move."""

    suites: tuple[str, ...] = ()
    """Names of suites that must each have passed; empty: any suite of the registry."""
    max_age_hours: float = 168.0

    def __post_init__(self) -> None:
        """Refuse a policy that can never or always be met."""
        for suite in self.suites:
            check_name(suite, "suite")
        if not 0 < self.max_age_hours <= 24 * 366:
            message = "max_age_hours must be above 0 and at most one year"
            raise BadInput(message)


@dataclass(frozen=True, slots=True)
class Retrieval:
    """How many passages a release puts before its model."""

    k: int = 3
    max_sentences: int | None = None
    """When set, only this many best-supported sentences of those passages are shown."""

    def __post_init__(self) -> None:
        """Refuse sizes outside what a prompt can carry."""
        if not 1 <= self.k <= 50 or not (self.max_sentences is None or 1 <= self.max_sentences <= 50):
            message = "retrieval: k and max_sentences are 1 to 50"
            raise BadInput(message)


@dataclass(frozen=True, slots=True)
class ReleaseContent:
    """
    The pinned parts of what runs: nothing in it can change without a new digest.

    A *chat* release names a provider's model; a *prediction* release pins a ModelVersion.
    """

    kind: Literal["chat", "prediction"]
    name: str
    model: str
    """`provider/model`, or `models/<name>` for a prediction release."""
    model_digest: str | None = None
    """Digest of the weights or of the ModelVersion; None where a provider offers none."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    index: str | None = None
    retrieval: Retrieval = field(default_factory=Retrieval)
    guardrails: str | None = None
    fallbacks: tuple[str, ...] = ()
    """`provider/model` asked in this order when *model* cannot answer; chat only."""

    def __post_init__(self) -> None:
        """Refuse combinations that could not be served."""
        check_name(self.name)
        provider, slash, model = self.model.partition("/")
        if not slash or not provider or not model:
            message = f"model {self.model!r} is not provider/model"
            raise BadInput(message)
        if self.kind == "prediction" and (provider != "models" or not self.model_digest):
            message = "a prediction release pins a model of the registry: model: models/<name>"
            raise BadInput(message)
        for fallback in self.fallbacks:
            other, slash, inner = fallback.partition("/")
            if not (slash and other and inner) or other in ("models", "extractive") or fallback == self.model:
                message = f"fallbacks: {fallback!r} is not another provider/model that can answer instead"
                raise BadInput(message)
        if len(set(self.fallbacks)) < len(self.fallbacks):
            message = f"fallbacks: {', '.join(self.fallbacks)} names a model twice"
            raise BadInput(message)
        if self.fallbacks and self.kind == "prediction":
            message = "fallbacks: a prediction release has none; its model is one of the registry"
            raise BadInput(message)
        if self.index and not self.prompt and provider != "extractive":
            message = "a release with an index needs a prompt that shows the passages"
            raise BadInput(message)
        if provider == "extractive" and not self.index:
            message = "the extractive provider answers from an index; add index:"
            raise BadInput(message)


@dataclass(frozen=True, slots=True)
class AliasState:
    """Where an alias points now."""

    name: str
    alias: str
    digest: str
    generation: int
    """Grows by one at each move; the compare-and-swap token."""


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One entry of the history: who moved what, when and why."""

    id: str
    name: str
    alias: str
    from_digest: str | None
    to_digest: str
    action: Literal["create", "promote", "rollback"]
    actor: str
    reason: str
    evidence: tuple[str, ...]
    """Digests of the envelopes that justified the move."""
    at: datetime


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one subject may use; None is no limit."""

    rpm: int | None = None
    """Requests in any 60 seconds."""
    tpm: int | None = None
    """Tokens, prompt and completion together, in any 60 seconds."""
    concurrency: int | None = None
    """Requests at the same time."""
    budget_microusd: int | None = None
    """Money in each *budget_period*, in millionths of a US dollar."""
    budget_period: BudgetPeriod = "month"
    """Days and months are those of UTC."""

    def __post_init__(self) -> None:
        """Refuse limits that say nothing sensible."""
        for name in ("rpm", "tpm", "concurrency"):
            value = getattr(self, name)
            if value is not None and not 1 <= value <= 10**12:
                message = f"{name}: {value} is not 1 to 10^12; leave it out for no limit"
                raise BadInput(message)
        if self.budget_microusd is not None and not 0 <= self.budget_microusd <= 10**15:
            message = f"budget: {self.budget_microusd} micro-USD is not 0 to 10^15"
            raise BadInput(message)

    @property
    def unlimited(self) -> bool:
        """Whether nothing is bounded."""
        return (self.rpm, self.tpm, self.concurrency, self.budget_microusd) == (None, None, None, None)


@dataclass(frozen=True, slots=True)
class LimitRule:
    """Limits of a subject that is not a key."""

    kind: Literal["team", "user", "session", "model"]
    subject: str
    """Its name; `*` is each one of that kind that has no rule of its own, counted separately."""
    limits: Limits


@dataclass(frozen=True, slots=True)
class Price:
    """What a provider's model costs from some moment on, in pico-USD (10^-12) per token."""

    model: str
    """`provider/model`, or a pattern such as `ollama/*`; the longest that fits wins."""
    effective_from: datetime
    input_picousd: int
    output_picousd: int
    cached_input_picousd: int | None = None
    """For prompt tokens that the provider read from its cache; None: as other prompt tokens."""
    withdrawn: bool = False
    """From that moment on *model* has no price of its own: a shorter pattern's applies, or none."""

    def __post_init__(self) -> None:
        """Refuse negative prices, and a withdrawal that names one."""
        if self.withdrawn and (self.input_picousd, self.output_picousd, self.cached_input_picousd) != (
            0, 0, None,
        ):  # fmt: skip
            message = f"price of {self.model}: what is withdrawn has none"
            raise BadInput(message)
        if min(self.input_picousd, self.output_picousd, self.cached_input_picousd or 0) < 0:
            message = f"price of {self.model}: must not be negative"
            raise BadInput(message)

    def cost_microusd(self, prompt: int, completion: int, cached: int = 0) -> int:
        """
        The cost of so many tokens in micro-USD, rounded up; *cached* ones are part of *prompt*.

        >>> from registry.clock import from_text
        >>> since = from_text("2026-01-01T00:00:00.000000Z")
        >>> Price("openai/gpt-4o-mini", since, 150_000, 600_000, 75_000).cost_microusd(1000, 10, 400)
        126
        """
        cached_price = self.input_picousd if self.cached_input_picousd is None else self.cached_input_picousd
        picousd = (prompt - cached) * self.input_picousd + cached * cached_price
        return -(-(picousd + completion * self.output_picousd) // 1_000_000)


@dataclass(frozen=True, slots=True)
class ApiKey:
    """What is kept of a virtual key: never the key itself."""

    id: str
    name: str
    prefix: str
    digest: str
    """SHA-256 of the whole key, hex."""
    models: tuple[str, ...]
    """Release names or `provider/*` patterns it may call; `*` is all."""
    created_at: datetime
    expires_at: datetime | None = None
    revoked_at: datetime | None = None
    routes: tuple[str, ...] = ("*",)
    """Paths or patterns such as `/v1/*` it may call; `*` is all."""
    team: str = ""
    limits: Limits = field(default_factory=Limits)
    account: str = ""
    """What its use is counted under: the id of the first key of a chain of rotations."""


class UsageEntry(NamedTuple):
    """
    What is stored of one request that used something. Users and sessions are pseudonyms.

    A tuple in the order of the table's columns, since nothing is stored as often.
    """

    request_id: str
    at: str
    """When it arrived, as `clock.to_text` writes it."""
    account: str
    key_id: str = ""
    team: str = ""
    user: str = ""
    session: str = ""
    release: str = ""
    """Release name, or `provider/*` for a model called directly."""
    digest: str = ""
    model: str = ""
    """`provider/model` that answered."""
    route: str = ""
    status: int = 0
    error: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cached_tokens: int = 0
    rows: int = 0
    """Predictions made."""
    estimated: bool = False
    cost_microusd: int | None = None
    """None when no price was known."""


@dataclass(frozen=True, slots=True)
class Spending:
    """What one subject used in one period."""

    kind: SubjectKind
    subject: str
    period: BudgetPeriod
    start: str
    microusd: int
    requests: int
    tokens: int
    unpriced: int
    """Requests that used tokens without a known price, which so are not in *microusd*."""


@dataclass(frozen=True, slots=True)
class ServedRelease:
    """A Release with every pinned part read and verified."""

    version: Version
    content: ReleaseContent
    prompt: PromptContent | None = None
    index: IndexContent | None = None
    index_digest: str | None = None
    guardrails: GuardrailPolicy | None = None
    model: ModelContent | None = None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All the gateway needs, read in one transaction."""

    revision: int
    releases: tuple[ServedRelease, ...]
    aliases: Mapping[tuple[str, str], str]
    """(release name, alias) → release digest."""
    keys: tuple[ApiKey, ...]
    broken: Mapping[str, str] = field(default_factory=dict)
    """Release digest → why it cannot be served (tampered or missing parts)."""
    limits: tuple[LimitRule, ...] = ()
    prices: tuple[Price, ...] = ()
    """Every price, past and future ones too."""


def check_target(name: str, alias: str) -> None:
    """
    Check the two halves of an alias.

    Raises:
        BadInput: either is malformed.
    """
    check_name(name)
    check_alias(alias)
