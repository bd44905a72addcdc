"""The body of an answer on its way from a connection to whoever takes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import TYPE_CHECKING

from gateway.errors import UpstreamBroken, UpstreamTooLarge
from gateway.transport.base import Headers

if TYPE_CHECKING:
    from gateway.transport.connection import Connection

_HIGH_WATER = 262_144
"""Bytes that may wait unread before the upstream is read no further."""


class TransportReply:
    """
    An answer whose head has arrived; the caller closes it.

    `headers` have lower-case names and no hop-by-hop fields. The connection goes back to its pool as
    soon as the body has arrived, read or not.
    """

    __slots__ = (
        "_collecting", "_connection", "_ended", "_error", "_held", "_limit", "_on_data", "_pieces", "_size",
        "_total", "_waiter", "_write", "headers", "status",
    )  # fmt: skip

    def __init__(self, status: int, headers: Headers, connection: Connection, limit: int) -> None:
        """The answer on *connection*, whose body may have *limit* bytes."""
        self.status = status
        self.headers: Headers = headers
        self._connection: Connection | None = connection
        self._limit = limit
        self._pieces: list[bytes] = []
        self._size = 0
        self._total = 0
        self._ended = False
        self._error: Exception | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._on_data = False
        self._collecting = False
        self._held = False
        self._write: Callable[[bytes], None] | None = None

    # For whoever takes the body.

    def chunks(self) -> AsyncIterator[bytes]:
        """
        The body as it arrives, once; pieces that came together come as one.

        Raises:
            UpstreamTimeout: nothing came for the idle timeout, or the total timeout passed.
            UpstreamBroken: the connection ended before the body did.
            UpstreamTooLarge: the body passed the size bound.
        """
        return _Chunks(self)

    async def next(self) -> bytes:
        """The next chunk; empty at the end. Raises as `chunks`."""
        while not self._pieces:
            if self._ended:
                if self._error is not None:
                    raise self._error
                return b""
            await self._wait(on_data=True)
        return self._take()

    async def read(self, limit: int) -> bytes:
        """
        The whole body; does not wait if it has come already.

        Raises:
            UpstreamTooLarge: it has more than *limit* bytes, or passed the size bound.
            UpstreamTimeout, UpstreamBroken: as `chunks`.
        """
        if not self._ended:
            self._limit = min(self._limit, limit)
            self._collecting = True
            self._unhold()
            if self._total > self._limit:
                self.cut(too_large(self._limit))
            else:
                await self._wait(on_data=False)
        if self._error is not None:
            raise self._error
        body = self._take() if self._pieces else b""
        if len(body) > limit:
            raise too_large(limit)
        return body

    async def deliver(self, write: Callable[[bytes], None]) -> None:
        """
        Call *write* with each piece as it arrives, from the event loop and not from a task.

        What *write* raises cuts the connection and is raised here; closing the reply ends the wait with
        UpstreamBroken.

        Raises:
            UpstreamTimeout, UpstreamBroken, UpstreamTooLarge: as `chunks`.
        """
        if self._pieces:
            try:
                write(self._take())
            except BaseException:
                self.cut(_given_up())
                raise
        if not self._ended:
            self._write = write
            await self._wait(on_data=False)
        if self._error is not None:
            raise self._error

    def pause(self) -> None:
        """Stop reading from the upstream. The idle timeout does not count meanwhile, the total one does."""
        if self._connection is not None:
            self._connection.hold(by_reader=True)

    def resume(self) -> None:
        """Read again."""
        if self._connection is not None:
            self._connection.unhold(by_reader=True)

    async def close(self) -> None:
        """Cut the connection unless the body has arrived, in which case it is in use again. Idempotent."""
        if not self._ended:
            self.cut(_given_up())
        self._pieces.clear()

    # For the connection.

    def feed(self, chunk: bytes) -> None:
        """Pass *chunk* on or keep it. The connection is cut where the body is too long or not wanted."""
        self._total += len(chunk)
        if self._total > self._limit:
            self.cut(too_large(self._limit))
        elif self._write is not None:
            try:
                self._write(chunk)
            except Exception as error:  # noqa: BLE001 - raised by `deliver`
                self.cut(error)
        else:
            self._pieces.append(chunk)
            self._size += len(chunk)
            if self._on_data:
                self._wake()
            if (
                self._size > _HIGH_WATER
                and not (self._collecting or self._held)
                and self._connection is not None
            ):
                self._held = True
                self._connection.hold(by_reader=False)

    def end(self, error: Exception | None = None) -> None:
        """The body is whole, or failed with *error*. What came before is still given."""
        if not self._ended:
            self._ended = True
            self._error = error
            self._connection = None
            self._write = None
            self._wake()

    def cut(self, error: Exception) -> None:
        """Fail with *error*, now."""
        connection = self._connection
        self.end(error)
        if connection is not None:
            connection.retire()

    async def _wait(self, *, on_data: bool) -> None:
        """Until the end, or until there is something to take. One that is cancelled cuts the connection."""
        connection = self._connection
        if connection is None:
            return
        self._on_data = on_data
        self._waiter = connection.loop.create_future()
        try:
            await self._waiter
        except BaseException:
            self.cut(_given_up())
            raise
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _take(self) -> bytes:
        pieces = self._pieces
        taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        self._size = 0
        self._unhold()
        return taken

    def _unhold(self) -> None:
        if self._held and self._connection is not None:
            self._held = False
            self._connection.unhold(by_reader=False)


class _Chunks:
    """Not an async generator, which must be closed and cannot be compiled."""

    __slots__ = ("_reply",)

    def __init__(self, reply: TransportReply) -> None:
        self._reply = reply

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._reply.next()
        if not chunk:
            raise StopAsyncIteration
        return chunk


def too_large(limit: int) -> UpstreamTooLarge:
    """The error of a body with more than *limit* bytes."""
    return UpstreamTooLarge(f"the model's answer is larger than {limit} bytes")


def _given_up() -> UpstreamBroken:
    return UpstreamBroken("the model's answer was given up before its end")
