"""The mock upstream and the load generator against each other, on a real socket."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.bench.gateway import load, upstream
from tests.bench.gateway.client import Connection
from tests.bench.gateway.contenders.base import Door, bearer
from tests.bench.gateway.stand import chat_body

CHUNKS = 4


@asynccontextmanager
async def mock(**change: float) -> AsyncIterator[Door]:
    loop = asyncio.get_running_loop()
    script = upstream.Script()
    script.apply({"chunks": CHUNKS, "chunk_delay_ms": 0} | change)
    server = await loop.create_server(lambda: upstream.Answering(script, loop), "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        yield Door(port, upstream.MODEL, bearer(upstream.KEY))


def exchanged(body: str, key: str = upstream.KEY) -> Any:
    async def main() -> Any:
        async with mock() as door:
            connection = Connection("127.0.0.1", door.port, 5)
            head = Door(door.port, door.model, bearer(key)).head
            reply = await connection.exchange(load.request_bytes(head, body))
            connection.close()
            return reply

    return asyncio.run(main())


def run(mode: Callable[[dict[str, Any]], Awaitable[dict[str, Any]]], **job: Any) -> dict[str, Any]:
    async def main() -> dict[str, Any]:
        async with mock() as door:
            return await mode(
                {"host": "127.0.0.1", "port": door.port, "head": door.head, "timeout_s": 5} | job
            )

    return asyncio.run(main())


def test_a_plain_answer_has_usage_and_about_a_kilobyte() -> None:
    reply = exchanged(chat_body(upstream.MODEL))
    assert (reply.status, reply.error) == (200, "")
    assert 900 < len(reply.body) < 1300
    assert json.loads(reply.body)["usage"] == {
        "prompt_tokens": 180, "completion_tokens": 90, "total_tokens": 270,
    }  # fmt: skip


def test_a_stream_has_every_chunk_usage_and_its_end() -> None:
    reply = exchanged(chat_body(upstream.MODEL, stream=True))
    assert reply.is_whole(CHUNKS)
    events = bytes(reply.body).split(b"\n\n")
    assert events[-2:] == [b"data: [DONE]", b""]
    assert json.loads(events[-3].removeprefix(b"data: "))["usage"]["completion_tokens"] == CHUNKS


def test_a_wrong_key_is_refused() -> None:
    assert exchanged(chat_body(upstream.MODEL), key="other").status == 401


@pytest.mark.parametrize(
    ("fault", "stream", "expected"),
    [
        ("500", False, (500, "", 0)),
        ("429", True, (429, "", 0)),
        ("cut", False, (200, "closed in the answer", 0)),
        ("reset", False, (200, "reset in the answer", 0)),
        ("cut", True, (200, "closed in the answer", CHUNKS - 1)),
        ("reset", True, (200, "reset in the answer", CHUNKS - 1)),
    ],
)
def test_faults_are_seen_as_what_they_are(fault: str, stream: bool, expected: tuple[int, str, int]) -> None:
    reply = exchanged(chat_body(upstream.MODEL, stream=stream, fault=fault))
    assert expected == (reply.status, reply.error, reply.marks)
    assert not reply.is_whole(CHUNKS)


def test_closed_loop_counts_every_answer() -> None:
    result = run(load.closed, body=chat_body("mock"), connections=3, seconds=0.2, pause_s=1)
    assert result["statuses"] == {"200": result["completed"]}
    assert (result["errors"], result["refused_per_s"]) == ({}, 0)
    assert 0 < result["admitted"]["p50_ms"] <= result["admitted"]["p99_ms"]


def test_refused_clients_wait_and_are_no_goodput() -> None:
    body = chat_body("mock", fault="429")
    result = run(load.closed, body=body, connections=2, seconds=0.25, pause_s=0.1)
    assert result["goodput"] == 0
    assert result["statuses"].keys() == {"429"}
    assert result["statuses"]["429"] <= 2 * 4


def test_a_steady_rate_sends_the_planned_number() -> None:
    result = run(load.steady, body=chat_body("mock"), rate=100, seconds=0.3)
    assert (result["completed"], result["errors"]) == (30, {})


def test_streams_are_whole_and_counted() -> None:
    body = chat_body("mock", stream=True)
    result = run(load.streams, body=body, connections=5, chunks=CHUNKS, seconds=0)
    assert (result["streams"], result["whole"], result["chunks"]) == (5, 5, 5 * CHUNKS)
    assert result["errors"] == {}


def test_a_mix_tells_how_each_request_ended() -> None:
    kinds = {
        "plain": {"body": chat_body("mock"), "stream": False, "leave_after_s": None},
        "cut": {"body": chat_body("mock", stream=True, fault="cut"), "stream": True, "leave_after_s": None},
        "left": {"body": chat_body("mock", fault="slow"), "stream": False, "leave_after_s": 0.001},
        "left stream": {"body": chat_body("mock", stream=True), "stream": True, "leave_after_s": 0.0},
    }

    async def main() -> dict[str, Any]:
        async with mock() as door:
            told = {name: kind | {"share": 1, "head": door.head} for name, kind in kinds.items()}
            job = {"host": "127.0.0.1", "port": door.port, "timeout_s": 5, "requests": 40, "connections": 2}
            return await load.mixed(job | {"kinds": told, "seed": 1, "chunks": CHUNKS})

    outcomes = asyncio.run(main())["outcomes"]
    assert {name: set(ends) for name, ends in outcomes.items()} == {
        "plain": {"whole"}, "cut": {"closed in the answer"}, "left": {"left"}, "left stream": {"left"},
    }  # fmt: skip
    assert sum(sum(ends.values()) for ends in outcomes.values()) == 40
