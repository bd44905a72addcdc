"""What a metric is: a name, a range, a direction and a pure function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from evals.dataset import Sample
from evals.systems.base import Output

Score = Callable[[Sample, Output, int | None], float]
"""The score of one output in the metric's range; the last argument is k."""
Outcomes = Mapping[tuple[str, str | None], int]
"""How often each (expected, predicted) pair occurred; None is no prediction."""
Compute = Callable[[Outcomes], float]


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: exactly one of *score* (one sample each) and *compute* (all samples at once) is set."""

    name: str
    systems: tuple[str, ...]
    """The systems whose outputs it can judge."""
    needs: tuple[str, ...]
    """Fields of a Sample that must not be empty."""
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    ranked: Literal["no", "k", "optional"] = "no"
    """Whether it looks at the first k ranks: never, always, or when told."""
    digits: int = 2
    """How many decimals people are shown."""
    score: Score | None = None
    compute: Compute | None = None

    @property
    def worst(self) -> float:
        """What a request that failed scores; infinite where the range has no end."""
        return self.low if self.higher_is_better else self.high
