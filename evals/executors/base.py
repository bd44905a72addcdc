"""What an executor is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol, TypeVar

T = TypeVar("T")


class Executor(Protocol):
    """Runs *work* on every item, at most *concurrency* at once; the first exception ends all."""

    async def __call__(
        self, items: Sequence[T], work: Callable[[T], Awaitable[None]], *, concurrency: int
    ) -> None:
        """Return when every item is done."""
