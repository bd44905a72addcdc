"""A/A: a release against itself. How often a suite's verdict flips although nothing changed."""

from __future__ import annotations

import json
import math
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from evals import stats
from evals.checks import Check
from evals.dataset import Dataset
from evals.errors import BadSuite
from evals.gate import decide, judge
from evals.marks import Marks
from evals.metrics.base import Metric
from evals.run import EvalRun
from evals.score import compare
from evals.stats import Interval
from evals.suite import EvalSuite, content_of
from registry.clock import to_text
from registry.ids import digest
from registry.workspace import Workspace

FOLDER = "evals-aa"


@dataclass(frozen=True, slots=True)
class Flips:
    """What a suite said of a release compared with itself, over many rounds."""

    rounds: int
    verdicts: Mapping[str, int]
    """How often each verdict came."""
    flip_rate: float
    """The chance that two runs of the very same bytes end in different verdicts."""
    interval: Interval
    wrong: Mapping[str, int]
    """
    By check: how often it said of equals what is false of them: "better" where one had to be better, "worse"
    where none may be.
    """


def flips(run: EvalRun, *, rounds: int, seed: int = 0) -> Flips:
    """
    The suite's own flip rate from a run whose samples were asked an even number of times, at least twice.

    Each round deals the repetitions of every sample into two runs at random: the first is the release, the
    second its baseline. The interval is Wilson's for the share of pairs of rounds that differ.

    Raises:
        BadSuite: each sample was asked once, or no check scores samples one by one.
    """
    if run.epochs < 2:
        raise BadSuite(f"suite {run.suite.name!r} was asked once a sample; A/A needs at least --epochs 2")
    draw = random.Random(seed)
    dealt = [mark for mark in run.marked if mark[2].epochs]
    if not dealt:
        raise BadSuite(f"suite {run.suite.name!r} has no check that scores samples one by one")
    verdicts: Counter[str] = Counter()
    wrong: Counter[str] = Counter()
    order: list[str] = []
    for _ in range(rounds):
        results = []
        for check, metric, own, _theirs in dealt:
            first, second = _deal(metric, own, run.epochs, draw)
            measured = compare(check, metric, first, second if check.rival == "baseline" else None)
            if check.rival == "majority":
                continue
            results.append(judge(check, metric, measured))
            wrong[check.title] += _is_wrong(check, results[-1].verdict)
        verdict = decide(results, error_share=0, max_error_share=0).verdict
        verdicts[verdict] += 1
        order.append(verdict)
    pairs = list(zip(order[::2], order[1::2], strict=False))
    differ = sum(a != b for a, b in pairs)
    rate = 1 - sum((count / rounds) ** 2 for count in verdicts.values())
    return Flips(rounds, dict(verdicts), rate, stats.wilson(differ, len(pairs)), dict(wrong))


def _deal(metric: Metric, own: Marks, epochs: int, draw: random.Random) -> tuple[Marks, Marks]:
    halves = Marks(), Marks()
    size = epochs // 2
    for at in range(len(own.values)):
        scores = [kept[at] for kept in own.epochs]
        draw.shuffle(scores)
        for half, part in zip(halves, (scores[:size], scores[size : 2 * size]), strict=True):
            missing = any(map(math.isnan, part))
            half.add(metric, part, "no_score" if missing else None)
    return halves


def _is_wrong(check: Check, verdict: str) -> bool:
    """Of two equals neither is better by more than nothing, nor worse than a margin allows."""
    if check.rival != "baseline":
        return False
    return verdict == "pass" if check.gain >= 0 else verdict == "fail"


def report(found: Flips, now: datetime) -> dict[str, Any]:
    """*found* as plain JSON."""
    return {
        "rounds": found.rounds,
        "verdicts": dict(found.verdicts),
        "flip_rate": round(found.flip_rate, 4),
        "low": round(found.interval.low, 4),
        "high": round(found.interval.high, 4),
        "wrong": {title: count / found.rounds for title, count in found.wrong.items()},
        "at": to_text(now),
    }


def keep(workspace: Workspace, suite: EvalSuite, dataset: Dataset, said: Mapping[str, Any]) -> None:
    """Keep the newest A/A result of exactly this suite and data on this machine."""
    folder = workspace.settings.home / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    (folder / _file(suite, dataset)).write_text(json.dumps(dict(said)))


def kept(workspace: Workspace, suite: EvalSuite, dataset: Dataset) -> dict[str, Any] | None:
    """The newest A/A result of exactly this suite and data, to be shown beside its verdicts."""
    path = workspace.settings.home / FOLDER / _file(suite, dataset)
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def _file(suite: EvalSuite, dataset: Dataset) -> str:
    content = content_of(suite, dataset.digest)
    return digest(content).removeprefix("sha256:") + ".json"
