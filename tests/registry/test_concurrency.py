"""Many writers at once, each on connections of its own: one after the other, and exactly one wins."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier
from typing import Any

import pytest

from registry import audit_verify, history, promotion, prompts, versions
from registry.entities import PromptContent, PromptMessage, Version
from registry.errors import PromotionRefused
from registry.refs import Ref
from registry.workspace import Workspace, open_workspace

from .conftest import NOW, House

RACES, PUSHES = 20, 50


def at_once(workspace: Workspace, works: list[Callable[[Workspace], Any]]) -> list[Any]:
    """What each work returns or raises; all begin together, each in a registry it opened itself."""
    start = Barrier(len(works))

    def run(work: Callable[[Workspace], Any]) -> Any:
        with open_workspace(workspace.settings) as own:
            start.wait(30)
            try:
                return work(own)
            except PromotionRefused as error:
                return error

    with ThreadPoolExecutor(len(works)) as pool:
        return list(pool.map(run, works))


def promoting(version: Version, actor: str, house: House) -> Callable[[Workspace], Any]:
    ref, now = Ref("support", digest=version.digest), house.now + timedelta(seconds=1)

    def work(own: Workspace) -> Any:
        with own.writing() as connection:
            return promotion.promote(
                connection, own.artifacts, ref, "production", actor=actor, reason="race", now=now
            )

    return work


def test_of_two_promotions_at_once_exactly_one_wins(house: House) -> None:
    current = house.release("openai/0")
    house.evidence(current)
    house.promote()
    won: list[str] = []
    for race in range(1, RACES + 1):
        house.now = NOW + timedelta(minutes=race)
        rivals = [house.release(f"openai/{race}{letter}") for letter in "ab"]
        for rival in rivals:
            house.evidence(rival, baseline=current)
        found = at_once(house.workspace, [promoting(rival, "ann", house) for rival in rivals])
        moves = [move for move in found if not isinstance(move, PromotionRefused)]
        assert len(moves) == 1, found
        (current,) = (rival for rival in rivals if rival.digest == moves[0].to_digest)
        assert house.production() == current.digest
        won.append(current.digest)
    with house.workspace.reading() as connection:
        moved = history.moves(connection, "support", alias="production")
        assert [move.to_digest for move in moved][1:] == won
        assert audit_verify.verify(connection)["problems"] == []
    assert house.problems() == []


def test_pushes_of_one_name_at_once_are_numbered_without_gaps(workspace: Workspace) -> None:
    workers = 10

    def pushing(number: int) -> Callable[[Workspace], Any]:
        def work(own: Workspace) -> list[int]:
            taken = []
            for turn in range(PUSHES // workers):
                content = PromptContent((PromptMessage("user", f"{number} {turn}"),))
                with own.writing() as connection:
                    taken.append(prompts.push(connection, "hot", content, actor="ann", now=NOW).number)
            return taken

        return work

    taken = at_once(workspace, [pushing(number) for number in range(workers)])
    assert sorted(number for numbers in taken for number in numbers) == list(range(1, PUSHES + 1))
    with workspace.reading() as connection:
        listed = versions.listing(connection, "prompt", "hot")
        assert audit_verify.verify(connection)["problems"] == []
    assert sorted(version.number for version in listed) == list(range(1, PUSHES + 1))


def test_the_same_content_pushed_at_once_is_one_version(workspace: Workspace) -> None:
    content = PromptContent((PromptMessage("user", "the same"),))

    def work(own: Workspace) -> int:
        with own.writing() as connection:
            return prompts.push(connection, "hot", content, actor="ann", now=NOW).number

    assert at_once(workspace, [work] * 8) == [1] * 8


@pytest.mark.parametrize("readers", [4])
def test_readers_see_whole_moves_while_others_write(house: House, readers: int) -> None:
    first = house.release("openai/0")
    house.evidence(first)
    house.promote()
    second = house.release("openai/1")
    house.evidence(second, baseline=first)

    def read(own: Workspace) -> list[str]:
        found: list[str] = []
        for _ in range(15):
            with own.reading() as connection:
                found += promotion.problems(connection, own.artifacts)
                found += map(str, audit_verify.verify(connection)["problems"])
        return found

    def write(own: Workspace) -> list[str]:
        promoting(second, "ann", house)(own)
        for turn in range(15):
            content = PromptContent((PromptMessage("user", f"{turn}"),))
            with own.writing() as connection:
                prompts.push(connection, "hot", content, actor="ann", now=NOW)
        return []

    assert at_once(house.workspace, [write, *[read] * readers]) == [[]] * (readers + 1)
