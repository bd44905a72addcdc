"""A scripted upstream on a real socket, in the loop of the test."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest
import uvloop

from gateway.transport import Stats, Transport, TransportReply

Handle = Callable[["Peer"], Awaitable[None]]
Run = Callable[[Coroutine[Any, Any, Any]], Any]
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
loops = pytest.mark.parametrize("run", [asyncio.run, uvloop.run], ids=["asyncio", "uvloop"])


@dataclass(frozen=True)
class Limits:
    connect_timeout_s: float = 5.0
    first_byte_timeout_s: float = 10.0
    idle_timeout_s: float = 10.0
    total_timeout_s: float = 20.0
    max_response_bytes: int = 10_000_000


@dataclass
class Peer:
    """One connection, as the upstream sees it."""

    number: int
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def request(self) -> tuple[bytes, bytes]:
        """The head and body of the next request; raises IncompleteReadError where there is none."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or b"0")
        return head, await self.reader.readexactly(length)

    async def send(self, *pieces: bytes) -> None:
        """Each piece in a segment of its own, as far as the kernel goes along."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()
            await asyncio.sleep(0)

    async def left(self) -> None:
        """Return when the client has closed."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65536):
                pass

    def reset(self) -> None:
        """Close with RST instead of FIN."""
        linger = struct.pack("ii", 1, 0)
        self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self.writer.transport.abort()


class Upstream:
    """What was asked of it so far."""

    def __init__(self) -> None:
        self.url = ""
        self.connections = 0
        self.open = 0
        self.requests = 0
        self.peers: list[Peer] = []


@contextlib.asynccontextmanager
async def upstream(handle: Handle, **options: Any) -> AsyncIterator[Upstream]:
    """Run *handle* for each connection; it is closed when that returns."""
    self = Upstream()
    tasks: set[asyncio.Task[Any]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        self.connections += 1
        self.open += 1
        peer = Peer(self.connections, reader, writer)
        self.peers.append(peer)
        try:
            await handle(peer)
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client closed an idle connection, or the test is over
        finally:
            writer.close()
            with contextlib.suppress(Exception, asyncio.CancelledError):
                await writer.wait_closed()
            self.open -= 1
            tasks.discard(task)

    server = await asyncio.start_server(serve, "127.0.0.1", 0, **options)
    scheme = "https" if options.get("ssl") else "http"
    self.url = f"{scheme}://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield self
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)


def always(*pieces: bytes) -> Handle:
    """Answer every request so, and keep the connection."""

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(*pieces)

    return handle


def scripted(*answers: bytes | None) -> Handle:
    """
    Answer the requests of all connections in this order, keeping connections; None closes instead.
    """
    left = list(answers)

    async def handle(peer: Peer) -> None:
        while True:
            await peer.request()
            answer = left.pop(0)
            if answer is None:
                return
            await peer.send(answer)

    return handle


@contextlib.asynccontextmanager
async def client(limits: Limits | None = None, **options: Any) -> AsyncIterator[Transport]:
    """A transport that is closed, and must be empty, in the end."""
    transport = Transport(limits or Limits(), **options)
    try:
        yield transport
    finally:
        await transport.close()
    stats = transport.stats()
    assert (stats.open, stats.idle, stats.busy, stats.waiting) == (0, 0, 0, 0)


async def fetch(transport: Transport, url: str, body: bytes | None = b"{}", method: str = "POST") -> bytes:
    """The body of one whole exchange."""
    reply = await transport.request(method, url, (), body)
    try:
        return await reply.read(2**62)
    finally:
        await reply.close()


WAYS = ("chunks", "read", "deliver")


async def take(reply: TransportReply, way: str, into: list[bytes] | None = None) -> bytes:
    """The body of *reply*, in one of three ways; pieces that came before an error are *into*."""
    taken = [] if into is None else into
    if way == "chunks":
        async for chunk in reply.chunks():
            taken.append(chunk)
    elif way == "read":
        taken.append(await reply.read(2**62))
    else:
        await reply.deliver(taken.append)
    return b"".join(taken)


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Return once *condition* holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - nobody sets an event for it
            await asyncio.sleep(0.001)


def now(stats: Stats) -> tuple[int, int, int]:
    """Idle and busy connections, waiting requests."""
    return stats.idle, stats.busy, stats.waiting


async def each(cases: list[Any], do: Callable[[Any], Awaitable[None]], at_once: int = 50) -> None:
    """*do* every case, some at a time; a failure names its case."""
    room = asyncio.Semaphore(at_once)

    async def one(case: Any) -> None:
        async with room:
            try:
                await do(case)
            except Exception as error:
                error.add_note(f"case {case!r}")
                raise

    async with asyncio.TaskGroup() as group:
        for case in cases:
            group.create_task(one(case))
