"""
The client of `aiohttp` behind the same interface, for upstreams behind a forward proxy.

It costs several times what the native client does; `gateway.transport.open_transport` loads it on demand.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp

from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamTooLarge, UpstreamUnreachable
from gateway.transport.base import HOP_BY_HOP, KEEP_ALIVE_S, POOL_SIZE, Headers, Stats, Timeouts
from gateway.transport.outgoing import checked, locate
from gateway.transport.tls import TlsOptions, context_of


class AiohttpReply:
    """
    An answer whose head has arrived; the caller closes it.

    `headers` have lower-case names and no hop-by-hop fields.
    """

    __slots__ = (
        "_answer", "_client", "_closed", "_deadline", "_idle_s", "_limit", "_received", "_running", "headers",
        "status",
    )  # fmt: skip

    def __init__(
        self, answer: aiohttp.ClientResponse, deadline: float, limits: Timeouts, client: AiohttpTransport
    ) -> None:
        """Wrap *answer*; *deadline* is the event loop's time at which it must have ended."""
        self.status = answer.status
        self.headers: Headers = tuple(
            (name.lower(), value) for name, value in answer.raw_headers if name.lower() not in HOP_BY_HOP
        )
        self._answer = answer
        self._client: AiohttpTransport | None = client
        self._deadline = deadline
        self._idle_s = limits.idle_timeout_s
        self._limit = limits.max_response_bytes
        self._received = 0
        self._running = asyncio.Event()
        self._running.set()
        self._closed = asyncio.Event()

    async def chunks(self) -> AsyncIterator[bytes]:
        """
        The body as it arrives, once.

        Raises:
            UpstreamTimeout: nothing came for the idle timeout, or the total timeout passed.
            UpstreamBroken: the connection ended before the body did.
            UpstreamTooLarge: the body passed the size bound.
        """
        while chunk := await self._next():
            yield chunk

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamTooLarge if it has more than *limit* bytes; else as `chunks`."""
        self._limit = min(self._limit, limit)
        pieces = []
        while chunk := await self._next():
            pieces.append(chunk)
        return b"".join(pieces)

    async def deliver(self, write: Callable[[bytes], None]) -> None:
        """Call *write* with each piece as it arrives; what it raises cuts the connection. As `chunks`."""
        try:
            while chunk := await self._next():
                write(chunk)
        except BaseException:
            self._end()
            raise

    def pause(self) -> None:
        """Take nothing more from the upstream; the idle timeout does not count meanwhile."""
        self._running.clear()

    def resume(self) -> None:
        """Take more."""
        self._running.set()

    async def close(self) -> None:
        """Give the connection back if the body was read to its end, else cut it. Idempotent."""
        self._end()

    def _end(self) -> None:
        self._answer.close()
        self._closed.set()
        self._running.set()
        client, self._client = self._client, None
        if client is not None:
            client.left()

    async def _next(self) -> bytes:
        """The next piece; empty at the end."""
        content = self._answer.content
        loop = asyncio.get_running_loop()
        try:
            if not self._running.is_set():
                async with asyncio.timeout_at(self._deadline):
                    await self._running.wait()
            if self._closed.is_set() and not content.is_eof():
                raise UpstreamBroken
            async with asyncio.timeout_at(min(loop.time() + self._idle_s, self._deadline)):
                chunk = await content.readany()
        except TimeoutError as error:
            message = "the model stopped in the middle of its answer"
            raise UpstreamTimeout(message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamBroken from error
        self._received += len(chunk)
        if self._received > self._limit:
            self._end()
            message = f"the model's answer is larger than {self._limit} bytes"
            raise UpstreamTooLarge(message)
        return chunk


class AiohttpTransport:
    """A pool of connections. Owned by one event loop; made ready by its first request."""

    def __init__(self, limits: Timeouts, *, proxy: str | None = None, tls: TlsOptions | None = None) -> None:
        """*limits* bound every request; all go through *proxy* if there is one."""
        self._limits = limits
        self._proxy = proxy
        self._tls = tls
        self._session: aiohttp.ClientSession | None = None
        self._closed = False
        self._busy = self._created = self._reused = 0

    async def request(
        self, method: str, url: str, headers: Headers = (), body: bytes | None = None, trace: bytes = b""
    ) -> AiohttpReply:
        """
        Send a request and wait for the head of its answer. Redirects are answers, not followed.

        Args:
            trace: a valid `traceparent` to send too; empty sends none.

        Raises:
            UpstreamUnreachable: no connection within the connect timeout, a bad name or certificate.
            UpstreamTimeout: no head within the first-byte timeout.
            UpstreamBroken: what came is not HTTP, is compressed, or ended too early.
            ValueError: the URL or a header cannot be sent; see `outgoing`.
        """
        locate(url)
        checked(headers)
        session = self._open()
        started = asyncio.get_running_loop().time()
        if trace:
            headers = (*headers, (b"traceparent", trace))
        sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        try:
            async with asyncio.timeout_at(started + self._limits.first_byte_timeout_s):
                answer = await session.request(
                    method, url, headers=sent, data=body, allow_redirects=False, proxy=self._proxy
                )
        except aiohttp.ConnectionTimeoutError as error:
            message = f"no connection to the model within {self._limits.connect_timeout_s:g} s"
            raise UpstreamUnreachable(message) from error
        except TimeoutError as error:
            message = f"the model did not begin to answer within {self._limits.first_byte_timeout_s:g} s"
            raise UpstreamTimeout(message) from error
        except (aiohttp.ClientConnectorError, aiohttp.ClientHttpProxyError, aiohttp.InvalidURL) as error:
            raise UpstreamUnreachable from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamBroken from error
        except RuntimeError as error:
            if not self._closed:
                raise
            raise UpstreamUnreachable from error
        self._busy += 1
        reply = AiohttpReply(answer, started + self._limits.total_timeout_s, self._limits, self)
        encoding = answer.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            await reply.close()
            message = f"the model answered with content-encoding {encoding[:20]!r}: nobody asked for that"
            raise UpstreamBroken(message)
        return reply

    def stats(self) -> Stats:
        """Counts. aiohttp tells neither of idle connections nor of waiting requests."""
        return Stats(open=self._busy, busy=self._busy, created=self._created, reused=self._reused)

    async def close(self) -> None:
        """Close every connection, used ones too; later requests are UpstreamUnreachable. Idempotent."""
        self._closed = True
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def left(self) -> None:
        """A reply was closed."""
        self._busy -= 1

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            message = "the connections to the model were closed; ask again"
            raise UpstreamUnreachable(message)
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0,
                    limit_per_host=POOL_SIZE,
                    keepalive_timeout=KEEP_ALIVE_S,
                    ttl_dns_cache=60,
                    ssl=context_of(self._tls) if self._tls is not None else True,
                ),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                headers={"accept-encoding": "identity", "user-agent": "sluicegate"},
                skip_auto_headers=("accept", "content-type"),
                trace_configs=[self._counting()],
            )
        return self._session

    def _counting(self) -> aiohttp.TraceConfig:
        trace = aiohttp.TraceConfig()

        async def created(*_: object) -> None:
            self._created += 1

        async def reused(*_: object) -> None:
            self._reused += 1

        trace.on_connection_create_end.append(created)
        trace.on_connection_reuseconn.append(reused)
        return trace
