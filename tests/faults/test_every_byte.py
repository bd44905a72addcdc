"""
The upstream, and the client, fail at every byte of an exchange.

Whatever happens, the client has the whole answer or an explicit error, one record says what happened,
and nothing stays reserved, in flight or connected.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from gateway.dataplane.admission import Admission
from gateway.dataplane.breaker import Breaker
from gateway.dataplane.sse import DONE_EVENT
from gateway.dataplane.table import Prices, Route, Subject
from gateway.dataplane.usage import UsageRecord
from registry.clock import utc_now
from registry.entities import Limits, Price
from tests.fakes.inloop import (
    Act,
    RawUpstream,
    ServerState,
    ask,
    each,
    post,
    raw_upstream,
    reset,
    serving_in_loop,
    until,
)
from tests.fakes.parts import (
    DIGEST,
    DataPlane,
    FixedSources,
    balanced,
    memory_limiter,
    provider_at,
    table_of,
)

KEY = Subject("key", "key_1", Limits(rpm=10**6, tpm=10**9, concurrency=10**4, budget_microusd=10**12))
PRICE = Price("vllm/tiny", utc_now().replace(year=2020), 1_000_000, 2_000_000)
COST = 7 * 1 + 2 * 2
USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
ANSWER = json.dumps(
    {"choices": [{"index": 0, "message": {"role": "assistant", "content": "forty two"}}], "usage": USAGE}
).encode()
PLAIN = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER), ANSWER,
)  # fmt: skip
REQUEST = post(json.dumps({"model": "support", "messages": [{"role": "user", "content": "?"}]}).encode())
STREAM_REQUEST = post(
    json.dumps(
        {"model": "support", "messages": [{"role": "user", "content": "?"}], "stream": True,
         "stream_options": {"include_usage": True}}
    ).encode()
)  # fmt: skip


def _event(delta: dict[str, Any], finish: str | None = None) -> bytes:
    chunk = {"choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
    return b"data: " + json.dumps(chunk).encode() + b"\n\n"


EVENTS = [
    _event({"role": "assistant", "content": ""}), _event({"content": "forty"}), _event({"content": " two"}),
    _event({}, "stop"), b"data: " + json.dumps({"choices": [], "usage": USAGE}).encode() + b"\n\n",
    DONE_EVENT,
]  # fmt: skip
SSE_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
STREAM = SSE_HEAD + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS) + b"0\r\n\r\n"
WHOLE = b"".join(EVENTS)


@dataclass
class Stage:
    """A data plane before a scripted upstream, both in this loop."""

    up: RawUpstream
    port: int
    plane: DataPlane
    provider: Any
    state: ServerState
    records: list[UsageRecord] = field(default_factory=list)

    async def at_rest(self) -> None:
        """Nothing is in flight, reserved or connected to the upstream any more."""
        admission: Admission = self.plane.services.admission
        await until(lambda: admission.in_flight == 0 and not self.state.tasks)
        await until(lambda: self.provider.connections().busy == 0)
        counted = self.counted()
        assert counted is None or (counted.held, counted.held_microusd) == (0, 0)
        assert self.plane.sources.table.targets["support"].route.in_flight.count == 0

    def spent(self) -> int:
        counted = self.counted()
        return 0 if counted is None else counted.spent

    def counted(self) -> Any:
        """What the limiter has counted for the key."""
        limiter: Any = self.plane.services.limiter
        return limiter._states.get((KEY.kind, KEY.id))


@contextlib.asynccontextmanager
async def stage(**provider: Any) -> AsyncIterator[Stage]:
    async with raw_upstream() as up:
        relayed = provider_at(up.url, **({"idle_timeout_s": 0.15, "first_byte_timeout_s": 0.15} | provider))
        route = balanced(Route(name="support", digest=DIGEST, model="tiny", provider=relayed), Breaker(10**9))
        table = table_of({"support": route}, subjects=(KEY,), prices=Prices({"vllm/tiny": (PRICE,)}))
        records: list[UsageRecord] = []
        plane = DataPlane(
            FixedSources(table), records.append, limiter=memory_limiter(), admission=Admission(10_000, 60.0)
        )
        async with serving_in_loop(plane.site) as (port, state):
            yield Stage(up, port, plane, relayed, state, records)
        await relayed.close()
        plane.work.close()


def run(check: Callable[[], Any]) -> None:
    asyncio.run(check())


def is_error(body: bytes) -> bool:
    return set(json.loads(body)) == {"error"}


def is_whole_or_explicit_error(body: bytes) -> bool:
    """A stream that is complete, or whole events of it and then one error, without `[DONE]`."""
    if body == WHOLE:
        return True
    if body.endswith(DONE_EVENT) or not body.endswith(b"\n\n"):
        return False
    *events, last = [event + b"\n\n" for event in body[:-2].split(b"\n\n")]
    return is_error(last[6:]) and events == EVENTS[: len(events)]


@pytest.mark.parametrize("then", ["fin", "rst", "stall"])
def test_a_plain_answer_that_breaks_off_anywhere_is_an_error(then: str) -> None:
    async def check() -> None:
        async with stage() as on:
            cuts = list(range(len(PLAIN)))

            async def cut(at: int) -> None:
                status, body = await ask(on.port, _marked(REQUEST, at))
                assert status in (502, 504) and is_error(body), (status, body)

            on.up.script = lambda body: Act(PLAIN[: json.loads(body)["at"]], then)
            await each(cuts, cut)
            await on.at_rest()
            assert len(on.records) == len(cuts)
            assert {record.error for record in on.records} <= {"upstream_broken", "upstream_timeout"}
            assert on.spent() == 0
            on.up.script = lambda _body: Act(PLAIN)
            assert await ask(on.port, REQUEST) == (200, ANSWER)
            assert on.spent() == COST

    run(check)


@pytest.mark.parametrize("then", ["fin", "rst", "stall"])
def test_a_stream_that_breaks_off_anywhere_says_so(then: str) -> None:
    async def check() -> None:
        async with stage() as on:
            cuts = list(range(len(STREAM)))

            async def cut(at: int) -> None:
                status, body = await ask(on.port, _marked(STREAM_REQUEST, at))
                if status == 200:
                    assert is_whole_or_explicit_error(body), body
                else:
                    assert status in (502, 504) and is_error(body), (status, body)

            on.up.script = lambda body: Act(STREAM[: json.loads(body)["at"]], then)
            await each(cuts, cut)
            await on.at_rest()
            assert len(on.records) == len(cuts)
            whole = [record for record in on.records if not record.error]
            assert 0 < len(whole) < 20  # those cut after `[DONE]`
            assert {record.cost_microusd for record in whole} == {COST}
            assert on.spent() == sum(record.cost_microusd or 0 for record in on.records)

    run(check)


def test_a_corrupt_byte_never_makes_an_answer_of_another_shape() -> None:
    async def check() -> None:
        async with stage() as on:
            cases = [(kind, at, bit) for kind, data in enumerate((PLAIN, STREAM)) for at in range(len(data))
                     for bit in (0x01, 0x80)]  # fmt: skip

            async def corrupt(case: tuple[int, int, int]) -> None:
                kind, at, bit = case
                request = _marked((REQUEST, STREAM_REQUEST)[kind], at, kind=kind, bit=bit)
                status, body = await ask(on.port, request)
                if kind == 0:
                    json.loads(body)
                    assert is_error(body) != (200 <= status < 300) or status >= 400, (status, body)
                elif 200 <= status < 300:
                    # One event may say something else than was meant: a letter is a letter. The frame holds.
                    for event in body[:-2].split(b"\n\n"):
                        if event.startswith(b"data: ") and event != b"data: [DONE]":
                            json.loads(event[6:])
                    ended = body.endswith(DONE_EVENT)
                    assert ended != (b'data: {"error"' in body), body
                else:
                    assert is_error(body)

            def script(asked: bytes) -> Act:
                body = json.loads(asked)
                data = bytearray((PLAIN, STREAM)[body["kind"]])
                data[body["at"]] ^= body["bit"]
                return Act(bytes(data), "fin")

            on.up.script = script
            await each(cases, corrupt)
            await on.at_rest()
            assert len(on.records) == len(cases)

    run(check)


@pytest.mark.parametrize("how", ["close", "reset"])
@pytest.mark.parametrize("request_bytes", [REQUEST, STREAM_REQUEST], ids=["plain", "stream"])
def test_a_client_that_leaves_at_any_byte_of_its_request_costs_nothing(
    how: str, request_bytes: bytes
) -> None:
    async def check() -> None:
        async with stage() as on:
            on.up.script = lambda _body: Act(PLAIN)

            async def leave(at: int) -> None:
                _, writer = await asyncio.open_connection("127.0.0.1", on.port)
                writer.write(request_bytes[:at])
                await writer.drain()
                if how == "reset":
                    reset(writer)
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

            await each(list(range(len(request_bytes))), leave)
            await until(lambda: not on.state.connections)
            await on.at_rest()
            assert on.up.requests == 0
            assert on.spent() == 0
            assert {(record.status, record.error) for record in on.records} <= {(499, "client_closed")}
            assert await ask(on.port, REQUEST) == (200, ANSWER)

    run(check)


@pytest.mark.parametrize("how", ["close", "reset"])
def test_a_client_that_leaves_at_any_byte_of_a_stream_closes_its_upstream(how: str) -> None:
    async def check() -> None:
        async with stage(idle_timeout_s=10.0, first_byte_timeout_s=10.0) as on:
            head = len(SSE_HEAD)
            open_ended = STREAM[: STREAM.index(b"data: [DONE]") - 4]
            on.up.script = lambda _body: Act(open_ended, "stall")
            readable = len(b"".join(EVENTS[:-1]))

            async def leave(at: int) -> None:
                reader, writer = await asyncio.open_connection("127.0.0.1", on.port)
                writer.write(STREAM_REQUEST)
                await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(at)
                if how == "reset":
                    reset(writer)
                writer.close()
                with contextlib.suppress(ConnectionError):
                    await writer.wait_closed()

            cases = list(range(0, readable, 3))
            await each(cases, leave)
            await until(lambda: on.up.left == len(cases))
            await on.at_rest()
            assert len(on.records) == len(cases)
            assert {(record.status, record.error) for record in on.records} == {(200, "client_closed")}
            assert {record.cost_microusd for record in on.records} == {COST}
            assert on.spent() == COST * len(cases)
            assert head > 0

    run(check)


def test_a_client_that_leaves_before_a_plain_answer_closes_its_upstream_and_pays_for_its_prompt() -> None:
    async def check() -> None:
        async with stage(first_byte_timeout_s=5.0) as on:
            on.up.script = lambda _body: Act(b"", "stall")
            _, writer = await asyncio.open_connection("127.0.0.1", on.port)
            writer.write(REQUEST)
            await until(lambda: on.up.requests == 1)
            writer.close()
            await until(lambda: on.up.left == 1)
            await on.at_rest()
            [record] = on.records
            assert (record.status, record.error, record.estimated) == (499, "client_closed", True)
            assert on.spent() == record.cost_microusd == record.prompt_tokens > 0

    run(check)


def test_what_is_retried_costs_once_and_answers_whole() -> None:
    async def check() -> None:
        async with stage() as on:
            route = on.plane.sources.table.targets["support"].route
            retried = balanced(route, Breaker(10**9), max_retries=1)
            prices = Prices({"vllm/tiny": (PRICE,)})
            on.plane.sources.table = table_of({"support": retried}, subjects=(KEY,), prices=prices)
            cuts = list(range(0, len(PLAIN), 7))
            tried: set[int] = set()

            def script(asked: bytes) -> Act:
                at = json.loads(asked)["at"]
                if at in tried:
                    return Act(PLAIN)
                tried.add(at)
                return Act(PLAIN[:at], "rst")

            on.up.script = script

            async def cut(at: int) -> None:
                assert await ask(on.port, _marked(REQUEST, at)) == (200, ANSWER)

            await each(cuts[:9], cut, at_once=1)
            await on.at_rest()
            assert [record.attempts for record in on.records] == [2] * 9
            assert on.spent() == COST * 9

    run(check)


def _marked(request: bytes, at: int, **more: int) -> bytes:
    """*request* with its case in the body, where the upstream's script finds it."""
    body = json.loads(request.partition(b"\r\n\r\n")[2]) | {"at": at} | more
    return post(json.dumps(body).encode())
