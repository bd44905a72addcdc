"""The page on compatibility says what is so."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOT_HERE = "needs Node"


@pytest.fixture(scope="module")
def told() -> dict[str, Any]:
    """What the trials found, and the page they make. In a process of its own: clients leak and warn."""
    command = [sys.executable, "-m", "tests.clients.matrix", "--no-write", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode in (0, 1), done.stderr[-3000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_each_client_gets_what_the_page_says(told: dict[str, Any]) -> None:
    failed = {
        f"{module}: {feature}": why
        for module, features in told["found"].items()
        for feature, why in features.items()
        if why and not why.startswith(NOT_HERE)
    }
    assert failed == {}


def test_the_page_is_what_the_trials_make(told: dict[str, Any]) -> None:
    page = (ROOT / "docs" / "reference" / "compatibility.md").read_text()
    assert page == told["page"], "run `python -m tests.clients.matrix`"
