"""How good a model's probabilities are: of single rows, and over all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evals.dataset import Sample
from evals.delong import auc_estimate, auc_gain
from evals.errors import ScoreFailed
from evals.metrics.base import Metric
from evals.stats import Estimate
from evals.systems.base import Output
from registry import parse
from registry.errors import BadInput

Item = tuple[bool, float]
"""Whether the row is of the positive class, and its probability."""
_LEAST = 1e-15
_ROUNDING = 1e-6
"""How far single precision may carry a probability beyond 0 or 1."""


@dataclass(frozen=True, slots=True)
class ClassOptions:
    """Options of metrics of one class."""

    positive: str | None = None
    """The class that counts; by default the model's last."""


@dataclass(frozen=True, slots=True)
class EceOptions:
    """Options of `ece`."""

    positive: str | None = None
    bins: int = 10
    adaptive: bool = False
    """Bins that hold equally many rows (equal probabilities stay together), not equally wide ones."""

    def __post_init__(self) -> None:
        """Refuse numbers of bins outside 2 to 100."""
        if not 2 <= self.bins <= 100:
            raise BadInput(f"bins is {self.bins}; it must be 2 to 100")


def probability_of(output: Output, positive: str | None) -> tuple[str, float]:
    """
    The positive class and its probability.

    Raises:
        ScoreFailed: the model gave no probabilities, one outside 0 to 1, or does not know the class.
    """
    classes: Sequence[str] = output.meta.get("classes", ())
    if not output.probabilities:
        raise ScoreFailed("no_probability")
    if len(classes) != len(output.probabilities):
        raise ScoreFailed("no_classes")
    name = classes[-1] if positive is None else positive
    if name not in classes:
        raise ScoreFailed("unknown_class")
    value = output.probabilities[classes.index(name)]
    if not -_ROUNDING <= value <= 1 + _ROUNDING:  # nor NaN
        raise ScoreFailed("bad_probability")
    return name, min(max(value, 0.0), 1.0)


def brier(options: Mapping[str, Any]) -> Metric:
    """
    The squared distance of the positive class's probability from what was: the mean is the Brier score.

    In [0, 1], lower is better. Source: Brier 1950, Monthly Weather Review 78(1), 1-3.
    """
    chosen = parse.build(options, ClassOptions, source="options of brier")

    def score(sample: Sample, output: Output, _k: int | None) -> float:
        name, probability = probability_of(output, chosen.positive)
        return (probability - float(sample.expected == name)) ** 2

    return Metric("brier", ("prediction",), ("expected",), higher_is_better=False, digits=3, score=score)


def log_loss(options: Mapping[str, Any]) -> Metric:
    """
    Minus the logarithm of the probability of what was, at most 34.5 (for a probability of 10^-15).

    Lower is better. Source: Good 1952, Journal of the Royal Statistical Society B 14(1), 107-114.
    """
    parse.build(options, _NoOptions, source="options of log_loss")

    def score(sample: Sample, output: Output, _k: int | None) -> float:
        _, probability = probability_of(output, str(sample.expected))
        return -math.log(max(probability, _LEAST)) if probability < 1 else 0.0

    high = -math.log(_LEAST)
    return Metric(
        "log_loss", ("prediction",), ("expected",), high=high, higher_is_better=False, digits=3, score=score
    )


@dataclass(frozen=True, slots=True)
class _NoOptions:
    """No options at all."""


def _item(positive: str | None) -> Callable[[Sample, Output | None], Item]:
    def item(sample: Sample, output: Output | None) -> Item:
        if output is None:
            if positive is None:
                raise ScoreFailed("request_failed")
            truth = sample.expected == positive  # ranked as wrong as can be
            return truth, 0.0 if truth else 1.0
        name, probability = probability_of(output, positive)
        return sample.expected == name, probability

    return item


def roc_auc(options: Mapping[str, Any]) -> Metric:
    """
    The chance that a positive row is ranked above a negative one, in [0, 1]; interval by DeLong.

    Source: Hanley and McNeil 1982, Radiology 143(1), 29-36; see `evals.delong`.
    """
    chosen = parse.build(options, ClassOptions, source="options of roc_auc")

    def closed(first: Sequence[Item], second: Sequence[Item] | None, level: float) -> Estimate:
        return auc_estimate(first, level) if second is None else auc_gain(first, second, level)

    return Metric(
        "roc_auc",
        ("prediction",),
        ("expected",),
        digits=3,
        compute=area_under_roc,
        item=_item(chosen.positive),
        closed=closed,
    )


def pr_auc(options: Mapping[str, Any]) -> Metric:
    """
    Average precision over the ranking of the positive class, in [0, 1]; interval by the bootstrap.

    Source: as scikit-learn's `average_precision_score`; Zhu 2004, University of Waterloo.
    """
    chosen = parse.build(options, ClassOptions, source="options of pr_auc")
    return Metric(
        "pr_auc",
        ("prediction",),
        ("expected",),
        digits=3,
        compute=average_precision,
        item=_item(chosen.positive),
    )


def ece(options: Mapping[str, Any]) -> Metric:
    """
    Expected calibration error, in [0, 1], lower is better; interval by the bootstrap.

    Source: Naeini, Cooper and Hauskrecht 2015, AAAI, for the probability of one class; adaptive bins as in
    Nixon et al. 2019, CVPR workshops, Measuring Calibration in Deep Learning.
    """
    chosen = parse.build(options, EceOptions, source="options of ece")

    def compute(items: Mapping[Item, int]) -> float:
        return calibration_error(items, chosen.bins, "equal_mass" if chosen.adaptive else "equal_width")

    return Metric(
        "ece",
        ("prediction",),
        ("expected",),
        higher_is_better=False,
        digits=3,
        compute=compute,
        item=_item(chosen.positive),
    )


def area_under_roc(items: Mapping[Item, int]) -> float:
    """
    The area under the ROC curve; ties count half, and 0.5 without rows of both classes.

    >>> area_under_roc({(True, 0.9): 1, (True, 0.4): 1, (False, 0.5): 1, (False, 0.1): 1})
    0.75
    """
    positives = sum(times for (truth, _), times in items.items() if truth)
    negatives = sum(items.values()) - positives
    if not positives or not negatives:
        return 0.5
    below, area = 0, 0.0
    for _, (good, bad) in sorted(_by_value(items).items()):
        area += good * (below + bad / 2)
        below += bad
    return area / (positives * negatives)


def average_precision(items: Mapping[Item, int]) -> float:
    """
    Precision averaged over the recalls gained, from the highest probability down; 0 without positives.

    >>> round(average_precision({(True, 0.9): 1, (False, 0.5): 1, (True, 0.4): 1}), 4)
    0.8333
    """
    positives = sum(times for (truth, _), times in items.items() if truth)
    if not positives:
        return 0.0
    hits = seen = 0
    total = 0.0
    for _, (good, bad) in sorted(_by_value(items).items(), reverse=True):
        hits, seen = hits + good, seen + good + bad
        total += good * hits / seen
    return total / positives


def calibration_error(
    items: Mapping[Item, int], bins: int, kind: Literal["equal_width", "equal_mass"] = "equal_width"
) -> float:
    """
    The mean distance between probability and frequency in *bins* bins of [0, 1], weighted by size.

    Args:
        kind: bins of equal width, or of equally many rows as far as equal probabilities, which stay
            together, allow: each goes where the middle one of its rows belongs.

    >>> round(calibration_error({(True, 0.8): 3, (False, 0.8): 1}, 10), 4)
    0.05
    """
    place = _by_mass(items, bins) if kind == "equal_mass" else None
    sums: dict[int, list[float]] = {}
    for (truth, probability), times in items.items():
        bin_ = min(int(probability * bins), bins - 1) if place is None else place[probability]
        part = sums.setdefault(bin_, [0.0, 0.0])
        part[0] += times * (probability - float(truth))
        part[1] += times
    total = sum(part[1] for part in sums.values())
    return sum(abs(part[0]) for part in sums.values()) / total if total else 0.0


def _by_mass(items: Mapping[Item, int], bins: int) -> dict[float, int]:
    total, below = sum(items.values()), 0
    place: dict[float, int] = {}
    for value, (good, bad) in sorted(_by_value(items).items()):
        place[value] = (2 * below + good + bad) * bins // (2 * total) if total else 0
        below += good + bad
    return place


def _by_value(items: Mapping[Item, int]) -> dict[float, tuple[int, int]]:
    found: dict[float, tuple[int, int]] = {}
    for (truth, value), times in items.items():
        good, bad = found.get(value, (0, 0))
        found[value] = (good + times, bad) if truth else (good, bad + times)
    return found
