"""
MLflow: what its REST search answers for registered models and model versions, which is how it keeps prompts.

A file holds `{"registered_models": […]}`, `{"model_versions": […]}`, both, or a list of either. Whatever is
no prompt is left out. Templates with `{% … %}` are Jinja there too; in all others only `{{name}}` is special.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

from registry.entities import PromptContent
from registry.errors import BadInput
from registry.imports.base import (
    Imported,
    ImportedVersion,
    double_braces,
    json_of,
    listed,
    mapping,
    name_of,
    prompt,
    text_of,
    version,
)

_IS_PROMPT, _TEXT = "mlflow.prompt.is_prompt", "mlflow.prompt.text"
_TYPE, _FORMAT, _CONFIG = (
    "_mlflow_prompt_type", "_mlflow_prompt_response_format", "_mlflow_prompt_model_config",
)  # fmt: skip


def read(data: object, name: str | None = None) -> list[Imported]:
    """
    The prompts of an export, by name, their versions by number.

    Raises:
        BadInput: it has another shape, or no version of any prompt.
    """
    models, entries = _entries(data)
    aliases: dict[tuple[str, int], set[str]] = {}
    for model in models:
        for alias in model.get("aliases") or ():
            aliases.setdefault((model.get("name", ""), int(alias["version"])), set()).add(alias["alias"])
    found: dict[str, dict[int, ImportedVersion]] = {}
    for entry in entries:
        tags = _tags(entry)
        if tags.get(_IS_PROMPT) != "true":
            continue
        source = text_of(entry.get("name"), "model version name")
        number = _number(entry.get("version"), source)
        own = {alias if isinstance(alias, str) else alias["alias"] for alias in entry.get("aliases") or ()}
        labels = sorted(own | aliases.get((source, number), set()))
        found.setdefault(source, {})[number] = version(
            str(number), partial(_content, tags), labels=labels, dropped=_dropped(tags)
        )
    if not found:
        raise BadInput("no prompt version in the export; save what model-versions/search answers too")
    if name is not None and len(found) > 1:
        raise BadInput(f"--name {name}: the export has {len(found)} prompts; leave it out")
    return [
        Imported(name or name_of(source), source, tuple(versions[number] for number in sorted(versions)))
        for source, versions in sorted(found.items())
    ]


def _entries(data: object) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The registered models and the model versions of an export."""
    if isinstance(data, Mapping):
        if not {"registered_models", "model_versions"} & set(data):
            raise BadInput("the export has neither registered_models nor model_versions")
        both = [*listed(data.get("registered_models", []), "registered_models"),
                *listed(data.get("model_versions", []), "model_versions")]  # fmt: skip
    else:
        both = listed(data, "the export")
    entries = [mapping(item, f"entry {number}") for number, item in enumerate(both, 1)]
    models = [entry for entry in entries if "version" not in entry]
    latest = [
        mapping(item, "latest_versions") for model in models for item in model.get("latest_versions") or ()
    ]
    return models, [*latest, *(entry for entry in entries if "version" in entry)]


def _tags(entry: Mapping[str, Any]) -> dict[str, str]:
    tags = entry.get("tags") or {}
    if isinstance(tags, Mapping):
        return {str(key): str(value) for key, value in tags.items()}
    return dict(_pairs(listed(tags, "tags")))


def _pairs(tags: list[Any]) -> Iterator[tuple[str, str]]:
    for tag in tags:
        pair = mapping(tag, "tag")
        yield str(pair.get("key")), str(pair.get("value", ""))


def _number(value: object, source: str) -> int:
    if not str(value).isdecimal():
        raise BadInput(f"prompt {source!r}: version {value!r} is no number")
    return int(str(value))


def _dropped(tags: Mapping[str, str]) -> list[str]:
    known = {_IS_PROMPT, _TEXT, _TYPE}
    if tags.get(_TYPE) == "chat":
        known.add(_FORMAT)
    own = {_FORMAT: "response_format", _CONFIG: "model_config"}
    return sorted(own.get(tag, f"tag {tag}") for tag in tags if tag not in known)


def _content(tags: Mapping[str, str]) -> PromptContent:
    if _TEXT not in tags:
        raise BadInput(f"no tag {_TEXT}")
    text = tags[_TEXT]
    if tags.get(_TYPE) != "chat":
        return prompt([("user", _template(text, _is_jinja(text)))], kind="text")
    messages = [mapping(item, "message") for item in listed(json_of(text, _TEXT), _TEXT)]
    contents = [text_of(message.get("content"), f"message {n}") for n, message in enumerate(messages, 1)]
    is_jinja = any(map(_is_jinja, contents))
    schema = json_of(tags[_FORMAT], _FORMAT) if _FORMAT in tags else None
    return prompt(
        [
            (m.get("role", ""), _template(content, is_jinja))
            for m, content in zip(messages, contents, strict=True)
        ],
        response_schema=mapping(schema, _FORMAT) if schema else None,
    )


def _is_jinja(text: str) -> bool:
    return "{%" in text and "%}" in text


def _template(text: str, is_jinja: bool) -> str:  # noqa: FBT001
    return text if is_jinja else double_braces(text, names_only=True)
