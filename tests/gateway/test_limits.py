from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.limits import Hold, Spent, estimate, open_limiter
from gateway.dataplane.limits_memory import MemoryLimiter
from gateway.dataplane.table import Subject
from gateway.errors import BudgetExhausted, RateLimited
from registry.entities import BudgetPeriod, Limits, SubjectKind
from registry.errors import BadSettings
from tests.fakes.limits_model import Model

T = TypeVar("T")
MONDAY = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


class Times:
    """A wall clock and a monotonic one, both moved by hand."""

    def __init__(self) -> None:
        self.wall = MONDAY
        self.monotonic_s = 1000.0

    def now(self) -> datetime:
        return self.wall

    def monotonic(self) -> float:
        return self.monotonic_s


def nothing_spent(subject: Subject, start: str) -> int:
    return 0


def memory(times: Times, spent: Spent = nothing_spent, max_subjects: int = 100_000) -> MemoryLimiter:
    return MemoryLimiter(spent, times.now, monotonic=times.monotonic, max_subjects=max_subjects)


def now(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that never waits."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    message = "it waited"
    raise AssertionError(message)


def refused(
    limiter: MemoryLimiter, subjects: tuple[Subject, ...], tokens: int = 0, cost: int = 0
) -> RateLimited:
    with pytest.raises(RateLimited) as caught:
        now(limiter.admit(subjects, tokens, cost))
    return caught.value


def key(limits: Limits, kind: SubjectKind = "key", id_: str = "key_1") -> tuple[Subject, ...]:
    return (Subject(kind, id_, limits),)


def test_a_token_for_each_four_bytes_and_the_most_each_choice_may_write() -> None:
    assert estimate(0, 10, 1, 1024) == (1, 10)
    assert estimate(4, None, 3, 1024) == (1, 3072)
    assert estimate(5, 0, 3, 1024) == (2, 0)


def test_exactly_as_many_as_the_limit_are_let_in_of_200_at_once() -> None:
    async def run() -> list[object]:
        limiter = memory(Times())
        subjects = key(Limits(rpm=73))
        return await asyncio.gather(
            *(limiter.admit(subjects, 1, 1) for _ in range(200)), return_exceptions=True
        )

    results = asyncio.run(run())
    assert sum(not isinstance(result, RateLimited) for result in results) == 73


def test_a_refusal_says_which_limit_of_whom_and_when_to_come_back() -> None:
    times = Times()
    limiter = memory(times)
    subjects = key(Limits(rpm=2, tpm=1000))
    times.monotonic_s = 1000.25
    first = now(limiter.admit(subjects, 300, 0))
    times.monotonic_s = 1010.5
    second = now(limiter.admit(subjects, 300, 0))
    assert second.headers == (
        (b"x-ratelimit-limit-requests", b"2"),
        (b"x-ratelimit-remaining-requests", b"0"),
        (b"x-ratelimit-reset-requests", b"1m1s"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"400"),
        (b"x-ratelimit-reset-tokens", b"1m1s"),
    )
    first.settle(100, 0)
    error = refused(limiter, subjects, 100)
    assert (
        error.message
        == "the rpm limit of this key is 2 requests per minute and 2 were made; try again in 50.5s"
    )
    assert (error.code, error.rule) == ("rate_limit_exceeded", "key.rpm")
    assert error.headers == (
        (b"retry-after", b"51"),
        (b"retry-after-ms", b"50500"),
        (b"x-ratelimit-limit-requests", b"2"),
        (b"x-ratelimit-remaining-requests", b"0"),
        (b"x-ratelimit-reset-requests", b"1m0.5s"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"600"),
        (b"x-ratelimit-reset-tokens", b"1m0.5s"),
    )
    times.monotonic_s += 50.499
    refused(limiter, subjects)
    times.monotonic_s += 0.001
    now(limiter.admit(subjects, 0, 0))


def test_tokens_say_how_many_are_used_and_when_there_is_room() -> None:
    times = Times()
    limiter = memory(times)
    subjects = key(Limits(tpm=1000), "team", "blue")
    now(limiter.admit(subjects, 300, 0))
    times.monotonic_s += 20
    now(limiter.admit(subjects, 600, 0))
    error = refused(limiter, subjects, 200)
    assert error.message == (
        "the tpm limit of this team is 1000 tokens per minute, 900 are used and this request needs 200; "
        "try again in 41s"
    )
    assert error.rule == "team.tpm"
    assert error.headers[0] == (b"retry-after", b"41")


def test_a_request_above_the_token_limit_is_told_that_it_can_never_fit() -> None:
    error = refused(memory(Times()), key(Limits(tpm=1000)), 1001)
    assert error.message == (
        "this request is too large: it needs 1001 tokens, prompt and completion, and the tpm limit of this "
        "key is 1000 tokens per minute, so it can never fit; shorten the prompt or lower max_tokens"
    )
    assert error.headers == (
        (b"x-should-retry", b"false"),
        (b"x-ratelimit-limit-tokens", b"1000"),
        (b"x-ratelimit-remaining-tokens", b"1000"),
        (b"x-ratelimit-reset-tokens", b"0s"),
    )


def test_a_place_is_free_when_a_hold_is_settled_and_only_once() -> None:
    limiter = memory(Times())
    subjects = key(Limits(concurrency=2), "user", "u")
    first = now(limiter.admit(subjects, 0, 0))
    now(limiter.admit(subjects, 0, 0))
    error = refused(limiter, subjects)
    assert error.message == (
        "the concurrency limit of this user is 2 requests at the same time and 2 are running; try again when "
        "one of them has ended"
    )
    assert error.headers == ((b"retry-after", b"1"), (b"retry-after-ms", b"1000"))
    first.settle(0, 0)
    first.settle(0, 0)
    now(limiter.admit(subjects, 0, 0))
    refused(limiter, subjects)


def test_a_refusal_by_the_last_subject_leaves_no_trace_in_the_others() -> None:
    limiter = memory(Times())
    every = Limits(rpm=1, tpm=100, concurrency=1, budget_microusd=100)
    full = key(Limits(rpm=1), "model", "m")
    now(limiter.admit(full, 0, 0)).settle(0, 0)
    assert refused(limiter, key(every) + full, 100, 100).rule == "model.rpm"
    now(limiter.admit(key(every), 100, 100))


def test_the_tightest_subject_is_in_the_headers() -> None:
    limiter = memory(Times())
    subjects = key(Limits(rpm=100, tpm=50)) + key(Limits(rpm=10, tpm=5000), "team", "t")
    held = now(limiter.admit(subjects, 20, 0))
    assert dict(held.headers) == {
        b"x-ratelimit-limit-requests": b"10",
        b"x-ratelimit-remaining-requests": b"9",
        b"x-ratelimit-reset-requests": b"1m1s",
        b"x-ratelimit-limit-tokens": b"50",
        b"x-ratelimit-remaining-tokens": b"30",
        b"x-ratelimit-reset-tokens": b"1m1s",
    }


def test_nothing_limited_is_nothing_to_say() -> None:
    limiter = memory(Times())
    for subjects in ((), key(Limits()), key(Limits(concurrency=1))):
        hold = now(limiter.admit(subjects, 10, 10))
        assert hold.headers == ()
        hold.settle(1, 1)


def test_unused_tokens_go_back_and_more_than_estimated_count_now() -> None:
    times = Times()
    limiter = memory(times)
    subjects = key(Limits(tpm=100))
    now(limiter.admit(subjects, 100, 0)).settle(0, 0)
    over = now(limiter.admit(subjects, 100, 0))
    times.monotonic_s += 30
    over.settle(150, 0)
    error = refused(limiter, subjects, 1)
    assert error.headers[0] == (b"retry-after", b"31")
    times.monotonic_s += 31
    assert now(limiter.admit(subjects, 50, 0)).headers[1] == (b"x-ratelimit-remaining-tokens", b"0")


def test_tokens_that_left_the_window_are_not_given_back_twice() -> None:
    times = Times()
    limiter = memory(times)
    subjects = key(Limits(tpm=100))
    slow = now(limiter.admit(subjects, 100, 0))
    times.monotonic_s += 61
    now(limiter.admit(subjects, 100, 0))
    slow.settle(0, 0)
    refused(limiter, subjects, 1)


def test_money_counts_what_is_spent_held_and_asked() -> None:
    limiter = memory(Times(), lambda _, __: 1_000_000)
    subjects = key(Limits(budget_microusd=3_500_000))
    now(limiter.admit(subjects, 0, 1_000_000)).settle(0, 1_200_000)
    now(limiter.admit(subjects, 0, 1_000_000))
    error = refused(limiter, subjects, 0, 300_001)
    assert isinstance(error, BudgetExhausted)
    assert error.message == (
        "the budget of this key is 3.50 USD per month, 3.20 USD are spent or reserved and this request may "
        "cost 0.300001 USD; it resets at 2026-12-01T00:00:00Z"
    )
    assert (error.code, error.rule) == ("insufficient_quota", "key.budget")
    assert error.headers == (
        (b"retry-after", b"648000"),
        (b"retry-after-ms", b"648000000"),
        (b"x-should-retry", b"false"),
    )
    now(limiter.admit(subjects, 0, 300_000))


def test_a_budget_in_total_never_resets() -> None:
    asked: list[str] = []

    def spent(subject: Subject, start: str) -> int:
        asked.append(start)
        return 5

    error = refused(memory(Times(), spent), key(Limits(budget_microusd=5, budget_period="total")), 0, 1)
    assert error.message.endswith("it does not reset")
    assert error.headers == ((b"x-should-retry", b"false"),)
    assert asked == ["1970-01-01T00:00:00.000000Z"]


@pytest.mark.parametrize(
    ("period", "before", "after"),
    [
        ("day", datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC), datetime(2026, 11, 24, tzinfo=UTC)),
        ("month", datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_hold_that_spans_periods_is_charged_to_the_one_it_settles_in(
    period: BudgetPeriod, before: datetime, after: datetime
) -> None:
    times = Times()
    times.wall = before
    limiter = memory(times)
    subjects = key(Limits(budget_microusd=100, budget_period=period))
    now(limiter.admit(subjects, 0, 60)).settle(0, 60)
    spans = now(limiter.admit(subjects, 0, 40))
    refused(limiter, subjects, 0, 1)
    times.wall = after
    refused(limiter, subjects, 0, 61)
    now(limiter.admit(subjects, 0, 10)).settle(0, 0)
    spans.settle(0, 45)
    refused(limiter, subjects, 0, 56)
    now(limiter.admit(subjects, 0, 55))


def test_a_wall_clock_that_is_set_back_asks_the_ledger_again() -> None:
    times = Times()
    spent = {"2026-11-23T00:00:00.000000Z": 70, "2026-11-24T00:00:00.000000Z": 0}
    limiter = memory(times, lambda _, start: spent[start])
    subjects = key(Limits(budget_microusd=100, budget_period="day"))
    times.wall = datetime(2026, 11, 24, tzinfo=UTC)
    now(limiter.admit(subjects, 0, 100)).settle(0, 0)
    times.wall = MONDAY
    refused(limiter, subjects, 0, 31)
    now(limiter.admit(subjects, 0, 30))


def test_other_numbers_take_effect_at_once_and_keep_the_counts() -> None:
    limiter = memory(Times())
    for _ in range(3):
        now(limiter.admit(key(Limits(rpm=3, budget_microusd=10)), 10, 1)).settle(10, 1)
    refused(limiter, key(Limits(rpm=3)))
    now(limiter.admit(key(Limits(rpm=4, tpm=40)), 10, 0))
    refused(limiter, key(Limits(tpm=40)), 1)
    refused(limiter, key(Limits(budget_microusd=3)), 0, 1)


def test_the_ledger_is_asked_once_for_all_who_wait_for_it() -> None:
    asked: list[tuple[str, str]] = []

    async def run() -> list[object]:
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()

        def spent(subject: Subject, start: str) -> Awaitable[int]:
            asked.append((subject.id, start))
            return answer

        limiter = memory(Times(), spent)
        subjects = key(Limits(budget_microusd=100))
        waiting = [asyncio.ensure_future(limiter.admit(subjects, 0, 30)) for _ in range(5)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        answer.set_result(10)
        return await asyncio.gather(*waiting, return_exceptions=True)

    results = asyncio.run(run())
    assert asked == [("key_1", "2026-11-01T00:00:00.000000Z")]
    assert [asyncio.CancelledError, 0, 0, 0, BudgetExhausted] == [
        type(result) if isinstance(result, BaseException) else 0 for result in results
    ]


def test_subjects_that_are_idle_are_forgotten_and_their_money_is_asked_again() -> None:
    times = Times()
    asked: list[str] = []

    def spent(subject: Subject, start: str) -> int:
        asked.append(subject.id)
        return 4

    limiter = memory(times, spent)
    for number in range(500):
        now(limiter.admit(key(Limits(rpm=9), "session", f"s{number}"), 0, 0)).settle(0, 0)
        times.monotonic_s += 1
    assert limiter.status() == {"store": "memory", "reachable": True, "subjects": 61}
    subjects = key(Limits(budget_microusd=5))
    for _ in range(2):
        refused(limiter, subjects, 0, 2)
        times.monotonic_s += 100
        for number in range(100):
            now(limiter.admit(key(Limits(rpm=9), "session", f"t{number}"), 0, 0)).settle(0, 0)
    assert asked == ["key_1", "key_1"]


def test_the_least_recently_used_go_first_but_never_one_that_is_held() -> None:
    limiter = memory(Times(), max_subjects=50)
    once = Limits(rpm=1)
    now(limiter.admit(key(once, "user", "held"), 0, 0))
    now(limiter.admit(key(once, "user", "recent"), 0, 0)).settle(0, 0)
    for number in range(200):
        now(limiter.admit(key(once, "session", f"s{number}"), 0, 0)).settle(0, 0)
        refused(limiter, key(once, "user", "recent"))
    assert limiter.status()["subjects"] == 50
    refused(limiter, key(once, "user", "held"))


def test_the_address_decides_where_is_counted() -> None:
    limiter = open_limiter("", "closed", nothing_spent, Times().now)
    assert isinstance(limiter, MemoryLimiter)

    async def run() -> None:
        await limiter.start()
        await limiter.close()

    asyncio.run(run())
    with pytest.raises(BadSettings, match="limits_store must begin with redis://") as caught:
        open_limiter("http://:secret@host", "closed", nothing_spent, Times().now)
    assert "secret" not in caught.value.message


SUBJECTS = (
    Subject("key", "k", Limits(rpm=4, tpm=50, concurrency=3, budget_microusd=100)),
    Subject("team", "t", Limits(rpm=6, tpm=80)),
    Subject("user", "u", Limits(concurrency=2, budget_microusd=60, budget_period="day")),
    Subject("model", "m", Limits(rpm=9)),
)
ADMIT = st.tuples(
    st.just("admit"),
    st.lists(st.sampled_from(range(4)), min_size=1, max_size=4, unique=True),
    st.integers(0, 55),
    st.integers(0, 40),
)
SETTLE = st.tuples(st.just("settle"), st.integers(0, 8), st.integers(0, 60), st.integers(0, 45))
PASS = st.tuples(st.just("pass"), st.sampled_from((0.0, 0.3, 1.0, 29.7, 60.0, 61.0)))


@given(st.lists(ADMIT | SETTLE | PASS, max_size=60))
def test_it_decides_as_the_slow_model_does(steps: list[Any]) -> None:
    times = Times()
    settled: dict[tuple[str, str], int] = {}
    limiter = memory(times, lambda subject, _start: settled.get((subject.kind, subject.id), 0))
    model = Model()
    holds: list[tuple[Hold, int]] = []
    owners: dict[int, tuple[Subject, ...]] = {}
    for step in steps:
        if step[0] == "pass":
            times.monotonic_s += step[1]
        elif step[0] == "settle" and holds:
            hold, number = holds[step[1] % len(holds)]
            hold.settle(step[2], step[3])
            for subject in owners.pop(number, ()):
                name = (subject.kind, subject.id)
                settled[name] = settled.get(name, 0) + step[3]
            model.settle(number, step[2], step[3], times.monotonic_s)
        elif step[0] == "admit":
            subjects = tuple(SUBJECTS[place] for place in step[1])
            expected = model.admit(subjects, step[2], step[3], times.monotonic_s)
            try:
                hold = now(limiter.admit(subjects, step[2], step[3]))
            except RateLimited as error:
                assert expected == error.rule
            else:
                assert isinstance(expected, int)
                holds.append((hold, expected))
                owners[expected] = subjects


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=120), st.integers(1, 6))
def test_no_sixty_seconds_hold_more_than_the_limit(pauses: list[float], limit: int) -> None:
    times = Times()
    limiter = memory(times)
    subjects = key(Limits(rpm=limit))
    admitted: list[float] = []
    for pause in pauses:
        times.monotonic_s += pause
        try:
            now(limiter.admit(subjects, 0, 0)).settle(0, 0)
        except RateLimited as error:
            wait_s = int(dict(error.headers)[b"retry-after-ms"]) / 1000
            assert 0 < wait_s <= 61
        else:
            admitted.append(times.monotonic_s)
    for first, last in zip(admitted, admitted[limit:], strict=False):
        assert last - first >= 60


@given(st.lists(st.floats(0.0, 20.0), min_size=1, max_size=60), st.integers(1, 4))
def test_coming_back_when_told_to_is_never_in_vain(pauses: list[float], limit: int) -> None:
    times = Times()
    limiter = memory(times)
    subjects = key(Limits(rpm=limit, tpm=10 * limit))
    for pause in pauses:
        times.monotonic_s += pause
        try:
            now(limiter.admit(subjects, 10, 0)).settle(10, 0)
        except RateLimited as error:
            times.monotonic_s += int(dict(error.headers)[b"retry-after-ms"]) / 1000
            now(limiter.admit(subjects, 10, 0)).settle(10, 0)
