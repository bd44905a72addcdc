"""The official Node client; `test_openai_node.py` tries it in depth."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.clients.rows.expected import ARGUMENTS, CITY
from tests.fakes.parts import CLIENT_KEY
from tests.fakes.stand import Stand

NAME, PACKAGE = "openai (Node)", None
HERE = Path(__file__).parent.parent / "node"
INSTALLED = HERE / "node_modules" / "openai" / "package.json"


def missing() -> str | None:
    """Why this client cannot be tried here; None where it can."""
    if shutil.which("node") is not None and INSTALLED.exists():
        return None
    return "needs Node and `npm ci --prefix tests/clients/node --ignore-scripts`"


def version() -> str:
    """The version that is installed, without its patch."""
    lock = json.loads((HERE / "package-lock.json").read_text())
    return ".".join(lock["packages"]["node_modules/openai"]["version"].split(".")[:2])


def _plays(scenario: str, expected: object, answer: str = "forty two") -> Callable[[Stand], None]:
    def trial(stand: Stand) -> None:
        stand.up.answer = answer
        done = subprocess.run(
            ["node", str(HERE / "matrix.mjs"), f"{stand.url}/v1", CLIENT_KEY],
            input=f"{scenario}\n",
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
        told = json.loads(done.stdout.splitlines()[0])
        assert told == {"result": expected}, told

    return trial


_CALLS = [["call_1", "weather", ARGUMENTS], ["call_2", "time", ARGUMENTS]]
TRIALS = {
    "plain": _plays("plain", {"text": "forty two", "usage": 9}),
    "stream": _plays("stream", {"text": "forty two", "usage": 3}),
    "tools": _plays("tools", {"plain": _CALLS, "streamed": _CALLS}, ARGUMENTS),
    "structured output": _plays("parse", json.loads(CITY), CITY),
    "embeddings": _plays("embeddings", {"usual": [[0.25, -0.5]] * 2, "floats": [0.25, -0.5]}),
}
