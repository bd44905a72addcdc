"""
Server-sent events: split, read, written.

Source: WHATWG HTML, "Server-sent events", section 9.2.6. Lines end in CRLF, LF or CR; an event
ends at a blank line.
"""

from __future__ import annotations

import re

from gateway.errors import UpstreamTooLarge

DONE = b"[DONE]"
DONE_EVENT = b"data: [DONE]\n\n"
_END = re.compile(rb"(?:\r\n|\n|\r(?=[^\n]))(?:\r\n|\n|\r(?=[^\n]))")
_FIELD = re.compile(rb"(?:data|event|id|retry)?:|(?:data|event|id|retry)$")
_LINE = re.compile(rb"\r\n|\n|\r")


class Splitter:
    """Bytes in any pieces to whole events; what comes out does not depend on the pieces."""

    __slots__ = ("_limit", "_pending", "_seen")

    def __init__(self, max_event_bytes: int = 16_000_000) -> None:
        """An event longer than *max_event_bytes* is refused."""
        self._pending = bytearray()
        self._seen = 0
        self._limit = max_event_bytes

    @property
    def empty(self) -> bool:
        """Whether nothing of an event is kept that has not ended yet."""
        return not self._pending

    def push(self, chunk: bytes) -> list[bytes]:
        """
        The events that *chunk* completes, each with the blank line that ends it.

        Raises:
            UpstreamTooLarge: an event has no end within the bound.
        """
        pending = self._pending
        pending += chunk
        events: list[bytes] = []
        start = 0
        search = max(0, self._seen - 3)
        for match in _END.finditer(pending, search):
            events.append(bytes(pending[start : match.end()]))
            start = match.end()
        if start:
            del pending[:start]
        if len(pending) > self._limit:
            message = f"an event of the model's stream is longer than {self._limit} bytes"
            raise UpstreamTooLarge(message)
        self._seen = len(pending)
        return events

    def rest(self) -> bytes:
        """What came after the last whole event, once."""
        rest = bytes(self._pending)
        self._pending.clear()
        self._seen = 0
        return rest


def data_of(event: bytes) -> bytes | None:
    r"""
    The data of an event; None when it has none, as a comment that keeps the connection alive.

    >>> data_of(b"event: x\ndata: {\ndata: }\n\n")
    b'{\n}'
    """
    if (
        event.startswith(b"data: ")
        and event.endswith(b"\n\n")
        and b"\n" not in event[:-2]
        and b"\r" not in event
    ):
        return event[6:-2]
    lines = [line[5:].removeprefix(b" ") for line in _LINE.split(event) if line.startswith(b"data:")]
    return b"\n".join(lines) if lines else None


def has_known_fields_only(event: bytes) -> bool:
    r"""
    Whether each line of *event* is one of the standard's. Readers pass over others, so that what a broken
    line meant to say would be lost without a word.

    >>> has_known_fields_only(b": ping\n\n"), has_known_fields_only(b"data: 1\n\x0bdata: 2\n\n")
    (True, False)
    """
    return all(not line or _FIELD.match(line) for line in _LINE.split(event))


def event_of(data: bytes) -> bytes:
    """One event that carries *data*, which has no line breaks, as JSON has none."""
    return b"data: " + data + b"\n\n"
