"""One connection: when it is used again, when it is cut, and what every wait is bounded by."""

from __future__ import annotations

import asyncio
import time

import pytest

from gateway.errors import UpstreamBroken, UpstreamError, UpstreamTimeout
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
    scripted,
    take,
    until,
    upstream,
)

HEAD = b"HTTP/1.1 200 OK\r\n"


@loops
@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"content-length: 2\r\nconnection: close\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        HEAD + b"content-length: 2\r\n\r\nok and more",
        HEAD + b"content-length: 2\r\n\r\nok" + OK,
        HEAD + b"transfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP",
    ],
)
def test_a_connection_with_anything_left_to_say_is_not_used_again(run: Run, answer: bytes) -> None:
    async def main() -> None:
        async with upstream(always(answer)) as server, client() as transport:
            for number in (1, 2, 3):
                assert await fetch(transport, server.url) == b"ok"
                await until(lambda: transport.stats().open == 0)
                assert server.connections == number

    run(main())


@loops
def test_bytes_that_nobody_asked_for_end_an_idle_connection(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client() as transport:
            assert await fetch(transport, server.url) == b"ok"
            assert now(transport.stats()) == (1, 0, 0)
            await server.peers[0].send(OK)
            await until(lambda: transport.stats().open == 0)
            assert await fetch(transport, server.url) == b"ok"
            assert server.connections == 2

    run(main())


@loops
def test_a_body_may_end_with_its_connection(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"\r\n", b"all ", b"of it")

    async def main() -> None:
        async with upstream(handle) as server, client() as transport:
            for _ in range(2):
                assert await fetch(transport, server.url) == b"all of it"
            assert (server.connections, transport.stats().open) == (2, 0)

    run(main())


@loops
def test_a_body_that_should_end_with_its_connection_is_broken_by_a_reset(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"\r\n", b"some")
        await peer.reader.read(1)
        peer.reset()

    async def main() -> None:
        async with upstream(handle) as server, client() as transport:
            reply = await transport.request("POST", server.url, (), b"{}")
            chunks = reply.chunks()
            assert await anext(chunks) == b"some"
            server.peers[0].reset()
            with pytest.raises(UpstreamBroken):
                await anext(chunks)

    run(main())


@loops
def test_a_request_that_an_idle_connection_did_not_take_goes_out_on_a_new_one(run: Run) -> None:
    async def main() -> None:
        async with upstream(scripted(OK, None, OK, None, None)) as server, client() as transport:
            assert await fetch(transport, server.url) == b"ok"
            assert await fetch(transport, server.url) == b"ok"
            assert server.connections == 2
            with pytest.raises(UpstreamBroken):
                await fetch(transport, server.url)
            assert server.connections == 3
            assert now(transport.stats()) == (0, 0, 0)

    run(main())


@loops
def test_a_request_on_a_new_connection_is_never_sent_twice(run: Run) -> None:
    async def main() -> None:
        async with upstream(scripted(None, OK)) as server, client() as transport:
            with pytest.raises(UpstreamBroken):
                await fetch(transport, server.url)
            assert server.connections == 1

    run(main())


@loops
def test_a_request_of_whose_answer_a_byte_came_is_never_sent_twice(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)
        await peer.request()
        await peer.send(b"H")

    async def main() -> None:
        async with upstream(handle) as server, client() as transport:
            assert await fetch(transport, server.url) == b"ok"
            with pytest.raises(UpstreamBroken):
                await fetch(transport, server.url)
            assert server.connections == 1

    run(main())


@loops
def test_an_upstream_that_closed_its_idle_connection_is_asked_on_another(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(OK)

    async def main() -> None:
        async with upstream(handle) as server, client() as transport:
            for number in range(1, 21):
                assert await fetch(transport, server.url) == b"ok"
                assert server.connections == number

    run(main())


@loops
def test_interim_answers_are_skipped_and_do_not_go_on_for_ever(run: Run) -> None:
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"

    async def main() -> None:
        async with upstream(scripted(interim * 10 + OK, interim * 11 + OK)) as server, client() as transport:
            assert await fetch(transport, server.url) == b"ok"
            with pytest.raises(UpstreamBroken, match="interim"):
                await fetch(transport, server.url)

    run(main())


@loops
def test_answers_without_a_body_leave_their_connection_usable(run: Run) -> None:
    answers = (
        HEAD + b"content-length: 1000\r\n\r\n",
        b"HTTP/1.1 204 No Content\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\ncontent-length: 1000\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\n\r\n",
        OK,
    )

    async def main() -> None:
        async with upstream(scripted(*answers)) as server, client() as transport:
            assert await fetch(transport, server.url, None, "HEAD") == b""
            assert await fetch(transport, server.url) == b""
            assert await fetch(transport, server.url, None, "GET") == b""
            assert await fetch(transport, server.url, None, "HEAD") == b""
            assert await fetch(transport, server.url) == b"ok"
            assert server.connections == 1

    run(main())


@loops
def test_a_large_body_goes_out_as_fast_as_it_is_taken(run: Run) -> None:
    body = bytes(range(256)) * 80_000

    async def handle(peer: Peer) -> None:
        while True:
            _, got = await peer.request()
            await peer.send(HEAD + b"content-length: %d\r\n\r\n" % len(b"%d" % len(got)) + b"%d" % len(got))
            assert got == body

    async def main() -> None:
        async with upstream(handle, limit=2**16) as server, client() as transport:
            for _ in range(2):
                assert await fetch(transport, server.url, body) == b"%d" % len(body)
            assert server.connections == 1

    run(main())


@loops
def test_an_answer_before_the_request_was_taken_is_given_and_ends_the_connection(run: Run) -> None:
    refusal = b"HTTP/1.1 413 Content Too Large\r\ncontent-length: 3\r\n\r\nbig"

    async def handle(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(refusal)
        await peer.left()

    async def main() -> None:
        async with upstream(handle) as server, client() as transport:
            reply = await transport.request("POST", server.url, (), b"x" * 30_000_000)
            assert (reply.status, await reply.read(10)) == (413, b"big")
            await reply.close()
            assert transport.stats().open == 0
            await until(lambda: server.open == 0)

    run(main())


@loops
def test_an_upstream_that_takes_no_body_is_given_up_in_time(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await asyncio.Event().wait()

    async def main() -> None:
        limits = Limits(first_byte_timeout_s=0.05)
        async with upstream(handle) as server, client(limits) as transport:
            with pytest.raises(UpstreamTimeout, match=r"within 0\.05 s"):
                await fetch(transport, server.url, b"x" * 30_000_000)
            assert transport.stats().open == 0

    run(main())


@loops
@pytest.mark.parametrize(
    ("limits", "pieces", "message"),
    [
        (Limits(first_byte_timeout_s=0.05), (), "did not begin to answer within 0.05 s"),
        (
            Limits(first_byte_timeout_s=0.05),
            (b"HTTP/1.1 200 OK\r\n",),
            "did not begin to answer within 0.05 s",
        ),
        (Limits(first_byte_timeout_s=0.05), (b"HTTP/1.1 100 Continue\r\n\r\n",), "did not begin"),
        (Limits(total_timeout_s=0.05), (), "did not begin to answer within 0.05 s"),
        (Limits(idle_timeout_s=0.05), (HEAD + b"content-length: 9\r\n\r\n",), "in the middle"),
        (Limits(total_timeout_s=0.05), (HEAD + b"content-length: 9\r\n\r\nab",), "in the middle"),
    ],
)
def test_every_wait_has_its_bound_and_message(
    run: Run, limits: Limits, pieces: tuple[bytes, ...], message: str
) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(*pieces)
        await peer.left()

    async def main() -> None:
        async with upstream(handle) as server, client(limits) as transport:
            began = time.monotonic()
            with pytest.raises(UpstreamTimeout, match=message):
                await fetch(transport, server.url)
            assert 0.045 <= time.monotonic() - began < 2
            assert transport.stats().open == 0
            await until(lambda: server.open == 0)

    run(main())


@loops
def test_the_idle_timeout_counts_from_the_last_piece_and_the_total_one_from_the_request(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        await peer.request()
        await peer.send(HEAD + b"content-length: 1000\r\n\r\n")
        while True:
            await peer.send(b"x")
            await asyncio.sleep(0.01)

    async def main() -> None:
        limits = Limits(idle_timeout_s=0.2, total_timeout_s=0.4)
        async with upstream(handle) as server, client(limits) as transport:
            began = time.monotonic()
            reply = await transport.request("POST", server.url, (), b"{}")
            got: list[bytes] = []
            with pytest.raises(UpstreamTimeout):
                await take(reply, "chunks", got)
            assert len(got) > 8
            assert time.monotonic() - began >= 0.395

    run(main())


@loops
def test_a_deadline_of_one_request_does_not_end_the_next(run: Run) -> None:
    async def main() -> None:
        limits = Limits(first_byte_timeout_s=0.2, idle_timeout_s=0.2, total_timeout_s=0.2)
        async with upstream(always(OK)) as server, client(limits) as transport:
            ends = time.monotonic() + 0.5
            while time.monotonic() < ends:
                assert await fetch(transport, server.url) == b"ok"
            assert server.connections == 1

    run(main())


@loops
def test_a_cancelled_request_cuts_its_connection_and_no_other(run: Run) -> None:
    async def handle(peer: Peer) -> None:
        while True:
            _, body = await peer.request()
            if body == b"wait":
                await peer.left()
                return
            await peer.send(OK)

    async def main() -> None:
        async with upstream(handle) as server, client() as transport:
            assert await fetch(transport, server.url) == b"ok"
            tasks = [asyncio.create_task(fetch(transport, server.url, b"wait")) for _ in range(3)]
            await until(lambda: now(transport.stats()) == (0, 3, 0))
            assert await fetch(transport, server.url) == b"ok"
            for task in tasks:
                task.cancel()
            ended = await asyncio.gather(*tasks, return_exceptions=True)
            assert [type(error) for error in ended] == [asyncio.CancelledError] * 3
            assert now(transport.stats()) == (1, 0, 0)
            await until(lambda: server.open == 1)
            assert await fetch(transport, server.url) == b"ok"
            assert server.connections == 4

    run(main())


@loops
def test_a_request_cancelled_as_its_answer_comes_harms_nobody(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client() as transport:
            for turns in range(12):
                task = asyncio.create_task(fetch(transport, server.url))
                for _ in range(turns):
                    await asyncio.sleep(0)
                await until(lambda: server.open > 0 or transport.stats().waiting == 0)
                task.cancel()
                other = asyncio.create_task(fetch(transport, server.url))
                ended = (await asyncio.gather(task, return_exceptions=True))[0]
                assert ended == b"ok" or isinstance(ended, asyncio.CancelledError)
                assert await other == b"ok"
                assert now(transport.stats())[1:] == (0, 0)

    run(main())


@loops
def test_what_is_not_http_never_ends_otherwise_than_in_an_upstream_error(run: Run) -> None:
    answers = [
        b"SSH-2.0-OpenSSH_9\r\n", b"\x16\x03\x01\x02\x00", b"HTTP/1.1", b"{}", b"\x00" * 100, b"\r\n" * 50,
        b"HTTP/1.1 200 OK\r\n" + b"x" * 300_000, HEAD + b"transfer-encoding: chunked\r\n\r\n" + b"f" * 40,
        HEAD + b"content-length: 2\r\ncontent-length: 3\r\n\r\nok",
    ]  # fmt: skip

    async def main() -> None:
        left = list(answers)

        async def handle(peer: Peer) -> None:
            await peer.request()
            await peer.send(left.pop(0))

        async with upstream(handle) as server, client() as transport:
            for _ in answers:
                with pytest.raises(UpstreamError):
                    await fetch(transport, server.url)
                assert transport.stats().open == 0

    run(main())
