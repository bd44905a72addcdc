"""A stream that never says how its answer ended is an error in other APIs, and on record too."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import USER, Stand, until
from tests.fakes.upstream import Fault

HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
EVENT = json.dumps({**HEAD, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]})
ENDLESS = f"data: {EVENT}\n\ndata: [DONE]\n\n".encode()


def streamed(stand: Stand, path: str, body: dict[str, Any]) -> bytes:
    parts = urlsplit(stand.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=10)
    headers = {"authorization": f"Bearer {CLIENT_KEY}", "content-type": "application/json"}
    connection.request("POST", path, json.dumps({"model": "support", "stream": True, **body}), headers)
    data = connection.getresponse().read()
    connection.close()
    return data


@pytest.mark.parametrize(
    ("path", "body", "told"),
    [
        ("/v1/messages", {"max_tokens": 9, "messages": USER}, b"event: error"),
        ("/v1/responses", {"input": "a"}, b"event: response.failed"),
    ],
)
def test_an_end_without_a_reason_is_an_error(
    stand: Stand, path: str, body: dict[str, Any], told: bytes
) -> None:
    stand.up.faults.append(Fault(raw=ENDLESS))
    data = streamed(stand, path, body)
    assert told in data
    assert b"message_stop" not in data
    assert b"response.completed" not in data
    until(lambda: stand.records)
    assert (stand.record().error, stand.record().status) == ("upstream_broken", 200)


def test_chat_completions_are_passed_on_as_they_are(stand: Stand) -> None:
    stand.up.faults.append(Fault(raw=ENDLESS))
    assert streamed(stand, "/v1/chat/completions", {"messages": USER}).endswith(b"data: [DONE]\n\n")
    assert stand.record().error == ""
