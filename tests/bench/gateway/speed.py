"""Every contender through every scenario, taking turns, so that a noisy minute hits all of them."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from registry.errors import PlatformError
from tests.bench.gateway import processes
from tests.bench.gateway.contenders.base import Contender, Running
from tests.bench.gateway.scenarios import Figures, Scenario, plain
from tests.bench.gateway.stand import DIRECT, Stand, answering, standing

STARTUP = "startup"


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often to measure."""

    rounds: int = 3
    seconds: float = 4.0
    warm_s: float = 10.0
    """Load before the first round: JIT compilers and pools need it."""


@dataclass(frozen=True, slots=True)
class Row:
    """One scenario of one contender in one round."""

    contender: str
    scenario: str
    round: int
    figures: Figures


@dataclass(frozen=True, slots=True)
class Outcome:
    """All that a run found out."""

    rows: Sequence[Row]
    versions: dict[str, str]
    notes: dict[str, str]
    missing: dict[str, str]
    """Contender → why it was not measured."""


def say(line: str) -> None:
    """Progress, on standard error."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


def run(contenders: Sequence[Contender], scenarios: Sequence[Scenario], plan: Plan, cache: Path) -> Outcome:
    """Install, start, warm and measure; a contender that fails is told of and left out from then on."""
    rows: list[Row] = []
    versions: dict[str, str] = {}
    missing: dict[str, str] = {}
    with standing(cache) as stand, contextlib.ExitStack() as stack:
        alive = [stand.mock]
        for contender in contenders:
            try:
                versions[contender.name] = contender.install(stand.cache)
                say(f"{contender.name} {versions[contender.name]}: starting twice, the second start counts")
                with answering(stand, contender):
                    pass
                target = stack.enter_context(answering(stand, contender))
                processes.settle(target.pid)
                idle_mb = processes.rss_mb(target.pid)
                plain(16, stand, target, plan.warm_s)
                processes.settle(target.pid)
                rows.append(_startup(target, idle_mb))
                alive.append(target)
            except (PlatformError, OSError, subprocess.TimeoutExpired) as error:
                missing[contender.name] = str(error)
                say(f"{contender.name} is left out: {error}")
        for turn in range(plan.rounds):
            for scenario in scenarios:
                rows += _round(stand, _rotated(alive, turn), scenario, turn, plan, missing)
    notes = {contender.name: contender.note for contender in contenders}
    return Outcome(rows, versions, notes, missing)


def _startup(target: Running, idle_mb: float) -> Row:
    figures: Figures = {
        "ready_s": target.ready_s,
        "ready_cpu_s": target.ready_cpu_s,
        "idle_mb": idle_mb,
        "rss_mb": processes.rss_mb(target.pid),
    }
    return Row(target.name, STARTUP, 0, figures)


def _rotated(alive: list[Running], turn: int) -> list[Running]:
    """The mock first, since the others' added times are less its own; the rest begin elsewhere each turn."""
    rest = alive[1:]
    cut = turn % len(rest) if rest else 0
    return [alive[0], *rest[cut:], *rest[:cut]]


def _round(
    stand: Stand,
    targets: Iterable[Running],
    scenario: Scenario,
    turn: int,
    plan: Plan,
    missing: dict[str, str],
) -> list[Row]:
    rows: list[Row] = []
    direct: Figures = {}
    for target in targets:
        if target.name in missing:
            continue
        try:
            figures = scenario.measure(stand, target, plan.seconds)
        except (PlatformError, OSError, subprocess.TimeoutExpired) as error:
            missing[target.name] = f"failed in {scenario.name}: {str(error)[-300:]}"
            say(f"{target.name} is left out from here: {missing[target.name]}")
            continue
        if target.name == DIRECT:
            direct = figures
        for name, source in scenario.minus_direct:
            mine, bare = figures.get(source), direct.get(source)
            figures[name] = None if mine is None or bare is None else mine - bare
        rows.append(Row(target.name, scenario.name, turn, figures))
        shown = ", ".join(f"{key} {value:.4g}" for key, value in figures.items() if value is not None)
        say(f"round {turn + 1} {scenario.name} {target.name}: {shown}")
        processes.settle(target.pid)
    return rows
