"""
Shapes of JSON that are read on the way through, as far as they are.

They stand in a module of their own because `msgspec` reads annotations, which compiled modules do not keep.
"""

from __future__ import annotations

from typing import Any

import msgspec

from gateway.dataplane.usage import Tokens


class Delta(msgspec.Struct):
    """What one event adds to a choice."""

    content: str | None = None
    reasoning_content: str | None = None


class Choice(msgspec.Struct):
    """One choice of an event."""

    finish_reason: str | None = None
    delta: Delta | None = None
    text: str | None = None


class Groq(msgspec.Struct):
    """What Groq adds to the first and the last event of a stream."""

    usage: Tokens | None = None


class Event(msgspec.Struct):
    """An event of a stream."""

    choices: list[Choice] | None = None
    usage: Tokens | None = None
    x_groq: Groq | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class Message(msgspec.Struct):
    """A message of a whole answer."""

    content: Any = None


class Finished(msgspec.Struct):
    """One choice of a whole answer."""

    message: Message | None = None
    text: str | None = None


class Answer(msgspec.Struct):
    """A whole answer."""

    usage: Tokens | None = None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """Why there is none: OpenRouter says status 200 before it knows."""


class Texts(msgspec.Struct):
    """The texts of a whole answer, for one that does not count its tokens."""

    choices: tuple[Finished, ...] = ()


class Failure(msgspec.Struct):
    """The `error` of an upstream, as OpenAI writes it."""

    message: str = ""
    type: str | None = None
    param: str | None = None
    code: str | int | None = None


class HasRole(msgspec.Struct):
    """A chat message, as far as it must be one."""

    role: str
