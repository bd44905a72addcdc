"""
The nouns of Sluicegate: frozen values, no behaviour beyond their own validity.

A *content* class is what a version's digest covers. Everything in it is plain JSON.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from registry.errors import BadInput
from registry.refs import check_alias, check_name

Kind = Literal["prompt", "index", "model", "dataset", "suite", "guardrail-policy", "gate-policy", "release"]
VariableType = Literal["text", "number", "boolean", "list"]
Role = Literal["system", "user", "assistant"]
Action = Literal["block", "redact", "warn", "observe"]
Verdict = Literal["pass", "fail", "inconclusive"]


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


def check_target(name: str, alias: str) -> None:
    """
    Check the two halves of an alias.

    Raises:
        BadInput: either is malformed.
    """
    check_name(name)
    check_alias(alias)
