"""The connections to one origin: bounds, turns, age, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import gc
import socket
import time

import pytest

from gateway.errors import UpstreamTimeout, UpstreamUnreachable
from gateway.transport import PoolRules, Stats
from tests.gateway.transport.upstream import (
    OK,
    Limits,
    Peer,
    Run,
    always,
    client,
    fetch,
    loops,
    now,
    until,
    upstream,
)


@loops
def test_no_more_connections_than_the_bound_and_everyone_gets_a_turn(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client(rules=PoolRules(size=3)) as transport:
            bodies = await asyncio.gather(*(fetch(transport, server.url) for _ in range(300)))
            assert bodies == [b"ok"] * 300
            assert server.connections == 3
            assert transport.stats() == Stats(open=3, idle=3, created=3, reused=297)

    run(main())


@loops
def test_whoever_waits_longest_is_served_first(run: Run) -> None:
    async def main() -> None:
        seen: list[bytes] = []

        async def handle(peer: Peer) -> None:
            while True:
                _, body = await peer.request()
                seen.append(body)
                await peer.send(OK)

        async with upstream(handle) as server, client(rules=PoolRules(size=1)) as transport:
            numbers = [b"%d" % number for number in range(20)]
            await asyncio.gather(*(fetch(transport, server.url, number) for number in numbers))
            assert seen == numbers

    run(main())


@loops
def test_the_connection_used_last_is_used_first(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client() as transport:
            await asyncio.gather(*(fetch(transport, server.url) for _ in range(4)))
            assert transport.stats().idle == 4
            for _ in range(10):
                await fetch(transport, server.url)
            assert transport.stats() == Stats(open=4, idle=4, created=4, reused=10)

    run(main())


@loops
def test_a_wait_for_a_turn_ends_with_the_connect_timeout(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.left()

    async def main() -> None:
        limits = Limits(connect_timeout_s=0.05)
        async with upstream(handle) as server, client(limits, rules=PoolRules(size=1)) as transport:
            first = asyncio.create_task(fetch(transport, server.url))
            await until(lambda: transport.stats().busy == 1)
            with pytest.raises(UpstreamUnreachable, match=r"no connection to the model within 0\.05 s"):
                await fetch(transport, server.url)
            assert now(transport.stats()) == (0, 1, 0)
            first.cancel()
            await asyncio.wait([first])

        limits = Limits(connect_timeout_s=5, first_byte_timeout_s=0.05)
        async with upstream(handle) as server, client(limits, rules=PoolRules(size=1)) as transport:
            outcomes = await asyncio.gather(
                *(fetch(transport, server.url) for _ in range(3)), return_exceptions=True
            )
            assert [type(outcome) for outcome in outcomes] == [UpstreamTimeout] * 3
            assert now(transport.stats()) == (0, 0, 0)

    run(main())


@loops
def test_too_many_waiting_requests_are_refused_at_once(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.left()

    async def main() -> None:
        rules = PoolRules(size=1, max_waiting=2)
        async with upstream(handle) as server, client(rules=rules) as transport:
            tasks = [asyncio.create_task(fetch(transport, server.url)) for _ in range(3)]
            await until(lambda: now(transport.stats()) == (0, 1, 2))
            with pytest.raises(UpstreamUnreachable, match="2 requests wait"):
                await fetch(transport, server.url)
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            assert now(transport.stats()) == (0, 0, 0)

    run(main())


@loops
def test_cancelled_waiters_lose_nobody_elses_turn(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client(rules=PoolRules(size=2)) as transport:
            for turns in range(15):
                tasks = [asyncio.create_task(fetch(transport, server.url)) for _ in range(20)]
                for _ in range(turns):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                outcomes = await asyncio.gather(*tasks, return_exceptions=True)
                assert outcomes[1::2] == [b"ok"] * 10
                assert all(o == b"ok" or isinstance(o, asyncio.CancelledError) for o in outcomes)
                stats = transport.stats()
                assert (stats.busy, stats.waiting) == (0, 0)
                assert stats.open <= 2

    run(main())


@loops
def test_a_connection_lost_while_others_wait_is_replaced(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async def main() -> None:
        async with upstream(handle) as server, client(rules=PoolRules(size=2)) as transport:
            bodies = await asyncio.gather(*(fetch(transport, server.url) for _ in range(40)))
            assert bodies == [b"ok"] * 40
            await until(lambda: now(transport.stats()) == (0, 0, 0))

    run(main())


@loops
def test_a_full_pool_still_makes_a_new_connection_for_a_request_that_was_not_taken(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        if peer.number > 2:
            await peer.send(OK)
            await peer.left()

    async def main() -> None:
        async with upstream(handle) as server, client(rules=PoolRules(size=2)) as transport:
            assert await asyncio.gather(*(fetch(transport, server.url) for _ in range(2))) == [b"ok"] * 2
            assert await asyncio.gather(*(fetch(transport, server.url) for _ in range(3))) == [b"ok"] * 3
            assert transport.stats().open <= 2

    run(main())


@loops
def test_idle_connections_are_closed_at_their_age(run: Run) -> None:
    async def main() -> None:
        rules = PoolRules(keep_alive_s=0.05)
        async with upstream(always(OK)) as server, client(rules=rules) as transport:
            await asyncio.gather(*(fetch(transport, server.url) for _ in range(3)))
            idle_from = time.monotonic()
            assert now(transport.stats()) == (3, 0, 0)
            await until(lambda: transport.stats().open == 0)
            assert time.monotonic() - idle_from > 0.03
            await until(lambda: server.open == 0)
            assert await fetch(transport, server.url) == b"ok"

    run(main())


@loops
def test_a_connection_too_old_is_not_used_even_if_nobody_had_time_to_close_it(run: Run) -> None:
    async def main() -> None:
        rules = PoolRules(keep_alive_s=0.02)
        async with upstream(always(OK)) as server, client(rules=rules) as transport:
            assert await fetch(transport, server.url) == b"ok"
            ends = time.monotonic() + 0.03
            while time.monotonic() < ends:
                pass  # the loop is blocked
            assert await fetch(transport, server.url) == b"ok"
            assert server.connections == 2

    run(main())


@loops
def test_only_so_many_connections_wait_idle(run: Run) -> None:
    async def main() -> None:
        rules = PoolRules(max_idle=2)
        async with upstream(always(OK)) as server, client(rules=rules) as transport:
            await asyncio.gather(*(fetch(transport, server.url) for _ in range(6)))
            assert transport.stats() == Stats(open=2, idle=2, created=6)
            await until(lambda: server.open == 2)

    run(main())


@loops
def test_close_cuts_running_and_refuses_waiting_and_later_requests(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n")
        await peer.left()

    async def main() -> None:
        async with upstream(handle) as server, client(rules=PoolRules(size=1)) as transport:
            reply = await transport.request("POST", server.url, (), b"{}")
            reading = asyncio.create_task(reply.read(100))
            waiting = asyncio.create_task(fetch(transport, server.url))
            await until(lambda: now(transport.stats()) == (0, 1, 1))
            await transport.close()
            await transport.close()
            ended = await asyncio.gather(reading, waiting, return_exceptions=True)
            assert [getattr(error, "code", error) for error in ended] == [
                "upstream_broken", "upstream_unreachable",
            ]  # fmt: skip
            assert transport.stats().open == 0
            for url in (server.url, server.url + "/other"):
                with pytest.raises(UpstreamUnreachable, match="closed"):
                    await fetch(transport, url)
            await until(lambda: server.open == 0)

    run(main())


@loops
def test_close_ends_a_connection_that_is_being_made(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            crowd = [socket.socket() for _ in range(4)]
            for guest in crowd:
                guest.setblocking(False)
                guest.connect_ex(address)
            async with client() as transport:
                task = asyncio.create_task(fetch(transport, f"http://127.0.0.1:{address[1]}"))
                await until(lambda: transport.stats().waiting + transport.stats().busy == 1)
                await transport.close()
                outcome = (await asyncio.gather(task, return_exceptions=True))[0]
                assert getattr(outcome, "code", "").startswith("upstream_")
                assert transport.stats().waiting == 0
            for guest in crowd:
                guest.close()

    run(main())


@loops
def test_a_host_that_does_not_answer_is_given_up_at_the_connect_timeout(run: Run) -> None:
    async def main() -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            address = full.getsockname()
            crowd = [socket.socket() for _ in range(4)]
            for guest in crowd:
                guest.setblocking(False)
                guest.connect_ex(address)
            async with client(Limits(connect_timeout_s=0.1, first_byte_timeout_s=0.2)) as transport:
                with pytest.raises((UpstreamUnreachable, UpstreamTimeout)):
                    await fetch(transport, f"http://127.0.0.1:{address[1]}")
                assert now(transport.stats()) == (0, 0, 0)
            for guest in crowd:
                guest.close()

    run(main())


@loops
def test_thousands_of_requests_leave_nothing_behind(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client(rules=PoolRules(size=10)) as transport:

            async def some(count: int) -> None:
                for number in range(count):
                    if number % 10:
                        assert await fetch(transport, server.url) == b"ok"
                    else:
                        reply = await transport.request("POST", server.url, (), b"{}")
                        assert [chunk async for chunk in reply.chunks()] == [b"ok"]
                        await reply.close()

            await asyncio.gather(*(some(10) for _ in range(20)))
            gc.collect()
            tasks, objects = len(asyncio.all_tasks()), len(gc.get_objects())
            await asyncio.gather(*(some(250) for _ in range(20)))
            gc.collect()
            assert len(asyncio.all_tasks()) == tasks
            assert len(gc.get_objects()) - objects < 500
            stats = transport.stats()
            assert (stats.open, stats.busy, stats.waiting, stats.created) == (10, 0, 0, 10)
            assert server.connections == 10

    run(main())
