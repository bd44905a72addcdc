"""Streams, answers and conversations of all three APIs, turned into each other and back: nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from gateway.dataplane.dialects import messages, responses
from gateway.dataplane.dialects.messages_reply import Messages
from gateway.dataplane.dialects.responses_reply import Responses
from gateway.providers import messages_back, responses_back
from gateway.providers.messages_out import to_messages
from gateway.providers.responses_out import to_responses

TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
PIECES = st.lists(TEXT, max_size=4)
NAMES = st.from_regex(r"[a-z_]{1,12}", fullmatch=True)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
ARGUMENTS = st.dictionaries(TEXT, VALUES, max_size=3).map(lambda value: json.dumps(value, ensure_ascii=False))
CUTS = st.lists(st.integers(1, 60), min_size=1, max_size=20)


@dataclass
class Said:
    """What an answer says, whichever API told it."""

    text: str = ""
    thought: str = ""
    calls: list[tuple[str, str, Any]] = field(default_factory=list)
    """Id, name, arguments as a value."""
    finish: str = ""
    used: tuple[int, int, int, int] = (0, 0, 0, 0)
    """Prompt, completion, cached, thinking."""


def tool_calls(prefix: str, calls: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    return [
        {"id": f"{prefix}_{at}", "type": "function", "function": {"name": name, "arguments": text}}
        for at, (name, text) in enumerate(calls)
    ]


@dataclass(frozen=True)
class Answer:
    """An answer in pieces, as a model writes it."""

    texts: list[str]
    thoughts: list[str]
    calls: list[tuple[str, str]]
    """Name and arguments."""
    ended: str
    used: tuple[int, int, int, int]

    @property
    def finish(self) -> str:
        return "tool_calls" if self.calls and self.ended == "stop" else self.ended

    def said(self) -> Said:
        calls = [(f"call_{at}", name, json.loads(text)) for at, (name, text) in enumerate(self.calls)]
        return Said("".join(self.texts), "".join(self.thoughts), calls, self.finish, self.used)

    def chat(self) -> bytes:
        """As a stream of chat completion chunks."""
        deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
        deltas += [{"reasoning_content": piece} for piece in self.thoughts]
        deltas += [{"content": piece} for piece in self.texts]
        for at, (name, text) in enumerate(self.calls):
            head = {
                "index": at,
                "id": f"call_{at}",
                "type": "function",
                "function": {"name": name, "arguments": ""},
            }
            deltas.append({"tool_calls": [head]})
            half = len(text) // 2
            for piece in (text[:half], text[half:]):
                deltas.append({"tool_calls": [{"index": at, "function": {"arguments": piece}}]})
        events: list[dict[str, Any]] = [
            {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas
        ]
        events.append({"choices": [{"index": 0, "delta": {}, "finish_reason": self.finish}]})
        events.append({"choices": [], "usage": self.usage()})
        head = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
        data = [json.dumps({**head, **event}, ensure_ascii=False) for event in events]
        return "".join(f"data: {one}\n\n" for one in [*data, "[DONE]"]).encode()

    def whole(self) -> bytes:
        """As one chat completion."""
        said = self.said()
        message: dict[str, Any] = {"role": "assistant", "content": said.text or None}
        if said.thought:
            message["reasoning_content"] = said.thought
        if self.calls:
            message["tool_calls"] = tool_calls("call", self.calls)
        choice = {"index": 0, "message": message, "finish_reason": self.finish}
        answer = {"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "tiny"}
        return json.dumps({**answer, "choices": [choice], "usage": self.usage()}).encode()

    def usage(self) -> dict[str, Any]:
        prompt, completion, cached, thinking = self.used
        return {
            "prompt_tokens": prompt, "completion_tokens": completion, "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": thinking},
        }  # fmt: skip


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    prompt, completion = draw(st.integers(0, 10**6)), draw(st.integers(0, 10**6))
    return Answer(
        draw(PIECES),
        draw(PIECES),
        draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=3)),
        draw(st.sampled_from(["stop", "length", "content_filter"])),
        (prompt, completion, draw(st.integers(0, prompt)), draw(st.integers(0, completion))),
    )


def pieces(data: bytes, cuts: Sequence[int]) -> list[bytes]:
    """*data*, cut again and again after so many bytes."""
    found, at, turn = [], 0, 0
    while at < len(data):
        size = cuts[turn % len(cuts)]
        found.append(data[at : at + size])
        at, turn = at + size, turn + 1
    return found


def events_of(stream: bytes) -> list[dict[str, Any]]:
    lines = [line[5:].strip() for line in stream.split(b"\n") if line.startswith(b"data:")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


def read_usage(used: dict[str, Any]) -> tuple[int, int, int, int]:
    return (
        used["prompt_tokens"], used["completion_tokens"], used["prompt_tokens_details"]["cached_tokens"],
        used["completion_tokens_details"]["reasoning_tokens"],
    )  # fmt: skip


def read_chat(stream: bytes) -> Said:
    assert stream.endswith(b"data: [DONE]\n\n")
    said = Said()
    calls: dict[int, dict[str, str]] = {}
    for event in events_of(stream):
        for choice in event["choices"]:
            delta = choice["delta"]
            said.text += delta.get("content") or ""
            said.thought += delta.get("reasoning_content") or ""
            for call in delta.get("tool_calls", ()):
                known = calls.setdefault(call["index"], {"id": "", "name": "", "arguments": ""})
                known["id"] = call.get("id") or known["id"]
                known["name"] = call["function"].get("name") or known["name"]
                known["arguments"] += call["function"].get("arguments") or ""
            said.finish = choice["finish_reason"] or said.finish
        if event.get("usage"):
            said.used = read_usage(event["usage"])
    said.calls = [(c["id"], c["name"], json.loads(c["arguments"])) for _, c in sorted(calls.items())]
    return said


def read_whole(body: bytes) -> Said:
    answer = json.loads(body)
    (choice,) = answer["choices"]
    message = choice["message"]
    calls = [
        (c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
        for c in message.get("tool_calls", ())
    ]
    return Said(
        message.get("content") or "", message.get("reasoning_content") or "", calls, choice["finish_reason"],
        read_usage(answer["usage"]),
    )  # fmt: skip


def as_messages(chat: bytes, cuts: Sequence[int]) -> bytes:
    dialect = Messages("req_1", 3)
    return b"".join(dialect.events(piece) for piece in pieces(chat, cuts)) + dialect.end()


def as_responses(chat: bytes, cuts: Sequence[int]) -> bytes:
    dialect = Responses("req_1")
    return b"".join(dialect.events(piece) for piece in pieces(chat, cuts)) + dialect.end()


def back(stream: messages_back.Stream | responses_back.Stream, data: bytes, cuts: Sequence[int]) -> bytes:
    turned = b"".join(stream.push(piece) for piece in pieces(data, cuts))
    stream.end()
    return turned


def from_messages(data: bytes, cuts: Sequence[int]) -> bytes:
    return back(messages_back.Stream(1), data, cuts)


def from_responses(data: bytes, cuts: Sequence[int]) -> bytes:
    return back(responses_back.Stream(1), data, cuts)


def settled(stream: bytes) -> list[dict[str, Any]]:
    """Events without what belongs to one telling alone: estimates at the beginning, empty pieces."""
    return [event for event in events_of(stream) if event["type"] not in ("message_start", "ping")]


@given(answers(), CUTS)
def test_a_chat_stream_comes_back_from_messages(answer: Answer, cuts: list[int]) -> None:
    assert read_chat(from_messages(as_messages(answer.chat(), cuts), cuts)) == answer.said()


@given(answers(), CUTS)
def test_a_chat_stream_comes_back_from_responses(answer: Answer, cuts: list[int]) -> None:
    assert read_chat(from_responses(as_responses(answer.chat(), cuts), cuts)) == answer.said()


@given(answers(), CUTS)
def test_a_chat_stream_comes_back_from_a_way_through_both(answer: Answer, cuts: list[int]) -> None:
    once = from_messages(as_messages(answer.chat(), cuts), cuts)
    assert read_chat(from_responses(as_responses(once, cuts), cuts)) == answer.said()
    other = from_responses(as_responses(answer.chat(), cuts), cuts)
    assert read_chat(from_messages(as_messages(other, cuts), cuts)) == answer.said()


@given(answers(), CUTS)
def test_a_stream_of_messages_comes_back_from_chat_and_from_responses(
    answer: Answer, cuts: list[int]
) -> None:
    told = as_messages(answer.chat(), cuts)
    chat = from_messages(told, cuts)
    assert settled(as_messages(chat, cuts)) == settled(told)
    again = from_responses(as_responses(chat, cuts), cuts)
    assert settled(as_messages(again, cuts)) == settled(told)


@given(answers(), CUTS)
def test_a_stream_of_responses_comes_back_from_chat_and_from_messages(
    answer: Answer, cuts: list[int]
) -> None:
    told = as_responses(answer.chat(), cuts)
    chat = from_responses(told, cuts)
    final = events_of(told)[-1]["response"]
    assert events_of(as_responses(chat, cuts))[-1]["response"] == final
    again = from_messages(as_messages(chat, cuts), cuts)
    assert events_of(as_responses(again, cuts))[-1]["response"] == final


@given(answers())
def test_a_whole_answer_comes_back_from_each(answer: Answer) -> None:
    ways: list[tuple[Any, Callable[[bytes, int], bytes]]] = [
        (Messages("req_1"), messages_back.whole),
        (Responses("req_1"), responses_back.whole),
    ]
    for dialect, whole in ways:
        assert read_whole(whole(dialect.whole(200, answer.whole()), 1)) == answer.said()


@st.composite
def conversations(draw: st.DrawFn) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if draw(st.booleans()):
        found.append({"role": "system", "content": draw(TEXT)})
    for turn in range(draw(st.integers(1, 3))):
        found.append({"role": "user", "content": draw(TEXT)})
        calls = draw(st.lists(st.tuples(NAMES, ARGUMENTS), max_size=2))
        said: dict[str, Any] = {"role": "assistant", "content": draw(TEXT if not calls else TEXT | st.none())}
        if calls:
            said["tool_calls"] = [
                {
                    "id": f"call_{turn}_{at}",
                    "type": "function",
                    "function": {"name": name, "arguments": given},
                }
                for at, (name, given) in enumerate(calls)
            ]
        found.append(said)
        found += [
            {
                "role": "tool",
                "tool_call_id": f"call_{turn}_{at}",
                "content": draw(TEXT | st.just("Error: no")),
            }
            for at in range(len(calls))
        ]
    found.append({"role": "user", "content": draw(TEXT)})
    return found


def plain(found: Sequence[dict[str, Any]]) -> list[Any]:
    """Messages with arguments as values."""
    told = []
    for message in found:
        calls = [
            (c["id"], c["function"]["name"], json.loads(c["function"]["arguments"]))
            for c in message.get("tool_calls", ())
        ]
        told.append((message["role"], message.get("content") or "", calls, message.get("tool_call_id")))
    return told


@given(conversations())
def test_a_conversation_comes_back_from_messages(conversation: list[dict[str, Any]]) -> None:
    chat = {"model": "tiny", "messages": conversation, "max_tokens": 9, "stop": ["a"], "top_k": 3}
    told = messages.to_chat(json.dumps(to_messages(chat)).encode())
    assert plain(told["messages"]) == plain(conversation)
    assert {name: told[name] for name in ("model", "max_tokens", "stop", "top_k")} == {
        "model": "tiny", "max_tokens": 9, "stop": ["a"], "top_k": 3,
    }  # fmt: skip


@given(conversations())
def test_a_conversation_comes_back_from_responses(conversation: list[dict[str, Any]]) -> None:
    chat = {"model": "tiny", "messages": conversation, "max_tokens": 9, "temperature": 0.5}
    asked = responses.read(json.dumps(to_responses(chat)).encode())
    told = responses.to_chat(asked, responses.items_of(asked))
    assert plain(told["messages"]) == plain(conversation)
    assert (told["model"], told["max_tokens"], told["temperature"]) == ("tiny", 9, 0.5)


TOOL = {
    "type": "function",
    "function": {
        "name": "weather", "description": "Of a city.", "strict": True,
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}  # fmt: skip
CHOICES = st.sampled_from(
    ["auto", "required", "none", {"type": "function", "function": {"name": "weather"}}, None]
)
SHAPE = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": {"type": "object"}, "strict": True},
}


@given(CHOICES, st.booleans(), st.sampled_from(["low", "medium", "high", None]), st.booleans())
def test_tools_effort_and_shape_come_back_from_both(
    choice: Any, parallel: bool, effort: str | None, shaped: bool
) -> None:
    chat: dict[str, Any] = {
        "model": "tiny", "messages": [{"role": "user", "content": "a"}], "tools": [TOOL],
        "max_tokens": 40_000, "parallel_tool_calls": parallel,
    }  # fmt: skip
    chat |= {"tool_choice": choice} if choice is not None else {}
    chat |= {"reasoning_effort": effort} if effort else {}
    chat |= {"response_format": SHAPE} if shaped else {}
    asked = responses.read(json.dumps(to_responses(chat)).encode())
    for told in (
        messages.to_chat(json.dumps(to_messages(chat)).encode()),
        messages.to_chat(json.dumps(to_messages(chat, adaptive=True)).encode()),
        responses.to_chat(asked, responses.items_of(asked)),
    ):
        assert told["tools"] == [TOOL]
        assert told.get("reasoning_effort") == effort
        assert told.get("response_format") == (SHAPE if shaped else None)
        if choice is not None:
            assert told["tool_choice"] == choice
        if choice != "none":
            assert told.get("parallel_tool_calls", True) == parallel
