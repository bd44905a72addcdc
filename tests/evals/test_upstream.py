from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest
from aiohttp import web

from evals.client import Patience, Reply
from evals.upstream import Refused, Upstream
from tests.evals.fake_gateway import error
from tests.evals.fake_judge import KEY, FakeJudge, serve_judge

FAST = Patience(first_pause_s=0.01, timeout_s=0.5, retries=2)
BODY = {"model": "judge", "messages": [{"role": "user", "content": "Ünïcode?"}]}


@pytest.fixture
def server() -> Iterator[FakeJudge]:
    with serve_judge() as served:
        yield served


def post(server: FakeJudge, *, times: int = 1, key: str = KEY, most: int = 8) -> tuple[list[Any], Upstream]:
    async def go() -> tuple[list[Any], Upstream]:
        async with Upstream(server.url, key, concurrency=most, patience=FAST) as upstream:
            found = await asyncio.gather(*(upstream.post("/chat/completions", BODY) for _ in range(times)))
            return list(found), upstream

    return asyncio.run(go())


def test_a_body_arrives_as_it_was_written_and_the_answer_comes_back(server: FakeJudge) -> None:
    (found,), upstream = post(server)
    assert isinstance(found, Reply)
    assert found.body["choices"][0]["message"]["content"] == "yes"
    assert server.bodies == [BODY]
    assert (upstream.calls, upstream.retried) == (1, 0)


@pytest.mark.parametrize(
    ("status", "attempts", "kind"),
    [
        (429, 3, "rate_limited"),
        (500, 3, "http_500"),
        (503, 3, "http_503"),
        (400, 1, "http_400"),
        (401, 1, "http_401"),
    ],
)
def test_only_what_may_pass_is_repeated(server: FakeJudge, status: int, attempts: int, kind: str) -> None:
    server.faults = [lambda _body: error(status, "scripted")] * 9
    (found,), upstream = post(server)
    assert found == Refused(kind, status)
    assert upstream.calls == attempts


def test_a_wrong_key_is_refused_without_a_second_try(server: FakeJudge) -> None:
    (found,), upstream = post(server, key="sk-wrong")
    assert (found, upstream.calls) == (Refused("http_401", 401), 1)


def test_a_server_that_says_nothing_is_a_timeout_and_never_asked_again(server: FakeJudge) -> None:
    server.delay_s = 5.0
    (found,), upstream = post(server)
    assert (found, upstream.calls) == (Refused("timeout"), 1)


def test_an_answer_without_end_is_cut(server: FakeJudge) -> None:
    server.faults = [lambda _body: web.Response(body=b" " * 17_000_000)]
    (found,), _ = post(server)
    assert found == Refused("answer_too_large", 200)


def test_no_server_is_a_lost_connection() -> None:
    gone = FakeJudge(url="http://127.0.0.1:9/v1")
    (found,), upstream = post(gone)
    assert (found, upstream.calls) == (Refused("connection"), 3)


def test_rate_limits_slow_all_calls_down_and_every_one_still_ends(server: FakeJudge) -> None:
    server.faults = [lambda _body: error(429, "slow_down", **{"retry-after": "0"})] * 6
    found, upstream = post(server, times=40, most=8)
    assert all(isinstance(one, Reply) for one in found)
    assert upstream.pace.slowed >= 1
    assert server.most_under_way <= 8
