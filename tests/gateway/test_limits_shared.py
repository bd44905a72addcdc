from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.dataplane.limits import Hold
from gateway.dataplane.limits_shared import SharedLimiter
from gateway.dataplane.table import Subject
from gateway.errors import BudgetExhausted, RateLimited
from registry.clock import utc_now
from registry.entities import Limits
from tests.fakes.limits_model import Model
from tests.fakes.limits_stand import admitted, key, nothing_spent, opened, settled, until
from tests.fakes.valkey import Valkey, valkey

UNREACHABLE = "redis://127.0.0.1:9/0"


@pytest.fixture(scope="module")
def server() -> Iterator[Valkey]:
    with valkey() as running:
        yield running


@pytest.fixture
def store(server: Valkey) -> Valkey:
    server.ask("FLUSHALL")
    return server


def keys(store: Valkey) -> list[str]:
    return [line.decode() for line in store.ask("KEYS", "*").split(b"\r\n") if line.startswith(b"sluice")]


def test_exactly_as_many_as_the_limit_are_let_in_of_200_at_once_in_one_round_trip(store: Valkey) -> None:
    async def run() -> int:
        async with opened(store.url) as limiter:
            store.ask("CONFIG", "RESETSTAT")
            holds = await asyncio.gather(*(admitted(limiter, key(Limits(rpm=73))) for _ in range(200)))
            return sum(hold is not None for hold in holds)

    assert asyncio.run(run()) == 73
    assert b"evalsha:calls=1," in store.ask("INFO", "commandstats")


GATEWAY = """
import asyncio, sys
from gateway.dataplane.limits import open_limiter
from gateway.dataplane.table import Subject
from gateway.errors import RateLimited
from registry.clock import utc_now
from registry.entities import Limits

async def one(limiter, subjects):
    try:
        await limiter.admit(subjects, 10, 7)
    except RateLimited as error:
        return error.rule
    return "admitted"

async def main():
    limiter = open_limiter(sys.argv[1], "closed", lambda subject, start: 0, utc_now)
    await limiter.start()
    limits = eval(sys.argv[2])
    subjects = (Subject("key", "shared", limits), Subject("team", "t", Limits(rpm=10**6)))
    print("ready", flush=True)
    sys.stdin.readline()
    found = await asyncio.gather(*(one(limiter, subjects) for _ in range(100)))
    print(found.count("admitted"), sorted(set(found)), flush=True)
    sys.stdin.readline()

asyncio.run(main())
"""


def gateways(url: str, limits: Limits, number: int) -> list[subprocess.Popen[str]]:
    started = [
        subprocess.Popen(
            [sys.executable, "-c", GATEWAY, url, repr(limits)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        for _ in range(number)
    ]  # fmt: skip
    for process in started:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    return started


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def counts(processes: list[subprocess.Popen[str]]) -> list[int]:
    for process in processes:
        tell(process)
    found = []
    for process in processes:
        assert process.stdout is not None
        found.append(int(process.stdout.readline().split()[0]))
    return found


def ended(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        (Limits(rpm=57), 57),
        (Limits(tpm=575), 57),
        (Limits(concurrency=57), 57),
        (Limits(budget_microusd=400), 57),
    ],
)
def test_two_gateways_let_in_exactly_as_many_as_the_limit(store: Valkey, limits: Limits, most: int) -> None:
    processes = gateways(store.url, limits, 2)
    try:
        assert sum(counts(processes)) == most
    finally:
        ended(processes)


def test_places_of_a_killed_gateway_come_back(store: Valkey) -> None:
    limits = Limits(concurrency=5, budget_microusd=35)
    subjects = (Subject("key", "shared", limits),)
    processes = gateways(store.url, limits, 1)
    assert counts(processes) == [5]
    ended(processes)

    async def run() -> list[Hold | None]:
        async with opened(store.url) as limiter:
            assert await admitted(limiter, subjects) is None
            # As if the rest of its lease had gone by.
            leases = "sluicegate:{limits}:leases"
            for name in store.ask("HKEYS", leases).split(b"\r\n"):
                if name.startswith(b"gw_") and name.decode() != limiter._epoch:
                    store.ask("HSET", leases, name.decode(), str(int(time.time() * 1000) - 1))
            return [await admitted(limiter, subjects, 7) for _ in range(6)]

    assert [hold is not None for hold in asyncio.run(run())] == [True] * 5 + [False]


def lease(store: Valkey, limiter: SharedLimiter) -> bytes:
    return store.ask("HGET", "sluicegate:{limits}:leases", limiter._epoch)


def test_a_lease_is_kept_while_its_gateway_lives_and_given_back_when_it_ends(store: Valkey) -> None:
    subjects = key(Limits(concurrency=1))

    async def run() -> None:
        async with opened(store.url) as other:
            async with opened(store.url, lease_s=1.5) as limiter:
                await limiter.admit(subjects, 0, 0)
                seen: set[bytes] = set()

                def renewed() -> bool:
                    seen.add(lease(store, limiter))
                    return len(seen) == 4

                await until(renewed)
                assert await admitted(other, subjects) is None
            assert await admitted(other, subjects) is not None

    asyncio.run(run())


def test_a_gateway_that_was_paused_takes_a_new_lease_and_settles_its_old_holds(store: Valkey) -> None:
    one = key(Limits(concurrency=1, budget_microusd=100))

    async def run() -> None:
        paused = SharedLimiter(store.url, "closed", nothing_spent, utc_now, timeout_s=2.0, lease_s=0.1)
        old = await paused.admit(one, 0, 40)
        epoch = paused._epoch
        async with opened(store.url) as other:
            began = time.monotonic()
            while (mine := await admitted(other, one)) is None:
                assert time.monotonic() < began + 5
                await asyncio.sleep(0.01)
            assert await admitted(paused, one) is None
            assert paused._epoch != epoch
            old.settle(0, 60)
            await settled(paused)
            assert await admitted(other, one) is None
            mine.settle(0, 0)
            await settled(other)
            assert await admitted(other, one, 41) is None
            assert await admitted(other, one, 40) is not None
        await paused.start()
        await paused.close()

    asyncio.run(run())


def test_headers_and_refusals_are_those_of_one_process(store: Valkey) -> None:
    subjects = (*key(Limits(rpm=100, tpm=50)), Subject("team", "t", Limits(rpm=2, tpm=5000)))

    async def run() -> tuple[Hold, RateLimited, RateLimited, RateLimited]:
        async with opened(store.url, spent=lambda _, __: 5, clock=noon) as limiter:
            hold = await limiter.admit(subjects, 20, 0)
            await limiter.admit(subjects, 20, 0)
            with pytest.raises(RateLimited) as requests:
                await limiter.admit(subjects, 0, 0)
            with pytest.raises(RateLimited) as tokens:
                await limiter.admit(subjects, 11, 0)
            with pytest.raises(BudgetExhausted) as money:
                await limiter.admit(key(Limits(budget_microusd=9)), 0, 5)
            return hold, requests.value, tokens.value, money.value

    hold, requests, tokens, money = asyncio.run(run())
    headers = dict(hold.headers)
    assert headers.pop(b"x-ratelimit-reset-requests") == headers.pop(b"x-ratelimit-reset-tokens")
    assert headers == {
        b"x-ratelimit-limit-requests": b"2",
        b"x-ratelimit-remaining-requests": b"1",
        b"x-ratelimit-limit-tokens": b"50",
        b"x-ratelimit-remaining-tokens": b"30",
    }
    assert requests.rule == "team.rpm"
    assert "is 2 requests per minute and 2 were made; try again in " in requests.message
    found = dict(requests.headers)
    assert 59_000 < int(found[b"retry-after-ms"]) <= 61_000
    assert int(found[b"retry-after"]) == -(-int(found[b"retry-after-ms"]) // 1000)
    assert found[b"x-ratelimit-remaining-requests"] == b"0"
    assert tokens.rule == "key.tpm"
    assert "50 tokens per minute, 40 are used and this request needs 11; try again in " in tokens.message
    assert money.message == (
        "the budget of this key is 0.000009 USD per month, 0.000005 USD are spent or reserved and this "
        "request may cost 0.000005 USD; it resets at 2026-12-01T00:00:00Z"
    )


def noon() -> datetime:
    return datetime(2026, 11, 23, 12, tzinfo=UTC)


def test_the_ledger_is_asked_for_a_balance_that_the_store_does_not_have(store: Valkey) -> None:
    asked: list[tuple[str, str]] = []

    async def ledger(subject: Subject) -> int:
        return {"key_1": 90, "t": 10}[subject.id]

    def spent(subject: Subject, start: str) -> Any:
        asked.append((subject.id, start))
        return ledger(subject)

    subjects = (
        *key(Limits(budget_microusd=100)),
        Subject("team", "t", Limits(budget_microusd=90, budget_period="day")),
    )

    async def run() -> None:
        async with (
            opened(store.url, spent=spent, clock=noon) as first,
            opened(store.url, spent=spent, clock=noon) as second,
        ):
            assert await admitted(first, subjects, 11) is None
            hold = await admitted(second, subjects, 10)
            assert hold is not None
            hold.settle(0, 3)
            await settled(second)
            assert await admitted(first, subjects, 8) is None
            assert await admitted(first, subjects, 7) is not None

    asyncio.run(run())
    assert asked == [
        ("key_1", "2026-11-01T00:00:00.000000Z"),
        ("t", "2026-11-23T00:00:00.000000Z"),
    ]


def test_a_hold_that_spans_periods_is_charged_to_the_one_it_settles_in(store: Valkey) -> None:
    times = [datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC)]
    subjects = key(Limits(budget_microusd=100, budget_period="day"))

    async def run() -> None:
        async with opened(store.url, clock=lambda: times[-1]) as limiter:
            (await limiter.admit(subjects, 0, 60)).settle(0, 60)
            spans = await limiter.admit(subjects, 0, 40)
            assert await admitted(limiter, subjects, 1) is None
            times.append(datetime(2026, 11, 24, tzinfo=UTC))
            assert await admitted(limiter, subjects, 61) is None
            spans.settle(0, 45)
            await settled(limiter)
            assert await admitted(limiter, subjects, 56) is None
            assert await admitted(limiter, subjects, 55) is not None

    asyncio.run(run())


def test_unused_tokens_go_back_to_the_second_they_came_from(store: Valkey) -> None:
    subjects = key(Limits(tpm=100))

    async def run() -> None:
        async with opened(store.url) as limiter:
            second = store.ask("TIME").split(b"\r\n")[2]
            first = await limiter.admit(subjects, 30, 0)
            await until(lambda: store.ask("TIME").split(b"\r\n")[2] > second)
            await limiter.admit(subjects, 30, 0)
            first.settle(10, 0)
            await settled(limiter)
            headers = dict((await limiter.admit(subjects, 0, 0)).headers)
            assert headers[b"x-ratelimit-remaining-tokens"] == b"60"

    asyncio.run(run())


def test_every_key_expires_and_lies_in_one_shard(store: Valkey) -> None:
    async def run() -> None:
        async with opened(store.url) as limiter:
            holds = [
                await limiter.admit(key(limits, f"k{number}"), 1, 1)
                for number, limits in enumerate(
                    (Limits(rpm=1), Limits(concurrency=1), Limits(budget_microusd=5))
                )
            ]
            assert len(keys(store)) == 5
            assert int(store.ask("PTTL", "sluicegate:{limits}:key:k1")[1:]) > 23 * 3_600_000
            assert int(store.ask("PTTL", "sluicegate:{limits}:key:k2")[1:]) > 39 * 86_400_000
            for hold in holds:
                hold.settle(0, 0)
            await settled(limiter)
            for name in keys(store):
                assert name.startswith("sluicegate:{limits}:")
                assert int(store.ask("PTTL", name)[1:]) > 0
            assert 61_000 < int(store.ask("PTTL", "sluicegate:{limits}:key:k0")[1:]) <= 62_000

    asyncio.run(run())


SUBJECTS = (
    Subject("key", "k", Limits(rpm=6, tpm=80, concurrency=3, budget_microusd=100)),
    Subject("team", "t", Limits(rpm=9, tpm=120)),
    Subject("user", "u", Limits(concurrency=2, budget_microusd=60, budget_period="total")),
)
ADMIT = st.tuples(
    st.lists(st.sampled_from(range(3)), min_size=1, max_size=3, unique=True),
    st.integers(0, 55),
    st.integers(0, 40),
)
SETTLE = st.tuples(st.integers(0, 8), st.integers(0, 60), st.integers(0, 45))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.booleans(), ADMIT | SETTLE), max_size=30))
def test_it_decides_as_the_slow_model_does(store: Valkey, steps: list[tuple[bool, Any]]) -> None:
    """Within the 60 seconds that it takes at most; either of two gateways may be asked."""

    async def run() -> None:
        model = Model()
        holds: list[tuple[Hold, int, SharedLimiter]] = []
        async with opened(store.url) as first, opened(store.url) as second:
            for use_first, step in steps:
                limiter = first if use_first else second
                if isinstance(step[0], int):
                    if holds:
                        hold, number, owner = holds[step[0] % len(holds)]
                        hold.settle(step[1], step[2])
                        await settled(owner)
                        model.settle(number, step[1], step[2], 0.0)
                    continue
                subjects = tuple(SUBJECTS[place] for place in step[0])
                expected = model.admit(subjects, step[1], step[2], 0.0)
                try:
                    hold = await limiter.admit(subjects, step[1], step[2])
                except RateLimited as error:
                    assert error.rule == expected
                else:
                    assert isinstance(expected, int)
                    holds.append((hold, expected, limiter))

    store.ask("FLUSHALL")
    asyncio.run(run())
