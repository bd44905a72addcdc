"""A pooled HTTP/1.1 client: every wait has a bound, and no cookie or redirect is ever followed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Protocol

from gateway.errors import UpstreamBroken, UpstreamTimeout, UpstreamTooLarge, UpstreamUnreachable

if TYPE_CHECKING:
    import aiohttp

Headers = Sequence[tuple[bytes, bytes]]
_POOL = 512
"""Connections to one origin at most; more requests wait for up to the connect timeout."""
_KEEP_ALIVE_S = 4.0
"""Below the 5 s after which common servers close idle connections, so none is reused half-closed."""
_HOP_BY_HOP = frozenset(
    (b"connection", b"keep-alive", b"proxy-authenticate", b"te", b"trailer", b"transfer-encoding", b"upgrade")
)


class Timeouts(Protocol):
    """The bounds of one upstream; `ProviderOptions` has them."""

    @property
    def connect_timeout_s(self) -> float:
        """To get a connection, new or pooled."""
        ...

    @property
    def first_byte_timeout_s(self) -> float:
        """From the request to the head of the answer."""
        ...

    @property
    def idle_timeout_s(self) -> float:
        """Between two pieces of the body."""
        ...

    @property
    def total_timeout_s(self) -> float:
        """From the request to the end of the body."""
        ...

    @property
    def max_response_bytes(self) -> int:
        """Longest body."""
        ...


class TransportReply:
    """
    An answer whose head has arrived; the caller closes it.

    `headers` have lower-case names and no hop-by-hop fields.
    """

    __slots__ = ("_deadline", "_idle_s", "_limit", "_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse, deadline: float, limits: Timeouts) -> None:
        """Wrap *response*; *deadline* is the event loop's time at which it must have ended."""
        self.status = response.status
        self.headers: Headers = tuple(
            (name.lower(), value) for name, value in response.raw_headers if name.lower() not in _HOP_BY_HOP
        )
        self._response = response
        self._deadline = deadline
        self._idle_s = limits.idle_timeout_s
        self._limit = limits.max_response_bytes

    async def chunks(self) -> AsyncIterator[bytes]:
        """
        The body as it arrives, once.

        Raises:
            UpstreamTimeout: nothing came for the idle timeout, or the total timeout passed.
            UpstreamBroken: the connection ended before the body did.
            UpstreamTooLarge: the body passed the size bound.
        """
        import aiohttp

        content = self._response.content
        loop = asyncio.get_running_loop()
        received = 0
        try:
            while True:
                until = min(loop.time() + self._idle_s, self._deadline)
                async with asyncio.timeout_at(until):
                    chunk = await content.readany()
                if not chunk:
                    return
                received += len(chunk)
                if received > self._limit:
                    message = f"the model's answer is larger than {self._limit} bytes"
                    raise UpstreamTooLarge(message)
                yield chunk
        except TimeoutError as error:
            message = "the model stopped in the middle of its answer"
            raise UpstreamTimeout(message) from error
        except (aiohttp.ClientError, OSError) as error:
            raise UpstreamBroken from error

    async def close(self) -> None:
        """Give the connection back if the body was read to its end, else cut it. Idempotent."""
        self._response.close()


class Transport:
    """A pool of connections. Owned by one event loop; made ready by its first request."""

    def __init__(self, limits: Timeouts) -> None:
        """*limits* bound every request."""
        self._limits = limits
        self._session: aiohttp.ClientSession | None = None

    async def request(
        self, method: str, url: str, headers: Headers = (), body: bytes | None = None
    ) -> TransportReply:
        """
        Send a request and wait for the head of its answer. Redirects are answers, not followed.

        Raises:
            UpstreamUnreachable: no connection within the connect timeout, a bad name or certificate.
            UpstreamTimeout: no head within the first-byte timeout.
            UpstreamBroken: what came is not HTTP, is compressed, or ended too early.
        """
        session = self._open()
        import aiohttp

        started = asyncio.get_running_loop().time()
        sent = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]
        try:
            async with asyncio.timeout_at(started + self._limits.first_byte_timeout_s):
                response = await session.request(method, url, headers=sent, data=body, allow_redirects=False)
        except aiohttp.ConnectionTimeoutError as error:
            message = f"no connection to the model within {self._limits.connect_timeout_s:g} s"
            raise UpstreamUnreachable(message) from error
        except TimeoutError as error:
            message = f"the model did not begin to answer within {self._limits.first_byte_timeout_s:g} s"
            raise UpstreamTimeout(message) from error
        except (aiohttp.ClientConnectorError, aiohttp.InvalidURL) as error:
            raise UpstreamUnreachable from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise UpstreamBroken from error
        reply = TransportReply(response, started + self._limits.total_timeout_s, self._limits)
        encoding = response.headers.get("content-encoding", "identity")
        if encoding.lower() != "identity":
            await reply.close()
            message = f"the model answered with content-encoding {encoding[:20]!r}, which was not asked for"
            raise UpstreamBroken(message)
        return reply

    async def close(self) -> None:
        """Close every connection, used ones too. Idempotent."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            import aiohttp

            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    limit=0, limit_per_host=_POOL, keepalive_timeout=_KEEP_ALIVE_S, ttl_dns_cache=60
                ),
                timeout=aiohttp.ClientTimeout(total=None, connect=self._limits.connect_timeout_s),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                auto_decompress=False,
                headers={"accept-encoding": "identity", "user-agent": "sluicegate"},
                skip_auto_headers=("accept", "content-type"),
            )
        return self._session
