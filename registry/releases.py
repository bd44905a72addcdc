"""Releases: the pinned parts of what runs, and where their aliases point."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Connection, and_, select

from registry import indexes, labels, models, parse, policies, prices, prompts, tables, versions
from registry.artifacts import Artifacts
from registry.entities import (
    AliasState,
    PromptContent,
    ReleaseContent,
    Retrieval,
    ServedRelease,
    ToolSchema,
    Variant,
    Version,
)
from registry.errors import BadInput, NotFound
from registry.refs import Ref, parse_ref

_ALIASES, _VERSIONS = tables.aliases, tables.versions


@dataclass(frozen=True, slots=True)
class VariantFile:
    """A prompt that gets a share of a release's traffic."""

    name: str
    prompt: str
    weight: int
    """Percent of the users."""


@dataclass(frozen=True, slots=True)
class ReleaseFile:
    """What a release file says: names and references, resolved to digests when it is created."""

    name: str
    kind: Literal["chat", "prediction"]
    model: str
    model_digest: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    prompt: str | None = None
    index: str | None = None
    retrieval: Retrieval = field(default_factory=Retrieval)
    guardrails: str | None = None
    fallbacks: tuple[str, ...] = ()
    variants: tuple[VariantFile, ...] | None = None
    tools: tuple[str, ...] | None = None
    prices: str | None = None
    serving: Mapping[str, Any] | None = None


def pin(connection: Connection, file: ReleaseFile) -> ReleaseContent:
    """
    Resolve every reference of *file* to the digest it names now.

    Raises:
        NotFound: a named part is not in the registry.
        BadInput: the parts do not fit together.
    """
    content = (
        ReleaseContent(
            kind=file.kind,
            name=file.name,
            model=file.model,
            model_digest=file.model_digest,
            parameters=file.parameters,
            prompt=_digest(connection, "prompt", file.prompt),
            index=_digest(connection, "index", file.index),
            retrieval=file.retrieval,
            guardrails=_digest(connection, "guardrail-policy", file.guardrails),
            fallbacks=file.fallbacks,
            variants=_variants(connection, file),
            tools=_tools(connection, file),
            prices=_digest(connection, "price-table", file.prices),
            serving=file.serving,
        )
        if file.kind == "chat"
        else _prediction(connection, file)
    )
    if content.prompt:
        own = versions.by_digest(connection, "prompt", content.prompt)
        prompts.check_for_release(own, content)
        for variant in content.variants or ():
            other = versions.by_digest(connection, "prompt", variant.prompt)
            prompts.check_for_release(other, content)
            _check_alike(variant.name, prompts.content_of(own), prompts.content_of(other))
    if content.serving is not None and content.model.startswith("vllm/"):
        from registry.entities.engines import engine_of_release

        engine_of_release(content)
    return content


def create(connection: Connection, file: ReleaseFile, *, actor: str, now: datetime) -> Version:
    """
    Pin *file* and store the release. Idempotent: equal parts, same version.

    Moving the alias `candidate` to it is `promotion.nominate`.

    Raises:
        NotFound, BadInput: as `pin`.
    """
    content = pin(connection, file)
    return versions.push(connection, "release", file.name, content, actor=actor, now=now)


def read_file(path: Path) -> ReleaseFile:
    """The release file at *path*. Raises BadInput naming the line."""
    return parse.read(path, ReleaseFile)


def content_of(version: Version) -> ReleaseContent:
    """The typed content of a release version."""
    return parse.build(version.content, ReleaseContent, source=f"release {version.name}:{version.number}")


def resolve(connection: Connection, ref: Ref) -> Version:
    """
    The release that *ref* names: by alias, number or digest; without a selector the newest.

    Raises:
        NotFound: no such release or alias.
        VersionTampered: its stored content no longer has its digest.
    """
    if ref.alias is None or ref.alias == "latest":
        return versions.get(connection, "release", replace(ref, alias=None))
    state = alias_state(connection, ref.name, ref.alias)
    if state is None:
        there = sorted(a.alias for a in alias_states(connection) if a.name == ref.name)
        known = ", ".join(there) or "none"
        raise NotFound(f"release {ref.name!r} has no alias {ref.alias!r}; it has: {known}")
    return versions.get(connection, "release", Ref(ref.name, digest=state.digest))


def alias_state(connection: Connection, name: str, alias: str) -> AliasState | None:
    """Where an alias points now, or None when it was never set."""
    query = select(_ALIASES).where(_ALIASES.c.name == name, _ALIASES.c.alias == alias)
    row = connection.execute(query).mappings().one_or_none()
    return AliasState(**row) if row else None


def alias_states(connection: Connection) -> list[AliasState]:
    """Every alias, sorted by release and alias."""
    query = select(_ALIASES).order_by(_ALIASES.c.name, _ALIASES.c.alias)
    return [AliasState(**row) for row in connection.execute(query).mappings()]


def pointing(connection: Connection, names: Collection[str]) -> dict[tuple[str, str], list[str]]:
    """(release, digest) → the aliases of the releases *names* that point there."""
    found: dict[tuple[str, str], list[str]] = {}
    if names:
        query = select(_ALIASES).where(_ALIASES.c.name.in_(sorted(names))).order_by(_ALIASES.c.alias)
        for row in connection.execute(query).mappings():
            found.setdefault((row["name"], row["digest"]), []).append(row["alias"])
    return found


def listed_aliases(connection: Connection, name: str | None = None) -> list[dict[str, Any]]:
    """Where every alias points, or each of one release, as plain JSON, with the number of its release."""
    moved = _VERSIONS.c.kind == "release", _VERSIONS.c.name == _ALIASES.c.name
    query = select(_ALIASES, _VERSIONS.c.number).outerjoin(
        _VERSIONS, and_(*moved, _VERSIONS.c.digest == _ALIASES.c.digest)
    )
    if name is not None:
        query = query.where(_ALIASES.c.name == name)
    rows = connection.execute(query.order_by(_ALIASES.c.name, _ALIASES.c.alias)).mappings()
    return [dict(row) for row in rows]


def assemble(connection: Connection, version: Version) -> ServedRelease:
    """
    A release with every pinned part read and its digest verified.

    Raises:
        NotFound: a part is missing from the registry.
        VersionTampered: a part's stored content no longer has its digest.
    """
    content = content_of(version)
    prompt = versions.by_digest(connection, "prompt", content.prompt) if content.prompt else None
    index = versions.by_digest(connection, "index", content.index) if content.index else None
    guards = content.guardrails and versions.by_digest(connection, "guardrail-policy", content.guardrails)
    variants = {
        variant.name: prompts.content_of(versions.by_digest(connection, "prompt", variant.prompt))
        for variant in content.variants or ()
    }
    own = prompts.content_of(prompt) if prompt else None
    shown = [*variants.values(), *([own] if own else [])]
    model = None
    if content.kind == "prediction":
        assert content.model_digest is not None  # noqa: S101 - ReleaseContent requires it
        model = models.content_of(versions.by_digest(connection, "model", content.model_digest))
    return ServedRelease(
        version=version,
        content=content,
        prompt=own,
        variants=variants,
        partials=_partials(connection, shown),
        tools=tuple(tool for digest in content.tools or () for tool in _functions(connection, digest)),
        prices=prices.of_table(versions.by_digest(connection, "price-table", content.prices))
        if content.prices
        else (),
        index=indexes.content_of(index) if index else None,
        index_digest=index.digest if index else None,
        guardrails=policies.guardrails_of(guards) if guards else None,
        model=model,
    )


def _prediction(connection: Connection, file: ReleaseFile) -> ReleaseContent:
    for part in ("prompt", "index", "guardrails", "fallbacks", "variants", "tools"):
        if getattr(file, part):
            raise BadInput(f"{part}: a prediction release has none; remove the key")
    ref = parse_ref(file.model.removeprefix("models/"))
    version = versions.get(connection, "model", ref)
    return ReleaseContent(
        kind="prediction",
        name=file.name,
        model=f"models/{version.name}",
        model_digest=version.digest,
        parameters=file.parameters,
        prices=_digest(connection, "price-table", file.prices),
        serving=file.serving,
    )


def _variants(connection: Connection, file: ReleaseFile) -> tuple[Variant, ...] | None:
    if file.variants is None:
        return None
    return tuple(
        Variant(variant.name, labels.resolve(connection, parse_ref(variant.prompt)).digest, variant.weight)
        for variant in file.variants
    )


def _tools(connection: Connection, file: ReleaseFile) -> tuple[str, ...] | None:
    if file.tools is None:
        return None
    return tuple(versions.get(connection, "tool-schema", parse_ref(text)).digest for text in file.tools)


def _functions(connection: Connection, digest: str) -> tuple[Mapping[str, Any], ...]:
    version = versions.by_digest(connection, "tool-schema", digest)
    return parse.build(version.content, ToolSchema, source=f"tools {version.name}:{version.number}").tools


def _partials(connection: Connection, shown: Sequence[PromptContent]) -> dict[str, str]:
    """Digest → template text of every partial, those inside of partials too."""
    found: dict[str, str] = {}
    waiting = [digest for content in shown for digest in (content.partials or {}).values()]
    while waiting:
        digest = waiting.pop()
        if digest not in found:
            partial = prompts.content_of(versions.by_digest(connection, "prompt", digest))
            found[digest] = partial.messages[0].content
            waiting += (partial.partials or {}).values()
    return found


def _check_alike(name: str, own: PromptContent, other: PromptContent) -> None:
    if (own.tools, own.response_schema) != (other.tools, other.response_schema):
        message = f"variants: {name} has other tools or another response schema than prompt:"
        raise BadInput(message)


def _digest(
    connection: Connection,
    kind: Literal["prompt", "index", "guardrail-policy", "price-table"],
    text: str | None,
) -> str | None:
    if not text:
        return None
    if kind == "prompt":
        return labels.resolve(connection, parse_ref(text)).digest
    return versions.get(connection, kind, parse_ref(text)).digest


def verify_parts(release: ServedRelease, artifacts: Artifacts) -> None:
    """
    Check the bytes behind a release that lie outside the database.

    Raises:
        VersionTampered: a blob no longer has its digest.
        NotFound: a blob is gone.
    """
    if release.model is not None:
        artifacts.check(release.model.artifact)
    if release.index is not None:
        artifacts.check(release.index.passages_digest)
