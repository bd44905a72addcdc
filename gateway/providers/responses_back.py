"""
Answers of OpenAI's Responses API as chat completions: whole or as a stream.

Items of kinds that are not known here are left out. Source: "Responses" and "Streaming" of OpenAI's API
reference.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.errors import UpstreamBroken
from gateway.providers.chunks import Chunks, Events, EventsTooLong, Json, completion, failure, usage
from gateway.providers.local_reply import DONE

_DECODE = msgspec.json.Decoder(dict[str, Any]).decode
_CUTS: Mapping[str, str] = {"max_output_tokens": "length", "content_filter": "content_filter"}
_ENDS = ("response.completed", "response.incomplete")
_THOUGHTS = ("response.reasoning_text.delta", "response.reasoning_summary_text.delta")


def whole(body: bytes, created_s: int) -> bytes:
    """
    The chat completion for a response; *created_s* where it does not say when it was made.

    Raises:
        UpstreamBroken: it is no response, has failed, or has not ended.
    """
    response = _read(body, "the model's answer")
    output = response.get("output")
    if response.get("object") != "response" or not isinstance(output, list):
        raise UpstreamBroken("the model's answer is no response of OpenAI's API")
    said: Json = {}
    calls = []
    for item in output:
        kind = item.get("type") if isinstance(item, dict) else None
        if kind == "message":
            for part in item.get("content") or ():
                _add(said, part)
        elif kind == "reasoning":
            parts = item.get("content") or item.get("summary") or ()
            thought = "".join(str(part.get("text", "")) for part in parts)
            if thought:
                said["reasoning_content"] = said.get("reasoning_content", "") + thought
        elif kind == "function_call":
            function = {"name": item.get("name"), "arguments": item.get("arguments") or "{}"}
            calls.append({"id": item.get("call_id"), "type": "function", "function": function})
    if calls:
        said["tool_calls"] = calls
    finish = _finish(response, called=bool(calls))
    created_s = int(response.get("created_at") or created_s)
    return completion(
        str(response.get("id")), str(response.get("model")), created_s, said, finish,
        _used(response),
    )  # fmt: skip


class Stream:
    """One answer's events, cut anywhere, as chunks of a chat completion."""

    def __init__(self, created_s: int) -> None:
        """*created_s* is in seconds since 1970."""
        self._created_s = created_s
        self._events = Events()
        self._chunks: Chunks | None = None
        self._calls: dict[str, int] = {}
        """Item → which call of the answer it is."""
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
                if not self._ended and payload != b"[DONE]":
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
        if kind == "response.created":
            response = _object(event, "response")
            self._chunks = Chunks(str(response.get("id")), str(response.get("model")), self._created_s)
            out.append(self._chunks.delta({"content": ""}))
        elif kind == "response.output_text.delta":
            out.append(self._begun().delta({"content": str(event.get("delta", ""))}))
        elif kind == "response.refusal.delta":
            out.append(self._begun().delta({"refusal": str(event.get("delta", ""))}))
        elif kind in _THOUGHTS:
            out.append(self._begun().delta({"reasoning_content": str(event.get("delta", ""))}))
        elif kind == "response.output_item.added":
            self._item(_object(event, "item"), out)
        elif kind == "response.function_call_arguments.delta":
            self._arguments(str(event.get("item_id")), str(event.get("delta", "")), out)
        elif kind in _ENDS:
            self._finish(_object(event, "response"), out)
        elif kind == "response.failed":
            told = _object(event, "response").get("error")
            self._fail(told if isinstance(told, dict) else {}, out)
        elif kind == "error":
            self._fail(event.get("error") if isinstance(event.get("error"), dict) else event, out)

    def _item(self, item: Json, out: list[bytes]) -> None:
        if item.get("type") != "function_call":
            return
        number = self._calls[str(item.get("id"))] = len(self._calls)
        function = {"name": item.get("name"), "arguments": ""}
        call = {"index": number, "id": item.get("call_id"), "type": "function", "function": function}
        out.append(self._begun().delta({"tool_calls": [call]}))
        if item.get("arguments"):
            self._arguments(str(item.get("id")), str(item["arguments"]), out)

    def _arguments(self, item: str, text: str, out: list[bytes]) -> None:
        if item not in self._calls:
            raise UpstreamBroken("the model's stream goes on with a tool call that it had not begun")
        if text:
            call = {"index": self._calls[item], "function": {"arguments": text}}
            out.append(self._begun().delta({"tool_calls": [call]}))

    def _finish(self, response: Json, out: list[bytes]) -> None:
        chunks = self._begun()
        self._ended = True
        out.append(chunks.delta({}, _finish(response, called=bool(self._calls))))
        used = _used(response)
        if used is not None:
            out.append(chunks.usage(used))
        out.append(DONE)

    def _fail(self, told: Any, out: list[bytes]) -> None:  # noqa: ANN401 - JSON
        self._ended = True
        message, code = str(told.get("message") or "the request failed"), told.get("code")
        out.append(b"data: " + failure(message, "server_error", str(code) if code else None) + b"\n\n")

    def _begun(self) -> Chunks:
        if self._chunks is None:
            raise UpstreamBroken("the model's stream does not begin with response.created")
        return self._chunks


def _add(said: Json, part: Any) -> None:  # noqa: ANN401 - JSON
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "output_text":
        said["content"] = said.get("content", "") + str(part.get("text", ""))
    elif kind == "refusal":
        said["refusal"] = said.get("refusal", "") + str(part.get("refusal", ""))


def _finish(response: Json, *, called: bool) -> str:
    status = response.get("status")
    if status == "completed":
        return "tool_calls" if called else "stop"
    if status == "incomplete":
        details = response.get("incomplete_details")
        return _CUTS.get(str(details.get("reason")) if isinstance(details, dict) else "", "length")
    raise UpstreamBroken("the model's answer does not say how it ended, or has failed")


def _used(response: Json) -> Json | None:
    told = response.get("usage")
    if not isinstance(told, dict):
        return None

    def inner(name: str, key: str) -> int:
        details = told.get(name)
        found = details.get(key) if isinstance(details, dict) else None
        return found if isinstance(found, int) else 0

    return usage(
        told.get("input_tokens", 0), told.get("output_tokens", 0),
        inner("input_tokens_details", "cached_tokens"), inner("output_tokens_details", "reasoning_tokens"),
    )  # fmt: skip


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
