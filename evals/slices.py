"""Parts of the data where a release may hide a loss: each is looked at, and the looks are counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from evals.cases import Marked
from evals.checks import Check
from evals.dataset import Sample
from evals.inference import clustered_short, holm, p_short
from evals.marks import Marks
from evals.metrics.base import Metric
from evals.score import Inference, compare
from evals.stats import MIN_SAMPLES, Estimate
from evals.suite import EvalSuite


@dataclass(frozen=True, slots=True)
class Slice:
    """One part of the samples under one check."""

    check: str
    key: str
    value: str
    n: int
    estimate: Estimate
    gain: Estimate | None
    p_adjusted: float | None
    """How likely such a shortfall is by chance where the slice meets the check, by Holm over all slices."""
    is_worse: bool
    """Whether it surely falls short of what the check allows."""


def slices_of(suite: EvalSuite, samples: Sequence[Sample], marked: Sequence[Marked]) -> tuple[Slice, ...]:
    """
    Every slice of at least 10 samples under every check that decides and scores samples one by one.

    A slice is worse where its one-sided p-value, adjusted by Holm over all slices and checks, is at most
    (1 - confidence) / 2: the chance to blame any slice of a release that meets its checks everywhere is at
    most that. Samples that a judge left without a score count as the best there is; within clusters the
    errors add up, and slices of fewer than 10 clusters blame nobody.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2), 65-70.
    """
    clusters = [str(sample.get(suite.cluster)) for sample in samples] if suite.cluster else None
    found: list[tuple[Slice, float]] = []
    levels: list[float] = []
    for check, metric, own, theirs in marked:
        if not check.decides or metric.compute is not None or check.statistic != "mean":
            continue
        for key in suite.slices:
            for value, places in _parts(key, samples[: len(own.values)]).items():
                within = [clusters[at] for at in places] if clusters else None
                part = _part(check, metric, _only(own, places), theirs and _only(theirs, places), within)
                if part is not None:
                    estimate, gain, p = part
                    one = Slice(check.title, key, value, estimate.n, estimate, gain, None, is_worse=False)
                    found.append((one, p))
                    levels.append((1 - check.confidence) / 2)
    adjusted = holm([p for _, p in found])
    return tuple(
        replace(one, p_adjusted=p, is_worse=p <= level)
        for (one, _), p, level in zip(found, adjusted, levels, strict=True)
    )


def worse_slices(slices: Sequence[Slice]) -> tuple[str, ...]:
    """What slices fall short, such as `language=de (answers well)`; the least likely to be chance first."""
    worse = sorted((one for one in slices if one.is_worse), key=lambda one: one.p_adjusted or 0.0)
    return tuple(f"{one.key}={one.value} ({one.check})" for one in worse)


def _parts(key: str, samples: Sequence[Sample]) -> dict[str, list[int]]:
    parts: dict[str, list[int]] = {}
    for at, sample in enumerate(samples):
        value = sample.get(key)
        parts.setdefault(str(value).lower() if isinstance(value, bool) else str(value), []).append(at)
    return parts


def _part(
    check: Check, metric: Metric, own: Marks, theirs: Marks | None, clusters: Sequence[str] | None
) -> tuple[Estimate, Estimate | None, float] | None:
    """What a slice's scores say, and the p-value that it falls short by chance; None for too few."""
    measured = compare(check, metric, own, theirs, Inference(clusters))
    if measured.estimate.n < MIN_SAMPLES:
        return None
    sign = 1 if metric.higher_is_better else -1
    low, high = (metric.low, metric.high) if sign > 0 else (-metric.high, -metric.low)
    values, wanted = [sign * value for value in own.values], sign * _threshold(check)
    if theirs is not None:
        values = [sign * (a - b) for a, b in zip(own.values, theirs.values, strict=True)]
        low, high, wanted = low - high, high - low, check.gain
    best = high if math.isfinite(high) else wanted
    seen = [best if math.isnan(value) else value for value in values]
    p = clustered_short(seen, clusters, wanted, low, high) if clusters else p_short(seen, wanted, low, high)
    return measured.estimate, measured.gain, p


def _threshold(check: Check) -> float:
    return (check.at_least if check.at_least is not None else check.at_most) or 0.0


def _only(marks: Marks, places: Sequence[int]) -> Marks:
    part = Marks()
    for at in places:
        part.values.append(marks.values[at])
        part.worst.append(marks.worst[at])
    return part
