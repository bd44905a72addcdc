"""What a metric is: a name, a range, a direction, and one way to a score."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from evals.dataset import Sample
from evals.judging.base import Bench
from evals.stats import Estimate
from evals.systems.base import Output

Score = Callable[[Sample, Output, int | None], float]
"""
The score of one output in the metric's range; the last argument is k.

Raises ScoreFailed where there is no score: counted as an error, never as a number.
"""


@dataclass(frozen=True, slots=True)
class Scored:
    """What a judge found: a score in the metric's range, and why."""

    value: float
    reason: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain JSON for reports, such as each claim and whether it is supported."""


Rate = Callable[[Sample, Output, Bench], Awaitable[Scored]]
"""The score of one output by a judge. Raises ScoreFailed where there is none."""
Item = Callable[[Sample, Output | None], Hashable]
"""What a metric of all samples needs to know of one; the output is None where the request failed."""
Compute = Callable[[Mapping[Any, int]], float]
"""The value over all samples, from how often each item occurs."""
Closed = Callable[[Sequence[Any], Sequence[Any] | None, float], Estimate]
"""
The estimate in closed form, at a confidence level: of the items alone, or of by how much the first items
exceed the second ones, sample by sample.
"""
Outcomes = Mapping[tuple[str, str | None], int]
"""How often each (expected, predicted) pair occurred; None is no prediction."""


def outcome(sample: Sample, output: Output | None) -> tuple[str, str | None]:
    """The pair (expected label, predicted label); None is no prediction."""
    return str(sample.expected), output.label if output else None


@dataclass(frozen=True, slots=True)
class Metric:
    """
    A metric: exactly one of *score* (one sample each), *compute* (all samples at once) and *rate*.

    A plug-in of `sluicegate.metrics` is a Metric, or a function that takes the options of a check (a mapping,
    possibly empty) and returns one; it raises BadInput for an option it does not know.
    """

    name: str
    systems: tuple[str, ...]
    """The systems whose outputs it can judge."""
    needs: tuple[str, ...]
    """Fields of a Sample that must not be empty: its attributes, or other keys of its row."""
    low: float = 0.0
    high: float = 1.0
    higher_is_better: bool = True
    ranked: Literal["no", "k", "optional"] = "no"
    """Whether it looks at the first k ranks: never, always, or when told."""
    digits: int = 2
    """How many decimals people are shown."""
    score: Score | None = None
    compute: Compute | None = None
    rate: Rate | None = None
    item: Item = outcome
    """For *compute*: what it needs of each sample."""
    closed: Closed | None = None
    """For *compute*: its interval, where one is better than the bootstrap's."""
    of_labels: bool = False
    """Whether it looks at labels alone, so that always saying the commonest one is a rival."""
    embeds: bool = False
    """For *rate*: whether it calls `Bench.embed`."""
    rival: bool = False
    """For *rate*: whether `output.meta["rival"]` must hold the baseline's output as a plain mapping."""
    calls: int = 1
    """For *rate*: about how many calls of the judge one score takes; for estimates of cost."""
    positive: str | None = None
    """A label that some samples must expect; without any the metric says nothing."""
    cpu_heavy: bool = False
    """For *score*: worth a process of its own, see `--executor`."""

    @property
    def worst(self) -> float:
        """What a request that failed scores; infinite where the range has no end."""
        return self.low if self.higher_is_better else self.high
