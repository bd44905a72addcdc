"""The validators that the dev group installs beside this interpreter, and where their input lies."""

from __future__ import annotations

import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"


def complaints(tool: str, *arguments: str | Path) -> str:
    """What *tool* says against the files it is given; empty where it accepts them."""
    command = Path(sysconfig.get_path("scripts")) / tool
    assert command.is_file(), f"{tool} is missing beside {command.parent}: install the dev group"
    done = subprocess.run(
        [command, *map(str, arguments)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    return "" if done.returncode == 0 else f"exit {done.returncode}\n{done.stdout}{done.stderr}"


def read(path: Path) -> Any:
    """The one YAML document of *path*."""
    return yaml.safe_load(path.read_text())
