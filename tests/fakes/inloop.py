"""A data plane, its upstream and its clients in one event loop: thousands of exchanges in seconds."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from gateway.transport.server import Site
from tests.fakes.parts import CLIENT_KEY

Script = Callable[[bytes], "Act"]


@dataclass(frozen=True)
class Act:
    """What the upstream does with one request: sends *data*, then *then*."""

    data: bytes
    then: str = "keep"
    """keep, fin, rst or stall."""


@dataclass
class ServerState:
    """What uvicorn shares among connections."""

    connections: set[Any] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    default_headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class RawUpstream:
    """Reads whole requests, and answers each as the script says."""

    def __init__(self) -> None:
        self.script: Script = lambda _body: Act(b"")
        self.requests = 0
        self.left = 0
        """Connections that the other side closed while an answer was open."""
        self.url = ""

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
                body = await reader.readexactly(length)
                self.requests += 1
                act = self.script(body)
                writer.write(act.data)
                if act.then == "stall":
                    await reader.read()
                    self.left += 1
                    return
                if act.then == "fin":
                    return
                if act.then == "rst":
                    await writer.drain()
                    reset(writer)
                    return
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the gateway closed an idle connection
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()


def reset(writer: asyncio.StreamWriter) -> None:
    """Close with RST instead of FIN."""
    connection = writer.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


@contextlib.asynccontextmanager
async def raw_upstream() -> AsyncIterator[RawUpstream]:
    """A scripted upstream on a real socket."""
    upstream = RawUpstream()
    server = await asyncio.start_server(upstream.handle, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    try:
        yield upstream
    finally:
        server.close()


@contextlib.asynccontextmanager
async def serving_in_loop(site: Site) -> AsyncIterator[tuple[int, ServerState]]:
    """The port of *site*, served in the running loop, and what its connections share."""
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: site.protocol(None, state, None), "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], state
    finally:
        server.close()
        for connection in list(state.connections):
            connection.abort()
        await until(lambda: not (state.connections or state.tasks))
        if site.sweeper is not None:
            site.sweeper.cancel()


def post(body: bytes, path: str = "/v1/chat/completions", head: str = "") -> bytes:
    """The bytes of a request with the key that the fake table knows."""
    return (
        f"POST {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {CLIENT_KEY}\r\n{head}"
        f"content-length: {len(body)}\r\n\r\n"
    ).encode() + body


async def ask(port: int, request: bytes) -> tuple[int, bytes]:
    """Status and body of one exchange on a connection of its own; fails where framing was not kept."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        lower = head.lower()
        if b"transfer-encoding: chunked" in lower:
            return status, await _chunks(reader)
        length = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0])
        return status, await reader.readexactly(length)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _chunks(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while True:
        size = int(await reader.readuntil(b"\r\n"), 16)
        body += await reader.readexactly(size)
        assert await reader.readexactly(2) == b"\r\n"
        if size == 0:
            return body


async def until(condition: Callable[[], object], timeout_s: float = 5.0) -> None:
    """Return once *condition* holds."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - what is waited for is no event
            await asyncio.sleep(0.001)


async def each(cases: list[Any], do: Callable[[Any], Awaitable[None]], at_once: int = 50) -> None:
    """*do* every case, some at a time; the first failure names its case."""
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
