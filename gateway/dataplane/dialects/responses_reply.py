"""A chat answer as OpenAI's response: whole, or as a stream of events with numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.dataplane import sse
from gateway.dataplane.dialects.responses_shape import response_of, usage_of
from gateway.dataplane.dialects.responses_wire import (
    Answer,
    Call,
    Choice,
    Function,
    Item,
    Request,
    Said,
    Used,
)
from gateway.errors import UpstreamBroken

_DECODE = msgspec.json.Decoder(Answer).decode
_ENCODE = msgspec.json.Encoder().encode
_ANY_ERROR = 400
_CUT: Mapping[str, str] = {"length": "max_output_tokens", "content_filter": "content_filter"}
Keep = Callable[[dict[str, Any]], None]


@dataclass(slots=True)
class _Part:
    """What grows in a stream: the item, its place, and its text so far."""

    item: Item
    at: int
    content: int = 0
    grown: list[str] = field(default_factory=list)
    """Its text in pieces, joined once: adding to one text would copy it for each event."""
    logprobs: list[dict[str, Any]] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.grown)


class Responses:
    """The answer to one request of `/v1/responses`: a `Dialect`."""

    def __init__(
        self, request_id: str, asked: Request | None = None, created_s: int = 0, keep: Keep | None = None
    ) -> None:
        """
        Answer *asked* as `resp_…` of *request_id*.

        Args:
            created_s: seconds since 1970.
            keep: given the response once it is whole.
        """
        self._name = request_id.removeprefix("req_")
        self._asked = asked or Request("")
        self._created_s = created_s
        self._keep = keep
        self._splitter = sse.Splitter()
        self._number = 0
        self._model = ""
        self._items: list[Item] = []
        self._thought: _Part | None = None
        self._message: _Part | None = None
        self._said: _Part | None = None
        self._refused: _Part | None = None
        self._calls: list[_Part] = []
        self._growing: dict[int, _Part] = {}
        """The last call begun under each number that the model gave."""
        self._finish: str | None = None
        self._used: Used | None = None
        self._begun = self._ended = False
        self.failed = False
        """Whether the client was told of an error in the stream."""

    @property
    def id(self) -> str:
        """What the response is called."""
        return f"resp_{self._name}"

    def whole(self, status: int, body: bytes) -> bytes:
        """
        The response for a whole chat answer; errors stay as they are.

        Raises:
            UpstreamBroken: the answer has no choice, or one that does not say how it ended.
        """
        if status >= _ANY_ERROR:
            return body
        answer = _read(body, "the model's answer")
        choice = next((one for one in answer.choices if one.index == 0), None)
        if choice is None or choice.message is None:
            message = "the model's answer has no choice"
            raise UpstreamBroken(message)
        if choice.finish_reason is None:
            message = "the model's answer does not say how it ended: it has no finish_reason"
            raise UpstreamBroken(message)
        for at, call in enumerate(choice.message.tool_calls or ()):
            call.index = at
        self._model, self._used = answer.model, answer.usage
        self._choice(choice, choice.message, [])
        self._close([])
        return _ENCODE(self._finished())

    def events(self, data: bytes) -> bytes:
        """The events for whole events of a chat stream. Raises UpstreamBroken."""
        out: list[bytes] = []
        for event in self._splitter.push(data):
            payload = sse.data_of(event)
            if payload is None:
                out.append(event)
            elif payload == sse.DONE:
                self._end(out)
            else:
                self._event(payload, out)
        return b"".join(out)

    def end(self) -> bytes:
        """What is left to say when the stream has ended; one that never said how it ended has failed."""
        out: list[bytes] = []
        self._end(out)
        return b"".join(out)

    def _event(self, payload: bytes, out: list[bytes]) -> None:
        if self._ended:
            return
        event = _read(payload, "an event of the model's stream")
        if event.error is not None:
            self._fail(event.error, out)
            return
        if not self._begun:
            self._model = event.model
            self._begin(out)
        if event.usage is not None:
            self._used = event.usage
        for choice in event.choices:
            if choice.index == 0:
                self._choice(choice, choice.delta, out)

    def _begin(self, out: list[bytes]) -> None:
        if not self._begun:
            self._begun = True
            for kind in ("response.created", "response.in_progress"):
                self._say(kind, out, response=self._response("in_progress"))

    def _choice(self, choice: Choice, said: Said | None, out: list[bytes]) -> None:
        if said is not None:
            thought = said.reasoning_content or said.reasoning
            if thought and isinstance(thought, str):
                self._think(thought, out)
            if said.content:
                self._speak(said.content, choice.logprobs.content or () if choice.logprobs else (), out)
            if said.refusal:
                self._refuse(said.refusal, out)
            for at, call in enumerate(said.tool_calls or ()):
                self._call(at if call.index is None else call.index, call, out)
        if choice.finish_reason is not None:
            self._finish = choice.finish_reason

    def _think(self, text: str, out: list[bytes]) -> None:
        part = self._thought
        if part is None:
            item = {"id": f"rs_{self._name}", "type": "reasoning", "summary": [], "content": []}
            part = self._thought = self._add({**item, "status": "in_progress"}, out)
            self._open_part(part, {"type": "reasoning_text", "text": ""}, out)
        part.grown.append(text)
        self._say("response.reasoning_text.delta", out, **self._place(part), delta=text)

    def _speak(self, text: str, chances: Sequence[Item], out: list[bytes]) -> None:
        part = self._said
        if part is None:
            made = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            part = self._said = self._content(made, out)
        part.grown.append(text)
        logprobs = [{**one, "bytes": one.get("bytes") or []} for one in chances]
        part.logprobs += logprobs
        self._say("response.output_text.delta", out, **self._place(part), delta=text, logprobs=logprobs)

    def _refuse(self, text: str, out: list[bytes]) -> None:
        if self._refused is None:
            self._refused = self._content({"type": "refusal", "refusal": ""}, out)
        self._refused.grown.append(text)
        self._say("response.refusal.delta", out, **self._place(self._refused), delta=text)

    def _content(self, part: Item, out: list[bytes]) -> _Part:
        """A new part of the message, which is made with the first."""
        if self._message is None:
            item = {"id": f"msg_{self._name}", "type": "message", "role": "assistant", "content": []}
            self._message = self._add({**item, "status": "in_progress"}, out)
        owner = self._message
        made = _Part(owner.item, owner.at, content=len(owner.item["content"]))
        self._open_part(made, part, out)
        return made

    def _open_part(self, made: _Part, part: Item, out: list[bytes]) -> None:
        made.item["content"].append(part)
        self._say("response.content_part.added", out, **self._place(made), part=part)

    def _call(self, number: int, call: Call, out: list[bytes]) -> None:
        function = call.function or Function()
        part = self._growing.get(number)
        if part is None or _is_another(call, part.item):
            at = len(self._calls)
            item = {"id": f"fc_{self._name}_{at}", "type": "function_call", "status": "in_progress"}
            item |= {"call_id": call.id or f"call_{self._name}_{at}", "name": function.name or ""}
            part = self._growing[number] = self._add({**item, "arguments": ""}, out)
            self._calls.append(part)
        if function.arguments:
            part.grown.append(function.arguments)
            place = {"item_id": part.item["id"], "output_index": part.at}
            self._say("response.function_call_arguments.delta", out, **place, delta=function.arguments)

    def _add(self, item: Item, out: list[bytes]) -> _Part:
        part = _Part(item, len(self._items))
        self._items.append(item)
        self._say("response.output_item.added", out, output_index=part.at, item=item)
        return part

    def _end(self, out: list[bytes]) -> None:
        if self._ended:
            return
        if self._finish is None:
            self._fail({"message": "the model's stream ended before its answer was complete"}, out)
            return
        self._ended = True
        self._close(out)
        response = self._finished()
        self._say(f"response.{response['status']}", out, response=response)

    def _close(self, out: list[bytes]) -> None:
        """Say of every part and item that it is done, in the order in which they began."""
        status = "incomplete" if self._finish in _CUT else "completed"
        if self._thought is not None:
            self._done_part(self._thought, "response.reasoning_text.done", "text", out)
        for part, kind, key in (
            (self._said, "response.output_text.done", "text"),
            (self._refused, "response.refusal.done", "refusal"),
        ):
            if part is not None:
                self._done_part(part, kind, key, out)
        for part in self._calls:
            part.item["arguments"] = arguments = part.text
            place = {"item_id": part.item["id"], "output_index": part.at, "name": part.item["name"]}
            self._say("response.function_call_arguments.done", out, **place, arguments=arguments)
        for at, item in enumerate(self._items):
            item["status"] = status
            self._say("response.output_item.done", out, output_index=at, item=item)

    def _done_part(self, part: _Part, kind: str, key: str, out: list[bytes]) -> None:
        content = part.item["content"][part.content]
        content[key] = text = part.text
        more: dict[str, Any] = {}
        if kind == "response.output_text.done":
            content["logprobs"] = more["logprobs"] = part.logprobs
        self._say(kind, out, **self._place(part), **{key: text}, **more)
        self._say("response.content_part.done", out, **self._place(part), part=content)

    def _fail(self, error: Any, out: list[bytes]) -> None:  # noqa: ANN401 - an error's JSON
        self._begin(out)
        self._ended = self.failed = True
        told = error if isinstance(error, dict) else {}
        code = str(told.get("code") or "server_error")
        words = str(told.get("message") or "the request failed")
        self._say("error", out, code=code, message=words, param=None)
        failure = {"code": "server_error", "message": words}
        self._say("response.failed", out, response=self._response("failed") | {"error": failure})

    def _place(self, part: _Part) -> dict[str, Any]:
        return {"item_id": part.item["id"], "output_index": part.at, "content_index": part.content}

    def _say(self, kind: str, out: list[bytes], **fields: Any) -> None:  # noqa: ANN401 - an event's JSON
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        out.append(b"event: " + kind.encode() + b"\ndata: " + _ENCODE(event) + b"\n\n")

    def _finished(self) -> dict[str, Any]:
        cut = _CUT.get(self._finish or "")
        response = self._response("incomplete" if cut else "completed")
        if cut:
            response["incomplete_details"] = {"reason": cut}
        response |= {"output": self._items, "usage": usage_of(self._used)}
        if self._keep is not None:
            self._keep(response)
        return response

    def _response(self, status: str) -> dict[str, Any]:
        return response_of(
            self._asked, self.id, status, model=self._model, created_s=self._created_s,
            is_kept=self._keep is not None,
        )  # fmt: skip


def _read(data: bytes, what: str) -> Answer:
    try:
        return _DECODE(data)
    except msgspec.MsgspecError as error:
        message = f"{what} is no chat completion"
        raise UpstreamBroken(message) from error


def _is_another(call: Call, item: Item) -> bool:
    """Whether *call* begins another call under a number that is taken: some servers number all of them 0."""
    return bool(call.id and call.id != item["call_id"] and call.function and call.function.name)
