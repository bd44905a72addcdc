from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from evals.client import Patience
from evals.cost import Purse
from evals.errors import CostCapReached, ScoreFailed
from evals.judging.base import Bench
from evals.judging.bench import Desk
from evals.judging.panel import members_of, panel
from evals.metrics.base import Scored
from evals.metrics.judge import judge as build
from evals.upstream import Upstream
from registry.entities import JudgeContent
from registry.errors import BadInput
from tests.evals.fake_judge import KEY, FakeJudge, serve_judge
from tests.evals.test_judge import OUTPUT, SAMPLE


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with serve_judge() as served:
        yield served


def decide(judge: FakeJudge, how: Any, verdicts: dict[str, Any], scale: str = "score") -> Scored:
    """A panel of the judges in *verdicts*, each with its own model; None breaks one."""
    judge.say = lambda body: json.dumps({"reason": f"by {body['model']}", "verdict": verdicts[body["model"]]})
    rate = build({}).rate
    assert rate is not None

    async def go() -> Scored:
        patience = Patience(first_pause_s=0.01, timeout_s=5, retries=1)
        async with Upstream(judge.url, KEY, concurrency=4, patience=patience) as upstream:
            benches = [
                Desk(
                    JudgeContent(f"openai/{name}", "Right?", {"scale": scale}), name, upstream, None, Purse()
                ).bench()
                for name in verdicts
            ]
            return await panel(rate, SAMPLE, OUTPUT, benches, how)

    return asyncio.run(go())


def test_the_mean_of_a_panel_carries_every_member_and_their_disagreement(judge: FakeJudge) -> None:
    assert decide(judge, "mean", {"a": 10, "b": 5, "c": 0}) == Scored(
        0.5,
        "by b",
        {
            "disagreement": 1.0,
            "members": [
                {"judge": "openai/a", "value": 1.0, "reason": "by a"},
                {"judge": "openai/b", "value": 0.5, "reason": "by b"},
                {"judge": "openai/c", "value": 0.0, "reason": "by c"},
            ],
            "verdict": 5,
        },
    )
    assert len(judge.bodies) == 3


@pytest.mark.parametrize(
    ("verdicts", "value"),
    [
        ((10, 10, 0), 1.0),
        ((0, 10, 0), 0.0),
        ((2, 4, 9), 0.4),
        ((0, 10), 0.5),
        ((3, 3, 3, 9, 9), 0.3),
        ((7,), 0.7),
    ],
)
def test_a_strict_majority_decides_and_else_the_middle(
    judge: FakeJudge, verdicts: tuple[int, ...], value: float
) -> None:
    found = decide(judge, "majority", {f"m{i}": verdict for i, verdict in enumerate(verdicts)})
    assert found.value == pytest.approx(value)


def test_members_are_asked_at_the_same_time(judge: FakeJudge) -> None:
    judge.delay_s = 0.05
    decide(judge, "majority", {"a": "pass", "b": "fail", "c": "pass"}, "binary")
    assert judge.most_under_way == 3


def test_a_panel_with_a_member_that_fails_has_no_score(judge: FakeJudge) -> None:
    with pytest.raises(ScoreFailed) as caught:
        decide(judge, "mean", {"a": 10, "b": "?", "c": 0})
    assert caught.value.kind == "judge_malformed"


def test_what_ends_the_run_is_not_hidden_by_a_member_that_failed_before_it() -> None:
    errors: dict[int, Exception] = {0: ScoreFailed("judge_timeout"), 1: CostCapReached()}

    async def rate(_sample: Any, _output: Any, bench: Bench) -> Scored:
        raise errors[bench.epoch]

    async def go() -> None:
        async with Upstream("http://127.0.0.1:9/v1", KEY, concurrency=1, patience=Patience()) as upstream:
            desk = Desk(JudgeContent("openai/a", "Right?"), "a", upstream, None, Purse())
            await panel(rate, SAMPLE, OUTPUT, [desk.bench(0), desk.bench(1)], "mean")

    with pytest.raises(CostCapReached):
        asyncio.run(go())


@pytest.mark.parametrize(("how", "verdicts"), [("mean", {}), ("best", {"a": 1})])
def test_an_empty_panel_and_an_unknown_way_are_refused(judge: FakeJudge, how: str, verdicts: Any) -> None:
    with pytest.raises(BadInput, match="panel"):
        decide(judge, how, verdicts)
    assert judge.bodies == []


@pytest.mark.parametrize(
    ("parameters", "why"),
    [
        ({"panel": "openai/a"}, "list of provider/model"),
        ({"panel": ["openai/a"]}, "2 to 9 models"),
        ({"panel": ["openai/a", "openai/b", "openai/b"]}, "each once"),
        ({"panel": ["openai/b", "openai/a", "openai/c"]}, "openai/a first"),
        ({"panel": ["openai/a", "openai/b"]}, "may be a tie"),
        ({"panel": ["openai/a", "openai/b"], "combine": "best"}, "majority or mean"),
    ],
)
def test_a_malformed_panel_is_refused(parameters: dict[str, Any], why: str) -> None:
    with pytest.raises(BadInput, match=why):
        members_of(JudgeContent("openai/a", "Right?", parameters))
