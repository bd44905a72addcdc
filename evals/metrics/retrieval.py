"""How well ranked documents answer a query. Several passages of one document count once."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from evals.dataset import Sample
from evals.metrics.base import Metric
from evals.systems.base import Output


def recall_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """
    The share of the relevant documents among the first *k*, in [0, 1].

    Source: Manning, Raghavan and Schütze 2008, Introduction to Information Retrieval, 8.4.

    >>> recall_at(["a", "b", "c"], {"c", "d"}, 3)
    0.5
    """
    return len(set(ranked[:k]) & set(relevant)) / len(set(relevant))


def ndcg_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """
    The discounted gain of the first *k* over the best that could be, in [0, 1].

        DCG = Σ relevant(i) / log2(i + 1), i from 1 to k

    Source: Järvelin and Kekäläinen 2002, ACM TOIS 20(4), 422-446, with gains of 0 and 1.

    >>> round(ndcg_at(["x", "a"], {"a"}, 10), 4)
    0.6309
    """
    wanted = set(relevant)
    gain = sum(1 / math.log2(i + 1) for i, found in enumerate(ranked[:k], 1) if found in wanted)
    return gain / sum(1 / math.log2(i + 1) for i in range(1, min(len(wanted), k) + 1))


def reciprocal_rank(ranked: Sequence[str], relevant: Collection[str]) -> float:
    """
    One over the rank of the first relevant document, in [0, 1]; 0 when there is none.

    Source: Voorhees 1999, TREC-8 question answering track report.

    >>> reciprocal_rank(["x", "a"], {"a"})
    0.5
    """
    return next((1 / i for i, found in enumerate(ranked, 1) if found in relevant), 0.0)


def _recall(sample: Sample, output: Output, k: int | None) -> float:
    return recall_at(output.documents, sample.relevant, k or len(output.documents))


def _ndcg(sample: Sample, output: Output, k: int | None) -> float:
    return ndcg_at(output.documents, sample.relevant, k or max(len(output.documents), 1))


def _mrr(sample: Sample, output: Output, k: int | None) -> float:
    return reciprocal_rank(output.documents[:k], sample.relevant)


recall = Metric("recall", ("retrieval",), ("relevant",), ranked="k", score=_recall)
"""Share of the relevant documents among the first k: see `recall_at`."""
ndcg = Metric("ndcg", ("retrieval",), ("relevant",), ranked="k", score=_ndcg)
"""Normalised discounted cumulative gain of the first k: see `ndcg_at`."""
mrr = Metric("mrr", ("retrieval",), ("relevant",), ranked="optional", score=_mrr)
"""Reciprocal rank, within the first k when k is given: see `reciprocal_rank`."""


def precision_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """
    The share of the first *k* ranks that hold a relevant document, in [0, 1]; ranks left empty hold none.

    Source: Manning, Raghavan and Schütze 2008, Introduction to Information Retrieval, 8.4.

    >>> precision_at(["a", "b", "c"], {"c", "d"}, 4)
    0.25
    """
    return len(set(ranked[:k]) & set(relevant)) / k


def average_precision_at(ranked: Sequence[str], relevant: Collection[str], k: int) -> float:
    """
    Precision averaged over the ranks of relevant documents among the first *k*, in [0, 1]; the mean is MAP@k.

    Source: Manning, Raghavan and Schütze 2008, 8.4, divided by min(k, relevant documents).

    >>> round(average_precision_at(["a", "x", "b"], {"a", "b"}, 3), 4)
    0.8333
    """
    wanted, hits, total = set(relevant), 0, 0.0
    for rank, found in enumerate(ranked[:k], 1):
        if found in wanted:
            hits += 1
            total += hits / rank
    return total / min(len(wanted), k)


def _precision(sample: Sample, output: Output, k: int | None) -> float:
    return precision_at(output.documents, sample.relevant, k or 1)


def _hit(sample: Sample, output: Output, k: int | None) -> float:
    return float(bool(set(output.documents[:k]) & set(sample.relevant)))


def _map(sample: Sample, output: Output, k: int | None) -> float:
    return average_precision_at(output.documents, sample.relevant, k or 1)


precision = Metric("precision", ("retrieval",), ("relevant",), ranked="k", score=_precision)
"""Share of relevant documents among the first k: see `precision_at`."""
hit_rate = Metric("hit_rate", ("retrieval",), ("relevant",), ranked="k", score=_hit)
"""1 where a relevant document is among the first k, else 0."""
mean_average_precision = Metric("map", ("retrieval",), ("relevant",), ranked="k", score=_map)
"""Average precision within the first k: see `average_precision_at`."""
