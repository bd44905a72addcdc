"""A run of 2,000 rows with a tenth of the calls failing, killed three times: it ends, and pays once."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from aiohttp import web

from registry import judges
from registry.clock import utc_now
from registry.entities import JudgeContent
from registry.settings import RegistrySettings
from registry.workspace import open_workspace

ROWS = 2000
CONCURRENCY = 50
KINDS = ("malformed", "429", "500", "hang_up", "slow")
FAULTY = {"subject": 3, "judge": 7}
"""The last digit of the questions that a model has a fault for."""
SUITE = """name: faults
release: faults
judge: fair
max_error_share: 0.2
dataset: {path: rows.jsonl}
checks:
  - {name: right, system: chat, metric: exact, at_least: 0.5}
  - {name: judged, system: chat, metric: judge, at_least: 0.5, tier: advisory}
"""
EVALS = (sys.executable, "-c", "from evals.cli import main; main()")


class Server:
    """Answers `question N` with `answer N`, and judges; a tenth of the questions have a fault."""

    def __init__(self) -> None:
        self.url = ""
        self.answered: Counter[tuple[str, int]] = Counter()
        """(model, question) → how often a good answer was sent whole."""
        self.asked: Counter[tuple[str, int]] = Counter()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        number = int(re.findall(r"question (\d+)", json.dumps(body["messages"]))[-1])
        key = (body["model"], number)
        self.asked[key] += 1
        await asyncio.sleep(0.02)
        fault = KINDS[number // 10 % len(KINDS)] if number % 10 == FAULTY[body["model"]] else ""
        if fault == "slow":
            await asyncio.sleep(5)
        if fault == "hang_up":
            assert request.transport is not None
            request.transport.close()
            return web.Response()
        if fault == "429" and self.asked[key] == 1:
            return web.json_response({"error": {"code": "slow_down"}}, status=429)
        if fault == "500":
            return web.json_response({"error": {"code": "broken"}}, status=500)
        text = f"answer {number}"
        if body["model"] == "judge":
            text = json.dumps({"reason": "It is.", "verdict": "pass"})
        if fault == "malformed":
            return web.Response(text='{"choices": [{"message"', content_type="application/json")
        message = {"role": "assistant", "content": text}
        response = web.json_response({"choices": [{"message": message, "finish_reason": "stop"}]})
        self.answered[key] += 1
        return response


@contextmanager
def serve() -> Iterator[Server]:
    server, loop = Server(), asyncio.new_event_loop()

    async def start() -> web.AppRunner:
        application = web.Application()
        application.router.add_post("/v1/chat/completions", server.handle)
        runner = web.AppRunner(application, shutdown_timeout=0)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    runner = asyncio.run_coroutine_threadsafe(start(), loop).result(10)
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    try:
        yield server
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    rows = ({"id": f"q{i}", "query": f"question {i}", "answers": [f"answer {i}"]} for i in range(ROWS))
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "suite.yaml").write_text(SUITE)
    settings = RegistrySettings(home=tmp_path / ".sluicegate")
    with open_workspace(settings) as workspace, workspace.writing() as connection:
        judge = JudgeContent("openai/judge", "The answer names the question's number.")
        judges.push(connection, "fair", judge, actor="ann", now=utc_now())
    return tmp_path


def test_faults_are_counted_kills_are_survived_and_nothing_is_paid_twice(folder: Path) -> None:
    with serve() as server:
        target = ("run", "suite.yaml", "--release", f"{server.url}#subject", "--judge-url", server.url)
        command = [*EVALS, *target, "--concurrency", str(CONCURRENCY), "--json"]
        environment = {
            **os.environ,
            "SLUICEGATE_JUDGE_KEY": "sk-judge",
            "SLUICEGATE_TARGET_KEY": "sk-target",
            "SLUICEGATE_EVALS__TIMEOUT_S": "1",
            "SLUICEGATE_EVALS__RETRIES": "1",
        }
        kills = 0
        for share in (0.15, 0.5, 1.2):
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE)
            reached = _until(partial(_reached, server, share * ROWS), process)
            process.kill()
            process.communicate(timeout=30)
            kills += reached
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
    report = json.loads(done.stdout)
    assert kills == 3
    assert (done.returncode, report["verdict"], report["samples"]) == (0, "pass", ROWS)
    errors = {(kind["role"], kind["kind"]): kind["count"] for kind in report["error_kinds"]}
    faulty = {kind: sum(1 for i in range(3, ROWS, 10) if KINDS[i // 10 % 5] == kind) for kind in KINDS}
    assert errors == {
        ("candidate", "bad_answer"): faulty["malformed"],
        ("candidate", "http_500"): faulty["500"],
        ("candidate", "connection"): faulty["hang_up"],
        ("candidate", "timeout"): faulty["slow"],
        ("judge", "judge_bad_answer"): faulty["malformed"],
        ("judge", "judge_http_500"): faulty["500"],
        ("judge", "judge_connection"): faulty["hang_up"],
        ("judge", "judge_timeout"): faulty["slow"],
    }
    right, judged = report["checks"]
    broken = sum(faulty.values()) - faulty["429"]
    assert (right["n"], right["value"]) == (ROWS, pytest.approx((ROWS - broken) / ROWS))
    assert (judged["n"], judged["missing"]) == (ROWS - broken, broken)
    repeated = sum(times - 1 for times in server.answered.values())
    assert repeated <= kills * CONCURRENCY  # only what was under way when it was killed
    assert max(server.answered.values()) <= 1 + kills


def _reached(server: Server, answers: float) -> bool:
    return len(server.answered) >= answers


def _until(holds: Callable[[], bool], process: subprocess.Popen[bytes]) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        if holds():
            return True
        time.sleep(0.01)
    return False
