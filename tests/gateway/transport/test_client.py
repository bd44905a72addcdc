"""The client as a whole: what it sends, what it remembers, what it forgets."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UpstreamUnreachable
from gateway.transport import Stats, Transport
from tests.gateway.transport.upstream import (
    OK,
    Limits,
    Peer,
    Run,
    always,
    client,
    fetch,
    loops,
    until,
    upstream,
)


@loops
def test_a_request_is_sent_as_it_was_given(run: Run) -> None:
    async def main() -> None:
        seen: list[tuple[bytes, bytes]] = []

        async def handle(peer: Peer) -> None:
            while True:
                seen.append(await peer.request())
                await peer.send(OK)

        async with upstream(handle) as server, client() as transport:
            headers = ((b"content-type", b"application/json"), (b"x", b"1"))
            for body in (b"{}", b"", None, b"z" * 70_000):
                reply = await transport.request("POST", server.url + "/v1/a?b=c", headers, body)
                await reply.read(2)
            await fetch(transport, server.url, None, "GET")
            await (await transport.request("POST", server.url, [(b"y", b"2")], b"!")).read(2)
            host = server.url.removeprefix("http://").encode()
            start = (
                b"POST /v1/a?b=c HTTP/1.1\r\nhost: %b\r\n"
                b"accept-encoding: identity\r\nuser-agent: sluicegate\r\n"
                b"content-type: application/json\r\nx: 1\r\ncontent-length: %d\r\n\r\n"
            )
            plain = (
                b"%b / HTTP/1.1\r\nhost: %b\r\naccept-encoding: identity\r\nuser-agent: sluicegate\r\n%b\r\n"
            )
            assert seen == [
                (start % (host, 2), b"{}"),
                (start % (host, 0), b""),
                (start % (host, 0), b""),
                (start % (host, 70_000), b"z" * 70_000),
                (plain % (b"GET", host, b""), b""),
                (plain % (b"POST", host, b"y: 2\r\ncontent-length: 1\r\n"), b"!"),
            ]
            assert server.connections == 1

    run(main())


@loops
def test_each_origin_has_its_own_connections(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as one, upstream(always(OK)) as two, client() as transport:
            for _ in range(3):
                assert await fetch(transport, one.url) == b"ok"
                assert await fetch(transport, two.url) == b"ok"
            assert (one.connections, two.connections) == (1, 1)
            assert transport.stats() == Stats(open=2, idle=2, created=2, reused=4)

    run(main())


@loops
def test_urls_and_origins_without_number_are_forgotten_again(run: Run) -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client() as transport:
            for number in range(700):
                assert await fetch(transport, f"{server.url}/{number}") == b"ok"
            assert len(transport._plans) <= 512
            for number in range(1, 130):
                with pytest.raises(UpstreamUnreachable):
                    await fetch(transport, f"http://127.0.1.{number}:1/")
            assert len(transport._pools) <= 64
            assert await fetch(transport, server.url) == b"ok"
            assert server.connections == 1

    run(main())


def test_a_request_that_cannot_be_sent_opens_nothing() -> None:
    async def main() -> None:
        async with upstream(always(OK)) as server, client() as transport:
            for headers in (((b"x", b"a\r\nb: c"),), ((b"content-length", b"5"),)):
                with pytest.raises(ValueError, match="the header"):
                    await transport.request("POST", server.url, headers, b"{}")
            with pytest.raises(ValueError, match="the URL"):
                await transport.request("POST", server.url.replace("//", "//user:pass@"), (), b"{}")
            assert (server.connections, transport.stats()) == (0, Stats())

    asyncio.run(main())


def test_a_client_that_was_never_used_closes() -> None:
    async def main() -> None:
        transport = Transport(Limits())
        assert transport.stats() == Stats()
        await transport.close()
        await transport.close()

    asyncio.run(main())


@loops
def test_names_and_ports_that_lead_nowhere_are_unreachable_and_leave_nothing(run: Run) -> None:
    async def main() -> None:
        async with client() as transport:
            for url in (
                "http://127.0.0.1:1/",
                "http://no-such-host.invalid/",
                "http://" + "a" * 64 + ".example/",
            ):
                with pytest.raises(UpstreamUnreachable):
                    await fetch(transport, url)
            await until(lambda: len(asyncio.all_tasks()) == 1)
            assert transport.stats() == Stats()

    run(main())
