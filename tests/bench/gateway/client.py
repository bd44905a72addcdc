"""A bare HTTP/1.1 client connection that costs little and notes when things arrived."""

from __future__ import annotations

import asyncio
import math
import socket
import time
from typing import Any

import httptools

from tests.bench.gateway.upstream import MARK


class Reply:
    """What came back for one request; `error` is empty when it was whole."""

    __slots__ = ("body", "ended_at", "error", "first_at", "retry_after_s", "sent_at", "status")

    def __init__(self) -> None:
        self.status = 0
        self.body = bytearray()
        self.sent_at = math.nan
        self.first_at = math.nan
        """When the first byte of the body arrived; all times by time.perf_counter."""
        self.ended_at = math.nan
        self.retry_after_s = math.nan
        self.error = ""

    @property
    def marks(self) -> int:
        """Content chunks that arrived."""
        return self.body.count(MARK)

    def is_whole(self, chunks: int) -> bool:
        """Whether a stream brought every chunk and its end."""
        return not self.error and self.status == 200 and self.marks == chunks and b"[DONE]" in self.body[-40:]


class Connection(asyncio.Protocol):
    """Carries one request at a time; opens itself again when the server closed."""

    def __init__(self, host: str, port: int, timeout_s: float) -> None:
        self.host, self.port, self.timeout_s = host, port, timeout_s
        self.transport: Any = None
        self.parser: Any = None
        self.reply = Reply()
        self.waiter: asyncio.Future[None] | None = None
        self.first: asyncio.Future[None] | None = None
        self.loop = asyncio.get_running_loop()

    async def exchange(self, request: bytes) -> Reply:
        """Send *request*, wait for the end of its answer; every failure is told in the reply."""
        reply = self.reply = Reply()
        try:
            await self._send(request)
            timer = self.loop.call_later(self.timeout_s, self._fail, "timeout")
            try:
                if self.waiter is not None:
                    await self.waiter
            finally:
                timer.cancel()
        except OSError as error:
            reply.error = f"connect: {type(error).__name__}"
        reply.ended_at = time.perf_counter()
        return reply

    async def leave(self, request: bytes, *, after_s: float) -> Reply:
        """
        Send *request* and close the connection in the middle of the answer.

        Leaves *after_s* seconds after sending or, when that is 0, at the first byte of the body.
        """
        reply = self.reply = Reply()
        try:
            await self._send(request)
            if after_s:
                await asyncio.sleep(after_s)
            else:
                self.first = self.loop.create_future()
                async with asyncio.timeout(self.timeout_s):
                    await self.first
        except (OSError, TimeoutError) as error:
            reply.error = f"leave: {type(error).__name__}"
        self.close()
        reply.ended_at = time.perf_counter()
        return reply

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        self.waiter = self.first = None
        if self.transport is not None:
            self.transport.abort()
            self.transport = None

    async def _send(self, request: bytes) -> None:
        if self.transport is None or self.transport.is_closing():
            self.waiter = None
            await self.loop.create_connection(lambda: self, self.host, self.port)
        self.parser = httptools.HttpResponseParser(self)
        self.waiter = self.loop.create_future()
        self.reply.sent_at = time.perf_counter()
        self.transport.write(request)

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        if self.waiter is None or self.waiter.done():
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserError:
            self._fail("malformed answer")

    def connection_lost(self, error: Exception | None) -> None:
        if self.waiter is not None and not self.waiter.done():
            if self.reply.status and self.parser.get_http_version() == "1.0":
                self.on_message_complete()
            else:
                where = "in the answer" if self.reply.status else "before the answer"
                self._fail(f"{'reset' if error else 'closed'} {where}")
        self.transport = None

    def on_header(self, name: bytes, value: bytes) -> None:
        self.reply.status = self.parser.get_status_code()
        if len(name) == 11 and name.lower() == b"retry-after" and value.isdigit():
            self.reply.retry_after_s = float(value)

    def on_body(self, piece: bytes) -> None:
        reply = self.reply
        if not reply.body:
            reply.first_at = time.perf_counter()
            if self.first is not None and not self.first.done():
                self.first.set_result(None)
        reply.body += piece

    def on_message_complete(self) -> None:
        self.reply.status = self.parser.get_status_code()
        if self.first is not None and not self.first.done():
            self.first.set_result(None)
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        if not self.parser.should_keep_alive() and self.transport is not None:
            self.transport.close()
            self.transport = None

    def _fail(self, reason: str) -> None:
        self.reply.error = reason
        if self.waiter is not None and not self.waiter.done():
            self.waiter.set_result(None)
        if self.transport is not None:
            self.transport.abort()
            self.transport = None
