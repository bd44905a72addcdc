"""Releases, and all of them that a gateway needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from registry.entities.metering import ApiKey, LimitRule, Price
from registry.entities.parts import IndexContent, ModelContent, PromptContent
from registry.entities.policies import GuardrailPolicy
from registry.entities.splits import Split
from registry.entities.versions import Version
from registry.errors import BadInput
from registry.refs import check_name


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
class Variant:
    """A prompt that answers a share of a release's traffic, always the same users'."""

    name: str
    prompt: str
    """Digest of the prompt version."""
    weight: int
    """Percent of the users."""


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
    variants: tuple[Variant, ...] | None = None
    """Prompts that share the traffic beside *prompt*; chat only."""
    tools: tuple[str, ...] | None = None
    """Digests of tool schemas offered to the model; chat only."""
    prices: str | None = None
    """Digest of the price table its use is charged by; None: the prices in force."""
    serving: Mapping[str, Any] | None = None
    """How the model is run (quantisation, cache, speculation), where the provider takes such options."""

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
        _check_variants(self)
        if self.index and not self.prompt and provider != "extractive":
            message = "a release with an index needs a prompt that shows the passages"
            raise BadInput(message)
        if provider == "extractive" and not self.index:
            message = "the extractive provider answers from an index; add index:"
            raise BadInput(message)


def _check_variants(release: ReleaseContent) -> None:
    """Refuse variants that no traffic, or more than all of it, would reach."""
    variants = release.variants or ()
    if release.kind == "prediction" and (variants or release.tools):
        message = "a prediction release has neither variants nor tools"
        raise BadInput(message)
    if variants and not release.prompt:
        message = "variants: they share the traffic with prompt:, which is missing"
        raise BadInput(message)
    names = [check_name(variant.name, "variant") for variant in variants]
    if len(set(names)) < len(names) or "default" in names:
        message = f"variants: {', '.join(names)}: each has its own name, and default is the prompt itself"
        raise BadInput(message)
    if any(variant.weight < 1 for variant in variants) or sum(v.weight for v in variants) > 99:
        message = "variants: weights are percent, at least 1 each, and leave some to the prompt itself"
        raise BadInput(message)


@dataclass(frozen=True, slots=True)
class ServedRelease:
    """A Release with every pinned part read and verified."""

    version: Version
    content: ReleaseContent
    prompt: PromptContent | None = None
    variants: Mapping[str, PromptContent] = field(default_factory=dict)
    """Variant → its prompt."""
    partials: Mapping[str, str] = field(default_factory=dict)
    """Digest → template text of every partial that its prompts include."""
    tools: tuple[Mapping[str, Any], ...] = ()
    """Functions of its tool schemas, in OpenAI's shape."""
    prices: tuple[Price, ...] = ()
    """Its own price table; empty: the prices in force."""
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
    unproven: frozenset[tuple[str, str]] = frozenset()
    """(release name, alias) of every alias that was last moved by breaking the glass."""
    splits: tuple[Split, ...] = ()
    """What shares an alias's traffic."""
