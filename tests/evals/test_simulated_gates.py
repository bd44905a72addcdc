from __future__ import annotations

from random import Random

import pytest

from evals.checks import Check
from evals.gate import decide, judge
from evals.marks import Marks
from evals.metrics.text import exact, token_f1
from evals.score import compare
from evals.stats import wilson

GATES = 2000
STATED = 0.025
"""What a two-sided interval of 95 % leaves on the side that would let a worse release pass."""


def verdict(check: Check, metric: object, first: list[float], second: list[float]) -> str:
    own, theirs = Marks(), Marks()
    for a, b in zip(first, second, strict=True):
        own.add(metric, [a], None)  # type: ignore[arg-type]
        theirs.add(metric, [b], None)  # type: ignore[arg-type]
    found = judge(check, metric, compare(check, metric, own, theirs))  # type: ignore[arg-type]
    return decide([found], error_share=0, max_error_share=0).verdict


def pairs(draw: Random, n: int, gained: float, lost: float) -> tuple[list[float], list[float]]:
    """Right or wrong on *n* samples; a third of the others are wrong on both sides."""
    first, second = [], []
    for _ in range(n):
        u = draw.random()
        if u < gained:
            a, b = 1.0, 0.0
        elif u < gained + lost:
            a, b = 0.0, 1.0
        else:
            a = b = float(draw.random() < 2 / 3)
        first.append(a)
        second.append(b)
    return first, second


@pytest.mark.parametrize(
    ("gained", "lost", "check"),
    [
        (0.10, 0.10, Check("chat", "exact", better_than="baseline")),
        (0.09, 0.11, Check("chat", "exact", better_than="baseline")),
        (0.05, 0.10, Check("chat", "exact", not_worse_than="baseline", margin=0.05)),
        (0.04, 0.12, Check("chat", "exact", not_worse_than="baseline", margin=0.05)),
    ],
)
def test_a_release_that_is_no_better_than_allowed_rarely_passes(
    gained: float, lost: float, check: Check
) -> None:
    draw = Random(11)
    passed = sum(verdict(check, exact, *pairs(draw, 200, gained, lost)) == "pass" for _ in range(GATES))
    assert wilson(passed, GATES).low <= STATED
    assert passed / GATES <= 0.035


def test_a_worse_release_by_scores_rarely_passes() -> None:
    draw, check = Random(12), Check("chat", "token_f1", not_worse_than="baseline", margin=0.02)
    passed = 0
    for _ in range(GATES):
        base = [draw.betavariate(4, 1.5) for _ in range(120)]
        changed = [min(max(x - 0.02 + draw.gauss(0, 0.1), 0.0), 1.0) for x in base]
        passed += verdict(check, token_f1, changed, base) == "pass"
    assert passed / GATES <= STATED + 0.01


def test_a_release_against_itself_is_neither_better_nor_worse() -> None:
    draw, better = Random(13), Check("chat", "exact", better_than="baseline")
    found = [verdict(better, exact, *pairs(draw, 200, 0.08, 0.08)) for _ in range(GATES)]
    assert found.count("pass") / GATES <= 0.035
    assert found.count("fail") / GATES <= 0.035
    assert found.count("inconclusive") / GATES >= 0.93


def test_a_release_that_is_surely_better_passes() -> None:
    draw, check = Random(14), Check("chat", "exact", better_than="baseline")
    found = [verdict(check, exact, *pairs(draw, 200, 0.2, 0.04)) for _ in range(200)]
    assert found.count("pass") / 200 >= 0.95
    assert found.count("fail") == 0
