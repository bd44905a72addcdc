"""
The official Node client: the same as the Python one.

It needs Node 20 or newer and, once, `npm ci --prefix tests/clients/node --ignore-scripts`.
"""

from __future__ import annotations

import json
import select
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.parts import CLIENT_KEY, DIGEST
from tests.fakes.stand import Stand, until
from tests.fakes.upstream import MODEL, Fault

HERE = Path(__file__).parent / "node"
NODE = shutil.which("node")
INSTALLED = HERE / "node_modules" / "openai" / "package.json"
REASON = "needs Node and `npm ci --prefix tests/clients/node --ignore-scripts`"
pytestmark = pytest.mark.skipif(NODE is None or not INSTALLED.exists(), reason=REASON)
ARGUMENTS = '{"city": "Tromsø"}'
REFUSED = b'{"error": {"message": "No.", "type": "invalid_request_error", "param": "seed", "code": "no"}}'


class Node:
    """A process that plays a scenario each time it is told one."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def play(self, scenario: str) -> Any:
        """What came of it; `result`, or the `error` that the client raised."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(scenario.encode() + b"\n")
        self._process.stdin.flush()
        ready, _, _ = select.select([self._process.stdout], [], [], 20)
        assert ready, f"no word of {scenario}"
        told = json.loads(self._process.stdout.readline())
        assert "crash" not in told, told
        return told


@pytest.fixture(scope="session")
def node(running_stand: Stand) -> Iterator[Node]:
    command = [NODE or "", str(HERE / "matrix.mjs"), running_stand.url + "/v1", CLIENT_KEY]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        yield Node(process)
        process.terminate()


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("plain", {"text": "forty two", "usage": 9}),
        ("stream", {"text": "forty two", "usage": 3}),
        ("stream_helper", {"text": "forty two", "joined": "forty two"}),
        ("raw", {"text": "forty two", "release": "support", "request_id": "req_"}),
        ("several", {"plain": ["forty two"] * 3, "streamed": ["forty two"] * 3}),
        ("logprobs", ["for", "ty ", "two"]),
        ("completions", {"plain": ["say forty two"] * 2, "streamed": "forty two"}),
        ("embeddings", {"usual": [[0.25, -0.5]] * 2, "floats": [0.25, -0.5]}),
        ("models", {"listed": True, "id": "support", "digest": DIGEST}),
        ("at_once", [1, 2, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_the_node_client_is_answered(stand: Stand, node: Node, scenario: str, expected: object) -> None:
    assert node.play(scenario) == {"result": expected}


def test_the_node_client_gets_parallel_tool_calls(stand: Stand, node: Node) -> None:
    stand.up.answer = ARGUMENTS
    calls = [["call_1", "weather", ARGUMENTS], ["call_2", "time", ARGUMENTS]]
    assert node.play("tools") == {"result": {"plain": calls, "streamed": calls}}


def test_the_node_client_parses_an_answer(stand: Stand, node: Node) -> None:
    stand.up.answer = '{"name": "Oslo"}'
    assert node.play("parse") == {"result": {"name": "Oslo"}}
    assert stand.up.seen[0].body["model"] == MODEL
    assert stand.up.seen[0].body["response_format"]["json_schema"]["name"] == "city"


def test_the_node_client_gets_reasoning(stand: Stand, node: Node) -> None:
    stand.up.message = {"reasoning_content": "Let me think."}
    assert node.play("reasoning") == {"result": {"plain": "Let me think.", "streamed": ["Let me think."]}}


@pytest.mark.parametrize(
    ("status", "name", "told"),
    [
        (400, "BadRequestError", 400),
        (401, "InternalServerError", 502),
        (404, "NotFoundError", 404),
        (409, "ConflictError", 409),
        (422, "UnprocessableEntityError", 422),
        (429, "RateLimitError", 429),
        (500, "InternalServerError", 502),
        (503, "InternalServerError", 503),
    ],
)
def test_the_node_client_raises_its_class(
    stand: Stand, node: Node, status: int, name: str, told: int
) -> None:
    stand.up.faults.extend([Fault(status=status, body=REFUSED)] * 20)
    error = node.play("ask")["error"]
    assert (error["class"], error["status"]) == (name, told)
    assert error["code"] == ("upstream_error" if told == 502 else "no")


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("wrong_key", ("AuthenticationError", 401, "invalid_api_key")),
        ("unknown_model", ("NotFoundError", 404, "model_not_found")),
        ("nobody_there", ("APIConnectionError", None, None)),
    ],
)
def test_the_node_client_is_refused(stand: Stand, node: Node, scenario: str, expected: object) -> None:
    error = node.play(scenario)["error"]
    assert (error["class"], error["status"], error["code"]) == expected
    assert stand.up.seen == []


def test_the_node_client_hears_of_a_stream_that_breaks_off(stand: Stand, node: Node) -> None:
    stand.up.faults.append(Fault(cut_after=300))
    told = node.play("ask_streaming")["result"]
    assert (told["class"], told["code"], told["some"]) == ("APIError", "upstream_broken", True)


def test_the_node_client_tries_again_when_told(stand: Stand, node: Node) -> None:
    hints = {"retry-after-ms": "5"}
    stand.up.faults.append(Fault(status=409, body=REFUSED, headers=hints))
    assert node.play("retried") == {"result": "forty two"}
    until(lambda: len(stand.records) == 2)


def test_the_node_client_frees_the_upstream_when_it_leaves(stand: Stand, node: Node) -> None:
    stand.up.faults.append(Fault(silent=True))
    assert node.play("too_slow")["error"]["class"] == "APIConnectionTimeoutError"
    assert stand.up.noticed_a_disconnect()
    stand.up.faults.clear()
    stand.up.faults.append(Fault(stall_after=300))
    assert node.play("aborted") == {"result": "assistant"}
    assert stand.up.noticed_a_disconnect()
