from __future__ import annotations

from typing import Any

import pytest

from registry.errors import BadInput
from registry.schemas import check_schema, check_tools

jsonschema = pytest.importorskip("jsonschema")
GOOD: list[Any] = [
    {},
    {"type": "object", "properties": {"a": {"type": ["string", "null"]}, "b": True}, "required": ["a"]},
    {"$defs": {"x": {"const": 1}}, "items": {"$ref": "#/$defs/x"}, "minItems": 0, "uniqueItems": True},
    {"anyOf": [{"enum": [1, None]}, {"pattern": "^a+$"}], "x-own": [1], "additionalProperties": False},
    {"patternProperties": {"^x": {"multipleOf": 0.5, "minimum": -1}}},
]
BAD: list[tuple[Any, str]] = [
    ({"type": "text"}, "response_schema.type"),
    ({"type": []}, "response_schema.type"),
    ({"required": "a"}, "response_schema.required"),
    ({"required": ["a", "a"]}, "response_schema.required"),
    ({"properties": [1]}, "response_schema.properties"),
    ({"properties": {"a": {"items": {"type": 1}}}}, "response_schema.properties.a.items.type"),
    ({"anyOf": []}, "response_schema.anyOf"),
    ({"allOf": [1]}, "response_schema.allOf[0]"),
    ({"minLength": -1}, "response_schema.minLength"),
    ({"maxItems": "3"}, "response_schema.maxItems"),
    ({"minimum": True}, "response_schema.minimum"),
    ({"multipleOf": 0}, "response_schema.multipleOf"),
    ({"title": 1}, "response_schema.title"),
    ({"uniqueItems": 1}, "response_schema.uniqueItems"),
    ({"enum": 1}, "response_schema.enum"),
    ({"pattern": 1}, "response_schema.pattern"),
]


@pytest.mark.parametrize("schema", GOOD)
def test_what_the_draft_allows_is_allowed(schema: Any) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    check_schema(schema)


@pytest.mark.parametrize(("schema", "where"), BAD)
def test_what_the_draft_refuses_is_refused_by_its_path(schema: Any, where: str) -> None:
    with pytest.raises(jsonschema.SchemaError):
        jsonschema.Draft202012Validator.check_schema(schema)
    with pytest.raises(BadInput) as caught:
        check_schema(schema)
    assert caught.value.message.startswith(where + ":")


def test_a_schema_cannot_be_nested_without_end() -> None:
    schema: dict[str, Any] = {}
    for _ in range(40):
        schema = {"items": schema}
    with pytest.raises(BadInput, match="nested deeper than 32 schemas"):
        check_schema(schema)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ({"name": "a b"}, "tools: 'a b' is not 1 to 64 of"),
        ({"name": "f", "arguments": {}}, "tools.f: unknown keys ['arguments']"),
        ({"name": "f", "description": 1}, "tools.f.description: expected text"),
        ({"name": "f", "parameters": {"type": "dict"}}, "tools.f.parameters.type"),
    ],
)
def test_a_malformed_tool_is_refused_by_its_name(function: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as caught:
        check_tools([{"type": "function", "function": function}])
    assert message in caught.value.message


def test_a_tool_has_no_other_keys() -> None:
    with pytest.raises(BadInput, match="only type and function"):
        check_tools([{"type": "function", "function": {"name": "f"}, "cache": 1}])
