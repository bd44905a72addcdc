"""How often labels are right, and how evenly over the classes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from evals.dataset import Sample
from evals.metrics.base import Compute, Metric, Outcomes
from evals.systems.base import Output
from registry import parse

ClassScore = Callable[[int, int, int], float]
"""Of (hits, times predicted, times expected)."""


def macro_f1(outcomes: Outcomes) -> float:
    """
    The unweighted mean of every class's F1, in [0, 1]; 0 without outcomes.

        F1 = 2 hits / (times expected + times predicted)

    The classes are those expected or predicted; a missing prediction is wrong and names no class.

    Source: Opitz and Burst 2019, arXiv 1911.03347, the mean of F1s; as scikit-learn's `f1_score`
    with `average="macro"`.

    >>> round(macro_f1({("a", "a"): 2, ("a", "b"): 1, ("b", "b"): 1}), 4)
    0.7333
    """
    hits: Counter[str] = Counter()
    mentions: Counter[str] = Counter()
    for (expected, predicted), times in outcomes.items():
        mentions[expected] += times
        if predicted is not None:
            mentions[predicted] += times
        if predicted == expected:
            hits[expected] += times
    scores = [2 * hits[label] / times for label, times in mentions.items()]
    return sum(scores) / len(scores) if scores else 0.0


@dataclass(frozen=True, slots=True)
class AverageOptions:
    """Options of precision, recall and f1 over labels."""

    average: Literal["macro", "weighted"] = "macro"
    """macro: every class counts alike. weighted: by how often it is expected."""
    positive: str | None = None
    """Only this class counts, instead of an average."""


def per_class(outcomes: Outcomes) -> dict[str, tuple[int, int, int]]:
    """
    (hits, times predicted, times expected) of every class that is expected or predicted.

    >>> per_class({("a", "a"): 2, ("a", "b"): 1, ("b", None): 1})
    {'a': (2, 2, 3), 'b': (0, 1, 1)}
    """
    found: dict[str, list[int]] = {}
    for (expected, predicted), times in outcomes.items():
        found.setdefault(expected, [0, 0, 0])[2] += times
        if predicted is not None:
            found.setdefault(predicted, [0, 0, 0])[1] += times
        if predicted == expected:
            found[expected][0] += times
    return {label: (counts[0], counts[1], counts[2]) for label, counts in found.items()}


def confusion(outcomes: Outcomes) -> dict[str, dict[str, int]]:
    """
    How often each expected class was predicted as each; a missing prediction is under the empty name.

    >>> confusion({("a", "a"): 2, ("a", None): 1})
    {'a': {'a': 2, '': 1}}
    """
    table: dict[str, dict[str, int]] = {}
    for (expected, predicted), times in outcomes.items():
        row = table.setdefault(expected, {})
        row[predicted or ""] = row.get(predicted or "", 0) + times
    return table


def averaged(outcomes: Outcomes, of: ClassScore, options: AverageOptions) -> float:
    """A score of each class (0 where it is not defined), averaged as *options* say; 0 without outcomes."""
    classes = per_class(outcomes)
    if options.positive is not None:
        return of(*classes.get(options.positive, (0, 0, 0)))
    if not classes:
        return 0.0
    if options.average == "weighted":
        total = sum(expected for _, _, expected in classes.values())
        return sum(of(*counts) * counts[2] for counts in classes.values()) / total if total else 0.0
    return sum(of(*counts) for counts in classes.values()) / len(classes)


def matthews(outcomes: Outcomes) -> float:
    """
    Matthews' correlation of expected and predicted classes, in [-1, 1]; 0 where either never varies.

    A missing prediction counts as a class of its own.

    Source: Gorodkin 2004, Computational Biology and Chemistry 28(5-6), 367-374.

    >>> round(matthews({("a", "a"): 3, ("a", "b"): 1, ("b", "b"): 2}), 4)
    0.7071
    """
    total = sum(outcomes.values())
    truth: Counter[str | None] = Counter()
    said: Counter[str | None] = Counter()
    hits = 0
    for (expected, predicted), times in outcomes.items():
        truth[expected] += times
        said[predicted] += times
        hits += times * (expected == predicted)
    covered = hits * total - sum(truth[label] * said[label] for label in truth)
    spread = (total**2 - sum(x * x for x in said.values())) * (total**2 - sum(x * x for x in truth.values()))
    return covered / math.sqrt(spread) if spread else 0.0


def _of_precision(hits: int, predicted: int, _expected: int) -> float:
    return hits / predicted if predicted else 0.0


def _of_recall(hits: int, _predicted: int, expected: int) -> float:
    return hits / expected if expected else 0.0


def _of_f1(hits: int, predicted: int, expected: int) -> float:
    return 2 * hits / (predicted + expected) if predicted + expected else 0.0


def _averaged(name: str, of: ClassScore, options: Mapping[str, Any]) -> Metric:
    chosen = parse.build(options, AverageOptions, source=f"options of {name}")

    def compute(outcomes: Outcomes) -> float:
        return averaged(outcomes, of, chosen)

    return _of_all(name, compute)


def _of_all(name: str, compute: Compute, low: float = 0.0) -> Metric:
    return Metric(name, ("prediction",), ("expected",), low=low, digits=3, compute=compute, of_labels=True)


def label_precision(options: Mapping[str, Any]) -> Metric:
    """Share of a class's predictions that are right, averaged over classes: as scikit-learn's."""
    return _averaged("label_precision", _of_precision, options)


def label_recall(options: Mapping[str, Any]) -> Metric:
    """Share of a class's rows that are found, averaged over classes: as scikit-learn's."""
    return _averaged("label_recall", _of_recall, options)


def label_f1(options: Mapping[str, Any]) -> Metric:
    """Harmonic mean of precision and recall of a class, averaged over classes: as scikit-learn's."""
    return _averaged("label_f1", _of_f1, options)


def _balanced(outcomes: Outcomes) -> float:
    classes = [counts for counts in per_class(outcomes).values() if counts[2]]
    return sum(_of_recall(*counts) for counts in classes) / len(classes) if classes else 0.0


def _accuracy(sample: Sample, output: Output, _k: int | None) -> float:
    return float(output.label == sample.expected)


accuracy = Metric("accuracy", ("prediction",), ("expected",), digits=3, score=_accuracy, of_labels=True)
"""1 where the label is the expected one, else 0; the mean is the share of right labels."""
f1_macro = _of_all("f1_macro", macro_f1)
"""Macro F1 over all samples: see `macro_f1`."""
balanced_accuracy = _of_all("balanced_accuracy", _balanced)
"""Recall averaged over the classes that are expected, in [0, 1]."""
mcc = _of_all("mcc", matthews, low=-1.0)
"""Matthews' correlation, in [-1, 1]: see `matthews`."""
