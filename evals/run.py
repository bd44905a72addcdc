"""A suite against a release through the running gateway: ask, measure, decide."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import TextIO

import uvloop

from evals.cache import CACHE_FOLDER, Cache, open_cache, temporary_cache
from evals.cases import Flip, Marked, broken_cases, critical_places, flips
from evals.checks import Check
from evals.collect import Collected, collect
from evals.cost import Purse
from evals.dataset import Dataset, Sample
from evals.executors.base import Scorer
from evals.executors.local import LocalScorer, run_all
from evals.gate import CheckResult, GateDecision, decide, judge
from evals.judges import judges_of, standing_of
from evals.live import Live
from evals.marks import Marks
from evals.metrics.base import Metric
from evals.plan import Place, Plan, make_plan
from evals.rate import Rating, rate
from evals.score import Inference, Measured, compare, majority, marks_of
from evals.session import Asking, Judge, Session, open_session
from evals.slices import Slice, slices_of, worse_slices
from evals.subjects import Subjects
from evals.suite import EvalSuite, metrics_of, samples_of
from registry.clock import Clock
from registry.errors import BadInput
from registry.terminal import progress
from registry.workspace import Workspace

__all__ = ["Asking", "Effort", "ErrorCount", "EvalRun", "JudgeUse", "evaluate"]
_WORKERS_A_CALL = 2
"""So that the next call is ready when one ends; how many are under way is up to the pace."""
_LOOKS = 10
"""How often a run that may stop early looks."""


@dataclass(frozen=True, slots=True)
class Effort:
    """How much a run may do."""

    limit: int | None = None
    """Judge only the first so many samples: a trial, whose verdict is no evidence."""
    epochs: int | None = None
    """Repetitions, instead of the suite's; another number than the suite's makes it a trial."""
    stop_early: bool = False
    """Look ten times and stop as soon as the verdict is sure."""
    scorer: Scorer = field(default_factory=LocalScorer)
    lines: Path | None = None
    """Where every output and its scores are written, one JSON object a line."""


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How often one kind of error befell one release in one system, or one judge."""

    role: str
    """`candidate`, `baseline` or `judge`."""
    system: str
    kind: str
    count: int


@dataclass(frozen=True, slots=True)
class JudgeUse:
    """What a judge was asked in a run."""

    name: str
    judge: Judge
    calls: int
    cached: int
    failures: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class EvalRun:
    """Everything one run found."""

    suite: EvalSuite
    dataset: Dataset
    subjects: Subjects
    decision: GateDecision
    errors: tuple[ErrorCount, ...]
    samples: int
    """How many samples of the dataset were judged."""
    epochs: int
    cached: int
    """Outputs that came from the cache."""
    retried: int
    """Requests that had to be repeated."""
    tokens: tuple[int, int]
    """Prompt and completion tokens that the candidate reported."""
    trial: bool
    """Cut short by a limit: its verdict is no evidence."""
    started: datetime
    finished: datetime
    judges: tuple[JudgeUse, ...] = ()
    slices: tuple[Slice, ...] = ()
    critical_cases: int = 0
    broken: tuple[str, ...] = ()
    """Ids of critical cases below what a check asks of each."""
    flips: tuple[Flip, ...] = ()
    asking_s: float = 0.0
    scoring_s: float = 0.0
    spent_usd: float = 0.0
    unpriced: int = 0
    marked: tuple[Marked, ...] = ()
    """Each check that was made, with the scores of both sides."""
    looks: int = 1
    stopped: bool = False
    """Whether it stopped before the last sample because the verdict was sure."""


@dataclass(slots=True)
class _State:
    """What a run has by now."""

    suite: EvalSuite
    metrics: Mapping[str, Metric]
    plan: Plan
    samples: Sequence[Sample]
    judges: Mapping[str, Judge]
    epochs: int
    anytime: bool
    critical: tuple[int, ...]
    """Where the samples are that must never break."""
    purse: Purse
    live: dict[Place, Live] = field(default_factory=dict)
    collected: dict[Place, Collected] = field(default_factory=dict)
    marks: dict[Place, dict[str, Marks]] = field(default_factory=dict)
    done: int = 0
    """Samples judged by now."""
    asking_s: float = 0.0
    scoring_s: float = 0.0


def evaluate(
    workspace: Workspace,
    suite: EvalSuite,
    dataset: Dataset,
    subjects: Subjects,
    asking: Asking,
    *,
    clock: Clock,
    effort: Effort | None = None,
    purse: Purse | None = None,
) -> EvalRun:
    """
    Judge a release. Stores nothing but outputs in the cache; `submit.file` registers the result.

    Args:
        subjects: from `subjects.resolve`.
        purse: what the run may spend; by default anything, and no prices are known.

    Raises:
        BadInput: a limit below 1, or a suite that cannot stop early.
        BadSuite: a check's system cannot judge this release.
        EvalsError: no gateway, a refused key, or another release answers.
    """
    effort, purse = effort or Effort(), purse or Purse()
    if effort.limit is not None and effort.limit < 1:
        raise BadInput(f"limit is {effort.limit}; it must be at least 1")
    started = clock()
    samples = dataset.samples[: effort.limit]
    metrics = metrics_of(suite)
    if effort.stop_early:
        _require_bounded(suite, metrics)
    state = _State(
        suite=suite,
        metrics=metrics,
        plan=make_plan(suite, metrics, samples, subjects),
        samples=samples,
        judges=judges_of(workspace, suite, metrics, subjects, started),
        epochs=effort.epochs or suite.epochs,
        anytime=effort.stop_early,
        critical=critical_places(samples),
        purse=purse,
    )
    with ExitStack() as stack:
        folder = workspace.settings.home / CACHE_FOLDER
        kept = stack.enter_context(open_cache(folder)) if asking.use_cache else None
        store = kept or stack.enter_context(temporary_cache())
        lines = stack.enter_context(effort.lines.open("w", encoding="utf-8")) if effort.lines else None
        outcome = uvloop.run(_work(state, asking, store, kept, purse, effort.scorer, lines))
    results, found, looks, session = outcome
    errors, marked = _count_errors(state), _marked(state)
    candidates = [own for (role, _), own in state.collected.items() if role == "candidate"]
    return EvalRun(
        suite=suite,
        dataset=dataset,
        subjects=subjects,
        decision=_decision(state, results, found, errors),
        errors=errors,
        samples=min(state.done, max(len(job.samples) for job in state.plan.jobs.values())),
        epochs=state.epochs,
        cached=sum(own.cached for own in state.collected.values()),
        retried=session.retried,
        tokens=(
            sum(own.prompt_tokens for own in candidates),
            sum(own.completion_tokens for own in candidates),
        ),
        trial=len(samples) < len(dataset.samples) or state.epochs != suite.epochs,
        started=started,
        finished=clock(),
        judges=tuple(
            JudgeUse(name, state.judges[name], counts.calls, counts.cached, counts.failures)
            for name, counts in ((name, seats.counts) for name, seats in session.seats.items())
        ),
        slices=found,
        critical_cases=sum(1 for at in state.critical if at < state.done),
        broken=broken_cases(state.samples, state.critical, marked),
        flips=flips(state.samples, marked),
        marked=marked,
        asking_s=state.asking_s,
        scoring_s=state.scoring_s,
        spent_usd=purse.spent_usd,
        unpriced=purse.unpriced,
        looks=looks,
        stopped=state.done < len(samples),
    )


async def _work(
    state: _State,
    asking: Asking,
    store: Cache,
    kept: Cache | None,
    purse: Purse,
    scorer: Scorer,
    lines: TextIO | None,
) -> tuple[list[CheckResult], tuple[Slice, ...], int, Session]:
    """
    Collect and score in blocks, one block unless the run may stop early; look after each.

    One job after the other, so that no release's latency pays for another's load.
    """
    total = len(state.samples)
    size = -(-total // _LOOKS) if state.anytime else total
    looks = 0
    async with open_session(state.plan, state.judges, asking, kept, purse) as session:
        rating = Rating(
            state.metrics,
            lambda check, epoch: session.bench(state.suite, check, epoch),
            run_all,
            scorer,
            _WORKERS_A_CALL * (asking.judge_concurrency or asking.concurrency),
            lines,
        )
        for start in range(0, total, size):
            await _block(state, session, store, rating, asking, start, min(start + size, total))
            looks += 1
            results = _look(state)
            if state.anytime and _is_sure(results):
                break
    return results, slices_of(state.suite, state.samples[: state.done], _marked(state)), looks, session


async def _block(
    state: _State,
    session: Session,
    store: Cache,
    rating: Rating,
    asking: Asking,
    start: int,
    stop: int,
) -> None:
    is_watched = sys.stderr.isatty()
    for place, job in state.plan.jobs.items():
        end = min(stop, len(job.samples))
        if start >= end:
            continue
        found = state.collected.setdefault(place, Collected(job, store))
        began = time.perf_counter()
        live = state.live.setdefault(place, Live(job.scored, state.metrics, state.purse))
        with progress(" ".join(place), (end - start) * state.epochs, live.text) as on_done:
            await collect(
                found,
                session.targets[place],
                run_all,
                epochs=state.epochs,
                concurrency=_WORKERS_A_CALL * asking.concurrency,
                start=start,
                stop=end,
                on_done=on_done,
                on_answer=live.answered if is_watched else None,
            )
        asked = time.perf_counter()
        state.asking_s += asked - began
        marks = state.marks.setdefault(place, {check.title: Marks() for check in job.scored})
        judged = sum(state.metrics[check.title].rate is not None for check in job.scored)
        label = f"{job.role} {'judges' if judged else 'scores'}"
        with progress(label, (end - start) * state.epochs * max(judged, 1), live.text) as on_done:
            await rate(
                found,
                marks,
                replace(rating, seen=live.scored) if is_watched else rating,
                epochs=state.epochs,
                start=start,
                stop=end,
                rival=state.collected.get(("baseline", job.system_name)),
                on_done=on_done,
            )
        state.scoring_s += time.perf_counter() - asked
    state.done = stop


def _look(state: _State) -> list[CheckResult]:
    """Every check by what was scored so far."""
    results = []
    for check in state.suite.checks:
        metric = state.metrics[check.title]
        judge_ = state.judges.get(str(state.suite.judge_of(check))) if metric.rate else None
        advises = standing_of(judge_, check.metric) if judge_ else None
        skipped = state.plan.skipped.get(check.title)
        measured = skipped or _measured(state, check, metric, judge_)
        results.append(judge(check, metric, measured, advises=advises))
    return results


def _measured(state: _State, check: Check, metric: Metric, judge_: Judge | None) -> Measured:
    own = state.marks["candidate", check.system][check.title]
    inference = inference_of(state.suite, state.samples, check, judge_, anytime=state.anytime)
    return compare(check, metric, own, _rival(state, check), inference)


def inference_of(
    suite: EvalSuite,
    samples: Sequence[Sample],
    check: Check,
    judge_: Judge | None,
    *,
    anytime: bool = False,
) -> Inference:
    """How sure scores of *suite* can be: their clusters, and what is known of the judge's errors."""
    from evals.judges import corrections_of

    key = suite.cluster
    clusters = [str(sample.get(key)) for sample in samples] if key else None
    correct, correct_gain = corrections_of(judge_, check.metric)
    return Inference(clusters, not anytime, anytime, correct, correct_gain)


def _rival(state: _State, check: Check) -> Marks | None:
    if check.rival == "majority":
        chosen = samples_of(check, state.samples[: state.done])
        return marks_of(check, state.metrics[check.title], chosen, majority(chosen))
    if check.rival is None:
        return None
    return state.marks["baseline", check.system][check.title]


def _marked(state: _State) -> tuple[Marked, ...]:
    """Each check that was made, with the scores of both sides."""
    return tuple(
        (
            check,
            state.metrics[check.title],
            state.marks["candidate", check.system][check.title],
            _rival(state, check),
        )
        for check in state.suite.checks
        if check.title not in state.plan.skipped
    )


def _is_sure(results: Sequence[CheckResult]) -> bool:
    """Whether more samples cannot change the verdict: one check fails, or none that must pass is open."""
    deciding = [result for result in results if result.tier != "advisory"]
    if any(result.verdict == "fail" for result in deciding):
        return True
    return all(r.verdict in ("pass", "skipped") for r in deciding if r.tier == "critical")


def _require_bounded(suite: EvalSuite, metrics: Mapping[str, Metric]) -> None:
    for check in suite.checks:
        metric = metrics[check.title]
        bounded = metric.compute is None and check.statistic == "mean" and metric.high - metric.low < 1e9
        if check.decides and not bounded:
            raise BadInput(
                f"stop-early looks at scores between two bounds, sample by sample; check {check.title!r} has "
                "none: make it advisory, or run to the end"
            )
    if suite.cluster is not None or suite.slices:
        raise BadInput("stop-early knows neither clusters nor slices; remove them, or run to the end")


def _decision(
    state: _State,
    results: Sequence[CheckResult],
    slices: Sequence[Slice],
    errors: Sequence[ErrorCount],
) -> GateDecision:
    missing = [
        result.measured.missing / max(result.measured.missing + result.measured.estimate.n, 1)
        for result in results
        if result.measured is not None and result.tier == "critical"
    ]
    return decide(
        results,
        error_share=_share("candidate", errors, state),
        baseline_error_share=_share("baseline", errors, state),
        max_error_share=state.suite.max_error_share,
        missing_share=max(missing, default=0.0),
        max_missing_share=state.suite.judging.max_error_share,
        broken=broken_cases(state.samples, state.critical, _marked(state)),
        slices=worse_slices(slices),
    )


def _count_errors(state: _State) -> tuple[ErrorCount, ...]:
    counts = Counter(
        (role, system, kind)
        for (role, system), found in state.collected.items()
        for kind in found.failures.values()
    )
    for marks in state.marks.values():
        for title, own in marks.items():
            for kind, count in own.missing.items():
                counts["judge", title, kind] += count
    return tuple(ErrorCount(*place, count) for place, count in sorted(counts.items()))


def _share(role: str, errors: Sequence[ErrorCount], state: _State) -> float:
    """The share of *role*'s requests that failed, in its worst system."""
    shares = [0.0]
    for (owner, system), found in state.collected.items():
        if owner == role and found.asked:
            failed = sum(e.count for e in errors if (e.role, e.system) == (role, system))
            shares.append(failed / found.asked)
    return max(shares)
