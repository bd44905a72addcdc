"""A long mixed run: memory, descriptors and records must neither grow nor go missing."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.bench.gateway import processes
from tests.bench.gateway.contenders import sluicegate
from tests.bench.gateway.contenders.base import Contender, Running
from tests.bench.gateway.figures import slope
from tests.bench.gateway.report import table
from tests.bench.gateway.speed import say
from tests.bench.gateway.stand import LOAD_CORE, Stand, answering, chat_body, standing

CHUNKS = 16
MAX_MB_PER_10K = 1.0
WARM_SHARE = 0.25
"""The first quarter fills pools and caches: it is no part of the slope."""
COUNTER = "sluicegate_requests_total"


@dataclass(frozen=True, slots=True)
class Load:
    """How many requests, over how many clients."""

    requests: int
    connections: int
    seed: int


@dataclass(frozen=True, slots=True)
class Sample:
    """The gateway at one moment."""

    at_s: float
    records: int
    """Sum of the request counter since the load began."""
    rss_mb: float
    open_files: int


@dataclass(frozen=True, slots=True)
class Result:
    """What the soak saw."""

    sent: int
    records: int
    outcomes: Mapping[str, Mapping[str, int]]
    """Kind of request → how its requests ended → how many."""
    samples: list[Sample]
    open_files_before: int
    open_files_after: int
    mb_per_10k: float
    seconds: float
    statuses: Mapping[str, int]
    """Status label of the counter → how many records since the load began."""


def kinds(model: str, faulty: str) -> dict[str, dict[str, Any]]:
    """
    The mix: each kind with its share, body, and when its client leaves.

    Faults go to the provider *faulty*, so that its circuit breaker leaves the others alone.
    """
    plain, stream = chat_body(model), chat_body(model, stream=True)
    mix: dict[str, dict[str, Any]] = {
        "plain": {"share": 62, "body": plain},
        "stream": {"share": 20, "body": stream, "stream": True},
        "plain, client leaves": {
            "share": 4, "body": chat_body(model, fault="slow"), "leave_after_s": 0.005,
        },
        "stream, client leaves": {"share": 4, "body": stream, "stream": True, "leave_after_s": 0.0},
        "plain, upstream slow": {"share": 1, "body": chat_body(model, fault="slow")},
    }  # fmt: skip
    for fault in ("500", "429", "cut", "reset"):
        mix[f"plain, upstream {fault}"] = {"share": 1, "body": chat_body(faulty, fault=fault)}
    for fault in ("500", "cut", "reset"):
        body = chat_body(faulty, stream=True, fault=fault)
        mix[f"stream, upstream {fault}"] = {"share": 5 / 3, "body": body, "stream": True}
    return {name: {"stream": False, "leave_after_s": None} | kind for name, kind in mix.items()}


def run(contender: Contender, load: Load, cache: Path) -> Result:
    """Start *contender*, send the mix, sample twice a second, wait for the last record."""
    with standing(cache, need_wrk=False) as stand:
        say(f"{contender.name} {contender.install(stand.cache)}")
        with answering(stand, contender) as target:
            stand.script(latency_ms=0, chunk_delay_ms=1, chunks=CHUNKS)
            processes.settle(target.pid)
            base = _statuses(target)
            files_before = processes.open_files(target.pid)
            begun = time.monotonic()
            samples = list(_sampled(stand, target, load, sum(base.values()), begun))
            seconds = time.monotonic() - begun
            outcomes = json.loads((stand.folder / "soak.json").read_text())["outcomes"]
            after = _last(target, sum(base.values()) + load.requests)
            processes.settle(target.pid)
            files_after = processes.open_files(target.pid)
    late = [sample for sample in samples if sample.records >= WARM_SHARE * load.requests]
    grown = slope([sample.records / 10_000 for sample in late], [sample.rss_mb for sample in late])
    statuses = {key: count - base.get(key, 0) for key, count in after.items()}
    return Result(
        load.requests, sum(statuses.values()), outcomes, samples, files_before, files_after, grown, seconds,
        {key: count for key, count in statuses.items() if count},
    )  # fmt: skip


def _sampled(stand: Stand, target: Running, load: Load, base: int, begun: float) -> Iterator[Sample]:
    """Run the load; a sample twice a second until it ends."""
    faulty = sluicegate.FAULTY if target.door.model == sluicegate.MODEL else target.door.model
    mix = kinds(target.door.model, faulty)
    job = {
        "mode": "mixed", "host": "127.0.0.1", "port": target.door.port, "requests": load.requests,
        "connections": load.connections, "seed": load.seed, "chunks": CHUNKS, "timeout_s": 60,
        "kinds": {name: kind | {"head": target.door.head} for name, kind in mix.items()},
    }  # fmt: skip
    output = stand.folder / "soak.json"
    command = ["taskset", "-c", LOAD_CORE, sys.executable, "-m", "tests.bench.gateway.load"]
    with (
        output.open("wb") as results,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=results) as child,
    ):
        assert child.stdin is not None
        child.stdin.write(json.dumps(job).encode())
        child.stdin.close()
        turn = 0
        try:
            while child.poll() is None:
                records = sum(_statuses(target).values()) - base
                at_s = time.monotonic() - begun
                yield Sample(at_s, records, processes.rss_mb(target.pid), processes.open_files(target.pid))
                turn += 1
                if turn % 40 == 0:
                    say(f"{records:,} of {load.requests:,}, {processes.rss_mb(target.pid):.1f} MB")
                time.sleep(0.5)
        finally:
            child.kill()
    if child.returncode:
        raise processes.Died(f"the load generator ended with {child.returncode}")


def _last(target: Running, expected: int) -> dict[str, int]:
    """The counter once it reached *expected* and held for two seconds, or after 30 seconds."""
    deadline = time.monotonic() + 30
    before: dict[str, int] = {}
    while time.monotonic() < deadline:
        now = _statuses(target)
        if now == before and sum(now.values()) >= expected:
            return now
        before = now
        time.sleep(2)
    return before


def _statuses(target: Running) -> dict[str, int]:
    """Status → chat requests counted so far, from /metrics."""
    with urlopen(f"http://127.0.0.1:{target.door.port}/metrics", timeout=30) as response:
        text = response.read().decode()
    return counted(text)


def counted(text: str) -> dict[str, int]:
    """
    Status → value of the request counter on chat completions in Prometheus' text *text*, all else summed.

    >>> counted('sluicegate_requests_total{route="/v1/chat/completions",status="200"} 3.0')
    {'200': 3}
    """
    found: dict[str, int] = {}
    for line in text.splitlines():
        if line.startswith(COUNTER + "{") and "chat/completions" in line:
            status = re.search(r'status="([^"]*)"', line)
            key = status.group(1) if status else ""
            found[key] = found.get(key, 0) + int(float(line.rpartition(" ")[2]))
    return found


def faults(result: Result) -> list[str]:
    """What is wrong, one line each; empty when nothing leaked."""
    found = []
    if result.records != result.sent:
        found.append(f"{result.sent:,} requests were sent but {result.records:,} records were written")
    if math.isnan(result.mb_per_10k):
        found.append("the run was too short to judge memory: send more requests")
    elif result.mb_per_10k >= MAX_MB_PER_10K:
        found.append(f"memory grew by {result.mb_per_10k:.2f} MB per 10,000 requests")
    if result.open_files_after > result.open_files_before + 64:
        before, after = result.open_files_before, result.open_files_after
        found.append(f"{after} descriptors are open, {before} were before (64 pooled ones are allowed)")
    silent = sum(ends.get("SILENT CUT", 0) for ends in result.outcomes.values())
    if silent:
        found.append(f"{silent} cut streams ended as if they were whole")
    unexplained = {
        f"{kind}: {end}": count
        for kind, ends in result.outcomes.items()
        if "upstream" not in kind or "slow" in kind
        for end, count in ends.items()
        if end not in ("whole", "left")
    }
    found += [f"{count} × {what}, where no fault was asked for" for what, count in unexplained.items()]
    return found


def markdown(result: Result, machine: Mapping[str, str]) -> str:
    """What was sent, how it ended, and the memory over time."""
    rows = [
        [
            kind,
            f"{sum(ends.values()):,}",
            ", ".join(f"{end}: {count:,}" for end, count in sorted(ends.items())),
        ]
        for kind, ends in result.outcomes.items()
    ]
    step = max(1, len(result.samples) // 12)
    series = [
        [f"{sample.at_s:.0f}", f"{sample.records:,}", f"{sample.rss_mb:.1f}", str(sample.open_files)]
        for sample in [*result.samples[::step], result.samples[-1]]
    ]
    told = "\n".join(f"- **{line}**" for line in faults(result)) or "Nothing leaked, nothing was lost."
    summary = (
        f"{result.sent:,} requests in {result.seconds:.0f} s; {result.records:,} records "
        f"({', '.join(f'{key}: {count:,}' for key, count in sorted(result.statuses.items()))}); "
        f"after the first quarter {result.mb_per_10k:+.3f} MB per 10,000 requests; descriptors "
        f"{result.open_files_before} before, {result.open_files_after} after."
    )
    facts = "\n".join(f"- {key}: `{value}`" for key, value in machine.items())
    ended = table(["kind", "sent", "ended"], rows)
    grown = table(["s", "records", "RSS MB", "open files"], series)
    return f"{facts}\n\n{summary}\n\n{ended}\n\n{grown}\n\n{told}" + "\n"


def plain_json(result: Result, machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything, for programs."""
    return {"machine": dict(machine), "faults": faults(result), **asdict(result)}
