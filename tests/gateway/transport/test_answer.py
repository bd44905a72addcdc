"""Bytes to answers: what is accepted, what is refused, and that cuts do not matter."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamBroken
from gateway.transport.answer import Answers

HEAD = b"HTTP/1.1 200 OK\r\n"
CHUNKED = HEAD + b"transfer-encoding: chunked\r\n\r\n"


@dataclass(frozen=True)
class Outcome:
    status: int
    headers: tuple[tuple[bytes, bytes], ...]
    body: bytes
    complete: bool
    until_close: bool
    error: bool


def read(pieces: list[bytes], *, bodiless: bool = False) -> tuple[Outcome, Answers]:
    """As a connection does: nothing is fed after an end or an error."""
    answers = Answers()
    answers.begin(bodiless=bodiless)
    body = b""
    for piece in pieces:
        if piece and not answers.complete and answers.error is None:
            body += answers.feed(piece)
    failed = answers.error is not None and not answers.complete
    return Outcome(
        answers.status, answers.headers if answers.status else (), body if not failed else b"",
        answers.complete, answers.until_close, failed,
    ), answers  # fmt: skip


def cut(data: bytes, places: list[int]) -> list[bytes]:
    marks = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(marks)]


def chunked(pieces: list[bytes], *, trailer: bytes = b"") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(p), p) for p in pieces if p) + b"0\r\n" + trailer + b"\r\n"


names = st.sampled_from([b"x-a", b"X-B", b"content-type", b"x!#$%&'*+.^_`|~1"])
values = st.binary(max_size=12).map(
    lambda b: bytes(c for c in b if c == 9 or (c >= 32 and c != 127)).strip(b" \t")
)
fields = st.lists(st.tuples(names, values), max_size=5)
bodies = st.lists(st.binary(min_size=1, max_size=40), max_size=6)
places = st.lists(st.integers(0, 4000), max_size=12)


@given(fields, bodies, st.booleans(), st.integers(0, 3), places)
def test_heads_and_bodies_do_not_depend_on_how_the_bytes_are_cut(
    sent: list[tuple[bytes, bytes]], pieces: list[bytes], by_length: bool, interim: int, marks: list[int]
) -> None:
    whole = b"".join(pieces)
    data = b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" * interim + HEAD
    data += b"".join(b"%b:%b \t\r\n" % field for field in sent)
    if by_length:
        data += b"content-length: %d\r\n\r\n" % len(whole) + whole
    else:
        data += b"transfer-encoding: chunked\r\n\r\n" + chunked(pieces, trailer=b"x-sum: 1\r\n")
    expected = [(name.lower(), value) for name, value in sent]
    if by_length:
        expected.append((b"content-length", b"%d" % len(whole)))
    outcome, answers = read(cut(data, marks))
    assert outcome == Outcome(200, tuple(expected), whole, complete=True, until_close=False, error=False)
    assert answers.finish()


@given(st.binary(max_size=300), places, st.booleans())
def test_any_bytes_end_the_same_way_however_they_are_cut(
    junk: bytes, marks: list[int], bodiless: bool
) -> None:
    assert read(cut(junk, marks), bodiless=bodiless)[0] == read([junk], bodiless=bodiless)[0]


SEEDS = [
    HEAD + b"content-type: text/plain\r\ncontent-length: 11\r\n\r\nhello world",
    CHUNKED + b"5\r\nhello\r\n6;x=y\r\n world\r\n0\r\nx-sum: 1\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + HEAD + b"connection: close, x-a\r\nx-a: 1\r\n\r\nhello world",
]


@given(
    st.sampled_from(SEEDS),
    st.lists(
        st.tuples(st.integers(0, 200), st.binary(max_size=3), st.integers(0, 3)), min_size=1, max_size=4
    ),
    places,
)
def test_a_mutated_answer_ends_the_same_way_however_it_is_cut(
    seed: bytes, changes: list[tuple[int, bytes, int]], marks: list[int]
) -> None:
    data = seed
    for place, inserted, removed in changes:
        at = place % (len(data) + 1)
        data = data[:at] + inserted + data[at + removed :]
    assert read(cut(data, marks))[0] == read([data])[0]
    assert read([data[i : i + 1] for i in range(len(data))])[0] == read([data])[0]


@pytest.mark.parametrize(
    "data",
    [
        HEAD + b"content-length: 3\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HEAD + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
        HEAD + b"content-length: 3\r\ncontent-length: 3\r\n\r\nabc",
        HEAD + b"content-length: 3, 3\r\n\r\nabc",
        HEAD + b"content-length: +3\r\n\r\nabc",
        HEAD + b"content-length: -3\r\n\r\nabc",
        HEAD + b"content-length: 0x3\r\n\r\nabc",
        HEAD + b"content-length:\r\n\r\nabc",
        HEAD + b"content-length : 3\r\n\r\nabc",
        HEAD + b"content-length: 99999999999999999999\r\n\r\nabc",
        HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        HEAD + b"transfer-encoding: xchunked\r\n\r\nabc",
        HEAD + b"transfer-encoding: identity\r\n\r\nabc",
        HEAD + b"transfer-encoding: chunked, identity\r\n\r\nabc",
        b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        HEAD + b"content-length: 0\nx: y\r\n\r\n",
        HEAD + b"x: a\r\n b\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
        HEAD + b" x: a\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"x: a\x00b\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"x: a\rb\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"x: a\x7fb\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"x y: 1\r\ncontent-length: 0\r\n\r\n",
        HEAD + b": 1\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"\xc3\xa9: 1\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.2 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"http/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"RTSP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"ICY 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 099 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 99 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 600 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 OK\r\ncontent-length: 0\r\n\r\n",
        CHUNKED + b"3\nabc\n0\n\n",
        CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabc0\r\n\r\n",
        CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
        CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n",
        CHUNKED + b"3\r\nabc\r\n0\r\ncontent-length: 9\r\n\r\n",
        HEAD + b"content-encoding: gzip\r\ncontent-length: 3\r\n\r\nabc",
        HEAD + b"content-encoding: identity\r\ncontent-encoding: br\r\ncontent-length: 3\r\n\r\nabc",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nabc",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\ncontent-length: 3\r\n\r\nabc" + HEAD + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\nconnection: close\r\n\r\n" + HEAD + b"content-length: 0\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 11 + HEAD + b"content-length: 0\r\n\r\n",
        HEAD + b"x: y\r\n" * 201 + b"content-length: 0\r\n\r\n",
        HEAD + b"x: " + b"y" * 70_000 + b"\r\ncontent-length: 0\r\n\r\n",
        HEAD + b"x: " + b"y" * 200_000,
        CHUNKED + b"3;" + b"x" * 200_000,
        CHUNKED + b"0\r\n" + b"x: y\r\n" * 40_000,
        b"HTTP/1.1 200 " + b"K" * 200_000,
    ],
)  # fmt: skip
def test_what_could_be_read_in_two_ways_or_has_no_end_is_refused(data: bytes) -> None:
    for pieces in ([data], [data[i : i + 1009] for i in range(0, len(data), 1009)]):
        outcome, answers = read(pieces)
        assert isinstance(answers.error, UpstreamBroken), pieces
        assert not outcome.complete
        assert not answers.finish()


@pytest.mark.parametrize(
    ("data", "bodiless", "body", "again"),
    [
        (HEAD + b"content-length: 3\r\n\r\nabc", False, b"abc", True),
        (HEAD + b"content-length: 3\r\nconnection: close\r\n\r\nabc", False, b"abc", False),
        (HEAD + b"content-length: 3\r\nconnection: Keep-Alive, Close\r\n\r\nabc", False, b"abc", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\n\r\nabc", False, b"abc", False),
        (b"HTTP/1.0 200 OK\r\ncontent-length: 3\r\nconnection: keep-alive\r\n\r\nabc", False, b"abc", True),
        (HEAD + b"content-length: 3\r\n\r\nabcd", False, b"abc", False),
        (HEAD + b"content-length: 3\r\n\r\nabc" + HEAD, False, b"abc", False),
        (HEAD + b"content-length: 3\r\nconnection: close\r\n\r\nabcd", False, b"abc", False),
        (CHUNKED + b"3\r\nabc\r\n0\r\n\r\nx", False, b"abc", False),
        (b"HTTP/1.1 204 No Content\r\n\r\n", False, b"", True),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 0\r\n\r\n", False, b"", True),
        (b"HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\n", False, b"", False),
        (b"HTTP/1.1 204 No Content\r\ntransfer-encoding: chunked\r\n\r\n", False, b"", False),
        (b"HTTP/1.1 204 No Content\r\n\r\nabc", False, b"", False),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 3\r\n\r\n", False, b"", True),
        (HEAD + b"content-length: 3\r\n\r\n", True, b"", True),
        (CHUNKED, True, b"", True),
        (HEAD + b"content-length: 3\r\n\r\nabc", True, b"", False),
        (HEAD + b"upgrade: x\r\nconnection: upgrade\r\ncontent-length: 3\r\n\r\nabc", False, b"abc", True),
        (b"HTTP/1.1 200\r\ncontent-length: 3\r\n\r\nabc", False, b"abc", True),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * 10 + HEAD + b"content-length: 0\r\n\r\n", False, b"", True),
    ],
)
def test_a_connection_is_used_again_only_after_nothing_but_one_whole_answer(
    data: bytes, bodiless: bool, body: bytes, again: bool
) -> None:
    outcome, answers = read([data], bodiless=bodiless)
    assert (outcome.body, outcome.complete, outcome.error) == (body, True, False)
    assert answers.finish() is again
    if again:
        answers.begin(bodiless=False)
        assert answers.feed(HEAD + b"content-length: 4\r\n\r\nnext") == b"next"
        assert answers.complete and answers.finish()


def test_hop_by_hop_fields_are_left_out_and_so_are_those_that_connection_names() -> None:
    data = HEAD + (
        b"Connection: x-secret, Keep-Alive\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nTrailer: x\r\n"
        b"Proxy-Authenticate: Basic\r\nTE: x\r\nUpgrade: h2c\r\nProxy-Connection: x\r\nX-Kept: 2 \t\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert read([data])[0].headers == ((b"x-kept", b"2"), (b"content-length", b"0"))


def test_without_length_or_chunks_the_body_ends_with_the_connection() -> None:
    outcome, answers = read([HEAD + b"\r\n", b"abc", b"def"])
    assert outcome == Outcome(200, (), b"abcdef", complete=False, until_close=True, error=False)
    assert not answers.finish()


def test_pieces_that_come_together_are_one() -> None:
    answers = Answers()
    answers.begin(bodiless=False)
    assert answers.feed(CHUNKED + chunked([b"a", b"b", b"c"])) == b"abc"
