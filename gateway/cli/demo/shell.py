"""Runs the real commands, as a person would, and shows them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

TIMEOUT_S = 900


class StepFailed(Exception):
    """A command of the demo did not do what it should; the message has its last words."""


class Shell:
    """A folder to run commands in and a place to talk to."""

    def __init__(self, folder: Path, *, quiet: bool) -> None:
        """Run in *folder*; talk on standard output, or on standard error when *quiet*."""
        self.folder = folder
        self.out = sys.stderr if quiet else sys.stdout
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("SLUICEGATE_")},
            "SLUICEGATE_ACTOR": os.environ.get("SLUICEGATE_ACTOR", "demo"),
            "SLUICEGATE_CONFIG": str(folder / "sluicegate.yaml"),
        }

    def say(self, text: str) -> None:
        """Print *text*."""
        print(text, file=self.out, flush=True)

    def heading(self, name: str, sentence: str) -> None:
        """Open a step."""
        self.say(f"\n── {name} ── {sentence}")

    def command(self, line: str) -> list[str]:
        """The argument vector of a command line whose first word is one of our console scripts."""
        words = shlex.split(line)
        script = Path(sys.executable).parent / words[0]
        return [str(script), *words[1:]] if script.exists() else words

    def run(
        self, line: str, *, codes: tuple[int, ...] = (0,), environment: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """
        Show and run a command that ends in --json; returns its object with its `exit_code`.

        Raises:
            StepFailed: another exit code than one of *codes*, no JSON, or no end in 15 minutes.
        """
        shown = " ".join(f"{key}={value}" for key, value in (environment or {}).items())
        self.say(f"$ {shown + ' ' if shown else ''}{line}")
        terminal = sys.stderr.isatty()
        try:
            done = subprocess.run(
                self.command(line),
                cwd=self.folder,
                env={**self.environment, **(environment or {})},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=None if terminal else subprocess.PIPE,
                timeout=TIMEOUT_S,
                check=False,
                text=True,
            )
        except subprocess.TimeoutExpired as error:
            raise StepFailed(f"`{line}` did not end within {TIMEOUT_S} s") from error
        last = done.stdout.strip().splitlines()
        if done.returncode not in codes:
            words = "\n".join([*(done.stderr or "").strip().splitlines()[-15:], *last[-1:]])
            raise StepFailed(f"`{line}` ended with {done.returncode}, not {codes}\n{words}")
        try:
            answer = json.loads(last[-1]) if last else {}
        except ValueError as error:
            raise StepFailed(f"`{line}` printed no JSON") from error
        return {**answer, "exit_code": done.returncode}

    def refused(self, line: str, code: str, environment: Mapping[str, str] | None = None) -> str:
        """
        Run a promotion that must be refused with the error *code*; returns the reason.

        Raises:
            StepFailed: it went through, or was refused for another reason.
        """
        answer = self.run(line, codes=(1, 3), environment=environment)
        error = answer.get("error", {})
        if error.get("code") != code:
            raise StepFailed(f"`{line}` was refused with {error.get('code')!r}, not {code!r}")
        self.say(f"  refused: {code}: {error['message']}")
        return str(error["message"])
