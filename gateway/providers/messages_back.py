"""
Answers of Anthropic's Messages API as chat completions: whole, as a stream, or as an error.

Thinking becomes `reasoning_content`; signatures, redacted thinking and blocks of other kinds are left out.
Sources: "Messages", "Streaming Messages" and "Errors" of Anthropic's API reference, version 2023-06-01.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.errors import UpstreamBroken
from gateway.providers.chunks import Chunks, Events, EventsTooLong, Json, completion, failure, usage
from gateway.providers.local_reply import DONE

_DECODE = msgspec.json.Decoder(dict[str, Any]).decode
_STOPS: Mapping[str, str] = {
    "end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length",
    "model_context_window_exceeded": "length", "tool_use": "tool_calls", "refusal": "content_filter",
}  # fmt: skip
_ERRORS: Mapping[str, str] = {"overloaded_error": "overloaded", "rate_limit_error": "rate_limit_exceeded"}


class Used:
    """Tokens so far; what an event does not name stays as it was."""

    __slots__ = ("_counts",)

    def __init__(self) -> None:
        self._counts = {"input": 0, "created": 0, "read": 0, "output": 0, "thinking": 0}

    def note(self, told: object) -> None:
        """Take over what a `usage` object says."""
        if not isinstance(told, dict):
            return
        for key, name in (
            ("input", "input_tokens"),
            ("created", "cache_creation_input_tokens"),
            ("read", "cache_read_input_tokens"),
            ("output", "output_tokens"),
        ):
            if isinstance(told.get(name), int):
                self._counts[key] = told[name]
        details = told.get("output_tokens_details")
        if isinstance(details, dict) and isinstance(details.get("thinking_tokens"), int):
            self._counts["thinking"] = details["thinking_tokens"]

    def told(self) -> Json:
        """All of them, as chat completions count: what a cache held is part of the prompt."""
        counts = self._counts
        prompt = counts["input"] + counts["created"] + counts["read"]
        return usage(prompt, counts["output"], counts["read"], counts["thinking"])


def whole(body: bytes, created_s: int) -> bytes:
    """
    The chat completion for a message.

    Raises:
        UpstreamBroken: it is no message, or does not say how it ended.
    """
    message = _read(body, "the model's answer")
    content = message.get("content")
    if message.get("type") != "message" or not isinstance(content, list):
        raise UpstreamBroken("the model's answer is no message of Anthropic's API")
    stop = message.get("stop_reason")
    if not isinstance(stop, str):
        raise UpstreamBroken("the model's answer does not say how it ended: it has no stop_reason")
    said: Json = {}
    calls = []
    for block in content:
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text":
            said["content"] = said.get("content", "") + str(block.get("text", ""))
        elif kind == "thinking":
            said["reasoning_content"] = said.get("reasoning_content", "") + str(block.get("thinking", ""))
        elif kind == "tool_use":
            arguments = msgspec.json.encode(block.get("input") or {}).decode()
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
    if calls:
        said["tool_calls"] = calls
    used = Used()
    used.note(message.get("usage"))
    return completion(
        str(message.get("id")), str(message.get("model")), created_s, said, _STOPS.get(stop, "stop"),
        used.told() if message.get("usage") is not None else None, **_met(message),
    )  # fmt: skip


def error(status: int, body: bytes) -> bytes:
    """An error in OpenAI's shape, with the words of Anthropic's where it has some."""
    try:
        told = _DECODE(body)["error"]
        message, kind = str(told["message"]), str(told.get("type"))
    except (msgspec.MsgspecError, UnicodeDecodeError, KeyError, TypeError):
        message, kind = f"the model answered with status {status}", "api_error"
    return failure(message, kind, _ERRORS.get(kind))


class Stream:
    """One answer's events, cut anywhere, as chunks of a chat completion."""

    def __init__(self, created_s: int) -> None:
        """*created_s* is in seconds since 1970."""
        self._created_s = created_s
        self._events = Events()
        self._chunks: Chunks | None = None
        self._used = Used()
        self._calls: dict[int, int] = {}
        """Block → which call of the answer it is."""
        self._empty: set[int] = set()
        """Calls that no argument came for yet."""
        self._stop: Json | None = None
        self._ended = False

    def push(self, data: bytes) -> bytes:
        """
        The chunks for what *data* completes.

        Raises:
            UpstreamBroken: an event that cannot be read, or that has no place where it stands.
        """
        out: list[bytes] = []
        try:
            for payload in self._events.push(data):
                if not self._ended:
                    self._event(_read(payload, "an event of the model's stream"), out)
        except EventsTooLong as error:
            raise UpstreamBroken("the model's stream has an event without end") from error
        return b"".join(out)

    def end(self) -> None:
        """The stream has ended. Raises UpstreamBroken where its answer had not."""
        if not self._ended:
            raise UpstreamBroken("the model's stream ended before its answer was complete")

    def _event(self, event: Json, out: list[bytes]) -> None:
        kind = event.get("type")
        if kind == "error":
            self._ended = True
            out.append(b"data: " + error(500, msgspec.json.encode(event)) + b"\n\n")
        elif kind == "message_start":
            message = _object(event, "message")
            self._chunks = Chunks(str(message.get("id")), str(message.get("model")), self._created_s)
            self._used.note(message.get("usage"))
            out.append(self._chunks.delta({"content": ""}))
        elif kind in ("content_block_start", "content_block_delta", "content_block_stop"):
            self._block(str(kind), event, out)
        elif kind == "message_delta":
            self._used.note(event.get("usage"))
            told = _object(event, "delta")
            if told.get("stop_reason") is not None:
                self._stop = told
        elif kind == "message_stop":
            self._finish(out)

    def _block(self, kind: str, event: Json, out: list[bytes]) -> None:
        index = event.get("index")
        if not isinstance(index, int):
            raise UpstreamBroken("a block of the model's stream has no index")
        if kind == "content_block_start":
            self._begin(index, _object(event, "content_block"), out)
        elif kind == "content_block_delta":
            self._grow(index, _object(event, "delta"), out)
        elif index in self._empty:
            self._arguments(index, "{}", out)

    def _begin(self, index: int, block: Json, out: list[bytes]) -> None:
        chunks = self._begun()
        kind = block.get("type")
        if kind == "text" and block.get("text"):
            out.append(chunks.delta({"content": block["text"]}))
        elif kind == "thinking" and block.get("thinking"):
            out.append(chunks.delta({"reasoning_content": block["thinking"]}))
        elif kind == "tool_use":
            number = self._calls[index] = len(self._calls)
            function = {"name": block.get("name"), "arguments": ""}
            call = {"index": number, "id": block.get("id"), "type": "function", "function": function}
            out.append(chunks.delta({"tool_calls": [call]}))
            self._empty.add(index)
            if block.get("input"):
                self._arguments(index, msgspec.json.encode(block["input"]).decode(), out)

    def _grow(self, index: int, delta: Json, out: list[bytes]) -> None:
        kind = delta.get("type")
        if kind == "text_delta":
            out.append(self._begun().delta({"content": str(delta.get("text", ""))}))
        elif kind == "thinking_delta":
            out.append(self._begun().delta({"reasoning_content": str(delta.get("thinking", ""))}))
        elif kind == "input_json_delta" and index in self._calls and delta.get("partial_json"):
            self._arguments(index, str(delta["partial_json"]), out)

    def _arguments(self, index: int, text: str, out: list[bytes]) -> None:
        self._empty.discard(index)
        call = {"index": self._calls[index], "function": {"arguments": text}}
        out.append(self._begun().delta({"tool_calls": [call]}))

    def _finish(self, out: list[bytes]) -> None:
        if self._stop is None:
            raise UpstreamBroken("the model's stream ended before its answer was complete")
        chunks = self._begun()
        self._ended = True
        finish = _STOPS.get(str(self._stop["stop_reason"]), "stop")
        out.append(chunks.delta({}, finish, **_met(self._stop)))
        out.append(chunks.usage(self._used.told()))
        out.append(DONE)

    def _begun(self) -> Chunks:
        if self._chunks is None:
            raise UpstreamBroken("the model's stream does not begin with message_start")
        return self._chunks


def _met(told: Json) -> Json:
    """The stop sequence that ended an answer, under the name that vLLM gives it."""
    sequence = told.get("stop_sequence")
    return {"stop_reason": sequence} if isinstance(sequence, str) else {}


def _object(event: Json, name: str) -> Json:
    value = event.get(name)
    if not isinstance(value, dict):
        raise UpstreamBroken(f"an event of the model's stream has no {name}")
    return value


def _read(data: bytes, what: str) -> Json:
    try:
        return _DECODE(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise UpstreamBroken(f"{what} is not JSON") from error
