from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from evals.cache import open_cache
from evals.client import Patience
from evals.cost import Purse
from evals.errors import CostCapReached, ScoreFailed
from evals.judging.bench import Desk
from evals.upstream import Upstream
from registry.clock import utc_now
from registry.entities import JudgeContent, Price
from tests.evals.fake_gateway import error
from tests.evals.fake_judge import KEY, FakeJudge, chat, serve_judge

JUDGE = JudgeContent("openai/judge", "Is it right?", {"temperature": 0.5, "scale": "binary"})
ASKED = [{"role": "user", "content": "Is it?"}]
FAST = Patience(first_pause_s=0.01, timeout_s=5, retries=2)


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with serve_judge() as served:
        yield served


def ask(
    judge: FakeJudge,
    folder: Path | None = None,
    *,
    epochs: tuple[int, ...] = (0,),
    purse: Purse | None = None,
    **given: Any,
) -> tuple[Any, Desk]:
    async def go() -> tuple[Any, Desk]:
        async with Upstream(judge.url, KEY, concurrency=4, patience=FAST) as upstream:
            if folder is None:
                desk = Desk(JUDGE, "judge", upstream, None, purse or Purse())
                return [await desk.bench(epoch).ask(ASKED, **given) for epoch in epochs], desk
            with open_cache(folder) as cache:
                desk = Desk(JUDGE, "judge", upstream, cache, purse or Purse())
                return [await desk.bench(epoch).ask(ASKED, **given) for epoch in epochs], desk

    return asyncio.run(go())


def test_a_judge_is_asked_with_its_parameters_and_the_schema(judge: FakeJudge) -> None:
    said, desk = ask(judge, schema={"type": "object"}, parameters={"max_tokens": 9})
    assert said == ["yes"]
    assert judge.bodies == [
        {
            "model": "judge",
            "temperature": 0.5,
            "max_tokens": 9,
            "messages": ASKED,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "schema": {"type": "object"}, "strict": True},
            },
        }
    ]
    assert (desk.counts.calls, desk.counts.prompt_tokens, desk.counts.completion_tokens) == (1, 20, 5)


def test_an_equal_question_is_asked_once_an_epoch_and_never_again_after_a_restart(
    judge: FakeJudge, tmp_path: Path
) -> None:
    ask(judge, tmp_path, epochs=(0, 0, 1))
    _, desk = ask(judge, tmp_path, epochs=(0, 1))
    assert len(judge.bodies) == 2
    assert (desk.counts.calls, desk.counts.cached) == (0, 2)


def test_equal_questions_under_way_together_share_one_call(judge: FakeJudge) -> None:
    judge.delay_s = 0.05

    async def go() -> list[str]:
        async with Upstream(judge.url, KEY, concurrency=4, patience=FAST) as upstream:
            bench = Desk(JUDGE, "judge", upstream, None, Purse()).bench()
            return await asyncio.gather(*(bench.ask(ASKED) for _ in range(5)))

    assert asyncio.run(go()) == ["yes"] * 5
    assert len(judge.bodies) == 1


@pytest.mark.parametrize(
    ("fault", "kind"),
    [
        (lambda _body: error(500, "broken"), "judge_http_500"),
        (lambda _body: error(429, "slow_down"), "judge_rate_limited"),
        (lambda _body: error(400, "content_filter"), "judge_refused"),
        (lambda _body: error(401, "invalid_api_key"), "judge_http_401"),
        (lambda _body: chat(None), "judge_empty_answer"),
        (lambda _body: chat("half", finish="length"), "judge_truncated"),
        (lambda _body: web.json_response({"choices": []}), "judge_bad_answer"),
        (lambda _body: web.Response(text="<html>"), "judge_bad_answer"),
    ],
)
def test_what_is_no_answer_is_an_error_of_its_own_kind_and_never_kept(
    judge: FakeJudge, tmp_path: Path, fault: Any, kind: str
) -> None:
    judge.faults = [fault] * 3
    with pytest.raises(ScoreFailed) as caught:
        ask(judge, tmp_path)
    assert caught.value.kind == kind
    judge.faults = []
    assert ask(judge, tmp_path)[0] == ["yes"]


def test_a_passing_fault_is_repeated(judge: FakeJudge) -> None:
    judge.faults = [lambda _body: error(429, "slow_down"), lambda _body: error(503, "busy")]
    assert ask(judge)[0] == ["yes"]
    assert len(judge.bodies) == 3


def test_a_call_that_does_not_fit_under_the_cap_is_never_sent(judge: FakeJudge) -> None:
    price = Price("openai/judge", utc_now(), 1_000_000, 1_000_000)  # a dollar for a million tokens
    purse = Purse({"openai/judge": price}, cap_usd=0.000_600)
    ask(judge, purse=purse)
    assert purse.spent_usd == pytest.approx(0.000_025)
    ask(judge, purse=purse)
    ask(judge, purse=purse)
    with pytest.raises(CostCapReached, match="does not fit"):
        ask(judge, epochs=tuple(range(10)), purse=purse)
    assert purse.spent_usd <= 0.000_600
    assert len(judge.bodies) < 13
