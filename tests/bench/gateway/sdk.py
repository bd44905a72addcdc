"""
What the gateway adds where it asks a provider through the litellm SDK, beside the SDK alone.

CPU of one process for each request, plain and streamed, in turns, before the same mock; 1.2 times the bare
SDK is the most. The gateway's share holds key, limits, price, usage journal and metrics.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.gateway import install, processes, upstream, wrk
from tests.bench.gateway.contenders import sluicegate
from tests.bench.gateway.contenders.base import PATH, Contender, Door, Launch, Place, environment
from tests.bench.gateway.report import number, table
from tests.bench.gateway.speed import say
from tests.bench.gateway.stand import GATEWAY_CORE, Stand, answering, chat_body, standing

BARE, OURS = "litellm SDK alone", "through the gateway"
MODEL = f"openai/{upstream.MODEL}"
MOST_OF_BARE = 1.2


@dataclass(frozen=True, slots=True)
class Load:
    """Length of each measurement."""

    seconds: float
    rounds: int
    at_once: int = 8
    chunks: int = 50
    """Of each stream."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn of one way."""

    way: str
    is_stream: bool
    cpu_us: float
    rps: float
    failed: int


def run(load: Load, cache: Path, python: Path, serve: Sequence[str]) -> list[Measured]:
    """Both ways, plain and streamed, in turns."""
    found = []
    with standing(cache) as stand, answering(stand, _through_litellm(python, serve)) as target:
        stand.script(chunk_delay_ms=0, chunks=load.chunks)
        for turn in range(load.rounds):
            for is_stream in (False, True):
                found.append(_bare(stand, python, load, is_stream=is_stream))
                say(f"round {turn + 1}: {found[-1]}")
                _ours(stand, target, load, 1.0, is_stream=is_stream)
                found.append(_ours(stand, target, load, load.seconds, is_stream=is_stream))
                say(f"round {turn + 1}: {found[-1]}")
    return found


def _bare(stand: Stand, python: Path, load: Load, *, is_stream: bool) -> Measured:
    job = {
        "model": MODEL, "url": f"http://127.0.0.1:{stand.mock.door.port}/v1", "key": upstream.KEY,
        "body": json.loads(chat_body(MODEL, stream=is_stream)), "stream": is_stream,
        "seconds": load.seconds, "at_once": load.at_once,
    }  # fmt: skip
    done = subprocess.run(
        [
            "taskset", "-c", GATEWAY_CORE, str(python), "-m", "tests.bench.gateway.apps.bare_litellm",
            json.dumps(job),
        ],
        env=environment(stand.cache, {}), capture_output=True, text=True, timeout=load.seconds + 90,
        check=False,
    )  # fmt: skip
    if done.returncode:
        raise install.NotInstalled(f"the bare SDK failed: {done.stderr[-400:]}")
    result = json.loads(done.stdout)
    return Measured(BARE, is_stream, result["cpu_us"], result["rps"], 0)


def _ours(stand: Stand, target: Any, load: Load, seconds: float, *, is_stream: bool) -> Measured:
    before = processes.cpu_by_process(target.pid)
    result = wrk.run(
        stand.wrk, f"http://127.0.0.1:{target.door.port}{PATH}", dict(target.door.headers),
        chat_body(target.door.model, stream=is_stream), connections=load.at_once, seconds=seconds,
        folder=stand.folder,
    )  # fmt: skip
    after = processes.cpu_by_process(target.pid)
    used = sum(after[pid] - before.get(pid, 0.0) for pid in after)
    good = max(1, result.requests - result.not_200)
    failed = result.not_200 + result.socket_errors
    return Measured(OURS, is_stream, used / good * 1e6, good / result.seconds, failed)


def _through_litellm(python: Path, serve: Sequence[str]) -> Contender:
    """Sluicegate, asked for a model that it reaches through the SDK."""
    plain = sluicegate.contender(python, serve=serve)

    def launch(place: Place) -> Launch:
        ready = plain.launch(place)
        own = dict(ready.env)
        places = json.loads(own["SLUICEGATE_GATEWAY__UPSTREAMS"])
        own["SLUICEGATE_GATEWAY__UPSTREAMS"] = json.dumps({**places, "litellm": places["openai"]})
        model = f"litellm/{MODEL}"
        sluicegate.said(
            python.parent / "gateway", environment(place.cache, own), place.folder,
            "prices", "set", model, "--input", "0.15", "--output", "0.60",
        )  # fmt: skip
        return Launch(ready.command, Door(ready.door.port, model, ready.door.headers), own)

    return Contender(plain.name, plain.install, launch, plain.note)


def ratios(found: Sequence[Measured]) -> dict[str, float]:
    """CPU through the gateway over that of the bare SDK, plain and streamed, by medians."""
    told = {}
    for is_stream in (False, True):
        cost = {
            way: median(m.cpu_us for m in found if (m.way, m.is_stream) == (way, is_stream))
            for way in (BARE, OURS)
        }
        told["streamed" if is_stream else "plain"] = cost[OURS] / cost[BARE]
    return told


def missed(found: Sequence[Measured]) -> list[str]:
    """What is above its bound, or failed."""
    over = [f"{kind} is {ratio:.2f}x" for kind, ratio in ratios(found).items() if ratio > MOST_OF_BARE]
    failed = sum(m.failed for m in found)
    return over + ([f"{failed} requests failed"] if failed else [])


def markdown(found: Sequence[Measured], machine: Mapping[str, str]) -> str:
    """One table."""
    told = ratios(found)
    rows = []
    for is_stream in (False, True):
        kind = "streamed" if is_stream else "plain"
        for way in (BARE, OURS):
            own = [m for m in found if (m.way, m.is_stream) == (way, is_stream)]
            ratio = 1.0 if way == BARE else told[kind]
            cells = [f"{way}, {kind}", number([m.cpu_us for m in own], 0), f"{ratio:.2f}x"]
            rows.append([*cells, number([m.rps for m in own], 0)])
    facts = "\n".join(f"- {key}: `{value}`" for key, value in machine.items())
    headings = ["Way", "CPU µs per request", "of the bare SDK", "requests/s on one core"]
    return f"{facts}\n\n{' '.join((__doc__ or '').split())}\n\n{table(headings, rows)}\n"


def plain_json(found: Sequence[Measured], machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything, for programs."""
    return {"machine": dict(machine), "rounds": [asdict(m) for m in found], "ratios": ratios(found)}
