"""A suite against a release through the running gateway: ask, measure, decide."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime

from evals.cache import open_cache
from evals.client import Client, Failure, Patience
from evals.collect import Collected, collect
from evals.dataset import Dataset
from evals.executors.local import run_all
from evals.gate import GateDecision, decide, judge
from evals.plan import Place, Plan, Subjects, make_plan
from evals.score import Outputs, measure
from evals.suite import EvalSuite, metrics_of
from registry.clock import Clock
from registry.errors import BadInput
from registry.terminal import progress
from registry.workspace import Workspace

CACHE_FOLDER = "evals-cache"


@dataclass(frozen=True, slots=True)
class Asking:
    """How a run asks the gateway."""

    gateway: str
    """Root URL."""
    key: str = field(repr=False)
    concurrency: int = 2
    patience: Patience = field(default_factory=Patience)
    use_cache: bool = True


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How often one kind of error befell one release in one system."""

    role: str
    """`candidate` or `baseline`."""
    system: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class EvalRun:
    """Everything one run found."""

    suite: EvalSuite
    dataset: Dataset
    subjects: Subjects
    decision: GateDecision
    outputs: Mapping[Place, Outputs]
    errors: tuple[ErrorCount, ...]
    samples: int
    """How many samples of the dataset were judged."""
    cached: int
    """Outputs that came from the cache."""
    retried: int
    """Requests that had to be repeated."""
    trial: bool
    """Cut short by a limit: its verdict is no evidence."""
    started: datetime
    finished: datetime


def evaluate(
    workspace: Workspace,
    suite: EvalSuite,
    dataset: Dataset,
    subjects: Subjects,
    asking: Asking,
    *,
    clock: Clock,
    limit: int | None = None,
) -> EvalRun:
    """
    Judge a release. Stores nothing but outputs in the cache; `submit.file` registers the result.

    Args:
        subjects: from `plan.resolve`.
        limit: judge only the first so many samples: a trial, whose verdict is no evidence.

    Raises:
        BadInput: *limit* is below 1.
        BadSuite: a check's system cannot judge this release.
        EvalsError: no gateway, a refused key, or another release answers.
    """
    if limit is not None and limit < 1:
        raise BadInput(f"limit is {limit}; it must be at least 1")
    started = clock()
    samples = dataset.samples[:limit]
    plan = make_plan(suite, samples, subjects)
    collected, retried = asyncio.run(_collect_all(workspace, plan, asking))
    outputs = {place: found.outputs for place, found in collected.items()}
    metrics = metrics_of(suite)
    results = []
    for check in suite.checks:
        metric = metrics[check.metric]
        own, theirs = outputs["candidate", check.system], outputs.get(("baseline", check.system))
        measured = plan.skipped.get(check.title) or measure(check, metric, samples, own, theirs)
        results.append(judge(check, metric, measured))
    errors = _count_errors(outputs)
    decision = decide(
        results,
        error_share=_share("candidate", errors, outputs),
        baseline_error_share=_share("baseline", errors, outputs),
        max_error_share=suite.max_error_share,
    )
    return EvalRun(
        suite=suite,
        dataset=dataset,
        subjects=subjects,
        decision=decision,
        outputs=outputs,
        errors=errors,
        samples=max(len(found) for found in outputs.values()),
        cached=sum(found.cached for found in collected.values()),
        retried=retried,
        trial=len(samples) < len(dataset.samples),
        started=started,
        finished=clock(),
    )


async def _collect_all(
    workspace: Workspace, plan: Plan, asking: Asking
) -> tuple[dict[Place, Collected], int]:
    """One task after the other, so that no release's latency pays for another's load."""
    collected: dict[Place, Collected] = {}
    client = Client(asking.gateway, asking.key, concurrency=asking.concurrency, patience=asking.patience)
    with ExitStack() as stack:
        folder = workspace.settings.home / CACHE_FOLDER
        cache = stack.enter_context(open_cache(folder)) if asking.use_cache else None
        async with client:
            for (role, name), task in plan.tasks.items():
                label = f"{role} {name}"
                with progress(label, len(task.samples)) as on_done:
                    collected[role, name] = await collect(
                        task, client, cache, run_all, concurrency=asking.concurrency, on_done=on_done
                    )
    return collected, client.retried


def _count_errors(outputs: Mapping[Place, Outputs]) -> tuple[ErrorCount, ...]:
    counts = Counter(
        (role, system, output.kind)
        for (role, system), found in outputs.items()
        for output in found.values()
        if isinstance(output, Failure)
    )
    return tuple(ErrorCount(*place, count) for place, count in sorted(counts.items()))


def _share(role: str, errors: tuple[ErrorCount, ...], outputs: Mapping[Place, Outputs]) -> float:
    """The share of *role*'s requests that failed, in its worst system."""
    shares = [0.0]
    for (owner, system), found in outputs.items():
        if owner == role and found:
            failed = sum(e.count for e in errors if (e.role, e.system) == (role, system))
            shares.append(failed / len(found))
    return max(shares)
