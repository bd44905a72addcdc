"""One piece of work: rows, a suite and a judge; run by `evals run` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[3]
_EVALS = (sys.executable, "-c", "from evals.cli import main; main()")
_REGISTRY = (sys.executable, "-c", "from registry.cli import main; main()")
_LONGEST_S = 900


@dataclass(frozen=True, slots=True)
class Spent:
    """What a process cost."""

    name: str
    rows: int
    seconds: float
    cpu_seconds: float
    rss_mb: int
    """Its most resident memory; of processes it started, the largest."""
    errors: int = 0

    @property
    def cpu_ms_a_row(self) -> float:
        """Milliseconds of CPU for each row, start and end of the process included."""
        return self.cpu_seconds / self.rows * 1000


@contextmanager
def mock(latency_ms: float) -> Iterator[str]:
    """The endpoint's address, up to /v1."""
    command = [sys.executable, "-m", "tests.bench.evals.mock", "--latency-ms", str(latency_ms)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.wait(timeout=10)
        if process.stdout is not None:
            process.stdout.close()


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder with rows, a suite, a registry of its own and a judge in it."""

    path: Path
    rows: int

    def environment(self) -> dict[str, str]:
        """Of every process that works here."""
        return {**os.environ, "SLUICEGATE_JUDGE_KEY": "sk-bench"}

    def command(self, url: str, *more: str, concurrency: int = 50) -> list[str]:
        """`evals run` against the mock at *url*, which is both release and judge."""
        target = ("run", "suite.yaml", "--release", f"{url}#subject", "--judge-url", url)
        return [*_EVALS, *target, "--concurrency", str(concurrency), *more]


def make(path: Path, rows: int, checks: Sequence[dict[str, object]]) -> Folder:
    """A folder at *path* with so many rows whose answers the mock knows."""
    path.mkdir(parents=True)
    with (path / "rows.jsonl").open("w") as file:
        for at in range(rows):
            row = {"id": f"q{at}", "query": f"question {at}", "answers": [f"answer {at}"]}
            file.write(json.dumps(row) + "\n")
    suite = {"name": "bench", "release": "bench", "judge": "fair", "dataset": {"path": "rows.jsonl"}}
    (path / "suite.yaml").write_text(yaml.safe_dump({**suite, "checks": list(checks)}))
    judge = {
        "name": "fair",
        "judge": {"model": "openai/judge", "rubric": "The answer names the number asked."},
    }
    (path / "judge.yaml").write_text(yaml.safe_dump(judge))
    folder = Folder(path, rows)
    subprocess.run(
        [*_REGISTRY, "judges", "push", "judge.yaml"],
        cwd=path,
        env=folder.environment(),
        check=True,
        timeout=120,
        capture_output=True,
    )
    return folder


def spend(name: str, rows: int, command: Sequence[str], cwd: Path, environment: dict[str, str]) -> Spent:
    """
    Run *command* to its end; CPU and memory are those of its process and all it waited for.

    Raises:
        RuntimeError: it failed; the message ends with its last words.
    """
    script = (
        "import json, resource, subprocess, sys, time\n"
        "began = time.perf_counter()\n"
        "done = subprocess.run(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(json.dumps([done.returncode, time.perf_counter() - began, used.ru_utime + used.ru_stime,"
        " used.ru_maxrss // 1024, done.stdout[-4000:]]))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, *command],
        cwd=cwd,
        env=environment,
        check=True,
        timeout=_LONGEST_S,
        capture_output=True,
        text=True,
    )
    code, seconds, cpu, rss, words = json.loads(done.stdout)
    if code not in (0, 1, 2):
        raise RuntimeError(f"{name} ended with {code}: {words[-1500:]}")
    said = _last_json(words)
    return Spent(name, rows, seconds, cpu, rss, int(said.get("errors", 0)))


def _last_json(words: str) -> dict[str, int]:
    lines = [line for line in words.splitlines() if line.startswith("{")]
    try:
        found = json.loads(lines[-1]) if lines else {}
    except ValueError:
        found = {}
    return found if isinstance(found, dict) else {}
