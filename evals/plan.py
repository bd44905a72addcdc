"""What a run will ask: which releases, through which systems, about which samples."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

from evals.collect import Task
from evals.dataset import Sample, feature_types
from evals.errors import BadSuite
from evals.suite import Check, EvalSuite, samples_of
from evals.systems.base import Options, System
from registry import plugins, releases
from registry.entities import ReleaseContent, ServedRelease, Version
from registry.refs import Ref, parse_ref
from registry.workspace import Workspace

Place = tuple[str, str]
"""(role, system): the role is `candidate` or `baseline`."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A release under test: by which reference, and which bytes that was at the start."""

    ref: str
    release: ServedRelease

    @property
    def version(self) -> Version:
        """The release's version."""
        return self.release.version

    @property
    def content(self) -> ReleaseContent:
        """The release's content."""
        return self.release.content

    @property
    def model(self) -> str:
        """The name to ask the gateway for: by alias as users do, else by digest."""
        alias = parse_ref(self.ref).alias
        return f"{self.version.name}@{alias if alias and alias != 'latest' else self.version.digest}"


@dataclass(frozen=True, slots=True)
class Subjects:
    """The release to judge and the one to beat."""

    candidate: Subject
    baseline: Subject | None
    why_none: str = ""
    """Why there is no baseline."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The tasks of a run, and the checks it cannot make."""

    tasks: dict[Place, Task] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Check title → why it cannot be made."""


def resolve(
    workspace: Workspace, suite: EvalSuite, release: str | None = None, baseline: str | None = None
) -> Subjects:
    """
    The release to judge and the one to beat, by the digests they have now.

    Args:
        release: a reference; by default `<suite.release>@candidate`.
        baseline: a reference; by default production, where that is another release.

    Raises:
        BadSuite: the release has not the name that the suite judges.
        NotFound: no such release or alias.
    """
    ref = parse_ref(release or f"{suite.release}@candidate")
    if ref.name != suite.release:
        raise BadSuite(f"suite {suite.name!r} judges release {suite.release!r}, not {ref.name!r}")
    with workspace.reading() as connection:
        version = releases.resolve(connection, ref)
        candidate = Subject(str(ref), releases.assemble(connection, version))
        against = parse_ref(baseline) if baseline else Ref(ref.name, alias="production")
        if baseline is None and releases.alias_state(connection, ref.name, "production") is None:
            return Subjects(candidate, None, f"no baseline, since {ref.name} is not in production yet")
        rival = releases.resolve(connection, against)
        if rival.digest == version.digest:
            return Subjects(candidate, None, f"no baseline, since {against} is this very release")
        return Subjects(candidate, Subject(str(against), releases.assemble(connection, rival)))


def make_plan(suite: EvalSuite, samples: Sequence[Sample], subjects: Subjects) -> Plan:
    """
    Which release to ask through which system about which samples.

    Raises:
        BadSuite: a check's system cannot judge the candidate.
        BadDataset: a feature is text in one sample and a number in another.
    """
    plan = Plan()
    candidate, baseline = subjects.candidate, subjects.baseline
    for name in sorted({check.system for check in suite.checks}):
        checks = [check for check in suite.checks if check.system == name]
        against = [check for check in checks if check.better_than == "baseline"]
        system = _system(name, checks, samples, candidate)
        problem = system.suits(candidate.content)
        if problem:
            raise BadSuite(f"suite {suite.name!r} uses system {name!r}, but {candidate.ref}: {problem}")
        plan.tasks["candidate", name] = _task(name, system, candidate, checks, samples)
        why = subjects.why_none
        if baseline is not None and against:
            system = _system(name, checks, samples, baseline)
            why = system.suits(baseline.content) or ""
            if not why:
                plan.tasks["baseline", name] = _task(name, system, baseline, against, samples)
        if ("baseline", name) not in plan.tasks:
            plan.skipped.update((check.title, why) for check in against)
    return plan


def _system(name: str, checks: Sequence[Check], samples: Sequence[Sample], subject: Subject) -> System:
    model = subject.release.model
    features = feature_types(samples) if name == "prediction" else {}
    features |= {column.name: column.dtype for column in model.features} if model else {}
    options = Options(
        depth=max((check.k or 10 for check in checks), default=10),
        features=features,
        alone=any(check.metric == "latency_ms" for check in checks),
    )
    return cast("Callable[[Options], System]", plugins.load("systems", name))(options)


def _task(
    name: str, system: System, subject: Subject, checks: Sequence[Check], samples: Sequence[Sample]
) -> Task:
    wanted = max((samples_of(check, samples) for check in checks), key=len)
    return Task(name, system, subject.model, subject.version.digest, wanted)
