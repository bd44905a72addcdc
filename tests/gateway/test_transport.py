"""Both upstream clients: what they refuse, what they bound, what they never follow."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from gateway.errors import (
    UpstreamBroken,
    UpstreamError,
    UpstreamTimeout,
    UpstreamTooLarge,
    UpstreamUnreachable,
)
from gateway.transport import open_transport
from registry.errors import BadSettings


@dataclass(frozen=True)
class Bounds:
    connect_timeout_s: float = 2.0
    first_byte_timeout_s: float = 5.0
    idle_timeout_s: float = 5.0
    total_timeout_s: float = 5.0
    max_response_bytes: int = 1000


@pytest.fixture(params=["native", "aiohttp"])
def client(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def answering(*pieces: bytes, close: bool = True) -> Iterator[str]:
    """A server that answers one connection with exactly these bytes."""
    listener = socket.create_server(("127.0.0.1", 0))
    ended = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            for piece in pieces:
                connection.sendall(piece)
            if not close:
                ended.wait(10)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1/x"
    finally:
        ended.set()
        thread.join(10)
        listener.close()


async def fetch(client: str, url: str, bounds: Bounds, way: str) -> tuple[int, bytes]:
    transport = open_transport(bounds, client)
    try:
        reply = await transport.request("POST", url, ((b"x", b"y"),), b"{}")
        try:
            if way == "read":
                return reply.status, await reply.read(bounds.max_response_bytes)
            if way == "deliver":
                taken: list[bytes] = []
                await reply.deliver(taken.append)
                return reply.status, b"".join(taken)
            return reply.status, b"".join([chunk async for chunk in reply.chunks()])
        finally:
            await reply.close()
            await reply.close()
    finally:
        await transport.close()
        await transport.close()


def got(client: str, url: str, bounds: Bounds | None = None, way: str = "chunks") -> tuple[int, bytes]:
    return asyncio.run(fetch(client, url, bounds or Bounds(), way))


WAYS = pytest.mark.parametrize("way", ["chunks", "read", "deliver"])


@WAYS
def test_a_redirect_is_an_answer(client: str, way: str) -> None:
    head = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\nno"
    with answering(head) as url:
        assert got(client, url, way=way) == (302, b"no")


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", UpstreamBroken),
        (b"SSH-2.0-OpenSSH\r\n", UpstreamBroken),
        (b"HTTP/1.1 200 OK\r\ncontent-le", UpstreamBroken),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab", UpstreamBroken),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nab", UpstreamBroken),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", UpstreamBroken),
        (b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 1\r\n\r\nx", UpstreamBroken),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2000\r\n\r\n" + b"x" * 2000, UpstreamTooLarge),
    ],
)
@WAYS
def test_what_is_not_a_whole_answer_is_an_error(
    client: str, answer: bytes, error: type[UpstreamError], way: str
) -> None:
    with answering(answer) as url, pytest.raises(error):
        got(client, url, way=way)


def test_an_answer_cut_at_any_byte_is_an_error_or_is_whole(client: str) -> None:
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nbody"
    for length in range(len(whole) + 1):
        with answering(whole[:length]) as url:
            if length < len(whole):
                with pytest.raises(UpstreamBroken):
                    got(client, url)
            else:
                assert got(client, url) == (200, b"body")


@pytest.mark.parametrize(
    ("pieces", "bounds"),
    [
        ((), Bounds(first_byte_timeout_s=0.05)),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",), Bounds(idle_timeout_s=0.05)),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",), Bounds(total_timeout_s=0.05)),
    ],
)
@WAYS
def test_every_wait_has_a_bound(client: str, pieces: tuple[bytes, ...], bounds: Bounds, way: str) -> None:
    with answering(*pieces, close=False) as url, pytest.raises(UpstreamTimeout):
        got(client, url, bounds, way)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://", "http://no-such-host.invalid/"])
def test_where_nothing_listens_it_says_so(client: str, url: str) -> None:
    with pytest.raises(UpstreamUnreachable):
        got(client, url)


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://user:secret@127.0.0.1/", "http://127.0.0.1/a b"])
def test_a_url_that_cannot_be_used_is_a_value_error(client: str, url: str) -> None:
    with pytest.raises(ValueError, match="the URL"):
        got(client, url)


def test_a_closed_client_answers_no_more_and_counts_nothing_open(client: str) -> None:
    async def main(url: str) -> None:
        transport = open_transport(Bounds(), client)
        reply = await transport.request("POST", url, (), b"{}")
        assert await reply.read(10) == b"no"
        await reply.close()
        stats = transport.stats()
        assert (stats.busy, stats.waiting, stats.created) == (0, 0, 1)
        await transport.close()
        await transport.close()
        assert (transport.stats().open, transport.stats().busy) == (0, 0)
        with pytest.raises(UpstreamUnreachable, match="closed"):
            await transport.request("POST", url, (), b"{}")

    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nno") as url:
        asyncio.run(main(url))


def test_what_a_writer_raises_is_raised_and_ends_the_answer(client: str) -> None:
    def write(chunk: bytes) -> None:
        raise KeyError(chunk)

    async def main(url: str) -> None:
        transport = open_transport(Bounds(), client)
        reply = await transport.request("POST", url, (), b"{}")
        with pytest.raises(KeyError):
            await reply.deliver(write)
        await reply.close()
        assert transport.stats().busy == 0
        await transport.close()

    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nno", close=False) as url:
        asyncio.run(main(url))


def test_a_paused_reply_waits_for_resume_and_for_no_longer_than_the_total_timeout(client: str) -> None:
    async def main(url: str) -> None:
        transport = open_transport(Bounds(idle_timeout_s=0.05, total_timeout_s=0.2), client)
        reply = await transport.request("POST", url, (), b"{}")
        reply.pause()
        taken: list[bytes] = []
        with pytest.raises(UpstreamTimeout):
            await reply.deliver(taken.append)
        await reply.close()
        await transport.close()

    with answering(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n", close=False) as url:
        asyncio.run(main(url))


def test_only_the_two_clients_can_be_chosen_and_only_one_takes_a_proxy() -> None:
    with pytest.raises(BadSettings, match="'curl' is unknown; choose 'native' or 'aiohttp'"):
        open_transport(Bounds(), "curl")
    with pytest.raises(BadSettings, match="choose 'aiohttp'"):
        open_transport(Bounds(), proxy="http://127.0.0.1:3128")


def test_a_forward_proxy_is_asked_for_the_whole_url() -> None:
    seen: list[bytes] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        server = await asyncio.start_server(handle, "127.0.0.1", 0)
        proxy = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        transport = open_transport(Bounds(), "aiohttp", proxy)
        reply = await transport.request("GET", "http://far.example/v1/models")
        assert (reply.status, await reply.read(2)) == (200, b"ok")
        await reply.close()
        await transport.close()
        server.close()
        await server.wait_closed()

    asyncio.run(main())
    assert seen[0].startswith(b"GET http://far.example/v1/models HTTP/1.1\r\n")
