"""What an executor is, and what a scorer is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Executor(Protocol):
    """Runs *work* on every item, at most *concurrency* at once; the first exception ends all."""

    async def __call__(
        self, items: Sequence[T], work: Callable[[T], Awaitable[None]], *, concurrency: int
    ) -> None:
        """Return when every item is done."""


class Scorer(Protocol):
    """Applies metrics that need no judge; a plug-in of `sluicegate.scorers` made as `factory(workers)`."""

    @property
    def chunk(self) -> int:
        """How many samples are worth handing over at once."""

    def score(self, check: Any, metric: Any, pairs: Sequence[tuple[Any, Any]]) -> Sequence[float | str]:  # noqa: ANN401
        """
        A score for each (sample, output), in order, or the kind of the ScoreFailed that it raised.

        Args:
            check: names the metric and its options, for scorers in other processes.
        """

    def close(self) -> None:
        """Give back what it holds."""
