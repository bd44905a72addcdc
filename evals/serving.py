"""A gateway for one run: started on a free port where none is running, and stopped after it."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

from evals.errors import GatewayUnreachable, KeyMissing

READY_S = 120
"""How long a gateway may take to load what it serves."""
_KEY_HOURS = 24


@dataclass(frozen=True, slots=True)
class Serving:
    """Where to ask, and with which key."""

    url: str
    key: str = field(repr=False)
    started: bool = False
    """Whether the gateway is this run's own."""


@contextmanager
def gateway_for(url: str, key: str, *, named: bool, release: str) -> Iterator[Serving]:
    """
    The gateway at *url*, or one of this run's own where nothing listens there and nobody named it.

    The own one serves the same registry on a free loopback port, with a key for *release* alone that expires
    after a day and is revoked when the run ends.

    Args:
        named: whether *url* was named; then another gateway is never started instead.

    Raises:
        GatewayUnreachable: it did not start; the message ends with its last words.
        KeyMissing: a gateway is running, and there is no key for it.
    """
    if named or _listens(url):
        if not key:
            raise KeyMissing
        yield Serving(url, key)
        return
    with TemporaryDirectory(prefix="sluicegate-gateway-") as folder:
        made = _gateway(("keys", "create", "--name", f"evals-run-{os.getpid()}", "--models", release,
                         "--expires-days", str(_KEY_HOURS / 24), "--json"))  # fmt: skip
        log = Path(folder) / "gateway.log"
        with log.open("w") as words:
            process = subprocess.Popen(
                _command(("serve", "--port", "0", "--json")),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                start_new_session=True,
            )
        try:
            yield Serving(_ready(process, log), str(made["key"]), started=True)
        finally:
            _stop(process)
            _gateway(("keys", "revoke", str(made["id"]), "--json"))


def _listens(url: str) -> bool:
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=2):
            return True
    except OSError:
        return False


def _ready(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None  # noqa: S101 - a pipe was asked for
    ready, _, _ = select.select([process.stdout], [], [], READY_S)
    line = process.stdout.readline() if ready else ""
    try:
        return str(json.loads(line)["url"])
    except (ValueError, KeyError, TypeError):
        words = log.read_text(errors="replace").strip()[-1000:]
        raise GatewayUnreachable(f"no gateway was running, and starting one failed: {words}") from None


def _stop(process: subprocess.Popen[str]) -> None:
    """Gently first; it has 15 seconds."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=15)
    if process.poll() is None:
        process.kill()
        process.wait(timeout=5)
    if process.stdout is not None:
        process.stdout.close()


def _gateway(words: Sequence[str]) -> dict[str, object]:
    done = subprocess.run(_command(words), capture_output=True, text=True, timeout=60, check=False)
    try:
        answer = json.loads(done.stdout)
    except ValueError:
        answer = {}
    if done.returncode or not isinstance(answer, dict):
        told = answer.get("error", {}) if isinstance(answer, dict) else {}
        reason = told.get("message") if isinstance(told, dict) else done.stderr.strip()[-500:]
        raise GatewayUnreachable(
            f"no gateway was running, and `gateway {' '.join(words[:2])}` failed: {reason}"
        )
    return answer


def _command(words: Sequence[str]) -> list[str]:
    """The gateway's command line of this very installation."""
    return [sys.executable, "-c", "from gateway.cli import main; main()", *words]
