"""From outputs to estimates: what each check measured, errors included."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from evals import stats
from evals.client import Failure
from evals.dataset import Sample
from evals.metrics.base import Compute, Metric
from evals.stats import Estimate, Interval
from evals.suite import QUANTILES, Check, samples_of
from evals.systems.base import Output

Outputs = Mapping[str, Output | Failure]
"""What one release answered through one system, by sample id."""


Row = tuple[str, str | None, str | None]
"""The expected label, the release's and its rival's."""


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
    """Exact McNemar, where both are right or wrong on each sample."""


def measure(
    check: Check, metric: Metric, samples: Sequence[Sample], outputs: Outputs, baseline: Outputs | None
) -> Measured:
    """
    What *check* finds in *outputs*; a failed request scores the worst its metric knows.

    Args:
        baseline: outputs of the release to beat, for checks against the baseline.
    """
    chosen = samples_of(check, samples)
    rival = baseline if check.better_than == "baseline" else None
    if check.better_than == "majority":
        rival = majority(chosen)
    if metric.compute is not None:
        return _corpus(metric.compute, check, chosen, outputs, rival)
    own = scores(metric, check.k, chosen, outputs)
    estimate = _estimate(check, metric, own)
    if rival is None:
        return Measured(estimate)
    theirs = scores(metric, check.k, chosen, rival)
    compared = _estimate(check, metric, theirs).value
    if not all(map(math.isfinite, (*own, *theirs))):
        return Measured(estimate, _finite(compared), _no_value(len(own), -math.inf, math.inf))
    first, second = (own, theirs) if metric.higher_is_better else (theirs, own)
    gain = stats.estimate_gain(first, second, metric.low, metric.high, check.confidence)
    gained = sum(a > b for a, b in zip(first, second, strict=True))
    lost = sum(a < b for a, b in zip(first, second, strict=True))
    return Measured(estimate, compared, gain, stats.mcnemar(gained, lost) if gain.method == "Tango" else None)


def scores(metric: Metric, k: int | None, samples: Sequence[Sample], outputs: Outputs) -> list[float]:
    """One score for each sample, in order; a failed request scores `metric.worst`."""
    assert metric.score is not None  # noqa: S101 - the caller asks metrics of single samples
    found: list[float] = []
    for sample in samples:
        output = outputs[sample.id]
        found.append(metric.worst if isinstance(output, Failure) else metric.score(sample, output, k))
    return found


def majority(samples: Sequence[Sample]) -> dict[str, Output | Failure]:
    """What a system would answer that always says the commonest label; ties go to the first by name."""
    counts = Counter(sample.expected for sample in samples)
    label = min(counts, key=lambda name: (-counts[name], str(name)))
    return {sample.id: Output(latency_ms=0.0, label=label) for sample in samples}


def _estimate(check: Check, metric: Metric, values: Sequence[float]) -> Estimate:
    if check.statistic in QUANTILES:
        q = QUANTILES[check.statistic]
        interval = stats.quantile_interval(values, q, check.confidence).clipped(metric.low, metric.high)
        return Estimate(stats.quantile(values, q), interval, len(values), "order statistics")
    if not all(map(math.isfinite, values)):
        return _no_value(len(values), metric.low, metric.high)
    return stats.estimate_mean(values, metric.low, metric.high, check.confidence)


def _no_value(n: int, low: float, high: float) -> Estimate:
    """Where failed requests leave nothing to average."""
    return Estimate(math.nan, Interval(low, high), n, "none")


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _corpus(
    compute: Compute, check: Check, samples: Sequence[Sample], outputs: Outputs, rival: Outputs | None
) -> Measured:
    """An estimate by resampling the samples themselves; pairs stay together."""
    rows = [
        (str(sample.expected), _label(outputs[sample.id]), _label(rival[sample.id]) if rival else None)
        for sample in samples
    ]

    def own(counts: Mapping[Row, int]) -> float:
        return compute(_pairs(counts, 1))

    def gain(counts: Mapping[Row, int]) -> float:
        return compute(_pairs(counts, 1)) - compute(_pairs(counts, 2))

    smallest = min(Counter(row[0] for row in rows).values())
    unseen = stats.unseen_share(smallest, check.confidence)
    estimate = _resampled(rows, own, Interval(0.0, 1.0), unseen, check.confidence)
    if rival is None:
        return Measured(estimate)
    better = _resampled(rows, gain, Interval(-1.0, 1.0), unseen, check.confidence)
    return Measured(estimate, compute(_pairs(Counter(rows), 2)), better)


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


def _pairs(counts: Mapping[Row, int], column: int) -> Counter[tuple[str, str | None]]:
    found: Counter[tuple[str, str | None]] = Counter()
    for row, times in counts.items():
        found[row[0], row[column]] += times
    return found


def _label(output: Output | Failure) -> str | None:
    return None if isinstance(output, Failure) else output.label
