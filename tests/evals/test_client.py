from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Callable

import pytest
from aiohttp import web

from evals.client import Client, Failure, Patience, Reply
from evals.errors import EvalsError, GatewayUnreachable, KeyRefused, ReleaseMoved, ReleaseNotServed
from evals.systems.base import Call
from tests.evals.fake_gateway import KEY, FakeGateway, Release, fault, hang_up

DIGEST = "sha256:" + "a" * 64
CALL = Call("/v1/chat/completions", {"model": "m@candidate", "messages": [{"role": "user", "content": "hi"}]})
QUICK = Patience(timeout_s=5, retries=2, ready_timeout_s=5, first_pause_s=0.001)


@pytest.fixture
def served(gateway: FakeGateway) -> FakeGateway:
    gateway.releases["m@candidate"] = Release(DIGEST, chat=lambda _question: "hello")
    return gateway


def ask(
    url: str,
    *,
    call: Call = CALL,
    digest: str = DIGEST,
    key: str = KEY,
    patience: Patience = QUICK,
    first: bool = False,
) -> tuple[Reply | Failure, int]:
    async def once() -> tuple[Reply | Failure, int]:
        async with Client(url, key, concurrency=2, patience=patience) as client:
            return await client.ask(call, digest, first=first), client.retried

    return asyncio.run(once())


def test_an_answer_has_its_body_and_its_latency(served: FakeGateway) -> None:
    reply, retried = ask(served.url)
    assert isinstance(reply, Reply)
    assert reply.body["choices"][0]["message"]["content"] == "hello"
    assert 0 < reply.latency_ms < 5000
    assert retried == 0


@pytest.mark.parametrize(
    ("trouble", "requests"),
    [
        (fault(429, "rate_limited"), 2),
        (fault(503, "overloaded"), 2),
        (fault(503, "release_not_ready", **{"retry-after": "0"}), 2),
        (hang_up, 2),
    ],
)
def test_passing_trouble_is_tried_again(
    served: FakeGateway, trouble: Callable[[web.Request], web.StreamResponse | None], requests: int
) -> None:
    served.faults = [trouble]
    reply, retried = ask(served.url)
    assert isinstance(reply, Reply)
    assert (len(served.requests), retried) == (requests, 1)


@pytest.mark.parametrize(
    ("trouble", "kind", "requests"),
    [
        (fault(503, "overloaded"), "overloaded", 3),
        (fault(429, "rate_limited"), "rate_limited", 3),
        (fault(502, "upstream_broken"), "upstream_broken", 1),
        (fault(400, "guardrail_blocked"), "guardrail_blocked", 1),
        (fault(500, "Not A Code!"), "http_500", 1),
        (lambda _request: web.Response(text="{", headers={"x-sluicegate-digest": DIGEST}), "bad_answer", 1),
        (lambda _request: web.Response(status=302, headers={"location": "/elsewhere"}), "http_302", 1),
        (hang_up, "connection", 3),
    ],
)
def test_lasting_trouble_is_a_failure_of_its_own_kind(
    served: FakeGateway,
    trouble: Callable[[web.Request], web.StreamResponse | None],
    kind: str,
    requests: int,
) -> None:
    served.faults = [trouble] * 5
    assert ask(served.url)[0] == Failure(kind)
    assert len(served.requests) == requests


def test_an_answer_that_does_not_end_is_a_timeout(served: FakeGateway) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        assert ask(url, patience=Patience(0.2, 3, 5, 0.001)) == (Failure("timeout"), 0)


def test_an_endless_answer_is_cut_off(served: FakeGateway) -> None:
    body = b" " * 16_000_001
    served.faults = [lambda _request: web.Response(body=body, headers={"x-sluicegate-digest": DIGEST})]
    assert ask(served.url)[0] == Failure("answer_too_large")


@pytest.mark.parametrize(
    ("digest", "key", "path", "kind", "requests"),
    [
        (DIGEST, "sk-sg-other", CALL.path, KeyRefused, 0),
        (DIGEST, KEY, "/v1/other", ReleaseNotServed, 1),
        ("sha256:" + "b" * 64, KEY, CALL.path, ReleaseMoved, 1),
    ],
)
def test_what_concerns_every_sample_ends_the_run(
    served: FakeGateway, digest: str, key: str, path: str, kind: type[EvalsError], requests: int
) -> None:
    with pytest.raises(kind) as caught:
        ask(served.url, call=Call(path, CALL.body), digest=digest, key=key)
    assert len(served.requests) == requests
    assert key not in caught.value.message


def test_an_answer_that_names_no_release_is_not_believed(served: FakeGateway) -> None:
    served.faults = [lambda _request: web.json_response({"choices": []})]
    with pytest.raises(ReleaseMoved, match="answered from no release"):
        ask(served.url)


def test_no_gateway_says_how_to_start_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(GatewayUnreachable, match="gateway serve"):
        ask(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "trouble",
    [
        fault(404, "model_not_found"),
        fault(503, "release_not_ready"),
        lambda _request: web.json_response(
            {"error": "not yet"}, status=503, headers={"x-sluicegate-error": "release_not_ready"}
        ),
        lambda _request: web.json_response({}, headers={"x-sluicegate-digest": "sha256:" + "b" * 64}),
    ],
)
def test_the_first_call_waits_for_a_gateway_that_follows_the_registry(
    served: FakeGateway, trouble: Callable[[web.Request], web.StreamResponse | None]
) -> None:
    served.faults = [trouble] * 4
    reply, retried = ask(served.url, first=True)
    assert isinstance(reply, Reply)
    assert retried == 4


def test_retries_wait_longer_each_time(served: FakeGateway) -> None:
    served.faults = [fault(503, "overloaded")] * 3
    started = time.monotonic()
    ask(served.url, patience=Patience(5, 3, 5, 0.02))
    assert time.monotonic() - started >= 0.02 + 0.04 + 0.08
