from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from evals.cases import Flip, broken_cases, critical_places, flips
from evals.checks import Check
from evals.dataset import Sample
from evals.marks import Marks
from evals.metrics.base import Metric
from evals.metrics.operational import latency_ms
from evals.metrics.text import exact

FLOOR = Check("chat", "exact", at_least=0.5)
NOT_WORSE = Check("chat", "exact", not_worse_than="baseline", margin=0.25)
BETTER = Check("chat", "exact", better_than="baseline", margin=0.1)
SAMPLES = [Sample(f"q{i}", f"d{i}", f"question {i}", extra={"critical": i % 2 == 0}) for i in range(4)]
CRITICAL = (0, 2)


def marks(*scores: float | Sequence[float] | None, metric: Metric = exact) -> Marks:
    """One entry a sample: its score, those of its repetitions, or None where a judge failed."""
    found = Marks()
    for score in scores:
        if score is None:
            found.add(metric, [], "judge_timeout")
        else:
            found.add(metric, [score] if isinstance(score, float) else list(score), None)
    return found


def broken(check: Check, own: Marks, theirs: Marks | None = None, metric: Metric = exact) -> tuple[str, ...]:
    return broken_cases(SAMPLES, CRITICAL, [(check, metric, own, theirs)])


def test_only_true_marks_a_case_as_critical() -> None:
    values = [True, False, "true", 1, None]
    samples = [Sample(str(i), f"d{i}", extra={"critical": value}) for i, value in enumerate(values)]
    assert critical_places([*samples, Sample("plain", "e")]) == (0,)


def test_a_critical_case_breaks_below_the_floor_and_others_do_not() -> None:
    assert broken(FLOOR, marks(1.0, 0.0, 0.0, 0.0)) == ("q2",)
    assert broken(FLOOR, marks(0.5, 0.0, 1.0, 0.0)) == ()


def test_its_worst_repetition_counts() -> None:
    assert broken(FLOOR, marks([1.0, 1.0, 0.0], [0.0], [1.0, 1.0, 1.0], [1.0])) == ("q0",)


def test_a_ceiling_is_broken_from_above() -> None:
    check = Check("chat", "latency_ms", at_most=100.0)
    own = marks(50.0, 900.0, [40.0, 101.0], 1.0, metric=latency_ms)
    assert broken(check, own, metric=latency_ms) == ("q2",)


def test_a_critical_case_without_a_score_is_broken() -> None:
    assert broken(FLOOR, marks(1.0, None, None, 1.0)) == ("q2",)


@pytest.mark.parametrize(
    ("check", "own", "theirs", "found"),
    [
        (NOT_WORSE, (0.75, 1.0, 1.0, 1.0), (1.0,) * 4, ()),
        (NOT_WORSE, (0.7, 0.0, 1.0, 0.0), (1.0,) * 4, ("q0",)),
        (NOT_WORSE, (1.0, 1.0, None, 1.0), (1.0,) * 4, ("q2",)),
        (NOT_WORSE, (0.0, 1.0, 1.0, 1.0), (None, 1.0, 1.0, 1.0), ()),
        (BETTER, (1.0, 0.0, 0.5, 0.0), (1.0, 1.0, 0.5, 1.0), ()),
        (BETTER, (0.99, 0.0, 0.5, 0.0), (1.0, 1.0, 0.5, 1.0), ("q0",)),
    ],
)
def test_against_a_baseline_a_critical_case_may_lose_what_the_margin_allows(
    check: Check,
    own: tuple[float | None, ...],
    theirs: tuple[float | None, ...],
    found: tuple[str, ...],
) -> None:
    assert broken(check, marks(*own), marks(*theirs)) == found


def test_where_less_is_better_a_critical_case_loses_by_growing() -> None:
    check = Check("chat", "latency_ms", not_worse_than="baseline", margin=10.0)
    own = marks(105.0, 0.0, 111.0, 0.0, metric=latency_ms)
    theirs = marks(100.0, 0.0, 100.0, 0.0, metric=latency_ms)
    assert broken(check, own, theirs, latency_ms) == ("q2",)


@pytest.mark.parametrize("tier", ["supporting", "advisory"])
def test_checks_that_are_not_critical_break_no_case(tier: str) -> None:
    assert broken(replace(FLOOR, tier=tier), marks(0.0, 0.0, 0.0, 0.0)) == ()  # type: ignore[arg-type]


def test_a_case_is_named_once_and_only_as_far_as_was_judged() -> None:
    several = [(FLOOR, exact, marks(0.0), None), (replace(FLOOR, name="b"), exact, marks(0.0), None)]
    assert broken_cases(SAMPLES, CRITICAL, several) == ("q0",)


def test_flips_name_both_scores_the_greatest_losses_first() -> None:
    own = marks(0.5, 1.0, None, 0.0)
    theirs = marks(1.0, 0.0, 1.0, 1.0)
    alone = (FLOOR, exact, marks(0.0, 0.0, 0.0, 0.0), None)
    majority = (Check("chat", "exact", better_than="majority"), exact, own, theirs)
    assert flips(SAMPLES, [alone, majority, (NOT_WORSE, exact, own, theirs)]) == (
        Flip(NOT_WORSE.title, "q3", 1.0, 0.0, is_worse=True),
        Flip(NOT_WORSE.title, "q0", 1.0, 0.5, is_worse=True),
        Flip(NOT_WORSE.title, "q1", 0.0, 1.0, is_worse=False),
    )


def test_a_longer_wait_is_a_loss() -> None:
    check = Check("chat", "latency_ms", not_worse_than="baseline", margin=1.0)
    own, theirs = marks(9.0, 1.0, metric=latency_ms), marks(1.0, 9.0, metric=latency_ms)
    assert [flip.is_worse for flip in flips(SAMPLES, [(check, latency_ms, own, theirs)])] == [True, False]


def test_equal_scores_are_no_flips() -> None:
    own = marks([0.1, 0.2], [1.0], metric=exact)
    assert flips(SAMPLES, [(NOT_WORSE, exact, own, marks([0.2, 0.1], [1.0]))]) == ()
