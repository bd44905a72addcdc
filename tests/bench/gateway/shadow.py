"""
What a shadow costs the users of a release: latency and errors of requests at a fixed rate.

The same release is asked without a shadow, and with one whose own upstream answers, fails, or takes requests
and never answers, in turns. What a shadow adds at the median and at the 99th percentile counts; 1 ms is the
most. The breaker that would soon leave a bad shadow alone is off.
"""

from __future__ import annotations

import contextlib
import json
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

from tests.bench.gateway import install, upstream
from tests.bench.gateway.contenders import sluicegate
from tests.bench.gateway.contenders.base import Contender, Door, Launch, Place, environment
from tests.bench.gateway.report import number, table
from tests.bench.gateway.speed import say
from tests.bench.gateway.stand import answering, chat_body, standing

NAME = "bench"
NONE = "no shadow"
KINDS = ("answers", "fails", "hangs")
MOST_ADDED_MS = 1.0
_ANSWER = {
    "id": "chatcmpl-shadow", "object": "chat.completion", "created": 1, "model": upstream.MODEL,
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "yes"}, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Load:
    """What is measured how long."""

    seconds: float
    rounds: int
    rate: float = 100.0
    """Requests a second."""
    latency_ms: float = 20.0
    """What the upstream of the users' requests takes."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn of one kind of shadow."""

    kind: str
    p50_ms: float
    p99_ms: float
    failed: int
    copies: int
    """Requests that the shadow's upstream got."""


class _Shadow(BaseHTTPRequestHandler):
    """The shadow's upstream; its server has `kind`, `seen` and `leave`."""

    protocol_version = "HTTP/1.1"
    server: Any

    def do_POST(self) -> None:
        """Answer as the server's kind says."""
        self.rfile.read(int(self.headers["content-length"]))
        self.server.seen += 1
        kind = self.server.kind
        if kind == "hangs":
            self.server.leave.wait()
            self.close_connection = True
            return
        body = json.dumps(_ANSWER if kind == "answers" else {"error": {"message": "broken"}}).encode()
        self.send_response(200 if kind == "answers" else 500)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class' name
        """Nothing."""


@contextlib.contextmanager
def _shadow() -> Iterator[Any]:
    server: Any = ThreadingHTTPServer(("127.0.0.1", 0), _Shadow)
    server.daemon_threads = True
    server.kind, server.seen, server.leave = "answers", 0, threading.Event()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.leave.set()
        server.shutdown()
        server.server_close()


def run(load: Load, cache: Path, python: Path, serve: Sequence[str]) -> list[Measured]:
    """Each kind of shadow, and none, in turns."""
    found = []
    with standing(cache, need_wrk=False) as stand, _shadow() as shadow:
        homes: list[Launch] = []
        contender = _with_release(python, serve, shadow.server_address[1], homes)
        with answering(stand, contender) as target:
            registry = _Registry(python, stand.cache, homes[-1].env)
            stand.script(latency_ms=load.latency_ms)
            for turn in range(load.rounds):
                for kind in (NONE, *KINDS):
                    shadow.kind, shadow.seen = kind, 0
                    registry.set(kind)
                    result = stand.load(
                        "steady", target.door, body=chat_body(NAME), rate=load.rate, seconds=load.seconds,
                        timeout_s=60, limit_s=180,
                    )  # fmt: skip
                    failed = sum(result["errors"].values())
                    measured = Measured(kind, result["p50_ms"], result["p99_ms"], failed, shadow.seen)
                    found.append(measured)
                    shadow.leave.set()
                    shadow.leave.clear()
                    say(f"round {turn + 1}: {measured}")
    return found


class _Registry:
    """The command line on the registry that the gateway serves."""

    def __init__(self, python: Path, cache: Path, own: Mapping[str, str]) -> None:
        self._script = python.parent / "registry"
        self._environ = environment(cache, own)

    def set(self, kind: str) -> None:
        """Give the release a shadow, or none; the gateway follows within a second."""
        if kind == NONE:
            self.run("split", "end", NAME)
        else:
            self.run("split", "set", NAME, "--shadow", f"{NAME}:2")
        threading.Event().wait(2.0)

    def run(self, *words: str) -> None:
        """One command. Raises NotInstalled with what it said when it fails."""
        done = subprocess.run(
            [str(self._script), *words], env=self._environ, capture_output=True, text=True, timeout=60,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise install.NotInstalled(f"`registry {' '.join(words[:2])}` failed: {done.stderr[-400:]}")


def _with_release(python: Path, serve: Sequence[str], shadow_port: int, homes: list[Launch]) -> Contender:
    """Sluicegate with a release in production and another one beside it, each before its own upstream."""
    plain = sluicegate.contender(python, serve=serve)

    def launch(place: Place) -> Launch:
        ready = plain.launch(place)
        own = dict(ready.env)
        places = json.loads(own["SLUICEGATE_GATEWAY__UPSTREAMS"])
        places["openai"] = {**places["openai"], "base_url": f"http://127.0.0.1:{shadow_port}/v1"}
        own["SLUICEGATE_GATEWAY__UPSTREAMS"] = json.dumps(places)
        own["SLUICEGATE_GATEWAY__BREAKER_FAILURES"] = "1000000"
        registry = _Registry(python, place.cache, own)
        for place_of, provider in enumerate(("vllm", "openai"), 1):
            file = place.folder / f"release-{place_of}.yaml"
            file.write_text(f"name: {NAME}\nkind: chat\nmodel: {provider}/{upstream.MODEL}\n")
            registry.run("releases", "create", str(file))
        registry.run("break-glass", f"{NAME}:1", "--reason", "a benchmark has nobody to protect")
        door = Door(ready.door.port, NAME, ready.door.headers)
        homes.append(Launch(ready.command, door, own))
        return homes[-1]

    return Contender(plain.name, plain.install, launch, plain.note)


def added(found: Sequence[Measured]) -> dict[str, tuple[float, float]]:
    """Kind → milliseconds that it adds at the median and at the 99th percentile, by medians of rounds."""
    base = [(m.p50_ms, m.p99_ms) for m in found if m.kind == NONE]
    told = {}
    for kind in KINDS:
        own = [(m.p50_ms, m.p99_ms) for m in found if m.kind == kind]
        told[kind] = (
            median(p50 for p50, _ in own) - median(p50 for p50, _ in base),
            median(p99 for _, p99 in own) - median(p99 for _, p99 in base),
        )
    return told


def missed(found: Sequence[Measured]) -> list[str]:
    """What is above its bound, failed, or was not measured at all."""
    over = [
        f"a shadow that {kind} adds {max(pair):.2f} ms"
        for kind, pair in added(found).items()
        if max(pair) > MOST_ADDED_MS
    ]
    idle = [kind for kind in KINDS if not any(m.copies for m in found if m.kind == kind)]
    over += [f"the shadow that {kind} was never asked" for kind in idle]
    failed = sum(m.failed for m in found)
    return over + ([f"{failed} requests failed"] if failed else [])


def markdown(found: Sequence[Measured], machine: Mapping[str, str]) -> str:
    """One table."""
    told = added(found)
    rows = []
    for kind in (NONE, *KINDS):
        own = [m for m in found if m.kind == kind]
        more = [f"{value:+.2f}" for value in told[kind]] if kind in told else ["", ""]
        p50, p99 = number([m.p50_ms for m in own], 2), number([m.p99_ms for m in own], 2)
        failed, copies = sum(m.failed for m in own), sum(m.copies for m in own)
        rows.append([kind, p50, more[0], p99, more[1], str(failed), str(copies)])
    facts = "\n".join(f"- {key}: `{value}`" for key, value in machine.items())
    headings = ["Shadow", "p50 ms", "added", "p99 ms", "added", "failed", "copies"]
    return f"{facts}\n\n{' '.join((__doc__ or '').split())}\n\n{table(headings, rows)}\n"


def plain_json(found: Sequence[Measured], machine: Mapping[str, str]) -> dict[str, Any]:
    """Everything, for programs."""
    return {"machine": dict(machine), "rounds": [asdict(m) for m in found], "added": added(found)}
