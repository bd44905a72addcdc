"""Answers of a form: JSON, JSON of a schema, numbers, patterns."""

from __future__ import annotations

import json
import math
import re
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NoReturn

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics.base import Metric
from evals.systems.base import Output
from registry import parse, plugins
from registry.errors import BadInput

MOST_CHARACTERS = 20_000
"""Of an answer that a pattern looks at."""
MOST_SECONDS = 1.0
"""That a pattern may take for one answer."""
_NUMBER = re.compile(
    r"(?:(?<![\w)\]])[-+])?"  # the hyphen of 3-4 and of COVID-19 is no sign
    r"(?:(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?|(?<!\d)\.\d+)(?:[eE][-+]?\d+)?\s*%?"
)
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\{\d*(,?)(\d*)\}|.", re.DOTALL)


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
        except (re.error, OverflowError, RecursionError) as error:
            raise BadInput(f"pattern {self.pattern!r}: {error}") from error
        if repeats_a_repetition(self.pattern):
            raise BadInput(
                f"pattern {self.pattern!r} repeats a group that repeats, which can take forever; rewrite it "
                "without one repetition inside another"
            )


def repeats_a_repetition(pattern: str) -> bool:
    r"""
    Whether a group that holds an unbounded repetition is itself repeated without a bound.

    Such patterns can take time exponential in the text. Some are harmless; those are refused as well.

    >>> [repeats_a_repetition(p) for p in (r"((a+)b?)+", "(?:a{1,}){2,}", r"(\d+,)*")]
    [True, True, True]
    >>> [repeats_a_repetition(p) for p in (r"(a[+*]\+)+", "(yes|no)+", r"(?:\d+\.){3}\d+")]
    [False, False, False]
    """
    grows = [False]  # whether what is open repeats something without a bound, outermost first
    closed = False  # the same of the group that ended just now
    for token in _TOKEN.finditer(pattern):
        text, comma, most = token.group(0, 1, 2)
        if text == ")" and len(grows) > 1:
            closed = grows.pop()
            grows[-1] |= closed
            continue
        if text == "(":
            grows.append(False)
        elif text in ("*", "+") or (comma and not most):
            if closed:
                return True
            grows[-1] = True
        closed = False
    return False


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """
    Stop what the main thread does after *seconds*: `re` lets signals in, while it holds all threads up.

    Elsewhere, and where someone else uses the timer, nothing is stopped.

    Raises:
        ScoreFailed: `pattern_timeout`.
    """
    free = signal.getsignal(signal.SIGALRM) == signal.SIG_DFL
    if not free or threading.current_thread() is not threading.main_thread():
        yield
        return
    signal.signal(signal.SIGALRM, _stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _stop(_number: int, _frame: object) -> NoReturn:
    raise ScoreFailed("pattern_timeout")


def regex(options: Mapping[str, Any]) -> Metric:
    """1 where the answer's first 20,000 characters match `pattern`, else 0; no score after a second."""
    chosen = parse.build(options, RegexOptions, source="options of regex")
    pattern = re.compile(chosen.pattern, 0 if chosen.case_sensitive else re.IGNORECASE)

    def score(_sample: Sample, output: Output, _k: int | None) -> float:
        with _at_most(MOST_SECONDS):
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
    >>> last_number("-.5"), last_number("pages 3-4"), last_number("10-12 = -2")
    (-0.5, 4.0, -2.0)
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

    schema: Mapping[str, Any]
    """JSON Schema, draft 2020-12, without references to elsewhere."""


def json_schema(options: Mapping[str, Any]) -> Metric:
    """1 where the answer is JSON (bare or in one fence) that fits `schema`, else 0; extra `evals`."""
    chosen = parse.build(options, SchemaOptions, source="options of json_schema")
    validator = _validator(dict(chosen.schema))

    def score(_sample: Sample, output: Output, _k: int | None) -> float:
        try:
            value = read_json(output.text)
        except ValueError:
            return 0.0
        try:
            return float(validator.is_valid(value))
        except RecursionError as error:
            raise ScoreFailed("too_deep") from error

    return Metric("json_schema", ("chat",), (), score=score)


def _validator(schema: dict[str, Any]) -> Any:  # noqa: ANN401
    """Nothing is fetched. Raises BadInput where *schema* is none, or refers to elsewhere or to itself."""
    try:
        import jsonschema
        import referencing
        from referencing.exceptions import Unresolvable
        from referencing.jsonschema import DRAFT202012
    except ModuleNotFoundError as error:
        raise plugins.missing(error, "evals") from error
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
        root = DRAFT202012.create_resource(schema)
        registry = referencing.Registry()
        _check_references(schema, registry.resolver_with_root(root), DRAFT202012.create_resource)
        validator = jsonschema.Draft202012Validator(schema, registry=registry)
        probes: tuple[Any, ...] = (None, True, 0, "", [], {})
        for value in probes:
            validator.is_valid(value)
    except jsonschema.SchemaError as error:
        raise BadInput(f"schema is no JSON Schema: {error.message}") from error
    except Unresolvable as error:
        raise BadInput(
            f"schema refers to {error.ref!r}, which it does not hold; put it under $defs"
        ) from error
    except RecursionError as error:
        raise BadInput("schema refers to itself without end, or is nested too deeply") from error
    return validator


def _check_references(node: Any, resolver: Any, resource: Any) -> None:  # noqa: ANN401
    """Look up every reference below *node*. Raises Unresolvable."""
    if isinstance(node, dict):
        if isinstance(node.get("$id"), str):
            resolver = resolver.in_subresource(resource(node))
        for key in ("$ref", "$dynamicRef"):
            if isinstance(node.get(key), str):
                resolver.lookup(node[key])
    for child in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        _check_references(child, resolver, resource)


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
