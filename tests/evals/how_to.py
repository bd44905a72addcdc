"""How-to pages, executed: their files are written, their `sh` blocks run one after the other."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "how-to"
BIN = Path(sys.executable).parent
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_NAMED = re.compile(r"# ([\w./-]+\.\w+)\n")


@dataclass
class Page:
    """A page and the folder in which a reader follows it."""

    name: str
    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    """Added to this process's environment."""

    def __post_init__(self) -> None:
        self.text = (PAGES / f"{self.name}.md").read_text()
        fences = _FENCE.findall(self.text)
        self.files = {
            named[1]: text for kind, text in fences if kind != "sh" and (named := _NAMED.match(text))
        }
        """By path: blocks whose first line is a comment with the path."""
        self.waiting = [text for kind, text in fences if kind == "sh"]
        self.shown = [text for kind, text in fences if not kind]
        """Blocks that nobody runs: what a command prints, or what only a person can do."""

    def write(self) -> None:
        """Every file of the page, as it stands there."""
        for name, text in self.files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    def next(self, *, code: int = 0) -> str:
        """Run the next `sh` block; its output, once its exit code is *code*."""
        return self.bash(self.waiting.pop(0), code=code)

    def bash(self, lines: str, *, code: int = 0) -> str:
        """Run *lines* as a person would; both streams, once the exit code is *code*."""
        done = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", lines],
            cwd=self.folder,
            env=self.variables(),
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == code, (lines, done.returncode, done.stdout, done.stderr)
        return done.stdout + done.stderr

    def variables(self) -> dict[str, str]:
        """The environment of a reader's shell: the console scripts come first on the path."""
        inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        return {**inherited, "PATH": path, "NO_COLOR": "1", **self.environment}
