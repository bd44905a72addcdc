"""What the demo knows so far, and the gateway it runs."""

from __future__ import annotations

import contextlib
import json
import select
import signal
import subprocess
import time
from collections.abc import Callable
from typing import Any

import yaml

from gateway.cli.demo.shell import Shell, StepFailed

READY_S = 120


class Story:
    """The state that one step leaves for the next."""

    def __init__(self, shell: Shell, model: str, port: int) -> None:
        """Tell it in *shell*, with *model* behind the assistant."""
        self.shell = shell
        self.model = model
        self.port = port
        self.url = ""
        self.key = ""
        self.question = ""
        self.answer = ""
        self.releases: dict[str, dict[str, str]] = {}
        self.facts: dict[str, Any] = {}
        self._gateway: subprocess.Popen[str] | None = None

    @property
    def has_llm(self) -> bool:
        """Whether the assistant gets a language model beside the extractive baseline."""
        return not self.model.startswith("extractive/")

    def use_model(self) -> None:
        """Put the chosen model into releases/support.yaml, unless it is the one that stands there."""
        path = self.shell.folder / "releases" / "support.yaml"
        release = yaml.safe_load(path.read_text())
        if release["model"] == self.model:
            return
        release["model"] = self.model
        release.pop("model_digest", None)
        release["parameters"] = {"temperature": 0, "max_tokens": 32}
        path.write_text(yaml.safe_dump(release, sort_keys=False))

    def start(self) -> None:
        """
        Start the gateway and wait until it is ready.

        Raises:
            StepFailed: it ended, or was not ready in time.
        """
        line = f"gateway serve --port {self.port} --json"
        self.shell.say(f"$ {line} &")
        log = (self.shell.folder / "gateway.log").open("w")
        self._gateway = subprocess.Popen(
            self.shell.command(line),
            cwd=self.shell.folder,
            env=self.shell.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,
        )
        log.close()
        assert self._gateway.stdout is not None  # noqa: S101 - a pipe was asked for
        ready, _, _ = select.select([self._gateway.stdout], [], [], READY_S)
        text = self._gateway.stdout.readline() if ready else ""
        if not text:
            words = (self.shell.folder / "gateway.log").read_text()[-2000:]
            raise StepFailed(f"the gateway did not start:\n{words}")
        self.url = str(json.loads(text)["url"])
        self.shell.environment["SLUICEGATE_EVALS__GATEWAY"] = self.url
        self.shell.say(f"  serving {self.url}")

    def wait(self) -> None:
        """Block until the gateway ends by itself."""
        if self._gateway is not None:
            self._gateway.wait()

    def stop(self) -> None:
        """Stop the gateway, gently first; it has 15 seconds. Idempotent."""
        if self._gateway is None or self._gateway.poll() is not None:
            return
        self._gateway.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._gateway.wait(timeout=15)
            return
        self._gateway.kill()
        self._gateway.wait(timeout=5)

    def until(self, what: str, seconds: float, check: Callable[[], bool]) -> float:
        """
        Ask *check* every 20 ms until it is true; returns the milliseconds that took.

        Raises:
            StepFailed: it was still false after *seconds*.
        """
        began = time.monotonic()
        while not check():
            if time.monotonic() - began > seconds:
                raise StepFailed(f"{what} did not happen within {seconds:g} s")
            time.sleep(0.02)
        return round((time.monotonic() - began) * 1000, 1)
