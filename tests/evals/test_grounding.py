from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.judging.claims import MOST_CLAIMS
from evals.metrics import grounding
from evals.metrics.base import Metric, Scored
from evals.metrics.grounding import average_precision, balance
from evals.systems.base import Output
from tests.evals.fake_judge import FakeJudge, serve_judge
from tests.evals.test_verdict import blocks_of, on_bench

PASSAGES = ("The bridge opened in 1932.", "It was built by  Ann Lee,\nan engineer.")
SAMPLE = Sample("s1", "sha256:0", "Who built the bridge?", answers=("Ann Lee", "Ann"))
OUTPUT = Output(1.0, "Ann Lee built it in 1950.", passages=PASSAGES)


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with serve_judge() as served:
        yield served


def rate(
    judge: FakeJudge, metric: Metric, *replies: Any, sample: Sample = SAMPLE, output: Output = OUTPUT
) -> Scored:
    script = iter([reply if isinstance(reply, str) else json.dumps(reply) for reply in replies])
    judge.say = lambda _body: next(script)
    call = metric.rate
    assert call is not None
    found = on_bench(judge, lambda bench: call(sample, output, bench))
    assert isinstance(found, Scored)
    return found


def shown(judge: FakeJudge) -> dict[str, str]:
    return blocks_of(judge.bodies[-1]["messages"][1]["content"])


def claim(text: str, quote: str, *, supported: bool = True) -> dict[str, Any]:
    return {"claim": text, "quote": quote, "supported": supported}


def claims(*items: dict[str, Any]) -> dict[str, Any]:
    return {"states_facts": bool(items), "claims": list(items)}


BUILT = claim("Ann Lee built the bridge.", "built by Ann Lee, an engineer")
YEAR = claim("It was built in 1950.", "", supported=False)


def test_groundedness_is_the_share_of_supported_claims_in_one_call(judge: FakeJudge) -> None:
    assert rate(judge, grounding.groundedness, claims(BUILT, YEAR)) == Scored(
        0.5,
        "1 of 2 claims supported; not: It was built in 1950.",
        {
            "claims": [
                {
                    "claim": "Ann Lee built the bridge.",
                    "supported": True,
                    "quote": "built by Ann Lee, an engineer",
                    "note": "",
                },
                {"claim": "It was built in 1950.", "supported": False, "quote": "", "note": ""},
            ]
        },
    )
    assert len(judge.bodies) == 1
    assert shown(judge) == {"answer": OUTPUT.text, "passage 1": PASSAGES[0], "passage 2": PASSAGES[1]}


@pytest.mark.parametrize(
    ("quote", "note"),
    [
        ("built by Bob", "quote_not_found"),
        ("opened in 1932. It was built", "quote_not_found"),  # of two passages at once
        ("", "no_quote"),
        (" … ", "no_quote"),
    ],
)
def test_a_claim_whose_quote_does_not_stand_in_a_passage_is_unsupported(
    judge: FakeJudge, quote: str, note: str
) -> None:
    found = rate(judge, grounding.groundedness, claims(claim("A claim.", quote)))
    assert found.value == 0.0
    assert found.details == {"claims": [{"claim": "A claim.", "supported": False, "quote": "", "note": note}]}


def test_an_answer_without_claims_asserts_nothing_that_is_not_borne_out(judge: FakeJudge) -> None:
    refusal = replace(OUTPUT, text="I cannot say.", finish="refusal")
    nothing = Scored(1.0, "no factual claims", {"claims": []})
    assert rate(judge, grounding.groundedness, claims(), output=refusal) == nothing
    assert len(judge.bodies) == 1
    assert rate(judge, grounding.groundedness, output=replace(OUTPUT, text=" \n")) == nothing
    assert len(judge.bodies) == 1


def test_an_empty_list_for_an_answer_that_states_facts_is_never_a_score(judge: FakeJudge) -> None:
    empty = {"states_facts": True, "claims": []}
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, grounding.groundedness, empty, empty)
    assert (caught.value.kind, len(judge.bodies)) == ("judge_malformed", 2)
    assert rate(judge, grounding.groundedness, empty, claims(BUILT)).value == 1.0


def test_claims_without_any_passage_are_unsupported(judge: FakeJudge) -> None:
    found = rate(judge, grounding.groundedness, claims(BUILT), output=Output(1.0, "Ann Lee built it."))
    assert (found.value, shown(judge)["passages"]) == (0.0, "(none)")


def test_too_many_claims_and_a_long_answer_are_no_silent_loss(judge: FakeJudge) -> None:
    many = claims(*[BUILT] * (MOST_CLAIMS + 1))
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, grounding.groundedness, many, many)
    assert str(caught.value) == "claims must be at most 40 items"
    found = rate(judge, grounding.groundedness, claims(BUILT), output=replace(OUTPUT, text="x" * 16_001))
    assert found.details["cut"] == {"answer": 1}


def statements(answered: str, *bears: bool) -> dict[str, Any]:
    listed = [{"statement": f"s{i}", "bears": mark} for i, mark in enumerate(bears)]
    return {"statements": listed, "reason": "because", "answered": answered}


@pytest.mark.parametrize(
    ("reply", "value"),
    [
        (statements("fully", True, True), 1.0),
        (statements("fully", True, False), 2 / 3),
        (statements("partly", True), 2 / 3),
        (statements("no", True, True), 0.0),
        (statements("no", False), 0.0),
        (statements("no"), 0.0),
    ],
)
def test_answer_relevance_wants_statements_that_bear_and_a_full_answer(
    judge: FakeJudge, reply: Any, value: float
) -> None:
    found = rate(judge, grounding.answer_relevance, reply)
    details = {"statements": reply["statements"], "answered": reply["answered"]}
    assert found.value == pytest.approx(value)
    assert (found.reason, found.details) == ("because", details)
    assert len(judge.bodies) == 1
    assert shown(judge) == {"question": SAMPLE.query, "answer": OUTPUT.text}


def test_an_empty_answer_answers_nothing_and_costs_nothing(judge: FakeJudge) -> None:
    found = rate(judge, grounding.answer_relevance, output=Output(1.0, ""))
    assert (found.value, judge.bodies) == (0.0, [])


def test_a_full_answer_without_a_statement_that_bears_is_asked_again(judge: FakeJudge) -> None:
    odd = statements("fully", False)
    assert rate(judge, grounding.answer_relevance, odd, statements("no", False)).value == 0.0
    assert len(judge.bodies) == 2


def marks(*relevant: bool, first: int = 1) -> dict[str, Any]:
    return {
        "passages": [
            {"number": number, "reason": "r", "relevant": mark} for number, mark in enumerate(relevant, first)
        ]
    }


@pytest.mark.parametrize(
    ("relevant", "value"),
    [((True, True), 1.0), ((True, False), 1.0), ((False, True), 0.5), ((False, False), 0.0)],
)
def test_context_precision_wants_relevant_passages_first_and_asks_once_for_all(
    judge: FakeJudge, relevant: tuple[bool, ...], value: float
) -> None:
    found = rate(judge, grounding.context_precision, marks(*relevant))
    assert found == Scored(value, f"{sum(relevant)} of 2 passages relevant", marks(*relevant))
    assert len(judge.bodies) == 1
    assert shown(judge) == {
        "question": SAMPLE.query,
        "reference": "Ann Lee",
        "passage 1": PASSAGES[0],
        "passage 2": PASSAGES[1],
    }


def test_without_an_accepted_answer_passages_are_held_against_the_question(judge: FakeJudge) -> None:
    rate(judge, grounding.context_precision, marks(True, True), sample=replace(SAMPLE, answers=()))
    assert "reference" not in shown(judge)
    assert "No accepted answer is known" in judge.bodies[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    "reply", [marks(True), marks(True, True, True), marks(True, True, first=0), {"passages": []}]
)
def test_a_reply_that_misses_a_passage_is_never_a_score(judge: FakeJudge, reply: Any) -> None:
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, grounding.context_precision, reply, reply)
    assert (caught.value.kind, len(judge.bodies)) == ("judge_malformed", 2)


def test_context_recall_is_the_share_of_the_references_claims_that_passages_support(
    judge: FakeJudge,
) -> None:
    found = rate(judge, grounding.context_recall, claims(BUILT, YEAR))
    assert (found.value, len(judge.bodies)) == (0.5, 1)
    assert shown(judge) == {
        "question": SAMPLE.query,
        "reference": "Ann Lee",
        "passage 1": PASSAGES[0],
        "passage 2": PASSAGES[1],
    }


@pytest.mark.parametrize("metric", [grounding.context_precision, grounding.context_recall])
def test_no_passages_hold_nothing_and_cost_nothing(judge: FakeJudge, metric: Metric) -> None:
    found = rate(judge, metric, output=Output(1.0, "Ann."))
    assert (found.value, found.reason, judge.bodies) == (0.0, "no passages", [])


ALL = [
    grounding.groundedness,
    grounding.answer_relevance,
    grounding.context_precision,
    grounding.context_recall,
]


@pytest.mark.parametrize("metric", ALL, ids=lambda metric: metric.name)
@pytest.mark.parametrize("reply", ["NaN", '{"score": NaN}', "", "sure: Ann Lee"])
def test_what_is_no_verdict_is_an_error_that_quotes_nothing(
    judge: FakeJudge, metric: Metric, reply: str
) -> None:
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, metric, *[reply] * 4)
    assert caught.value.kind in ("judge_nan", "judge_malformed", "judge_empty_answer")
    assert "Ann" not in str(caught.value)


@settings(deadline=None)  # the reference takes its time to load
@given(st.lists(st.booleans(), min_size=1, max_size=20))
def test_average_precision_is_scikit_learns(marks: list[bool]) -> None:
    from sklearn.metrics import average_precision_score

    if not any(marks):
        assert average_precision(marks) == 0.0
        return
    ranks = [float(-rank) for rank in range(len(marks))]
    assert average_precision(marks) == pytest.approx(average_precision_score(marks, ranks))


@given(st.floats(0, 1), st.floats(0, 1))
def test_balance_lies_between_its_parts(bearing: float, answered: float) -> None:
    assert min(bearing, answered) - 1e-9 <= balance(bearing, answered) <= max(bearing, answered) + 1e-9
