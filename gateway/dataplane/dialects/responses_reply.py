"""A chat answer as OpenAI's response: whole, or as a stream of events with numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from gateway.dataplane import sse
from gateway.dataplane.dialects.responses_wire import Answer, Call, Choice, Item, Request, Said, Used
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
    text: str = ""
    content: int = 0
    is_done: bool = False


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
        self._calls: dict[int, _Part] = {}
        self._finish: str | None = None
        self._used: Used | None = None
        self._begun = self._ended = False

    @property
    def id(self) -> str:
        """What the response is called."""
        return f"resp_{self._name}"

    def whole(self, status: int, body: bytes) -> bytes:
        """
        The response for a whole chat answer; errors stay as they are.

        Raises:
            UpstreamBroken: the answer has no choice.
        """
        if status >= _ANY_ERROR:
            return body
        try:
            answer = _DECODE(body)
        except msgspec.MsgspecError as error:
            message = "the model's answer is no chat completion"
            raise UpstreamBroken(message) from error
        choice = next((one for one in answer.choices if one.index == 0), None)
        if choice is None or choice.message is None:
            message = "the model's answer has no choice"
            raise UpstreamBroken(message)
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
        """What is left to say when the stream has ended, with or without `[DONE]`."""
        out: list[bytes] = []
        self._end(out)
        return b"".join(out)

    def _event(self, payload: bytes, out: list[bytes]) -> None:
        try:
            event = _DECODE(payload)
        except msgspec.MsgspecError as error:
            message = "an event of the model's stream is no chat completion"
            raise UpstreamBroken(message) from error
        if event.error is not None:
            self._fail(event.error, out)
            return
        if not self._begun:
            self._begun = True
            self._model = event.model
            for kind in ("response.created", "response.in_progress"):
                self._say(kind, out, response=self._response("in_progress"))
        if event.usage is not None:
            self._used = event.usage
        for choice in event.choices:
            if choice.index == 0:
                self._choice(choice, choice.delta, out)

    def _choice(self, choice: Choice, said: Said | None, out: list[bytes]) -> None:
        if said is not None:
            if said.reasoning_content:
                self._think(said.reasoning_content, out)
            if said.content:
                self._speak(said.content, out)
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
        part.text += text
        self._say("response.reasoning_text.delta", out, **self._place(part), delta=text)

    def _speak(self, text: str, out: list[bytes]) -> None:
        if self._said is None:
            made = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
            self._said = self._content(made, out)
        self._said.text += text
        self._say("response.output_text.delta", out, **self._place(self._said), delta=text, logprobs=[])

    def _refuse(self, text: str, out: list[bytes]) -> None:
        if self._refused is None:
            self._refused = self._content({"type": "refusal", "refusal": ""}, out)
        self._refused.text += text
        self._say("response.refusal.delta", out, **self._place(self._refused), delta=text)

    def _content(self, part: Item, out: list[bytes]) -> _Part:
        """A new part of the message, which is made with the first."""
        if self._message is None:
            item = {
                "id": f"msg_{self._name}",
                "type": "message",
                "role": "assistant",
                "status": "in_progress",
            }
            self._message = self._add({**item, "content": []}, out)
        owner = self._message
        made = _Part(owner.item, owner.at, content=len(owner.item["content"]))
        self._open_part(made, part, out)
        return made

    def _open_part(self, made: _Part, part: Item, out: list[bytes]) -> None:
        made.item["content"].append(part)
        self._say("response.content_part.added", out, **self._place(made), part=part)

    def _call(self, number: int, call: Call, out: list[bytes]) -> None:
        function = call.function
        part = self._calls.get(number)
        if part is None:
            item = {"id": f"fc_{self._name}_{number}", "type": "function_call", "status": "in_progress"}
            name = (function.name if function else None) or ""
            item |= {"call_id": call.id or "", "name": name, "arguments": ""}
            part = self._calls[number] = self._add(item, out)
        arguments = (function.arguments if function else None) or ""
        if arguments:
            part.text += arguments
            place = {"item_id": part.item["id"], "output_index": part.at}
            self._say("response.function_call_arguments.delta", out, **place, delta=arguments)

    def _add(self, item: Item, out: list[bytes]) -> _Part:
        part = _Part(item, len(self._items))
        self._items.append(item)
        self._say("response.output_item.added", out, output_index=part.at, item=item)
        return part

    def _end(self, out: list[bytes]) -> None:
        if self._ended or self._finish is None:
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
        for part in self._calls.values():
            part.item["arguments"] = part.text
            place = {"item_id": part.item["id"], "output_index": part.at, "name": part.item["name"]}
            self._say("response.function_call_arguments.done", out, **place, arguments=part.text)
        for at, item in enumerate(self._items):
            item["status"] = status
            self._say("response.output_item.done", out, output_index=at, item=item)

    def _done_part(self, part: _Part, kind: str, key: str, out: list[bytes]) -> None:
        content = part.item["content"][part.content]
        content[key] = part.text
        more: dict[str, Any] = {"logprobs": []} if kind == "response.output_text.done" else {}
        self._say(kind, out, **self._place(part), **{key: part.text}, **more)
        self._say("response.content_part.done", out, **self._place(part), part=content)

    def _fail(self, error: Any, out: list[bytes]) -> None:  # noqa: ANN401 - an error's JSON
        self._ended = True
        told = error if isinstance(error, dict) else {}
        code, words = (
            str(told.get("code") or "server_error"),
            str(told.get("message") or "the request failed"),
        )
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
        response |= {"output": self._items, "usage": _usage(self._used or Used())}
        if self._keep is not None:
            self._keep(response)
        return response

    def _response(self, status: str) -> dict[str, Any]:
        asked = self._asked
        text = asked.text
        return {
            "id": self.id,
            "object": "response",
            "created_at": self._created_s,
            "status": status,
            "error": None,
            "incomplete_details": None,
            "instructions": asked.instructions,
            "max_output_tokens": asked.max_output_tokens,
            "metadata": asked.metadata or {},
            "model": self._model or asked.model,
            "output": [],
            "parallel_tool_calls": asked.parallel_tool_calls is not False,
            "previous_response_id": asked.previous_response_id,
            "reasoning": {"effort": asked.reasoning.effort if asked.reasoning else None, "summary": None},
            "store": self._keep is not None,
            "temperature": asked.temperature,
            "text": {"format": (text.format if text else None) or {"type": "text"}},
            "tool_choice": asked.tool_choice or "auto",
            "tools": asked.tools or [],
            "top_p": asked.top_p,
            "truncation": "disabled",
            "usage": None,
            "user": asked.user,
        }


def _usage(used: Used) -> dict[str, Any]:
    read, written = used.prompt_tokens_details, used.completion_tokens_details
    return {
        "input_tokens": used.prompt_tokens,
        "input_tokens_details": {
            "cached_tokens": (read and read.cached_tokens) or 0,
            "cache_write_tokens": 0,
        },
        "output_tokens": used.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": (written and written.reasoning_tokens) or 0},
        "total_tokens": used.prompt_tokens + used.completion_tokens,
    }
