from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics.base import Metric
from evals.metrics.hallucination import fact_score, factuality, safety, toxicity, truthful
from evals.systems.base import Output
from registry.errors import BadInput
from tests.evals.fake_judge import FakeJudge, serve_judge
from tests.evals.test_grounding import OUTPUT, SAMPLE, rate, shown

CONTEXT = "Ann Lee built the bridge. It opened in 1932."


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with serve_judge() as served:
        yield served


def known(**extra: Any) -> Sample:
    return replace(SAMPLE, extra=extra)


def facts(*texts: str) -> dict[str, Any]:
    return {"states_facts": bool(texts), "facts": list(texts)}


def verdicts(*items: tuple[str, bool]) -> dict[str, Any]:
    return {
        "verdicts": [
            {"number": number, "quote": quote, "supported": supported}
            for number, (quote, supported) in enumerate(items, 1)
        ]
    }


def test_factuality_lists_facts_without_the_sources_and_then_checks_each(judge: FakeJudge) -> None:
    found = rate(
        judge,
        factuality({}),
        facts("Ann Lee built it.", "It opened in 1950.", "It is red."),
        verdicts(("Ann Lee built the bridge", True), ("", False), ("It is red", True)),
        sample=known(context=CONTEXT),
    )
    assert found.value == pytest.approx(1 / 3)
    assert found.reason == "1 of 3 claims supported; not: It opened in 1950."
    assert [(item["supported"], item["note"]) for item in found.details["claims"]] == [
        (True, ""),
        (False, ""),
        (False, "quote_not_found"),
    ]
    assert len(judge.bodies) == 2
    assert CONTEXT not in judge.bodies[0]["messages"][1]["content"]
    assert shown(judge) == {
        "fact 1": "Ann Lee built it.",
        "fact 2": "It opened in 1950.",
        "fact 3": "It is red.",
        "passage 1": CONTEXT,
    }


def test_sources_are_the_samples_context_or_else_the_passages(judge: FakeJudge) -> None:
    replies = facts("Ann."), verdicts(("built by Ann Lee", True))
    assert rate(judge, factuality({}), *replies).value == 1.0
    assert shown(judge)["passage 1"] == OUTPUT.passages[0]
    rate(judge, factuality({}), *replies, sample=known(context=["one", "two"]))
    assert shown(judge) == {"fact 1": "Ann.", "passage 1": "one", "passage 2": "two"}


def test_an_answer_without_facts_invents_nothing_and_is_too_short_under_a_penalty(judge: FakeJudge) -> None:
    refusal = replace(OUTPUT, text="I do not know.")
    assert rate(judge, factuality({}), facts(), output=refusal).value == 1.0
    assert rate(judge, factuality({"gamma": 10}), facts(), output=refusal).value == 0.0
    assert len(judge.bodies) == 2
    assert rate(judge, factuality({}), output=replace(OUTPUT, text="")).value == 1.0
    assert len(judge.bodies) == 2


def test_short_answers_are_worth_less_under_factscores_penalty(judge: FakeJudge) -> None:
    replies = facts("Ann."), verdicts(("built by Ann Lee", True))
    assert rate(judge, factuality({"gamma": 2}), *replies).value == pytest.approx(math.exp(-1))


@pytest.mark.parametrize(
    ("sample", "kind"),
    [
        (SAMPLE, "no_context"),
        (known(context=""), "no_context"),
        (known(context=[" "]), "no_context"),
        (known(context=["secret", 3]), "bad_context"),
    ],
)
def test_without_sources_there_is_no_score(judge: FakeJudge, sample: Sample, kind: str) -> None:
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, factuality({}), sample=sample, output=replace(OUTPUT, passages=()))
    assert (caught.value.kind, judge.bodies) == (kind, [])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "replies",
    [
        (facts("Ann Lee."), verdicts()),
        (facts("Ann Lee."), verdicts(("Ann Lee", True), ("Ann Lee", True))),
        ({"states_facts": True, "facts": []}, {"states_facts": False, "facts": ["Ann Lee."]}),
        (facts("Ann Lee."), '{"verdicts": [{"number": NaN}]}'),
    ],
)
def test_a_reply_that_skips_a_fact_or_contradicts_itself_is_never_a_score(
    judge: FakeJudge, replies: tuple[Any, Any]
) -> None:
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, factuality({}), *replies, replies[1])
    assert caught.value.kind in ("judge_malformed", "judge_nan")
    assert "Ann" not in str(caught.value)


@pytest.mark.parametrize("options", [{"gamma": -1}, {"gamma": 41}, {"gamma": 1.5}, {"alpha": 1}])
def test_options_that_cannot_hold_are_refused(options: Any) -> None:
    with pytest.raises(BadInput, match="options of factuality"):
        factuality(options)


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_fact_score_lies_between_0_and_the_share_and_is_the_share_from_gamma_on(
    supported: int, more: int, gamma: int
) -> None:
    total = supported + more
    score = fact_score(supported, total, gamma)
    if total == 0:
        assert score == float(gamma == 0)
    elif total >= gamma:
        assert score == supported / total
    else:
        assert score == pytest.approx(supported / total * math.exp(1 - gamma / total))


CORRECT, INCORRECT = ["It is Ann.", "Ann Lee."], ["It is Bob."]


def say_nearest(judge: FakeJudge, text: str, output: Output = OUTPUT) -> Any:
    """What `truthful` makes of an answer that a judge finds nearest to the statement *text*."""
    sample = known(correct_answers=CORRECT, incorrect_answers=INCORRECT)
    rate(judge, truthful, {"reason": "r", "nearest": 1}, sample=sample, output=output)
    labels = {text: int(label.split()[1]) for label, text in shown(judge).items() if "statement" in label}
    return rate(judge, truthful, {"reason": "r", "nearest": labels[text]}, sample=sample, output=output)


@pytest.mark.parametrize(
    ("nearest", "value"),
    [
        ("It is Ann.", 1.0),
        ("Ann Lee.", 1.0),
        ("It is Bob.", 0.0),
        ("The answer takes no position: it declines, or says that it does not know.", 1.0),
    ],
)
def test_truth_is_what_the_nearest_statement_says(judge: FakeJudge, nearest: str, value: float) -> None:
    found = say_nearest(judge, nearest)
    assert (found.value, found.reason, found.details) == (value, "r", {"nearest": nearest})
    assert len(judge.bodies) == 2
    for body in judge.bodies:
        assert "incorrect" not in str(body["messages"])


@pytest.mark.parametrize("nearest", [0, 5, "1", 1.0, None])
def test_a_statement_that_does_not_exist_is_never_a_score(judge: FakeJudge, nearest: Any) -> None:
    sample = known(correct_answers=CORRECT, incorrect_answers=INCORRECT)
    reply = {"reason": "r", "nearest": nearest}
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, truthful, reply, reply, sample=sample)
    assert (caught.value.kind, len(judge.bodies)) == ("judge_malformed", 2)


@pytest.mark.parametrize("wrong", ["Ann", [], ["x"] * 31, [1], [""]])
def test_statements_that_are_no_list_of_text_are_an_error_of_the_sample(judge: FakeJudge, wrong: Any) -> None:
    sample = known(correct_answers=CORRECT, incorrect_answers=wrong)
    with pytest.raises(ScoreFailed, match=r"'s1': incorrect_answers") as caught:
        rate(judge, truthful, sample=sample)
    assert (caught.value.kind, judge.bodies) == ("bad_statements", [])


@pytest.mark.parametrize(
    ("metric", "verdict", "value"),
    [(toxicity, "pass", 0.0), (toxicity, "fail", 1.0), (safety, "pass", 1.0), (safety, "fail", 0.0)],
    ids=["harmless", "toxic", "safe", "unsafe"],
)
def test_harm_is_judged_by_a_fixed_rubric_in_one_call(
    judge: FakeJudge, metric: Metric, verdict: str, value: float
) -> None:
    found = rate(judge, metric, {"reason": "because", "verdict": verdict})
    assert (found.value, found.reason, found.details) == (value, "because", {"verdict": verdict})
    assert len(judge.bodies) == 1
    assert "Is it right?" not in str(judge.bodies[0])  # the judge's own rubric
    assert rate(judge, metric, output=Output(1.0, "")).value == metric.low + (metric.higher_is_better)
    assert len(judge.bodies) == 1


def test_each_metric_states_its_direction_and_what_it_needs() -> None:
    assert (toxicity.higher_is_better, toxicity.worst) == (False, 1.0)
    assert (safety.higher_is_better, safety.worst) == (True, 0.0)
    assert truthful.needs == ("query", "correct_answers", "incorrect_answers")
    assert (factuality({}).calls, truthful.calls) == (2, 1)
