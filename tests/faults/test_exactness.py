"""Two hundred callers at once, and exactly as many answers as the limit allows."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from gateway.dataplane.admission import Admission
from gateway.dataplane.limits import Limiter, open_limiter
from gateway.dataplane.table import Prices, Route, Subject
from registry.clock import utc_now
from registry.entities import Limits, Price
from tests.fakes.inloop import Act, ask, post, raw_upstream, serving_in_loop
from tests.fakes.parts import DIGEST, DataPlane, FixedSources, balanced, memory_limiter, provider_at, table_of
from tests.fakes.valkey import valkey

CALLERS = 200
PRICE = Price("vllm/tiny", utc_now().replace(year=2020), 1_000_000, 1_000_000)
USAGE = {"prompt_tokens": 20, "completion_tokens": 30, "total_tokens": 50}
ANSWER = json.dumps({"choices": [], "usage": USAGE}).encode()
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER), ANSWER,
)  # fmt: skip
BODY = json.dumps({"model": "support", "max_tokens": 30, "messages": [{"role": "user", "content": "?"}]})
COST = 50


def answered(limits: Limits, limiters: list[Limiter]) -> Counter[int]:
    """Statuses of `CALLERS` requests at once, spread over one gateway for each of *limiters*."""

    async def run() -> Counter[int]:
        subject = Subject("key", "key_1", limits)
        async with raw_upstream() as up:
            up.script = lambda _body: Act(PLAIN)
            statuses: list[int] = []
            async with asyncio.TaskGroup() as group:
                done = asyncio.Event()
                ready = asyncio.Semaphore(0)
                ports: list[int] = []
                for limiter in limiters:
                    group.create_task(gateway(up.url, subject, limiter, ports, ready, done))
                for _ in limiters:
                    await ready.acquire()

                async def call(number: int) -> None:
                    status, _ = await ask(ports[number % len(ports)], post(BODY.encode()))
                    statuses.append(status)

                await asyncio.gather(*(call(number) for number in range(CALLERS)))
                done.set()
            return Counter(statuses)

    return asyncio.run(run())


async def gateway(
    url: str,
    subject: Subject,
    limiter: Limiter,
    ports: list[int],
    ready: asyncio.Semaphore,
    done: asyncio.Event,
) -> None:
    """A data plane with *limiter*, until *done*."""
    provider = provider_at(url, first_byte_timeout_s=20.0)
    route = balanced(Route(name="support", digest=DIGEST, model="tiny", provider=provider))
    table = table_of({"support": route}, subjects=(subject,), prices=Prices({"vllm/tiny": (PRICE,)}))
    records: list[Any] = []
    plane = DataPlane(FixedSources(table), records.append, limiter=limiter, admission=Admission(10_000, 60.0))
    await limiter.start()
    async with serving_in_loop(plane.site) as (port, _):
        ports.append(port)
        ready.release()
        await done.wait()
    await limiter.close()
    await provider.close()
    plane.work.close()


def shared(url: str) -> Callable[[], Limiter]:
    return lambda: open_limiter(url, "closed", lambda _subject, _start: 0, utc_now)


def test_one_gateway_answers_exactly_the_limit() -> None:
    assert answered(Limits(rpm=37), [memory_limiter()]) == {200: 37, 429: CALLERS - 37}


def test_two_gateways_that_share_a_store_answer_exactly_the_limit_together() -> None:
    with valkey() as server:
        make = shared(server.url)
        assert answered(Limits(rpm=37), [make(), make()]) == {200: 37, 429: CALLERS - 37}


def test_a_budget_is_never_passed_by_more_than_one_requests_error() -> None:
    """What is reserved for each is a little more than what it costs, so none passes it here."""
    budget = 40 * COST
    with valkey() as server:
        make = shared(server.url)
        one: list[Limiter] = [memory_limiter()]
        for limiters in (one, [make(), make()]):
            statuses = answered(Limits(budget_microusd=budget, budget_period="total"), limiters)
            assert 1 <= statuses[200] <= 40
            assert statuses[200] + statuses[429] == CALLERS
