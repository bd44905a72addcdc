"""Ask a judge about answers that people have judged."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median_low
from typing import Any

from evals.agreement.labelled import Labelled, Scale
from evals.errors import ScoreFailed
from evals.judging.base import Bench
from evals.judging.panel import Panel, rated
from evals.metrics.base import Metric
from evals.metrics.pairwise import compare
from evals.systems.base import Output
from registry.errors import BadInput

MOST_REPEATS = 10
WORTH: Mapping[str, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}
"""What a choice between two answers is worth to the first."""


@dataclass(frozen=True, slots=True)
class Rating:
    """What the judge said of one row in one repetition."""

    verdict: str | None
    """A label of the scale; None where there is none."""
    failed: str | None = None
    """The kind of the error, such as `judge_timeout`."""
    orders: tuple[str, str] | None = None
    """Of a pair: the verdict in each order."""


async def ask(
    rows: Sequence[Labelled],
    scale: Scale,
    metric: Metric,
    bench_of: Callable[[int], Bench | Panel],
    *,
    repeats: int = 1,
    threshold: float = 0.5,
    concurrency: int = 2,
    on_done: Callable[[int], None] = lambda _done: None,
) -> list[list[Rating]]:
    """
    The judge's ratings of *rows*, one list a row with one rating for each repetition.

    Args:
        metric: how the judge is asked; for pairs it is asked in both orders instead.
        bench_of: the judge of a repetition, from 0.
        threshold: on the binary scale, the score from which a verdict is good.
        on_done: told how many more ratings are done.

    Raises:
        BadInput: the metric asks no judge, or *repeats* is not 1 to 10.
        CostCapReached: what was paid for is in the cache.
    """
    rate = metric.rate
    if rate is None or not 1 <= repeats <= MOST_REPEATS:
        raise BadInput(
            f"calibrate: metric {metric.name} must ask a judge, and repeats be 1 to {MOST_REPEATS}"
        )
    found: list[list[Rating]] = [[Rating(None)] * repeats for _ in rows]

    async def one(at: int, epoch: int) -> None:
        row, bench = rows[at], bench_of(epoch)
        try:
            if row.rival is not None:
                rating = await _choice(row, row.rival, bench)
            else:
                scored = await rated(rate, row.sample, row.output, bench)
                rating = _rating(scored.value, scored.details, scale, metric, threshold)
        except ScoreFailed as error:
            rating = Rating(None, error.kind)
        found[at][epoch] = rating
        on_done(1)

    await _all([(at, epoch) for epoch in range(repeats) for at in range(len(rows))], one, concurrency)
    return found


async def _choice(row: Labelled, rival: Output, judge: Bench | Panel) -> Rating:
    """Which of two answers is better; of a panel the median choice, in each order too."""
    members = judge.members if isinstance(judge, Panel) else (judge,)
    if isinstance(judge, Panel) and judge.how == "mean":
        message = "a panel that combines by mean has no choice between two answers; set combine: majority"
        raise BadInput(message)
    found = [await compare(bench, row.sample, row.output, rival) for bench in members]
    orders = tuple(_middle([WORTH[one.verdicts[at]] for one in found]) for at in (0, 1))
    return Rating(_middle([one.value for one in found]), orders=(orders[0], orders[1]))


def _middle(values: Sequence[float]) -> str:
    """The choice in the middle of an odd number of choices' worth."""
    middle = median_low(values)
    return next(name for name, worth in WORTH.items() if worth == middle)


async def _all(
    jobs: Sequence[tuple[int, int]], work: Callable[[int, int], Awaitable[None]], concurrency: int
) -> None:
    """Do every job, so many at once; the first error ends all."""
    waiting = iter(jobs)

    async def worker() -> None:
        for job in waiting:
            await work(*job)

    tasks = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(jobs)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _rating(
    value: float, details: Mapping[str, Any], scale: Scale, metric: Metric, threshold: float
) -> Rating:
    if not math.isfinite(value):
        return Rating(None, "judge_nan")
    if scale in ("likert", "score") and "verdict" in details:
        return Rating(str(details["verdict"]))
    good = value >= threshold if metric.higher_is_better else value <= threshold
    return Rating("good" if good else "bad")
