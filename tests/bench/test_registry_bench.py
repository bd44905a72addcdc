"""The bench of the registry on a tiny one: it measures all there is, and loses nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.bench.registry import report
from tests.bench.registry.report import Outcome
from tests.bench.registry.timings import Row


def test_everything_is_measured_and_nothing_is_lost(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "tests.bench.registry", "--json", "--scale", "tiny", "--repetitions", "3"]
    words += ["--processes", "2", "--commits", "3", "--cache", str(tmp_path)]
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=120)
    (measured,) = json.loads(done.stdout)["databases"]
    chain, written = measured["chain"], measured["writers"]
    assert measured["rows"]["versions"] == 250
    assert measured["rows"]["audit"] == 1500
    assert {row["repetitions"] for row in measured["timings"]} == {3}
    assert {"promote", "rollback", "resolve name@alias"} <= {row["name"] for row in measured["timings"]}
    assert chain["ok"]
    assert chain["records"] > 1500
    assert (written["writers"], written["commits"], written["failed"], written["lost"]) == (20, 60, 0, [])
    assert [path.name[:9] for path in tmp_path.iterdir()] == ["registry-"]


def test_what_is_too_slow_is_named() -> None:
    fine = Row("resolve", p50_ms=1, p99_ms=49.9, max_ms=90, repetitions=200)
    slow = Row("promote", p50_ms=1, p99_ms=50.1, max_ms=60, repetitions=200)
    outcome = Outcome("SQLite", timings=[fine, slow])
    assert report.slow([outcome]) == ["SQLite: promote takes 50.1 ms at p99; 50 are allowed"]
