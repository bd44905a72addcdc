"""The Responses dialect where backends and clients are not as they should be; one stream byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from gateway.dataplane import sse
from gateway.dataplane.dialects.responses import read, to_chat
from gateway.dataplane.dialects.responses_reply import Responses
from gateway.errors import InvalidRequest, UpstreamBroken

GOLDEN = Path(__file__).with_name("responses_stream.sse")
EVENTS: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
USER = {"role": "user", "content": "?"}
CALL = {"type": "function_call", "call_id": "c", "name": "look", "arguments": "{}"}
OUTPUT = {"type": "function_call_output", "call_id": "c", "output": "done"}
CALLED = {"id": "c", "type": "function", "function": {"name": "look", "arguments": "{}"}}
TOOLS = [
    {"type": "function", "name": name, "parameters": {"type": "object"}, "strict": True}
    for name in ("look", "ask")
]
ASKED = {
    "model": "support", "instructions": "Be brief.", "max_output_tokens": 64, "temperature": 0.5,
    "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": True, "user": "ann", "top_logprobs": 2,
    "text": {"format": {"type": "json_object"}, "verbosity": "low"}, "reasoning": {"effort": "low"},
    "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k", "max_tool_calls": 3,
    "service_tier": "auto", "top_p": 1.0, "stream": True,
    "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
}  # fmt: skip


def chunk(delta: dict[str, Any] | None = None, finish: str | None = None, **more: Any) -> bytes:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish} | more
    return sse.event_of(json.dumps({"model": "tiny", "choices": [choice]}).encode())


def called(index: int, given: str, name: str | None = None, call_id: str | None = None) -> bytes:
    call: dict[str, Any] = {"index": index, "function": {"name": name, "arguments": given}}
    return chunk({"tool_calls": [call | ({"id": call_id} if call_id else {})]})


def said(out: bytes) -> list[dict[str, Any]]:
    """The events, each as strict as the official client's types are."""
    found = []
    for event in sse.Splitter().push(out):
        data = sse.data_of(event) or b""
        EVENTS.validate_json(data, strict=True)
        found.append(json.loads(data))
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def streamed(*chunks: bytes, asked: dict[str, Any] | None = None) -> list[dict[str, Any]]:
    dialect = Responses("req_1", read(json.dumps(asked or {"model": "m"}).encode()), 7)
    return said(b"".join(dialect.events(one) for one in chunks) + dialect.end())


def whole(message: dict[str, Any], **more: Any) -> dict[str, Any]:
    choice = {"index": 0, "message": message, "finish_reason": "stop"} | more
    body = json.dumps({"model": "tiny", "choices": [choice]}).encode()
    out = Responses("req_1", read(json.dumps(ASKED).encode()), 7).whole(200, body)
    Response.model_validate_json(out, strict=True)
    found: dict[str, Any] = json.loads(out)
    return found


def messages(*items: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = to_chat(read(b'{"model": "m"}'), list(items))["messages"]
    return found


def test_a_stream_with_text_and_two_calls_is_byte_for_byte_as_reviewed() -> None:
    dialect = Responses("req_1", read(json.dumps(ASKED).encode()), 1_700_000_000)
    usage = {"prompt_tokens": 7, "completion_tokens": 5, "completion_tokens_details": {"reasoning_tokens": 2}}
    out = b"".join(
        dialect.events(one)
        for one in (
            chunk({"role": "assistant", "content": ""}),
            chunk({"content": "Trom"}),
            chunk({"content": "sø"}),
            called(0, "", "look", "c0"),
            called(1, "{", "ask", "c1"),
            called(0, "{}"),
            called(1, "}"),
            chunk(finish="tool_calls"),
            sse.event_of(json.dumps({"model": "tiny", "choices": [], "usage": usage}).encode()),
            sse.DONE_EVENT,
        )
    )
    said(out)
    assert out == GOLDEN.read_bytes()


def test_a_response_tells_back_what_was_asked() -> None:
    answer = whole({"content": "{}"})
    told = [name for name in ASKED if name not in ("stream", "service_tier", "prompt_cache_options", "model")]
    assert {name: answer[name] for name in told} == {
        **{name: ASKED[name] for name in told}, "reasoning": {"effort": "low", "summary": None},
    }  # fmt: skip


def test_calls_under_one_number_are_told_apart_by_their_ids() -> None:
    events = streamed(
        called(0, '{"a"', "look", "c0"), called(0, ":1}", None, "c0"), called(0, "{}", "ask", "c1"),
        chunk(finish="tool_calls"), sse.DONE_EVENT,
    )  # fmt: skip
    output = events[-1]["response"]["output"]
    assert [(item["id"], item["call_id"], item["name"], item["arguments"]) for item in output] == [
        ("fc_1_0", "c0", "look", '{"a":1}'),
        ("fc_1_1", "c1", "ask", "{}"),
    ]
    made = [{**CALLED, "id": f"c{at}", "index": 0} for at in range(2)]
    assert [item["call_id"] for item in whole({"tool_calls": made})["output"]] == ["c0", "c1"]


def test_a_call_without_an_id_gets_one_that_its_result_can_name() -> None:
    events = streamed(called(0, "{}", "look"), called(1, "{}", "look"), chunk(finish="tool_calls"))
    ids = [item["call_id"] for item in events[-1]["response"]["output"]]
    assert ids == ["call_1_0", "call_1_1"]


def test_thoughts_under_their_other_name_are_told() -> None:
    output = streamed(chunk({"reasoning": "Hm."}), chunk(finish="stop"))[-1]["response"]["output"]
    assert output[0]["content"] == [{"type": "reasoning_text", "text": "Hm."}]
    assert whole({"content": "a", "reasoning": {"not": "text"}})["output"][0]["type"] == "message"


def test_log_probabilities_are_asked_for_and_told() -> None:
    token = {"token": "a", "logprob": -0.5, "bytes": None, "top_logprobs": []}
    told = [{**token, "bytes": []}]
    events = streamed(chunk({"content": "a"}, logprobs={"content": [token]}), chunk(finish="stop"))
    by_kind = {event["type"]: event for event in events}
    assert by_kind["response.output_text.delta"]["logprobs"] == told
    assert by_kind["response.output_text.done"]["logprobs"] == told
    assert events[-1]["response"]["output"][0]["content"][0]["logprobs"] == told
    assert (
        whole({"content": "a"}, logprobs={"content": [token]})["output"][0]["content"][0]["logprobs"] == told
    )
    asked = to_chat(read(b'{"model": "m", "include": ["message.output_text.logprobs"]}'), [USER])
    assert (asked["logprobs"], asked["top_logprobs"]) == (True, 0)


def test_tokens_that_the_model_did_not_count_are_not_made_up() -> None:
    assert whole({"content": "a"})["usage"] is None
    assert streamed(chunk({"content": "a"}), chunk(finish="stop"))[-1]["response"]["usage"] is None


@pytest.mark.parametrize("ended", [(), (sse.DONE_EVENT,)])
@pytest.mark.parametrize("chunks", [(), (chunk({"content": "half"}),), (called(0, "{", "look", "c"),)])
def test_a_stream_that_never_says_how_it_ended_has_failed(
    chunks: tuple[bytes, ...], ended: tuple[bytes, ...]
) -> None:
    kinds = [event["type"] for event in streamed(*chunks, *ended)]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-2:] == ["error", "response.failed"]
    assert not {"response.completed", "response.output_item.done"}.intersection(kinds)


def test_a_whole_answer_that_does_not_say_how_it_ended_is_refused() -> None:
    with pytest.raises(UpstreamBroken, match="finish_reason"):
        whole({"content": "a"}, finish_reason=None)


def test_nothing_is_said_after_a_failure() -> None:
    error = sse.event_of(b'{"error": {"message": "gone", "code": "upstream_broken"}}')
    events = streamed(error, chunk({"content": "more"}), chunk(finish="stop"), sse.DONE_EVENT)
    assert [event["type"] for event in events] == [
        "response.created", "response.in_progress", "error", "response.failed",
    ]  # fmt: skip
    assert events[-1]["response"]["error"] == {"code": "server_error", "message": "gone"}


def test_what_is_said_after_a_call_stays_before_its_result() -> None:
    words = {"role": "assistant", "content": "Looking."}
    assert messages(USER, CALL, words, OUTPUT) == [
        USER,
        {"role": "assistant", "content": "Looking.", "tool_calls": [CALLED]},
        {"role": "tool", "tool_call_id": "c", "content": "done"},
    ]


def test_thoughts_between_calls_belong_to_the_turn_and_to_no_other() -> None:
    thought = [{"type": "reasoning", "content": [{"type": "reasoning_text", "text": text}]} for text in "ab"]
    other = {**CALL, "call_id": "d"}
    joined = messages(USER, thought[0], CALL, thought[1], other, OUTPUT)[1]
    assert (joined["reasoning_content"], [call["id"] for call in joined["tool_calls"]]) == ("ab", ["c", "d"])
    assert messages(thought[0], USER, {"role": "assistant", "content": "x"})[1] == {
        "role": "assistant", "content": "x",
    }  # fmt: skip


def test_only_the_allowed_tools_are_shown_to_the_model() -> None:
    allowed = [{"type": "function", "name": "ask"}]
    choice = {"type": "allowed_tools", "mode": "required", "tools": allowed}
    chat = to_chat(read(json.dumps({**ASKED, "tool_choice": choice}).encode()), [USER])
    assert [tool["function"]["name"] for tool in chat["tools"]] == ["ask"]
    assert chat["tool_choice"] == "required"


@pytest.mark.parametrize(
    ("more", "where"),
    [
        ({"input": [{"type": "reasoning", "content": ["x"]}]}, "input.0.content"),
        ({"input": [{"type": "reasoning", "content": 5}]}, "input.0.content"),
        ({"input": [{"type": "reasoning", "content": [{"text": None}]}]}, "input.0.content.0.text"),
        ({"input": [{**USER, "content": [{"type": "input_file", "file_data": "x", "filename": 3}]}]},
         "input.0.content.0.filename"),
        ({"tools": [{"type": "function", "name": "x", "parameters": 3}]}, "tools.0.parameters"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools.0.type"),
        ({"tool_choice": {"type": "mcp"}}, "tool_choice.type"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "none"}}, "tool_choice.mode"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": 3}}, "tool_choice.tools"),
        ({"tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": []}}, "tool_choice.tools"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_where_it_stands(more: dict[str, Any], where: str) -> None:
    asked = read(json.dumps({"model": "m", "input": [USER], **more}).encode())
    items = [*asked.input] if isinstance(asked.input, list) else []
    with pytest.raises(InvalidRequest) as caught:
        to_chat(asked, items)
    assert caught.value.param == where
