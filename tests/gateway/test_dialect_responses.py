"""Laws of the Responses dialect: streamed and whole say the same, wherever the stream is cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from openai.types.responses import ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.dataplane import sse
from gateway.dataplane.dialects.messages import to_chat as from_messages
from gateway.dataplane.dialects.messages_reply import Messages
from gateway.dataplane.dialects.responses import items_of, read, to_chat
from gateway.dataplane.dialects.responses_reply import Responses
from gateway.dataplane.stored import Stored
from gateway.errors import InvalidRequest
from tests.gateway.test_dialect_messages import arguments, calls, chat_of, events_of, finishes, texts, usages

EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def said_in(stream: bytes) -> list[dict[str, Any]]:
    """The events, each of which the official client's types take, numbered in order."""
    found: list[dict[str, Any]] = []
    for event in sse.Splitter().push(stream):
        data = sse.data_of(event) or b""
        said = json.loads(data)
        assert event.startswith(b"event: " + said["type"].encode() + b"\n")
        assert said["sequence_number"] == len(found)
        EVENTS.validate_json(data, strict=False)
        found.append(said)
    return found


@given(st.data(), texts, texts, calls, finishes, usages)
def test_a_stream_makes_the_response_that_the_whole_answer_makes(
    data: st.DataObject,
    text: str,
    thought: str,
    made: list[tuple[str, Any]],
    finish: str,
    used: tuple[int, ...],
) -> None:
    chat = chat_of(text, thought, made, finish, used)
    whole = json.loads(Responses("req_1").whole(200, json.dumps(chat).encode()))
    stream, dialect = events_of(data, chat), Responses("req_1")
    ends = [0, *sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6))), len(stream)]
    out = b"".join(dialect.events(stream[a:b]) for a, b in pairwise(ends)) + dialect.end()
    events = said_in(out)
    assert events[-1]["type"] == f"response.{whole['status']}"
    assert events[-1]["response"] == whole
    deltas = "".join(e["delta"] for e in events if e["type"] == "response.output_text.delta")
    assert deltas == text
    grown: dict[str, str] = {}
    for event in events:
        if event["type"] == "response.function_call_arguments.delta":
            grown[event["item_id"]] = grown.get(event["item_id"], "") + event["delta"]
    items = [item for item in whole["output"] if item["type"] == "function_call"]
    assert [grown.get(item["id"], "") for item in items] == [item["arguments"] for item in items]


@given(texts, texts, calls, usages)
def test_both_dialects_make_the_same_conversation_of_one_answer(
    text: str, thought: str, made: list[tuple[str, Any]], used: tuple[int, ...]
) -> None:
    chat = chat_of(text, thought, made, "tool_calls" if made else "stop", used)
    body = json.dumps(chat).encode()
    response = json.loads(Responses("req_1").whole(200, body))
    message = json.loads(Messages("req_1").whole(200, body))
    assume(text or made)
    mine = to_chat(read(b'{"model": "m"}'), response["output"])
    turn = {"role": "assistant", "content": message["content"]}
    theirs = from_messages(json.dumps({"model": "m", "max_tokens": 9, "messages": [turn]}).encode())
    (one,), (other,) = mine["messages"], theirs["messages"]
    for said in (one, other):
        for call in said.get("tool_calls", ()):
            call["function"]["arguments"] = json.loads(call["function"]["arguments"])
    assert (one["content"] or "") == (other["content"] or "") == text
    assert one.get("tool_calls") == other.get("tool_calls")
    assert one.get("reasoning_content") == other.get("reasoning_content")
    assert response["usage"]["output_tokens"] == message["usage"]["output_tokens"]
    usage = message["usage"]
    assert response["usage"]["input_tokens"] == usage["input_tokens"] + usage["cache_read_input_tokens"]


@given(texts, arguments)
def test_what_a_model_said_comes_back_to_it(text: str, given_: dict[str, Any]) -> None:
    chat = chat_of(text, "", [("look", given_)], "tool_calls", (1, 1, 0))
    answer = json.loads(Responses("req_1").whole(200, json.dumps(chat).encode()))
    result = {"type": "function_call_output", "call_id": "c0", "output": "done"}
    items = [{"role": "user", "content": "?"}, *answer["output"], result]
    _, said, told = to_chat(read(b'{"model": "m"}'), items)["messages"]
    assert said["tool_calls"][0]["function"] == {"name": "look", "arguments": json.dumps(given_)}
    assert (said["content"] or "") == text
    assert told == {"role": "tool", "tool_call_id": "c0", "content": "done"}


def test_a_stream_without_a_finish_never_completes() -> None:
    chunk = {"model": "tiny", "choices": [{"index": 0, "delta": {"content": "half"}}]}
    dialect = Responses("req_1")
    out = dialect.events(sse.event_of(json.dumps(chunk).encode())) + dialect.end()
    assert [event["type"] for event in said_in(out)][-1] == "response.failed"


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b"\xff", b'{"model": "m", "input": 3}'])
def test_malformed_requests_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        to_chat(read(body), items_of(read(body)))


def test_responses_are_bounded_by_tenant_in_bytes_and_in_time() -> None:
    now = [0.0]
    stored = Stored(10, 800, lambda: now[0])
    for name in ("a", "b"):
        stored.put("ann", name, b"x" * 30, b"y" * 30, 1)
    assert stored.get("bob", "a") is None
    assert stored.get("ann", "a") is not None
    stored.put("ann", "large", b"x" * 101, b"", 1)
    assert stored.get("ann", "large") is None
    for at in range(20):
        stored.put("ann", f"n{at}", b"x" * 80, b"", 1)
    assert stored.bytes <= 800
    assert stored.get("ann", "b") is None
    now[0] = 11
    assert [stored.get("ann", f"n{at}") for at in range(20)] == [None] * 20
    assert (stored.bytes, stored.drop("ann", "n19")) == (0, False)
