"""
Which upstream answers a request, and what is tried when it cannot.

A route has tiers of upstreams: first its own model at every place that serves it, then its fallbacks.
Within a tier the place with the fewest running requests for its weight is asked; among equals turns are
taken by weight. Where a tier is affine, the beginning of the prompt chooses among places that are not too
busy (see `affinity`). A call that failed before its answer began may be repeated: elsewhere at once, at the
same place after a pause, while the upstream's retry budget lasts; then the next tier is asked.

Turns are those of start-time fair queueing: P. Goyal, H. Vin, H. Cheng, "Start-time Fair Queueing",
SIGCOMM 1996. A place that was left alone for a while does not catch up on the turns it missed.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Sequence
from time import monotonic

from gateway.dataplane.affinity import Affinity
from gateway.dataplane.breaker import REFUSED, Breaker, State
from gateway.dataplane.request import raw
from gateway.errors import (
    GatewayError,
    NotReady,
    Overloaded,
    UpstreamBroken,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.providers.base import Provider

_BASE_PAUSE_S, _MOST_PAUSE_S = 0.05, 2.0
_MOST_RETRY_AFTER_S = 5.0
"""A longer wish to be left alone is granted, and somebody else asked."""
_MOST_COOL_S = 60.0
"""However long an upstream wishes to be left alone, it is asked again after this."""
_WINDOW_S = 10
_FREE_RETRIES = 10
_RETRIABLE = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})
_CREDENTIALS = frozenset({401, 403})
_KEY_REFUSED, _TOO_MANY = 401, 429
_NEVER_BEGAN = (Overloaded, NotReady)
"""What a provider inside this gateway says when it has no room; no fault of the model."""


class RetryBudget:
    """Retries within the last ten seconds: a share of the requests, and ten in any case."""

    __slots__ = ("_ratio", "_slots")

    def __init__(self, ratio: float) -> None:
        """*ratio* is the share."""
        self._ratio = ratio
        self._slots: deque[list[int]] = deque()

    def count(self, now_s: float) -> None:
        """A request was sent."""
        self._slot(int(now_s))[1] += 1

    def spend(self, now_s: float) -> bool:
        """Whether one more retry is within the budget; if so it is counted."""
        slot = self._slot(int(now_s))
        requests = sum(slot[1] for slot in self._slots)
        retries = sum(slot[2] for slot in self._slots)
        if retries >= max(_FREE_RETRIES, requests * self._ratio):
            return False
        slot[2] += 1
        return True

    def _slot(self, second: int) -> list[int]:
        slots = self._slots
        if not slots or slots[-1][0] != second:
            slots.append([second, 0, 0])
            while slots[0][0] <= second - _WINDOW_S:
                slots.popleft()
        return slots[-1]


class Upstream:
    """One place that serves one model. Owned by one event loop; shared by all routes that use it."""

    __slots__ = (
        "backup", "breaker", "budget", "in_flight", "keeps_nothing", "model", "model_json", "model_name",
        "name", "pace", "provider", "turn", "weight",
    )  # fmt: skip

    def __init__(
        self, name: str, provider: Provider, model: str, model_name: str, *, weight: float = 1.0,
        breaker: Breaker | None = None, retry_ratio: float = 0.2, keeps_nothing: bool = False,
    ) -> None:  # fmt: skip
        """
        *name* is a bounded label such as `vllm#2`; *model* is what it calls the model, *model_name* what
        prices and records do: `provider/model`. *weight* is its share of its tier's requests.
        """
        self.name = name
        self.provider = provider
        self.model = model
        self.model_json = raw(model)
        self.model_name = model_name
        self.weight = weight
        self.backup = weight == 0
        """Whether it is asked only when the others of its tier cannot be."""
        self.pace = 1 / weight if weight else 1.0
        self.turn = 0.0
        """When it is due again, in the virtual time of its tier."""
        self.breaker = breaker or Breaker()
        self.budget = RetryBudget(retry_ratio)
        self.in_flight = 0
        self.keeps_nothing = keeps_nothing
        """Whether who runs it keeps nothing of requests."""

    def state(self) -> State:
        """Its breaker's state now."""
        return self.breaker.state(monotonic())


class Balance:
    """The upstreams of one route."""

    __slots__ = ("_affine", "_now", "is_affine", "max_retries", "model_name", "tiers", "total_s")

    def __init__(
        self, tiers: Sequence[Sequence[Upstream]], *, max_retries: int = 2, total_s: float = 600.0,
        affine: Sequence[bool] = (),
    ) -> None:  # fmt: skip
        """
        *tiers* are asked in order and none is empty.

        Args:
            max_retries: further calls within the tiers, fallbacks not counted.
            total_s: no call begins when so much time has passed since the first.
            affine: for each tier, whether the beginning of a prompt chooses the place; by default in none.
        """
        self.tiers = tuple(tuple(tier) for tier in tiers)
        self.max_retries = max_retries
        self.total_s = total_s
        self.model_name = self.tiers[0][0].model_name
        self._now = 0.0
        self._affine = [
            _affinity(tier) if at < len(affine) and affine[at] else None for at, tier in enumerate(self.tiers)
        ]
        self.is_affine = any(one is not None for one in self._affine)
        """Whether a plan is better for knowing the key of the prompt's beginning."""

    def plan(self, key: int | None = None) -> Plan:
        """The tries of one request; *key* is that of its prompt's beginning, where there is one."""
        return Plan(self, key)

    def upstreams(self) -> list[Upstream]:
        """All of them, first tier first."""
        return [upstream for tier in self.tiers for upstream in tier]

    def available(self) -> bool:
        """Whether any may be asked now."""
        return self.wait_s() == 0

    def wait_s(self) -> float:
        """Seconds until any may be asked again; 0 when one may be now."""
        now_s = monotonic()
        return min(upstream.breaker.wait_s(now_s) for upstream in self.upstreams())

    def pick(
        self, tier: int, avoid: Upstream | None, now_s: float, key: int | None = None
    ) -> tuple[Upstream, int] | None:
        """The upstream of a tier whose turn it is, and its ticket; *avoid* only if no other may be asked."""
        upstreams = self.tiers[tier]
        best = upstreams[0]
        affinity = self._affine[tier] if key is not None and avoid is None else None
        chosen = None
        if affinity is not None and key is not None:
            chosen = affinity.choose(
                key,
                [upstream.in_flight for upstream in upstreams],
                [not upstream.backup and upstream.breaker.would_allow(now_s) for upstream in upstreams],
            )
        if chosen is not None:
            best = upstreams[chosen]
        elif len(upstreams) > 1:
            first: tuple[bool, bool, float, float] | None = None
            for upstream in upstreams:
                if upstream.breaker.would_allow(now_s):
                    due = max(upstream.turn, self._now)
                    rank = (upstream is avoid, upstream.backup, upstream.in_flight * upstream.pace, due)
                    if first is None or rank < first:
                        first, best = rank, upstream
            if first is None:
                return None
            self._now = first[3]
            best.turn = self._now + best.pace
        ticket = best.breaker.allow(now_s)
        return (best, ticket) if ticket != REFUSED else None


class Plan:
    """The tries of one request: `next`, then one of `succeeded`, `failed` and `left`, and so on."""

    __slots__ = ("_avoid", "_balance", "_key", "_pick", "_retries", "_started_s", "_ticket", "_tier")

    def __init__(self, balance: Balance, key: int | None = None) -> None:
        self._balance = balance
        self._key = key
        self._tier = 0
        self._retries = 0
        self._pick: Upstream | None = None
        self._avoid: Upstream | None = None
        self._ticket = REFUSED
        self._started_s = monotonic()

    @property
    def is_fallback(self) -> bool:
        """Whether something other than the route's own model is asked."""
        return self._tier > 0

    def next(self) -> Upstream | None:
        """The upstream to try now, counted as busy; None when none may be tried."""
        now_s = monotonic()
        balance = self._balance
        tiers = len(balance.tiers)
        while self._tier < tiers:
            picked = balance.pick(self._tier, self._avoid, now_s, self._key)
            if picked is not None:
                self._pick, self._ticket = picked
                self._pick.in_flight += 1
                self._pick.budget.count(now_s)
                return self._pick
            self._tier += 1
            self._avoid = None
        return None

    def succeeded(self) -> None:
        """The answer was whole."""
        upstream = self._let_go()
        upstream.breaker.succeeded(self._ticket)

    def left(self) -> None:
        """The request was given up; that says nothing about the upstream."""
        upstream = self._let_go()
        upstream.breaker.released(self._ticket)

    def failed(self, error: GatewayError) -> float | None:
        """
        The call failed. Seconds to wait before `next`, or None when nothing more is to be tried.

        Waiting is exponential with full jitter, as in M. Brooker, "Exponential Backoff and Jitter" (AWS
        Architecture Blog, 2015), on top of an upstream's own `Retry-After` of up to five seconds.
        """
        now_s = monotonic()
        upstream = self._let_go()
        wish_s = self._note(upstream, error, now_s)
        if now_s - self._started_s >= self._balance.total_s:
            return None
        if _may_be_repeated(error):
            pause_s = self._repeat(upstream, wish_s, now_s)
            return self._fall_back() if pause_s is None else pause_s
        refused = isinstance(error, UpstreamRefused) and error.upstream_status in _CREDENTIALS
        return self._fall_back() if refused else None

    def _repeat(self, upstream: Upstream, wish_s: float | None, now_s: float) -> float | None:
        """Seconds until the same tier is asked again; None where it is not."""
        balance = self._balance
        if self._retries >= balance.max_retries:
            return None
        pause_s = 0.0
        tier = balance.tiers[self._tier]
        if not any(other is not upstream and other.breaker.would_allow(now_s) for other in tier):
            pause_s = random.uniform(0.0, min(_MOST_PAUSE_S, _BASE_PAUSE_S * 2**self._retries))
            if wish_s is not None:
                pause_s += wish_s
                if wish_s > _MOST_RETRY_AFTER_S:
                    return None
            if not upstream.breaker.would_allow(now_s + pause_s):
                return None
            if now_s + pause_s - self._started_s >= balance.total_s:
                return None
        if not upstream.budget.spend(now_s):
            return None
        self._retries += 1
        self._avoid = upstream
        return pause_s

    def _note(self, upstream: Upstream, error: GatewayError, now_s: float) -> float | None:
        """Tell the breaker; returns how long the upstream asked to be left alone."""
        breaker = upstream.breaker
        if not isinstance(error, UpstreamRefused):
            if isinstance(error, UpstreamUnreachable | UpstreamTimeout | UpstreamBroken):
                breaker.failed(self._ticket, now_s)
            elif isinstance(error, _NEVER_BEGAN):
                breaker.released(self._ticket)
            else:
                breaker.succeeded(self._ticket)
            return None
        wish_s = _retry_after(error)
        status = error.upstream_status
        if status >= 500 or status == _KEY_REFUSED:
            breaker.failed(self._ticket, now_s)
        else:
            breaker.succeeded(self._ticket)
        if status == _TOO_MANY and wish_s is not None:
            breaker.cool(now_s + min(wish_s, _MOST_COOL_S))
        return wish_s

    def _fall_back(self) -> float | None:
        self._tier += 1
        self._avoid = None
        return 0.0 if self._tier < len(self._balance.tiers) else None

    def _let_go(self) -> Upstream:
        upstream, self._pick = self._pick, None
        assert upstream is not None, "no upstream is being tried"  # noqa: S101
        upstream.in_flight -= 1
        return upstream


def _affinity(tier: Sequence[Upstream]) -> Affinity | None:
    """What chooses within *tier*; None where there is nothing to choose."""
    if len(tier) < 2:
        return None
    return Affinity([upstream.name for upstream in tier], [upstream.weight or 1.0 for upstream in tier])


def _may_be_repeated(error: GatewayError) -> bool:
    if isinstance(error, UpstreamRefused):
        return error.upstream_status in _RETRIABLE
    return isinstance(error, UpstreamUnreachable | UpstreamTimeout | UpstreamBroken | Overloaded | NotReady)


def _retry_after(error: UpstreamRefused) -> float | None:
    """Seconds of `retry-after-ms` or `retry-after`; None where there is neither, or it is a date."""
    for name, unit_s in ((b"retry-after-ms", 0.001), (b"retry-after", 1.0)):
        for key, value in error.headers:
            if key == name:
                try:
                    seconds = float(value) * unit_s
                except ValueError:
                    continue
                if 0 <= seconds < float("inf"):
                    return seconds
    return None
