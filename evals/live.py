"""What a run knows while it goes on: a running score with its interval, and the money spent."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from evals.checks import Check
from evals.cost import Purse
from evals.dataset import Sample
from evals.distributions import normal_quantile
from evals.errors import ScoreFailed
from evals.metrics.base import Metric
from evals.stats import Interval, wilson
from evals.systems.base import Output


@dataclass(slots=True)
class Tally:
    """A running mean: numbers only, whatever their count."""

    n: int = 0
    mean: float = 0.0
    squares: float = 0.0
    binary: bool = True

    def add(self, value: float) -> None:
        """
        One more value.

        Source: Welford 1962, Technometrics 4(3), 419-420.
        """
        self.n += 1
        change = value - self.mean
        self.mean += change / self.n
        self.squares += change * (value - self.mean)
        self.binary = self.binary and value in (0.0, 1.0)

    def interval(self, low: float, high: float) -> Interval:
        """About 95 %, for people who wait: Wilson's of zeros and ones, else of a normal mean."""
        if self.binary and (low, high) == (0.0, 1.0):
            return wilson(round(self.mean * self.n), self.n)
        if self.n < 2:
            return Interval(low, high)
        half = normal_quantile(0.975) * math.sqrt(self.squares / (self.n - 1) / self.n)
        return Interval(self.mean - half, self.mean + half).clipped(low, high)


class Live:
    """
    The first check that decides, of those scored sample by sample; the verdict itself is made at the end.

    What is shown is of the answers so far, which are no random part of all: fast ones come first.
    """

    def __init__(self, checks: Sequence[Check], metrics: Mapping[str, Metric], purse: Purse) -> None:
        """Watch one of *checks*, whose metrics are in *metrics* by title."""
        watched = [check for check in checks if _is_watched(metrics[check.title])]
        watched.sort(key=lambda check: not check.decides)
        self._check = watched[0] if watched else None
        self._metric = metrics[watched[0].title] if watched else None
        self._purse = purse
        self._tally = Tally()

    def answered(self, sample: Sample, output: Output) -> None:
        """Score an answer at once, where that takes no judge."""
        if self._check is None or self._metric is None or self._metric.score is None:
            return
        try:
            self._tally.add(self._metric.score(sample, output, self._check.k))
        except ScoreFailed:
            return  # it is counted with its kind when the run scores it

    def scored(self, title: str, value: float) -> None:
        """A judge's score for the check called *title*."""
        if self._check is not None and title == self._check.title:
            self._tally.add(value)

    def text(self) -> str:
        """Such as `right 0.83 [0.71, 0.91]  $0.0120`; empty as long as nothing is known."""
        parts = []
        if self._tally.n and self._check is not None and self._metric is not None:
            found = self._tally.interval(self._metric.low, self._metric.high)
            digits = self._metric.digits
            low, high = f"{found.low:.{digits}f}", f"{found.high:.{digits}f}"
            parts.append(f"{self._check.title} {self._tally.mean:.{digits}f} [{low}, {high}]")
        if self._purse.spent_usd:
            parts.append(f"${self._purse.spent_usd:.4f}")
        return "  ".join(parts)


def _is_watched(metric: Metric) -> bool:
    return (metric.score is not None and not metric.cpu_heavy) or metric.rate is not None
