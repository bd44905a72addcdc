"""The circuit breaker: its laws against a plain model, and the faults that breakers are known for."""

from __future__ import annotations

import asyncio

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from gateway.dataplane.breaker import REFUSED, Breaker

THRESHOLD, OPEN_S = 3, 60.0


class BreakerLaws(RuleBasedStateMachine):
    """The same told plainly. Every request under way knows in which period between two changes it began."""

    under_way = Bundle("under_way")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker(THRESHOLD, OPEN_S)
        self.now_s = 1000.0
        self.period = 0
        self.tripped_s: float | None = None
        self.failures_in_a_row = 0
        self.is_probed = False
        self.cool_until_s = 0.0

    def expected_state(self) -> str:
        until_s = self.cool_until_s if self.tripped_s is None else self.tripped_s + OPEN_S
        if self.now_s < until_s:
            return "open"
        return "closed" if self.tripped_s is None else "half_open"

    @rule(target=under_way)
    def ask(self) -> object:
        state = self.expected_state()
        passes = state == "closed" or (state == "half_open" and not self.is_probed)
        assert self.breaker.would_allow(self.now_s) == passes
        ticket = self.breaker.allow(self.now_s)
        assert (ticket != REFUSED) == passes
        if not passes:
            return multiple()
        self.is_probed = state == "half_open"
        return self.period, ticket

    @rule(request=consumes(under_way))
    def succeed(self, request: tuple[int, int]) -> None:
        period, ticket = request
        self.breaker.succeeded(ticket)
        if period == self.period:
            self.failures_in_a_row = 0
            if self.tripped_s is not None:
                self.change(None)

    @rule(request=consumes(under_way))
    def fail(self, request: tuple[int, int]) -> None:
        period, ticket = request
        self.breaker.failed(ticket, self.now_s)
        if period == self.period:
            self.failures_in_a_row += 1
            if self.tripped_s is not None or self.failures_in_a_row == THRESHOLD:
                self.change(self.now_s)

    @rule(request=consumes(under_way))
    def give_up(self, request: tuple[int, int]) -> None:
        period, ticket = request
        self.breaker.released(ticket)
        if period == self.period:
            self.is_probed = False

    def change(self, tripped_s: float | None) -> None:
        self.tripped_s = tripped_s
        self.is_probed = False
        self.failures_in_a_row = 0
        self.period += 1

    @rule(seconds=st.sampled_from([0.5, 10.0, 59.5, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now_s += seconds

    @rule(seconds=st.sampled_from([0.5, 5.0]))
    def cool(self, seconds: float) -> None:
        self.breaker.cool(self.now_s + seconds)
        self.cool_until_s = max(self.cool_until_s, self.now_s + seconds)

    @invariant()
    def its_state_needs_no_traffic(self) -> None:
        assert self.breaker.state(self.now_s) == self.expected_state()
        assert (self.breaker.wait_s(self.now_s) > 0) == (self.expected_state() == "open")


TestBreakerLaws = BreakerLaws.TestCase
TestBreakerLaws.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def tripped(failures: int = 5, open_s: float = 60.0) -> Breaker:
    """A breaker that opened at 0."""
    breaker = Breaker(failures, open_s)
    for _ in range(failures):
        breaker.failed(breaker.allow(0.0), 0.0)
    return breaker


def test_five_failures_in_a_row_open_it_for_sixty_seconds() -> None:
    breaker = Breaker()
    for _ in range(4):
        breaker.failed(breaker.allow(0.0), 0.0)
    assert breaker.state(0.0) == "closed"
    breaker.failed(breaker.allow(0.0), 0.0)
    assert [(s, breaker.state(s), breaker.wait_s(s)) for s in (0.0, 59.5, 60.0)] == [
        (0.0, "open", 60.0),
        (59.5, "open", 0.5),
        (60.0, "half_open", 0.0),
    ]


def test_five_failures_with_a_success_between_open_nothing() -> None:
    breaker = Breaker()
    for result in "ffffsffff":
        ticket = breaker.allow(0.0)
        if result == "s":
            breaker.succeeded(ticket)
        else:
            breaker.failed(ticket, 0.0)
    assert breaker.state(0.0) == "closed"


def test_of_a_hundred_concurrent_callers_one_probes() -> None:
    breaker = tripped()

    async def call(answered: asyncio.Event) -> int:
        ticket = breaker.allow(60.0)
        if ticket != REFUSED:
            await answered.wait()
            breaker.succeeded(ticket)
        return ticket

    async def all_call() -> list[int]:
        answered = asyncio.Event()
        calls = [asyncio.create_task(call(answered)) for _ in range(100)]
        await asyncio.sleep(0)
        answered.set()
        return await asyncio.gather(*calls)

    tickets = asyncio.run(all_call())
    assert sum(ticket != REFUSED for ticket in tickets) == 1
    assert breaker.state(60.0) == "closed"


def test_a_cancelled_probe_frees_its_place() -> None:
    breaker = tripped()
    first = breaker.allow(60.0)
    assert breaker.allow(60.0) == REFUSED
    breaker.released(first)
    assert breaker.state(60.0) == "half_open"
    breaker.succeeded(breaker.allow(60.0))
    assert breaker.state(60.0) == "closed"


def test_a_failed_probe_opens_it_for_the_whole_time_again() -> None:
    breaker = tripped()
    breaker.failed(breaker.allow(70.0), 71.0)
    assert (breaker.state(130.9), breaker.state(131.0)) == ("open", "half_open")


def test_results_from_before_the_trip_neither_close_nor_prolong_it() -> None:
    breaker = Breaker(1, 60.0)
    slow, late, fast = (breaker.allow(0.0) for _ in range(3))
    breaker.failed(fast, 0.0)
    breaker.succeeded(slow)
    breaker.failed(late, 30.0)
    assert (breaker.state(59.0), breaker.state(60.0)) == ("open", "half_open")


def test_a_late_result_does_not_free_the_probe_of_another() -> None:
    breaker = Breaker(1, 60.0)
    late, fast = breaker.allow(0.0), breaker.allow(0.0)
    breaker.failed(fast, 0.0)
    assert breaker.allow(60.0) != REFUSED
    breaker.released(late)
    assert breaker.allow(60.0) == REFUSED


def test_one_that_asked_for_a_pause_is_left_alone_that_long_and_no_longer() -> None:
    breaker = Breaker()
    breaker.cool(7.0)
    breaker.cool(3.0)
    assert [breaker.would_allow(s) for s in (0.0, 6.9, 7.0)] == [False, False, True]
    assert breaker.state(6.9) == "open"
    breaker.succeeded(breaker.allow(7.0))
    assert breaker.state(7.0) == "closed"
