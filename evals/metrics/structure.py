"""Answers of a form: JSON, JSON of a schema, numbers, patterns."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from evals.dataset import Sample
from evals.metrics.base import Metric
from evals.systems.base import Output
from registry import parse, plugins
from registry.errors import BadInput

MOST_CHARACTERS = 20_000
"""Of an answer that a pattern looks at."""
_NUMBER = re.compile(r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?\s*%?")
_NESTED = re.compile(r"\([^()]*[+*][^()]*\)\s*[+*{]")


@dataclass(frozen=True, slots=True)
class RegexOptions:
    """Options of `regex`."""

    pattern: str
    """Python's syntax; it may match anywhere unless it is anchored."""
    case_sensitive: bool = True

    def __post_init__(self) -> None:
        """Refuse what does not compile, and what may take forever."""
        try:
            re.compile(self.pattern)
        except re.error as error:
            raise BadInput(f"pattern {self.pattern!r}: {error}") from error
        if _NESTED.search(self.pattern):
            raise BadInput(
                f"pattern {self.pattern!r} repeats a group that repeats, which can take forever; rewrite it "
                "without one repetition inside another"
            )


def regex(options: Mapping[str, Any]) -> Metric:
    """1 where the answer's first 20,000 characters match `pattern`, else 0."""
    chosen = parse.build(options, RegexOptions, source="options of regex")
    pattern = re.compile(chosen.pattern, 0 if chosen.case_sensitive else re.IGNORECASE)

    def score(_sample: Sample, output: Output, _k: int | None) -> float:
        return float(pattern.search(output.text[:MOST_CHARACTERS]) is not None)

    return Metric("regex", ("chat",), (), score=score)


@dataclass(frozen=True, slots=True)
class NumericOptions:
    """Options of `numeric`."""

    absolute: float = 0.0
    """How far off the number may be."""
    relative: float = 1e-6
    """How far off it may be, as a share of the accepted one."""

    def __post_init__(self) -> None:
        """Refuse tolerances below 0."""
        if min(self.absolute, self.relative) < 0:
            raise BadInput("absolute and relative must be at least 0")


def last_number(text: str) -> float | None:
    """
    The last number in *text*, with or without thousands separators; a percentage as a share.

    >>> last_number("It rose from 3 to 1,250.5 euros"), last_number("about 12 %"), last_number("none")
    (1250.5, 0.12, None)
    """
    found = _NUMBER.findall(text.replace("\u2212", "-"))
    if not found:
        return None
    last = found[-1].strip()
    share = last.endswith("%")
    value = float(last.rstrip("% ").replace(",", ""))
    return value / 100 if share else value


def numeric(options: Mapping[str, Any]) -> Metric:
    """1 where the last number of the answer is the last number of an accepted one, within tolerances."""
    chosen = parse.build(options, NumericOptions, source="options of numeric")

    def score(sample: Sample, output: Output, _k: int | None) -> float:
        found = last_number(output.text)
        wanted = [number for gold in sample.answers if (number := last_number(gold)) is not None]
        if found is None or not math.isfinite(found):
            return 0.0
        return float(
            any(
                math.isclose(found, number, rel_tol=chosen.relative, abs_tol=chosen.absolute)
                for number in wanted
            )
        )

    return Metric("numeric", ("chat",), ("answers",), score=score)


@dataclass(frozen=True, slots=True)
class SchemaOptions:
    """Options of `json_schema`."""

    schema: Mapping[str, Any] = field(default_factory=dict)
    """JSON Schema, draft 2020-12, without references to elsewhere."""


def json_schema(options: Mapping[str, Any]) -> Metric:
    """1 where the answer is JSON (bare or in one fence) that fits `schema`, else 0; extra `evals`."""
    chosen = parse.build(options, SchemaOptions, source="options of json_schema")
    try:
        import jsonschema
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "evals") from error
    try:
        jsonschema.Draft202012Validator.check_schema(dict(chosen.schema))
    except jsonschema.SchemaError as error:
        raise BadInput(f"schema is no JSON Schema: {error.message}") from error
    validator = jsonschema.Draft202012Validator(dict(chosen.schema))

    def score(_sample: Sample, output: Output, _k: int | None) -> float:
        try:
            value = read_json(output.text)
        except ValueError:
            return 0.0
        return float(validator.is_valid(value))

    return Metric("json_schema", ("chat",), (), score=score)


def read_json(text: str) -> Any:  # noqa: ANN401
    """
    The JSON value that *text* is, bare or in one Markdown fence.

    Raises:
        ValueError: it is none.

    >>> read_json('```json{"a": 1}```'.replace("json", "json" + chr(10)))
    {'a': 1}
    """
    body = text.strip()
    if body.startswith("```") and body.endswith("```") and len(body) > 6:
        head, newline, rest = body[3:-3].partition("\n")
        body = rest if newline and head.strip().lower() in ("", "json") else body[3:-3]
    try:
        return json.loads(body, parse_constant=_no_constant)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _no_constant(name: str) -> Any:  # noqa: ANN401
    raise ValueError(f"{name} is no JSON")


def _json_valid(_sample: Sample, output: Output, _k: int | None) -> float:
    try:
        read_json(output.text)
    except ValueError:
        return 0.0
    return 1.0


json_valid = Metric("json_valid", ("chat",), (), score=_json_valid)
"""1 where the answer is JSON, bare or in one fence, else 0."""
