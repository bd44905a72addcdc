"""What /proc says of a tree of processes, and that a tree ends as a whole."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bench.gateway import install, processes

SLEEPER = "import time; time.sleep(60)"
PARENT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEPER!r}]).wait()"
BURNER = "import time\nend = time.process_time() + 0.3\nwhile time.process_time() < end: pass\ntime.sleep(60)"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_tree_holds_the_children_and_ends_with_them(tmp_path: Path) -> None:
    with processes.running([sys.executable, "-c", PARENT], cores="0", log=tmp_path / "log") as child:
        until(lambda: len(processes.tree(child.pid)) == 2)
        members = processes.tree(child.pid)
        assert os.sched_getaffinity(child.pid) == {0}
        assert processes.rss_mb(child.pid) > 5
        assert processes.open_files(child.pid) >= 6
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in members))


def test_processor_time_is_what_the_process_used(tmp_path: Path) -> None:
    with processes.running([sys.executable, "-c", BURNER], cores="0", log=tmp_path / "log") as child:
        until(lambda: processes.cpu_s(child.pid) >= 0.3)
        processes.settle(child.pid, limit_s=5)
        assert 0.3 <= processes.cpu_s(child.pid) < 0.6


def test_what_a_process_wrote_last_is_kept(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with processes.running([sys.executable, "-c", "print('no such option')"], cores="0", log=log) as child:
        child.wait(10)
    assert processes.last_words(log) == "no such option"


def test_a_command_that_fails_says_why_a_contender_is_missing() -> None:
    with pytest.raises(install.NotInstalled) as caught:
        install.run([sys.executable, "-c", "import sys; sys.exit('no network')"])
    assert caught.value.message.endswith("failed: no network")
