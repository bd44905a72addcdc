"""Replies that are made in this process instead of being relayed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

JSON_HEADERS = ((b"content-type", b"application/json"),)
SSE_HEADERS = ((b"content-type", b"text/event-stream; charset=utf-8"), (b"cache-control", b"no-cache"))
DONE = b"data: [DONE]\n\n"


class LocalReply:
    """A reply whose whole body is known: one chunk for JSON, one for each event of a stream."""

    __slots__ = ("_body", "headers", "status")

    def __init__(
        self, status: int, body: Sequence[bytes], headers: Sequence[tuple[bytes, bytes]] = JSON_HEADERS
    ) -> None:
        """*body* is sent chunk by chunk, as given."""
        self.status = status
        self.headers = headers
        self._body: Sequence[bytes] = body

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body, chunk by chunk; ends early once closed."""
        for index in range(len(self._body)):
            if index >= len(self._body):
                return
            yield self._body[index]

    async def close(self) -> None:
        """Drop what was not sent yet."""
        self._body = ()


def event(value: object) -> bytes:
    """One server-sent event that carries *value* as JSON."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def error_reply(
    status: int, message: str, kind: str, code: str | None, param: str | None = None
) -> LocalReply:
    """An error as OpenAI writes it, for a request that the local model refuses."""
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return LocalReply(status, (msgspec.json.encode(body),))
