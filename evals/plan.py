"""What a run will ask: which subjects, through which systems, about which samples."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from evals.dataset import Sample, feature_types
from evals.errors import BadSuite
from evals.metrics.base import Metric
from evals.subjects import Subject, Subjects, resolve
from evals.suite import Check, EvalSuite, samples_of
from evals.systems.base import Options, System
from registry import plugins

__all__ = ["Job", "Place", "Plan", "Subject", "Subjects", "make_plan", "resolve"]

Place = tuple[str, str]
"""(role, system): the role is `candidate` or `baseline`."""


@dataclass(frozen=True, slots=True)
class Job:
    """One subject to ask through one system about some samples."""

    role: str
    system_name: str
    system: System
    subject: Subject
    samples: Sequence[Sample]
    checks: tuple[Check, ...]
    """What its outputs are for."""
    scored: tuple[Check, ...]
    """Those whose metric scores these outputs themselves."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The jobs of a run, baselines first, and the checks it cannot make."""

    jobs: dict[Place, Job] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Check title → why it cannot be made."""


def make_plan(
    suite: EvalSuite, metrics: Mapping[str, Metric], samples: Sequence[Sample], subjects: Subjects
) -> Plan:
    """
    Which subject to ask through which system about which samples.

    Args:
        metrics: by check title.

    Raises:
        BadSuite: a check's system cannot judge the candidate.
        BadDataset: a feature is text in one sample and a number in another.
    """
    plan = Plan()
    candidates: dict[Place, Job] = {}
    candidate, baseline = subjects.candidate, subjects.baseline
    for name in sorted({check.system for check in suite.checks}):
        checks = [check for check in suite.checks if check.system == name]
        against = [c for c in checks if c.rival == "baseline" or metrics[c.title].rival]
        system = _system(name, checks, samples, candidate)
        problem = candidate.release and system.suits(candidate.release.content)
        if problem:
            raise BadSuite(f"suite {suite.name!r} uses system {name!r}, but {candidate.ref}: {problem}")
        candidates["candidate", name] = _job("candidate", name, system, candidate, checks, samples)
        why = subjects.why_none
        if baseline is not None and against:
            system = _system(name, checks, samples, baseline)
            why = (baseline.release and system.suits(baseline.release.content)) or ""
            if not why:
                plan.jobs["baseline", name] = _job("baseline", name, system, baseline, against, samples)
        if ("baseline", name) not in plan.jobs:
            plan.skipped.update((check.title, why) for check in against)
    plan.jobs.update(candidates)
    return plan


def _system(name: str, checks: Sequence[Check], samples: Sequence[Sample], subject: Subject) -> System:
    release = subject.release
    model = release.model if release else None
    features = feature_types(samples) if name == "prediction" else {}
    features |= {column.name: column.dtype for column in model.features} if model else {}
    options = Options(
        depth=max((check.k or 10 for check in checks), default=10),
        features=features,
        classes=model.classes if model else (),
        passages=release.content.retrieval.k if release else 5,
        alone=any(check.metric == "latency_ms" for check in checks),
    )
    return cast("Callable[[Options], System]", plugins.load("systems", name))(options)


def _job(
    role: str, name: str, system: System, subject: Subject, checks: Sequence[Check], samples: Sequence[Sample]
) -> Job:
    wanted = max((samples_of(check, samples) for check in checks), key=len)
    scored = checks if role == "candidate" else [check for check in checks if check.rival == "baseline"]
    return Job(role, name, system, subject, wanted, tuple(checks), tuple(scored))
