"""The connections to one origin: the one used last is used first, whoever waits longest is served first."""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from gateway.errors import UpstreamBroken, UpstreamUnreachable
from gateway.transport.base import KEEP_ALIVE_S, POOL_SIZE, Stats
from gateway.transport.connection import Bounds, Connection
from gateway.transport.outgoing import Origin

_CLOSE_S = 1.0


@dataclass(frozen=True, slots=True)
class PoolRules:
    """How many connections are kept, and for how long."""

    size: int = POOL_SIZE
    """Connections to one origin, at most, those being made included."""
    max_idle: int = 256
    """Connections that may wait for a request; further ones replace the oldest."""
    max_waiting: int = 4096
    """Requests that may wait for a connection; further ones are refused at once."""
    keep_alive_s: float = KEEP_ALIVE_S
    """How long a connection waits for its next request."""


@dataclass(slots=True, eq=False)
class _Waiter:
    turn: asyncio.Future[Connection | None]
    """A connection, or None: room for a new one."""
    fresh: bool


class Pool:
    """Connections to *origin*. Owned by one event loop."""

    def __init__(
        self,
        origin: Origin,
        bounds: Bounds,
        rules: PoolRules,
        context: Callable[[], ssl.SSLContext],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        """*context* is asked for TLS only where the origin is secure."""
        self._origin = origin
        self._bounds = bounds
        self._rules = rules
        self._context = context
        self._loop = loop
        self._closed = False
        self._slots = 0
        self._connections: set[Connection] = set()
        self._idle: list[Connection] = []
        self._waiters: deque[_Waiter] = deque()
        self._dialing: set[asyncio.Task[Connection]] = set()
        self._created = self._reused = 0

    @property
    def unused(self) -> bool:
        """Whether nothing is open, being made or waited for."""
        return self._slots == 0

    def take(self, now: float) -> Connection | None:
        """An idle connection, if there is one; *now* is the loop's time."""
        idle = self._idle
        while idle:
            connection = idle.pop()
            if connection.idle_until > now:
                self._reused += 1
                return connection
            connection.retire()
        return None

    async def get(self, until: float, *, fresh: bool = False) -> Connection:
        """
        A new connection, or, unless it must be *fresh*, one that comes free first.

        Raises:
            TimeoutError: there was none by *until*, the loop's time.
            UpstreamUnreachable: it cannot be made, too many requests wait, or the pool was closed.
        """
        if self._closed:
            raise _closed()
        if self._slots >= self._rules.size and self._idle:
            self._idle.pop(0).retire()
        if self._slots < self._rules.size:
            self._slots += 1
            return await self._make(until)
        connection = await self._wait(until, fresh=fresh)
        if connection is None:
            return await self._make(until)
        self._reused += 1
        return connection

    def release(self, connection: Connection) -> None:
        """Give *connection* to whoever waits longest, else keep it for a while."""
        waiter = self._longest()
        if waiter is not None:
            if waiter.fresh:
                self._waiters.appendleft(waiter)
                connection.retire()
            else:
                waiter.turn.set_result(connection)
            return
        connection.keep_until(self._loop.time() + self._rules.keep_alive_s)
        self._idle.append(connection)
        if len(self._idle) > self._rules.max_idle:
            self._idle.pop(0).retire()

    def discard(self, connection: Connection) -> None:
        """Forget *connection*; whoever waits longest may make another in its place."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        self._free()

    def stats(self) -> Stats:
        """Counts."""
        idle = len(self._idle)
        return Stats(
            open=len(self._connections),
            idle=idle,
            busy=len(self._connections) - idle,
            waiting=len(self._waiters) + len(self._dialing),
            created=self._created,
            reused=self._reused,
        )

    async def close(self) -> None:
        """Cut every connection, refuse whoever waits; returns when the sockets are closed. Idempotent."""
        self._closed = True
        while (waiter := self._longest()) is not None:
            waiter.turn.set_exception(_closed())
        for task in list(self._dialing):
            task.cancel()
        gone: list[asyncio.Future[None]] = []
        for connection in list(self._connections):
            gone.append(connection.gone)
            connection.fail(UpstreamBroken("the connections to the model were closed"))
        if gone:
            await asyncio.wait(gone, timeout=_CLOSE_S)

    def _longest(self) -> _Waiter | None:
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.turn.done():
                return waiter
        return None

    def _free(self) -> None:
        """A connection less: the one who waits longest has its place, or nobody."""
        waiter = self._longest()
        if waiter is not None:
            waiter.turn.set_result(None)
        else:
            self._slots -= 1

    async def _wait(self, until: float, *, fresh: bool) -> Connection | None:
        if len(self._waiters) >= self._rules.max_waiting:
            message = f"{self._rules.max_waiting} requests wait for a connection to the model already"
            raise UpstreamUnreachable(message)
        waiter = _Waiter(self._loop.create_future(), fresh)
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout_at(until):
                return await waiter.turn
        except BaseException:
            turn = waiter.turn
            if waiter in self._waiters:
                self._waiters.remove(waiter)
            elif turn.done() and not turn.cancelled() and turn.exception() is None:
                self._give_back(turn.result())
            raise

    def _give_back(self, connection: Connection | None) -> None:
        if connection is None:
            self._free()
        elif not connection.dead:
            self.release(connection)

    async def _make(self, until: float) -> Connection:
        """A new connection in a place that is this call's; the place is given up on failure."""
        task = self._loop.create_task(self._dial(until))
        self._dialing.add(task)
        try:
            connection = await task
        except BaseException as error:
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().retire()
            self._free()
            current = asyncio.current_task()
            if (
                isinstance(error, asyncio.CancelledError)
                and self._closed
                and not (current and current.cancelling())
            ):
                raise _closed() from error
            raise
        finally:
            self._dialing.discard(task)
        if self._closed or not connection.adopt():
            connection.retire()
            self._free()
            raise UpstreamUnreachable
        self._connections.add(connection)
        self._created += 1
        return connection

    async def _dial(self, until: float) -> Connection:
        """Raises TimeoutError, or UpstreamUnreachable."""
        if self._closed:
            raise _closed()
        # Without happy eyeballs: uvloop has none, and asyncio's leaves sockets behind when cancelled.
        origin, loop = self._origin, self._loop
        try:
            async with asyncio.timeout_at(until):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, self._bounds, loop),
                    origin.host,
                    origin.port,
                    ssl=self._context() if origin.secure else None,
                )
        except TimeoutError:
            raise
        except (OSError, ValueError) as error:
            raise UpstreamUnreachable from error
        return connection


def _closed() -> UpstreamUnreachable:
    return UpstreamUnreachable("the connections to the model were closed; ask again")
