from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from registry import history
from registry.clock import utc_now
from registry.workspace import Workspace
from tests.registry.conftest import House, house, workspace

__all__ = ["house", "workspace"]
ROUNDS = 12


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
    home = house.workspace.settings.home
    acknowledged = 0
    for _ in range(ROUNDS):
        acknowledged += _run_and_kill(house.workspace, home, ref, randomness.randrange(1, 9))
        assert house.problems() == []
    assert acknowledged >= ROUNDS
    house.promote(ref, now=utc_now())
    assert house.production() == ref.partition("@")[2]


def _run_and_kill(workspace: Workspace, home: Path, ref: str, after: int) -> int:
    """Kill the promoter while it works on the move after the first *after*; count what it confirmed."""
    script = Path(__file__).parent / "promoter.py"
    root = Path(__file__).parent.parent.parent
    child = subprocess.Popen(
        [sys.executable, str(script), str(home), ref], stdout=subprocess.PIPE, text=True, cwd=root
    )
    assert child.stdout is not None
    with child, child.stdout as out:
        confirmed = [out.readline().strip() for _ in range(after)]
        child.kill()
        confirmed += [line.strip() for line in out]
    with workspace.reading() as connection:
        recorded = {move.id for move in history.moves(connection, "support", alias="production")}
    assert {move for move in confirmed if move not in ("", "-")} <= recorded
    return len(confirmed)
