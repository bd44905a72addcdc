"""Whether a model calls the right functions with the right arguments."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics.base import Metric
from evals.systems.base import Output, ToolCall
from registry import parse, plugins


@dataclass(frozen=True, slots=True)
class ExactOptions:
    """Options of `tool_call_exact`."""

    ordered: bool = False
    """Whether the calls must come in the order of the row."""


def wanted_calls(sample: Sample) -> list[tuple[str, dict[str, Any]]]:
    """
    (name, arguments) of the calls that the row's `tool_calls` expects; an empty list expects none.

    Raises:
        ScoreFailed: the row's `tool_calls` is malformed.
    """
    calls = sample.get("tool_calls")
    if not isinstance(calls, list):
        raise ScoreFailed("bad_tool_calls")
    found = []
    for call in calls:
        name = call.get("name") if isinstance(call, dict) else None
        arguments = call.get("arguments", {}) if isinstance(call, dict) else None
        if not isinstance(name, str) or not isinstance(arguments, dict):
            raise ScoreFailed("bad_tool_calls")
        found.append((name, arguments))
    return found


def made_calls(calls: Sequence[ToolCall]) -> list[tuple[str, Any]]:
    """(name, arguments) of the calls that a model made; None where its arguments are no JSON."""
    return [(call.name, _parsed(call.arguments)) for call in calls]


def tool_call_exact(options: Mapping[str, Any]) -> Metric:
    """1 where exactly the expected functions are called with exactly the expected arguments, else 0."""
    chosen = parse.build(options, ExactOptions, source="options of tool_call_exact")

    def score(sample: Sample, output: Output, _k: int | None) -> float:
        wanted = [_key(call) for call in wanted_calls(sample)]
        made = [_key(call) for call in made_calls(output.tool_calls)]
        return float(made == wanted if chosen.ordered else Counter(made) == Counter(wanted))

    return Metric("tool_call_exact", ("chat",), (), score=score)


def _names(sample: Sample, output: Output, _k: int | None) -> float:
    wanted = Counter(name for name, _ in wanted_calls(sample))
    made = Counter(call.name for call in output.tool_calls)
    total = wanted.total() + made.total()
    return 2 * (wanted & made).total() / total if total else 1.0


def _arguments(sample: Sample, output: Output, _k: int | None) -> float:
    made = made_calls(output.tool_calls)
    right = total = 0
    for name, arguments in wanted_calls(sample):
        total += max(len(arguments), 1)
        best, at = -1, -1
        for place, (other, given) in enumerate(made):
            if other == name and isinstance(given, dict):
                equal = sum(key in given and given[key] == value for key, value in arguments.items())
                if (score := equal if arguments else 1) > best:
                    best, at = score, place
        if at >= 0:
            right += best
            del made[at]
    if not total:
        return float(not output.tool_calls)
    return right / total


def _valid(sample: Sample, output: Output, _k: int | None) -> float:
    try:
        import jsonschema
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "evals") from error
    tools = sample.get("tools")
    if not isinstance(tools, list):
        raise ScoreFailed("no_tools")
    schemas = {}
    for tool in tools:
        function = tool.get("function", tool) if isinstance(tool, dict) else {}
        schemas[function.get("name")] = function.get("parameters") or {"type": "object"}
    for name, arguments in made_calls(output.tool_calls):
        if name not in schemas or arguments is None:
            return 0.0
        try:
            if not jsonschema.Draft202012Validator(schemas[name]).is_valid(arguments):
                return 0.0
        except jsonschema.SchemaError as error:
            raise ScoreFailed("bad_tools") from error
    return 1.0


def _parsed(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text or "{}")
    except (ValueError, RecursionError):
        return None


def _key(call: tuple[str, Any]) -> str:
    name, arguments = call
    return f"{name} {json.dumps(arguments, sort_keys=True)}"


tool_name_f1 = Metric("tool_name_f1", ("chat",), (), score=_names)
"""Harmonic mean of precision and recall of the functions called; 1 where none was due nor made."""
tool_arguments = Metric("tool_arguments", ("chat",), (), score=_arguments)
"""Share of expected arguments that are given with equal values; each call is matched once."""
tool_call_valid = Metric("tool_call_valid", ("chat",), ("tools",), score=_valid)
"""1 where every call names a function of the row's `tools` and fits its schema, else 0; extra `evals`."""
