"""Requests as bytes on a bare connection, and what comes back: for clients that break the rules."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import USER, Stand

CHAT = b"/v1/chat/completions"
AUTH = b"authorization: Bearer " + CLIENT_KEY.encode() + b"\r\n"
GOOD = json.dumps({"model": "support", "messages": USER}).encode()
LINE = b"POST " + CHAT + b" HTTP/1.1"


def request(
    body: bytes = GOOD, *, head: bytes = b"", line: bytes = LINE, host: bytes = b"host: x\r\n"
) -> bytes:
    """A request as it should be, where nothing is said otherwise."""
    return line + b"\r\n" + host + AUTH + b"content-length: %d\r\n" % len(body) + head + b"\r\n" + body


def unframed(head: bytes, rest: bytes = b"") -> bytes:
    """A request whose framing is all in *head*."""
    return LINE + b"\r\nhost: x\r\n" + AUTH + head + b"\r\n" + rest


def models(name: bytes, head: bytes = b"") -> bytes:
    """A request that no upstream hears of, and whose answer names *name*."""
    return b"GET /v1/models/" + name + b" HTTP/1.1\r\nhost: x\r\n" + AUTH + head + b"\r\n"


def exchange(stand: Stand, *pieces: bytes, timeout_s: float = 5.0) -> tuple[bytes, bool]:
    """What the gateway sends to a client that sends *pieces*, and whether it then closes."""
    with stand.connect() as client:
        return heard(client, pieces, timeout_s)


def heard(client: socket.socket, pieces: Sequence[bytes], timeout_s: float) -> tuple[bytes, bool]:
    """The same on a connection that is there."""
    client.settimeout(timeout_s)
    got = b""
    try:
        for piece in pieces:
            client.sendall(piece)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it has heard enough; what it said is still to be read
    try:
        while data := client.recv(65_536):
            got += data
    except TimeoutError:
        return got, False
    except ConnectionResetError:
        return got, True
    return got, True


def answers(data: bytes) -> list[tuple[int, Any]]:
    """Status and JSON of each answer in *data*; fails where they are not framed by their lengths."""
    found: list[tuple[int, Any]] = []
    while data:
        head, separator, rest = data.partition(b"\r\n\r\n")
        assert separator, f"cut head: {data[:80]!r}"
        length = int(re.findall(rb"(?im)^content-length: (\d+)\r?$", head)[0])
        found.append((int(head.split(b" ")[1]), json.loads(rest[:length] or b"null")))
        data = rest[length:]
    return found


def check_refusal(status: int, body: Any, allowed: Sequence[int], path: str = "") -> None:
    """One error in OpenAI's shape; below `/v2/` in the Open Inference Protocol's."""
    assert status in allowed, body
    assert set(body) == {"error"}
    if path.startswith("/v2/"):
        assert isinstance(body["error"], str)
        return
    assert set(body["error"]) == {"message", "type", "param", "code"}
    assert body["error"]["type"] == "invalid_request_error"
    assert body["error"]["message"]


def check_refused(data: bytes, closed: bool, allowed: Sequence[int] = (400,)) -> None:
    """One error in OpenAI's shape, and the end of the connection."""
    assert closed, f"the connection stays open after {data[:80]!r}"
    [(status, body)] = answers(data)
    check_refusal(status, body, allowed)


@contextmanager
def unheard(stand: Stand) -> Iterator[Stand]:
    """A stand whose upstream must hear of nothing, and which must answer as ever afterwards."""
    yield stand
    assert stand.up.seen == []
    answer = stand.client.chat.completions.create(model="support", messages=USER)
    assert answer.choices[0].message.content == "forty two"
