"""
promptfoo's `equals` and `llm-rubric`: `python -m tests.bench.evals.peers.promptfoo_run --program PATH`.

PATH is `node_modules/.bin/promptfoo` after `npm install promptfoo node@22` (it needs Node 22.22); that folder
is put first on PATH. The CPU is that of its processes, their start included. Two calls a row: one for the
answer, one for the rubric.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.bench.evals.peers.work import Work, asked, measure

QUIET = {
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_DISABLE_SHARING": "1",
    "NO_COLOR": "1",
}


def config(work: Work) -> dict[str, Any]:
    """promptfoo's configuration."""
    endpoint = {"apiBaseUrl": work.url, "apiKey": "none", "temperature": 0}
    rubric = {"type": "llm-rubric", "value": "It is right.", "provider": provider("judge", endpoint)}
    return {
        "prompts": ["{{q}}"],
        "providers": [provider("answers", endpoint)],
        "tests": [
            {"vars": {"q": f"question {i}"}, "assert": [{"type": "equals", "value": f"answer {i}"}, rubric]}
            for i in range(work.rows)
        ],
    }


def provider(model: str, endpoint: dict[str, Any]) -> dict[str, Any]:
    """A model at the endpoint."""
    return {"id": f"openai:chat:{model}", "config": endpoint}


def evaluate(work: Work, folder: Path) -> int:
    """How many rows failed."""
    (folder / "promptfooconfig.json").write_text(json.dumps(config(work)))
    command = [work.program, "eval", "-c", "promptfooconfig.json", "--no-cache", "--no-table", "--no-write"]
    more = ["--no-progress-bar", "-j", str(work.concurrency), "-o", "out.json"]
    path = f"{Path(work.program).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | QUIET | {"PROMPTFOO_CONFIG_DIR": str(folder / "state"), "PATH": path}
    subprocess.run(
        [*command, *more],
        cwd=folder,
        env=environment,
        stdout=sys.stderr,
        stdin=subprocess.DEVNULL,
        timeout=1800,
        check=False,
    )
    stats = json.loads((folder / "out.json").read_text())["results"]["stats"]
    return work.rows - int(stats["successes"])


def main() -> None:
    """Run and print."""
    work = asked("promptfoo with exact match and one rubric a row")
    if not work.program:
        raise SystemExit("--program names promptfoo's executable")
    with tempfile.TemporaryDirectory() as folder:
        measure(work, lambda: evaluate(work, Path(folder)), children=True)


if __name__ == "__main__":
    main()
