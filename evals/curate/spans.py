"""Spans of OpenTelemetry in OTLP/JSON: those of model calls, by the GenAI semantic conventions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_INDEXED = re.compile(r"gen_ai\.(prompt|completion)\.(\d+)\.(role|content)")
_INPUTS = ("gen_ai.input.messages", "gen_ai.prompt", "llm.prompts", "input.value")
_OUTPUTS = ("gen_ai.output.messages", "gen_ai.completion", "output.value")
_MODELS = ("gen_ai.request.model", "gen_ai.response.model", "llm.model_name")
_TOKENS = {
    "prompt_tokens": ("gen_ai.usage.input_tokens", "gen_ai.usage.prompt_tokens"),
    "completion_tokens": ("gen_ai.usage.output_tokens", "gen_ai.usage.completion_tokens"),
}


def calls_of(content: Mapping[str, Any]) -> tuple[list[dict[str, Any]], int]:
    """
    The model calls in one OTLP/JSON export request, and how many of its spans are none.

    A call has `trace_id`, `span_id`, `timestamp` (nanoseconds), `attributes`, and as far as recorded
    `messages`, `output`, `model`, `prompt_tokens` and `completion_tokens`. Attributes of the resource, of
    the span and of its events count, the later over the earlier.

    Sources: OpenTelemetry protocol 1.x, JSON encoding; semantic conventions for generative AI, the current
    `gen_ai.input.messages` and the older `gen_ai.prompt` and `gen_ai.prompt.0.content`.
    """
    calls: list[dict[str, Any]] = []
    others = 0
    for resource in _list(content, "resourceSpans", "resource_spans"):
        shared = _attributes(resource.get("resource") or {})
        for scope in _list(resource, "scopeSpans", "scope_spans", "instrumentationLibrarySpans"):
            for span in _list(scope, "spans"):
                found = _call(span, shared)
                if found is None:
                    others += 1
                else:
                    calls.append(found)
    return calls, others


def _call(span: Mapping[str, Any], shared: Mapping[str, Any]) -> dict[str, Any] | None:
    attributes = {**shared, **_attributes(span)}
    for event in _list(span, "events"):
        attributes |= _attributes(event)
    messages = _said(attributes, _INPUTS) or _indexed(attributes, "prompt")
    output = _said(attributes, _OUTPUTS) or _indexed(attributes, "completion")
    if not messages and not any(name.startswith("gen_ai.") for name in attributes):
        return None
    left = {
        name: value
        for name, value in attributes.items()
        if name not in (*_INPUTS, *_OUTPUTS) and not _INDEXED.fullmatch(name)
    }
    call: dict[str, Any] = {
        "trace_id": span.get("traceId") or span.get("trace_id"),
        "span_id": span.get("spanId") or span.get("span_id"),
        "timestamp": span.get("startTimeUnixNano") or span.get("start_time_unix_nano"),
        "attributes": left,
        "messages": messages,
        "output": output,
        "model": next((attributes[name] for name in _MODELS if attributes.get(name)), None),
    }
    for name, sources in _TOKENS.items():
        count = next((attributes[source] for source in sources if source in attributes), None)
        if isinstance(count, int):
            call[name] = count
    return call


def _said(attributes: Mapping[str, Any], names: tuple[str, ...]) -> Any:  # noqa: ANN401 - any recorded value
    """The first of *names* that says something; JSON in text is read."""
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
            try:
                return json.loads(value)
            except (ValueError, RecursionError):
                return value
        if value:
            return value
    return None


def _indexed(attributes: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    messages: dict[int, dict[str, Any]] = {}
    for name, value in attributes.items():
        match = _INDEXED.fullmatch(name)
        if match and match[1] == kind:
            messages.setdefault(int(match[2]), {})[match[3]] = value
    return [messages[place] for place in sorted(messages)]


def _attributes(holder: Mapping[str, Any]) -> dict[str, Any]:
    return {
        str(one["key"]): _value(one["value"])
        for one in _list(holder, "attributes")
        if "key" in one and isinstance(one.get("value"), dict)
    }


def _value(value: Mapping[str, Any]) -> Any:  # noqa: ANN401 - any recorded value
    """OTLP's AnyValue as plain JSON; 64-bit integers come as text."""
    if "intValue" in value:
        try:
            return int(value["intValue"])
        except (TypeError, ValueError):
            return value["intValue"]
    if isinstance(value.get("arrayValue"), dict):
        return [_value(item) for item in _list(value["arrayValue"], "values")]
    if isinstance(value.get("kvlistValue"), dict):
        pairs = _list(value["kvlistValue"], "values")
        return {str(pair.get("key")): _value(pair.get("value") or {}) for pair in pairs}
    return next((value[kind] for kind in ("stringValue", "boolValue", "doubleValue") if kind in value), None)


def _list(holder: Mapping[str, Any], *names: str) -> list[Mapping[str, Any]]:
    """The objects in the first of *names* that is a list."""
    found: list[Any] = next((holder[name] for name in names if isinstance(holder.get(name), list)), [])
    return [item for item in found if isinstance(item, dict)]
