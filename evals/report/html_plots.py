"""Intervals as small drawings: inline SVG that needs no script and no network."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from evals.report.html_page import text

WIDTH, HEIGHT = 240, 26
_PAD = 8
_NUMBER = re.compile(r"(?:at least|at most|more than|less than) (\S+)$")


@dataclass(frozen=True, slots=True)
class Span:
    """What one drawing shows."""

    value: float
    low: float
    high: float
    mark: float | None
    """What the interval has to lie beyond."""
    start: float
    end: float


def threshold_of(wanted: str) -> float:
    """
    The number that a check's threshold states: 0 for comparisons without a margin.

    >>> threshold_of("at least 0.75"), threshold_of("worse than baseline by less than 0.02")
    (0.75, -0.02)
    >>> threshold_of("better than majority")
    0.0
    """
    found = _NUMBER.search(wanted)
    if not found:
        return 0.0
    try:
        number = float(found[1].replace(",", ""))
    except ValueError:
        return 0.0
    return -number if wanted.startswith("worse than") else number


def span_of(check: Mapping[str, Any]) -> Span | None:
    """The interval that decided a check: of the gain where there is one; None where nothing was measured."""
    prefix = "gain_" if "gain" in check else ""
    value, low, high = (
        check.get("gain" if prefix else "value"),
        check.get(f"{prefix}low"),
        check.get(f"{prefix}high"),
    )
    if value is None:
        return None
    mark = threshold_of(str(check.get("threshold", "")))
    return _span(value, low, high, mark, whole=not prefix)


def slice_span(part: Mapping[str, Any]) -> Span | None:
    """The interval of one slice: of its gain where there is one."""
    if part.get("gain") is not None:
        return _span(part["gain"], part.get("gain_low"), part.get("gain_high"), 0.0, whole=False)
    if part.get("value") is None:
        return None
    return _span(part["value"], part.get("low"), part.get("high"), None, whole=True)


def draw(span: Span | None, kind: str, label: str) -> str:
    """
    The drawing: a line for the interval, a dot for the value, a dashed line at the threshold.

    Args:
        kind: a class of the page's style, such as the verdict.
        label: what a screen reader says.
    """
    if span is None:
        return ""
    middle = HEIGHT // 2
    left, dot, right = (_at(number, span) for number in (span.low, span.value, span.high))
    parts = [f'<line class="axis" x1="{_PAD}" x2="{WIDTH - _PAD}" y1="{middle}" y2="{middle}"/>']
    if span.mark is not None:
        at = _at(span.mark, span)
        parts.append(f'<line class="mark" x1="{at}" x2="{at}" y1="2" y2="{HEIGHT - 2}"/>')
    parts.append(f'<line class="bar" x1="{left}" x2="{right}" y1="{middle}" y2="{middle}"/>')
    parts.append(f'<circle class="dot" cx="{dot}" cy="{middle}" r="4"/>')
    inner = "".join(parts)
    return (
        f'<svg class="plot {text(kind)}" role="img" aria-label="{text(label)}" width="{WIDTH}" '
        f'height="{HEIGHT}" viewBox="0 0 {WIDTH} {HEIGHT}">{inner}</svg>'
    )


def _span(value: float, low: float | None, high: float | None, mark: float | None, *, whole: bool) -> Span:
    """An open end is drawn to the edge; *whole*: shares are drawn on the full range from 0 to 1."""
    known = [number for number in (value, low, high, mark) if number is not None]
    start, end = min(known), max(known)
    if whole and start >= 0 and end <= 1:
        start, end = 0.0, 1.0
    else:
        room = (end - start) * 0.08 or abs(value) * 0.1 or 1.0
        start, end = start - room, end + room
    return Span(value, start if low is None else low, end if high is None else high, mark, start, end)


def _at(number: float, span: Span) -> float:
    share = (number - span.start) / (span.end - span.start)
    share = min(max(share, 0.0), 1.0) if math.isfinite(share) else 0.0
    return round(_PAD + share * (WIDTH - 2 * _PAD), 1)
