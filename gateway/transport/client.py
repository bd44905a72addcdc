"""A pooled HTTP/1.1 client: every wait has a bound, and no cookie or redirect is ever followed."""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass

from gateway.errors import UpstreamTimeout, UpstreamUnreachable
from gateway.transport.base import Headers, Stats, Timeouts
from gateway.transport.connection import Bounds, Connection, Stale
from gateway.transport.outgoing import Origin, head_of, locate
from gateway.transport.pool import Pool, PoolRules
from gateway.transport.reply import TransportReply
from gateway.transport.tls import TlsOptions, context_of

_MAX_PLANS = 512
_MAX_POOLS = 64


@dataclass(frozen=True, slots=True)
class _Plan:
    """What requests of one method to one URL with the same headers share."""

    pool: Pool
    head: bytes
    empty_head: bytes
    """The head where there is no body."""
    bodiless: bool


class Transport:
    """A pool of connections. Owned by one event loop; made ready by its first request."""

    def __init__(
        self, limits: Timeouts, *, tls: TlsOptions | None = None, rules: PoolRules | None = None
    ) -> None:
        """*limits* bound every request, *rules* the connections to each origin."""
        self._limits = limits
        self._tls = tls or TlsOptions()
        self._rules = rules or PoolRules()
        self._bounds = Bounds(
            limits.first_byte_timeout_s,
            limits.idle_timeout_s,
            limits.total_timeout_s,
            limits.max_response_bytes,
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._context: ssl.SSLContext | None = None
        self._plans: dict[tuple[str, str, Headers], _Plan] = {}
        self._pools: dict[Origin, Pool] = {}
        self._gone = Stats()
        self._closed = False

    async def request(
        self, method: str, url: str, headers: Headers = (), body: bytes | None = None, trace: bytes = b""
    ) -> TransportReply:
        """
        Send a request and wait for the head of its answer. Redirects are answers, not followed.

        A request that a kept connection did not take, because the upstream had let go of it, goes out
        once more on a new one. Heads are remembered by method, URL and headers: what changes with each
        request belongs in the body, but for *trace*, a valid `traceparent`, where it is not empty.

        Raises:
            UpstreamUnreachable: no connection within the connect timeout, a bad name or certificate.
            UpstreamTimeout: no head within the first-byte timeout.
            UpstreamBroken: what came is not HTTP, is compressed, or ended too early.
            ValueError: the URL, the method or a header cannot be sent; see `outgoing`.
        """
        loop = self._loop
        if loop is None:
            loop = self._loop = asyncio.get_running_loop()
        started = loop.time()
        if type(headers) is not tuple:
            headers = tuple(headers)
        plan = self._plans.get((method, url, headers))
        if plan is None:
            plan = self._plan(loop, method, url, headers)
        head = plan.empty_head if body is None else plan.head + b"content-length: %d\r\n" % len(body)
        if trace:
            head += b"traceparent: %b\r\n" % trace
        connection = plan.pool.take(started)
        if connection is None:
            connection = await self._connect(plan.pool, started)
        waiting = connection.send(head, body, started, bodiless=plan.bodiless)
        try:
            return await waiting
        except Stale:
            pass
        except BaseException:
            connection.give_up(waiting)
            raise
        connection = await self._connect(plan.pool, started, fresh=True)
        waiting = connection.send(head, body, started, bodiless=plan.bodiless)
        try:
            return await waiting
        except BaseException:
            connection.give_up(waiting)
            raise

    def stats(self) -> Stats:
        """Counts of all origins together."""
        every = [pool.stats() for pool in self._pools.values()]
        return Stats(
            open=sum(stats.open for stats in every),
            idle=sum(stats.idle for stats in every),
            busy=sum(stats.busy for stats in every),
            waiting=sum(stats.waiting for stats in every),
            created=sum(stats.created for stats in every) + self._gone.created,
            reused=sum(stats.reused for stats in every) + self._gone.reused,
        )

    async def close(self) -> None:
        """Close every connection, used ones too; later requests are UpstreamUnreachable. Idempotent."""
        self._closed = True
        for pool in list(self._pools.values()):
            await pool.close()

    async def _connect(self, pool: Pool, started: float, *, fresh: bool = False) -> Connection:
        connect_s = self._limits.connect_timeout_s
        answer_s = min(self._bounds.first_byte_s, self._bounds.total_s)
        try:
            return await pool.get(started + min(connect_s, answer_s), fresh=fresh)
        except TimeoutError as error:
            if connect_s <= answer_s:
                message = f"no connection to the model within {connect_s:g} s"
                raise UpstreamUnreachable(message) from error
            message = f"the model did not begin to answer within {answer_s:g} s"
            raise UpstreamTimeout(message) from error

    def _plan(self, loop: asyncio.AbstractEventLoop, method: str, url: str, headers: Headers) -> _Plan:
        """
        Check and remember what to send and where.

        Raises:
            ValueError, UpstreamUnreachable: see `outgoing`; or the client was closed.
        """
        if self._closed:
            message = "the connections to the model were closed; ask again"
            raise UpstreamUnreachable(message)
        origin, host, target = locate(url)
        head = head_of(method, host, target, headers)
        if len(self._plans) >= _MAX_PLANS:
            self._plans.clear()
        if origin not in self._pools:
            if len(self._pools) >= _MAX_POOLS:
                self._drop_unused()
            self._pools[origin] = Pool(origin, self._bounds, self._rules, self._secure, loop)
        plan = _Plan(
            self._pools[origin],
            head,
            head + b"content-length: 0\r\n" if method in ("POST", "PUT", "PATCH") else head,
            method == "HEAD",
        )
        self._plans[method, url, headers] = plan
        return plan

    def _drop_unused(self) -> None:
        """Forget origins without connections, and with them what would use their pools."""
        self._plans.clear()
        for origin, pool in list(self._pools.items()):
            if pool.unused:
                stats = self._pools.pop(origin).stats()
                self._gone = Stats(
                    created=self._gone.created + stats.created, reused=self._gone.reused + stats.reused
                )

    def _secure(self) -> ssl.SSLContext:
        if self._context is None:
            self._context = context_of(self._tls)
        return self._context
