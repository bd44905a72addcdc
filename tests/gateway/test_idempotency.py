"""Requests that are sent again under one Idempotency-Key."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.idempotency import Answers, Kept
from gateway.dataplane.table import Route
from gateway.errors import IdempotencyConflict, Overloaded
from tests.fakes.parts import CLIENT_KEY, DIGEST, DataPlane, FixedSources, provider_at, table_of
from tests.fakes.server import serving
from tests.fakes.stand import USER, Stand, until
from tests.fakes.upstream import MODEL, Fault, Upstream

JSON = ((b"content-type", b"application/json"),)
A = ("key_1", b"a")


class Time:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def keep(answers: Answers, name: tuple[str, bytes], body: bytes = b"answer") -> None:
    assert claimed(answers, name) is None
    answers.settle(name, 200, JSON, body)


def claimed(answers: Answers, name: tuple[str, bytes], digest: bytes = b"d") -> Kept | None:
    return asyncio.run(answers.claim(name, digest))


def test_a_kept_answer_is_found_by_its_account_and_key_alone() -> None:
    answers = Answers(10, now=Time())
    keep(answers, A)
    assert claimed(answers, A) == Kept(b"d", 200, JSON, b"answer", 10.0)
    assert claimed(answers, ("key_2", b"a")) is None
    assert claimed(answers, ("key_1", b"b")) is None


def test_another_request_under_the_same_key_is_a_conflict_while_it_runs_and_after() -> None:
    answers = Answers(10, now=Time())
    assert claimed(answers, A, b"one") is None
    with pytest.raises(IdempotencyConflict):
        claimed(answers, A, b"two")
    answers.settle(A, 200, JSON, b"answer")
    with pytest.raises(IdempotencyConflict):
        claimed(answers, A, b"two")


@pytest.mark.parametrize(
    ("status", "is_kept"),
    [(200, True), (201, True), (400, True), (404, True), (422, True), (499, True),
     (408, False), (409, False), (429, False), (500, False), (503, False), (101, False)],
)  # fmt: skip
def test_what_another_try_may_better_is_not_kept(status: int, *, is_kept: bool) -> None:
    answers = Answers(10, now=Time())
    assert claimed(answers, A) is None
    answers.settle(A, status, JSON, b"answer")
    assert (claimed(answers, A) is not None) == is_kept


def test_an_answer_is_forgotten_when_its_time_is_over() -> None:
    time = Time()
    answers = Answers(10, now=time)
    keep(answers, A)
    time.now_s = 9.9
    assert claimed(answers, A) is not None
    time.now_s = 10.0
    assert claimed(answers, A, b"another request") is None
    assert answers.bytes == 0


def test_one_of_many_runs_and_all_others_get_its_answer() -> None:
    answers = Answers(10)
    runs = 0

    async def request() -> bytes:
        nonlocal runs
        kept = await answers.claim(A, b"d")
        if kept is not None:
            return kept.body
        runs += 1
        await asyncio.sleep(0)
        answers.settle(A, 200, JSON, b"answer")
        return b"answer"

    async def many() -> list[bytes]:
        return await asyncio.gather(*(request() for _ in range(50)))

    assert (asyncio.run(many()), runs) == ([b"answer"] * 50, 1)


def test_when_the_first_fails_the_others_run_one_at_a_time() -> None:
    answers = Answers(10)
    running = most_running = runs = 0

    async def request() -> None:
        nonlocal running, most_running, runs
        if await answers.claim(A, b"d") is not None:
            return
        runs += 1
        running += 1
        most_running = max(most_running, running)
        await asyncio.sleep(0)
        running -= 1
        answers.settle(A, 200, JSON, b"third" if runs == 3 else None)

    async def many() -> None:
        await asyncio.gather(*(request() for _ in range(20)))

    asyncio.run(many())
    assert (runs, most_running) == (3, 1)


def test_one_that_waits_and_leaves_disturbs_nobody() -> None:
    answers = Answers(10)

    async def story() -> Kept | None:
        assert await answers.claim(A, b"d") is None
        leaving, staying = (asyncio.create_task(answers.claim(A, b"d")) for _ in range(2))
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.sleep(0)
        answers.settle(A, 200, JSON, b"answer")
        return await staying

    kept = asyncio.run(story())
    assert kept is not None
    assert kept.body == b"answer"


def test_waiting_has_an_end() -> None:
    answers = Answers(10, wait_s=0.0)
    assert claimed(answers, A) is None
    with pytest.raises(Overloaded, match="still running"):
        claimed(answers, A)


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 5), st.integers(0, 30)), max_size=60))
def test_bounds_hold_and_bytes_are_counted(story: list[tuple[int, int, int]]) -> None:
    answers = Answers(10, max_bytes=100, now=Time(), max_of_account=3)
    used: dict[str, list[tuple[str, bytes]]] = {"0": [], "1": [], "2": []}
    for account, key, size in story:
        name = (str(account), b"%d" % key)
        if claimed(answers, name) is None:
            answers.settle(name, 200, JSON, b"x" * size)
        if name in used[name[0]]:
            used[name[0]].remove(name)
        used[name[0]].append(name)
    found: list[Kept] = []
    for names in used.values():
        kept = [k for name in names if (k := asyncio.run(peek(answers, name))) is not None]
        assert len(kept) <= 3
        found += kept
    assert sum(len(k.body) for k in found) == answers.bytes <= 100
    assert all(len(k.body) <= 100 // 8 for k in found)


async def peek(answers: Answers, name: tuple[str, bytes]) -> Kept | None:
    kept = await answers.claim(name, b"d")
    if kept is None:
        answers.settle(name, 500, (), None)
    return kept


def test_the_answer_longest_unused_makes_room() -> None:
    answers = Answers(10, now=Time(), max_of_account=2)
    for key in (b"a", b"b"):
        keep(answers, ("key_1", key))
    assert claimed(answers, A) is not None
    keep(answers, ("key_1", b"c"))
    assert asyncio.run(peek(answers, ("key_1", b"b"))) is None
    assert asyncio.run(peek(answers, A)) is not None


def test_one_account_does_not_push_out_the_answers_of_another() -> None:
    answers = Answers(10, now=Time(), max_of_account=10)
    keep(answers, ("quiet", b"a"))
    for number in range(100):
        keep(answers, ("loud", b"%d" % number))
    assert asyncio.run(peek(answers, ("quiet", b"a"))) is not None


# Over HTTP.


@pytest.fixture(scope="module")
def running(up: Upstream) -> Iterator[Stand]:
    provider = provider_at(up.url, first_byte_timeout_s=5.0)
    routes = {"support": Route(name="support", digest=DIGEST, model=MODEL, provider=provider)}
    stand = Stand("", up)
    sources = FixedSources(table_of(routes))
    with serving(DataPlane(sources, stand.records.append, answers=Answers(60))) as url:
        stand.url = url
        stand.routes = [target.route for target in sources.table.targets.values()]
        yield stand


@pytest.fixture
def keyed(running: Stand) -> Stand:
    running.up.faults.clear()
    running.up.seen.clear()
    running.up.answer = "forty two"
    running.records.clear()
    running.heal()
    return running


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": "support", "messages": USER, **fields}).encode()


def send(stand: Stand, key: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
    """Status, headers but for those of the one request, and the body as it came."""
    parts = urlsplit(stand.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    headers = {"authorization": f"Bearer {CLIENT_KEY}", "idempotency-key": key}
    connection.request("POST", "/v1/chat/completions", body, headers)
    response = connection.getresponse()
    data = response.read()
    connection.close()
    return response.status, {name.lower(): value for name, value in response.getheaders()}, data


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_is_replayed_byte_for_byte_without_asking_again(keyed: Stand, *, stream: bool) -> None:
    key = f"replay-{stream}"
    status, headers, data = send(keyed, key, chat(stream=stream))
    keyed.up.answer = "something else"
    again_status, again_headers, again = send(keyed, key, chat(stream=stream))
    assert (status, again_status, again) == (200, 200, data)
    assert again_headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in headers
    for name in ("content-type", "x-sluicegate-release", "x-sluicegate-digest"):
        assert again_headers[name] == headers[name]
    assert again_headers["x-request-id"] != headers["x-request-id"]
    assert len(keyed.up.seen) == 1


def test_another_body_under_the_same_key_is_refused(keyed: Stand) -> None:
    send(keyed, "conflict", chat())
    status, _, data = send(keyed, "conflict", chat(temperature=0.5))
    assert (status, json.loads(data)["error"]["code"]) == (422, "idempotency_conflict")
    assert len(keyed.up.seen) == 1


def test_without_a_key_every_request_is_asked(keyed: Stand) -> None:
    for _ in range(2):
        keyed.post("/v1/chat/completions", chat())
    assert len(keyed.up.seen) == 2


@pytest.mark.parametrize("key", ["", "two words", "x" * 256, "caf\xe9"])
def test_a_key_of_another_form_is_refused(keyed: Stand, key: str) -> None:
    status, _, data = send(keyed, key, chat())
    error = json.loads(data)["error"]
    assert (status, error["param"], error["code"]) == (400, "Idempotency-Key", "invalid_request")
    assert keyed.up.seen == []


@pytest.mark.parametrize(
    ("fault", "stream"),
    [(Fault(status=500), False), (Fault(status=429), False), (Fault(cut_after=5), False),
     (Fault(cut_after=200), True)],
)  # fmt: skip
def test_what_failed_is_tried_again(keyed: Stand, fault: Fault, *, stream: bool) -> None:
    key = f"again-{fault.status}-{fault.cut_after}"
    keyed.up.faults.append(fault)
    send(keyed, key, chat(stream=stream))
    status, headers, data = send(keyed, key, chat(stream=stream))
    assert (status, b'"error"' in data, "idempotent-replayed" in headers) == (200, False, False)
    assert len(keyed.up.seen) == 2


def test_a_second_request_waits_for_the_first(keyed: Stand) -> None:
    results: list[tuple[int, dict[str, str], bytes]] = []
    threads = [
        threading.Thread(target=lambda: results.append(send(keyed, "at-once", chat()))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len({data for _, _, data in results}) == 1
    assert sum("idempotent-replayed" in headers for _, headers, _ in results) == 7
    assert len(keyed.up.seen) == 1


def test_when_the_first_client_leaves_the_second_is_answered(keyed: Stand) -> None:
    keyed.up.faults.append(Fault(silent=True))
    body = chat()
    connection = keyed.connect()
    connection.sendall(
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nidempotency-key: left\r\n"
        b"authorization: Bearer %s\r\ncontent-length: %d\r\n\r\n" % (CLIENT_KEY.encode(), len(body)) + body
    )
    until(lambda: keyed.up.seen)
    results: list[tuple[int, dict[str, str], bytes]] = []
    waiting = threading.Thread(target=lambda: results.append(send(keyed, "left", body)))
    waiting.start()
    connection.close()
    waiting.join(10)
    assert [(status, "idempotent-replayed" in headers) for status, headers, _ in results] == [(200, False)]
