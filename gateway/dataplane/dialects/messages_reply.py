"""
A chat answer as Anthropic's message: whole, as a stream of events, or as an error.

Blocks of Anthropic's stream follow each other, while chat tool calls may grow side by side: the first is sent
on as it comes, others wait until the model has finished.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.dataplane import sse
from gateway.dataplane.dialects.messages_wire import Answer, Call, Choice, Said, Used
from gateway.errors import UpstreamBroken

_DECODE = msgspec.json.Decoder(Answer).decode
_ENCODE = msgspec.json.Encoder().encode
_STOPS: Mapping[str, str] = {
    "stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use", "function_call": "tool_use",
    "content_filter": "refusal",
}  # fmt: skip
_KINDS: Mapping[int, str] = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error",
    403: "permission_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error",
    503: "overloaded_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip
_ANY_ERROR = 400
_CUT = b'{"error":{"message":"the model\'s stream ended before its answer was complete"}}'


@dataclass(slots=True)
class _Waiting:
    """A tool call that is not sent yet."""

    id: str = ""
    name: str = ""
    arguments: list[str] = field(default_factory=list)


class Messages:
    """The answer to one request of `/v1/messages`: a `Dialect`."""

    def __init__(self, request_id: str, prompt_tokens: int = 0) -> None:
        """Answer as `msg_…` of *request_id*; a stream begins with *prompt_tokens*, an estimate."""
        self._id = f"msg_{request_id.removeprefix('req_')}"
        self._request_id = request_id
        self._prompt_tokens = prompt_tokens
        self._splitter = sse.Splitter()
        self._model = ""
        self._open = ""
        """The type of the block that is open; empty for none."""
        self._index = -1
        self._tool: int | None = None
        """The tool call whose block is or was open first."""
        self._calls = 0
        self._growing: dict[int, tuple[int, str]] = {}
        """The last call begun under each number that the model gave, and its id."""
        self._waiting: dict[int, _Waiting] = {}
        self._stop: str | None = None
        self._sequence: str | None = None
        self._used: Used | None = None
        self._refused = self._ended = False
        self.failed = False
        """Whether the client was told of an error in the stream."""

    def whole(self, status: int, body: bytes) -> bytes:
        """
        The message for a whole chat answer, or Anthropic's error for an error.

        Raises:
            UpstreamBroken: the answer has no choice, or a tool call whose arguments are no JSON object.
        """
        if status >= _ANY_ERROR:
            return error_body(status, body, self._request_id)
        try:
            answer = _DECODE(body)
        except msgspec.MsgspecError as error:
            raise _broken("the model's answer is no chat completion") from error
        choice = next((one for one in answer.choices if one.index == 0), None)
        if choice is None or choice.message is None:
            raise _broken("the model's answer has no choice")
        if choice.finish_reason is None:
            raise _broken("the model's answer does not say how it ended: it has no finish_reason")
        said = choice.message
        content: list[dict[str, Any]] = []
        thought = said.reasoning_content or said.reasoning
        if thought:
            content.append({"type": "thinking", "thinking": thought, "signature": ""})
        if said.content or said.refusal:
            content.append({"type": "text", "text": said.content or said.refusal})
        content += [self._tool_use(at, call) for at, call in enumerate(said.tool_calls or ())]
        stop, sequence = _stopped(choice, refused=bool(said.refusal))
        message = self._message(answer.model, content, stop, sequence)
        message["usage"] = _usage(answer.usage or Used())
        return _ENCODE(message)

    def events(self, data: bytes) -> bytes:
        """Anthropic's events for whole events of a chat stream. Raises UpstreamBroken."""
        out: list[bytes] = []
        for event in self._splitter.push(data):
            payload = sse.data_of(event)
            if payload is None:
                out.append(event)
            elif payload == sse.DONE:
                self._finish(out)
            else:
                self._event(payload, out)
        return b"".join(out)

    def end(self) -> bytes:
        """What is left to say when the stream has ended; one that never said how it ended has failed."""
        out: list[bytes] = []
        self._finish(out)
        return b"".join(out)

    def _event(self, payload: bytes, out: list[bytes]) -> None:
        if self._ended:
            return
        try:
            event = _DECODE(payload)
        except msgspec.MsgspecError as error:
            raise _broken("an event of the model's stream is no chat completion") from error
        if event.error is not None:
            status = 529 if _code_of(event.error) in ("overloaded", "gateway_stopping") else 500
            self._fail(status, payload, out)
            return
        if not self._model:
            self._model = event.model or "unknown"
            self._begin(out)
        if event.usage is not None:
            self._used = event.usage
        for choice in event.choices:
            if choice.index == 0:
                self._choice(choice, out)

    def _choice(self, choice: Choice, out: list[bytes]) -> None:
        said = choice.delta
        if said is not None:
            thought = said.reasoning_content or said.reasoning
            if thought:
                self._text("thinking", "thinking_delta", "thinking", thought, out)
            self._said(said, out)
            for at, call in enumerate(said.tool_calls or ()):
                self._call(at if call.index is None else call.index, call, out)
        if choice.finish_reason is not None:
            self._stop, self._sequence = _stopped(choice, refused=self._refused)

    def _said(self, said: Said, out: list[bytes]) -> None:
        if said.content:
            self._text("text", "text_delta", "text", said.content, out)
        if said.refusal:
            self._refused = True
            self._text("text", "text_delta", "text", said.refusal, out)

    def _text(self, kind: str, delta: str, key: str, text: str, out: list[bytes]) -> None:
        if self._open != kind:
            block = {"type": kind, key: ""} | ({"signature": ""} if kind == "thinking" else {})
            self._start(kind, block, out)
        out.append(_delta(self._index, {"type": delta, key: text}))

    def _call(self, number: int, call: Call, out: list[bytes]) -> None:
        function = call.function
        name = (function.name if function else None) or ""
        arguments = (function.arguments if function else None) or ""
        place = self._place(number, call.id)
        if self._tool is None:
            self._tool = place
            self._begin_tool(call.id or self._made_up(place), name, out)
            if arguments:
                self._arguments(arguments, out)
        elif place == self._tool and self._open == "tool_use":
            if arguments:
                self._arguments(arguments, out)
        elif place == self._tool:
            raise _broken("the model's stream goes back to a tool call that it had left")
        else:
            waiting = self._waiting.setdefault(place, _Waiting())
            waiting.id = waiting.id or call.id or self._made_up(place)
            waiting.name = waiting.name or name
            waiting.arguments.append(arguments)

    def _place(self, number: int, name: str | None) -> int:
        """Which call an event is about: some servers give all of them one number, and each an id."""
        known = self._growing.get(number)
        if known is None or (name and name != known[1]):
            known = self._growing[number] = (self._calls, name or "")
            self._calls += 1
        return known[0]

    def _made_up(self, place: int) -> str:
        """An id for a call that has none: results are told apart by it."""
        return f"call_{self._id.removeprefix('msg_')}_{place}"

    def _begin_tool(self, name: str, function: str, out: list[bytes]) -> None:
        self._start("tool_use", {"type": "tool_use", "id": name, "name": function, "input": {}}, out)

    def _arguments(self, text: str, out: list[bytes]) -> None:
        out.append(_delta(self._index, {"type": "input_json_delta", "partial_json": text}))

    def _finish(self, out: list[bytes]) -> None:
        if self._ended:
            return
        if self._stop is None:
            if self._model:
                self._fail(500, _CUT, out)
            return
        self._ended = True
        for number in sorted(self._waiting):
            call = self._waiting[number]
            self._begin_tool(call.id, call.name, out)
            self._arguments("".join(call.arguments), out)
        self._close(out)
        delta = {"stop_reason": self._stop, "stop_sequence": self._sequence}
        used = _usage(self._used) if self._used is not None else {"output_tokens": 0}
        out.append(_event("message_delta", {"type": "message_delta", "delta": delta, "usage": used}))
        out.append(_event("message_stop", {"type": "message_stop"}))

    def _fail(self, status: int, body: bytes, out: list[bytes]) -> None:
        self._ended = self.failed = True
        out.append(b"event: error\ndata: " + error_body(status, body, self._request_id) + b"\n\n")

    def _begin(self, out: list[bytes]) -> None:
        message = self._message(self._model, [], None, None)
        message["usage"] = {"input_tokens": self._prompt_tokens, "output_tokens": 0}
        out.append(_event("message_start", {"type": "message_start", "message": message}))

    def _start(self, kind: str, block: dict[str, Any], out: list[bytes]) -> None:
        self._close(out)
        self._open = kind
        self._index += 1
        event = {"type": "content_block_start", "index": self._index, "content_block": block}
        out.append(_event("content_block_start", event))

    def _close(self, out: list[bytes]) -> None:
        if self._open:
            out.append(_event("content_block_stop", {"type": "content_block_stop", "index": self._index}))
            self._open = ""

    def _tool_use(self, at: int, call: Call) -> dict[str, Any]:
        function = call.function
        text = (function.arguments if function else None) or "{}"
        try:
            given = msgspec.json.decode(text, type=dict[str, Any])
        except msgspec.MsgspecError as error:
            raise _broken("a tool call of the model has arguments that are no JSON object") from error
        name = (function.name if function else None) or ""
        return {"type": "tool_use", "id": call.id or self._made_up(at), "name": name, "input": given}

    def _message(
        self, model: str, content: list[dict[str, Any]], stop: str | None, sequence: str | None
    ) -> dict[str, Any]:
        return {
            "id": self._id,
            "type": "message",
            "role": "assistant",
            "model": model,
            "content": content,
            "stop_reason": stop,
            "stop_sequence": sequence,
        }


def error_body(status: int, body: bytes, request_id: str) -> bytes:
    """Anthropic's error for the body of one of ours: the type follows from the status."""
    try:
        failure = msgspec.json.decode(body)["error"]
        message = str(failure["message"])
    except (msgspec.MsgspecError, KeyError, TypeError):
        message = "the request failed"
    error = {"type": _KINDS.get(status, "api_error" if status >= 500 else "invalid_request_error")}
    error["message"] = message
    return _ENCODE({"type": "error", "error": error, "request_id": request_id})


def _stopped(choice: Choice, *, refused: bool) -> tuple[str, str | None]:
    if refused:
        return "refusal", None
    if choice.finish_reason == "stop" and isinstance(choice.stop_reason, str):
        return "stop_sequence", choice.stop_reason
    return _STOPS.get(choice.finish_reason or "", "end_turn"), None


def _usage(used: Used) -> dict[str, Any]:
    """Anthropic's input tokens are those that no cache held; thinking is told of where there was any."""
    details = used.prompt_tokens_details
    cached = min((details.cached_tokens if details else 0) or 0, used.prompt_tokens)
    usage: dict[str, Any] = {
        "input_tokens": used.prompt_tokens - cached,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": cached,
        "output_tokens": used.completion_tokens,
    }
    thought = used.completion_tokens_details
    if thought is not None and thought.reasoning_tokens:
        usage["output_tokens_details"] = {"thinking_tokens": thought.reasoning_tokens}
    return usage


def _delta(index: int, delta: Mapping[str, str]) -> bytes:
    return _event("content_block_delta", {"type": "content_block_delta", "index": index, "delta": delta})


def _event(name: str, data: Mapping[str, Any]) -> bytes:
    return b"event: " + name.encode() + b"\ndata: " + _ENCODE(data) + b"\n\n"


def _code_of(error: object) -> str:
    return str(error.get("code")) if isinstance(error, dict) else ""


def _broken(why: str) -> UpstreamBroken:
    return UpstreamBroken(why)
