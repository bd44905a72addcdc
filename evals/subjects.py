"""What is judged and what it has to beat: releases of the registry, or things from elsewhere."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urlsplit

from evals.errors import BadSuite, TargetUnavailable
from evals.suite import EvalSuite
from registry import releases
from registry.entities import ServedRelease, Version
from registry.ids import digest
from registry.refs import Ref, parse_ref
from registry.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something that is no release: it can be judged, and its verdict is no evidence."""

    kind: str
    """`endpoint`, `python` or `recorded`."""
    place: str
    """Root URL up to `/v1`, `module:function`, or a path."""
    model: str = ""


@dataclass(frozen=True, slots=True)
class Subject:
    """What is under test: by which reference, and which bytes that was at the start."""

    ref: str
    release: ServedRelease | None = None
    foreign: Foreign | None = None

    @property
    def version(self) -> Version | None:
        """The release's version; None for what is no release."""
        return self.release.version if self.release else None

    @property
    def digest(self) -> str:
        """The release's digest; for others the digest of where they are."""
        if self.release is not None:
            return self.release.version.digest
        return digest({"foreign": self.ref})

    @property
    def model(self) -> str:
        """The name to ask the gateway for: by alias as users do, else by digest."""
        if self.release is None:
            return self.foreign.model if self.foreign else ""
        alias = parse_ref(self.ref).alias
        version = self.release.version
        return f"{version.name}@{alias if alias and alias != 'latest' else version.digest}"

    @property
    def family(self) -> str | None:
        """The `provider/model` that answers, as far as it is known: a judge of its family only advises."""
        if self.release is not None:
            return self.release.content.model
        return f"openai/{self.foreign.model}" if self.foreign and self.foreign.model else None


@dataclass(frozen=True, slots=True)
class Subjects:
    """What is judged and what it has to beat."""

    candidate: Subject
    baseline: Subject | None
    why_none: str = ""
    """Why there is no baseline."""

    @property
    def are_releases(self) -> bool:
        """Whether the verdict can be evidence: both are releases of the registry."""
        return self.candidate.release is not None and (
            self.baseline is None or self.baseline.release is not None
        )


def resolve(
    workspace: Workspace, suite: EvalSuite, release: str | None = None, baseline: str | None = None
) -> Subjects:
    """
    What is judged and what it has to beat, by the digests they have now.

    Args:
        release: a reference to a release (by default `<suite.release>@candidate`), or
            `http://host/v1#model`, `python:module:function`, `recorded:file.jsonl`.
        baseline: the same; by default production, where that is another release.

    Raises:
        BadSuite: the release has not the name that the suite judges.
        NotFound: no such release or alias.
        TargetUnavailable: a malformed address.
    """
    own = foreign_of(release) if release else None
    theirs = foreign_of(baseline) if baseline else None
    if own and release:
        if theirs and baseline:
            return Subjects(Subject(release, foreign=own), Subject(baseline, foreign=theirs))
        if baseline is None:
            return Subjects(Subject(release, foreign=own), None, "no baseline was named")
        with workspace.reading() as connection:
            rival = releases.resolve(connection, parse_ref(baseline))
            against = Subject(baseline, releases.assemble(connection, rival))
        return Subjects(Subject(release, foreign=own), against)
    ref = parse_ref(release or f"{suite.release}@candidate")
    if ref.name != suite.release:
        raise BadSuite(f"suite {suite.name!r} judges release {suite.release!r}, not {ref.name!r}")
    with workspace.reading() as connection:
        version = releases.resolve(connection, ref)
        candidate = Subject(str(ref), releases.assemble(connection, version))
        if theirs and baseline:
            return Subjects(candidate, Subject(baseline, foreign=theirs))
        named = parse_ref(baseline) if baseline else Ref(ref.name, alias="production")
        if baseline is None and releases.alias_state(connection, ref.name, "production") is None:
            return Subjects(candidate, None, f"no baseline, since {ref.name} is not in production yet")
        rival = releases.resolve(connection, named)
        if rival.digest == version.digest:
            return Subjects(candidate, None, f"no baseline, since {named} is this very release")
        return Subjects(candidate, Subject(str(named), releases.assemble(connection, rival)))


def foreign_of(reference: str) -> Foreign | None:
    """
    What a reference names that is no release; None for a release's.

    Raises:
        TargetUnavailable: it begins like an address and is none.

    >>> foreign_of("http://127.0.0.1:9000/v1#gpt-4o-mini")
    Foreign(kind='endpoint', place='http://127.0.0.1:9000/v1', model='gpt-4o-mini')
    >>> foreign_of("support@candidate") is None
    True
    """
    kind, colon, rest = reference.partition(":")
    if kind in ("python", "recorded") and colon:
        if not rest:
            raise TargetUnavailable(f"{reference!r}: say what, such as recorded:outputs.jsonl")
        return Foreign(kind, rest)
    if kind not in ("http", "https"):
        return None
    parts = urlsplit(reference)
    if not parts.hostname or not parts.fragment or parts.username or parts.password or parts.query:
        raise TargetUnavailable(
            f"{reference!r} is no address of a model; write http://host:port/v1#model, without credentials "
            "(the key comes from SLUICEGATE_TARGET_KEY)"
        )
    return Foreign("endpoint", reference.partition("#")[0].rstrip("/"), parts.fragment)
