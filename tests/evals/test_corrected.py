from __future__ import annotations

import random

import pytest

from evals.agreement.corrected import Labelled, powered_mean
from evals.stats import Interval
from registry.errors import BadInput


def cases(draw: random.Random, n: int, *, right: float) -> list[Labelled]:
    """People call 70 % good; the judge says the same in a share *right*, and else errs upwards twice."""
    found = []
    for _ in range(n):
        human = float(draw.random() < 0.7)
        wrong = draw.random() > right
        judge = 1.0 - human if wrong and (human == 0 or draw.random() < 0.5) else human
        found.append(Labelled(human, judge))
    return found


@pytest.mark.parametrize(("right", "tuning"), [(0.85, None), (0.5, None), (0.85, 1.0)])
def test_the_interval_covers_what_people_would_say(right: float, tuning: float | None) -> None:
    draw = random.Random(7)
    rounds, covered = 800, 0
    for _ in range(rounds):
        labelled = cases(draw, 60, right=right)
        judged = [one.judge for one in cases(draw, 400, right=right)]
        interval = powered_mean(labelled, judged, tuning=tuning).interval
        covered += interval.low <= 0.7 <= interval.high
    assert 0.93 <= covered / rounds <= 0.97


def test_a_good_judge_makes_the_interval_shorter_than_people_alone() -> None:
    draw = random.Random(1)
    labelled = cases(draw, 80, right=0.97)
    judged = [one.judge for one in cases(draw, 4000, right=0.97)]
    powered = powered_mean(labelled, judged).interval
    alone = powered_mean(labelled, judged, tuning=0.0).interval
    assert powered.high - powered.low < 0.75 * (alone.high - alone.low)


def test_a_judge_that_always_says_the_same_leaves_peoples_mean() -> None:
    labelled = [Labelled(float(i % 2), 1.0) for i in range(40)]
    assert powered_mean(labelled, [1.0] * 100).value == 0.5


def test_what_is_judged_wrongly_throughout_is_set_right() -> None:
    labelled = [Labelled(float(i % 4 > 0), float(i % 4 == 0)) for i in range(40)]
    assert powered_mean(labelled, [0.25] * 50 + [0.25] * 50, tuning=1.0).value == pytest.approx(0.75)


def test_few_labels_leave_the_whole_range_and_none_are_refused() -> None:
    few = powered_mean([Labelled(1.0, 1.0)] * 9, [1.0] * 100)
    assert (few.interval, few.method) == (Interval(0.0, 1.0), "prediction-powered, too few labels")
    with pytest.raises(BadInput, match="at least one"):
        powered_mean([], [1.0])


def test_equal_scores_still_give_a_width() -> None:
    found = powered_mean([Labelled(1.0, 1.0)] * 50, [1.0] * 500)
    assert found.value == 1.0
    assert found.interval.low < 0.95
