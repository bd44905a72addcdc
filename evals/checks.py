"""Checks: what must hold of a release, and how much it matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from registry.errors import BadInput
from registry.refs import check_name

QUANTILES = {"p50": 0.5, "p95": 0.95}
Tier = Literal["critical", "supporting", "advisory", "gate"]
Rival = Literal["baseline", "majority"]


@dataclass(frozen=True, slots=True)
class Margins:
    """By how much a release may be worse than its baseline, for checks that say `not_worse_than`."""

    critical: float = 0.0
    supporting: float = 0.02
    advisory: float = 0.0

    def __post_init__(self) -> None:
        """Refuse margins below 0."""
        for name in ("critical", "supporting", "advisory"):
            if getattr(self, name) < 0:
                raise BadInput(f"margins.{name} is {getattr(self, name):g}; it must be at least 0")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold: a metric of a system's outputs against a threshold."""

    system: str
    metric: str
    name: str = ""
    k: int | None = None
    """Ranks that count, for metrics of ranked documents."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """What else the metric takes, such as the pattern of `regex`."""
    judge: str | None = None
    """The judge of the registry that scores; by default the suite's."""
    any_of: int | None = None
    """Of 0/1 scores: the chance that one of so many repetitions is right (pass@k), not the mean."""
    all_of: int | None = None
    """Of 0/1 scores: the chance that all of so many repetitions are right (pass^k), not the mean."""
    statistic: Literal["mean", "p50", "p95"] = "mean"
    at_least: float | None = None
    at_most: float | None = None
    better_than: Rival | None = None
    not_worse_than: Literal["baseline"] | None = None
    margin: float | None = None
    """
    With better_than: what the gain must exceed, 0 by default; below 0 asks for "not worse by more than".
    With not_worse_than: the loss that is allowed, by default the suite's margin for the tier.
    """
    tier: Tier = "critical"
    """
    critical: must be proven, or the release does not pass. supporting: fails the release when it fails; what
    cannot be told yet does not hold it up. advisory: reported only. `gate` is the former name of critical.
    """
    confidence: float = 0.95
    limit: int | None = None
    """Judge only the first so many samples of the dataset's fixed order."""

    def __post_init__(self) -> None:
        """Refuse a check without exactly one threshold, or with values outside their ranges."""
        thresholds = ("at_least", "at_most", "better_than", "not_worse_than")
        given = [key for key in thresholds if getattr(self, key) is not None]
        if len(given) != 1:
            raise BadInput("a check has exactly one of at_least, at_most, better_than and not_worse_than")
        if self.margin and self.rival is None:
            raise BadInput("margin belongs to better_than or not_worse_than")
        if self.not_worse_than and (self.margin or 0) < 0:
            raise BadInput(f"margin is {self.margin:g}; the loss that not_worse_than allows is at least 0")
        if self.rival and self.statistic != "mean":
            raise BadInput(f"{given[0]} compares means; remove statistic")
        if not 0.5 <= self.confidence < 1:
            raise BadInput(f"confidence is {self.confidence}; it must be at least 0.5 and below 1")
        if self.k is not None and not 1 <= self.k <= 50:
            raise BadInput(f"k is {self.k}; it must be 1 to 50")
        if self.limit is not None and self.limit < 1:
            raise BadInput(f"limit is {self.limit}; it must be at least 1")
        if self.any_of is not None and self.all_of is not None:
            raise BadInput("a check has any_of or all_of, not both")
        if min(self.any_of or 1, self.all_of or 1) < 1:
            raise BadInput("any_of and all_of are at least 1")
        if self.judge is not None:
            check_name(self.judge, "judge")

    @property
    def rival(self) -> Rival | None:
        """What it is compared with; None where a threshold stands alone."""
        return self.better_than or self.not_worse_than

    @property
    def gain(self) -> float:
        """The gain over the rival that must be exceeded."""
        return -(self.margin or 0.0) if self.not_worse_than else self.margin or 0.0

    @property
    def decides(self) -> bool:
        """Whether a release can fail by it."""
        return self.tier != "advisory"

    @property
    def measure(self) -> str:
        """The metric with its rank or statistic, such as `recall@3` or `latency_ms p95`."""
        text = f"{self.metric}@{self.k}" if self.k else self.metric
        text += f" pass@{self.any_of}" if self.any_of else f" pass^{self.all_of}" if self.all_of else ""
        return text if self.statistic == "mean" else f"{text} {self.statistic}"

    @property
    def title(self) -> str:
        """The check's name, by default what it measures."""
        return self.name or f"{self.system} {self.measure}"
