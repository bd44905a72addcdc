"""Laws of the Messages dialect: streamed and whole say the same, wherever the stream is cut."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane import sse
from gateway.dataplane.dialects.messages import to_chat
from gateway.dataplane.dialects.messages_reply import Messages
from gateway.errors import InvalidRequest, UpstreamBroken

texts = st.text(max_size=30)
values = st.recursive(st.none() | st.booleans() | st.integers(-9, 9) | texts, st.lists, max_leaves=5)
arguments = st.dictionaries(st.text(max_size=5), values, max_size=3)
calls = st.lists(st.tuples(st.text("abc_", min_size=1, max_size=5), arguments), max_size=3)
finishes = st.sampled_from(["stop", "length", "tool_calls", "content_filter"])
usages = st.tuples(st.integers(0, 999), st.integers(0, 999), st.integers(0, 999))


def pieces(data: st.DataObject, text: str) -> list[str]:
    """*text* cut anywhere, in code points."""
    if not text:
        return []
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)), max_size=4)))
    ends = [0, *cuts, len(text)]
    return [text[a:b] for a, b in pairwise(ends)]


def chat_of(
    text: str, thought: str, made: list[tuple[str, Any]], finish: str, used: tuple[int, ...]
) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text or None}
    if thought:
        message["reasoning_content"] = thought
    if made:
        message["tool_calls"] = [
            {"id": f"c{at}", "type": "function", "function": {"name": name, "arguments": json.dumps(given)}}
            for at, (name, given) in enumerate(made)
        ]
    prompt, completion, cached = used
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    usage["prompt_tokens_details"] = {"cached_tokens": min(cached, prompt)}  # type: ignore[assignment]
    return {
        "model": "tiny",
        "choices": [{"index": 0, "message": message, "finish_reason": finish}],
        "usage": usage,
    }


def events_of(data: st.DataObject, chat: dict[str, Any]) -> bytes:
    """*chat* as a stream of events, its parts in pieces; tool calls grow side by side."""
    choice = chat["choices"][0]
    message = choice["message"]
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"reasoning_content": one} for one in pieces(data, message.get("reasoning_content") or "")]
    deltas += [{"content": one} for one in pieces(data, message["content"] or "")]
    growing: list[dict[str, Any]] = []
    for index, call in enumerate(message.get("tool_calls", ())):
        first = {"index": index, "id": call["id"], "type": "function"}
        deltas.append(
            {"tool_calls": [{**first, "function": {"name": call["function"]["name"], "arguments": ""}}]}
        )
        growing += [
            {"tool_calls": [{"index": index, "function": {"arguments": one}}]}
            for one in pieces(data, call["function"]["arguments"])
        ]
    order = data.draw(st.permutations(range(len(growing)))) if len(growing) < 6 else range(len(growing))
    by_call: dict[int, list[dict[str, Any]]] = {}
    for one in growing:
        by_call.setdefault(one["tool_calls"][0]["index"], []).append(one)
    for at in order:  # which call grows next is free, the order within each is not
        deltas.append(by_call[growing[at]["tool_calls"][0]["index"]].pop(0))
    chunks = [{"model": chat["model"], "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    last = {"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}
    chunks.append({"model": chat["model"], "choices": [last]})
    chunks.append({"model": chat["model"], "choices": [], "usage": chat["usage"]})
    return b"".join(sse.event_of(json.dumps(chunk).encode()) for chunk in chunks) + sse.DONE_EVENT


def assembled(stream: bytes) -> dict[str, Any]:
    """The message that Anthropic's events make."""
    message: dict[str, Any] = {}
    parts: dict[int, str] = {}
    for event in sse.Splitter().push(stream):
        said = json.loads(sse.data_of(event) or b"")
        kind = said["type"]
        assert event.startswith(b"event: " + kind.encode() + b"\n")
        if kind == "message_start":
            message = said["message"]
        elif kind == "content_block_start":
            assert said["index"] == len(message["content"])
            message["content"].append(said["content_block"])
        elif kind == "content_block_delta":
            block = message["content"][said["index"]]
            delta = said["delta"]
            if delta["type"] == "input_json_delta":
                parts[said["index"]] = parts.get(said["index"], "") + delta["partial_json"]
            else:
                key = delta["type"].removesuffix("_delta")
                block[key] += delta[key]
        elif kind == "content_block_stop":
            if message["content"][said["index"]]["type"] == "tool_use":
                message["content"][said["index"]]["input"] = json.loads(parts.get(said["index"]) or "{}")
        elif kind == "message_delta":
            message |= said["delta"]
            message["usage"] |= said["usage"]
        else:
            assert kind == "message_stop"
            message["stopped"] = True
    assert message.pop("stopped")
    return message


@given(st.data(), texts, texts, calls, finishes, usages)
def test_a_stream_makes_the_message_that_the_whole_answer_makes(
    data: st.DataObject,
    text: str,
    thought: str,
    made: list[tuple[str, Any]],
    finish: str,
    used: tuple[int, ...],
) -> None:
    chat = chat_of(text, thought, made, finish, used)
    whole = json.loads(Messages("req_1").whole(200, json.dumps(chat).encode()))
    stream = events_of(data, chat)
    dialect = Messages("req_1")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=6)))
    ends = [0, *cuts, len(stream)]
    out = b"".join(dialect.events(stream[a:b]) for a, b in pairwise(ends)) + dialect.end()
    assert assembled(out) == whole


@given(texts, arguments)
def test_what_a_model_said_comes_back_to_it(text: str, given_: dict[str, Any]) -> None:
    chat = chat_of(text, "", [("look", given_)], "tool_calls", (1, 1, 0))
    answer = json.loads(Messages("req_1").whole(200, json.dumps(chat).encode()))
    asked = {
        "model": "m",
        "max_tokens": 9,
        "messages": [
            {"role": "user", "content": "?"},
            {"role": "assistant", "content": answer["content"]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c0", "content": "done"}]},
        ],
    }
    _, said, result = to_chat(json.dumps(asked).encode())["messages"]
    assert said["content"] == (text or None)
    (call,) = said["tool_calls"]
    assert (call["id"], call["function"]["name"]) == ("c0", "look")
    assert json.loads(call["function"]["arguments"]) == given_
    assert result == {"role": "tool", "tool_call_id": "c0", "content": "done"}


@pytest.mark.parametrize("rest", [b"", sse.DONE_EVENT])
@pytest.mark.parametrize("delta", [{"content": "half"}, {"refusal": "I may"}])
def test_a_stream_without_a_finish_is_an_error(rest: bytes, delta: dict[str, str]) -> None:
    chunk = {"model": "tiny", "choices": [{"index": 0, "delta": delta}]}
    dialect = Messages("req_1")
    out = dialect.events(sse.event_of(json.dumps(chunk).encode()) + rest) + dialect.end()
    assert b"message_start" in out
    assert b"message_stop" not in out
    assert out.count(b"event: error") == 1
    assert dialect.events(sse.event_of(json.dumps(chunk).encode())) == b""


def test_an_answer_without_a_finish_breaks() -> None:
    chat = chat_of("half", "", [], "stop", (1, 1, 0))
    chat["choices"][0]["finish_reason"] = None
    with pytest.raises(UpstreamBroken, match="finish_reason"):
        Messages("req_1").whole(200, json.dumps(chat).encode())


def test_calls_that_share_a_number_are_told_apart_by_their_ids() -> None:
    deltas = [
        {"tool_calls": [{"index": 0, "id": name, "function": {"name": name, "arguments": "{}"}}]}
        for name in ("a", "b")
    ]
    chunks = [{"model": "tiny", "choices": [{"index": 0, "delta": delta}]} for delta in deltas]
    chunks.append({"model": "tiny", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]})
    dialect = Messages("req_1")
    out = dialect.events(b"".join(sse.event_of(json.dumps(chunk).encode()) for chunk in chunks))
    found = assembled(out + dialect.end())["content"]
    assert [(block["id"], block["name"], block["input"]) for block in found] == [
        ("a", "a", {}),
        ("b", "b", {}),
    ]


def test_a_call_without_an_id_gets_one() -> None:
    chat = chat_of("", "", [("look", {}), ("look", {})], "tool_calls", (1, 1, 0))
    for call in chat["choices"][0]["message"]["tool_calls"]:
        del call["id"]
    answer = json.loads(Messages("req_1").whole(200, json.dumps(chat).encode()))
    assert [block["id"] for block in answer["content"]] == ["call_1_0", "call_1_1"]


def test_arguments_that_are_no_object_break_the_answer() -> None:
    chat = chat_of("", "", [("look", {})], "tool_calls", (1, 1, 0))
    chat["choices"][0]["message"]["tool_calls"][0]["function"]["arguments"] = "[1"
    with pytest.raises(UpstreamBroken):
        Messages("req_1").whole(200, json.dumps(chat).encode())


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"model": "m", "messages": [], "max_tokens": 1}', b"\xff"]
)
def test_malformed_requests_are_refused(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        to_chat(body)
