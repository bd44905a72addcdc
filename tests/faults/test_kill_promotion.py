from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from registry import audit_verify, history, releases
from registry.clock import utc_now
from registry.entities import Version
from registry.refs import parse_ref
from registry.workspace import Workspace
from tests.registry.conftest import House, database_url, house, server, workspace

__all__ = ["database_url", "house", "server", "workspace"]
ROUNDS = 12
MOVES = 500
"""In all, on each database: promotions, rollbacks, and as many pushes of evidence."""


@pytest.fixture
def promotable(house: House) -> tuple[House, str]:
    house.now = utc_now()
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    second = house.release("openai/two")
    house.evidence(second, baseline=first)
    return house, f"support@{second.digest}"


def test_a_promotion_killed_at_any_moment_leaves_the_old_or_the_new(promotable: tuple[House, str]) -> None:
    house, ref = promotable
    randomness = random.Random(5)
    acknowledged = 0
    for left in range(ROUNDS, 0, -1):
        even = max(1, (MOVES - acknowledged) // left)
        acknowledged += _run_and_kill(house.workspace, ref, randomness.randint(even // 2, even * 3 // 2 + 1))
        assert house.problems() == []
        with house.workspace.reading() as connection:
            assert audit_verify.verify(connection)["problems"] == []
    acknowledged += _run_and_kill(house.workspace, ref, max(1, MOVES - acknowledged))
    assert acknowledged >= MOVES
    house.now = utc_now()
    with house.workspace.reading() as connection:
        (first, *_) = history.moves(connection, "support", alias="production")
    release = _release(house, ref)
    house.evidence(release, baseline=_release(house, f"support@{first.to_digest}"))
    house.promote(ref, now=utc_now())
    assert house.production() == release.digest


def _release(house: House, ref: str) -> Version:
    with house.workspace.reading() as connection:
        return releases.resolve(connection, parse_ref(ref))


def _run_and_kill(workspace: Workspace, ref: str, after: int) -> int:
    """Kill the promoter while it works on the move after the first *after*; count what it confirmed."""
    script, settings = Path(__file__).parent / "promoter.py", workspace.settings
    root = Path(__file__).parent.parent.parent
    words = [sys.executable, str(script), str(settings.home), ref, settings.database_url]
    child = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, cwd=root)
    assert child.stdout is not None
    with child, child.stdout as out:
        confirmed = [out.readline().strip() for _ in range(after)]
        child.kill()
        confirmed += [line.strip() for line in out]
    with workspace.reading() as connection:
        recorded = {move.id for move in history.moves(connection, "support", alias="production")}
    assert {move for move in confirmed if move not in ("", "-")} <= recorded
    return len(confirmed)
