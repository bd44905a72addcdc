"""
What the APIs over chat completions cost: CPU of one gateway process for each request, plain and streamed.

The same question is asked of `/v1/chat/completions`, `/v1/messages` and `/v1/responses`, in turns, before one
mock that answers chat completions. The ratio to chat of the same kind is what counts; 2 is the most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.gateway import processes, wrk
from tests.bench.gateway.contenders.base import PATH, Running
from tests.bench.gateway.options import sluicegate_contender
from tests.bench.gateway.report import number, table
from tests.bench.gateway.speed import say
from tests.bench.gateway.stand import Stand, answering, chat_body, standing

CHAT, MESSAGES, RESPONSES = PATH, "/v1/messages", "/v1/responses"
PATHS = (CHAT, MESSAGES, RESPONSES)
MOST_OF_CHAT = 2.0


@dataclass(frozen=True, slots=True)
class Load:
    """Length of each measurement."""

    seconds: float
    rounds: int
    connections: int = 16
    chunks: int = 50
    """Of each stream."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn of one API."""

    path: str
    is_stream: bool
    cpu_us: float
    rps: float
    failed: int


def run(load: Load, cache: Path, python: Path, serve: str, env: Sequence[str] | None) -> list[Measured]:
    """Each API, plain and streamed, in turns."""
    found = []
    with standing(cache) as stand, answering(stand, sluicegate_contender(python, serve, env)) as target:
        stand.script(chunk_delay_ms=0, chunks=load.chunks)
        for turn in range(load.rounds):
            for is_stream in (False, True):
                for path in PATHS:
                    _load(stand, target, load, path, 1.0, is_stream=is_stream)
                    found.append(_load(stand, target, load, path, load.seconds, is_stream=is_stream))
                    say(f"round {turn + 1}: {found[-1]}")
    return found


def body(path: str, model: str, *, is_stream: bool) -> str:
    """The request of a chat completion in the words of the API at *path*."""
    chat = json.loads(chat_body(model, stream=is_stream))
    if path == CHAT:
        return json.dumps(chat)
    system, user = (message["content"] for message in chat["messages"])
    asked: dict[str, Any] = {"model": model, "temperature": chat["temperature"]}
    if path == MESSAGES:
        asked |= {"system": system, "messages": [{"role": "user", "content": user}], "max_tokens": 256}
    else:
        asked |= {"instructions": system, "input": user, "max_output_tokens": 256, "store": False}
    return json.dumps(asked | ({"stream": True} if is_stream else {}))


def _load(
    stand: Stand, target: Running, load: Load, path: str, seconds: float, *, is_stream: bool
) -> Measured:
    before = processes.cpu_by_process(target.pid)
    result = wrk.run(
        stand.wrk, f"http://127.0.0.1:{target.door.port}{path}", dict(target.door.headers),
        body(path, target.door.model, is_stream=is_stream), connections=load.connections, seconds=seconds,
        folder=stand.folder,
    )  # fmt: skip
    after = processes.cpu_by_process(target.pid)
    used = sum(after[pid] - before.get(pid, 0.0) for pid in after)
    good = max(1, result.requests - result.not_200)
    failed = result.not_200 + result.socket_errors
    return Measured(path, is_stream, used / good * 1e6, good / result.seconds, failed)


def ratios(found: Sequence[Measured]) -> dict[str, float]:
    """CPU of each API over that of chat, plain and streamed, by medians."""
    cost = {
        (path, is_stream): median(m.cpu_us for m in found if (m.path, m.is_stream) == (path, is_stream))
        for path in PATHS
        for is_stream in (False, True)
    }
    return {
        f"{path} {'streamed' if is_stream else 'plain'}": cost[path, is_stream] / cost[CHAT, is_stream]
        for path, is_stream in cost
        if path != CHAT
    }


def missed(found: Sequence[Measured]) -> list[str]:
    """What is above its bound, or failed."""
    over = [f"{name} is {ratio:.2f}x" for name, ratio in ratios(found).items() if ratio > MOST_OF_CHAT]
    failed = sum(m.failed for m in found)
    return over + ([f"{failed} requests failed"] if failed else [])


def markdown(found: Sequence[Measured], machine: Mapping[str, str]) -> str:
    """One table."""
    told = ratios(found)
    rows = []
    for is_stream in (False, True):
        kind = "streamed" if is_stream else "plain"
        for path in PATHS:
            own = [m for m in found if (m.path, m.is_stream) == (path, is_stream)]
            ratio = told.get(f"{path} {kind}", 1.0)
            cells = [f"`{path}` {kind}", number([m.cpu_us for m in own], 0), f"{ratio:.2f}x"]
            rows.append([*cells, number([m.rps for m in own], 0)])
    facts = "\n".join(f"- {key}: `{value}`" for key, value in machine.items())
    headings = ["API", "CPU µs per request", "of chat", "requests/s on one core"]
    return f"{facts}\n\n{' '.join((__doc__ or '').split())}\n\n{table(headings, rows)}\n"


def plain_json(found: Sequence[Measured], machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything, for programs."""
    return {"machine": dict(machine), "rounds": [asdict(m) for m in found], "ratios": ratios(found)}
