"""What is measured of one running contender; each scenario returns named figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.bench.gateway import processes, wrk
from tests.bench.gateway.contenders.base import PATH, Running
from tests.bench.gateway.stand import Stand, chat_body

Figures = dict[str, float | None]
CHUNKS = 64


@dataclass(frozen=True, slots=True)
class Scenario:
    """One measurement; *measure* takes the stand, the contender and the seconds to load it for."""

    name: str
    title: str
    measure: Callable[[Stand, Running, float], Figures]
    columns: tuple[tuple[str, str, int], ...]
    """Figure, heading, decimals."""
    minus_direct: tuple[tuple[str, str], ...] = ()
    """(figure, source): the source's value less that of the mock called directly in the same round."""


def plain(connections: int, stand: Stand, target: Running, seconds: float) -> Figures:
    """Closed loop of 1 KB requests: CPU of the contender's processes for each, and what it reached."""
    stand.script(latency_ms=0)
    before = processes.cpu_s(target.pid)
    result = wrk.run(
        stand.wrk, f"http://127.0.0.1:{target.door.port}{PATH}", dict(target.door.headers),
        chat_body(target.door.model), connections=connections, seconds=seconds, folder=stand.folder,
    )  # fmt: skip
    used = processes.cpu_s(target.pid) - before
    good = result.requests - result.not_200
    return {
        "cpu_us": used / good * 1e6 if good else None,
        "rps": good / result.seconds,
        "p50_ms": result.p50_ms,
        "p99_ms": result.p99_ms,
        "busy": 100 * used / result.seconds,
        "failed": result.not_200 + result.socket_errors,
    }


def streams(connections: int, delay_ms: float, stand: Stand, target: Running, seconds: float) -> Figures:
    """Waves of *connections* streams at once of 64 chunks, one each *delay_ms* from the mock."""
    stand.script(latency_ms=0, chunk_delay_ms=delay_ms, chunks=CHUNKS)
    body = chat_body(target.door.model, stream=True)
    stand.load(
        "streams", target.door, body=body, connections=8, chunks=CHUNKS, seconds=0, timeout_s=60, limit_s=90
    )
    before = processes.cpu_s(target.pid)
    result = stand.load(
        "streams", target.door, body=body, connections=connections, chunks=CHUNKS, seconds=seconds,
        timeout_s=120, limit_s=180,
    )  # fmt: skip
    used = processes.cpu_s(target.pid) - before
    return {
        "cpu_us": used / result["chunks"] * 1e6 if result["chunks"] else None,
        "chunks_per_s": result["chunks_per_s"],
        "ttft_p50_ms": result["first"]["p50_ms"],
        "ttft_p99_ms": result["first"]["p99_ms"],
        "streams": result["streams"],
        "broken": result["streams"] - result["whole"],
        "busy": 100 * used * result["chunks_per_s"] / result["chunks"] if result["chunks"] else None,
    }


def steady(rate: float, latency_ms: float, stand: Stand, target: Running, seconds: float) -> Figures:
    """*rate* plain requests a second, whatever the answers do, before an upstream of *latency_ms*."""
    stand.script(latency_ms=latency_ms)
    result = stand.load(
        "steady", target.door, body=chat_body(target.door.model), rate=rate, seconds=max(3.0, 1.5 * seconds),
        timeout_s=60, limit_s=180,
    )  # fmt: skip
    stand.script(latency_ms=0)
    return {
        "p50_ms": result["p50_ms"],
        "p99_ms": result["p99_ms"],
        "failed": sum(result["errors"].values()),
    }


_PLAIN = (
    ("cpu_us", "CPU µs per request", 0),
    ("rps", "requests/s", 0),
    ("p50_ms", "p50 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("busy", "busy %", 0),
    ("failed", "failed", 0),
)
_STREAMS = (
    ("cpu_us", "CPU µs per chunk", 1),
    ("chunks_per_s", "chunks/s", 0),
    ("ttft_p50_ms", "TTFT p50 ms", 2),
    ("ttft_added_ms", "TTFT p50 added ms", 2),
    ("ttft_p99_ms", "TTFT p99 ms", 1),
    ("busy", "busy %", 0),
    ("streams", "streams", 0),
    ("broken", "not whole", 0),
)
_STEADY = (
    ("p50_ms", "p50 ms", 2),
    ("p99_ms", "p99 ms", 2),
    ("added_p50_ms", "p50 added ms", 2),
    ("added_p99_ms", "p99 added ms", 2),
    ("failed", "failed", 0),
)


def default_scenarios(chunk_delay_ms: float) -> list[Scenario]:
    """What issue and documentation quote, in the order of the tables."""
    found = [
        Scenario(f"plain-{count}", f"Plain requests, {count} connections", partial(plain, count), _PLAIN)
        for count in (8, 16, 64)
    ]
    for count in (50, 200):
        title = f"Streams, {count} at once, {CHUNKS} chunks, one each {chunk_delay_ms:g} ms"
        measure = partial(streams, count, chunk_delay_ms)
        added = (("ttft_added_ms", "ttft_p50_ms"),)
        found.append(Scenario(f"streams-{count}", title, measure, _STREAMS, added))
    title = "Fixed rate, 50 requests/s, upstream takes 50 ms"
    late = (("added_p50_ms", "p50_ms"), ("added_p99_ms", "p99_ms"))
    return [*found, Scenario("steady", title, partial(steady, 50, 50), _STEADY, late)]
