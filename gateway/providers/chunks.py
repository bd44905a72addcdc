"""Answers and streams in the shape of chat completions, written by providers that are told another one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

Json = dict[str, Any]
_ENCODE = msgspec.json.Encoder().encode
_MOST_BYTES = 8_000_000


class EventsTooLong(ValueError):
    """An event of a stream has no end within what is kept of it."""


class Events:
    """Splits a stream of server-sent events, wherever its bytes are cut, into the data of each."""

    __slots__ = ("_rest",)

    def __init__(self) -> None:
        self._rest = b""

    def push(self, data: bytes) -> Iterator[bytes]:
        """
        The data of the events that *data* completes; comments and events without data are left out.

        Raises:
            EventsTooLong: an event does not end.
        """
        joined = self._rest + data
        if b"\r" in joined:
            joined = joined.replace(b"\r\n", b"\n")
        *events, self._rest = joined.split(b"\n\n")
        if len(self._rest) > _MOST_BYTES:
            raise EventsTooLong
        for event in events:
            lines = [line[5:].removeprefix(b" ") for line in event.split(b"\n") if line.startswith(b"data:")]
            if lines:
                yield b"\n".join(lines)


class Chunks:
    """Writes one stream of chat completion chunks."""

    __slots__ = ("_head", "begun")

    def __init__(self, name: str, model: str, created_s: int) -> None:
        """*name* is the completion's id."""
        self._head = {"id": name, "object": "chat.completion.chunk", "created": created_s, "model": model}
        self.begun = False

    def delta(self, delta: Json, finish: str | None = None, **more: object) -> bytes:
        """An event that adds *delta* to the only choice; the first one names the role."""
        if not self.begun:
            self.begun = True
            delta = {"role": "assistant", **delta}
        choice = {"index": 0, "delta": delta, "finish_reason": finish, **more}
        return b"data: " + _ENCODE({**self._head, "choices": [choice]}) + b"\n\n"

    def usage(self, used: Json) -> bytes:
        """The event of usage, which has no choice."""
        return b"data: " + _ENCODE({**self._head, "choices": [], "usage": used}) + b"\n\n"


def completion(
    name: str, model: str, created_s: int, message: Json, finish: str, used: Json | None, **more: object
) -> bytes:  # fmt: skip
    """A whole chat completion with one choice; *more* are further keys of the choice."""
    said: Json = {"role": "assistant", "content": None, **message}
    choice: Json = {"index": 0, "message": said, "finish_reason": finish, **more}
    answer: Json = {
        "id": name, "object": "chat.completion", "created": created_s, "model": model, "choices": [choice],
    }  # fmt: skip
    return _ENCODE(answer | ({"usage": used} if used is not None else {}))


def usage(prompt: int, completion_tokens: int, cached: int = 0, reasoning: int = 0) -> Json:
    """Tokens in the words of chat completions; *cached* is part of the prompt, *reasoning* of the rest."""
    return {
        "prompt_tokens": prompt,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
        "completion_tokens_details": {"reasoning_tokens": reasoning},
    }


def failure(message: str, kind: str, code: str | None) -> bytes:
    """An error in OpenAI's shape."""
    return _ENCODE({"error": {"message": message, "type": kind, "param": None, "code": code}})


def text_of(content: Any, where: str, refuse: type[Exception]) -> str:  # noqa: ANN401 - a client's JSON
    """The text of a chat message that may hold nothing else; *refuse* is raised for anything else."""
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else [None]
    texts = [part.get("text") for part in parts if isinstance(part, Mapping) and part.get("type") == "text"]
    if len(texts) < len(parts) or not all(isinstance(text, str) for text in texts):
        raise refuse(f"{where}.content: takes text alone")
    return "".join(map(str, texts))
