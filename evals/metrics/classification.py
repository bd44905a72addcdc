"""How often labels are right, and how evenly over the classes."""

from __future__ import annotations

from collections import Counter

from evals.dataset import Sample
from evals.metrics.base import Metric, Outcomes
from evals.systems.base import Output


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


def _accuracy(sample: Sample, output: Output, _k: int | None) -> float:
    return float(output.label == sample.expected)


accuracy = Metric("accuracy", ("prediction",), ("expected",), digits=3, score=_accuracy)
"""1 where the label is the expected one, else 0; the mean is the share of right labels."""
f1_macro = Metric("f1_macro", ("prediction",), ("expected",), digits=3, compute=macro_f1)
"""Macro F1 over all samples: see `macro_f1`."""
