"""Scripted answers of a judge to the prompts of RAGAS and DeepEval."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any


def schema_of(body: Any) -> dict[str, Any]:
    """The JSON Schema a request asks for: in response_format, or in the prompt as Instructor writes it."""
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        return dict(form["json_schema"]["schema"])
    decoder = json.JSONDecoder()
    for message in body["messages"]:
        text = message["content"]
        for at in (i for i, char in enumerate(text) if char == "{"):
            try:
                found, _ = decoder.raw_decode(text, at)
            except ValueError:
                continue
            if isinstance(found, dict) and "properties" in found:
                return found
    raise AssertionError("no schema")


def script(**replies: Any) -> Callable[[Any], str]:
    """
    A judge that knows its replies by the first key of what is asked for, such as `statements` or `verdicts`.

    A list of lists or mappings is used up one a call, its last for ever. Texts stay texts; other replies are
    put under their key. `key__sub` is for a key whose items have the field `sub`.
    """
    scripts = {key: list(given) if isinstance(given, tuple) else [given] for key, given in replies.items()}

    def say(body: Any) -> str:
        schema = schema_of(body)
        key = next(iter(schema["properties"]))
        inner = _resolved(schema["properties"][key].get("items", {}), schema)
        names = [f"{key}__{sub}" for sub in inner.get("properties", {})] + [key]
        name = next(name for name in names if name in scripts)
        given = scripts[name].pop(0) if len(scripts[name]) > 1 else scripts[name][0]
        if isinstance(given, str):
            return given
        return json.dumps(given if isinstance(given, dict) else {key: given})

    return say


def nli(*verdicts: int) -> list[dict[str, Any]]:
    """RAGAS' statements with verdicts."""
    return [{"statement": f"s{i}", "reason": "r", "verdict": v} for i, v in enumerate(verdicts)]


def said(*verdicts: str, **more: str) -> list[dict[str, Any]]:
    """DeepEval's verdicts."""
    return [{"verdict": verdict, "reason": "r", **more} for verdict in verdicts]


def _resolved(part: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any]:
    if "$ref" in part:
        found: Mapping[str, Any] = schema["$defs"][part["$ref"].rpartition("/")[2]]
        return found
    return part
