"""`python -m tests.bench.evals`: cost beside other frameworks, replay, memory and more processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from registry import terminal
from registry.errors import BadInput
from registry.terminal import table
from tests.bench.evals import work
from tests.bench.evals.work import ROOT, Folder, Spent, make, mock, spend
from tests.bench.gateway import machine

PARTS = ("speed", "replay", "memory", "ray")
PEERS = ("deepeval", "ragas", "promptfoo")
LATENCY_MS = 50.0
CONCURRENCY = 50
CALLS_A_ROW = 2
MOST_OF_IDEAL = 1.3
LEAST_CPU_RATIO = 10.0
MOST_REPLAY_S = 10.0
MOST_GROWTH = 1.15
"""Resident memory with ten times the rows, in relation."""
LEAST_RAY_RATIO = 1.6
_JUDGED = (
    {"system": "chat", "metric": "exact", "at_least": 0.5},
    {"system": "chat", "metric": "judge", "at_least": 0.5, "tier": "advisory"},
)
_HEAVY = ({"system": "chat", "metric": "bench_heavy", "at_least": 0.5},)
_PLUG_IN = """
import hashlib
from evals.metrics.base import Metric
def score(sample, output, k):
    data = (sample.id + output.text).encode()
    for _ in range(12_000):
        data = hashlib.sha256(data).digest()
    return float(bool(data))
metric = Metric("bench_heavy", ("chat",), (), score=score, cpu_heavy=True)
"""
application = typer.Typer(help="Measure what running evaluations costs.", pretty_exceptions_enable=False)
Figures = dict[str, Any]


@application.command(epilog="Example: python -m tests.bench.evals --only speed --rows 500")
def main(
    *,
    rows: Annotated[int, typer.Option(min=50, help="Rows of the comparison.")] = 2000,
    only: Annotated[str, typer.Option(help=f"One of {', '.join(PARTS)}; all by default.")] = "",
    peers: Annotated[str, typer.Option(help="Comma-separated; `none` for none.")] = ",".join(PEERS),
    promptfoo: Annotated[
        str, typer.Option(help="Its program, such as node_modules/.bin/promptfoo; by default that on PATH.")
    ] = "",
    as_json: terminal.Json = False,
) -> None:
    """Print every figure with its bound; exit code 1 when one is missed."""
    if only and only not in PARTS:
        message = f"--only {only!r}: must be one of {', '.join(PARTS)}"
        raise BadInput(message)
    named = [] if peers == "none" else [name for name in peers.split(",") if name]
    facts = machine.facts() | {"command": f"python -m tests.bench.evals --rows {rows}"}
    figures: Figures = {}
    with tempfile.TemporaryDirectory(prefix="sluicegate-bench-") as name:
        folder = Path(name)
        if only in ("", "speed"):
            figures["speed"] = speed(folder, rows, named, promptfoo)
        if only in ("", "replay"):
            figures["replay"] = replay(folder)
        if only in ("", "memory"):
            figures["memory"] = memory(folder)
        if only in ("", "ray"):
            figures["ray"] = ray(folder)
    missed = _missed(figures)
    answer = {"ok": not missed, "machine": dict(facts), **figures, "missed": missed}
    terminal.show(answer, lambda: _text(answer, facts), as_json=as_json)
    raise typer.Exit(1 if missed else 0)


def speed(folder: Path, rows: int, peers: list[str], promptfoo: str = "") -> Figures:
    """Exact match and one judge call a row, beside the same work by *peers*, each against its own mock."""
    ideal = rows * CALLS_A_ROW * LATENCY_MS / 1000 / CONCURRENCY
    own = make(folder / "speed", rows, _JUDGED)
    found: list[Spent] = []
    with mock(LATENCY_MS) as url:
        command = own.command(url, "--no-cache", "--json", concurrency=CONCURRENCY)
        found.append(spend("sluicegate", rows, command, own.path, own.environment()))
    for peer in peers:
        with mock(LATENCY_MS) as url:
            module = f"tests.bench.evals.peers.{peer}_run"
            command = [sys.executable, "-m", module, url, str(rows), str(CONCURRENCY)]
            if peer == "promptfoo" and promptfoo:
                command += ["--program", promptfoo]
            found.append(spend(peer, rows, command, ROOT, dict(os.environ)))
    ours = found[0]
    ratios = {one.name: one.cpu_seconds / one.rows / (ours.cpu_seconds / rows) for one in found[1:]}
    return {
        "ideal_s": ideal,
        "of_ideal": ours.seconds / ideal,
        "runs": [asdict(one) | {"cpu_ms_a_row": one.cpu_ms_a_row} for one in found],
        "cpu_ratio": ratios,
    }


def replay(folder: Path) -> Figures:
    """10,000 rows whose every output and judgement is in the cache."""
    rows = 10_000
    own = make(folder / "replay", rows, _JUDGED)
    with mock(0) as url:
        first = spend("fill", rows, own.command(url, concurrency=100), own.path, own.environment())
        again = spend("replay", rows, own.command(url, "--json"), own.path, own.environment())
    return {"rows": rows, "fill": asdict(first), "replay": asdict(again)}


def memory(folder: Path) -> Figures:
    """Resident memory of 2,000 and of 20,000 rows."""
    found = {}
    for rows in (2_000, 20_000):
        own = make(folder / f"memory-{rows}", rows, _JUDGED)
        with mock(0) as url:
            one = spend(f"{rows} rows", rows, own.command(url, concurrency=50), own.path, own.environment())
        found[str(rows)] = asdict(one)
    growth = found["20000"]["rss_mb"] / found["2000"]["rss_mb"]
    return {"runs": found, "growth": growth}


def ray(folder: Path) -> Figures:
    """The scoring of a metric that only burns CPU, on one and on two workers of a local Ray cluster."""
    rows = 1_500
    own = make(folder / "ray", rows, _HEAVY)
    _plug_in(own)
    environment = own.environment() | {
        "PYTHONPATH": f"{own.path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    }
    seconds: dict[str, float] = {}
    with mock(0) as url:
        spend("outputs", rows, own.command(url), own.path, environment)
        for workers in (1, 2):
            more = ("--executor", "ray", "--workers", str(workers), "--json")
            done = subprocess.run(
                own.command(url, *more),
                cwd=own.path,
                env=environment,
                capture_output=True,
                text=True,
                timeout=600,
                check=False,
            )
            seconds[str(workers)] = float(_timings(done.stdout)["scoring_s"])
    return {"rows": rows, "scoring_s": seconds, "ratio": seconds["1"] / seconds["2"]}


def _timings(words: str) -> Mapping[str, float]:
    import json

    found: Mapping[str, float] = json.loads(words)["timings"]
    return found


def _plug_in(own: Folder) -> None:
    """A distribution that brings one metric, found like any other that is installed."""
    (own.path / "bench_metric.py").write_text(_PLUG_IN)
    about = own.path / "bench_metric-1.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: bench-metric\nVersion: 1\n")
    (about / "entry_points.txt").write_text("[sluicegate.metrics]\nbench_heavy = bench_metric:metric\n")


def _missed(figures: Figures) -> list[str]:
    missed = []
    if "speed" in figures:
        found = figures["speed"]
        if found["of_ideal"] > MOST_OF_IDEAL:
            missed.append(f"wall time is {found['of_ideal']:.2f}x the ideal; {MOST_OF_IDEAL}x is allowed")
        missed += [
            f"{name} needs {ratio:.1f}x our CPU; at least {LEAST_CPU_RATIO:g}x was asked"
            for name, ratio in found["cpu_ratio"].items()
            if ratio < LEAST_CPU_RATIO
        ]
    if "replay" in figures and figures["replay"]["replay"]["seconds"] > MOST_REPLAY_S:
        missed.append(f"the replay took {figures['replay']['replay']['seconds']:.1f} s")
    if "memory" in figures and figures["memory"]["growth"] > MOST_GROWTH:
        missed.append(f"ten times the rows take {figures['memory']['growth']:.2f}x the memory")
    if "ray" in figures and figures["ray"]["ratio"] < LEAST_RAY_RATIO:
        missed.append(f"two workers of Ray are {figures['ray']['ratio']:.2f}x one")
    return missed


def _text(answer: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    parts = ["\n".join(f"- {name}: `{value}`" for name, value in facts.items())]
    if "speed" in answer:
        found = answer["speed"]
        cells = [
            (
                run["name"],
                f"{run['seconds']:.1f}",
                f"{run['cpu_ms_a_row']:.2f}",
                run["rss_mb"],
                run["errors"],
                f"{found['cpu_ratio'].get(run['name'], 1):.1f}",
            )
            for run in found["runs"]
        ]
        parts.append(table(("WHO", "WALL S", "CPU MS A ROW", "RSS MB", "ERRORS", "CPU RATIO"), cells))
        parts.append(f"ideal {found['ideal_s']:.1f} s; ours is {found['of_ideal']:.2f}x of it")
    if "replay" in answer:
        run = answer["replay"]["replay"]
        parts.append(f"replay of 10,000 cached cases: {run['seconds']:.1f} s, {run['rss_mb']} MB")
    if "memory" in answer:
        runs = answer["memory"]["runs"]
        sizes = ", ".join(f"{rows} rows {run['rss_mb']} MB" for rows, run in runs.items())
        parts.append(f"memory: {sizes}: {answer['memory']['growth']:.2f}x")
    if "ray" in answer:
        found = answer["ray"]
        parts.append(f"Ray, scoring {found['rows']} rows: {found['scoring_s']} s: {found['ratio']:.2f}x")
    parts += answer["missed"] or ["every bound is kept"]
    return "\n\n".join(parts)


__all__ = ["application", "work"]

if __name__ == "__main__":
    terminal.run(application)
