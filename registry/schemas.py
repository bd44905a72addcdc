"""What a prompt offers beside its text: tools in OpenAI's shape, and the JSON Schema of the answer."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import parse
from registry.entities import ToolSchema
from registry.errors import BadInput
from registry.refs import check_name

MAX_DEPTH = 32
_TYPES = frozenset(("string", "number", "integer", "boolean", "object", "array", "null"))
_ONE = frozenset((
    "additionalProperties", "contains", "else", "if", "items", "not", "propertyNames", "then",
    "unevaluatedItems", "unevaluatedProperties",
))  # fmt: skip
_MANY = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_NAMED = frozenset(("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"))
_COUNTS = frozenset((
    "maxContains", "maxItems", "maxLength", "maxProperties", "minContains", "minItems", "minLength",
    "minProperties",
))  # fmt: skip
_NUMBERS = frozenset(("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"))
_TEXTS = frozenset(("$anchor", "$comment", "$id", "$ref", "$schema", "description", "format", "title"))
_FLAGS = frozenset(("deprecated", "readOnly", "uniqueItems", "writeOnly"))


@dataclass(frozen=True, slots=True)
class ToolFile:
    """What a tool schema file says."""

    name: str
    tools: tuple[Mapping[str, Any], ...]

    def __post_init__(self) -> None:
        """Refuse a malformed name, and tools that are none."""
        check_name(self.name)
        check_tools(self.tools)

    @property
    def content(self) -> ToolSchema:
        """What is stored."""
        return ToolSchema(self.tools)


def read_tools(path: Path) -> ToolFile:
    """The tool schema file at *path*. Raises BadInput naming the line, or the tool and its key."""
    return parse.read(path, ToolFile)


def check_tools(tools: Sequence[Mapping[str, object]]) -> None:
    """
    Check tools: named functions, each once, whose parameters are a JSON Schema.

    Raises:
        BadInput: names the tool and the key that is wrong.
    """
    ToolSchema(tuple(tools))
    for tool in tools:
        function = tool["function"]
        assert isinstance(function, Mapping)  # noqa: S101 - ToolSchema checked it
        name = function["name"]
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", str(name)):
            raise BadInput(f"tools: {name!r} is not 1 to 64 of A-Z, a-z, 0-9, '_', '-'")
        if set(tool) - {"type", "function"}:
            raise BadInput(
                f"tools.{name}: only type and function, not {sorted(set(tool) - {'type', 'function'})}"
            )
        unknown = set(function) - {"name", "description", "parameters", "strict"}
        if unknown:
            raise BadInput(f"tools.{name}: unknown keys {sorted(unknown)}")
        if not isinstance(function.get("description", ""), str):
            raise BadInput(f"tools.{name}.description: expected text")
        check_schema(function.get("parameters", {}), f"tools.{name}.parameters")


def check_schema(schema: object, where: str = "response_schema") -> None:
    """
    Check that *schema* is a JSON Schema (draft 2020-12): every keyword it knows has a value of its kind.

    Unknown keywords are allowed, as the draft says. References are not followed.

    Raises:
        BadInput: names the keyword that is wrong, by its path.

    >>> check_schema({"type": "object", "required": "answer"})
    Traceback (most recent call last):
    registry.errors.BadInput: response_schema.required: expected a list of names, each once
    """
    if not isinstance(schema, Mapping):
        raise BadInput(f"{where}: expected a mapping")
    _schema(schema, where, 0)


def _schema(schema: object, where: str, depth: int) -> None:
    if isinstance(schema, bool):
        return
    if not isinstance(schema, Mapping):
        raise BadInput(f"{where}: expected a mapping, true or false")
    if depth > MAX_DEPTH:
        raise BadInput(f"{where}: nested deeper than {MAX_DEPTH} schemas")
    for key, value in schema.items():
        here = f"{where}.{key}"
        if key in _ONE:
            _schema(value, here, depth + 1)
        elif key in _MANY:
            if not isinstance(value, list | tuple) or not value:
                raise BadInput(f"{here}: expected a list of schemas")
            for number, inner in enumerate(value):
                _schema(inner, f"{here}[{number}]", depth + 1)
        elif key in _NAMED:
            if not isinstance(value, Mapping):
                raise BadInput(f"{here}: expected a mapping of schemas")
            for name, inner in value.items():
                _schema(inner, f"{here}.{name}", depth + 1)
        else:
            _plain(str(key), value, here)
    for pattern in (schema.get("pattern", ""), *_names(schema.get("patternProperties"))):
        _regex(pattern, where)


def _plain(key: str, value: object, where: str) -> None:
    if key == "type" and not (
        (isinstance(value, str) and value in _TYPES) or (_is_names(value) and value and set(value) <= _TYPES)  # type: ignore[call-overload]
    ):
        raise BadInput(f"{where}: expected one of {', '.join(sorted(_TYPES))}, or a list of them")
    if key == "required" and not _is_names(value):
        raise BadInput(f"{where}: expected a list of names, each once")
    if key in ("enum", "examples") and not isinstance(value, list | tuple):
        raise BadInput(f"{where}: expected a list")
    if key in _COUNTS and not (_is_number(value) and value == int(value) and value >= 0):  # type: ignore[call-overload,operator]
        raise BadInput(f"{where}: expected 0, 1, 2 …")
    if key in _NUMBERS and not _is_number(value):
        raise BadInput(f"{where}: expected a number")
    if key == "multipleOf" and value <= 0:  # type: ignore[operator]
        raise BadInput(f"{where}: expected a number above 0")
    if key in _TEXTS and not isinstance(value, str):
        raise BadInput(f"{where}: expected text")
    if key in _FLAGS and not isinstance(value, bool):
        raise BadInput(f"{where}: expected true or false")


def _regex(pattern: object, where: str) -> None:
    if not isinstance(pattern, str):
        raise BadInput(f"{where}.pattern: expected text")
    try:
        re.compile(pattern)
    except (re.error, RecursionError, OverflowError) as error:
        raise BadInput(f"{where}.pattern: no regular expression: {error}") from error


def _names(value: object) -> list[str]:
    return [str(name) for name in value] if isinstance(value, Mapping) else []


def _is_names(value: object) -> bool:
    return (
        isinstance(value, list | tuple)
        and all(isinstance(name, str) for name in value)
        and len(set(value)) == len(value)
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
