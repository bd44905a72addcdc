"""Single cases: those that must never break, and those whose outcome changed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from evals.checks import Check
from evals.dataset import Sample, Samples
from evals.marks import Marks
from evals.metrics.base import Metric

Marked = tuple[Check, Metric, Marks, Marks | None]
"""A check, its metric, the scores of the release and of its rival."""
_TINY = 1e-9


@dataclass(frozen=True, slots=True)
class Flip:
    """A sample that one of the two has better."""

    check: str
    id: str
    before: float
    """The rival's score."""
    after: float
    is_worse: bool


def critical_places(samples: Sequence[Sample]) -> tuple[int, ...]:
    """Where the samples with `critical: true` are."""
    places = samples.with_key("critical") if isinstance(samples, Samples) else range(len(samples))
    return tuple(at for at in places if samples[at].get("critical") is True)


def broken_cases(
    samples: Sequence[Sample], critical: Sequence[int], marked: Sequence[Marked]
) -> tuple[str, ...]:
    """
    Ids of the samples at *critical* places that break a critical check by themselves.

    That is one below `at_least` (above `at_most`) in its worst repetition, one that scores worse than the
    baseline by more than the margin on average, or one without a score.
    """
    broken: dict[str, None] = {}
    for check, metric, own, theirs in marked:
        if check.tier not in ("critical", "gate") or check.statistic != "mean" or not own.values:
            continue
        for at in critical:
            if at < len(own.worst) and _is_broken(check, metric, own, theirs, at, own.worst[at]):
                broken[samples[at].id] = None
    return tuple(broken)


def _is_broken(check: Check, metric: Metric, own: Marks, theirs: Marks | None, at: int, worst: float) -> bool:
    if math.isnan(worst):
        return True
    if check.at_least is not None:
        return worst < check.at_least
    if check.at_most is not None:
        return worst > check.at_most
    if theirs is None or math.isnan(theirs.values[at]):
        return False
    gain = own.values[at] - theirs.values[at]
    allowed = min(check.gain, 0.0)
    return (gain if metric.higher_is_better else -gain) < allowed - _TINY


def flips(samples: Sequence[Sample], marked: Sequence[Marked]) -> tuple[Flip, ...]:
    """Every sample on which a check that compares has another score, the greatest losses first."""
    found = []
    for check, metric, own, theirs in marked:
        if check.rival != "baseline" or theirs is None or not own.values:
            continue
        for at, (after, before) in enumerate(zip(own.values, theirs.values, strict=True)):
            if math.isfinite(after) and math.isfinite(before) and abs(after - before) > _TINY:
                is_worse = (after < before) == metric.higher_is_better
                found.append(Flip(check.title, samples[at].id, before, after, is_worse))
    found.sort(key=lambda flip: (not flip.is_worse, -abs(flip.after - flip.before), flip.id))
    return tuple(found)
