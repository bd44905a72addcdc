from __future__ import annotations

import math
import signal
import threading
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics import operational, overlap, probability, structure, text
from evals.metrics.base import Metric
from evals.systems.base import Output
from registry.errors import BadInput

scored = st.lists(
    st.tuples(st.booleans(), st.floats(0, 1).map(lambda p: round(p, 2))), min_size=1, max_size=60
)
words = st.lists(st.sampled_from("abcd"), max_size=15)


def score(metric: Metric, output: Output, *answers: str, expected: str | None = None) -> float:
    assert metric.score is not None
    found = metric.score(Sample("1", "d", answers=answers, expected=expected), output, None)
    assert metric.low <= found <= metric.high
    return found


def failure(metric: Metric, output: Output, *answers: str, expected: str | None = None) -> str:
    with pytest.raises(ScoreFailed) as caught:
        score(metric, output, *answers, expected=expected)
    return caught.value.kind


@pytest.mark.parametrize("pattern", ["((a+)b?)+", "(?:a{1,}){2,}", "([ab]*c)*", r"((?:x(y+))z)*"])
def test_a_repetition_inside_a_repetition_is_refused_at_any_depth(pattern: str) -> None:
    with pytest.raises(BadInput, match="take forever"):
        structure.regex({"pattern": pattern})


@pytest.mark.parametrize(
    ("pattern", "said"),
    [("(yes|no)+", "no"), (r"(?:\d+\.){3}\d+", "10.0.0.1"), (r"([+*]\+)+", "*+"), (r"(\(+)x", "((x")],
)
def test_harmless_repetitions_are_not_refused(pattern: str, said: str) -> None:
    assert score(structure.regex({"pattern": pattern}), Output(1.0, said)) == 1.0


@pytest.mark.parametrize("pattern", ["a*a*a*a*b", "(a|aa)+$"])
def test_a_pattern_is_stopped_and_the_timer_is_given_back(
    pattern: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(structure, "MOST_SECONDS", 0.05)
    assert failure(structure.regex({"pattern": pattern}), Output(1.0, "a" * 3000 + "!")) == "pattern_timeout"
    assert signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_patterns_also_match_outside_the_main_thread() -> None:
    found: list[float] = []
    metric = structure.regex({"pattern": "b$"})
    worker = threading.Thread(target=lambda: found.append(score(metric, Output(1.0, "ab"))))
    worker.start()
    worker.join(10)
    assert found == [1.0]


@pytest.mark.parametrize(
    ("said", "number"),
    [
        (".5", 0.5),
        ("-.5", -0.5),
        ("pages 3-4", 4.0),
        ("COVID-19", 19.0),
        ("5-3=2", 2.0),
        ("= -2", -2.0),
        ("$-3", -3.0),
        ("\u22121,250 %", -12.5),
        ("v1,2345", 2345.0),
        ("1e3", 1000.0),
        ("", None),
    ],
)
def test_signs_and_points_belong_to_numbers_only_where_people_mean_it(
    said: str, number: float | None
) -> None:
    assert structure.last_number(said) == number


@given(st.floats(-1e15, 1e15))
def test_every_number_is_read_back_however_it_is_written(number: float) -> None:
    for said in (repr(number), f"It is {number!r}.", f"{number:,.20f}"):
        assert structure.last_number(said) == pytest.approx(number, abs=1e-20)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (None, "'schema' is missing"),
        ({"$ref": "#"}, "without end"),
        ({"$ref": "#/$defs/nothing"}, "does not hold"),
        ({"items": {"$ref": "http://127.0.0.1:9/schema"}}, "does not hold"),
    ],
)
def test_a_schema_that_could_not_judge_is_refused_and_nothing_is_fetched(schema: Any, problem: str) -> None:
    with pytest.raises(BadInput, match=problem):
        structure.json_schema({} if schema is None else {"schema": schema})


def test_a_schema_may_refer_to_what_it_holds() -> None:
    tree = {"$defs": {"tree": {"type": "array", "items": {"$ref": "#/$defs/tree"}}}, "$ref": "#/$defs/tree"}
    metric = structure.json_schema({"schema": tree})
    assert score(metric, Output(1.0, "[[], [[]]]")) == 1.0
    assert score(metric, Output(1.0, "[[], [1]]")) == 0.0
    assert failure(metric, Output(1.0, "[" * 900 + "]" * 900)) == "too_deep"


@pytest.mark.parametrize(
    ("options", "said", "expected"),
    [
        ({}, " 1.5\n", 1.0),
        ({}, "15", 0.0),
        ({}, "", 0.0),
        ({"strip": False}, " 1.5", 0.0),
        ({}, "STRASSE", 0.0),
        ({"case_sensitive": False}, "STRASSE", 1.0),
    ],
)
def test_equal_text_is_compared_character_for_character(
    options: dict[str, bool], said: str, expected: float
) -> None:
    assert score(text.equals(options), Output(1.0, said), "1.5", "straße") == expected


def test_a_misspelt_option_names_the_nearest() -> None:
    with pytest.raises(BadInput, match="case_sensitive"):
        text.equals({"case_sensitiv": True})


@given(words, words)
def test_the_longest_common_subsequence_is_that_of_its_definition(
    first: list[str], second: list[str]
) -> None:
    table = [[0] * (len(second) + 1) for _ in range(len(first) + 1)]
    for i, word in enumerate(first):
        for j, other in enumerate(second):
            table[i + 1][j + 1] = table[i][j] + 1 if word == other else max(table[i][j + 1], table[i + 1][j])
    common = table[-1][-1]
    expected = 2 * common / (len(first) + len(second)) if common else 0.0
    assert overlap.rouge_l_f(" ".join(first), [" ".join(second)]) == expected


@given(scored, st.integers(2, 12))
def test_adaptive_bins_hold_equally_many_rows_and_one_bin_of_all_is_the_bias(
    items: list[tuple[bool, float]], bins: int
) -> None:
    counts, n = Counter(items), len(items)
    found = probability.calibration_error(counts, bins, "equal_mass")
    bias = abs(math.fsum(p - truth for truth, p in items)) / n
    assert bias - 1e-12 <= found <= 1.0
    assert probability.calibration_error(Counter(dict(reversed(counts.items()))), bins, "equal_mass") == (
        pytest.approx(found)
    )


def test_adaptive_bins_without_ties_are_numpys_equal_parts() -> None:
    draw = np.random.default_rng(5)
    said = np.sort(draw.random(60))
    truth = draw.random(60) < said**2
    parts = zip(np.split(said, 10), np.split(truth, 10), strict=True)
    expected = sum(abs(p.mean() - t.mean()) / 10 for p, t in parts)
    items = Counter((bool(t), float(p)) for t, p in zip(truth, said, strict=True))
    metric = probability.ece({"adaptive": True})
    assert metric.compute is not None
    assert metric.compute(items) == pytest.approx(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, 1.1])
def test_what_is_no_probability_is_no_score(value: float) -> None:
    output = Output(1.0, probabilities=(0.5, value), meta={"classes": ["No", "Yes"]})
    for metric in (probability.brier({}), probability.log_loss({})):
        assert failure(metric, output, expected="Yes") == "bad_probability"
    with pytest.raises(ScoreFailed, match="bad_probability"):
        probability.ece({}).item(Sample("1", "d", expected="Yes"), output)


def test_the_rounding_of_single_precision_is_no_error() -> None:
    output = Output(1.0, probabilities=(-1e-7, 1.0000001), meta={"classes": ["No", "Yes"]})
    assert score(probability.brier({}), output, expected="No") == 1.0
    assert score(probability.log_loss({}), output, expected="Yes") == 0.0


def test_tokens_that_nobody_reported_are_no_number() -> None:
    for metric in (
        operational.prompt_tokens,
        operational.completion_tokens,
        operational.output_tokens_per_s,
    ):
        assert failure(metric, Output(1.0, "x")) == "no_usage"
    output = Output(500.0, "x", prompt_tokens=7, completion_tokens=20)
    assert score(operational.prompt_tokens, output) == 7.0
    assert score(operational.completion_tokens, output) == 20.0
    assert score(operational.output_tokens_per_s, output) == 40.0
    assert failure(operational.output_tokens_per_s, Output(0.0, prompt_tokens=1)) == "no_latency"
