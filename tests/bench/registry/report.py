"""The figures as a table for people, and as plain JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from registry.terminal import table
from tests.bench.registry.chain import Checked
from tests.bench.registry.timings import Row
from tests.bench.registry.writers import Written

LIMIT_MS = 50.0
"""What each of the timings should stay under at the 99th percentile."""


@dataclass
class Outcome:
    """What was measured on one database."""

    database: str
    rows: Mapping[str, int] = field(default_factory=dict)
    """Table → how many rows it held."""
    timings: list[Row] = field(default_factory=list)
    chain: Checked | None = None
    writers: Written | None = None


def plain(outcomes: list[Outcome], machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything as one JSON object."""
    return {"machine": dict(machine), "databases": [asdict(outcome) for outcome in outcomes]}


def text(outcomes: list[Outcome], machine: Mapping[str, str]) -> str:
    """Everything as Markdown."""
    parts = ["\n".join(f"- {name}: `{value}`" for name, value in machine.items())]
    parts += [_section(outcome) for outcome in outcomes]
    return "\n\n".join(parts)


def slow(outcomes: list[Outcome]) -> list[str]:
    """What takes longer than it should."""
    return [
        f"{outcome.database}: {row.name} takes {row.p99_ms:.1f} ms at p99; {LIMIT_MS:.0f} are allowed"
        for outcome in outcomes
        for row in outcome.timings
        if row.bounded and row.p99_ms > LIMIT_MS
    ]


def _section(outcome: Outcome) -> str:
    parts = [f"## {outcome.database}"]
    if outcome.rows:
        parts.append(", ".join(f"{count:,} {name}" for name, count in outcome.rows.items()))
    if outcome.timings:
        cells = [
            (row.name, f"{row.p50_ms:.2f}", f"{row.p99_ms:.2f}", f"{row.max_ms:.2f}")
            for row in outcome.timings
        ]
        parts.append(table(["", "p50 ms", "p99 ms", "max ms"], cells))
    if outcome.chain is not None:
        chain = outcome.chain
        parts.append(
            f"audit verify: {'ok' if chain.ok else 'NOT OK'}, {chain.records:,} records and "
            f"{chain.rows:,} rows in {chain.seconds:.1f} s, {chain.records_per_s:,.0f} records/s, peak RSS "
            f"{chain.rss_peak_mb:.0f} MB ({chain.rss_before_mb:.0f} MB before)"
        )
    if outcome.writers is not None:
        made = outcome.writers
        parts.append(
            f"{made.writers} writers: {made.commits:,} commits in {made.seconds:.1f} s, "
            f"{made.commits_per_s:,.0f}/s, p50 {made.p50_ms:.0f} ms, p99 {made.p99_ms:.0f} ms, "
            f"{made.failed} refused, lost: {'; '.join(made.lost) or 'nothing'}"
        )
    return "\n\n".join(parts)
