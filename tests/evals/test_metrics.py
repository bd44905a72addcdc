from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import f1_score, ndcg_score

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics.base import Metric, outcome
from evals.metrics.classification import macro_f1
from evals.metrics.retrieval import ndcg_at, recall_at, reciprocal_rank
from evals.metrics.text import holds_answer, is_answer, overlap_f1
from evals.systems.base import Output
from registry import plugins
from registry.errors import BadInput

METRICS = plugins.names("metrics")
labels = st.sampled_from(["a", "b", "c"])
documents = st.lists(st.sampled_from("abcdefgh"), unique=True)
relevants = st.sets(st.sampled_from("abcdefghxy"), min_size=1)


@pytest.mark.parametrize(
    ("answer", "accepted", "f1", "contained", "equal"),
    [
        ("The national anthem.", ["the national anthem"], 1.0, True, True),
        ("She translated the national anthem", ["national anthem"], 2 * 0.5 / 1.5, True, False),
        ("nation", ["national"], 0.0, False, False),
        ("", ["x"], 0.0, False, False),
        ("the", ["a"], 1.0, False, True),
        ("x x y", ["x y y"], 2 / 3, False, False),
        ("Paris", ["Rome", "paris"], 1.0, True, True),
    ],
)
def test_text_metrics(answer: str, accepted: list[str], f1: float, contained: bool, equal: bool) -> None:
    assert overlap_f1(answer, accepted) == pytest.approx(f1)
    assert holds_answer(answer, accepted) is contained
    assert is_answer(answer, accepted) is equal


@given(st.text(), st.lists(st.text(), min_size=1, max_size=3))
def test_an_exact_answer_scores_full_f1(answer: str, accepted: list[str]) -> None:
    found = overlap_f1(answer, accepted)
    assert 0.0 <= found <= 1.0
    assert not is_answer(answer, accepted) or found == 1.0


@given(st.lists(st.tuples(labels, labels), min_size=1, max_size=60))
def test_macro_f1_is_scikit_learns(outcomes: list[tuple[str, str]]) -> None:
    expected, predicted = zip(*outcomes, strict=True)
    counts: Counter[tuple[str, str | None]] = Counter(outcomes)
    assert macro_f1(counts) == pytest.approx(f1_score(expected, predicted, average="macro", zero_division=0))


def test_a_missing_prediction_is_wrong_but_no_class() -> None:
    assert macro_f1({("a", "a"): 1, ("a", None): 1}) == pytest.approx(2 / 3)


@given(documents.filter(lambda ranked: len(ranked) > 1), st.integers(1, 8), st.data())
def test_ndcg_is_scikit_learns(ranked: list[str], k: int, data: st.DataObject) -> None:
    wanted = data.draw(st.sets(st.sampled_from(ranked), min_size=1))
    truth = [[float(name in wanted) for name in ranked]]
    order = [[float(-rank) for rank in range(len(ranked))]]
    assert ndcg_at(ranked, wanted, k) == pytest.approx(ndcg_score(truth, order, k=k))


@given(documents, relevants, st.integers(1, 10))
def test_ranked_metrics_stay_in_their_range_and_never_fall_with_k(
    ranked: list[str], relevant: set[str], k: int
) -> None:
    assert 0.0 <= recall_at(ranked, relevant, k) <= recall_at(ranked, relevant, k + 1) <= 1.0
    assert 0.0 <= ndcg_at(ranked, relevant, k) <= 1.0 + 1e-12
    assert (reciprocal_rank(ranked, relevant) == 1.0) == (ranked[:1] != [] and ranked[0] in relevant)


@pytest.mark.parametrize("name", METRICS)
def test_every_plug_in_is_a_metric_that_scores_in_its_range(name: str) -> None:
    metric = plugins.load("metrics", name)
    if not isinstance(metric, Metric):
        assert callable(metric)
        try:
            metric = metric({})
        except BadInput:
            return  # an option is required
    assert isinstance(metric, Metric)
    assert metric.name == name
    assert sum(way is not None for way in (metric.score, metric.compute, metric.rate)) == 1
    if metric.rate is not None or metric.item is not outcome or "extra" in metric.needs:
        return  # its own tests have what it needs
    sample = Sample("1", "d", "q", ("a", "b"), ("x",), {}, "Yes")
    outputs = [Output(12.5), Output(1.0, "x", ("c", "a"), "Yes"), Output(0.0, "x y", ("a", "b"), "No")]
    k = 2 if metric.ranked == "k" else None
    for output in outputs:
        if metric.score:
            with suppress(ScoreFailed):
                assert metric.low <= metric.score(sample, output, k) <= metric.high
    if metric.compute:
        assert metric.low <= metric.compute({("a", "b"): 3, ("b", "b"): 1}) <= metric.high
    assert metric.worst in (metric.low, metric.high)
