"""Guardrails on what goes in and on what comes out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import msgspec

from gateway.dataplane.request import Body, content_of, field, messages_of, part_text, raw
from gateway.dataplane.work import Work
from gateway.errors import InvalidRequest
from gateway.guardrails.base import Match
from gateway.guardrails.policy import TextScreen
from gateway.guardrails.window import Window

Findings = list[tuple[str, str]]
_INLINE_CHARS = 2000
"""Longer texts are screened in a worker thread, so that they hold up nobody else."""
_STRUCTURE = frozenset(
    {"role", "id", "type", "name", "finish_reason", "tool_call_id", "data", "url", "b64_json"}
)
"""Keys of an answer whose text is structure or base64, not something a model said."""
Path = tuple[str | int, ...]
_TEXTS = msgspec.json.Decoder(str | list[Any] | None)


async def screen_body(screen: TextScreen, body: Body, work: Work, findings: Findings) -> Body:
    """
    *body* with every text a client wrote screened: messages, tool arguments, prompt, input.

    Raises:
        GuardrailBlocked: a rule that blocks fired.
        InvalidRequest: a text field holds something else.
    """
    if sum(map(len, (bytes(body[name]) for name in _TEXT_FIELDS if name in body))) <= _INLINE_CHARS:
        return _screen_body(screen, body, findings)
    return await work.run(_screen_body, screen, body, findings)


async def screen_text(screen: TextScreen | None, text: str, work: Work, findings: Findings) -> str:
    """One text, screened. Raises GuardrailBlocked."""
    if screen is None:
        return text
    if len(text) <= _INLINE_CHARS:
        return _apply(screen, text, findings)
    return await work.run(_apply, screen, text, findings)


def screen_answer(screen: TextScreen, answer: bytes, findings: Findings) -> bytes:
    """
    A whole answer with every text of its choices screened; log probabilities, which spell the text
    out token by token, are removed. What is not an answer with choices comes back as it is.

    Raises:
        GuardrailBlocked: a rule that blocks fired.
    """
    decoded = msgspec.json.decode(answer)
    if not isinstance(decoded, dict) or not isinstance(decoded.get("choices"), list):
        return answer
    for choice in decoded["choices"]:
        _without_logprobs(choice)
        for _path, holder, key in _texts(choice, ()):
            holder[key] = _apply(screen, holder[key], findings)
    return msgspec.json.encode(decoded)


class StreamScreen:
    """Holds back the text of a stream, for each choice and field, until it may be released."""

    __slots__ = ("_last", "_screen", "_windows", "findings")

    def __init__(self, screen: TextScreen, findings: Findings) -> None:
        """Note what fires in *findings*."""
        self._screen = screen
        self.findings = findings
        self._windows: dict[tuple[int, Path], Window] = {}
        self._last: dict[str, Any] = {}

    def push(self, event: dict[str, Any]) -> bytes:
        """
        One decoded event of the upstream as it may be sent on, in JSON.

        Raises:
            GuardrailBlocked: a rule that blocks fired; nothing more may be sent.
        """
        choices = event.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            index = choice.get("index", 0)
            _without_logprobs(choice)
            for path, holder, key in list(_texts(choice, ())):
                window = self._windows.get((index, path))
                if window is None:
                    window = self._windows[index, path] = self._screen.window()
                holder[key] = window.push(holder[key])
            if choice.get("finish_reason") is not None:
                for path, text in self._finish(index):
                    _append(choice, path, text)
        if choices:
            self._last = {name: event[name] for name in ("id", "object", "created", "model") if name in event}
        return msgspec.json.encode(event)

    def finish(self) -> bytes | None:
        """
        One more event with what choices without a `finish_reason` still hold, or None.

        Raises:
            GuardrailBlocked: a rule that blocks fired.
        """
        choices: dict[int, dict[str, Any]] = {}
        for index in sorted({index for index, _ in self._windows}):
            for path, text in self._finish(index):
                choice = choices.setdefault(index, {"index": index, "finish_reason": None})
                _append(choice, path, text)
        if not choices:
            return None
        return msgspec.json.encode({**self._last, "choices": list(choices.values())})

    def _finish(self, index: int) -> list[tuple[Path, str]]:
        rests: list[tuple[Path, str]] = []
        for key in [key for key in self._windows if key[0] == index]:
            window = self._windows.pop(key)
            rest = window.finish()
            self.findings += _named(window.matches)
            if rest:
                rests.append((key[1], rest))
        return rests


def _screen_body(screen: TextScreen, body: Body, findings: Findings) -> Body:
    changed = dict(body)
    if "messages" in body:
        messages = messages_of(body)
        changed["messages"] = raw([_screen_message(screen, m, i, findings) for i, m in enumerate(messages)])
    for name in ("prompt", "input", "suffix"):
        value = field(body, name, _TEXTS)
        if value is not None:
            changed[name] = raw(_screen_value(screen, value, findings))
    return changed


_TEXT_FIELDS = ("messages", "prompt", "input", "suffix")


def _screen_message(
    screen: TextScreen, message: dict[str, msgspec.Raw], index: int, findings: Findings
) -> dict[str, msgspec.Raw]:
    changed = dict(message)
    content = content_of(message, index)
    if isinstance(content, str):
        changed["content"] = raw(_apply(screen, content, findings))
    elif isinstance(content, list):
        parts: list[dict[str, msgspec.Raw]] = []
        for part in content:
            text = part_text(part)
            parts.append(part if text is None else {**part, "text": raw(_apply(screen, text, findings))})
        changed["content"] = raw(parts)
    for name, value in message.items():
        # Not a list of fields that are known to hold text: servers read others, such as `reasoning`.
        if name == "content" or name in _STRUCTURE:
            continue
        try:
            holder = {name: msgspec.json.decode(value)}
        except (msgspec.DecodeError, RecursionError) as error:
            problem = f"messages[{index}].{name[:64]}: cannot be read"
            raise InvalidRequest(problem, param="messages") from error
        for _path, inner, key in _texts(holder, ()):
            inner[key] = _apply(screen, inner[key], findings)
            changed[name] = raw(holder[name])
    return changed


def _screen_value(screen: TextScreen, value: Any, findings: Findings) -> Any:  # noqa: ANN401 - text or list
    if isinstance(value, str):
        return _apply(screen, value, findings)
    return [_screen_value(screen, item, findings) if isinstance(item, str) else item for item in value]


def _apply(screen: TextScreen, text: str, findings: Findings) -> str:
    screened = screen.apply(text)
    findings += _named(screened.findings)
    return screened.text


def _named(found: Sequence[Match]) -> Findings:
    return [(match.rule, match.action) for match in found]


def _texts(node: Any, path: Path) -> Iterator[tuple[Path, Any, Any]]:  # noqa: ANN401 - any JSON
    """Every text a model said below *node*: its path, and the holder and key to replace it with."""
    if isinstance(node, dict):
        for key, value in node.items():
            if isinstance(value, str):
                if key not in _STRUCTURE:
                    yield (*path, key), node, key
            else:
                yield from _texts(value, (*path, key))
    elif isinstance(node, list):
        for position, item in enumerate(node):
            place = item.get("index", position) if isinstance(item, dict) else position
            if isinstance(item, str):
                yield (*path, place), node, position
            else:
                yield from _texts(item, (*path, place))


def _append(choice: dict[str, Any], path: Path, text: str) -> None:
    """Add *text* to the field at *path* below *choice*, making what is missing on the way."""
    node: Any = choice
    for step, following in pairwise(path):
        if isinstance(node, dict):
            if node.get(step) is None:
                node[step] = [] if isinstance(following, int) else {}
            node = node[step]
        else:
            node = _item(node, int(step))
    if isinstance(node, dict):
        node[path[-1]] = (node.get(path[-1]) or "") + text
    else:
        node.append(text)


def _item(items: list[Any], index: int) -> Any:  # noqa: ANN401 - any JSON
    for item in items:
        if item.get("index") == index:
            return item
    items.append({"index": index})
    return items[-1]


def _without_logprobs(choice: dict[str, Any]) -> None:
    if choice.get("logprobs") is not None:
        choice["logprobs"] = None
