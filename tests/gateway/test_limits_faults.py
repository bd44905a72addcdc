from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.dataplane.limits_batch import CERTAIN, CHARGE, Ask, Batch
from gateway.dataplane.limits_shared import SharedLimiter
from gateway.errors import BudgetExhausted, LimitsUnavailable, RateLimited
from registry.clock import utc_now
from registry.entities import Limits
from registry.errors import BadSettings
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


def test_a_settlement_that_is_delivered_twice_counts_once(store: Valkey) -> None:
    subjects = key(Limits(tpm=100, concurrency=2, budget_microusd=100))

    async def run() -> None:
        async with opened(store.url) as limiter:
            hold = await limiter.admit(subjects, 50, 50)
            await limiter.admit(subjects, 10, 0)
            hold.settle(20, 30)
            hold.settle(0, 0)
            batch = Batch(limiter._epoch, first=False)
            batch.settlements.append(limiter._settlements[0])
            assert batch.settlements[0][2] == CERTAIN
            await settled(limiter)
            await limiter._send(batch)
            await limiter._send(batch)
            with pytest.raises(RateLimited, match="30 are used"):
                await limiter.admit(subjects, 71, 0)
            with pytest.raises(BudgetExhausted):
                await limiter.admit(subjects, 0, 71)
            await limiter.admit(subjects, 70, 70)
            with pytest.raises(RateLimited, match="2 are running"):
                await limiter.admit(subjects, 0, 0)

    asyncio.run(run())


def test_a_client_that_leaves_while_it_is_asked_about_holds_nothing(store: Valkey) -> None:
    subjects = key(Limits(concurrency=1, budget_microusd=10))

    async def run() -> None:
        async with opened(store.url) as limiter:
            (await limiter.admit(subjects, 0, 0)).settle(0, 0)
            for turns in range(12):
                leaving = asyncio.ensure_future(limiter.admit(subjects, 0, 10))
                for _ in range(turns):
                    await asyncio.sleep(0)
                leaving.cancel()
                await asyncio.wait({leaving})
                if not leaving.cancelled():
                    leaving.result().settle(0, 0)
                await settled(limiter)
                (await limiter.admit(subjects, 0, 10)).settle(0, 0)

    asyncio.run(run())


def test_a_client_that_leaves_just_when_it_is_let_in_holds_nothing(store: Valkey) -> None:
    subjects = key(Limits(concurrency=1, budget_microusd=10))

    async def run() -> None:
        async with opened(store.url) as limiter:
            (await limiter.admit(subjects, 0, 0)).settle(0, 0)
            leaving = limiter.admit(subjects, 0, 10)
            answer = leaving.send(None)
            await until(answer.done)
            with pytest.raises(asyncio.CancelledError):
                leaving.throw(asyncio.CancelledError())
            await settled(limiter)
            await limiter.admit(subjects, 0, 10)

    asyncio.run(run())


def test_a_hold_that_was_cancelled_first_is_never_made(store: Valkey) -> None:
    subjects = key(Limits(rpm=1))

    async def run() -> None:
        async with opened(store.url) as limiter:
            ask = Ask("late", subjects, 0, 0)
            ask.epoch = limiter._epoch
            limiter._cancel(ask)
            await settled(limiter)
            batch = Batch(limiter._epoch, first=False)
            batch.asks.append(ask)
            await limiter._send(batch)
            assert await ask.answer == [3]
            await limiter.admit(subjects, 0, 0)

    asyncio.run(run())


def test_what_was_let_pass_is_charged_once(store: Valkey) -> None:
    subjects = key(Limits(rpm=10, tpm=100))

    async def run() -> None:
        async with opened(store.url) as limiter:
            limiter.settle(Ask("passed", subjects, 50, 0), CHARGE, 20, 0)
            batch = Batch(limiter._epoch, first=False)
            batch.settlements.append(limiter._settlements[0])
            await settled(limiter)
            await limiter._send(batch)
            headers = dict((await limiter.admit(subjects, 0, 0)).headers)
            assert headers[b"x-ratelimit-remaining-requests"] == b"8"
            assert headers[b"x-ratelimit-remaining-tokens"] == b"80"

    asyncio.run(run())


def test_closed_means_that_limited_requests_are_refused_until_the_store_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    subjects = key(Limits(rpm=5, concurrency=2, budget_microusd=100))
    ledger = [0]

    async def run(server: Valkey) -> None:
        async with opened(server.url, spent=lambda _, __: ledger[0]) as limiter:
            running = await limiter.admit(subjects, 0, 40)
            server.kill()
            results = await asyncio.gather(
                *(limiter.admit(subjects, 0, 1) for _ in range(20)), return_exceptions=True
            )
            assert {type(result) for result in results} == {LimitsUnavailable}
            status = limiter.status()
            assert (status["reachable"], status["down"]) == (False, "closed")
            began = time.perf_counter()
            with pytest.raises(LimitsUnavailable):
                await limiter.admit(subjects, 0, 1)
            assert time.perf_counter() - began < 0.1
            await limiter.admit(key(Limits()), 0, 0)
            running.settle(0, 30)
            ledger[0] = 30
            server.start()
            await until(lambda: bool(limiter.status()["reachable"]))
            await settled(limiter)
            # The store forgot everything; the ledger did not.
            with pytest.raises(BudgetExhausted):
                await limiter.admit(subjects, 0, 71)
            await limiter.admit(subjects, 0, 70)

    with valkey() as server, caplog.at_level(logging.WARNING):
        asyncio.run(run(server))
    lines = [record.message for record in caplog.records if record.name == "gateway.dataplane.limits_shared"]
    assert [line.split(":")[1].split(",")[0][:20] for line in lines] == [
        " cannot be reached", " reached again after"
    ]  # fmt: skip


def test_open_means_that_requests_pass_and_are_counted_when_the_store_is_back() -> None:
    subjects = key(Limits(rpm=50, tpm=1000, budget_microusd=100))

    async def run(server: Valkey) -> None:
        async with opened(server.url, "open", timeout_s=0.5) as limiter:
            (await limiter.admit(subjects, 0, 10)).settle(0, 10)
            await settled(limiter)
            server.pause()
            holds = await asyncio.gather(*(limiter.admit(subjects, 100, 1000) for _ in range(20)))
            assert {hold.headers for hold in holds} == {()}
            assert limiter.status()["reachable"] is False
            late = await limiter.admit(subjects, 100, 1000)
            for hold in holds:
                hold.settle(5, 2)
            server.resume()
            await until(lambda: bool(limiter.status()["reachable"]))
            late.settle(5, 2)
            await settled(limiter)
            with pytest.raises(BudgetExhausted, match="52 USD are spent"):
                await limiter.admit(subjects, 0, 49)
            hold = await limiter.admit(subjects, 0, 48)
            headers = dict(hold.headers)
            assert headers[b"x-ratelimit-remaining-tokens"] == b"895"
            assert headers[b"x-ratelimit-remaining-requests"] == b"27"

    with valkey() as server:
        asyncio.run(run(server))


def test_what_a_store_that_hung_admits_too_late_is_undone() -> None:
    subjects = key(Limits(concurrency=3, budget_microusd=90))

    async def run(server: Valkey) -> None:
        async with opened(server.url, timeout_s=0.5) as limiter:
            (await limiter.admit(subjects, 0, 0)).settle(0, 0)
            await settled(limiter)
            earlier = await limiter.admit(subjects, 0, 0)
            server.pause()
            earlier.settle(0, 0)
            results = await asyncio.gather(
                *(limiter.admit(subjects, 0, 30) for _ in range(3)), return_exceptions=True
            )
            assert limiter.status()["waiting_settlements"] == 4
            assert {type(result) for result in results} == {LimitsUnavailable}
            server.resume()
            await until(lambda: bool(limiter.status()["reachable"]))
            await settled(limiter)
            holds = [await limiter.admit(subjects, 0, 30) for _ in range(3)]
            assert await admitted(limiter, subjects) is None
            for hold in holds:
                hold.settle(0, 0)

    with valkey() as server:
        asyncio.run(run(server))


def test_a_store_that_is_not_there_at_the_start_is_found_when_it_comes() -> None:
    async def run() -> None:
        server = Valkey()
        async with opened(server.url, timeout_s=0.25) as limiter:
            assert limiter.status()["reachable"] is False
            server.start()
            try:
                await until(lambda: bool(limiter.status()["reachable"]))
                assert await admitted(limiter, key(Limits(rpm=1))) is not None
            finally:
                await limiter.close()
                server.kill()

    asyncio.run(run())


def test_no_more_settlements_wait_than_there_is_room_for() -> None:
    async def run() -> dict[str, Any]:
        async with opened(UNREACHABLE, "open", max_settlements=10) as limiter:
            for _ in range(25):
                (await limiter.admit(key(Limits(rpm=1)), 1, 1)).settle(1, 1)
            return limiter.status()

    status = asyncio.run(run())
    assert (status["waiting_settlements"], status["lost_settlements"]) == (10, 15)


def test_a_store_that_forgot_the_script_is_told_it_again(store: Valkey) -> None:
    async def run() -> None:
        async with opened(store.url) as limiter:
            await limiter.admit(key(Limits(rpm=2)), 0, 0)
            store.ask("SCRIPT", "FLUSH")
            await limiter.admit(key(Limits(rpm=2)), 0, 0)
            assert await admitted(limiter, key(Limits(rpm=2))) is None

    asyncio.run(run())


@pytest.mark.parametrize("url", ["http://:secret@host", "127.0.0.1:6379", "redis://:secret@host:port/0"])
def test_an_address_that_is_none_is_refused_without_its_password(url: str) -> None:
    pytest.importorskip("redis")
    with pytest.raises(BadSettings) as caught:
        SharedLimiter(url, "closed", nothing_spent, utc_now)
    assert caught.value.message.startswith("gateway.limits_store ")
    assert "secret" not in caught.value.message
