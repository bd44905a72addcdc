"""The figures as Markdown tables: medians with their range over the rounds, and ratios to nginx."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from statistics import median
from typing import Any

from tests.bench.gateway.scenarios import Scenario
from tests.bench.gateway.speed import STARTUP, Outcome, Row
from tests.bench.gateway.stand import DIRECT

FLOOR = "nginx"
_STARTUP = (
    ("ready_s", "ready s (wall)", 2),
    ("ready_cpu_s", "ready CPU s", 2),
    ("idle_mb", "idle RSS MB", 0),
    ("rss_mb", "RSS MB after load", 0),
)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, text: int = 1) -> str:
    """
    A Markdown table whose first *text* columns are text and the others numbers.

    >>> print(table(["a", "b"], [["x", "1"]]))
    | a | b |
    |---|---:|
    | x | 1 |
    """
    rule = "|" + "---|" * text + "---:|" * (len(headings) - text)
    lines = [" | ".join(headings), *(" | ".join(row) for row in rows)]
    return "\n".join([f"| {lines[0]} |", rule, *(f"| {line} |" for line in lines[1:])])


def number(values: Sequence[float], decimals: int) -> str:
    """
    The median, and its range when rounds differ.

    >>> number([1.0, 3.0, 2.0], 1)
    '2.0 (1.0..3.0)'
    """
    if not values:
        return "–"
    text = f"{median(values):,.{decimals}f}"
    low, high = (f"{value:,.{decimals}f}" for value in (min(values), max(values)))
    return text if low == high else f"{text} ({low}..{high})"


def values(rows: Iterable[Row], contender: str, scenario: str, figure: str) -> list[float]:
    """One figure over the rounds, those that were measured."""
    return [
        value
        for row in rows
        if row.contender == contender and row.scenario == scenario
        and (value := row.figures.get(figure)) is not None
    ]  # fmt: skip


def markdown(outcome: Outcome, scenarios: Sequence[Scenario], machine: Mapping[str, str]) -> str:
    """The whole report."""
    names = list(dict.fromkeys(row.contender for row in outcome.rows))
    method = (
        "What is measured runs on core 0, the mock upstream and the load on core 1. CPU is user and "
        "system time of all the processes of a contender, divided by requests or chunks completed. Each "
        "cell is the median over the rounds (lowest..highest). The mock's own row is what it costs to "
        "call it directly."
    )
    parts = ["\n".join(f"- {key}: `{value}`" for key, value in machine.items()), method, _contenders(outcome)]
    parts += [f"### {each.title}\n\n{_section(outcome.rows, names, each)}" for each in scenarios]
    rows = [
        [name, *(number(values(outcome.rows, name, STARTUP, key), digits) for key, _, digits in _STARTUP)]
        for name in names
        if name != DIRECT
    ]
    headings = ["", *(heading for _, heading, _ in _STARTUP)]
    parts.append("### From start to the first answer, second start\n\n" + table(headings, rows))
    return "\n\n".join(parts) + "\n"


def _contenders(outcome: Outcome) -> str:
    rows = [[name, outcome.versions.get(name, ""), outcome.notes[name]] for name in outcome.notes]
    rows = [[name, version, outcome.missing.get(name, note)] for name, version, note in rows]
    for row in rows:
        if row[0] in outcome.missing:
            row[2] = "**not measured**: " + " ".join(row[2].split())[-300:]
    return table(["", "version", "set-up"], rows, text=3)


def _section(rows: Sequence[Row], names: Sequence[str], scenario: Scenario) -> str:
    lines = []
    for name in names:
        cells = [
            number(values(rows, name, scenario.name, key), digits) for key, _, digits in scenario.columns
        ]
        lines.append(
            [name, *cells, _ratio(rows, name, scenario.name)] if _has_cpu(scenario) else [name, *cells]
        )
    headings = ["", *(heading for _, heading, _ in scenario.columns)]
    return table([*headings, f"CPU / {FLOOR}"] if _has_cpu(scenario) else headings, lines)


def _has_cpu(scenario: Scenario) -> bool:
    return any(key == "cpu_us" for key, _, _ in scenario.columns)


def _ratio(rows: Sequence[Row], name: str, scenario: str) -> str:
    """CPU over that of nginx in the same round: median and range."""
    floor = {
        row.round: row.figures.get("cpu_us")
        for row in rows
        if row.contender == FLOOR and row.scenario == scenario
    }
    ratios = [
        mine / base
        for row in rows
        if row.contender == name and row.scenario == scenario
        and (mine := row.figures.get("cpu_us")) is not None and (base := floor.get(row.round))
    ]  # fmt: skip
    return number(ratios, 2)


def plain_json(outcome: Outcome, machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything, every round, for programs."""
    return {
        "machine": dict(machine),
        "versions": outcome.versions,
        "missing": outcome.missing,
        "rows": [asdict(row) for row in outcome.rows],
    }
