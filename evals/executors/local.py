"""Run calls on this process's event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

T = TypeVar("T")


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
