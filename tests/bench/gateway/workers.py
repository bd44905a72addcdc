"""
What two workers give over one, on a machine whose load generator needs cores, too.

Three figures, since no single one is honest with few cores:

- capacity: requests a second that the cores given to the gateway could do, were the load elsewhere:
  workers / (CPU per request) · (mean share of a worker / share of the busiest), because the busiest
  worker is full first;
- wall: requests a second really reached, one worker on core 0 and two on cores 0 and 1, mock and load
  on core 1 and, for two workers, at the lowest priority;
- balance: how evenly the connections were spread.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.gateway import install, processes, wrk
from tests.bench.gateway.contenders import sluicegate
from tests.bench.gateway.contenders.base import PATH, Running
from tests.bench.gateway.options import sluicegate_contender
from tests.bench.gateway.report import number, table
from tests.bench.gateway.speed import say
from tests.bench.gateway.stand import Stand, answering, chat_body, standing

CONNECTIONS = 64


@dataclass(frozen=True, slots=True)
class Load:
    """Size and length of each measurement."""

    body_bytes: int
    seconds: float
    rounds: int


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn with *workers* workers."""

    workers: int
    cpu_us: float
    rps: float
    balance: float
    """CPU of the mean worker over that of the busiest, in (0, 1]."""
    rss_mb: float
    failed: int

    @property
    def capacity(self) -> float:
        """Requests a second of the gateway's cores alone, until the busiest worker is full."""
        return self.workers / self.cpu_us * 1e6 * self.balance


def run(load: Load, cache: Path, python: Path, serve: str, env: Sequence[str] | None) -> list[Measured]:
    """
    One and two workers, in turns.

    Raises:
        NotInstalled: this `gateway serve` has no --workers.
    """
    if not sluicegate.has_option(python, ["serve"], "--workers"):
        raise install.NotInstalled("this `gateway serve` has no --workers")
    found = []
    with standing(cache) as stand:
        for turn in range(load.rounds):
            for count in (1, 2):
                contender = sluicegate_contender(python, f"--workers {count} {serve}", env)
                with answering(stand, contender, cores="0,1" if count > 1 else "0") as target:
                    _load(stand, target, load, min(3.0, load.seconds), count)
                    measured = _load(stand, target, load, load.seconds, count)
                say(f"round {turn + 1}: {measured}")
                found.append(measured)
    return found


def _load(stand: Stand, target: Running, load: Load, seconds: float, workers: int) -> Measured:
    before = processes.cpu_by_process(target.pid)
    result = wrk.run(
        stand.wrk, f"http://127.0.0.1:{target.door.port}{PATH}", dict(target.door.headers),
        chat_body(target.door.model, size=load.body_bytes), connections=CONNECTIONS, seconds=seconds,
        folder=stand.folder, nice=19 if workers > 1 else 0,
    )  # fmt: skip
    after = processes.cpu_by_process(target.pid)
    used = sorted((after[pid] - before.get(pid, 0.0) for pid in after), reverse=True)
    good = max(1, result.requests - result.not_200)
    busiest = used[0] or 1.0
    return Measured(
        workers, sum(used) / good * 1e6, good / result.seconds, sum(used[:workers]) / workers / busiest,
        processes.rss_mb(target.pid), result.not_200 + result.socket_errors,
    )  # fmt: skip


def markdown(found: Sequence[Measured], machine: Mapping[str, str]) -> str:
    """One table and the two ratios."""
    rows = []
    for count in (1, 2):
        own = [measured for measured in found if measured.workers == count]
        rows.append(
            [
                str(count), number([m.cpu_us for m in own], 0), number([m.capacity for m in own], 0),
                number([m.rps for m in own], 0), number([m.balance for m in own], 2),
                number([m.rss_mb / count for m in own], 0), str(sum(m.failed for m in own)),
            ]
        )  # fmt: skip
    one, two = ([m for m in found if m.workers == count] for count in (1, 2))
    capacity = median(m.capacity for m in two) / median(m.capacity for m in one)
    wall = median(m.rps for m in two) / median(m.rps for m in one)
    headings = [
        "workers", "CPU µs per request", "capacity requests/s", "reached requests/s", "balance",
        "RSS MB per worker", "failed",
    ]  # fmt: skip
    facts = "\n".join(f"- {key}: `{value}`" for key, value in machine.items())
    method = " ".join((__doc__ or "").split())
    ends = f"Two workers over one: capacity {capacity:.2f}x, reached beside mock and load {wall:.2f}x."
    return f"{facts}\n\n{method}\n\n{table(headings, rows)}\n\n{ends}\n"


def plain_json(found: Sequence[Measured], machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything, for programs."""
    return {"machine": dict(machine), "rounds": [asdict(m) | {"capacity": m.capacity} for m in found]}
