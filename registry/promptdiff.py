"""What changed between two prompts: their templates, what they declare, and what they render to."""

from __future__ import annotations

import difflib
import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from registry.entities import PromptContent
from registry.errors import BadTemplate
from registry.ids import digest
from registry.templates import compile_prompt
from registry.versions import plain

_COLUMN = 58


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two prompts."""

    title: str
    """A reference such as support:3, or a path."""
    content: PromptContent
    """With every partial pinned."""
    partials: Mapping[str, str] = field(default_factory=dict)
    """Digest → template text; see `prompts.partials_of`."""


def diff(a: Side, b: Side, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """
    What changed from *a* to *b*, as plain JSON.

    Args:
        values: for the rendered examples; each side takes those it declares. Where one is missing, an example
            of its type stands in.

    Returns:
        `same`; the digests; `templates` and `response_schema` as unified diffs, empty when equal; what
        was added, removed and changed of `variables`, `partials` and `tools`; `rendered`, with the messages
        of each side or why there are none.
    """
    first, second = digest(plain(a.content)), digest(plain(b.content))
    rendered_a, rendered_b = _rendered(a, values or {}), _rendered(b, values or {})
    return {
        "same": first == second,
        "a": {"title": a.title, "digest": first},
        "b": {"title": b.title, "digest": second},
        "templates": _unified(_sections(a.content), _sections(b.content), a.title, b.title),
        "variables": _changes(a.content.variables, b.content.variables),
        "partials": _changes(a.content.partials or {}, b.content.partials or {}),
        "tools": _changes(_tools(a.content), _tools(b.content)),
        "response_schema": _unified(_schema(a.content), _schema(b.content), a.title, b.title),
        "rendered": {"same": rendered_a == rendered_b, "a": rendered_a, "b": rendered_b},
    }


def example(kind: str, name: str) -> Any:  # noqa: ANN401
    """A value of a variable's type that shows where it goes."""
    values = {"number": 1.5, "integer": 1, "boolean": True, "list": [f"<{name}>"], "object": {}}
    return values.get(kind, f"<{name}>")


def describe(answer: Mapping[str, Any]) -> str:
    """What `diff` found, for people: diffs, then changes, then both renderings side by side."""
    if answer["same"]:
        return f"{answer['a']['title']} and {answer['b']['title']} are the same"
    parts = [answer["templates"]] if answer["templates"] else []
    for key in ("variables", "partials", "tools"):
        parts += _lines(key, answer[key])
    if answer["response_schema"]:
        parts.append("response_schema:\n" + answer["response_schema"])
    parts.append(_beside(answer))
    return "\n".join(parts)


def _sections(content: PromptContent) -> list[str]:
    lines: list[str] = []
    for message in content.messages:
        lines += [] if content.kind == "text" else [f"# {message.role}"]
        lines += [*message.content.split("\n"), ""]
    return lines


def _schema(content: PromptContent) -> list[str]:
    schema = content.response_schema
    return json.dumps(plain(schema), indent=2, sort_keys=True).split("\n") if schema else []


def _tools(content: PromptContent) -> dict[str, Any]:
    return {str(tool["function"]["name"]): plain(tool) for tool in content.tools or ()}


def _unified(a: list[str], b: list[str], title_a: str, title_b: str) -> str:
    return "\n".join(difflib.unified_diff(a, b, title_a, title_b, lineterm=""))


def _changes(a: Mapping[str, Any], b: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "added": {name: b[name] for name in sorted(b.keys() - a.keys())},
        "removed": {name: a[name] for name in sorted(a.keys() - b.keys())},
        "changed": {name: [a[name], b[name]] for name in sorted(a.keys() & b.keys()) if a[name] != b[name]},
    }


def _rendered(side: Side, values: Mapping[str, Any]) -> dict[str, Any]:
    filled = {
        name: values[name] if name in values else example(kind, name)
        for name, kind in side.content.variables.items()
    }
    try:
        return {"messages": compile_prompt(side.content, side.partials)(filled), "error": None}
    except BadTemplate as error:
        return {"messages": None, "error": error.message}


def _lines(what: str, changes: Mapping[str, Any]) -> list[str]:
    lines = [f"+ {what}.{name}: {_short(value)}" for name, value in changes["added"].items()]
    lines += [f"- {what}.{name}: {_short(value)}" for name, value in changes["removed"].items()]
    return lines + [
        f"! {what}.{name}: {_short(before)} → {_short(after)}"
        for name, (before, after) in changes["changed"].items()
    ]


def _short(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, sort_keys=True)
    return text if len(text) <= 100 else text[:97] + "..."


def _beside(answer: Mapping[str, Any]) -> str:
    """Both renderings in two columns; `|` between lines that differ."""
    rendered = answer["rendered"]
    if rendered["same"]:
        return "rendered: the same"
    left, right = _column(rendered["a"]), _column(rendered["b"])
    rows = [f"{'rendered ' + answer['a']['title']:<{_COLUMN}}   {'rendered ' + answer['b']['title']}"]
    matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
    for tag, start_a, end_a, start_b, end_b in matcher.get_opcodes():
        for offset in range(max(end_a - start_a, end_b - start_b)):
            one = left[start_a + offset] if start_a + offset < end_a else ""
            two = right[start_b + offset] if start_b + offset < end_b else ""
            rows.append(f"{one:<{_COLUMN}} {' ' if tag == 'equal' else '|'} {two}".rstrip())
    return "\n".join(rows)


def _column(rendered: Mapping[str, Any]) -> list[str]:
    if rendered["messages"] is None:
        return textwrap.wrap(f"cannot be rendered: {rendered['error']}", _COLUMN)
    lines: list[str] = []
    for message in rendered["messages"]:
        lines.append(f"# {message['role']}")
        for line in message["content"].split("\n"):
            lines += textwrap.wrap(line, _COLUMN) or [""]
    return lines
