"""What every contender says of itself, and how one is started until it answers."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.gateway import processes

CLIENT_KEY = "sk-bench-client-0123456789abcdef0123456789"
PATH = "/v1/chat/completions"
READY_LIMIT_S = 120.0


@dataclass(frozen=True, slots=True)
class Place:
    """Where a contender runs."""

    cache: Path
    """Holds what was installed; kept between runs."""
    folder: Path
    """Empty folder of this start; thrown away afterwards."""
    upstream_port: int
    cores: str
    """Cores the contender is pinned to, as taskset takes them."""

    @property
    def upstream_url(self) -> str:
        """OpenAI base URL of the mock upstream."""
        return f"http://127.0.0.1:{self.upstream_port}/v1"


@dataclass(frozen=True, slots=True)
class Door:
    """How a client calls a contender."""

    port: int
    model: str
    headers: Mapping[str, str]

    @property
    def head(self) -> str:
        """The request line and headers of one call, without content-length and the empty line."""
        lines = [f"POST {PATH} HTTP/1.1", f"host: 127.0.0.1:{self.port}"]
        return "\r\n".join([*lines, *(f"{key}: {value}" for key, value in self.headers.items())]) + "\r\n"


@dataclass(frozen=True, slots=True)
class Launch:
    """The process to start."""

    command: Sequence[str]
    door: Door
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Contender:
    """One gateway: *install* gives its version or raises NotInstalled; *launch* prepares one start."""

    name: str
    install: Callable[[Path], str]
    launch: Callable[[Place], Launch]
    note: str
    """What of key check, metrics and usage is on in this set-up."""


@dataclass(frozen=True, slots=True)
class Running:
    """A contender that answers."""

    name: str
    pid: int
    door: Door
    ready_s: float
    ready_cpu_s: float
    log: Path


def bearer(key: str) -> dict[str, str]:
    """The headers of a JSON call with *key*."""
    return {"authorization": f"Bearer {key}", "content-type": "application/json"}


def free_port() -> int:
    """A TCP port that nobody listens on right now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def environment(cache: Path, more: Mapping[str, str]) -> dict[str, str]:
    """The environment of a start: Python keeps its bytecode, as it does where users install."""
    base = {
        key: value
        for key, value in os.environ.items()
        if key != "PYTHONDONTWRITEBYTECODE" and not key.startswith("SLUICEGATE_")
    }
    return base | {"PYTHONPYCACHEPREFIX": str(cache / "bytecode"), "COLUMNS": "200"} | dict(more)


def ask(door: Door, body: bytes, timeout_s: float = 30.0) -> tuple[int, bytes]:
    """
    Status and body of one call.

    Raises:
        OSError, http.client.HTTPException: nobody answers.
    """
    connection = http.client.HTTPConnection("127.0.0.1", door.port, timeout=timeout_s)
    try:
        connection.request("POST", PATH, body, dict(door.headers))
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


@contextlib.contextmanager
def started(contender: Contender, place: Place, body: Callable[[Door], str]) -> Iterator[Running]:
    """
    *contender*, from its first right answer to *body* on until the block ends.

    Raises:
        processes.Died: it ended, or gave no right answer within two minutes.
    """
    place.folder.mkdir(parents=True, exist_ok=True)
    launch = contender.launch(place)
    log = place.folder / "output.txt"
    request = body(launch.door).encode()
    environ = environment(place.cache, launch.env)
    begun = time.monotonic()
    with processes.running(
        launch.command, cores=place.cores, log=log, env=environ, cwd=place.folder
    ) as child:
        status, answer = 0, b""
        while status != 200:
            if child.poll() is not None:
                words = processes.last_words(log)
                raise processes.Died(f"{contender.name} ended with {child.returncode}: {words}")
            if time.monotonic() - begun > READY_LIMIT_S:
                words = f"{status} {answer[:300]!r} {processes.last_words(log)}"
                raise processes.Died(f"{contender.name} gave no right answer: {words}")
            with contextlib.suppress(OSError, http.client.HTTPException):
                status, answer = ask(launch.door, request)
            if status != 200:
                time.sleep(0.02)
        ready_s = time.monotonic() - begun
        ready_cpu_s = processes.cpu_s(child.pid)
        yield Running(contender.name, child.pid, launch.door, ready_s, ready_cpu_s, log)
