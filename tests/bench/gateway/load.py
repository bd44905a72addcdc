"""
The load generator: one process that reads a job as JSON from stdin and prints what it saw as JSON.

    {"mode": "closed", "host": "127.0.0.1", "port": 8080, "head": "…", "body": "…", …}

Modes: `closed` (N connections, each sends as soon as it has its answer), `steady` (a fixed rate,
whatever the answers do; latency counts from the planned instant), `streams` (waves of N streams at
once) and `mixed` (plain, streams, leaving clients and upstream faults by a seeded choice).
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

import uvloop

from tests.bench.gateway.client import Connection, Reply
from tests.bench.gateway.figures import percentile

REFUSED = (429, 503)


def request_bytes(head: str, body: str) -> bytes:
    """The request *body* under *head*, which ends with a line break, with its length."""
    data = body.encode()
    return f"{head}content-length: {len(data)}\r\n\r\n".encode() + data


def spread(seconds: Sequence[float]) -> dict[str, float | None]:
    """p50 and p99 in ms; None where nothing was measured."""
    return {
        name: None if math.isnan(value := percentile(seconds, share)) else value * 1000
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99))
    }


async def closed(job: dict[str, Any]) -> dict[str, Any]:
    """*connections* clients for *seconds*; a refused one waits as Retry-After says, at most *pause_s*."""
    request = request_bytes(job["head"], job["body"])
    admitted: list[float] = []
    refused: list[float] = []
    errors: Counter[str] = Counter()
    statuses: Counter[str] = Counter()
    begun = time.perf_counter()
    end = begun + job["seconds"]

    async def client() -> None:
        connection = Connection(job["host"], job["port"], job["timeout_s"])
        while time.perf_counter() < end:
            reply = await connection.exchange(request)
            if reply.error:
                errors[reply.error] += 1
                continue
            statuses[str(reply.status)] += 1
            took_s = reply.ended_at - reply.sent_at
            if reply.status == 200:
                admitted.append(took_s)
            elif reply.status in REFUSED:
                refused.append(took_s)
                told = 0.1 if math.isnan(reply.retry_after_s) else reply.retry_after_s
                await asyncio.sleep(min(told, job["pause_s"], max(0.0, end - time.perf_counter())))
        connection.close()

    await asyncio.gather(*(client() for _ in range(job["connections"])))
    lasted = time.perf_counter() - begun
    return {
        "seconds": lasted,
        "completed": len(admitted),
        "goodput": len(admitted) / lasted,
        "refused_per_s": len(refused) / lasted,
        "admitted": spread(admitted),
        "refused": spread(refused),
        "statuses": statuses,
        "errors": errors,
    }


async def steady(job: dict[str, Any]) -> dict[str, Any]:
    """*rate* requests a second for *seconds*, on as many connections as that takes."""
    request = request_bytes(job["head"], job["body"])
    idle: list[Connection] = []
    took: list[float] = []
    errors: Counter[str] = Counter()
    begun = time.perf_counter() + 0.05

    async def one(planned: float) -> None:
        await asyncio.sleep(max(0.0, planned - time.perf_counter()))
        connection = idle.pop() if idle else Connection(job["host"], job["port"], job["timeout_s"])
        reply = await connection.exchange(request)
        if reply.error or reply.status != 200:
            errors[reply.error or str(reply.status)] += 1
        else:
            took.append(reply.ended_at - planned)
        idle.append(connection)

    count = round(job["rate"] * job["seconds"])
    await asyncio.gather(*(one(begun + index / job["rate"]) for index in range(count)))
    for connection in idle:
        connection.close()
    # The first tenth opens connections: it is sent, but not measured.
    return {"completed": len(took), **spread(took[len(took) // 10 :]), "errors": errors}


async def streams(job: dict[str, Any]) -> dict[str, Any]:
    """Waves of *connections* streams at once until *seconds* have passed, at least one."""
    request = request_bytes(job["head"], job["body"])
    connections = [Connection(job["host"], job["port"], job["timeout_s"]) for _ in range(job["connections"])]
    replies = 0
    whole = chunks = 0
    first: list[float] = []
    errors: Counter[str] = Counter()
    begun = time.perf_counter()
    while not replies or time.perf_counter() - begun < job["seconds"]:
        for reply in await asyncio.gather(*(connection.exchange(request) for connection in connections)):
            replies += 1
            chunks += reply.marks
            if reply.is_whole(job["chunks"]):
                whole += 1
                first.append(reply.first_at - reply.sent_at)
            else:
                errors[reply.error or f"status {reply.status}, {reply.marks} chunks"] += 1
    lasted = time.perf_counter() - begun
    for connection in connections:
        connection.close()
    return {
        "streams": replies,
        "whole": whole,
        "chunks": chunks,
        "chunks_per_s": chunks / lasted,
        "first": spread(first),
        "errors": errors,
    }


async def mixed(job: dict[str, Any]) -> dict[str, Any]:
    """*requests* requests over *connections* clients; *kinds* gives each its share, head and body."""
    choice = random.Random(job["seed"])
    kinds = job["kinds"]
    names, weights = list(kinds), [kind["share"] for kind in kinds.values()]
    ready = {name: request_bytes(kind["head"], kind["body"]) for name, kind in kinds.items()}
    outcomes: dict[str, Counter[str]] = {name: Counter() for name in names}
    left = job["requests"]

    async def client() -> None:
        nonlocal left
        connection = Connection(job["host"], job["port"], job["timeout_s"])
        while left > 0:
            left -= 1
            name = choice.choices(names, weights)[0]
            kind = kinds[name]
            if kind["leave_after_s"] is None:
                reply = await connection.exchange(ready[name])
            else:
                reply = await connection.leave(ready[name], after_s=kind["leave_after_s"])
            outcomes[name][_outcome(reply, kind, job["chunks"])] += 1
        connection.close()

    await asyncio.gather(*(client() for _ in range(job["connections"])))
    return {"sent": job["requests"], "outcomes": outcomes}


def _outcome(reply: Reply, kind: dict[str, Any], chunks: int) -> str:
    """One word or two for how a request ended."""
    if reply.error:
        return reply.error
    if kind["leave_after_s"] is not None:
        return "left"
    if reply.status != 200:
        return str(reply.status)
    if not kind["stream"]:
        return "whole"
    if reply.is_whole(chunks):
        return "whole"
    return "told of the error" if b'"error"' in reply.body and b"[DONE]" not in reply.body else "SILENT CUT"


MODES = {"closed": closed, "steady": steady, "streams": streams, "mixed": mixed}


def main() -> None:
    """Run the job from stdin."""
    job = json.load(sys.stdin)
    begun = time.process_time()
    result = uvloop.run(MODES[job["mode"]](job))
    result["generator_cpu_s"] = time.process_time() - begun
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
