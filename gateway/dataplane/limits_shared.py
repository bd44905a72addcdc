"""
Limits counted in a Redis or Valkey, exactly, for all gateways that share it.

One script (`limits.lua`) decides a batch of admissions and settlements at once. What is asked within one
turn of the event loop travels together; while two batches are under way, the next one gathers.

What happens when something breaks:

- A gateway dies: it holds its places in concurrency and budget by a lease, renewed with each batch and
  every third of its length; when that runs out, the places are free again. A gateway that was only paused
  takes a new lease under a new name (an epoch); its old holds still settle tokens and money, once.
- An answer is late: nobody knows whether the hold was made, so it is cancelled by its id, which also stops
  one that is still on its way.
- The store is gone: settlements wait, and are delivered before anything else when it is back. Each is
  applied once, whatever is sent twice.
- The store forgot everything: windows begin anew, and money begins with the balance of the ledger. What is
  delivered afterwards is added, even where the ledger already had it: too much is counted, never too little.

All keys share the hash tag `{limits}`, so that one shard of a cluster holds them; all expire.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import random
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from gateway.dataplane.limits import Hold, Spent, Unlimited
from gateway.dataplane.limits_batch import (
    CANCEL,
    CERTAIN,
    CHARGE,
    LEASES,
    Ask,
    Batch,
    Settlement,
    decoded,
    encoded,
    key_of,
)  # fmt: skip
from gateway.dataplane.limits_client import Client
from gateway.dataplane.limits_terms import Calendar, Rule, rate_headers, refusal
from gateway.dataplane.table import Headers, Subject
from gateway.errors import LimitsUnavailable, RateLimited
from gateway.transport.inbound import lines_of
from registry.clock import Clock
from registry.ids import sortable_id

_log = logging.getLogger(__name__)

_BATCH = 256
_PIPELINED = 2
_MOST_DELAY_S = 2.0
_CLOSING_S = 2.0
_ADMITTED, _REFUSED, _OPENING = 0, 1, 2


class _SharedHold:
    __slots__ = ("_answer", "_ask", "_limiter", "_mode")

    def __init__(self, limiter: SharedLimiter, ask: Ask, mode: int, answer: list[Any] | None) -> None:
        self._limiter = limiter
        self._ask: Ask | None = ask
        self._mode = mode
        self._answer = answer

    @property
    def headers(self) -> Headers:
        ask, answer = self._ask, self._answer
        if ask is None or answer is None:
            return ()
        rpm = tpm = None
        requests_left = tokens_left = 0
        for position, subject in enumerate(ask.subjects):
            limits = subject.limits
            if limits.rpm is not None:
                left = limits.rpm - answer[2 + 2 * position]
                if rpm is None or left < requests_left:
                    rpm, requests_left = limits.rpm, left
            if limits.tpm is not None:
                left = limits.tpm - answer[3 + 2 * position]
                if tpm is None or left < tokens_left:
                    tpm, tokens_left = limits.tpm, left
        return rate_headers(rpm, requests_left, tpm, tokens_left, answer[1])

    @property
    def lines(self) -> bytes:
        return lines_of(self.headers)

    def settle(self, tokens: int, cost_microusd: int) -> None:
        ask = self._ask
        if ask is not None:
            self._ask = None
            self._limiter.settle(ask, self._mode, tokens, cost_microusd)


class SharedLimiter:
    """
    Counts in a store that other gateways share. Owned by one event loop.

    While the store cannot be reached, requests with limits raise LimitsUnavailable (*down* is closed) or
    are let pass and counted afterwards (open); both are decided at once, without trying the store.
    """

    def __init__(
        self,
        url: str,
        down: Literal["open", "closed"],
        spent: Spent,
        clock: Clock,
        *,
        timeout_s: float = 0.25,
        lease_s: float = 15.0,
        max_settlements: int = 100_000,
    ) -> None:
        """
        Count in the store at *url*; nothing is connected before `start`.

        Args:
            timeout_s: for a batch, connecting included.
            lease_s: how long a gateway that died keeps its places.
            max_settlements: how many may wait while the store is gone; the oldest beyond are lost.

        Raises:
            BadSettings: *url* is no address of a Redis or Valkey.
            MissingExtra: the package `redis` is not installed.
        """
        self._client = Client(url, timeout_s, _PIPELINED + 1)
        self._script = Path(__file__).with_name("limits.lua").read_text("utf-8")
        self._digest = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._open = down == "open"
        self._spent = spent
        self._clock = clock
        self._calendar = Calendar(clock)
        self._lease_s = lease_s
        self._max_settlements = max_settlements
        self._epoch = sortable_id("gw", clock())
        self._first = True
        """Whether the store has not yet confirmed the epoch."""
        self._ids = 0
        self._asks: deque[Ask] = deque()
        self._settlements: deque[Settlement] = deque()
        self._lost = 0
        self._scheduled = False
        self._sending: set[asyncio.Task[None]] = set()
        self._up = True
        self._down_since_s = 0.0
        self._wake = asyncio.Event()
        self._beating: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take a lease, and keep it; the store may be unreachable, which is logged."""
        await self._send(Batch(self._epoch, first=True))
        self._beating = asyncio.get_running_loop().create_task(self._beat())

    async def close(self) -> None:
        """Deliver what waits, for at most two seconds, and give the lease back. Idempotent."""
        beating, self._beating = self._beating, None
        if beating is None:
            return
        beating.cancel()
        await asyncio.wait({beating})
        try:
            async with asyncio.timeout(_CLOSING_S):
                while self._up and (self._sending or self._settlements or self._asks):
                    self._flush()
                    if self._sending:
                        await asyncio.wait(self._sending)
                if self._up:
                    await self._client.execute("HDEL", LEASES, self._epoch)
        except (TimeoutError, LimitsUnavailable) as error:
            _log.warning("limits store: could not give the lease back: %s", error)
        self._up = False
        if self._sending:
            for task in self._sending:
                task.cancel()
            await asyncio.wait(self._sending)
        self._give_up_waiting()
        if self._settlements:
            _log.warning("limits store: %d settlements were not delivered", len(self._settlements))
        await self._client.close()

    def status(self) -> dict[str, Any]:
        """`store` redis, whether it is `reachable`, and what happens and waits while it is not."""
        return {
            "store": "redis",
            "reachable": self._up,
            "down": "open" if self._open else "closed",
            "unreachable_s": 0.0 if self._up else round(time.monotonic() - self._down_since_s, 1),
            "waiting_settlements": len(self._settlements),
            "lost_settlements": self._lost,
        }

    async def admit(self, subjects: Sequence[Subject], tokens: int, cost_microusd: int) -> Hold:
        """See Limiter. One round trip, shared with all that is asked in the same moment."""
        if all(subject.limits.unlimited for subject in subjects):
            return Unlimited()
        self._ids += 1
        ask = Ask(str(self._ids), subjects, tokens, cost_microusd)
        while self._up:
            answer = await self._ask(ask)
            if answer is None:
                break
            if answer[0] == _ADMITTED:
                return _SharedHold(self, ask, CERTAIN, answer)
            if answer[0] == _REFUSED:
                raise self._refusal(ask, answer)
            if answer[0] != _OPENING:
                break
            ask.epoch = ""
            for position in answer[1:]:
                ask.openings[position] = await self._opening(subjects[position])
            ask.answer = asyncio.get_running_loop().create_future()
        if self._open:
            return _SharedHold(self, ask, CHARGE, None)
        self._cancel(ask)
        message = "limits cannot be counted now: their store cannot be reached; try again in a moment"
        raise LimitsUnavailable(message)

    def admit_now(self, subjects: Sequence[Subject], tokens: int, cost_microusd: int) -> Hold | None:
        """Only what nothing limits; all else takes a round trip."""
        del tokens, cost_microusd
        return Unlimited() if all(subject.limits.unlimited for subject in subjects) else None

    def settle(self, ask: Ask, mode: int, tokens: int, cost_microusd: int) -> None:
        """Put a hold's settlement in the next batch; what holds do when they are settled."""
        starts = self._calendar.now()
        parts = tuple(
            (key_of(subject), None, None)
            if subject.limits.budget_microusd is None
            else (key_of(subject), subject.limits.budget_period, starts[subject.limits.budget_period])
            for subject in ask.subjects
        )
        if len(self._settlements) >= self._max_settlements:
            self._settlements.popleft()
            if not self._lost:
                _log.error(
                    "limits store: more than %d settlements wait; the oldest are lost", self._max_settlements
                )
            self._lost += 1
            self._renew()  # so that places of holds whose end is never told are not held for ever
        epoch = ask.epoch or self._epoch
        self._settlements.append((epoch, ask.id, mode, ask.tokens, ask.cost, tokens, cost_microusd, parts))
        self._schedule()

    async def _opening(self, subject: Subject) -> tuple[str, int]:
        start = self._calendar.now()[subject.limits.budget_period]
        found = self._spent(subject, start)
        return start, found if isinstance(found, int) else await found

    async def _ask(self, ask: Ask) -> list[Any] | None:
        self._asks.append(ask)
        self._schedule()
        try:
            return await ask.answer
        except asyncio.CancelledError:
            if ask.answer.cancelled():
                self._cancel(ask)
            else:
                answer = ask.answer.result()
                if answer is None:
                    self._cancel(ask)
                elif answer[0] == _ADMITTED:
                    self.settle(ask, CERTAIN, 0, 0)
            raise

    def _cancel(self, ask: Ask) -> None:
        """Undo a hold that may have been made."""
        if ask.epoch:
            self.settle(ask, CANCEL, 0, 0)

    def _refusal(self, ask: Ask, answer: list[Any]) -> RateLimited:
        position, used, wait_ms, requests, tokens, reset_ms = answer[1], *answer[3:]
        rule: Rule = answer[2]
        subject = ask.subjects[position]
        limits = subject.limits
        asked: dict[Rule, int] = {"tpm": ask.tokens, "budget": ask.cost}
        headers = rate_headers(
            limits.rpm, (limits.rpm or 0) - requests, limits.tpm, (limits.tpm or 0) - tokens, reset_ms
        )
        return refusal(
            subject, rule, used=used, asked=asked.get(rule, 1), wait_ms=wait_ms, headers=headers,
            calendar=self._calendar,
        )  # fmt: skip

    def _schedule(self) -> None:
        if not self._scheduled and self._up:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._scheduled = False
        while self._up and (self._settlements or self._asks) and len(self._sending) < _PIPELINED:
            batch = Batch(self._epoch, first=self._first)
            while self._settlements and len(batch.settlements) < _BATCH:
                batch.settlements.append(self._settlements.popleft())
            while self._asks and len(batch.asks) < _BATCH:
                ask = self._asks.popleft()
                if not ask.answer.done():
                    ask.epoch = batch.epoch
                    batch.asks.append(ask)
            task = asyncio.get_running_loop().create_task(self._send(batch))
            self._sending.add(task)
            task.add_done_callback(self._sent)

    def _sent(self, task: asyncio.Task[None]) -> None:
        self._sending.discard(task)
        self._flush()

    async def _send(self, batch: Batch) -> None:
        keys, message = encoded(batch, int(self._lease_s * 1000), self._calendar.now())
        try:
            raw = await self._client.evaluate(self._digest, self._script, keys, message)
        except LimitsUnavailable as error:
            self._failed(batch, error)
        except BaseException:
            self._failed(batch, None)
            raise
        else:
            self._answered(batch, raw)

    def _answered(self, batch: Batch, raw: bytes) -> None:
        stale, answers = decoded(raw)
        if not self._up:
            self._recovered()
        if stale:
            if batch.epoch == self._epoch:
                self._renew()
            for ask in batch.asks:
                ask.epoch = ""
            self._asks.extendleft(reversed(batch.asks))
            self._schedule()
            return
        if batch.epoch == self._epoch:
            self._first = False
        for ask, answer in zip(batch.asks, answers, strict=True):
            if not ask.answer.done():
                ask.answer.set_result(answer)

    def _failed(self, batch: Batch, error: BaseException | None) -> None:
        self._settlements.extendleft(reversed(batch.settlements))
        for ask in batch.asks:
            if not ask.answer.done():
                ask.answer.set_result(None)
        if self._up and error is not None:
            self._up = False
            self._down_since_s = time.monotonic()
            doing = "serving without limits" if self._open else "refusing requests that have limits"
            _log.error("limits store: cannot be reached, %s: %s", doing, error)
            self._give_up_waiting()
            self._wake.set()

    def _give_up_waiting(self) -> None:
        while self._asks:
            ask = self._asks.popleft()
            if not ask.answer.done():
                ask.answer.set_result(None)

    def _recovered(self) -> None:
        self._up = True
        lost, self._lost = self._lost, 0
        away_s = time.monotonic() - self._down_since_s
        _log.warning(
            "limits store: reached again after %.1f s; settlements to deliver: %d, lost: %d",
            away_s, len(self._settlements), lost,
        )  # fmt: skip
        self._schedule()

    def _renew(self) -> None:
        if not self._first:
            self._epoch = sortable_id("gw", self._clock())
            self._first = True

    async def _beat(self) -> None:
        """Keep the lease while the store is there; look for it while it is not."""
        delay_s, tries = self._lease_s / 3, 0
        while True:
            try:
                async with asyncio.timeout(delay_s):
                    await self._wake.wait()
            except TimeoutError:
                await self._send(Batch(self._epoch, first=self._first))
            self._wake.clear()
            if self._up:
                delay_s, tries = self._lease_s / 3, 0
            else:
                tries += 1
                delay_s = min(_MOST_DELAY_S, 0.025 * 2 ** min(tries, 10)) * random.uniform(0.5, 1.0)
