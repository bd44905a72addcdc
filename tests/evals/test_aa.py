from __future__ import annotations

from random import Random
from types import SimpleNamespace
from typing import cast

import pytest

from evals.aa import Flips, flips
from evals.checks import Check
from evals.errors import BadSuite
from evals.marks import Marks
from evals.metrics.text import exact
from evals.run import EvalRun
from tests.evals.conftest import Project
from tests.evals.fake_gateway import Release
from tests.evals.test_cli import Run, run

__all__ = ["run"]
STATED = 0.025
"""What a two-sided interval of 95 % leaves on one side."""
BETTER = Check("chat", "exact", better_than="baseline")
NOT_WORSE = Check("chat", "exact", not_worse_than="baseline", margin=0.0)


def against_itself(check: Check, *, samples: int, epochs: int, rounds: int, seed: int = 5) -> Flips:
    """A release of the same bytes, whose every answer is right by a chance that depends on the sample."""
    draw, own = Random(seed), Marks()
    for _ in range(samples):
        p = draw.betavariate(3, 1)
        own.add(exact, [float(draw.random() < p) for _ in range(epochs)], None)
    made = SimpleNamespace(
        epochs=epochs, suite=SimpleNamespace(name="s"), marked=((check, exact, own, None),)
    )
    return flips(cast("EvalRun", made), rounds=rounds)


@pytest.mark.parametrize("check", [BETTER, NOT_WORSE])
def test_equals_are_called_different_no_more_often_than_stated(check: Check) -> None:
    """Each of 40 releases is dealt 50 times: 2,000 gates over answers that are noise alone."""
    wrong = sum(
        sum(against_itself(check, samples=150, epochs=2, rounds=50, seed=seed).wrong.values())
        for seed in range(40)
    )
    assert wrong / 2000 <= STATED + 0.0105  # three standard errors of 2,000 gates


def test_the_flip_rate_is_the_chance_that_two_runs_differ() -> None:
    found = against_itself(NOT_WORSE, samples=120, epochs=4, rounds=500)
    assert sum(found.verdicts.values()) == 500
    assert found.flip_rate == pytest.approx(1 - sum((n / 500) ** 2 for n in found.verdicts.values()))
    assert found.interval.low <= found.flip_rate <= found.interval.high


def test_a_check_against_a_threshold_is_wrong_of_no_equals() -> None:
    found = against_itself(Check("chat", "exact", at_least=0.75), samples=60, epochs=2, rounds=400)
    assert set(found.verdicts) > {"inconclusive"}  # on the threshold both of the others come up
    assert not any(found.wrong.values())


def test_samples_asked_once_say_nothing_of_flips() -> None:
    with pytest.raises(BadSuite, match="--epochs 2"):
        against_itself(BETTER, samples=20, epochs=1, rounds=10)


SUITE = """name: support-quality
release: support
dataset: {path: rows.jsonl}
checks:
  - {name: right, system: chat, metric: contains, not_worse_than: baseline, margin: 0.02}
"""


def test_the_flip_rate_of_a_suite_is_shown_beside_its_next_verdict(project: Project, run: Run) -> None:
    project.questions(40)
    path = project.suite(SUITE)
    asked: dict[str, int] = {}

    def unsteady(question: str) -> str:
        asked[question] = asked.get(question, 0) + 1
        return question.replace("question", "answer") if asked[question] % 2 else "I do not know"

    version = project.chat_release()
    project.gateway.releases["support@candidate"] = Release(version.digest, unsteady)
    code, said = run(f"aa {path} --epochs 2 --rounds 100")
    assert (code, said["samples"], said["epochs"], said["rounds"]) == (0, 40, 2, 100)
    assert sum(said["verdicts"].values()) == 100
    assert list(said["wrong"]) == ["right"]
    assert 0.0 <= said["low"] <= said["flip_rate"] <= said["high"] <= 1.0
    _, report = run(f"run {path}")
    for key in ("rounds", "verdicts", "flip_rate", "low", "high", "at"):
        assert report["aa"][key] == said[key]
    assert "flip" in run(f"run {path}", as_json=False)[1]
