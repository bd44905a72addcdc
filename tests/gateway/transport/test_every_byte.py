"""
An upstream fails at every byte of its answer: cut, reset, silent or wrong.

Each exchange ends in the whole answer or an UpstreamError, soon, and leaves a client that works.
"""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamBroken, UpstreamError, UpstreamTimeout
from gateway.transport import Transport
from tests.gateway.transport.upstream import (
    WAYS,
    Limits,
    Peer,
    Run,
    client,
    each,
    loops,
    now,
    take,
    until,
    upstream,
)

TEXT = json.dumps({"choices": [{"message": {"content": "forty two"}}]}).encode()
EVENTS = [b'data: {"choices":[{"delta":{"content":"%b"}}]}\n\n' % word for word in (b"forty", b" two")]
EVENTS.append(b"data: [DONE]\n\n")
ANSWERS = {
    "plain": (
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(TEXT) + TEXT,
        TEXT,
    ),
    "chunked": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\n%b\r\n" % TEXT[:10]
        + b"%x;x=y\r\n%b\r\n0\r\nx-sum: 1\r\n\r\n" % (len(TEXT) - 10, TEXT[10:]),
        TEXT,
    ),
    "sse": (
        b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS)
        + b"0\r\n\r\n",
        b"".join(EVENTS),
    ),
}


async def exchange(transport: Transport, url: str, way: str) -> bytes:
    """The body of one exchange, taken in one of three ways."""
    reply = await transport.request("POST", url, (), b"{}")
    try:
        return await take(reply, way)
    finally:
        await reply.close()


def failing(whole: bytes) -> object:
    """An upstream whose requests say where and how it fails: `/fault/offset/pieces`."""

    async def handle(peer: Peer) -> None:
        while True:
            head, _ = await peer.request()
            _, fault, number, split = head.split(b" ")[1].decode().split("/")
            offset = int(number)
            data = whole
            if fault == "corrupt":
                data = data[:offset] + bytes([data[offset] ^ 0x11]) + data[offset + 1 :]
            elif fault != "none":
                data = data[:offset]
            await peer.send(*([data[i : i + 7] for i in range(0, len(data), 7)] if split == "1" else [data]))
            if fault == "rst":
                peer.reset()
                return
            if fault == "stall":
                await peer.left()
            if fault != "none":
                return

    return handle


@loops
@pytest.mark.parametrize("fault", ["fin", "rst", "stall", "corrupt"])
@pytest.mark.parametrize("name", sorted(ANSWERS))
def test_a_fault_at_any_byte_is_an_error_and_nothing_else_suffers(run: Run, name: str, fault: str) -> None:
    whole, body = ANSWERS[name]
    quick = Limits(first_byte_timeout_s=0.08, idle_timeout_s=0.08)
    limits = quick if fault == "stall" else Limits()

    async def main() -> None:
        async with upstream(failing(whole)) as server, client(limits) as transport:  # type: ignore[arg-type]

            async def one(case: tuple[int, int]) -> None:
                offset, split = case
                way = WAYS[offset % 3]
                outcome: bytes | UpstreamError
                try:
                    async with asyncio.timeout(5):
                        outcome = await exchange(transport, f"{server.url}/{fault}/{offset}/{split}", way)
                except UpstreamError as error:
                    outcome = error
                if fault == "corrupt":
                    assert isinstance(outcome, bytes | UpstreamError)
                elif fault == "stall":
                    assert isinstance(outcome, UpstreamTimeout)
                else:
                    assert isinstance(outcome, UpstreamBroken)

            size = len(whole)
            await each([(offset, offset % 2) for offset in range(size)], one, at_once=100)
            if fault not in ("corrupt", "stall"):  # the whole answer, then the fault
                for way in WAYS:
                    assert await exchange(transport, f"{server.url}/{fault}/{size}/0", way) == body
            stats = transport.stats()
            assert (stats.busy, stats.waiting) == (0, 0)
            if fault != "stall":
                assert await exchange(transport, f"{server.url}/none/0/0", "read") == body
        await until(lambda: server.open == 0)

    run(main())


def test_a_fault_in_a_used_connection_is_an_error_too() -> None:
    whole, body = ANSWERS["sse"]

    async def main() -> None:
        async with upstream(failing(whole)) as server, client() as transport:  # type: ignore[arg-type]
            for offset in range(len(whole)):
                assert await exchange(transport, f"{server.url}/none/0/1", "deliver") == body
                with pytest.raises(UpstreamBroken):
                    await exchange(transport, f"{server.url}/fin/{offset}/0", WAYS[offset % 3])
                assert now(transport.stats()) == (0, 0, 0)

    asyncio.run(main())


LINES = [
    b"HTTP/1.1 200 OK\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 100 Continue\r\n",
    b"HTTP/1.1 304 Not Modified\r\n", b"content-length: 5\r\n", b"transfer-encoding: chunked\r\n",
    b"connection: close\r\n", b"content-encoding: gzip\r\n", b"\r\n", b"hello", b"5\r\n",
    b"0\r\n\r\n", b"\x00",
]  # fmt: skip


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    whole = draw(st.sampled_from([whole for whole, _ in ANSWERS.values()]))
    at = draw(st.integers(0, len(whole)))
    return whole[:at] + draw(st.binary(max_size=4)) + whole[at + draw(st.integers(0, 3)) :]


JUNK = st.one_of(
    st.binary(max_size=200), damaged(), st.lists(st.sampled_from(LINES), max_size=12).map(b"".join)
)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(JUNK, min_size=1, max_size=25))
def test_whatever_comes_is_an_answer_or_an_upstream_error(answers: list[bytes]) -> None:
    async def main() -> None:
        async def handle(peer: Peer) -> None:
            head, _ = await peer.request()
            await peer.send(answers[int(head.split(b" ")[1][1:])])

        async with upstream(handle) as server, client() as transport:

            async def one(number: int) -> None:
                try:
                    async with asyncio.timeout(5):
                        await exchange(transport, f"{server.url}/{number}", WAYS[number % 3])
                except UpstreamError:
                    pass

            await each(list(range(len(answers))), one)
            stats = transport.stats()
            assert (stats.busy, stats.waiting) == (0, 0)

    asyncio.run(main())
