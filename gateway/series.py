"""Counters and histograms as Prometheus wants them, cheap to add to."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

MAX_SERIES = 2000
SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Histogram:
    """Counts of values by the least bound that they do not pass, and their sum."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        """*bounds* rise."""
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts, as Prometheus wants them."""
        sums: list[tuple[str, float]] = []
        running = 0
        for bound, count in zip((*self.bounds, None), self.counts, strict=True):
            running += count
            sums.append(("+Inf" if bound is None else str(float(bound)), running))
        return sums


def summed(pairs: Iterable[tuple[tuple[str, ...], int]]) -> dict[tuple[str, ...], int]:
    """Counts by labels, those of equal labels added up; without zeros."""
    sums: dict[tuple[str, ...], int] = {}
    for labels, count in pairs:
        if count:
            sums[labels] = sums.get(labels, 0) + count
    return sums


def counter_of(
    name: str, text: str, labels: Sequence[str], counts: Mapping[tuple[str, ...], int]
) -> CounterMetricFamily:
    """A counter with one series for each combination of labels."""
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in sorted(counts.items()):
        family.add_metric(values, count)
    return family


def histogram_of(
    name: str, text: str, labels: Sequence[str], histograms: Iterable[tuple[tuple[str, ...], Histogram]]
) -> HistogramMetricFamily:
    """A histogram; those of equal labels are added up, and empty ones left out."""
    family = HistogramMetricFamily(name, text, labels=labels)
    sums: dict[tuple[str, ...], Histogram] = {}
    for values, histogram in histograms:
        if any(histogram.counts):
            into = sums.setdefault(values, Histogram(histogram.bounds))
            into.counts = [a + b for a, b in zip(into.counts, histogram.counts, strict=True)]
            into.total += histogram.total
    for values, histogram in sorted(sums.items()):
        family.add_metric(values, histogram.buckets(), histogram.total)
    return family
