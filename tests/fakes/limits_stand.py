"""A shared limiter for a test, and what tests ask it again and again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Literal

from gateway.dataplane.limits import Hold, Spent
from gateway.dataplane.limits_shared import SharedLimiter
from gateway.dataplane.table import Subject
from gateway.errors import RateLimited
from registry.clock import Clock, utc_now
from registry.entities import Limits


def nothing_spent(subject: Subject, start: str) -> int:
    return 0


@asynccontextmanager
async def opened(
    url: str, down: Literal["open", "closed"] = "closed", *, spent: Spent = nothing_spent,
    clock: Clock = utc_now, timeout_s: float = 2.0, lease_s: float = 15.0, max_settlements: int = 1000,
) -> AsyncIterator[SharedLimiter]:  # fmt: skip
    limiter = SharedLimiter(
        url, down, spent, clock, timeout_s=timeout_s, lease_s=lease_s, max_settlements=max_settlements
    )
    await limiter.start()
    try:
        yield limiter
    finally:
        await limiter.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if condition():
                return
            await asyncio.sleep(0.005)


async def settled(limiter: SharedLimiter) -> None:
    """Return when all that was settled is delivered."""
    await until(lambda: not limiter.status()["waiting_settlements"] and not limiter._sending)


async def admitted(limiter: SharedLimiter, subjects: tuple[Subject, ...], cost: int = 0) -> Hold | None:
    try:
        return await limiter.admit(subjects, 0, cost)
    except RateLimited:
        return None


def key(limits: Limits, id_: str = "key_1") -> tuple[Subject, ...]:
    return (Subject("key", id_, limits),)
