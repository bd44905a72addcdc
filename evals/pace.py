"""How many calls may be under way at once: more while they succeed, half as many when told to slow down."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Pace:
    """
    Additive increase, multiplicative decrease of concurrency, within one event loop.

    Starts at the most allowed. A 429 halves the allowance, at most once for the calls that were under way
    together; as many successes in a row as the allowance is wide raise it by one.

    Source: Chiu and Jain 1989, Computer Networks and ISDN Systems 17, 1-14.
    """

    def __init__(self, most: int) -> None:
        """Allow at most *most* calls at once, at least 1."""
        self.most = most
        self.allowed = most
        """Calls allowed now."""
        self.running = 0
        self.slowed = 0
        """How often the allowance was cut."""
        self._good = 0
        self._started = 0
        self._cut_at = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[int]:
        """Hold one of the calls allowed; yields a ticket for `slow`."""
        if self._waiting or self.running >= self.allowed:
            await self._turn()
        else:
            self.running += 1
        self._started += 1
        try:
            yield self._started
        finally:
            self._release()

    async def _turn(self) -> None:
        """Wait in line; whoever is woken already counts as running."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():
                self._release()
            elif turn in self._waiting:
                self._waiting.remove(turn)
            raise

    def _release(self) -> None:
        self.running -= 1
        self._wake()

    def good(self) -> None:
        """A call succeeded."""
        self._good += 1
        if self._good >= self.allowed and self.allowed < self.most:
            self.allowed += 1
            self._good = 0
            self._wake()

    def slow(self, ticket: int) -> None:
        """The call with *ticket* was told to slow down."""
        self._good = 0
        if ticket > self._cut_at:
            self.allowed = max(1, self.allowed // 2)
            self._cut_at = self._started
            self.slowed += 1

    def _wake(self) -> None:
        while self._waiting and self.running < self.allowed:
            turn = self._waiting.popleft()
            if not turn.cancelled():
                self.running += 1
                turn.set_result(None)
