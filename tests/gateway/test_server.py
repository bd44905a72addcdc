"""The server's protocol: framing, pipelining, bounds and what happens when clients misbehave."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway.transport.inbound import ClientGone, Inbound
from gateway.transport.server import Bounds, Connection, Site
from tests.fakes.inloop import until

LIMIT = 1000


@dataclass
class State:
    """What uvicorn shares among connections."""

    connections: set[Any] = field(default_factory=set)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    default_headers: list[tuple[bytes, bytes]] = field(default_factory=list)


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = bytearray()
        self.closed = self.aborted = self.eof = self.reading_paused = False

    def write(self, data: Any) -> None:
        assert not self.closed
        self.sent += data

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.eof = True

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        del name
        return default


async def echo(inbound: Inbound) -> None:
    """Answers with method, path, query and body."""
    try:
        body = await inbound.body(LIMIT, 1)
    except ClientGone:
        return
    except Exception as error:
        inbound.start(400, (), 0)
        inbound.end(type(error).__name__.encode())
        return
    told = b"%b %b ?%b %b" % (inbound.method.encode(), inbound.path.encode(), inbound.query, body)
    inbound.start(200, ((b"x-a", b"1"),), len(told))
    inbound.end(told)


async def control(scope: Any, receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message["body"], message["more_body"]
    await send({"type": "http.response.start", "status": 203, "headers": [(b"x-b", b"2")]})
    await send({"type": "http.response.body", "body": scope["path"].encode(), "more_body": True})
    await send({"type": "http.response.body", "body": body})


Lane = Callable[[Inbound], Coroutine[Any, Any, None] | None]


def ending(lane: Lane) -> Lane:
    """*lane*, which says when it has ended, as every lane must."""

    def told(inbound: Inbound) -> Coroutine[Any, Any, None] | None:
        running = lane(inbound)

        async def run() -> None:
            assert running is not None
            try:
                await running
            finally:
                inbound.done()

        return None if running is None else run()

    return told


async def served(pieces: list[bytes], lane: Lane = echo, bounds: Bounds | None = None) -> Wire:
    """What the server sends to a client that sends *pieces*."""
    site = Site(ending(lane), lambda path: not path.startswith("/control"), control, bounds or Bounds())
    state = State()
    connection, wire = Connection(site, state), Wire()
    connection.connection_made(wire)
    for piece in pieces:
        if not wire.closed:
            connection.data_received(piece)
        await settled(state)
    await settled(state)
    connection.connection_lost(None)
    await settled(state)
    assert not state.tasks
    assert not site.connections
    if site.sweeper is not None:
        site.sweeper.cancel()
    return wire


async def settled(state: State) -> None:
    for _ in range(100 if state.tasks else 10):
        await asyncio.sleep(0)


def run(pieces: list[bytes], lane: Lane = echo, bounds: Bounds | None = None) -> Wire:
    return asyncio.run(served(pieces, lane, bounds))


def statuses(wire: Wire) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3})", wire.sent)]


def request(body: bytes = b"", path: bytes = b"/p", head: bytes = b"", version: bytes = b"1.1") -> bytes:
    length = b"content-length: %d\r\n" % len(body)
    return b"POST %b HTTP/%b\r\nhost: x\r\n%b%b\r\n%b" % (path, version, head, length, body)


def chunked(body: bytes, path: bytes = b"/p") -> bytes:
    chunks = b"".join(b"%x\r\n%c\r\n" % (1, byte) for byte in body)
    return b"POST %b HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (path, chunks)


def test_an_answer_is_framed_by_its_length() -> None:
    wire = run([request(b"abc", b"/p?q=1")])
    assert bytes(wire.sent) == (b"HTTP/1.1 200 OK\r\nx-a: 1\r\ncontent-length: 16\r\n\r\nPOST /p ?q=1 abc")
    assert not wire.closed


def test_an_answer_of_unknown_length_is_chunked() -> None:
    wire = run([request(b"abc", b"/control")])
    assert bytes(wire.sent) == (
        b"HTTP/1.1 203 Non-Authoritative Information\r\nx-b: 2\r\ntransfer-encoding: chunked\r\n\r\n"
        b"8\r\n/control\r\n3\r\nabc\r\n0\r\n\r\n"
    )


def test_an_old_client_gets_an_answer_that_ends_with_the_connection() -> None:
    wire = run([request(b"abc", b"/control", version=b"1.0")])
    assert bytes(wire.sent).endswith(b"x-b: 2\r\nconnection: close\r\n\r\n/controlabc")
    assert wire.closed


REQUESTS = st.lists(
    st.tuples(
        st.sampled_from([request, chunked]), st.binary(max_size=20), st.sampled_from([b"/p", b"/control/1"])
    ),
    min_size=1,
    max_size=4,
)


@settings(deadline=None, max_examples=60)
@given(REQUESTS, st.data())
@example([(request, b"a", b"/p")], None)
def test_answers_do_not_depend_on_how_requests_were_cut(asked: Any, data: Any) -> None:
    stream = b"".join(make(body, path) for make, body, path in asked)
    whole = run([stream])
    if data is None:
        cuts = list(range(1, len(stream)))
    else:
        cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(stream) - 1)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert statuses(whole) == [203 if path.startswith(b"/control") else 200 for _, _, path in asked]
    assert run(pieces).sent == whole.sent or b"chunked" in whole.sent
    assert statuses(run(pieces)) == statuses(whole)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 300))
def test_no_bytes_crash_the_server(noise: bytes, at: int) -> None:
    good = request(b"abc") + chunked(b"xyz")
    wire = run([good[:at] + noise + good[at:]])
    assert all(status in (200, 400, 431) for status in statuses(wire))


@pytest.mark.parametrize(
    "head",
    [
        b"content-length: 3\r\ntransfer-encoding: chunked\r\n",
        b"content-length: 3\r\ncontent-length: 4\r\n",
        b"content-length: 3\r\ncontent-length: 3\r\n",
        b"content-length: +3\r\n",
        b"content-length: 3, 3\r\n",
        b"transfer-encoding: xchunked\r\n",
        b"transfer-encoding: gzip, chunked\r\n",
        b"transfer-encoding: chunked, identity\r\n",
        b"transfer-encoding: identity\r\n",
        b"transfer-encoding : chunked\r\n",
        b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
        b"a: b\r\n c: d\r\n",
        b"a: b\x00c\r\n",
        b"a: b\rc: d\r\n",
        b": x\r\n",
        b"host: y\r\n",
    ],
)
def test_framing_that_could_be_read_two_ways_is_refused(head: bytes) -> None:
    wire = run([b"POST /p HTTP/1.1\r\nhost: x\r\n" + head + b"\r\n0\r\n\r\n" + request(b"hidden")])
    assert statuses(wire) == [400]
    assert b"hidden" not in wire.sent
    assert wire.closed


@pytest.mark.parametrize(
    "line",
    [
        b"GET /p", b"GET /p HTTP/0.9", b"GET /p HTTP/1.2", b"GET /p HTTP/2.0", b"GET http://u:p@x/p HTTP/1.1",
        b"GET p HTTP/1.1", b"GET /p#f HTTP/1.1", b"GET ftp://x/p HTTP/1.1", b"GET /\xff HTTP/1.1",
        b"CONNECT x:80 HTTP/1.1", b"OPTIONS * HTTP/1.1", b"get /p HTTP/1.1", b" GET /p HTTP/1.1",
    ],
)  # fmt: skip
def test_request_lines_that_name_no_path_are_refused(line: bytes) -> None:
    wire = run([line + b"\r\nhost: x\r\n\r\n"])
    assert statuses(wire) == [400]
    assert wire.closed


def test_the_authority_of_a_whole_url_is_not_looked_at() -> None:
    assert bytes(run([request(path=b"http://elsewhere/p")]).sent).endswith(b"POST /p ? ")


def test_a_request_without_host_is_refused() -> None:
    assert statuses(run([b"GET /p HTTP/1.1\r\n\r\n"])) == [400]
    assert statuses(run([b"GET /p HTTP/1.0\r\n\r\n"])) == [200]


def test_large_heads_are_refused_in_one_piece_and_in_many() -> None:
    bounds = Bounds(max_head_bytes=2000)
    large = request(head=b"a: " + b"x" * 3000 + b"\r\n")
    assert statuses(run([large], bounds=bounds)) == [431]
    assert statuses(run([large[at : at + 100] for at in range(0, len(large), 100)], bounds=bounds)) == [431]
    many = request(head=b"".join(b"a%d: x\r\n" % n for n in range(300)))
    assert statuses(run([many])) == [431]


def test_trailers_are_not_headers() -> None:
    sent = b"POST /p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nhost: y\r\n\r\n"
    assert statuses(run([sent + request(b"b")])) == [200, 200]


def test_requests_before_one_that_cannot_be_read_are_answered() -> None:
    wire = run([request(b"a") + request(b"b") + b"nonsense\r\n\r\n" + request(b"c")])
    assert statuses(wire) == [200, 200]
    assert wire.sent.count(b"connection: close") == 1
    assert wire.closed


def test_a_wish_for_another_protocol_is_passed_over() -> None:
    asked = request(b"abc", head=b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\n")
    for pieces in ([asked], [asked[:-2], asked[-2:]], [asked + request(b"later")]):
        wire = run(pieces)
        assert wire.sent.endswith(b"POST /p ? abc")
        assert statuses(wire) == [200]
        assert wire.closed


def test_a_body_over_the_bound_is_refused_before_it_is_all_there() -> None:
    for make in (request, chunked):
        wire = run([make(b"x" * (LIMIT + 100))[:-60]])
        assert wire.sent.endswith(b"BodyTooLarge")
        assert wire.eof


def test_a_client_that_waits_to_be_asked_is_asked() -> None:
    asked = request(b"abc", head=b"expect: 100-continue\r\n")
    assert statuses(run([asked[:-3], asked[-3:]])) == [100, 200]
    assert statuses(run([asked])) == [200]


def test_an_answer_before_the_whole_request_ends_the_connection() -> None:
    def refuse(inbound: Inbound) -> None:
        inbound.start(401, (), 2)
        inbound.end(b"no")

    early = run([request(b"abc")[:-1]], refuse)
    assert b"connection: close" in early.sent
    assert early.eof
    late = run([request(b"abc") * 2], refuse)
    assert statuses(late) == [401, 401]
    assert not late.closed


def test_a_client_that_leaves_is_told_of_to_who_answers() -> None:
    seen: list[str] = []

    async def lane(inbound: Inbound) -> None:
        inbound.on_gone = lambda: seen.append("gone")
        with pytest.raises(ClientGone):
            await inbound.body(LIMIT, 5)
        seen.append("raised")

    run([request(b"abc")[:-1]], lane)
    assert seen == ["gone", "raised"]


def test_writing_to_a_client_that_left_does_nothing() -> None:
    kept: list[Inbound] = []

    async def lane(inbound: Inbound) -> None:
        kept.append(inbound)

    async def check() -> None:
        wire = await served([request()], lane)
        inbound = kept[0]
        assert inbound.gone
        inbound.start(200, (), None)
        inbound.write(b"x")
        inbound.end(b"y")
        assert not wire.sent

    asyncio.run(check())


@pytest.fixture
def slow() -> Bounds:
    return Bounds(head_timeout_s=0.05, keep_alive_s=0.05, write_timeout_s=0.05)


async def _expired(pieces: list[bytes], bounds: Bounds, *, stuck: bool = False) -> Wire:
    site = Site(ending(echo), lambda _path: True, control, bounds)
    state, wire = State(), Wire()
    connection = Connection(site, state)
    connection.connection_made(wire)
    for piece in pieces:
        connection.data_received(piece)
    if stuck:
        connection.pause_writing()
    await until(lambda: wire.closed)
    connection.connection_lost(None)
    await settled(state)
    return wire


def test_idle_and_dawdling_clients_are_let_go(slow: Bounds) -> None:
    assert not asyncio.run(_expired([], slow)).sent
    assert statuses(asyncio.run(_expired([b"POST /p HT"], slow))) == [408]
    assert statuses(asyncio.run(_expired([request()], slow))) == [200]
    assert statuses(asyncio.run(_expired([request(), b"POST"], slow))) == [200, 408]


def test_a_client_that_reads_nothing_is_cut(slow: Bounds) -> None:
    async def endless(inbound: Inbound) -> None:
        inbound.start(200, (), None)
        inbound.write(b"x")
        with pytest.raises(ClientGone):
            await inbound.drained()

    async def check() -> Wire:
        site = Site(ending(endless), lambda _path: True, control, slow)
        state, wire = State(), Wire()
        connection = Connection(site, state)
        connection.connection_made(wire)
        connection.data_received(request())
        connection.pause_writing()
        await until(lambda: wire.aborted)
        connection.connection_lost(None)
        await settled(state)
        assert not state.tasks
        return wire

    assert asyncio.run(check()).aborted


def test_pipelined_requests_beyond_a_bound_stop_the_reading() -> None:
    async def check() -> None:
        release = asyncio.Event()

        async def waits(inbound: Inbound) -> None:
            await release.wait()
            inbound.start(200, (), 0)
            inbound.end()

        site = Site(ending(waits), lambda _path: True, control)
        state, wire = State(), Wire()
        connection = Connection(site, state)
        connection.connection_made(wire)
        connection.data_received(request() * 17)
        assert wire.reading_paused
        release.set()
        await until(lambda: wire.sent.count(b"200 OK") == 17 and not wire.reading_paused)
        connection.connection_lost(None)

    asyncio.run(check())


def test_a_stopping_server_closes_idle_connections_and_ends_running_answers_first() -> None:
    async def check() -> None:
        release = asyncio.Event()

        async def waits(inbound: Inbound) -> None:
            await release.wait()
            inbound.start(200, (), 0)
            inbound.end()

        site = Site(ending(waits), lambda _path: True, control)
        state, idle, busy = State(), Wire(), Wire()
        first, second = Connection(site, state), Connection(site, state)
        first.connection_made(idle)
        second.connection_made(busy)
        second.data_received(request())
        first.shutdown()
        second.shutdown()
        assert (idle.closed, busy.closed) == (True, False)
        release.set()
        await settled(state)
        assert b"connection: close" in busy.sent
        assert busy.closed
        first.connection_lost(None)
        second.connection_lost(None)

    asyncio.run(check())


def test_a_client_that_is_held_back_is_not_read_until_its_time_is_over() -> None:
    async def check() -> None:
        def refuse(inbound: Inbound) -> None:
            inbound.hold_back(0.02)
            inbound.start(503, (), 0)
            inbound.end()

        site = Site(refuse, lambda _path: True, control)
        state, wire = State(), Wire()
        connection = Connection(site, state)
        connection.connection_made(wire)
        connection.data_received(request())
        await settled(state)
        assert statuses(wire) == [503]
        assert wire.reading_paused
        await until(lambda: not wire.reading_paused)
        connection.connection_lost(None)

    asyncio.run(check())
