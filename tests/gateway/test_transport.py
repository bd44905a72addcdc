"""The upstream client: what it refuses, what it bounds, what it never follows."""

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
from gateway.transport import Transport


@dataclass(frozen=True)
class Bounds:
    connect_timeout_s: float = 2.0
    first_byte_timeout_s: float = 5.0
    idle_timeout_s: float = 5.0
    total_timeout_s: float = 5.0
    max_response_bytes: int = 1000


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


async def fetch(url: str, bounds: Bounds) -> tuple[int, bytes]:
    transport = Transport(bounds)
    try:
        reply = await transport.request("POST", url, ((b"x", b"y"),), b"{}")
        try:
            return reply.status, b"".join([chunk async for chunk in reply.chunks()])
        finally:
            await reply.close()
            await reply.close()
    finally:
        await transport.close()
        await transport.close()


def got(url: str, bounds: Bounds | None = None) -> tuple[int, bytes]:
    return asyncio.run(fetch(url, bounds or Bounds()))


def test_a_redirect_is_an_answer() -> None:
    head = b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 2\r\n\r\nno"
    with answering(head) as url:
        assert got(url) == (302, b"no")


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
def test_what_is_not_a_whole_answer_is_an_error(answer: bytes, error: type[UpstreamError]) -> None:
    with answering(answer) as url, pytest.raises(error):
        got(url)


def test_an_answer_cut_at_any_byte_is_an_error_or_is_whole() -> None:
    whole = b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 4\r\n\r\nbody"
    for length in range(len(whole) + 1):
        with answering(whole[:length]) as url:
            if length < len(whole):
                with pytest.raises(UpstreamBroken):
                    got(url)
            else:
                assert got(url) == (200, b"body")


@pytest.mark.parametrize(
    ("pieces", "bounds"),
    [
        ((), Bounds(first_byte_timeout_s=0.05)),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",), Bounds(idle_timeout_s=0.05)),
        ((b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nab",), Bounds(total_timeout_s=0.05)),
    ],
)
def test_every_wait_has_a_bound(pieces: tuple[bytes, ...], bounds: Bounds) -> None:
    with answering(*pieces, close=False) as url, pytest.raises(UpstreamTimeout):
        got(url, bounds)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/v1", "http://", "http://no-such-host.invalid/"])
def test_where_nothing_listens_it_says_so(url: str) -> None:
    with pytest.raises(UpstreamUnreachable):
        got(url)
