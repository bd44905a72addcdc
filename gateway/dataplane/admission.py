"""
Whether this process can take another request, asked before anything is spent on it.

Two bounds. `max_in_flight` bounds memory. The other bounds delay: the time one turn of the event loop
takes is what every request waits for, several times. When turns are long because requests arrive faster
than they can be served, the number in flight is lowered in proportion, and raised again step by step.
A burst of a few hundred requests is let in whole. Long turns with few arrivals, such as many streams that
run, are no reason to refuse anybody until they are ten times too long.

Under either bound a tenant that uses less than half of an equal share is let in.

Source: D.-M. Chiu, R. Jain, "Analysis of the increase and decrease algorithms for congestion avoidance",
Computer Networks and ISDN Systems 17 (1989).
"""

from __future__ import annotations

import asyncio
from time import monotonic

from gateway.errors import Overloaded

_ARRIVALS = 8
"""Fewer new requests in one turn are not what made it long."""
_FAR_TOO_LONG = 10.0
_LOOK_EVERY_S = 0.004
"""A turn that is measured is followed by another, which costs as much as a system call."""
_BURST = 256
"""So many may arrive at once after a time that was calm."""
_PAUSE_S = 0.1
"""Without arrivals: what comes after it is another burst."""
_STEP = 1.05
_LEAST = 8
_CALM_S = 1.0


class Admission:
    """Counts what is in flight, for each tenant. Owned by one event loop."""

    __slots__ = (
        "_armed", "_arrivals", "_burst", "_calm_at", "_loop", "_max", "_max_lag_s", "_next_look_s",
        "_tenants", "_turn_began", "in_flight", "lag_s", "limit", "refused",
    )  # fmt: skip

    def __init__(self, max_in_flight: int, max_lag_s: float) -> None:
        """At most *max_in_flight* at once; turns longer than *max_lag_s* are too long."""
        self._max = max_in_flight
        self._max_lag_s = max_lag_s
        self.limit = float(max_in_flight)
        """How many may be in flight now."""
        self.in_flight = 0
        self.refused = 0
        """Requests refused since the start."""
        self.lag_s = 0.0
        """Length of the last measured turn of the event loop."""
        self._tenants: dict[str, int] = {}
        self._armed = False
        self._next_look_s = 0.0
        self._arrivals = 0
        self._turn_began = 0.0
        self._burst = 0
        """Requests since the last turn that was short enough."""
        self._calm_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def enter(self, tenant: str) -> None:
        """
        Take one request of *tenant* in; `leave` lets it go.

        Raises:
            Overloaded: there is no room; nothing was counted.
        """
        self._arrivals += 1
        self._burst += 1
        if not self._armed and (now_s := monotonic()) >= self._next_look_s:
            self._armed = True
            if now_s >= self._next_look_s + _PAUSE_S:
                self._burst = 1
            if self._loop is None:
                self._loop = asyncio.get_running_loop()
            self._loop.call_soon(self._begin_turn)
        mine = self._tenants.get(tenant, 0)
        if self.in_flight >= self.limit and not self._below_share(mine):
            self.refused += 1
            raise Overloaded
        self._tenants[tenant] = mine + 1
        self.in_flight += 1

    def leave(self, tenant: str) -> None:
        """One request of *tenant* ended."""
        self.in_flight -= 1
        left = self._tenants[tenant] - 1
        if left:
            self._tenants[tenant] = left
        else:
            del self._tenants[tenant]

    @property
    def overloaded(self) -> bool:
        """Whether fewer requests are let in than memory would allow."""
        return self.limit < self._max

    def _below_share(self, mine: int) -> bool:
        tenants = len(self._tenants) + (mine == 0)
        return self.in_flight < 2 * self._max and 2 * mine < self.in_flight / tenants

    def _begin_turn(self) -> None:
        self._turn_began = monotonic()
        self._arrivals = 0
        assert self._loop is not None  # noqa: S101 - `enter` has set it
        self._loop.call_soon(self._end_turn)

    def _end_turn(self) -> None:
        self._armed = False
        now_s = monotonic()
        self._next_look_s = now_s + _LOOK_EVERY_S
        self.measured(now_s - self._turn_began, self._arrivals, now_s)

    def measured(self, lag_s: float, arrivals: int, now_s: float) -> None:
        """A turn of the event loop took *lag_s* and brought *arrivals* new requests."""
        self.lag_s = lag_s
        bad = lag_s > self._max_lag_s * (1.0 if arrivals >= _ARRIVALS else _FAR_TOO_LONG)
        if not bad:
            self._burst = 0
            if self.limit < self._max:
                self._recover(now_s)
            return
        if self.limit < self._max or self._burst > _BURST:
            ratio = max(0.5, self._max_lag_s / lag_s)
            self.limit = max(_LEAST, min(self.limit, self.in_flight) * ratio)
            self._calm_at = now_s + _CALM_S

    def _recover(self, now_s: float) -> None:
        if now_s >= self._calm_at:
            # Not all at once: whoever was told to come back in a second comes back together.
            self.limit = min(self._max, self.limit * 2)
            self._calm_at = now_s + _CALM_S
        elif self.in_flight >= 0.8 * self.limit:
            self.limit = min(self._max, self.limit * _STEP + 1)
