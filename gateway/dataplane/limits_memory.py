"""Limits counted in this process."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal

from gateway.dataplane.limits import WINDOW, Hold, Spent, Unlimited
from gateway.dataplane.limits_terms import Calendar, Rule, rate_headers, rate_lines, refusal
from gateway.dataplane.table import Headers, Subject
from gateway.errors import RateLimited
from registry.clock import Clock
from registry.entities import BudgetPeriod

_RESET_MS = WINDOW * 1000
"""When all that was counted is forgotten; up to a second sooner."""
_Rates = tuple[int | None, int, int | None, int]
"""rpm and how many requests are left, tpm and how many tokens are left, each of the tightest subject."""


class _State:
    """What is known of one subject."""

    __slots__ = (
        "asked", "cells", "held", "held_microusd", "loading", "period", "requests", "spent", "start",
        "tokens", "touched",
    )  # fmt: skip

    def __init__(self, slot: int) -> None:
        self.cells: deque[list[int]] = deque()
        """[slot, requests, tokens] of each second in which there was one, oldest first."""
        self.requests = 0
        self.tokens = 0
        self.held = 0
        self.held_microusd = 0
        self.period: BudgetPeriod | Literal[""] = ""
        """Empty while the money spent is not known."""
        self.start = ""
        self.spent = 0
        self.loading: asyncio.Future[int] | None = None
        self.touched = slot
        self.asked = slot
        """The slot of the last request; what is out of its window was forgotten then."""

    def forget(self, slot: int) -> None:
        """Drop what is out of every window that *slot* is in."""
        cells = self.cells
        while cells and cells[0][0] <= slot - WINDOW:
            _, requests, tokens = cells.popleft()
            self.requests -= requests
            self.tokens -= tokens

    def count(self, slot: int, requests: int, tokens: int) -> list[int]:
        """Add to *slot*, the newest, and return its cell."""
        self.requests += requests
        self.tokens += tokens
        self.touched = slot
        cells = self.cells
        if cells and cells[-1][0] == slot:
            cell = cells[-1]
            cell[1] += requests
            cell[2] += tokens
        else:
            cell = [slot, requests, tokens]
            cells.append(cell)
        return cell

    def knows_money(self, period: BudgetPeriod, start: str) -> bool:
        """Whether `spent` is that of this period; a later one of the same kind begins with nothing."""
        if self.period != period or start < self.start:
            return False
        if start > self.start:
            self.start = start
            self.spent = 0
        return True

    def wait_s(self, excess: int, column: int) -> int:
        """The slot in which so many requests (column 1) or tokens (2) have been forgotten."""
        for cell in self.cells:
            excess -= cell[column]
            if excess <= 0:
                return cell[0] + WINDOW
        return self.cells[-1][0] + WINDOW if self.cells else 0


class _MemoryHold:
    __slots__ = ("_cost", "_limiter", "_parts", "_rates", "_tokens")

    def __init__(
        self, limiter: MemoryLimiter, parts: list[tuple[_State, list[int]]], tokens: int, cost: int,
        rates: _Rates,
    ) -> None:  # fmt: skip
        self._limiter = limiter
        self._parts = parts
        self._tokens = tokens
        self._cost = cost
        self._rates = rates

    @property
    def headers(self) -> Headers:
        return rate_headers(*self._rates, _RESET_MS)

    @property
    def lines(self) -> bytes:
        return rate_lines(*self._rates)

    def settle(self, tokens: int, cost_microusd: int) -> None:
        parts = self._parts
        if parts:
            self._parts = []
            self._limiter.settle(parts, self._tokens, self._cost, tokens, cost_microusd)


class MemoryLimiter:
    """
    Counts in this process. `admit` suspends only while a subject's opening balance is looked up.

    Keeps at most *max_subjects*, unless more have unsettled holds: those not seen for a window go first,
    then the least recently used, whose requests and tokens of the last minute are then forgotten, not
    their money.
    """

    def __init__(
        self,
        spent: Spent,
        clock: Clock,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        max_subjects: int = 100_000,
    ) -> None:
        """*clock* decides the periods of budgets, *monotonic* the windows of rates."""
        self._spent = spent
        self._calendar = Calendar(clock)
        self._monotonic = monotonic
        self._max_subjects = max(16, max_subjects)
        self._states: OrderedDict[tuple[str, str], _State] = OrderedDict()

    async def start(self) -> None:
        """Nothing to do."""

    async def close(self) -> None:
        """Nothing to do."""

    def status(self) -> dict[str, Any]:
        """`store` memory, always `reachable`; `subjects` is how many are remembered."""
        return {"store": "memory", "reachable": True, "subjects": len(self._states)}

    async def admit(self, subjects: Sequence[Subject], tokens: int, cost_microusd: int) -> Hold:
        """See Limiter."""
        while (hold := self.admit_now(subjects, tokens, cost_microusd)) is None:
            await self._open_next(subjects)
        return hold

    def admit_now(self, subjects: Sequence[Subject], tokens: int, cost_microusd: int) -> Hold | None:
        """See Limiter. None where what was spent before has to be looked up."""
        if not subjects:
            return Unlimited()
        states = self._states
        now_s = self._monotonic()
        slot = int(now_s)
        rpm = tpm = None
        requests_left = tokens_left = 0
        starts: dict[BudgetPeriod, str] | None = None
        found: list[_State] = []
        for subject in subjects:
            key = (subject.kind, subject.id)
            state = states.get(key)
            if state is None:
                state = self._remember(key, slot)
            else:
                states.move_to_end(key)
                if state.asked != slot:
                    state.asked = state.touched = slot
                    state.forget(slot)
            limits = subject.limits
            most = limits.rpm
            if most is not None:
                left = most - state.requests - 1
                if left < 0:
                    raise self._refusal(subject, state, "rpm", 1, now_s)
                if rpm is None or left < requests_left:
                    rpm, requests_left = most, left
            most = limits.tpm
            if most is not None:
                left = most - state.tokens - tokens
                if left < 0:
                    raise self._refusal(subject, state, "tpm", tokens, now_s)
                if tpm is None or left < tokens_left:
                    tpm, tokens_left = most, left
            most = limits.concurrency
            if most is not None and state.held >= most:
                raise self._refusal(subject, state, "concurrency", 1, now_s)
            most = limits.budget_microusd
            if most is not None:
                if starts is None:
                    starts = self._calendar.now()
                period = limits.budget_period
                if (state.period != period or state.start != starts[period]) and not state.knows_money(
                    period, starts[period]
                ):
                    return None
                if state.spent + state.held_microusd + cost_microusd > most:
                    raise self._refusal(subject, state, "budget", cost_microusd, now_s)
            found.append(state)
        parts = []
        for state in found:
            state.held += 1
            state.held_microusd += cost_microusd
            parts.append((state, state.count(slot, 1, tokens)))
        return _MemoryHold(self, parts, tokens, cost_microusd, (rpm, requests_left, tpm, tokens_left))

    def settle(
        self, parts: list[tuple[_State, list[int]]], reserved: int, reserved_microusd: int,
        tokens: int, cost_microusd: int,
    ) -> None:  # fmt: skip
        """End a hold; what holds do when they are settled."""
        slot = int(self._monotonic())
        refund = reserved - tokens
        starts = self._calendar.now() if cost_microusd else {}
        for state, cell in parts:
            state.held -= 1
            state.held_microusd -= reserved_microusd
            if refund > 0:
                if cell[0] > slot - WINDOW:
                    cell[2] -= refund
                    state.tokens -= refund
            elif refund < 0:
                state.count(slot, 0, -refund)
            state.touched = slot
            if cost_microusd:
                if state.period:
                    state.knows_money(state.period, starts[state.period])
                state.spent += cost_microusd

    def _refusal(self, subject: Subject, state: _State, rule: Rule, asked: int, now_s: float) -> RateLimited:
        limits = subject.limits
        state.forget(int(now_s))
        wait_ms = used = 0
        if rule == "rpm" and limits.rpm is not None:
            used = state.requests
            wait_ms = _until(state.wait_s(used + 1 - limits.rpm, 1), now_s)
        elif rule == "tpm" and limits.tpm is not None:
            used = state.tokens
            wait_ms = _until(state.wait_s(used + asked - limits.tpm, 2), now_s)
        elif rule == "concurrency":
            used = state.held
        elif rule == "budget":
            used = state.spent + state.held_microusd
        headers = rate_headers(
            limits.rpm,
            (limits.rpm or 0) - state.requests,
            limits.tpm,
            (limits.tpm or 0) - state.tokens,
            _until(state.cells[-1][0] + WINDOW, now_s) if state.cells else 0,
        )
        return refusal(
            subject, rule, used=used, asked=asked, wait_ms=wait_ms, headers=headers, calendar=self._calendar
        )

    async def _open_next(self, subjects: Sequence[Subject]) -> None:
        """Look up the money of the first of *subjects* whose money is not known."""
        starts = self._calendar.now()
        for subject in subjects:
            limits = subject.limits
            state = self._states.get((subject.kind, subject.id))
            if state is None:
                return
            period = limits.budget_period
            if limits.budget_microusd is not None and not state.knows_money(period, starts[period]):
                await self._open(subject, state)
                return

    async def _open(self, subject: Subject, state: _State) -> None:
        """Look up what was spent before this process knew the subject; once for all who ask meanwhile."""
        period = subject.limits.budget_period
        start = self._calendar.now()[period]
        if state.loading is None:
            found = self._spent(subject, start)
            state.period, state.spent = "", 0
            if isinstance(found, int):
                state.period, state.start, state.spent = period, start, found
                return
            state.loading = asyncio.ensure_future(_result(found))

            def known(loading: asyncio.Future[int]) -> None:
                state.loading = None
                if not loading.cancelled() and loading.exception() is None:
                    # What was settled meanwhile may be in both: too much counted is the safe error.
                    state.period, state.start = period, start
                    state.spent += loading.result()

            state.loading.add_done_callback(known)
        await asyncio.shield(state.loading)

    def _remember(self, key: tuple[str, str], slot: int) -> _State:
        states = self._states
        for _ in range(2):
            if states:
                oldest = next(iter(states))
                state = states[oldest]
                if not state.held and state.loading is None and (
                    state.touched <= slot - WINDOW or len(states) >= self._max_subjects
                ):  # fmt: skip
                    del states[oldest]
                elif state.held and len(states) >= self._max_subjects:
                    states.move_to_end(oldest)
        state = states[key] = _State(slot)
        return state


async def _result(found: Awaitable[int]) -> int:
    return await found


def _until(slot: int, now_s: float) -> int:
    """Milliseconds from *now_s* to the start of *slot*, rounded up, at least 0."""
    return max(0, -int((now_s - slot) * 1000 // 1))
