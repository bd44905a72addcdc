from __future__ import annotations

import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from random import Random
from statistics import fmean, stdev

import pytest

from evals.checks import Check
from evals.cost import Purse
from evals.dataset import Sample
from evals.live import Live, Tally
from evals.metrics.text import exact, token_f1
from evals.stats import wilson
from evals.systems.base import Output
from tests.evals.conftest import Project
from tests.evals.fake_gateway import Release


def test_a_tally_is_the_mean_and_spread_of_what_it_was_told() -> None:
    draw = Random(1)
    values = [draw.betavariate(4, 2) for _ in range(400)]
    tally = Tally()
    for value in values:
        tally.add(value)
    half = 1.959963984540054 * stdev(values) / 20
    found = tally.interval(0.0, 1.0)
    assert (found.low, found.high) == pytest.approx((fmean(values) - half, fmean(values) + half))


def test_right_and_wrong_get_wilsons_interval() -> None:
    tally = Tally()
    for value in (1.0, 0.0, 1.0, 1.0):
        tally.add(value)
    assert tally.interval(0.0, 1.0) == wilson(3, 4)


def test_the_check_that_decides_is_watched() -> None:
    checks = [
        Check("chat", "token_f1", "wording", at_least=0.5, tier="advisory"),
        Check("chat", "exact", "right", at_least=0.5),
    ]
    live = Live(checks, {"wording": token_f1, "right": exact}, Purse())
    assert live.text() == ""
    sample = Sample("a", "sha256:0", "q", answers=("yes",))
    live.answered(sample, Output(1.0, text="yes"))
    live.answered(sample, Output(1.0, text="no"))
    assert live.text() == "right 0.50 [0.09, 0.91]"


ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SUITE = """name: support-quality
release: support
dataset: {path: rows.jsonl}
checks: [{name: right, system: chat, metric: contains, at_least: 0.5}]
"""


def test_a_terminal_shows_the_running_interval(project: Project) -> None:
    project.questions(40)
    project.suite(SUITE)
    version = project.chat_release()
    project.gateway.releases["support@candidate"] = Release(
        version.digest, lambda question: question.replace("question", "answer")
    )
    said = in_terminal(["run", "suite.yaml", "--no-submit"], project.folder)
    assert "0:00:00 right 1.00 [0.91, 1.00]" in ESCAPES.sub("", said)  # behind the bar, not in the report


def in_terminal(words: list[str], folder: Path) -> str:
    """What `evals` writes to a terminal of its own."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from evals.cli import main; main()", *words]
    environment = {**os.environ, "COLUMNS": "160", "TERM": "xterm"}
    with subprocess.Popen(
        command, cwd=folder, env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        found = bytearray()
        while select.select([ours], [], [], 30)[0]:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # the terminal is closed when its last user ends
                break
            if not piece:
                break
            found += piece
        assert process.wait(10) == 0, found.decode()[-2000:]
    os.close(ours)
    return found.decode()
