"""
Langfuse: what `GET /api/public/v2/prompts/{name}` answers, one object for each version.

A file holds one of them, a list, or `{"data": […]}`. Variables are `{{name}}`; nothing else is special. Of
the configuration, tools and the schema of the answer come along; the rest is reported as dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from registry.entities import PromptContent
from registry.errors import BadInput
from registry.imports.base import (
    Imported,
    ImportedVersion,
    double_braces,
    listed,
    mapping,
    name_of,
    prompt,
    text_of,
    version,
)

_REFERENCE = "@@@langfusePrompt:"


def read(data: object, name: str | None = None) -> list[Imported]:
    """
    The prompts of an export, by name, their versions by number.

    Raises:
        BadInput: it has another shape.
    """
    inner = data.get("data", [data]) if isinstance(data, Mapping) else data
    found: dict[str, dict[int, ImportedVersion]] = {}
    for place, item in enumerate(listed(inner, "the export")):
        where = f"prompt {place + 1}"
        entry = mapping(item, where)
        if "prompt" not in entry or "version" not in entry:
            raise BadInput(
                f"{where}: no prompt and version; export each with GET /api/public/v2/prompts/{{name}}"
            )
        source, number = text_of(entry.get("name"), f"{where}.name"), entry["version"]
        if not isinstance(number, int):
            raise BadInput(f"{where}.version: expected a whole number")
        found.setdefault(source, {})[number] = _version(entry, number)
    if name is not None and len(found) > 1:
        raise BadInput(f"--name {name}: the export has {len(found)} prompts; leave it out")
    return [
        Imported(name or name_of(source), source, tuple(versions[number] for number in sorted(versions)))
        for source, versions in sorted(found.items())
    ]


def _version(entry: Mapping[str, Any], number: int) -> ImportedVersion:
    config = entry.get("config") or {}
    kept = {"tools", "response_format"} if entry.get("type") == "chat" else set()
    dropped = (
        [f"config.{key}" for key in config if key not in kept] if isinstance(config, Mapping) else ["config"]
    )
    if entry.get("tags"):
        dropped.append("tags")
    labels = [label for label in entry.get("labels") or () if label != "latest"]
    return version(str(number), partial(_content, entry), labels=labels, dropped=dropped)


def _content(entry: Mapping[str, Any]) -> PromptContent:
    if entry.get("type", "text") == "text":
        return prompt([("user", _template(entry["prompt"], "prompt"))], kind="text")
    if entry["type"] != "chat":
        raise BadInput(f"type {entry['type']!r} is neither text nor chat")
    messages = []
    for number, item in enumerate(listed(entry["prompt"], "prompt"), 1):
        message = mapping(item, f"message {number}")
        if message.get("type") == "placeholder":
            raise BadInput(f"message {number}: a placeholder for messages ({message.get('name')!r})")
        messages.append((message.get("role", ""), _template(message.get("content"), f"message {number}")))
    config = entry.get("config")
    config = config if isinstance(config, Mapping) else {}
    return prompt(
        messages, tools=config.get("tools") or (), response_schema=_schema(config.get("response_format"))
    )


def _template(value: object, where: str) -> str:
    text = text_of(value, where)
    if _REFERENCE in text:
        raise BadInput(f"{where}: a reference to another prompt (@@@langfusePrompt…); export it resolved")
    return double_braces(text)


def _schema(response_format: object) -> Mapping[str, Any] | None:
    if not isinstance(response_format, Mapping) or response_format.get("type") != "json_schema":
        return None
    wrapped = response_format.get("json_schema")
    schema = wrapped.get("schema") if isinstance(wrapped, Mapping) else None
    return mapping(schema, "config.response_format.json_schema.schema")
