"""From few clients to far too many: what is still served, what is refused, and how late."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.gateway import processes
from tests.bench.gateway.contenders.base import Contender, Running
from tests.bench.gateway.report import table
from tests.bench.gateway.speed import say
from tests.bench.gateway.stand import Stand, answering, chat_body, standing


@dataclass(frozen=True, slots=True)
class Load:
    """The steps, how long each lasts, and how clients and upstream behave."""

    connections: Sequence[int]
    seconds: float
    latency_ms: float
    pause_s: float
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Step:
    """One number of clients against one contender; times in ms, None where there were none."""

    contender: str
    connections: int
    goodput: float
    """Answers with status 200 a second."""
    refused_per_s: float
    admitted: Mapping[str, float | None]
    refused: Mapping[str, float | None]
    statuses: Mapping[str, int]
    errors: Mapping[str, int]
    """Resets, timeouts and malformed answers."""
    cpu_us: float | None
    """Of the contender's processes for each admitted request, refusals included."""
    load_busy: float
    """Percent of the load's core that the mock and the generator used; near 100 they limit the figures."""


def run(contenders: Sequence[Contender], load: Load, cache: Path) -> list[Step]:
    """
    Every contender through every step, fewest clients first, after two seconds of warm-up, and all again
    for each further round: the median of the rounds counts, as a shared machine is slower at times.
    """
    steps = []
    with standing(cache, need_wrk=False) as stand:
        for contender in contenders:
            say(f"{contender.name} {contender.install(stand.cache)}")
            with answering(stand, contender) as target:
                stand.script(latency_ms=load.latency_ms)
                _measure(stand, target, 16, 2.0, load)
                rounds: list[list[Step]] = []
                for _ in range(load.rounds):
                    found: list[Step] = []
                    rounds.append(found)
                    for count in load.connections:
                        step = _measure(stand, target, count, load.seconds, load)
                        say(
                            f"{target.name} {count}: {step.goodput:.0f}/s, refused {step.refused_per_s:.0f}/s"
                        )
                        found.append(step)
                        processes.settle(target.pid)
                steps += [_median(same) for same in zip(*rounds, strict=True)]
    return steps


def _median(same: Sequence[Step]) -> Step:
    """One step over several rounds: medians, and sums of what was counted."""

    def middle(values: Iterable[float | None]) -> float | None:
        known = [value for value in values if value is not None]
        return median(known) if known else None

    first = same[0]
    return replace(
        first,
        goodput=median(step.goodput for step in same),
        refused_per_s=median(step.refused_per_s for step in same),
        admitted={key: middle(step.admitted[key] for step in same) for key in first.admitted},
        refused={key: middle(step.refused[key] for step in same) for key in first.refused},
        statuses=sum((Counter(step.statuses) for step in same), Counter[str]()),
        errors=sum((Counter(step.errors) for step in same), Counter[str]()),
        cpu_us=middle(step.cpu_us for step in same),
        load_busy=median(step.load_busy for step in same),
    )


def _measure(stand: Stand, target: Running, count: int, seconds: float, load: Load) -> Step:
    before, mock_before = processes.cpu_s(target.pid), processes.cpu_s(stand.mock.pid)
    result = stand.load(
        "closed", target.door, body=chat_body(target.door.model), connections=count, seconds=seconds,
        pause_s=load.pause_s, timeout_s=60, limit_s=seconds + 120,
    )  # fmt: skip
    used = processes.cpu_s(target.pid) - before
    load_s = processes.cpu_s(stand.mock.pid) - mock_before + result["generator_cpu_s"]
    completed = result["completed"]
    return Step(
        target.name, count, result["goodput"], result["refused_per_s"], result["admitted"], result["refused"],
        result["statuses"], result["errors"], used / completed * 1e6 if completed else None,
        100 * load_s / result["seconds"],
    )  # fmt: skip


def verdict(steps: Sequence[Step]) -> dict[str, float]:
    """
    Of one contender: the worst goodput as a share of the best, and p99 at most clients over that at fewest.

    `after_peak` looks only at the steps from the peak on: with a slow upstream, few clients cannot reach it.
    """
    goodputs = [step.goodput for step in steps]
    peak = max(goodputs)
    first, worst = steps[0].admitted["p99_ms"], max(step.admitted["p99_ms"] or 0 for step in steps)
    return {
        "goodput_min_over_peak": min(goodputs) / peak if peak else 0.0,
        "after_peak": min(goodputs[goodputs.index(peak) :]) / peak if peak else 0.0,
        "p99_over_first": worst / first if first else 0.0,
        "errors": float(sum(sum(step.errors.values()) for step in steps)),
    }


def markdown(steps: Sequence[Step], load: Load, machine: Mapping[str, str]) -> str:
    """A table for each contender, with its verdict."""
    method = (
        "Closed loop: each client sends again as soon as it has its answer; a refused one (429, 503) first "
        f"waits as `Retry-After` says, at most {load.pause_s:g} s. The upstream takes {load.latency_ms:g} "
        f"ms. Every step lasts {load.seconds:g} s; medians of {load.rounds} rounds."
    )
    parts = ["\n".join(f"- {key}: `{value}`" for key, value in machine.items()), method]
    headings = [
        "clients", "answered/s", "refused/s", "admitted p50 ms", "p99 ms", "refused p50 ms", "p99 ms",
        "CPU µs per answer", "load core busy %", "errors", "statuses",
    ]  # fmt: skip
    for name in dict.fromkeys(step.contender for step in steps):
        own = [step for step in steps if step.contender == name]
        rows = [
            [
                str(step.connections), f"{step.goodput:,.0f}", f"{step.refused_per_s:,.0f}",
                *(_ms(times[key]) for times in (step.admitted, step.refused) for key in ("p50_ms", "p99_ms")),
                "–" if step.cpu_us is None else f"{step.cpu_us:,.0f}", f"{step.load_busy:.0f}",
                ", ".join(f"{count} {kind}" for kind, count in step.errors.items()) or "0",
                ", ".join(f"{status}: {count:,}" for status, count in sorted(step.statuses.items())),
            ]
            for step in own
        ]  # fmt: skip
        found = verdict(own)
        parts.append(
            f"### {name}\n\n{table(headings, rows)}\n\n"
            f"Lowest goodput {found['goodput_min_over_peak']:.0%} of the peak ({found['after_peak']:.0%} "
            f"from the peak on); worst p99 of the admitted {found['p99_over_first']:.1f}x that at "
            f"{own[0].connections} clients; {found['errors']:.0f} errors."
        )
    return "\n\n".join(parts) + "\n"


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:,.2f}"


def plain_json(steps: Sequence[Step], machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything, for programs."""
    return {"machine": dict(machine), "steps": [asdict(step) for step in steps]}
