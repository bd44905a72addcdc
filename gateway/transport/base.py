"""What every HTTP client here takes and gives, so that they can be swapped."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Headers = Sequence[tuple[bytes, bytes]]
HOP_BY_HOP = frozenset(
    {
        b"connection", b"keep-alive", b"proxy-authenticate", b"proxy-connection", b"te", b"trailer",
        b"transfer-encoding", b"upgrade",
    }
)  # fmt: skip
"""Fields that speak of one connection only and are never passed on (RFC 9110, section 7.6.1)."""
POOL_SIZE = 512
"""Connections to one origin at most; more requests wait for up to the connect timeout."""
KEEP_ALIVE_S = 4.0
"""Below the 5 s after which common servers close idle connections, so none is reused half-closed."""


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
        """Between two pieces of the body; does not count while reading is paused."""
        ...

    @property
    def total_timeout_s(self) -> float:
        """From the request to the end of the body."""
        ...

    @property
    def max_response_bytes(self) -> int:
        """Longest body."""
        ...


@dataclass(frozen=True, slots=True)
class Stats:
    """Connections and requests of a client, now (the first four) and since it was made."""

    open: int = 0
    """Established connections: idle and busy ones."""
    idle: int = 0
    busy: int = 0
    """Connections with a request whose answer has not ended."""
    waiting: int = 0
    """Requests that wait for a connection, to be made or to come free."""
    created: int = 0
    reused: int = 0
    """Requests that went over a connection that had served before."""


class HttpReply(Protocol):
    """
    An answer whose head has arrived; the caller closes it.

    `headers` have lower-case names and no hop-by-hop fields. The body is taken once, with one of
    `chunks`, `read` and `deliver`. Each of them raises

        UpstreamTimeout: nothing came for the idle timeout, or the total timeout passed.
        UpstreamBroken: the connection ended before the body did.
        UpstreamTooLarge: the body passed the size bound.
    """

    status: int
    headers: Headers

    def chunks(self) -> AsyncIterator[bytes]:
        """The body as it arrives. The upstream is read no faster than pieces are taken."""
        ...

    async def read(self, limit: int) -> bytes:
        """The whole body. Raises UpstreamTooLarge if it has more than *limit* bytes."""
        ...

    async def deliver(self, write: Callable[[bytes], None]) -> None:
        """
        Call *write* with each piece of the body as it arrives; return when the body has ended.

        What *write* raises cuts the connection and is raised here.
        """
        ...

    def pause(self) -> None:
        """Stop reading from the upstream: whoever takes the body is too slow."""
        ...

    def resume(self) -> None:
        """Read again."""
        ...

    async def close(self) -> None:
        """Give the connection back if the body was read to its end, else cut it. Idempotent."""
        ...


class HttpClient(Protocol):
    """A pool of connections. Owned by one event loop; made ready by its first request."""

    async def request(
        self, method: str, url: str, headers: Headers = (), body: bytes | None = None, trace: bytes = b""
    ) -> HttpReply:
        """
        Send a request and wait for the head of its answer. Redirects are answers, not followed.

        Args:
            trace: a valid `traceparent` to send too; empty sends none.

        Raises:
            UpstreamUnreachable: no connection within the connect timeout, a bad name or certificate.
            UpstreamTimeout: no head within the first-byte timeout.
            UpstreamBroken: what came is not HTTP, is compressed, or ended too early.
            ValueError: the URL, the method or a header cannot be sent; see `outgoing`.
        """
        ...

    def stats(self) -> Stats:
        """Counts for metrics."""
        ...

    async def close(self) -> None:
        """Close every connection, used ones too; later requests are UpstreamUnreachable. Idempotent."""
        ...
