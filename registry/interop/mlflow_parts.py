"""What of the registry goes to MLflow: read in one transaction, so that the network has none open."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from sqlalchemy import Connection

from registry import evaluations, evidence, models, prompts, releases, versions
from registry.entities import Kind, ReleaseContent, Version
from registry.errors import BadInput, NotFound, PlatformError
from registry.refs import Ref, parse_ref

LIMIT = 10_000
"""Most models, prompts or runs of one export."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Part:
    """A model or prompt to export."""

    kind: Literal["model", "prompt"]
    version: Version
    aliases: tuple[str, ...] = ()
    """MLflow aliases it gets: those of the releases that pin it."""
    partials: Mapping[str, str] = field(default_factory=dict)
    """Name → text of what a prompt includes."""


@dataclass(frozen=True, slots=True)
class Run:
    """An evaluation run to export."""

    id: str
    verdict: str
    release_digest: str
    suite_digest: str
    evidence: str | None
    statement: Mapping[str, Any]
    """What was signed; empty where the envelope cannot be read."""
    trust: str
    """`verified`, `withdrawn`, `none`, or the code of why its signature does not count now."""
    envelope: Mapping[str, Any]
    summary: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Parts:
    """All that one export is about, each kind oldest first."""

    versions: tuple[Part, ...]
    runs: tuple[Run, ...]


def gather(connection: Connection, refs: Sequence[str] | None) -> Parts:
    """
    What *refs* name; None is every model, prompt and evaluation run.

    Args:
        refs: `model/churn:3`, `prompt/support`, or a release such as `support@production`, which
            stands for the model and prompts it pins and for its runs. A bare name that no release
            has is a model or a prompt.

    Raises:
        NotFound: a reference names nothing.
        BadInput: it could name a model or a prompt, or there are more than 10,000 of a kind.
    """
    found: dict[tuple[str, str, int], Version] = {}
    runs: dict[str, dict[str, Any]] = {}
    if refs is None:
        kinds: tuple[Kind, ...] = ("model", "prompt")
        for kind in kinds:
            listed = versions.listing(connection, kind, limit=LIMIT + 1)
            found |= {(v.kind, v.name, v.number): v for v in _bounded(listed, f"{kind}s")}
        listed_runs = evaluations.runs(connection, limit=LIMIT + 1)
        runs = {run["id"]: run for run in _bounded(listed_runs, "runs")}
    for text in refs or ():
        named, of = _named(connection, text)
        found |= {(v.kind, v.name, v.number): v for v in named}
        runs |= {run["id"]: run for run in of}
    pointing = _aliases(connection)
    parts = [_part(connection, found[key], pointing) for key in sorted(found)]
    return Parts(tuple(parts), tuple(_run(connection, runs[key]) for key in sorted(runs)))


def _named(connection: Connection, text: str) -> tuple[list[Version], list[dict[str, Any]]]:
    kind, slash, rest = text.partition("/")
    if kind in ("model", "prompt") and slash:
        exact: Kind = "model" if kind == "model" else "prompt"
        return [versions.get(connection, exact, parse_ref(rest))], []
    if slash and kind != "release":
        raise BadInput(f"{text!r}: begins with model/, prompt/ or release/, or names a release")
    ref = parse_ref(rest if slash else text)
    try:
        release = releases.resolve(connection, ref)
    except NotFound:
        if slash or ref.alias:
            raise
        return [_only(connection, ref)], []
    content = releases.content_of(release)
    pinned = [versions.by_digest(connection, "prompt", digest) for digest in _prompts(content)]
    if content.kind == "prediction":
        pinned.append(_model(connection, content))
    return pinned, evaluations.runs(connection, release.digest, LIMIT)


def _only(connection: Connection, ref: Ref) -> Version:
    """The model or prompt *ref*, when it is not both."""
    found = []
    kinds: tuple[Kind, ...] = ("model", "prompt")
    for kind in kinds:
        try:
            found.append(versions.get(connection, kind, ref))
        except NotFound:
            continue
    if len(found) > 1:
        raise BadInput(f"{ref}: is a model and a prompt; write model/{ref} or prompt/{ref}")
    if not found:
        raise NotFound(f"no release, model or prompt {ref} in the registry")
    return found[0]


def _prompts(content: ReleaseContent) -> list[str]:
    """Digests of the prompts of a release, its main one first."""
    main = [content.prompt] if content.prompt else []
    return [*main, *(variant.prompt for variant in content.variants or ())]


def _model(connection: Connection, content: ReleaseContent) -> Version:
    name = content.model.removeprefix("models/")
    return versions.get(connection, "model", Ref(name, digest=content.model_digest))


def _aliases(connection: Connection) -> dict[tuple[str, str, str], set[str]]:
    """
    (kind, name, digest) → MLflow aliases, from every alias of every release.

    Where two releases pin different versions of one name at one alias, theirs are `<release>-<alias>`.
    """
    points: dict[tuple[str, str, str], dict[str, str]] = {}
    for state in releases.alias_states(connection):
        version = versions.get(connection, "release", Ref(state.name, digest=state.digest))
        content = releases.content_of(version)
        pinned = []
        if content.kind == "prediction":
            pinned.append(_model(connection, content))
        elif content.prompt:
            pinned.append(versions.by_digest(connection, "prompt", content.prompt))
        for part in pinned:
            points.setdefault((part.kind, part.name, state.alias), {})[state.name] = part.digest
    aliases: dict[tuple[str, str, str], set[str]] = {}
    for (kind, name, alias), by_release in points.items():
        agreed = len(set(by_release.values())) == 1
        for release, digest in by_release.items():
            own = alias if agreed else f"{release}-{alias}"
            aliases.setdefault((kind, name, digest), set()).add(own)
    return aliases


def _part(
    connection: Connection, version: Version, pointing: Mapping[tuple[str, str, str], set[str]]
) -> Part:
    aliases = tuple(sorted(pointing.get((version.kind, version.name, version.digest), ())))
    if version.kind == "model":
        models.content_of(version)
        return Part("model", version, aliases)
    return Part("prompt", version, aliases, _included(connection, version, depth=0))


def _included(connection: Connection, version: Version, depth: int) -> dict[str, str]:
    """The text of every partial of a prompt, its own partials put in."""
    if depth > 8:
        raise BadInput(f"prompt {version.name}:{version.number}: partials include each other too deeply")
    texts = {}
    for name, digest in (prompts.content_of(version).partials or {}).items():
        partial = versions.by_digest(connection, "prompt", digest)
        text = prompts.content_of(partial).messages[0].content
        texts[name] = expanded(text, _included(connection, partial, depth + 1))
    return texts


def expanded(text: str, partials: Mapping[str, str]) -> str:
    r"""
    *text* with every `{% include "name" %}` of *partials* replaced by what it includes.

    >>> expanded('{% include "tone" %}\nHi', {"tone": "Be kind."})
    'Be kind.\nHi'
    """
    for name, partial in partials.items():
        for quote in ('"', "'"):
            text = text.replace(f"{{% include {quote}{name}{quote} %}}", partial)
    return text


def _run(connection: Connection, row: Mapping[str, Any]) -> Run:
    envelope: Mapping[str, Any] = {}
    statement: Mapping[str, Any] = {}
    trust = "none"
    if row["evidence"]:
        try:
            envelope = evaluations.get_envelope(connection, row["evidence"])
            statement = json.loads(evidence.open_envelope(envelope)[0])
            evidence.verify(connection, envelope)
            gone = evaluations.withdrawn(connection, row["release_digest"])
            trust = "withdrawn" if row["evidence"] in gone else "verified"
        except PlatformError as error:
            trust = error.code
    return Run(
        id=row["id"],
        verdict=row["verdict"],
        release_digest=row["release_digest"],
        suite_digest=row["suite_digest"],
        evidence=row["evidence"],
        statement=statement,
        trust=trust,
        envelope=envelope,
        summary=row["summary"],
    )


def _bounded(listed: list[T], what: str) -> list[T]:
    if len(listed) > LIMIT:
        raise BadInput(f"there are more than {LIMIT:,} {what}; export those you need by reference")
    return listed
