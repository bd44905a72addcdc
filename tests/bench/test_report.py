"""Tables and verdicts from figures that are known beforehand."""

from __future__ import annotations

from tests.bench.gateway import report, soak
from tests.bench.gateway.collapse import Step, verdict
from tests.bench.gateway.scenarios import default_scenarios
from tests.bench.gateway.speed import Outcome, Row
from tests.bench.gateway.workers import Measured


def row(contender: str, turn: int, cpu_us: float | None) -> Row:
    return Row(contender, "plain-8", turn, {"cpu_us": cpu_us, "rps": 1000.0})


def test_ratios_compare_rounds_and_the_missing_are_named() -> None:
    rows = [row("nginx", 0, 10), row("nginx", 1, 20), row("sluicegate", 0, 30), row("sluicegate", 1, 40)]
    outcome = Outcome(rows, {"nginx": "1"}, {"nginx": "floor", "portkey": "note"}, {"portkey": "no npm here"})
    text = report.markdown(outcome, default_scenarios(10)[:1], {"cores": "2"})
    assert "| sluicegate | 35 (30..40) | 1,000 | – | – | – | – | 2.50 (2.00..3.00) |" in text
    assert "| portkey |  | **not measured**: no npm here |" in text


def step(connections: int, goodput: float, p99_ms: float) -> Step:
    times = {"p50_ms": 1.0, "p99_ms": p99_ms}
    return Step("sluicegate", connections, goodput, 0, times, times, {"200": 1}, {"timeout": 1}, 1.0, 50.0)


def test_collapse_is_the_worst_step_against_the_best() -> None:
    assert verdict([step(16, 800, 2), step(32, 1000, 3), step(64, 900, 5)]) == {
        "goodput_min_over_peak": 0.8, "after_peak": 0.9, "p99_over_first": 2.5, "errors": 3.0,
    }  # fmt: skip


def test_capacity_is_bound_by_the_busiest_worker() -> None:
    even = Measured(2, 100.0, 0, 1.0, 50, 0)
    uneven = Measured(2, 100.0, 0, 0.75, 50, 0)
    assert (even.capacity, uneven.capacity) == (20_000, 15_000)


def result(**change: object) -> soak.Result:
    values: dict[str, object] = {
        "sent": 10, "records": 10, "outcomes": {"plain": {"whole": 10}}, "samples": [],
        "open_files_before": 20, "open_files_after": 40, "mb_per_10k": 0.1, "seconds": 1.0,
        "statuses": {"200": 10},
    }  # fmt: skip
    return soak.Result(**(values | change))  # type: ignore[arg-type]  # a test varies one field at a time


def test_a_clean_soak_has_no_faults() -> None:
    assert soak.faults(result()) == []


def test_a_soak_names_each_fault() -> None:
    outcomes = {"plain": {"whole": 9, "timeout": 1}, "stream, upstream cut": {"SILENT CUT": 2}}
    bad = result(records=9, mb_per_10k=1.5, open_files_after=200, outcomes=outcomes)
    assert soak.faults(bad) == [
        "10 requests were sent but 9 records were written",
        "memory grew by 1.50 MB per 10,000 requests",
        "200 descriptors are open, 20 were before (64 pooled ones are allowed)",
        "2 cut streams ended as if they were whole",
        "1 × plain: timeout, where no fault was asked for",
    ]


def test_counters_of_other_routes_are_not_counted() -> None:
    line = 'sluicegate_requests_total{{release="",route="/v1/{}",status="{}"}} {}.0\n'
    text = line.format("chat/completions", 200, 5) + line.format("chat/completions", 499, 2)
    text += line.format("models", 200, 7)
    assert soak.counted(text) == {"200": 5, "499": 2}
