"""
Limits: requests and tokens a minute, requests at the same time, money.

What is guaranteed, for each subject:

- rpm, tpm: in no 60 seconds are more requests, or more estimated tokens, admitted than the limit. Time is
  counted in slots of one second, and a slot is remembered until its last instant is 60 seconds ago: a
  request is forgotten 60 to 61 seconds after it was admitted, never sooner.
- concurrency: never more holds unsettled than the limit.
- budget: settled, reserved and asked money together never pass it when a request is admitted; a request
  that costs more than its estimate passes it by that error. Periods are days and months of UTC. What a
  request costs is charged to the period in which it is settled.
- All limits of all subjects of a request are reserved, or none.

A token estimate is put right when the request is settled: what was not used goes back to the slot it came
from, what was used beyond it is charged to the moment of settling.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, Protocol

from gateway.dataplane.table import Headers, Subject
from registry.clock import Clock

WINDOW = 61
"""Slots of one second that count: 60, and the one that has begun."""

Spent = Callable[[Subject, str], int | Awaitable[int]]
"""
(subject, first instant of the period) → micro-USD settled since then, everything settled so far included.
Asked when a subject with a budget is first seen; one that must wait returns an awaitable.
"""


class Hold(Protocol):
    """What one request has reserved."""

    @property
    def headers(self) -> Headers:
        """`x-ratelimit-*` of the tightest subject at admission; empty when neither rpm nor tpm is limited."""
        ...

    @property
    def lines(self) -> bytes:
        """The same as they are sent."""
        ...

    def settle(self, tokens: int, cost_microusd: int) -> None:
        """
        End the hold: so much was really used. Later calls are ignored.

        A request that used nothing settles (0, 0) and has its tokens and money back; it stays counted as a
        request.
        """
        ...


class Limiter(Protocol):
    """Counts for one event loop."""

    async def start(self) -> None:
        """Begin to keep in touch with the store; does not fail when it cannot be reached."""
        ...

    async def admit(self, subjects: Sequence[Subject], tokens: int, cost_microusd: int) -> Hold:
        """
        Reserve one request of so many tokens and so much money for all of *subjects*, each named once.

        Raises:
            RateLimited, BudgetExhausted: a limit is reached; nothing was reserved.
            LimitsUnavailable: the store cannot be reached and policy says closed.
        """
        ...

    def admit_now(self, subjects: Sequence[Subject], tokens: int, cost_microusd: int) -> Hold | None:
        """`admit` without waiting; None, and nothing was reserved, where something must be waited for."""
        ...

    async def close(self) -> None:
        """Deliver what is settled, and give back what this process still holds."""
        ...

    def status(self) -> dict[str, Any]:
        """`store` (memory, redis), `reachable`, and counts, for health and gauges."""
        ...


def open_limiter(url: str, down: Literal["open", "closed"], spent: Spent, clock: Clock) -> Limiter:
    """
    A limiter that counts in the Redis or Valkey at *url*, or in this process where it is empty.

    Raises:
        BadSettings: *url* is no address of such a store.
        MissingExtra: the client for it is not installed.
    """
    if not url:
        from gateway.dataplane.limits_memory import MemoryLimiter

        return MemoryLimiter(spent, clock)
    from gateway.dataplane.limits_shared import SharedLimiter

    return SharedLimiter(url, down, spent, clock)


def estimate(body_bytes: int, max_tokens: int | None, n: int, default_max_tokens: int) -> tuple[int, int]:
    """
    (prompt, completion) tokens to reserve, before anybody has counted them.

    A token for every four bytes of the text, rounded up, at least one; and for each of *n* choices as many
    as the request allows, or else *default_max_tokens*.

    >>> estimate(4001, None, 2, 1024)
    (1001, 2048)
    """
    completion = default_max_tokens if max_tokens is None else max_tokens
    return max(1, -(-body_bytes // 4)), n * completion


class Unlimited:
    """The hold of a request that nothing limits."""

    __slots__ = ()

    headers: Headers = ()
    lines: bytes = b""

    def settle(self, tokens: int, cost_microusd: int) -> None:
        """Nothing was reserved."""
