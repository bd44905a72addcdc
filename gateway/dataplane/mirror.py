"""
Shadows: releases that are asked what users asked, beside and after their requests, and answer nobody.

A request is copied when its own answer is whole, as its guardrails left it, and cleaned of personal data and
secrets once more. At most a few copies are under way and some more wait; others are dropped and counted. A
shadow has its own connections, breakers, threads and budget, so it can hang or fail by itself. A tool call in
its answer is carried out by nobody.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import msgspec

from gateway.dataplane.answer import refusal
from gateway.dataplane.augment import augment
from gateway.dataplane.exchange import Exchange
from gateway.dataplane.fit import fitted
from gateway.dataplane.limits import Hold, Limiter, estimate
from gateway.dataplane.request import Body, encode, field, raw
from gateway.dataplane.screen import screen_answer, screen_body
from gateway.dataplane.stream import note_answer
from gateway.dataplane.table import Mirror, Prices, Route
from gateway.dataplane.usage import UsageRecord
from gateway.dataplane.work import Work
from gateway.errors import (
    BudgetExhausted,
    CircuitOpen,
    LimitsUnavailable,
    NotReady,
    Overloaded,
    PriceUnknown,
    UpstreamError,
    UpstreamTooLarge,
)
from gateway.guardrails.policy import TextScreen, compile_policy
from gateway.providers.base import Call
from registry.clock import Clock, to_text
from registry.entities import GuardrailPolicy, GuardrailRule
from registry.errors import PlatformError
from registry.ids import SortableIds

_CHAT = "/v1/chat/completions"
_ABOUT_PEOPLE = ("user", "safety_identifier", "prompt_cache_key", "metadata", "store")
_DROPPED = (BudgetExhausted, LimitsUnavailable, PriceUnknown, Overloaded)
"""Errors by which a copy was never sent."""
_MOST_BYTES = 16_000_000
_DEFAULT_TOKENS = 1024
_NUMBER = msgspec.json.Decoder(int | None)
_log = logging.getLogger(__name__)


class Notes(Protocol):
    """Where what shadows did is counted."""

    def note(self, record: UsageRecord, outcome: str) -> None:
        """One copy: `ok`, `error`, or `dropped`."""
        ...

    def agreed(self, release: str, alias: str, *, same: int, different: int) -> None:
        """Predictions of a shadow that were, and were not, what the user got."""
        ...


@dataclass(slots=True)
class _Copy:
    """A request to ask a shadow."""

    mirror: Mirror
    asked: Any
    """A body, or rows and the labels that the user got."""
    is_translated: bool
    """Whether a body was asked in another dialect than that of chat completions."""
    prices: Prices
    record: UsageRecord
    hold: Hold | None = None


class Mirrors:
    """All shadows of one process. Owned by one event loop."""

    def __init__(
        self,
        work: Work,
        limiter: Limiter,
        keep: Callable[[UsageRecord], None],
        notes: Notes,
        clock: Clock,
        *,
        total_s: float = 120.0,
        at_once: int = 8,
        waiting: int = 64,
    ) -> None:
        """
        *work* is the shadows' own; *keep* is told of every copy that used something.

        Args:
            total_s: when a copy is given up.
            at_once: copies under way.
            waiting: copies that wait; further ones are dropped.
        """
        self._work = work
        self._limiter = limiter
        self._keep = keep
        self._notes = notes
        self._clock = clock
        self._total_s = total_s
        self._room = at_once
        self._most = waiting
        self._copies: deque[_Copy] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ids = SortableIds("shd")

    def offer(self, exchange: Exchange) -> None:
        """
        A request that has a shadow was answered. Returns at once and raises nothing.

        A share of the requests as large as the mirror's rate is copied; those that failed never are.
        """
        try:
            self._offer(exchange)
        except Exception:  # noqa: BLE001 - a shadow's trouble is nobody else's
            _log.exception("a request could not be copied for its shadow")

    async def close(self) -> None:
        """Give up every copy. Idempotent."""
        self._most = self._room = 0
        while self._copies:
            self._left(self._copies.popleft())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _offer(self, exchange: Exchange) -> None:
        target = exchange.target
        asked, exchange.mirrored = exchange.mirrored, None
        if target is None or target.mirror is None or exchange.record.error or exchange.record.replayed:
            return
        mirror = target.mirror
        if mirror.rate < 1 and random.random() >= mirror.rate:
            return
        now = self._clock()
        shadow = mirror.target
        record = UsageRecord(
            self._ids.next(now.timestamp()), to_text(now), "shadow", shadow.route.name, shadow.alias,
            shadow.route.digest, shadow.arm, key_id="shadow", account=mirror.account,
        )  # fmt: skip
        if len(self._copies) >= self._most:
            record.error = "overloaded"
            self._notes.note(record, "dropped")
            return
        shadow.route.in_flight.count += 1
        self._copies.append(_Copy(mirror, asked, exchange.dialect is not None, exchange.table.prices, record))
        if self._room > 0:
            self._room -= 1
            task = asyncio.get_running_loop().create_task(self._run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self) -> None:
        """Ask until nothing waits."""
        try:
            while self._copies:
                await self._ask(self._copies.popleft())
        finally:
            self._room += 1

    async def _ask(self, copy: _Copy) -> None:
        record, began_s = copy.record, time.perf_counter()
        outcome = "error"
        try:
            async with asyncio.timeout(self._total_s):
                route = copy.mirror.target.ready()
                if route.kind == "prediction":
                    await self._predict(copy, route)
                else:
                    await self._complete(copy, route)
            outcome, record.status = "ok", 200
        except _DROPPED as error:
            outcome, record.error = "dropped", error.code
        except PlatformError as error:
            record.error = error.code
        except TimeoutError:
            record.error = "upstream_timeout"
        except Exception:  # noqa: BLE001 - a shadow's trouble is nobody else's
            _log.exception("the shadow of %s failed", record.release)
            record.error = "internal_error"
        finally:
            record.duration_s = time.perf_counter() - began_s
            self._left(copy)
        if record.attempts or record.rows:
            self._keep(record)
        self._notes.note(record, outcome)

    async def _complete(self, copy: _Copy, route: Route) -> None:
        record, body = copy.record, _copied(copy.asked)
        redact = await self._work.run(_redaction)
        body = await screen_body(redact, body, self._work, record.findings)
        if route.input is not None:
            body = await screen_body(route.input, body, self._work, record.findings)
        augmented = await augment(route, body, self._work)
        if route.balance is None:
            raise NotReady
        plan = route.balance.plan()
        sent = encode(augmented.body)
        await self._reserve(copy, route, augmented.body, len(sent))
        pick = plan.next()
        if pick is None:
            message = f"the shadow of {record.release} is left alone: its upstream failed"
            raise CircuitOpen(message)
        record.attempts, record.model, record.upstream = 1, pick.model_name, pick.name
        try:
            known = fitted(augmented.body, pick.model_name, translated=copy.is_translated)
            data = encode({**known, "model": pick.model_json})
            call = Call(_CHAT, data, stream=False, question=augmented.question, grounds=augmented.grounds)
            answer = await _read(pick.provider, call)
            note_answer(record, answer, -(-len(sent) // 4))
        except UpstreamError as error:
            plan.failed(error)
            raise
        except BaseException:
            plan.left()
            raise
        plan.succeeded()
        price = (route.prices or copy.prices).of(record.model, self._clock())
        if price is not None:
            cached = min(record.cached_tokens, record.prompt_tokens)
            record.cost_microusd = price.cost_microusd(record.prompt_tokens, record.completion_tokens, cached)
        if route.output is not None:
            await self._work.run(screen_answer, route.output, answer, record.findings)

    async def _reserve(self, copy: _Copy, route: Route, body: Body, size: int) -> None:
        """
        Reserve what the copy may cost, where the shadow's spending is bounded.

        Raises:
            BudgetExhausted, LimitsUnavailable: its budget is spent, or cannot be counted.
            PriceUnknown: it has a budget and its model no price.
        """
        if not copy.mirror.subjects:
            return
        assert route.balance is not None  # noqa: S101 - the caller has looked
        model = route.balance.model_name
        price = (route.prices or copy.prices).of(model, self._clock())
        if price is None:
            message = f"{model[:200]!r} has no price, and a shadow's budget counts money"
            raise PriceUnknown(message)
        most = field(body, "max_completion_tokens", _NUMBER) or field(body, "max_tokens", _NUMBER)
        prompt, completion = estimate(size, most, 1, _DEFAULT_TOKENS)
        cost = price.cost_microusd(prompt, completion)
        copy.hold = await self._limiter.admit(copy.mirror.subjects, prompt + completion, cost)

    async def _predict(self, copy: _Copy, route: Route) -> None:
        rows: Sequence[Mapping[str, object]]
        rows, labels = copy.asked
        if route.predictor is None:
            raise NotReady
        record, began_s = copy.record, time.perf_counter()
        predictions = await self._work.run(route.predictor.predict, rows)
        record.predict_s, record.rows = time.perf_counter() - began_s, len(rows)
        same = sum(a == b for a, b in zip(labels, predictions.labels, strict=True))
        self._notes.agreed(record.release, record.alias, same=same, different=len(rows) - same)

    def _left(self, copy: _Copy) -> None:
        copy.mirror.target.route.in_flight.count -= 1
        if copy.hold is not None:
            record = copy.record
            copy.hold.settle(record.prompt_tokens + record.completion_tokens, record.cost_microusd or 0)


def _copied(body: Body) -> Body:
    """*body* for a whole answer, without what says who asked."""
    left_out = {*_ABOUT_PEOPLE, "stream", "stream_options"}
    kept = {name: value for name, value in body.items() if name not in left_out}
    return {**kept, "stream": raw(value=False)}


async def _read(provider: Any, call: Call) -> bytes:  # noqa: ANN401 - see Provider
    """
    The whole answer.

    Raises:
        UpstreamError: there was none, an error, or too much of one.
    """
    reply = await provider.open(call)
    try:
        if not 200 <= reply.status < 300:
            raise await refusal(reply)
        answer = bytearray()
        async for chunk in reply.chunks():
            answer += chunk
            if len(answer) > _MOST_BYTES:
                raise UpstreamTooLarge
    finally:
        await reply.close()
    return bytes(answer)


@cache
def _redaction() -> TextScreen:
    """What cleans every copy, whatever the policies of both releases say. Made once for the process."""
    rules = tuple(GuardrailRule(name, "input", "redact") for name in ("secrets", "pii"))
    screen = compile_policy(GuardrailPolicy(rules)).input
    assert screen is not None  # noqa: S101 - it has rules
    return screen
