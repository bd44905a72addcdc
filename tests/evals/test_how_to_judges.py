"""The page about judges, followed from a judge that nobody knows to one that decides."""

from __future__ import annotations

import json
import os
import pty
import re
import shlex
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from tests.evals.conftest import Project
from tests.evals.fake_gateway import Release
from tests.evals.fake_judge import KEY, FakeJudge, serve_judge
from tests.evals.how_to import BIN, Page


def is_right(question: str) -> bool:
    """Whether the release answers it: three questions of four."""
    return int(question.rsplit(maxsplit=1)[-1]) % 4 > 0


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    """A judge that passes what is right, whatever model it is asked for."""

    def say(body: Any) -> str:
        asked = re.search(r"BEGIN question\n(question \d+)", body["messages"][-1]["content"])
        assert asked is not None, body["messages"]
        return json.dumps({"reason": "It was read.", "verdict": "pass" if is_right(asked[1]) else "fail"})

    with serve_judge(FakeJudge(say)) as served:
        yield served


@pytest.fixture
def page(project: Project, judge: FakeJudge) -> Page:
    """A release in the registry whose answers are mostly right, and the page's files."""
    project.questions(240)
    (project.folder / "rows.jsonl").rename(project.folder / "questions.jsonl")
    version = project.chat_release("anthropic/claude-5")
    project.gateway.releases["support@candidate"] = Release(
        version.digest, lambda asked: f"It is {asked}." if is_right(asked) else "I do not know."
    )
    servers = {"SLUICEGATE_JUDGE_URL": judge.url, "SLUICEGATE_JUDGE_KEY": KEY}
    found = Page("calibrate-a-judge", project.folder, servers)
    found.write()
    return found


def label(page: Page, command: str) -> int:
    """Label at a terminal as somebody who reads every answer; how many were shown."""
    words = shlex.split(command)
    ours, theirs = pty.openpty()
    shown = 0
    with subprocess.Popen(
        [BIN / words[0], *words[1:]],
        cwd=page.folder,
        env=page.variables(),
        stdin=theirs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(theirs)
        assert process.stderr is not None
        seen = b""
        while piece := os.read(process.stderr.fileno(), 65536):
            seen += piece
            if seen.endswith(b"[q]uit: "):
                shown += 1
                os.write(ours, b"b\n" if b"Answer: I do not know." in seen else b"g\n")
                seen = b""
        assert process.wait(30) == 0, seen
    os.close(ours)
    return shown


def test_a_judge_advises_until_people_agree_with_it(page: Page, judge: FakeJudge) -> None:
    page.next()
    first = page.next(code=2)
    assert "not calibrated: run `evals calibrate`" in first
    assert "60 answers for ann, bob" in page.next()
    assert [label(page, line) for line in page.shown[0].splitlines()] == [60, 60]
    assert "kappa ann/bob" in page.next()
    rows = [json.loads(line) for line in (page.folder / "labels.jsonl").read_text().splitlines()]
    assert len(rows) == 60
    assert [row["labels"] for row in rows] == [
        dict.fromkeys(("ann", "bob"), "good" if is_right(row["query"]) else "bad") for row in rows
    ]
    calibrated = page.next()
    assert "judge fair: calibrated until" in calibrated
    assert "judge fair:2  sha256:" in calibrated
    lines = [line.strip() for line in calibrated.splitlines()[1:-1] if "failed ratings" not in line]
    unread = [line for line in lines if not line.startswith(("rows", "ratings", *explained(page)))]
    assert (len(lines) > 6, unread) == (True, [])
    assert "PASS" in page.next()
    asked = len(judge.bodies)
    assert "judge panel: calibrated until" in page.next()
    assert {body["model"] for body in judge.bodies[asked:]} == {"gpt-5", "llama-4", "qwen3"}
    assert page.waiting == []


def explained(page: Page) -> tuple[str, ...]:
    """How the lines begin that the page tells how to read."""
    table = page.text.partition("| Line | Read it so |")[2].partition("\n\n")[0]
    return tuple(re.findall(r"`([^`]+)`", table))
