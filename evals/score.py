"""From scores to estimates: what each check measured, errors and missing scores included."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from evals import stats
from evals.checks import QUANTILES, Check
from evals.client import Failure
from evals.dataset import Sample
from evals.executors.local import score_here
from evals.inference import anytime_mean, clustered_gain, clustered_mean, permutation_p
from evals.marks import Marks
from evals.metrics.base import Compute, Metric
from evals.stats import Estimate, Interval
from evals.suite import samples_of
from evals.systems.base import Output

Outputs = Mapping[str, Output | Failure]
"""What one release answered through one system, by sample id."""
Row = tuple[Hashable, Hashable]
"""What a metric of all samples knows of one: of the release's output, and of its rival's."""


@dataclass(frozen=True, slots=True)
class Inference:
    """What besides the scores decides how sure they are."""

    clusters: Sequence[str] | None = None
    """The cluster of each sample, by position; None where samples stand alone."""
    permute: bool = False
    """Whether scores that are not 0 or 1 get a permutation test, which takes some 20 ms."""
    anytime: bool = False
    """Whether the interval must hold at every look, not only at one fixed number of samples."""
    correct: Callable[[Estimate, float], Estimate] | None = None
    """What a judge's known errors make of an estimate, at a confidence level."""
    correct_gain: Callable[[Estimate, float], Estimate] | None = None


PLAIN = Inference()


@dataclass(frozen=True, slots=True)
class Measured:
    """What one check found."""

    estimate: Estimate
    """Of the release's own value."""
    compared: float | None = None
    """The value of the baseline or of the majority class."""
    gain: Estimate | None = None
    """By how much the release is better, in the metric's unit; positive is better."""
    p_value: float | None = None
    """Exact McNemar, where both are right or wrong on each sample; else of the paired permutation test."""
    missing: int = 0
    """Samples without a score: the intervals hold wherever those may lie."""
    between: float | None = None
    """Share of the scores' variance that lies between samples, not between repetitions of one."""
    better: int = 0
    """Samples that score better than the rival's."""
    worse: int = 0


@dataclass(frozen=True, slots=True)
class _Pair:
    own: list[float]
    theirs: list[float]
    clusters: list[str] | None
    missing: int
    total: int = field(default=0)


def measure(
    check: Check, metric: Metric, samples: Sequence[Sample], outputs: Outputs, baseline: Outputs | None
) -> Measured:
    """
    What *check* finds in *outputs* of a metric without a judge, each sample asked once.

    A failed request scores the worst its metric knows.

    Args:
        baseline: outputs of the release to beat, for checks against the baseline.
    """
    chosen = samples_of(check, samples)
    rival = baseline if check.rival == "baseline" else None
    if check.rival == "majority":
        rival = majority(chosen)
    theirs = None if rival is None else marks_of(check, metric, chosen, rival)
    return compare(check, metric, marks_of(check, metric, chosen, outputs), theirs)


def marks_of(check: Check, metric: Metric, samples: Sequence[Sample], outputs: Outputs) -> Marks:
    """The scores of *outputs* by a metric without a judge."""
    marks = Marks()
    for sample in samples:
        output = outputs[sample.id]
        if metric.compute is not None:
            marks.items.append((metric.item(sample, None if isinstance(output, Failure) else output),))
        elif isinstance(output, Failure):
            marks.add(metric, [metric.worst], None)
        else:
            (score,) = score_here(check, metric, [(sample, output)])
            marks.add(
                metric, [] if isinstance(score, str) else [score], score if isinstance(score, str) else None
            )
    return marks


def majority(samples: Sequence[Sample]) -> dict[str, Output | Failure]:
    """What a system would answer that always says the commonest label; ties go to the first by name."""
    counts = Counter(sample.expected for sample in samples)
    label = min(counts, key=lambda name: (-counts[name], str(name)))
    return {sample.id: Output(latency_ms=0.0, label=label) for sample in samples}


def compare(
    check: Check, metric: Metric, own: Marks, theirs: Marks | None, inference: Inference = PLAIN
) -> Measured:
    """
    What *check* finds in the scores of a release, and of its rival where it has one.

    Samples without a score (a judge failed) are left out of the value, and the interval is widened to
    wherever their scores may lie in the metric's range.
    """
    if metric.compute is not None:
        return _corpus(metric, check, own, theirs)
    alone = _chosen(own, None, inference)
    between = _between(own)
    estimate = _estimate(check, metric, alone, inference)
    if theirs is None:
        return Measured(estimate, missing=alone.missing, between=between)
    pair = _chosen(own, theirs, inference)
    compared = _estimate(check, metric, _Pair(pair.theirs, [], pair.clusters, pair.missing), inference).value
    if not pair.own or not all(map(math.isfinite, (*pair.own, *pair.theirs))):
        nothing = _no_value(len(pair.own), -math.inf, math.inf)
        return Measured(estimate, _finite(compared), nothing, missing=pair.missing, between=between)
    first, second = (pair.own, pair.theirs) if metric.higher_is_better else (pair.theirs, pair.own)
    gain = _gain(check, metric, first, second, pair, inference)
    better = sum(a > b for a, b in zip(first, second, strict=True))
    worse = sum(a < b for a, b in zip(first, second, strict=True))
    p_value = None
    if gain.method == "Tango":
        p_value = stats.mcnemar(better, worse)
    elif inference.permute:
        p_value = permutation_p([a - b for a, b in zip(first, second, strict=True)])
    return Measured(estimate, compared, gain, p_value, pair.missing, between, better, worse)


def _chosen(own: Marks, theirs: Marks | None, inference: Inference) -> _Pair:
    """The scores of samples that have one on both sides."""
    kept = [
        at
        for at, value in enumerate(own.values)
        if not math.isnan(value) and (theirs is None or not math.isnan(theirs.values[at]))
    ]
    return _Pair(
        [own.values[at] for at in kept],
        [theirs.values[at] for at in kept] if theirs is not None else [],
        [inference.clusters[at] for at in kept] if inference.clusters is not None else None,
        len(own.values) - len(kept),
    )


def _estimate(check: Check, metric: Metric, pair: _Pair, inference: Inference) -> Estimate:
    values, low, high = pair.own, metric.low, metric.high
    if not values:
        return _no_value(0, low, high)
    if check.statistic in QUANTILES:
        q = QUANTILES[check.statistic]
        interval = stats.quantile_interval(values, q, check.confidence).clipped(low, high)
        return Estimate(stats.quantile(values, q), interval, len(values), "order statistics")
    if not all(map(math.isfinite, values)):
        return _no_value(len(values), low, high)
    if inference.anytime and math.isfinite(high - low):
        found = anytime_mean(values, low, high, check.confidence)
    elif pair.clusters is not None:
        found = clustered_mean(values, pair.clusters, low, high, check.confidence)
    else:
        found = stats.estimate_mean(values, low, high, check.confidence)
    found = _widened(found, pair.missing, low, high)
    return inference.correct(found, check.confidence) if inference.correct else found


def _gain(
    check: Check,
    metric: Metric,
    first: Sequence[float],
    second: Sequence[float],
    pair: _Pair,
    inference: Inference,
) -> Estimate:
    low, high, level = metric.low, metric.high, check.confidence
    spread = high - low
    if inference.anytime and math.isfinite(spread):
        differences = [a - b for a, b in zip(first, second, strict=True)]
        found = anytime_mean(differences, -spread, spread, level)
    elif pair.clusters is not None:
        found = clustered_gain(first, second, pair.clusters, low, high, level)
    else:
        found = stats.estimate_gain(first, second, low, high, level)
    found = _widened(found, pair.missing, -spread, spread)
    return inference.correct_gain(found, level) if inference.correct_gain else found


def _widened(found: Estimate, missing: int, low: float, high: float) -> Estimate:
    """
    The estimate whose interval holds wherever *missing* further scores lie between *low* and *high*.

    Source: Manski 1989, The Journal of Human Resources 24(3), 343-360: bounds without assumptions.
    """
    if not missing:
        return found
    share = missing / (found.n + missing)
    interval = Interval(
        (1 - share) * found.interval.low + share * low, (1 - share) * found.interval.high + share * high
    )
    return Estimate(found.value, interval, found.n, found.method)


def _between(marks: Marks) -> float | None:
    """The intraclass correlation of repeated scores, in [0, 1]; None without repetitions."""
    values = [value for value in marks.values if math.isfinite(value)]
    if marks.within <= 0 or len(values) < 2:
        return None
    inside = marks.within / len(values)
    mean = math.fsum(values) / len(values)
    total = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return total / (total + inside)


def _no_value(n: int, low: float, high: float) -> Estimate:
    """Where failed requests leave nothing to average."""
    return Estimate(math.nan, Interval(low, high), n, "none")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _corpus(metric: Metric, check: Check, own: Marks, theirs: Marks | None) -> Measured:
    """An estimate by resampling the samples themselves; pairs stay together."""
    assert metric.compute is not None  # noqa: S101 - the caller asks metrics of all samples
    rows: list[Row] = [
        (item, theirs.items[at] if theirs is not None else ())
        for at, item in enumerate(own.items)
        if item and (theirs is None or theirs.items[at])
    ]
    missing = len(own.items) - len(rows)
    if not rows:
        return Measured(_no_value(0, metric.low, metric.high), missing=missing)
    compute, level = metric.compute, check.confidence
    sign = 1 if metric.higher_is_better else -1

    def value(counts: Mapping[Row, int]) -> float:
        return _computed(compute, counts, 0)

    def gained(counts: Mapping[Row, int]) -> float:
        return sign * (_computed(compute, counts, 0) - _computed(compute, counts, 1))

    span = Interval(metric.low, metric.high)
    unseen = stats.unseen_share(_smallest(rows), level)
    once = all(len(row[0]) == 1 for row in rows if isinstance(row[0], tuple))
    if metric.closed is not None and once:
        estimate = metric.closed([_only(row[0]) for row in rows], None, level)
    else:
        estimate = _resampled(rows, value, span, unseen, level)
    estimate = _widened(estimate, missing, metric.low, metric.high)
    if theirs is None:
        return Measured(estimate, missing=missing)
    if metric.closed is not None and once:
        better = metric.closed([_only(row[0]) for row in rows], [_only(row[1]) for row in rows], level)
    else:
        width = metric.high - metric.low
        better = _resampled(rows, gained, Interval(-width, width), unseen, level)
    better = _widened(better, missing, metric.low - metric.high, metric.high - metric.low)
    return Measured(estimate, _computed(compute, Counter(rows), 1), better, missing=missing)


def _computed(compute: Compute, counts: Mapping[Row, int], side: int) -> float:
    """The metric of one side, averaged over epochs."""
    epochs: dict[int, Counter[Any]] = {}
    for row, times in counts.items():
        items = row[side]
        for epoch, item in enumerate(items if isinstance(items, tuple) else ()):
            epochs.setdefault(epoch, Counter())[item] += times
    return math.fsum(compute(items) for items in epochs.values()) / len(epochs)


def _only(items: Hashable) -> Any:  # noqa: ANN401
    return items[0] if isinstance(items, tuple) else items


def _smallest(rows: Sequence[Row]) -> int:
    """How many samples the rarest class has: the first part of an item where that is a pair, else of all."""
    firsts = Counter(_class(_only(row[0])) for row in rows)
    return min(firsts.values())


def _class(item: Any) -> Hashable:  # noqa: ANN401
    return item[0] if isinstance(item, tuple) and item and isinstance(item[0], str | bool) else None


def _resampled(
    rows: Sequence[Row],
    compute: Callable[[Mapping[Row, int]], float],
    span: Interval,
    unseen: float,
    level: float,
) -> Estimate:
    """The bootstrap estimate; where no resample differs, *unseen* cases may lie at the ends of *span*."""
    value = compute(Counter(rows))
    found = stats.bootstrap_interval(rows, compute, level)
    if found.low == found.high:
        found = Interval(value - unseen * (value - span.low), value + unseen * (span.high - value))
    return Estimate(value, found.clipped(span.low, span.high), len(rows), "percentile bootstrap")
