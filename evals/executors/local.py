"""Run calls on this process's event loop, and score here."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from evals.checks import Check
from evals.dataset import Sample
from evals.errors import BadSuite, ScoreFailed
from evals.metrics.base import Metric
from evals.systems.base import Output
from registry.errors import PlatformError

T = TypeVar("T")
_SLACK = 1e-9
"""Rounding may carry a score so far beyond its range."""


async def run_all(items: Sequence[T], work: Callable[[T], Awaitable[None]], *, concurrency: int) -> None:
    """
    Await `work(item)` for every item, in order of start, at most *concurrency* at once.

    The first exception cancels what is under way, starts nothing more, and is raised.
    """
    waiting = iter(items)

    async def worker() -> None:
        for item in waiting:
            await work(item)

    tasks = [asyncio.create_task(worker()) for _ in range(min(concurrency, len(items)))]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def score_here(check: Check, metric: Metric, pairs: Sequence[tuple[Sample, Output]]) -> list[float | str]:
    """
    A score for each pair, or why there is none: the kind of the ScoreFailed that the metric raised, `nan`, or
    `out_of_range`.

    Raises:
        BadSuite: the metric raised something else; names it and the sample, not what was said.
    """
    assert metric.score is not None  # noqa: S101 - the caller asks metrics of single samples
    found: list[float | str] = []
    for sample, output in pairs:
        try:
            found.append(_ranged(metric.score(sample, output, check.k), metric))
        except ScoreFailed as error:
            found.append(error.kind)
        except PlatformError:
            raise
        except Exception as error:
            raise BadSuite(
                f"check {check.title!r}: {metric.name} raised {type(error).__name__} for sample "
                f"{sample.id!r}; a metric raises ScoreFailed where there is no score"
            ) from error
    return found


def _ranged(score: float, metric: Metric) -> float | str:
    if math.isnan(score):
        return "nan"
    return score if metric.low - _SLACK <= score <= metric.high + _SLACK else "out_of_range"


@dataclass(frozen=True, slots=True)
class LocalScorer:
    """Scores in this process, one sample after the other."""

    workers: int = 1
    chunk: int = 2048

    def score(
        self, check: Check, metric: Metric, pairs: Sequence[tuple[Sample, Output]]
    ) -> Sequence[float | str]:
        """See `Scorer.score`."""
        return score_here(check, metric, pairs)

    def close(self) -> None:
        """Nothing is held."""
