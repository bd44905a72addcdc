"""What is started, how long it may take, and what is known of it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from gateway.engines.process import inherited
from gateway.engines.vllm import command
from registry.entities.engines import VLLMEngine
from registry.errors import BadInput

State = Literal["stopped", "starting", "ready", "waiting", "failed"]


@dataclass(frozen=True, slots=True)
class Launch:
    """What is started, and where it then answers."""

    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(repr=False)
    """All that the process sees."""
    url: str
    """Root of its HTTP, without `/v1`."""
    model: str
    """The name that requests use."""
    log: Path
    api_key: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Patience:
    """Every time that a supervisor may take, in seconds, and how often it tries."""

    start_s: float = 900.0
    """From the start of the process to its first token: loading and compiling included."""
    probe_s: float = 30.0
    """For one token, and for one word of health."""
    probe_pause_s: float = 1.0
    check_every_s: float = 10.0
    """Between two looks at the health of a ready engine."""
    checks_missed: int = 3
    """Looks in a row that find no answer before the engine is restarted."""
    stop_s: float = 30.0
    """From SIGTERM to SIGKILL."""
    first_pause_s: float = 1.0
    """Before the first restart; doubled for each further one."""
    most_pause_s: float = 120.0
    steady_s: float = 600.0
    """Once an engine was ready for so long, pauses and restarts are counted from the beginning."""
    most_restarts: int = 10
    """In a row; after them the engine has failed."""
    log_bytes: int = 20_000_000

    def __post_init__(self) -> None:
        """Refuse times that would spin or never end."""
        times = {
            "start_s": self.start_s,
            "probe_s": self.probe_s,
            "probe_pause_s": self.probe_pause_s,
            "check_every_s": self.check_every_s,
            "stop_s": self.stop_s,
            "first_pause_s": self.first_pause_s,
            "most_pause_s": self.most_pause_s,
            "steady_s": self.steady_s,
        }
        for name, value in times.items():
            if not 0 < value <= 86_400:
                message = f"{name} {value} is not above 0 and at most 86400"
                raise BadInput(message)
        if self.checks_missed < 1 or self.most_restarts < 0 or self.log_bytes < 2048:
            message = "checks_missed is at least 1, most_restarts at least 0, log_bytes at least 2048"
            raise BadInput(message)

    def pause_s(self, failures: int) -> float:
        """
        The pause after so many *failures* in a row.

        >>> [Patience(first_pause_s=1, most_pause_s=5).pause_s(n) for n in (1, 2, 3, 4, 99)]
        [1.0, 2.0, 4.0, 5, 5]
        """
        return min(self.first_pause_s * 2.0 ** min(failures - 1, 32), self.most_pause_s)


@dataclass(frozen=True, slots=True)
class EngineStatus:
    """What a supervisor knows now."""

    state: State
    pid: int | None
    """Of the process, while there is one."""
    restarts: int
    """Since the supervisor was started."""
    ready_s: float | None
    """How long it has been ready; None while it is not."""
    reason: str | None
    """Why the last process ended or the engine failed; secrets masked."""


def local(
    engine: VLLMEngine,
    port: int,
    *,
    log: Path,
    api_key: str | None = None,
    drain_s: int = 20,
    folders: Mapping[str, str] | None = None,
    program: str = "vllm",
) -> Launch:
    """
    *engine* on this machine's loopback, behind a key that nobody else knows.

    Args:
        api_key: None makes one, which `Launch.api_key` then has.
        drain_s: for running answers after SIGTERM; below `Patience.stop_s`, after which SIGKILL comes.
        folders: as for `command`.

    Raises:
        BadInput: as `command`.
    """
    key = api_key or secrets.token_urlsafe(32)
    argv, settings = command(engine, port, api_key=key, drain_s=drain_s, folders=folders, program=program)
    environment = {**inherited(os.environ), **settings}
    return Launch(tuple(argv), environment, f"http://127.0.0.1:{port}", engine.names()[0], log, key)
