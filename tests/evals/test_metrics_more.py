from __future__ import annotations

import math
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score import rouge_scorer
from sklearn import metrics as sk

from evals.dataset import Sample
from evals.delong import auc_estimate, auc_gain
from evals.errors import BadSuite, ScoreFailed
from evals.metrics import classification, overlap, probability, retrieval, structure
from evals.metrics.operational import cost_usd, ttft_ms
from evals.systems.base import Output
from registry.errors import BadInput

labels = st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abcd")), min_size=1, max_size=60)
scored = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 0.9, 1.0])), min_size=1, max_size=60
)
words = st.lists(st.sampled_from(["the", "cat", "sat", "on", "a", "mat", "dog"]), max_size=12).map(" ".join)


def answered(text: str) -> Output:
    return Output(1.0, text)


def score(metric: Any, text: str, answers: tuple[str, ...] = ("42",)) -> float:
    found = metric.score(Sample("1", "d", "q", answers=answers), answered(text), None)
    assert metric.low <= found <= metric.high
    return float(found)


@given(labels, st.sampled_from(["macro", "weighted"]))
def test_label_scores_are_scikit_learns(pairs: list[tuple[str, str]], average: str) -> None:
    truth, said = [a for a, _ in pairs], [b for _, b in pairs]
    outcomes = Counter(pairs)
    options = {"average": average}
    given_ = {"average": average, "zero_division": 0.0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "label_precision": sk.precision_score(truth, said, **given_),
            "label_recall": sk.recall_score(truth, said, **given_),
            "label_f1": sk.f1_score(truth, said, **given_),
            "mcc": sk.matthews_corrcoef(truth, said),
            "balanced_accuracy": sk.balanced_accuracy_score(truth, said),
        }
    for name, value in expected.items():
        plugin = getattr(classification, name)
        metric = plugin(options) if callable(plugin) else plugin
        assert metric.compute(outcomes) == pytest.approx(value, abs=1e-12)


def test_one_class_may_count_alone() -> None:
    metric = classification.label_f1({"positive": "a"})
    assert metric.compute is not None
    assert metric.compute({("a", "a"): 2, ("a", "b"): 1, ("b", "b"): 5}) == pytest.approx(0.8)
    with pytest.raises(BadInput, match="average"):
        classification.label_f1({"averge": "macro"})


@given(scored)
def test_areas_and_calibration_are_scikit_learns(items: list[tuple[bool, float]]) -> None:
    counts = Counter(items)
    truth, said = [int(a) for a, _ in items], [b for _, b in items]
    if len(set(truth)) == 2:
        assert probability.area_under_roc(counts) == pytest.approx(sk.roc_auc_score(truth, said))
        assert auc_estimate(items).value == pytest.approx(sk.roc_auc_score(truth, said))
    if any(truth):
        assert probability.average_precision(counts) == pytest.approx(sk.average_precision_score(truth, said))
    edges = np.minimum((np.array(said) * 10).astype(int), 9)
    expected = sum(
        abs(np.mean(np.array(said)[edges == b]) - np.mean(np.array(truth)[edges == b])) * np.mean(edges == b)
        for b in set(edges)
    )
    assert probability.calibration_error(counts, 10) == pytest.approx(expected)


def test_brier_and_log_loss_are_scikit_learns() -> None:
    rows = [("Yes", 0.8), ("No", 0.3), ("Yes", 0.5), ("No", 0.9)]
    samples = [Sample(str(i), "d", expected=label) for i, (label, _) in enumerate(rows)]
    outputs = [
        Output(1.0, label="Yes", probabilities=(1 - p, p), meta={"classes": ["No", "Yes"]}) for _, p in rows
    ]
    truth, said = [label == "Yes" for label, _ in rows], [p for _, p in rows]
    for metric, expected in (
        (probability.brier({}), sk.brier_score_loss(truth, said)),
        (probability.log_loss({}), sk.log_loss(truth, said)),
    ):
        assert metric.score is not None
        pairs = zip(samples, outputs, strict=True)
        assert math.fsum(metric.score(s, o, None) for s, o in pairs) / 4 == pytest.approx(expected)


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (Output(1.0, label="Yes"), "no_probability"),
        (Output(1.0, label="Yes", probabilities=(0.5, 0.5)), "no_classes"),
        (Output(1.0, probabilities=(0.5, 0.5), meta={"classes": ["a", "b"]}), "unknown_class"),
    ],
)
def test_a_model_without_probabilities_has_no_such_score(output: Output, kind: str) -> None:
    metric = probability.brier({"positive": "Yes"})
    assert metric.score is not None
    with pytest.raises(ScoreFailed) as caught:
        metric.score(Sample("1", "d", expected="Yes"), output, None)
    assert caught.value.kind == kind


def test_delongs_variance_is_that_of_its_definition() -> None:
    draw = np.random.default_rng(3)
    truth = draw.random(80) < 0.4
    first = truth * 0.5 + draw.normal(size=80)
    second = truth * 0.2 + draw.normal(size=80)

    def placements(said: Any) -> tuple[Any, Any]:
        above = (said[truth][:, None] > said[~truth][None, :]) + 0.5 * (
            said[truth][:, None] == said[~truth][None, :]
        )
        return above.mean(1), above.mean(0)

    (v1, w1), (v2, w2) = placements(first), placements(second)
    variance = np.var(v1 - v2, ddof=1) / len(v1) + np.var(w1 - w2, ddof=1) / len(w1)
    gain = auc_gain(list(zip(truth, first, strict=True)), list(zip(truth, second, strict=True)))
    assert gain.value == pytest.approx(v1.mean() - v2.mean())
    assert (gain.interval.high - gain.interval.low) / 2 == pytest.approx(
        1.959964 * math.sqrt(variance), rel=1e-5
    )


def test_delongs_interval_covers_the_truth() -> None:
    draw = np.random.default_rng(4)
    area = 0.5 * (1 + math.erf(1.0 / 2))  # of two unit normals one apart
    held = 0
    for _ in range(600):
        items = [(True, float(x)) for x in draw.normal(1, 1, 40)] + [
            (False, float(x)) for x in draw.normal(0, 1, 60)
        ]
        interval = auc_estimate(items).interval
        held += interval.low <= area <= interval.high
    assert 0.93 <= held / 600 <= 0.975


def test_a_perfect_ranking_still_has_an_interval() -> None:
    found = auc_estimate([(True, 0.9)] * 30 + [(False, 0.1)] * 30)
    assert found.value == 1.0
    assert found.interval.rounded(2) == (0.88, 1.0)


@given(words, words)
def test_rouge_l_is_googles(answer: str, gold: str) -> None:
    theirs = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False).score(gold, answer)["rougeL"].fmeasure
    assert overlap.rouge_l_f(answer, [gold]) == pytest.approx(theirs)


@pytest.mark.parametrize("metric", [overlap.rouge_l, overlap.bleu, overlap.chrf], ids=lambda m: str(m.name))
def test_equal_text_overlaps_whole_and_other_text_less(metric: Any) -> None:
    gold = ("the cat sat on the mat today",)
    assert score(metric, gold[0], gold) == pytest.approx(1.0)
    assert score(metric, "a dog", gold) < 0.3
    assert score(metric, "", gold) == 0.0


@pytest.mark.parametrize(
    ("options", "text", "expected"),
    [
        ({"pattern": r"\bref-\d+"}, "see REF-12", 0.0),
        ({"pattern": r"\bref-\d+", "case_sensitive": False}, "see REF-12", 1.0),
        ({"pattern": "^ok$"}, "ok", 1.0),
    ],
)
def test_a_pattern_is_found(options: dict[str, Any], text: str, expected: float) -> None:
    assert score(structure.regex(options), text) == expected


@pytest.mark.parametrize("options", [{}, {"pattern": "("}, {"pattern": "(a+)+$"}, {"patern": "a"}])
def test_a_pattern_that_cannot_be_used_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises((BadInput, BadSuite)):
        structure.regex(options)


@pytest.mark.parametrize(
    ("text", "answers", "options", "expected"),
    [
        ("It is 1,234.5", ("1234.5",), {}, 1.0),
        ("between 3 and 4", ("4",), {}, 1.0),
        ("about 10", ("9.5",), {"absolute": 0.5}, 1.0),
        ("12 %", ("0.12",), {}, 1.0),
        ("\u22125", ("-5",), {}, 1.0),
        ("none", ("5",), {}, 0.0),
        ("6", ("five",), {}, 0.0),
    ],
)
def test_numbers_are_compared_as_numbers(
    text: str, answers: tuple[str, ...], options: dict[str, Any], expected: float
) -> None:
    assert score(structure.numeric(options), text, answers) == expected


@pytest.mark.parametrize(
    ("text", "valid", "fits"),
    [
        ('{"a": 1}', 1.0, 1.0),
        ('```json\n{"a": 1}\n```', 1.0, 1.0),
        ('{"a": "x"}', 1.0, 0.0),
        ("NaN", 0.0, 0.0),
        ("I think {", 0.0, 0.0),
        ("[" * 100_000, 0.0, 0.0),
    ],
)
def test_json_is_read_strictly(text: str, valid: float, fits: float) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
    assert score(structure.json_valid, text) == valid
    assert score(structure.json_schema({"schema": schema}), text) == fits


def test_a_schema_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match="no JSON Schema"):
        structure.json_schema({"schema": {"type": "nothing"}})


@given(
    st.permutations("abcdefgh").map(list), st.sets(st.sampled_from("abcdefgh"), min_size=1), st.integers(1, 8)
)
def test_ranks_give_what_their_definitions_say(ranked: list[str], wanted: set[str], k: int) -> None:
    truth = [name in wanted for name in ranked]
    assert retrieval.precision_at(ranked, wanted, k) == sum(truth[:k]) / k
    if k == len(ranked):
        expected = sk.average_precision_score(truth, [-rank for rank in range(len(ranked))])
        assert retrieval.average_precision_at(ranked, wanted, k) == pytest.approx(expected)


def test_what_was_not_measured_is_no_number() -> None:
    for metric, kind in ((ttft_ms, "not_streamed"), (cost_usd, "unpriced")):
        assert metric.score is not None
        with pytest.raises(ScoreFailed) as caught:
            metric.score(Sample("1", "d"), Output(1.0), None)
        assert caught.value.kind == kind
