"""The measuring stand: the mock upstream, the contenders that could be started, and calls of the load."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tests.bench.gateway import install, processes, upstream
from tests.bench.gateway.contenders.base import (
    Contender,
    Door,
    Place,
    Running,
    bearer,
    free_port,
    started,
)
from tests.bench.gateway.wrk import LoadFailed

GATEWAY_CORE, LOAD_CORE = "0", "1"
DIRECT = "mock alone"
_QUESTION = "Summarise the following report in three sentences. " + "The quarter went as planned. " * 28


def chat_body(model: str, *, stream: bool = False, fault: str = "", size: int = 0) -> str:
    """A chat request of about 1 KB, or of *size* bytes when that is more; *fault* is for the mock."""
    question = (f"[[fault={fault}]] " if fault else "") + _QUESTION
    question += "More of the report. " * (max(0, size - len(question)) // 20)
    body: dict[str, Any] = {
        "model": model,
        "messages": [
            {"role": "system", "content": "You are a careful assistant."},
            {"role": "user", "content": question},
        ],
        "temperature": 0.2,
        "max_tokens": 256,
    }
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(body, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Stand:
    """What measurements share. The mock and the load run on core 1, what is measured on core 0."""

    cache: Path
    folder: Path
    mock: Running
    wrk: Sequence[str]

    def script(self, **change: float) -> None:
        """Change what the mock does: *latency_ms*, *chunk_delay_ms*, *chunks*."""
        connection = http.client.HTTPConnection("127.0.0.1", self.mock.door.port, timeout=10)
        connection.request("POST", "/control", json.dumps(change))
        connection.getresponse().read()
        connection.close()

    def load(self, mode: str, door: Door, *, cores: str = LOAD_CORE, limit_s: float, **job: Any) -> Any:
        """The load generator's result for one job; it is ended after *limit_s*."""
        told = {"mode": mode, "host": "127.0.0.1", "port": door.port, "head": door.head} | job
        done = subprocess.run(
            ["taskset", "-c", cores, sys.executable, "-m", "tests.bench.gateway.load"],
            input=json.dumps(told), capture_output=True, text=True, timeout=limit_s, check=False,
        )  # fmt: skip
        if done.returncode:
            raise LoadFailed(f"the load generator failed: {done.stderr[-800:]}")
        return json.loads(done.stdout)

    def place(self, name: str, cores: str = GATEWAY_CORE) -> Place:
        """An empty folder and the mock's address for one start of *name*."""
        return Place(self.cache, self.folder / f"{name}-{time.monotonic_ns()}", self.mock.door.port, cores)


@contextlib.contextmanager
def standing(cache: Path, *, need_wrk: bool = True) -> Iterator[Stand]:
    """
    A stand whose mock answers.

    Raises:
        NotInstalled: wrk cannot be had, or this machine has no second core.
    """
    if len(os.sched_getaffinity(0)) < 2:
        raise install.NotInstalled("measuring needs two cores: one for the gateway, one for its load")
    cache = cache.expanduser()
    cache.mkdir(parents=True, exist_ok=True)
    wrk = install.debian("wrk", ["wrk", "libluajit-5.1-2", "libluajit-5.1-common"], cache) if need_wrk else []
    port = free_port()
    door = Door(port, upstream.MODEL, bearer(upstream.KEY))
    with TemporaryDirectory(prefix="sluicegate-bench-") as temporary:
        folder = Path(temporary)
        log = folder / "mock.txt"
        command = [sys.executable, "-m", "tests.bench.gateway.upstream", "--port", str(port)]
        with processes.running(command, cores=LOAD_CORE, log=log) as child:
            stand = Stand(cache, folder, Running(DIRECT, child.pid, door, 0, 0, log), wrk)
            _await_mock(stand, child)
            yield stand


def _await_mock(stand: Stand, child: subprocess.Popen[bytes]) -> None:
    for _ in range(500):
        if child.poll() is not None:
            break
        with contextlib.suppress(OSError):
            stand.script()
            return
        time.sleep(0.02)
    raise processes.Died(f"the mock did not start: {processes.last_words(stand.mock.log)}")


def answering(
    stand: Stand, contender: Contender, *, cores: str = GATEWAY_CORE
) -> contextlib.AbstractContextManager[Running]:
    """*contender* before the mock of *stand*, once it answers a plain request."""
    place = stand.place(contender.name, cores)
    return started(contender, place, lambda door: chat_body(door.model))
