"""Framing that two readers may read differently: refused, and the connection closed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.fakes.stand import Stand, until
from tests.fakes.wire import (
    AUTH,
    CHAT,
    answers,
    check_refusal,
    check_refused,
    exchange,
    models,
    request,
    unframed,
    unheard,
)  # fmt: skip


@pytest.fixture
def unharmed(stand: Stand) -> Iterator[Stand]:
    with unheard(stand):
        yield stand


TWO_WAYS = {
    "both lengths": b"content-length: 5\r\ntransfer-encoding: chunked\r\n",
    "both lengths, turned": b"transfer-encoding: chunked\r\ncontent-length: 5\r\n",
    "two lengths": b"content-length: 5\r\ncontent-length: 6\r\n",
    "the same length twice": b"content-length: 5\r\ncontent-length: 5\r\n",
    "a list of lengths": b"content-length: 5, 5\r\n",
    "a signed length": b"content-length: +5\r\n",
    "a negative length": b"content-length: -5\r\n",
    "a hexadecimal length": b"content-length: 0x5\r\n",
    "a broken length": b"content-length: 5 5\r\n",
    "an empty length": b"content-length:\r\n",
    "a length in words": b"content-length: five\r\n",
    "a length past 64 bits": b"content-length: 99999999999999999999999\r\n",
    "xchunked": b"transfer-encoding: xchunked\r\n",
    "identity": b"transfer-encoding: identity\r\n",
    "gzip, chunked": b"transfer-encoding: gzip, chunked\r\n",
    "chunked, identity": b"transfer-encoding: chunked, identity\r\n",
    "chunked, chunked": b"transfer-encoding: chunked, chunked\r\n",
    "two codings": b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
    "a quoted coding": b'transfer-encoding: "chunked"\r\n',
    "a vertical tab": b"transfer-encoding: \x0bchunked\r\n",
    "a NUL in the coding": b"transfer-encoding: chunked\x00\r\n",
    "space before the colon": b"transfer-encoding : chunked\r\n",
    "space before the length's colon": b"content-length : 5\r\n",
    "a folded coding": b"transfer-encoding:\r\n chunked\r\n",
    "a folded field": b"x-a: b\r\n c\r\ncontent-length: 5\r\n",
    "a folded first field": b" x: y\r\ncontent-length: 5\r\n",
    "a bare LF": b"content-length: 5\nx: y\r\n",
    "a bare CR": b"x-a: b\rcontent-length: 50\r\ncontent-length: 5\r\n",
    "a NUL in a value": b"x-a: b\x00c\r\ncontent-length: 5\r\n",
    "a NUL in a name": b"x\x00a: b\r\ncontent-length: 5\r\n",
    "a name of nothing": b": b\r\ncontent-length: 5\r\n",
    "no colon": b"x-a\r\ncontent-length: 5\r\n",
    "a name that is no token": b"x(a): b\r\ncontent-length: 5\r\n",
    "two hosts": b"host: y\r\ncontent-length: 5\r\n",
}
HIDDEN = b"0\r\n\r\nGET /v1/models HTTP/1.1\r\nhost: x\r\n" + AUTH + b"\r\n"


@pytest.mark.parametrize("name", TWO_WAYS)
def test_framing_that_two_readers_may_read_differently_is_refused(unharmed: Stand, name: str) -> None:
    data, closed = exchange(unharmed, unframed(TWO_WAYS[name], HIDDEN))
    check_refused(data, closed)


LINES = [
    b"GET / HTTP/0.9", b"GET /", b"GET", b"POST /v1/chat/completions",
    b"POST /v1/chat/completions HTTP/2.0",
    b"POST /v1/chat/completions HTTP/1.2", b"POST /v1/chat/completions HTTP/9.9",
    b"POST /v1/chat/completions http/1.1",
    b"POST /v1/chat/completions HTTP/1.1 x", b"POST /v1/chat completions HTTP/1.1", b"POST  HTTP/1.1",
    b"POST v1/chat/completions HTTP/1.1", b"POST * HTTP/1.1", b"OPTIONS * HTTP/1.1",
    b"CONNECT 127.0.0.1:22 HTTP/1.1",
    b"POST http://user:secret@127.0.0.1/v1/chat/completions HTTP/1.1", b"POST file:///etc/passwd HTTP/1.1",
    b"POST gopher://127.0.0.1/ HTTP/1.1", b"POST /v1/chat/completions#x HTTP/1.1", b"POST /\xff HTTP/1.1",
    b"POST /\x00 HTTP/1.1", b"P\x00ST / HTTP/1.1", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"HELO example.org",
    b"JUNK /v1/chat/completions HTTP/1.1", b"PRI * HTTP/2.0", b"\xff" * 100, b"HTTP/1.1 200 OK",
]  # fmt: skip


@pytest.mark.parametrize("line", LINES)
def test_a_first_line_that_is_none_is_refused(unharmed: Stand, line: bytes) -> None:
    data, closed = exchange(unharmed, request(line=line))
    check_refused(data, closed)


def test_no_host_is_refused(unharmed: Stand) -> None:
    check_refused(*exchange(unharmed, request(host=b"")))


def test_chunks_of_an_old_client_are_refused(unharmed: Stand) -> None:
    line = b"POST " + CHAT + b" HTTP/1.0\r\n"
    data, closed = exchange(unharmed, line + AUTH + b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n")
    check_refused(data, closed)


LARGE = {
    "a long line": request(line=b"POST " + CHAT + b"?" + b"a" * 200_000 + b" HTTP/1.1"),
    "a long method": b"A" * 200_000,
    "a thousand fields": request(head=b"".join(b"x-%d: y\r\n" % n for n in range(1000))),
    "a large field": request(head=b"x-a: " + b"b" * 1_000_000 + b"\r\n"),
    "a large name": request(head=b"x" * 200_000 + b": b\r\n"),
    "a head without end": unframed(b"x-a: b\r\n" * 30_000)[:-2],
}


@pytest.mark.parametrize("name", LARGE)
def test_a_head_that_is_too_large_is_refused(unharmed: Stand, name: str) -> None:
    check_refused(*exchange(unharmed, LARGE[name]), (400, 414, 431))


CHUNKS = {
    "a size past 64 bits": b"FFFFFFFFFFFFFFFFF\r\n",
    "a negative size": b"-5\r\n",
    "a size with 0x": b"0x5\r\nabcde\r\n0\r\n\r\n",
    "a size with a space": b" 5\r\nabcde\r\n0\r\n\r\n",
    "a size of junk": b"zz\r\n",
    "no size": b"\r\n",
    "a long chunk": b"2\r\nabcde\r\n0\r\n\r\n",
    "a short chunk": b"9\r\nabcde\r\n0\r\n\r\n\r\n\r\n\r\n",
    "a bare LF": b"5\nabcde\n0\n\n",
    "huge extensions": b"5" + b";a=b" * 300_000 + b"\r\nabcde\r\n0\r\n\r\n",
    "huge trailers": b"0\r\n" + b"x-a: b\r\n" * 150_000 + b"\r\n",
}


@pytest.mark.parametrize("name", CHUNKS)
def test_chunks_that_are_none_are_refused_or_cut_off(unharmed: Stand, name: str) -> None:
    head = unframed(b"transfer-encoding: chunked\r\n")
    data, closed = exchange(unharmed, head, CHUNKS[name])
    assert closed
    assert len(answers(data)) <= 1
    for status, body in answers(data):
        check_refusal(status, body, (400, 413, 431))


# Several requests on one connection.


def test_requests_in_a_row_are_answered_in_their_order(stand: Stand) -> None:
    names = [b"support", b"churn", b"nonesuch", b"loading", b"vllm/tiny", b"support@production"]
    data, closed = exchange(stand, b"".join(map(models, names)) + models(b"wrong", b"connection: close\r\n"))
    told = [(status, body.get("id")) for status, body in answers(data)]
    assert told == [
        (200, "support"),
        (200, "churn"),
        (404, None),
        (200, "loading"),
        (200, "vllm/tiny"),
        (200, "support@production"),
        (200, "wrong"),
    ]
    assert closed


def test_a_request_within_a_body_is_part_of_that_body(unharmed: Stand) -> None:
    data, _ = exchange(unharmed, request(models(b"churn") * 3), models(b"support", b"connection: close\r\n"))
    (status, refusal), (found, model) = answers(data)
    check_refusal(status, refusal, (400,))
    assert (found, model["id"]) == (200, "support")
    until(lambda: len(unharmed.records) == 2)


def test_a_body_of_a_get_is_not_the_next_request(unharmed: Stand) -> None:
    hidden = models(b"churn")
    first = models(b"support", b"content-length: %d\r\n" % len(hidden))
    data, _ = exchange(unharmed, first + hidden + models(b"loading", b"connection: close\r\n"))
    assert [body["id"] for _, body in answers(data)] == ["support", "loading"]


def test_what_follows_a_request_that_cannot_be_read_is_not_read(unharmed: Stand) -> None:
    data, closed = exchange(unharmed, models(b"support") + b"JUNK\r\n\r\n" + models(b"churn"))
    assert closed
    told = answers(data)
    assert (told[0][0], told[0][1]["id"]) == (200, "support")
    assert [status for status, _ in told[1:]] in ([], [400])


def test_what_a_refused_body_holds_is_never_served(unharmed: Stand) -> None:
    data, closed = exchange(unharmed, unframed(b"content-length: 200000\r\n", models(b"support") * 2))
    check_refused(data, closed, (413,))


def test_an_old_client_may_keep_its_connection(stand: Stand) -> None:
    old = models(b"support", b"connection: keep-alive\r\n").replace(b"HTTP/1.1", b"HTTP/1.0")
    data, closed = exchange(stand, old + models(b"churn").replace(b"HTTP/1.1", b"HTTP/1.0"))
    assert [body["id"] for _, body in answers(data)] == ["support", "churn"]
    assert closed


def test_a_whole_url_is_answered_for_its_path(stand: Stand) -> None:
    line = b"GET http://169.254.169.254/v1/models/support HTTP/1.1\r\nhost: 169.254.169.254\r\n"
    data, _ = exchange(stand, line + AUTH + b"connection: close\r\n\r\n")
    assert [(status, body["id"]) for status, body in answers(data)] == [(200, "support")]


def test_headers_of_a_client_change_nothing_of_the_answers_framing(stand: Stand) -> None:
    head = b"te: trailers\r\nrange: bytes=0-0\r\naccept-encoding: gzip\r\nconnection: close\r\n"
    data, _ = exchange(stand, request(head=head))
    [(status, body)] = answers(data)
    assert (status, body["choices"][0]["message"]["content"]) == (200, "forty two")
