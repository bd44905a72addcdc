"""What a provider is to the relay: something that opens one upstream answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec


@dataclass(frozen=True, slots=True)
class Ground:
    """One sentence or passage put before the model, best first."""

    passage_id: str
    text: str
    score: float
    """Cosine similarity to the question, in [-1, 1]."""


class Call(msgspec.Struct, frozen=True):
    """One request as the provider sees it: guards and prompt are already applied."""

    path: str
    """OpenAI path, such as `/v1/chat/completions`."""
    body: bytes
    """JSON whose `model` is what the upstream calls its model."""
    stream: bool
    question: str | None = None
    """The user's last message, where the release retrieves; None elsewhere."""
    grounds: Sequence[Ground] = ()
    """What retrieval found, best first; empty where the release does not retrieve."""
    trace: bytes = b""
    """A valid `traceparent` to send along; empty where there is none."""


class Reply(Protocol):
    """
    An upstream answer whose head has arrived.

    `status` and `headers` (lower-case names, hop-by-hop headers removed) are there at once;
    `chunks` yields the body as it comes, for streams in whole or partial SSE events.
    """

    status: int
    headers: Sequence[tuple[bytes, bytes]]

    def chunks(self) -> AsyncIterator[bytes]:
        """
        The body, once.

        Raises:
            UpstreamError: the upstream broke off, or a timeout passed, before the end.
        """
        ...

    async def close(self) -> None:
        """Give the upstream up, now; safe at any time and more than once."""
        ...


class Provider(Protocol):
    """Speaks to one upstream. Owned by one event loop."""

    async def start(self) -> None:
        """Make ready: open a pool, start a child. Idempotent. Raises UpstreamError when it cannot."""
        ...

    async def open(self, call: Call) -> Reply:
        """
        Send *call* and wait for the head of the answer.

        Raises:
            UpstreamError: no answer could be had; its subclass says why.
        """
        ...

    async def close(self) -> None:
        """Let go of every resource; running replies are cut. Idempotent."""
        ...

    def status(self) -> dict[str, Any]:
        """Facts for `/health/ready`: at least `{"ready": bool}`."""
        ...
