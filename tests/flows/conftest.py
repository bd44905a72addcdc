"""One project, brought to production by the tutorial's own commands; the gateway stays up for the tests."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

ROOT = Path(__file__).parent.parent.parent
TUTORIAL = ROOT / "docs" / "tutorial" / "first-release.md"
BIN = Path(sys.executable).parent


@dataclass(frozen=True)
class Project:
    """The folder the tutorial made, and how to reach its gateway."""

    folder: Path
    url: str
    key: str
    output: str

    def run(self, line: str, *, code: int = 0, env: dict[str, str] | None = None) -> Any:
        """Run a console script with --json and return its object."""
        words = [*line.split(), "--json"]
        done = subprocess.run(
            [str(BIN / words[0]), *words[1:]],
            cwd=self.folder,
            env={**environment(), "SLUICEGATE_API_KEY": self.key, **(env or {})},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return json.loads(done.stdout.strip().splitlines()[-1])

    def client(self) -> OpenAI:
        """The official client, without retries."""
        return OpenAI(base_url=f"{self.url}/v1", api_key=self.key, max_retries=0, timeout=60)


def environment() -> dict[str, str]:
    """This process's environment without settings, with the console scripts first on the path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SLUICEGATE_")}
    return {**kept, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "PYTHONUNBUFFERED": "1"}


def blocks(text: str) -> list[str]:
    """The shell blocks of a document, in order."""
    return re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(scope="session")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Run every command of the tutorial but the last section's; stop the gateway at the end."""
    folder, port = tmp_path_factory.mktemp("tutorial"), free_port()
    text = TUTORIAL.read_text().replace("127.0.0.1:8080", f"127.0.0.1:{port}")
    *run, stop = blocks(text)
    assert stop.strip() == "kill %1"
    script = folder / "tutorial.sh"
    ending = f'echo "$SLUICEGATE_API_KEY" > {folder}/key; jobs -p > {folder}/pid; disown -a'
    script.write_text("\n".join(["set -euxo pipefail", *run, ending]))
    log = folder / "log"
    settings = {
        "SLUICEGATE_GATEWAY__PORT": str(port),
        "SLUICEGATE_EVALS__GATEWAY": f"http://127.0.0.1:{port}",
    }
    with log.open("w") as out:
        done = subprocess.run(
            ["bash", str(script)],
            cwd=folder,
            env={**environment(), **settings},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            timeout=900,
            check=False,
            start_new_session=True,
        )
    pid_file = folder / "pid"
    try:
        assert done.returncode == 0, log.read_text()[-6000:]
        key = (folder / "key").read_text().strip()
        yield Project(folder / "my-assistant", f"http://127.0.0.1:{port}", key, log.read_text())
    finally:
        if pid_file.exists():
            os.kill(int(pid_file.read_text().split()[0]), signal.SIGTERM)
