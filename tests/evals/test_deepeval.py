from __future__ import annotations

import asyncio
import gc
import json
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics import deepeval
from evals.metrics.base import Metric, Scored
from evals.systems.base import Output
from registry.errors import BadInput
from tests.evals.fake_gateway import error
from tests.evals.fake_judge import FakeJudge, chat, serve_judge
from tests.evals.foreign_server import said, script
from tests.evals.test_ragas import run_alone
from tests.evals.test_verdict import JUDGE, on_bench

PASSAGES = ("The bridge opened in 1932.", "Ann Lee built it.")
SAMPLE = Sample("s1", "sha256:0", "Who built the bridge?", answers=("Ann Lee built it in 1932.",))
OUTPUT = Output(1.0, "Ann Lee built it. It opened in 1950.", passages=PASSAGES)
TWO = ["Ann Lee built it.", "It opened in 1950."]


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with serve_judge() as served:
        yield served


def rate(judge: FakeJudge, metric: Metric, *, sample: Sample = SAMPLE, output: Output = OUTPUT) -> Scored:
    call = metric.rate
    assert call is not None
    found = on_bench(judge, lambda bench: call(sample, output, bench))
    assert isinstance(found, Scored)
    return found


def kind_of(judge: FakeJudge, metric: Metric, **given: Any) -> tuple[str, int]:
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, metric, **given)
    return caught.value.kind, len(judge.bodies)


Factory = Callable[[Mapping[str, Any]], Metric]
CASES: list[tuple[Factory, dict[str, Any], float, int]] = [
    (deepeval.answer_relevancy, {"statements": TWO, "verdicts": said("yes", "no")}, 0.5, 2),
    (deepeval.faithfulness, {"truths": ["T"], "claims": TWO, "verdicts": said("yes", "borderline")}, 1.0, 3),
    (deepeval.hallucination, {"verdicts": said("yes", "no")}, 0.5, 1),
    (deepeval.bias, {"opinions": TWO, "verdicts": said("no", "yes")}, 0.5, 2),
    (deepeval.toxicity, {"opinions": TWO, "verdicts": said("no", "no")}, 1.0, 2),
    (deepeval.contextual_precision, {"verdicts": said("no", "yes")}, 0.5, 1),
    (deepeval.contextual_recall, {"verdicts": said("yes", "yes", "no", "yes")}, 0.75, 1),
    (deepeval.contextual_relevancy, {"verdicts": said("yes", "no", statement="s")}, 0.5, 2),
]
NAMES = [factory.__name__ for factory, *_ in CASES]


@pytest.mark.parametrize(("factory", "replies", "value", "calls"), CASES, ids=NAMES)
def test_each_metric_scores_with_the_calls_it_states(
    judge: FakeJudge, factory: Factory, replies: dict[str, Any], value: float, calls: int
) -> None:
    judge.say = script(**replies)
    metric = factory({})
    found = rate(judge, metric)
    assert (found.value, found.reason, len(judge.bodies)) == (value, "", calls)
    assert found.details["library"].startswith("deepeval 4.3.")
    assert len(found.details["replies"]) == calls
    assert metric.calls == calls or metric.name == "deepeval_contextual_relevancy"
    assert {body["response_format"]["type"] for body in judge.bodies} == {"json_schema"}


@pytest.mark.parametrize(("factory", "replies", "value", "calls"), CASES, ids=NAMES)
def test_a_reason_costs_one_call_more(
    judge: FakeJudge, factory: Factory, replies: dict[str, Any], value: float, calls: int
) -> None:
    judge.say = script(**replies, reason={"reason": "Because."})
    found = rate(judge, factory({"include_reason": True}))
    assert (found.value, found.reason, len(judge.bodies)) == (value, "Because.", calls + 1)


@pytest.mark.parametrize(("factory", "replies", "_value", "calls"), CASES, ids=NAMES)
def test_no_verdicts_are_no_score(
    judge: FakeJudge, factory: Factory, replies: dict[str, Any], _value: float, calls: int
) -> None:
    judge.say = script(**{**replies, "verdicts": []})
    assert kind_of(judge, factory({})) == ("deepeval_no_verdicts", calls)


@pytest.mark.parametrize("factory", [deepeval.answer_relevancy, deepeval.faithfulness, deepeval.bias])
def test_nothing_to_judge_is_no_score(judge: FakeJudge, factory: Factory) -> None:
    judge.say = script(statements=[], truths=[], claims=[], opinions=[])
    assert kind_of(judge, factory({}))[0] == "deepeval_no_verdicts"


def test_an_answer_without_opinions_passes_where_the_suite_says_so(judge: FakeJudge) -> None:
    judge.say = script(opinions=[])
    assert rate(judge, deepeval.toxicity({"without_opinions": "pass"})).value == 1.0
    judge.say = script(opinions=TWO, verdicts=[])
    assert kind_of(judge, deepeval.toxicity({"without_opinions": "pass"}))[0] == "deepeval_no_verdicts"


def test_fewer_verdicts_than_statements_are_no_score(judge: FakeJudge) -> None:
    judge.say = script(statements=TWO, verdicts=said("yes"))
    assert kind_of(judge, deepeval.answer_relevancy({})) == ("deepeval_malformed", 2)


def test_geval_scores_by_the_rubric_in_tenths(judge: FakeJudge) -> None:
    judge.say = script(steps=["Compare."], reason={"reason": "Close.", "score": 7})
    found = rate(judge, deepeval.geval({}))
    assert (round(found.value, 9), found.reason) == (0.7, "Close.")
    prompts = [body["messages"][0]["content"] for body in judge.bodies]
    assert len(prompts) == 2
    assert JUDGE.rubric in prompts[0]
    assert all(text in prompts[1] for text in (SAMPLE.query, SAMPLE.answers[0], OUTPUT.text))
    assert PASSAGES[0] not in prompts[1]


def test_geval_with_steps_takes_one_call_and_shows_what_it_is_told_to(judge: FakeJudge) -> None:
    judge.say = script(reason={"reason": "Close.", "score": 10})
    metric = deepeval.geval({"steps": ["Compare."], "show": ["passages"]})
    assert (rate(judge, metric).value, len(judge.bodies), metric.calls) == (1.0, 1, 1)
    prompt = judge.bodies[0]["messages"][0]["content"]
    assert PASSAGES[0] in prompt
    assert SAMPLE.answers[0] not in prompt


@pytest.mark.parametrize("score", [11, -1, "7", None, True])
def test_a_score_that_is_none_is_asked_for_once_more_and_then_an_error(judge: FakeJudge, score: Any) -> None:
    judge.say = script(reason={"reason": "r", "score": score})
    assert kind_of(judge, deepeval.geval({"steps": ["Compare."]})) == ("deepeval_malformed", 2)


def test_a_score_that_is_not_a_number_is_an_error(judge: FakeJudge) -> None:
    judge.say = script(reason='{"reason": "r", "score": NaN}')
    assert kind_of(judge, deepeval.geval({"steps": ["Compare."]})) == ("deepeval_nan", 2)


def test_geval_without_steps_from_the_judge_is_no_score(judge: FakeJudge) -> None:
    judge.say = script(steps=[], reason={"reason": "r", "score": 7})
    assert kind_of(judge, deepeval.geval({}))[0] == "deepeval_malformed"


def test_one_malformed_reply_is_repaired_once(judge: FakeJudge) -> None:
    judge.say = script(statements=("Sure! Here it is.", TWO), verdicts=said("yes", "yes"))
    assert rate(judge, deepeval.answer_relevancy({})).value == 1.0
    assert len(judge.bodies) == 3


@pytest.mark.parametrize(
    "reply", ["Sure!", '{"verdicts": [{"verdict": "maybe"}]}', '{"verdicts": "yes"}', "{}", "[]"]
)
def test_malformed_replies_are_no_score(judge: FakeJudge, reply: str) -> None:
    judge.say = script(verdicts=reply)
    assert kind_of(judge, deepeval.hallucination({})) == ("deepeval_malformed", 2)


def test_lax_servers_may_leave_out_reasons(judge: FakeJudge) -> None:
    judge.say = script(statements=TWO, verdicts=[{"verdict": "yes"}, {"verdict": "no", "reason": None}])
    assert rate(judge, deepeval.answer_relevancy({})).value == 0.5


@pytest.mark.parametrize(("status", "kind"), [(429, "judge_rate_limited"), (500, "judge_http_500")])
def test_failures_of_the_judge_keep_their_kind_and_are_retried_by_us_alone(
    judge: FakeJudge, status: int, kind: str
) -> None:
    judge.faults = [lambda _body: error(status, "x")] * 50
    assert kind_of(judge, deepeval.hallucination({})) == (kind, 2)
    assert kind_of(judge, deepeval.geval({"steps": ["Compare."]})) == (kind, 4)


@pytest.mark.parametrize(
    ("finish", "kind"), [("length", "judge_truncated"), ("content_filter", "judge_refused")]
)
def test_answers_cut_off_or_refused_are_no_score(judge: FakeJudge, finish: str, kind: str) -> None:
    judge.faults = [lambda _body: chat('{"verdicts": []}', finish=finish)] * 9
    assert kind_of(judge, deepeval.hallucination({}))[0] == kind


def test_what_deepeval_cannot_judge_is_refused_before_a_call(judge: FakeJudge) -> None:
    metric = deepeval.faithfulness({})
    assert kind_of(judge, metric, output=replace(OUTPUT, passages=())) == ("deepeval_no_passages", 0)
    assert kind_of(judge, metric, output=replace(OUTPUT, text=" ")) == ("deepeval_empty_answer", 0)


def test_the_score_equals_that_of_deepeval_with_its_own_client(judge: FakeJudge) -> None:
    replies = {"statements": [*TWO, "Third."], "verdicts": said("yes", "borderline", "no")}
    judge.say = script(**replies)
    ours = rate(judge, deepeval.answer_relevancy({})).value
    prompts = [body["messages"][0]["content"] for body in judge.bodies]
    judge.bodies.clear()
    by_prompt = {
        prompts[0]: {"statements": replies["statements"]},
        prompts[1]: {"verdicts": replies["verdicts"]},
    }
    judge.say = lambda body: json.dumps(by_prompt[_text(body)])

    async def own() -> float:
        from deepeval.metrics import AnswerRelevancyMetric
        from deepeval.models import LocalModel
        from deepeval.test_case import LLMTestCase

        model = LocalModel(model="judge", base_url=judge.url, api_key="sk-judge-test")
        metric = AnswerRelevancyMetric(model=model, include_reason=False)
        case = LLMTestCase(input=SAMPLE.query, actual_output=OUTPUT.text)
        return float(await metric.a_measure(case, _show_indicator=False))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert asyncio.run(own()) == ours == pytest.approx(2 / 3)
        gc.collect()  # its client leaves connections open
    assert [_text(body) for body in judge.bodies] == prompts


def _text(body: Any) -> str:
    content = body["messages"][0]["content"]
    return str(content if isinstance(content, str) else content[0]["text"])


def test_options_are_checked() -> None:
    with pytest.raises(BadInput, match="show lists something twice"):
        deepeval.geval({"show": ["query", "query"]})
    with pytest.raises(BadInput, match="threshold"):
        deepeval.bias({"threshold": 1})


def test_the_event_loop_is_left_as_it_was(judge: FakeJudge) -> None:
    judge.say = script(verdicts=said("yes", "yes"))
    rate(judge, deepeval.hallucination({}))
    assert not hasattr(asyncio, "_nest_patched")


def alone(judge: FakeJudge) -> float:
    """In a process of its own: one score."""
    return rate(judge, deepeval.hallucination({})).value


def test_alone_it_reaches_only_the_judge_and_writes_nothing(judge: FakeJudge, tmp_path: Path) -> None:
    judge.say = script(verdicts=said("yes", "no"))
    assert run_alone("deepeval", judge, tmp_path) == (json.dumps(0.5) + "\n", [".env"])
