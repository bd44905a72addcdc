"""Answers of the upstream, whole and broken, as the client gets them."""

from __future__ import annotations

import json

import openai
import pytest

from tests.fakes.stand import USER, Stand, request_bytes, until
from tests.fakes.upstream import Fault


def test_a_stream_is_the_same_whatever_the_pieces(stand: Stand) -> None:
    bodies = []
    for size in (None, 1, 7):
        stand.up.chunk_bytes = size
        bodies.append(stand.stream())
    assert bodies[0] == bodies[1] == bodies[2]
    assert bodies[0].endswith(b"data: [DONE]\n\n")


def test_a_release_behind_an_unreachable_upstream_is_a_502(stand: Stand) -> None:
    with pytest.raises(openai.InternalServerError) as caught:
        stand.client.chat.completions.create(model="down", messages=USER)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_unreachable")


def test_a_silent_upstream_is_a_504(stand: Stand) -> None:
    stand.up.faults.append(Fault(silent=True))
    with pytest.raises(openai.InternalServerError) as caught:
        stand.client.chat.completions.create(model="support", messages=USER)
    assert (caught.value.status_code, caught.value.code) == (504, "upstream_timeout")
    assert stand.up.noticed_a_disconnect()


@pytest.mark.parametrize("after", [0, 1, 50])
def test_a_plain_answer_that_is_cut_is_a_502(stand: Stand, after: int) -> None:
    stand.up.faults.append(Fault(cut_after=after))
    with pytest.raises(openai.InternalServerError) as caught:
        stand.client.chat.completions.create(model="support", messages=USER)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_broken")


def test_a_stream_cut_before_its_first_event_is_a_502(stand: Stand) -> None:
    stand.up.faults.append(Fault(cut_after=0))
    with pytest.raises(openai.InternalServerError) as caught:
        stand.client.chat.completions.create(model="support", messages=USER, stream=True)
    assert (caught.value.status_code, caught.value.code) == (502, "upstream_broken")


@pytest.mark.parametrize(
    ("fault", "code"),
    [
        (Fault(cut_after=300), "upstream_broken"),
        (Fault(stall_after=300), "upstream_timeout"),
        (Fault(raw=b'data: {"choices": []}\n\n'), "upstream_broken"),
    ],
)
def test_a_stream_that_breaks_ends_in_one_error_event_and_no_done(
    stand: Stand, fault: Fault, code: str
) -> None:
    stand.up.faults.append(fault)
    events = stand.stream().split(b"\n\n")
    assert events[-1] == b""
    assert json.loads(events[-2].removeprefix(b"data: "))["error"]["code"] == code
    for event in events[:-2]:
        assert "choices" in json.loads(event.removeprefix(b"data: "))
    assert (stand.record().status, stand.record().error) == (200, code)


def test_a_stream_without_done_but_finished_is_whole(stand: Stand) -> None:
    body = b'data: {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}\n\n'
    stand.up.faults.append(Fault(raw=body))
    assert stand.stream() == body


def test_the_official_client_raises_on_the_error_event(stand: Stand) -> None:
    stand.up.faults.append(Fault(cut_after=300))
    stream = stand.client.chat.completions.create(model="support", messages=USER, stream=True)
    with pytest.raises(openai.APIError, match="broke off"):
        list(stream)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault(429, b'{"error": {"message": "slow", "code": "rate_limit_exceeded"}}', {"retry-after": "7"}),
         429, "rate_limit_exceeded"),
        (Fault(400, b'{"error": {"message": "bad", "param": "top_p", "code": null}}'), 400, "upstream_error"),
        (Fault(401, b'{"error": {"message": "Incorrect API key: sk-real"}}'), 502, "upstream_error"),
        (Fault(400, b'{"error": {"message": "key sk-real-key is odd"}}'), 400, "upstream_error"),
        (Fault(500, b"<html>Traceback</html>"), 502, "upstream_error"),
        (Fault(503, b"", {"retry-after": "3"}), 503, "upstream_error"),
        (Fault(504, b""), 504, "upstream_error"),
        (Fault(302, b"", {"location": "http://127.0.0.1:1/"}), 502, "upstream_error"),
    ],
)  # fmt: skip
def test_errors_of_the_upstream_keep_their_meaning_and_lose_its_secrets(
    stand: Stand, fault: Fault, status: int, code: str | None
) -> None:
    stand.up.faults.append(fault)
    got, headers, answer = stand.post(
        "/v1/chat/completions", json.dumps({"model": "support", "messages": USER}).encode()
    )
    assert (got, answer["error"]["code"]) == (status, code)
    assert headers.get("retry-after") == fault.headers.get("retry-after")
    assert "sk-" not in answer["error"]["message"]
    assert "Traceback" not in answer["error"]["message"]


def test_a_client_that_leaves_a_stream_closes_the_upstream(stand: Stand) -> None:
    stand.up.faults.append(Fault(stall_after=300))
    with stand.connect() as client:
        body = json.dumps({"model": "support", "messages": USER, "stream": True})
        client.sendall(request_bytes(body))
        assert b"200 OK" in client.recv(4096)
    assert stand.up.noticed_a_disconnect()
    assert (stand.record().status, stand.record().error) == (200, "client_closed")


def test_a_client_that_leaves_before_the_answer_closes_the_upstream(stand: Stand) -> None:
    stand.up.faults.append(Fault(silent=True))
    with stand.connect() as client:
        client.sendall(request_bytes(json.dumps({"model": "support", "messages": USER})))
        until(lambda: stand.up.seen)
    assert stand.up.noticed_a_disconnect(0.4)
    assert (stand.record().status, stand.record().error) == (499, "client_closed")
