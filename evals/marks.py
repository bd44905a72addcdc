"""What one check's metric gave one subject, sample by sample; outputs themselves are long gone."""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass, field

from evals.metrics.base import Metric


@dataclass(slots=True)
class Marks:
    """Scores by position of the check's samples, averaged over epochs. Numbers only: a few bytes a sample."""

    values: array[float] = field(default_factory=lambda: array("d"))
    """The mean over epochs; NaN where the sample has no score."""
    worst: array[float] = field(default_factory=lambda: array("d"))
    """The worst epoch's score; NaN where there is none."""
    epochs: list[array[float]] = field(default_factory=list)
    """Each repetition's scores, where there are several; NaN where the sample has none."""
    items: list[tuple[Hashable, ...]] = field(default_factory=list)
    """For metrics of all samples: what each needs to know of a sample, one for each epoch."""
    within: float = 0.0
    """Sum over samples of the variance between epochs."""
    missing: Counter[str] = field(default_factory=Counter)
    """Why samples have no score, by kind."""

    def __len__(self) -> int:
        """How many samples were marked."""
        return len(self.items) or len(self.values)

    def add(
        self, metric: Metric, scores: list[float], failed: str | None, value: float | None = None
    ) -> None:
        """
        The next sample's scores, one for each epoch.

        Args:
            failed: why an epoch has no score; then the sample has none.
            value: what the scores are worth together; by default their mean.
        """
        self._keep(scores, failed)
        if failed is not None or not scores:
            self.missing[failed or "no_score"] += 1
            self.values.append(math.nan)
            self.worst.append(math.nan)
            return
        mean = math.fsum(scores) / len(scores)
        self.values.append(mean if value is None else value)
        self.worst.append(min(scores) if metric.higher_is_better else max(scores))
        if len(scores) > 1 and math.isfinite(mean):
            self.within += sum((score - mean) ** 2 for score in scores) / (len(scores) - 1)

    def _keep(self, scores: list[float], failed: str | None) -> None:
        if len(scores) < 2 and not self.epochs:
            return
        while len(self.epochs) < len(scores):
            self.epochs.append(array("d", [math.nan] * len(self.values)))
        for epoch, kept in enumerate(self.epochs):
            kept.append(scores[epoch] if failed is None and epoch < len(scores) else math.nan)
