"""
Bytes of a connection to answers: head, pieces of body, end.

llhttp, which httptools wraps, refuses both lengths at once, repeated or strange `Content-Length`s, bare
LFs, folded lines and control characters. What it lets through and is refused here: a transfer coding
other than `chunked`, one in HTTP/1.0, other versions than 1.0 and 1.1, another protocol than HTTP, bytes
before the status line, a switch of protocols, a body in an interim answer, and heads and trailers
without end.

Source: RFC 9110, sections 6.4.1 and 15.2; RFC 9112, sections 4, 6.1, 6.3 and 9.3.
"""

from __future__ import annotations

from typing import Any

import httptools

from gateway.errors import UpstreamBroken
from gateway.transport.base import HOP_BY_HOP

_MAX_HEAD_BYTES = 65_536
_MAX_BARREN_BYTES = 131_072
"""Bytes since the last head or piece of body: a head, trailer or chunk extension has some end."""
_MAX_FIELDS = 200
_MAX_INTERIM = 10
_SPECIAL = HOP_BY_HOP | {b"content-length", b"content-encoding"}
_H = 0x48
_INTERIM = "the model switched protocols, or sent interim answers without end"
_MALFORMED = "what the model answered is not valid HTTP/1.1"


class Answers:
    """The answers that come over one connection, one after the other; `begin` each."""

    __slots__ = (
        "_barren", "_bodiless", "_extra", "_fields", "_interim", "_keep", "_parser", "_pieces", "begun",
        "complete", "error", "headers", "length", "status", "until_close",
    )  # fmt: skip

    def __init__(self) -> None:
        """Expect nothing yet."""
        self._parser: Any = httptools.HttpResponseParser(self)
        self._fields: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._barren = 0
        self._interim = 0
        self._bodiless = False
        self._extra = False
        self._keep = True
        self.begun = False
        """Whether a byte of the answer came."""
        self.status = 0
        """Of the final answer; 0 until its head is there."""
        self.headers: tuple[tuple[bytes, bytes], ...] = ()
        """Names in lower case, no hop-by-hop fields."""
        self.length: int | None = None
        """What `Content-Length` says."""
        self.until_close = False
        """Whether the end of the connection is the end of the body."""
        self.complete = False
        """Whether the body has come to its end."""
        self.error: UpstreamBroken | None = None
        """Why this is no answer, or not one that can be understood in one way only."""

    def begin(self, *, bodiless: bool) -> None:
        """Expect an answer, with no body whatever its head says if *bodiless* (HEAD)."""
        self._bodiless = bodiless
        self._barren = self._interim = self.status = 0
        self.begun = self.complete = self._extra = self.until_close = False
        self._keep = True

    def feed(self, data: bytes) -> bytes:
        """Read *data*, not empty and cut anywhere; the body that is in it. Look at the attributes, too."""
        if not self.begun:
            self.begun = True
            if data[0] != _H:  # llhttp takes RTSP, and skips empty lines
                self.error = UpstreamBroken(_MALFORMED)
                return b""
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as broken:
            if self.complete:
                self._extra = True
            elif self.error is None:
                self.error = UpstreamBroken(_MALFORMED)
                self.error.__cause__ = broken
        pieces = self._pieces
        if pieces:
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._barren = 0
            return body
        self._barren += len(data)
        if self._barren > _MAX_BARREN_BYTES and self.error is None and not self.complete:
            self.error = UpstreamBroken("the model sent a head or trailer without end")
        return b""

    def finish(self) -> bool:
        """After a complete answer: whether another may follow on this connection."""
        if self._bodiless:
            self._parser = httptools.HttpResponseParser(self)  # the old one waits for a body
        return self._keep and not self._extra and self.error is None

    def close(self) -> None:
        """Let go of the parser, which refers to this and is referred to."""
        self._parser = None

    # What httptools tells, from within `feed`.

    def on_message_begin(self) -> None:
        """An answer begins, or what should not be there after one."""
        self._extra = self.complete

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head or of a trailer."""
        self._fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        """The head is there: decide how its body ends."""
        fields, self._fields = self._fields, []
        if self.complete or self.error is not None:
            return
        self._barren = 0
        parser = self._parser
        status: int = parser.get_status_code()
        version: str = parser.get_http_version()
        coded, problem = self._sort(fields)
        if problem is not None:
            self.error = UpstreamBroken(problem)
        elif version not in ("1.1", "1.0") or not 100 <= status <= 599:
            self.error = UpstreamBroken(_MALFORMED)
        elif coded and version == "1.0":
            self.error = UpstreamBroken("the model answered in HTTP/1.0 with a transfer coding")
        elif status < 200:
            self._interim += 1
            if status == 101 or coded or self.length or self._interim > _MAX_INTERIM:
                self.error = UpstreamBroken(_INTERIM)
        else:
            empty = self._bodiless or status in (204, 304)
            self._keep = parser.should_keep_alive() and not (status == 204 and (coded or self.length))
            self.until_close = not empty and self.length is None and not coded
            self.complete = self._bodiless
            self.status = status

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        if self.complete:
            self._extra = True
        else:
            self._pieces.append(body)

    def on_message_complete(self) -> None:
        """The message ended as its head said it would."""
        if self.status:
            self.complete = True

    def _sort(self, fields: list[tuple[bytes, bytes]]) -> tuple[bool, str | None]:
        """Set `headers` and `length`; whether the body is chunked, and why it cannot be accepted."""
        self.length = None
        coded = False
        problem = None
        kept = []
        named: set[bytes] = set()
        size = 0
        for name, raw in fields:
            size += len(name) + len(raw) + 4
            value = raw.rstrip(b" \t")
            if name in _SPECIAL:
                if name == b"content-length":
                    self.length = int(value)
                elif name == b"content-encoding":
                    if value.lower() != b"identity":
                        shown = value[:20].decode("latin-1")
                        problem = (
                            f"the model answered with content-encoding {shown!r}, which was not asked for"
                        )
                else:
                    if name == b"transfer-encoding":
                        if coded or value.lower() != b"chunked":
                            problem = "the model answered with a transfer coding other than chunked"
                        coded = True
                    elif name == b"connection" and value.lower() not in (b"keep-alive", b"close"):
                        named.update(token.strip().lower() for token in value.split(b","))
                    continue
            kept.append((name, value))
        if len(fields) > _MAX_FIELDS or size > _MAX_HEAD_BYTES:
            problem = f"the model sent more than {_MAX_FIELDS} header fields, or {_MAX_HEAD_BYTES} bytes"
        if named:
            kept = [field for field in kept if field[0] not in named or field[0] == b"content-length"]
        self.headers = tuple(kept)
        return coded, problem
