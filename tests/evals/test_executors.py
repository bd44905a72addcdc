from __future__ import annotations

import asyncio
import math
from typing import Any

import pytest

from evals.checks import Check
from evals.dataset import Sample
from evals.errors import BadSuite, ScoreFailed
from evals.executors.local import run_all, score_here
from evals.metrics.base import Metric, Score
from evals.systems.base import Output
from registry.errors import MissingExtra


@pytest.mark.parametrize(("items", "concurrency"), [(0, 3), (2, 5), (20, 3), (20, 1)])
def test_every_item_is_done_once_and_never_too_many_at_once(items: int, concurrency: int) -> None:
    done: list[int] = []
    active = most = 0

    async def work(item: int) -> None:
        nonlocal active, most
        active += 1
        most = max(most, active)
        await asyncio.sleep(0)
        active -= 1
        done.append(item)

    asyncio.run(run_all(range(items), work, concurrency=concurrency))
    assert (sorted(done), most) == (list(range(items)), min(items, concurrency))


def test_the_first_exception_ends_everything() -> None:
    started: list[int] = []

    async def work(item: int) -> None:
        started.append(item)
        if item == 1:
            raise RuntimeError
        await asyncio.Event().wait()

    with pytest.raises(RuntimeError):
        asyncio.run(run_all(range(10), work, concurrency=3))
    assert started == [0, 1, 2]


def scored(score: Score, **ranged: Any) -> list[float | str]:
    """What a metric with this *score* gives for one sample."""
    metric = Metric("own", ("chat",), (), score=score, **ranged)
    return score_here(Check("chat", "own", at_least=0.5), metric, [(Sample("q1", ""), Output(0.0, "secret"))])


@pytest.mark.parametrize(
    ("score", "found"),
    [
        (0.0, 0.0),
        (1.0, 1.0),
        (1.0 + 1e-12, 1.0 + 1e-12),
        (1.1, "out_of_range"),
        (-0.1, "out_of_range"),
        (math.inf, "out_of_range"),
        (math.nan, "nan"),
    ],
)
def test_a_score_outside_its_range_is_none(score: float, found: float | str) -> None:
    assert scored(lambda *_: score) == [found]


def test_a_range_without_an_end_has_every_score_up_to_it() -> None:
    assert scored(lambda *_: 1e9, high=math.inf) == [1e9]


def test_what_fails_to_score_is_counted_by_its_kind() -> None:
    def score(*_: Any) -> float:
        raise ScoreFailed("empty_answer")

    assert scored(score) == ["empty_answer"]


@pytest.mark.parametrize("error", [KeyError("secret"), SystemError("secret"), RecursionError()])
def test_a_metric_that_raises_anything_else_ends_the_run_and_quotes_nothing(error: Exception) -> None:
    def score(*_: Any) -> float:
        raise error

    told = (
        f"check 'chat own': own raised {type(error).__name__} for sample 'q1'; a metric raises ScoreFailed "
        "where there is no score"
    )
    with pytest.raises(BadSuite) as caught:
        scored(score)
    assert caught.value.message == told


def test_an_error_of_the_platform_keeps_its_own_words() -> None:
    def score(*_: Any) -> float:
        raise MissingExtra("install it")

    with pytest.raises(MissingExtra, match="install it"):
        scored(score)


def test_text_is_no_score() -> None:
    with pytest.raises(BadSuite, match="own raised TypeError"):
        scored(lambda *_: "good")  # type: ignore[arg-type]
