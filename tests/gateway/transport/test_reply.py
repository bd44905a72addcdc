"""Taking a body: whole, in pieces, pushed; too slowly, too soon, not at all."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamTooLarge
from gateway.transport import Transport, TransportReply
from tests.gateway.transport.upstream import (
    OK,
    WAYS,
    Handle,
    Limits,
    Peer,
    Run,
    always,
    client,
    fetch,
    loops,
    now,
    take,
    until,
    upstream,
)

CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"


def length(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size


async def ask(transport: Transport, url: str) -> TransportReply:
    return await transport.request("POST", url, (), b"{}")


@loops
def test_a_body_that_came_with_its_head_is_read_without_a_wait(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client() as transport:
            reply = await ask(transport, server.url)
            await until(lambda: transport.stats().idle == 1)
            reading = reply.read(2)
            with pytest.raises(StopIteration) as ended:
                reading.send(None)
            assert ended.value.value == b"ok"

    run(main())


def answering_in_steps(*pieces: bytes, gate: asyncio.Event | None = None) -> Handle:
    """Each piece only after the gate was opened for it."""

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            for piece in pieces:
                if gate is not None:
                    await gate.wait()
                    gate.clear()
                await peer.send(piece)

    return handle


@loops
def test_each_way_of_taking_gives_the_same_body(run: Run) -> None:
    async def main() -> None:
        pieces = (CHUNKED, b"1\r\na\r\n", b"2\r\nbc\r\n3\r\nd", b"ef\r\n0\r\n", b"\r\n")
        async with upstream(always(*pieces)) as server, client() as transport:
            reply = await ask(transport, server.url)
            assert b"".join([chunk async for chunk in reply.chunks()]) == b"abcdef"
            assert [chunk async for chunk in reply.chunks()] == []
            reply = await ask(transport, server.url)
            assert await reply.read(6) == b"abcdef"
            reply = await ask(transport, server.url)
            taken: list[bytes] = []
            await reply.deliver(taken.append)
            assert b"".join(taken) == b"abcdef"
            assert now(transport.stats()) == (1, 0, 0)
            assert transport.stats().created == 1

    run(main())


@loops
def test_delivery_begins_with_what_came_before_and_does_not_wait_for_a_task(run: Run) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        pieces = (CHUNKED + b"1\r\na\r\n", b"1\r\nb\r\n1\r\nc\r\n", b"0\r\n\r\n")
        async with upstream(answering_in_steps(*pieces, gate=gate)) as server, client() as transport:
            gate.set()
            reply = await ask(transport, server.url)
            taken: list[bytes] = []
            delivery = asyncio.create_task(reply.deliver(taken.append))
            await until(lambda: taken == [b"a"])
            gate.set()
            await until(lambda: taken == [b"a", b"bc"])
            assert not delivery.done()
            gate.set()
            await delivery
            assert taken == [b"a", b"bc"]

    run(main())


@loops
@pytest.mark.parametrize("early", [True, False])
def test_what_the_writer_raises_cuts_the_connection_and_is_raised(run: Run, early: bool) -> None:
    def write(chunk: bytes) -> None:
        message = f"no {chunk!r}"
        raise KeyError(message)

    async def main() -> None:
        gate = asyncio.Event()
        pieces = (CHUNKED + b"1\r\na\r\n",) if early else (CHUNKED, b"1\r\na\r\n")
        async with upstream(answering_in_steps(*pieces, gate=gate)) as server, client() as transport:
            gate.set()
            reply = await ask(transport, server.url)
            if early:
                await until(lambda: reply._size == 1)
            delivery = asyncio.create_task(reply.deliver(write))
            await asyncio.sleep(0)
            gate.set()
            with pytest.raises(KeyError, match="no b'a'"):
                await delivery
            assert transport.stats().open == 0
            await reply.close()
            await until(lambda: server.open == 0)

    run(main())


@loops
def test_closing_a_reply_ends_its_delivery_and_its_connection(run: Run) -> None:
    async def main() -> None:
        async with (
            upstream(answering_in_steps(CHUNKED + b"1\r\na\r\n", b"")) as server,
            client() as transport,
        ):
            reply = await ask(transport, server.url)
            taken: list[bytes] = []
            delivery = asyncio.create_task(reply.deliver(taken.append))
            await until(lambda: taken == [b"a"])
            await reply.close()
            with pytest.raises(UpstreamBroken, match="given up"):
                await delivery
            await reply.close()
            assert transport.stats().open == 0
            await until(lambda: server.open == 0)

    run(main())


@loops
@pytest.mark.parametrize("way", WAYS)
def test_a_cancelled_reader_cuts_the_connection(run: Run, way: str) -> None:
    async def main() -> None:
        async with upstream(always(length(3), b"a")) as server, client() as transport:
            reply = await ask(transport, server.url)

            task = asyncio.create_task(take(reply, way))
            await until(lambda: reply._total == 1)
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert transport.stats().open == 0
            await until(lambda: server.open == 0)

    run(main())


@loops
def test_what_is_not_taken_is_not_read_and_the_idle_timeout_does_not_count_for_it(run: Run) -> None:
    size = 30_000_000

    async def main() -> None:
        sent = 0

        async def handle(peer: Peer) -> None:
            nonlocal sent
            await peer.request()
            peer.writer.write(length(size))
            for _ in range(size // 100_000):
                peer.writer.write(b"x" * 100_000)
                await peer.writer.drain()
                sent += 100_000

        limits = Limits(idle_timeout_s=0.15, max_response_bytes=size)
        async with upstream(handle) as server, client(limits) as transport:
            reply = await ask(transport, server.url)
            await until(lambda: reply._held)
            seen = -1
            while seen != sent:  # until the kernel's buffers are full, too
                seen = sent
                await asyncio.sleep(0.2)
            assert reply._total < 1_000_000
            assert sent < size
            got = 0
            async for chunk in reply.chunks():
                got += len(chunk)
            assert got == size

    run(main())


@loops
def test_pause_stops_reading_until_resume_and_only_the_total_timeout_counts(run: Run) -> None:
    async def main() -> None:
        gate = asyncio.Event()
        pieces = (CHUNKED + b"1\r\na\r\n", b"1\r\nb\r\n", b"0\r\n\r\n")
        limits = Limits(idle_timeout_s=0.15, total_timeout_s=0.8)
        async with upstream(answering_in_steps(*pieces, gate=gate)) as server, client(limits) as transport:
            gate.set()
            reply = await ask(transport, server.url)
            taken: list[bytes] = []
            delivery = asyncio.create_task(reply.deliver(taken.append))
            await until(lambda: taken == [b"a"])
            reply.pause()
            reply.pause()
            gate.set()
            done, _ = await asyncio.wait([delivery], timeout=0.3)
            assert (done, taken) == (set(), [b"a"])
            reply.resume()
            await until(lambda: taken == [b"a", b"b"])
            reply.pause()
            with pytest.raises(UpstreamTimeout, match="in the middle"):
                await delivery
            reply.resume()
            reply.pause()
            assert transport.stats().open == 0

    run(main())


@loops
def test_a_connection_paused_at_the_end_of_its_answer_serves_the_next(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(length(3), b"abc")) as server, client() as transport:
            for _ in range(3):
                reply = await ask(transport, server.url)
                await reply.deliver(lambda _, reply=reply: reply.pause())  # type: ignore[misc]
                await reply.close()
            assert (server.connections, now(transport.stats())) == (1, (1, 0, 0))

    run(main())


@loops
@pytest.mark.parametrize("head", [length(20), CHUNKED + b"14\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_no_way_of_taking_gets_more_than_the_bound(run: Run, head: bytes) -> None:
    async def main() -> None:
        async with upstream(always(head, b"x" * 20, b"\r\n0\r\n\r\n")) as server:
            async with client(Limits(max_response_bytes=10)) as transport:
                for way in WAYS:
                    reply = await ask(transport, server.url)
                    with pytest.raises(UpstreamTooLarge, match="larger than 10 bytes"):
                        await take(reply, way)
                    assert transport.stats().open == 0
            async with client() as transport:
                reply = await ask(transport, server.url)
                with pytest.raises(UpstreamTooLarge, match="larger than 15 bytes"):
                    await reply.read(15)

    run(main())


@loops
def test_what_came_before_a_cut_is_given_before_the_error(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(CHUNKED + b"3\r\nabc\r\n5\r\nde")

    async def main() -> None:
        async with upstream(handle) as server, client() as transport:
            reply = await ask(transport, server.url)
            await until(lambda: transport.stats().open == 0)
            chunks = reply.chunks()
            assert await anext(chunks) == b"abcde"
            with pytest.raises(UpstreamBroken):
                await anext(chunks)
            with pytest.raises(UpstreamBroken):
                await reply.read(10)

    run(main())


@loops
def test_an_unread_answer_that_is_there_gives_its_connection_back(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client() as transport:
            for _ in range(5):
                reply = await ask(transport, server.url)
                await reply.close()
                assert await reply.read(2) == b""
            assert await fetch(transport, server.url) == b"ok"
            assert server.connections == 1

    run(main())
