from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import pytest

from evals.errors import ScoreFailed
from evals.metrics.base import Scored
from evals.metrics.judge import JudgeOptions
from evals.metrics.pairwise import Preference, compare, win_rate
from evals.systems.base import Output
from registry.errors import BadInput
from tests.evals.fake_judge import FakeJudge, serve_judge
from tests.evals.test_judge import SAMPLE
from tests.evals.test_verdict import blocks_of, on_bench

FIRST = Output(1.0, "Ann did it.", passages=("one",), meta={"release": "new"})
SECOND = Output(2.0, "Bob did it.", passages=("two",))


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with serve_judge() as served:
        yield served


def shown(body: Any) -> dict[str, str]:
    return blocks_of(
        body["messages"][1]["content"].replace("answer A", "answer 1").replace("answer B", "answer 2")
    )


def verdicts(judge: FakeJudge, *better: str) -> None:
    script = iter(better)
    judge.say = lambda _body: json.dumps({"reason": f"r{len(judge.bodies)}", "better": next(script)})


@pytest.mark.parametrize(
    ("there", "back", "value", "consistent"),
    [
        ("A", "B", 1.0, True),
        ("B", "A", 0.0, True),
        ("tie", "tie", 0.5, True),
        ("A", "A", 0.5, False),
        ("B", "B", 0.5, False),
        ("A", "tie", 0.5, False),
        ("tie", "A", 0.5, False),
    ],
)
def test_only_a_preference_that_holds_in_both_orders_counts(
    judge: FakeJudge, there: str, back: str, value: float, consistent: bool
) -> None:
    verdicts(judge, there, back)
    found = on_bench(judge, lambda bench: compare(bench, SAMPLE, FIRST, SECOND))
    names = {"A": "first", "B": "second", "tie": "tie"}, {"A": "second", "B": "first", "tie": "tie"}
    assert found == Preference(value, consistent, ("r1", "r2"), (names[0][there], names[1][back]))
    assert len(judge.bodies) == 2


def test_both_orders_are_asked_and_nothing_tells_who_wrote_what(judge: FakeJudge) -> None:
    verdicts(judge, "tie", "tie")
    on_bench(judge, lambda bench: compare(bench, SAMPLE, FIRST, SECOND))
    given = {"question": "Who built it?", "reference 1": "Ann", "reference 2": "Ann Lee"}
    assert [shown(body) for body in judge.bodies] == [
        {**given, "answer 1": "Ann did it.", "answer 2": "Bob did it."},
        {**given, "answer 1": "Bob did it.", "answer 2": "Ann did it."},
    ]
    assert "new" not in json.dumps([body["messages"] for body in judge.bodies])


def test_passages_are_shown_when_asked_for(judge: FakeJudge) -> None:
    verdicts(judge, "A", "B")
    options = JudgeOptions(show=("passages",))
    on_bench(judge, lambda bench: compare(bench, SAMPLE, FIRST, SECOND, options=options))
    text = judge.bodies[0]["messages"][1]["content"]
    assert text.index("behind answer A\none\n") < text.index("behind answer B\ntwo\n")


def test_equal_answers_are_a_tie_without_a_call(judge: FakeJudge) -> None:
    found = on_bench(judge, lambda bench: compare(bench, SAMPLE, FIRST, Output(9.0, "Ann did it.")))
    assert (found.value, found.consistent, judge.bodies) == (0.5, True, [])


def rate(judge: FakeJudge, rival: Any) -> Scored:
    metric = win_rate({})
    call = metric.rate
    assert call is not None
    output = Output(1.0, "Ann did it.", meta={"rival": rival})
    found = on_bench(judge, lambda bench: call(SAMPLE, output, bench))
    assert isinstance(found, Scored)
    return found


def test_the_win_rate_compares_with_the_rival_in_meta(judge: FakeJudge) -> None:
    verdicts(judge, "A", "B")
    assert rate(judge, asdict(SECOND)) == Scored(
        1.0, "r1", {"consistent": True, "verdicts": ["first", "first"], "reasons": ["r1", "r2"]}
    )
    verdicts(judge, "A", "A")
    found = rate(judge, {"text": "Bob did it."})
    assert (found.value, found.reason) == (0.5, "the preference changed with the order: a tie")
    metric = win_rate({})
    assert (metric.calls, metric.rival, metric.low, metric.high) == (2, True, 0.0, 1.0)


@pytest.mark.parametrize("rival", [None, "text", {}, {"text": None}])
def test_without_a_rival_there_is_no_score(judge: FakeJudge, rival: Any) -> None:
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, rival)
    assert (caught.value.kind, judge.bodies) == ("no_rival", [])


def test_a_malformed_second_order_fails_the_score(judge: FakeJudge) -> None:
    verdicts(judge, "A", "neither", "C")
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, {"text": "Bob did it."})
    assert (caught.value.kind, len(judge.bodies)) == ("judge_malformed", 3)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(BadInput, match="options of win_rate"):
        win_rate({"order": "one"})
