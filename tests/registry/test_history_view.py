"""What was production then, and who moved it."""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner

from registry import approvals, history_view, policies, promotion, tables
from registry.cli import lineage as commands
from registry.clock import to_text
from registry.entities import GatePolicy, Version
from registry.errors import BadInput, NotFound, RecordTampered
from registry.ids import digest
from registry.policies import PolicyFile
from registry.refs import parse_ref
from registry.terminal import command_group

from .conftest import NOW, House

FIRST, SECOND, THIRD = (NOW + timedelta(hours=hours) for hours in (1, 2, 3))
TICK = timedelta(microseconds=1)


def at(house: House, when: datetime, **more: Any) -> dict[str, Any]:
    with house.workspace.reading() as connection:
        return history_view.at(connection, "support", when, **more)


def story(house: House) -> tuple[Version, Version, dict[str, Any]]:
    """One release in production, another after it, and back."""
    one = house.release("openai/one")
    envelope = house.evidence(one)
    house.promote(now=FIRST)
    two = house.release("openai/two")
    house.evidence(two, baseline=one)
    house.promote(now=SECOND)
    house.now = THIRD
    house.rollback()
    return one, two, envelope


def numbers(house: House, *times: datetime) -> list[int | None]:
    found = [at(house, when)["release"] for when in times]
    return [None if release is None else release["number"] for release in found]


def test_a_moment_lies_after_the_moves_made_at_it(house: House) -> None:
    story(house)
    moments = (FIRST - TICK, FIRST, SECOND - TICK, SECOND, THIRD - TICK, THIRD, THIRD + timedelta(days=9))
    assert numbers(house, *moments) == [None, 1, 1, 2, 2, 1, 1]


def test_the_answer_names_release_parts_mover_reason_and_evidence(house: House) -> None:
    one, _, envelope = story(house)
    assert at(house, FIRST + TICK) == {
        "name": "support",
        "alias": "production",
        "at": to_text(FIRST + TICK),
        "release": {
            "name": "support",
            "number": 1,
            "digest": one.digest,
            "created_at": to_text(NOW),
            "created_by": "ann",
        },
        "parts": [
            {
                "role": "model",
                "kind": "provider-model",
                "name": "openai/one",
                "number": None,
                "digest": None,
            },
            {
                "role": "prompt",
                "kind": "prompt",
                "name": "support",
                "number": 1,
                "digest": one.content["prompt"],
            },
        ],
        "since": to_text(FIRST),
        "until": to_text(SECOND),
        "move": {
            "action": "promote",
            "at": to_text(FIRST),
            "by": "ann",
            "reason": "test",
            "from": None,
            "evidence": [
                {
                    "digest": digest(envelope),
                    "verdict": "pass",
                    "suite": "quality",
                    "dataset": "q",
                    "samples": 40,
                }
            ],
            "approvers": [],
        },
    }


def test_before_the_first_move_there_was_nothing(house: House) -> None:
    story(house)
    before = at(house, FIRST - TICK)
    assert (before["release"], before["parts"], before["since"], before["until"], before["move"]) == (
        None, [], None, to_text(FIRST), None,
    )  # fmt: skip


def test_after_a_rollback_the_answer_says_so_and_that_it_is_still_so(house: House) -> None:
    _, two, _ = story(house)
    now = at(house, THIRD)
    assert (now["since"], now["until"]) == (to_text(THIRD), None)
    assert now["move"] == {
        "action": "rollback",
        "at": to_text(THIRD),
        "by": "bob",
        "reason": "bad",
        "from": {"name": "support", "number": 2, "digest": two.digest},
        "evidence": [],
        "approvers": [],
    }


def test_broken_glass_is_called_so(house: House) -> None:
    house.release()
    with house.workspace.writing() as connection:
        promotion.break_glass(
            connection,
            house.workspace.artifacts,
            parse_ref("support@candidate"),
            "production",
            actor="root",
            reason="the old one tells secrets",
            now=FIRST,
        )
    move = at(house, FIRST)["move"]
    assert (move["action"], move["by"], move["evidence"]) == ("break-glass", "root", [])


def test_approvers_are_those_of_the_moment_of_the_move(house: House) -> None:
    terms = GatePolicy(approvals=1)
    with house.workspace.writing() as connection:
        policies.push(connection, PolicyFile(kind="gate", name="support", gate=terms), actor="root", now=NOW)
    release = house.release()
    house.evidence(release)
    with house.workspace.writing() as connection:
        for who in ("bob", "eve"):
            approvals.give(
                connection, release, "production", terms=terms, comment="", actor=who, now=house.now
            )
        approvals.withdraw(connection, release, "production", actor="eve", now=house.now)
    house.promote(now=FIRST)
    with house.workspace.writing() as connection:
        approvals.give(connection, release, "production", terms=terms, comment="", actor="eve", now=FIRST)
        approvals.withdraw(connection, release, "production", actor="bob", now=FIRST)
    assert at(house, FIRST)["move"]["approvers"] == ["bob"]


def test_an_altered_history_gives_no_answer(house: House) -> None:
    story(house)
    with house.workspace.writing() as connection:
        table = tables.alias_moves
        connection.execute(update(table).where(table.c.alias == "production").values(actor="mallory"))
    with pytest.raises(RecordTampered):
        at(house, THIRD)


def test_what_was_never_set_is_not_found(house: House) -> None:
    house.release()
    with pytest.raises(NotFound, match="never set"):
        at(house, NOW)
    assert at(house, NOW, alias="candidate")["release"]["number"] == 1
    with house.workspace.reading() as connection, pytest.raises(BadInput):
        history_view.at(connection, "Not A Name", NOW)


def test_moves_are_filtered_by_alias_and_limited_to_the_newest(house: House) -> None:
    one, two, _ = story(house)
    with house.workspace.reading() as connection:
        everything = history_view.moves(connection, "support")
        production = history_view.moves(connection, "support", alias="production", limit=2)
        earlier = history_view.moves(connection, "support", until=SECOND)
        with pytest.raises(NotFound):
            history_view.moves(connection, "support", alias="champion")
    assert (len(everything["moves"]), everything["left_off"]) == (5, 0)
    assert everything["aliases"] == {"candidate": two.digest, "production": one.digest}
    assert [move["action"] for move in production["moves"]] == ["promote", "rollback"]
    assert (production["left_off"], production["aliases"]) == (1, {"production": one.digest})
    assert earlier["aliases"]["production"] == two.digest


def test_the_command_line_answers_people_and_programs(
    house: House, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    story(house)
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(house.workspace.settings.home))
    monkeypatch.setenv("SLUICEGATE_REGISTRY__DATABASE_URL", database_url)
    application = command_group("Tests.")
    commands.add_to(application)

    def run(*words: str) -> str:
        done = CliRunner().invoke(application, ["was", "support", *words])
        assert done.exit_code == 0, (done.output, done.exception)
        return done.stdout

    assert json.loads(run("--at", to_text(FIRST), "--json")) == at(house, FIRST)
    told = run("--at", to_text(THIRD))
    assert "rollback by bob: bad" in told
    assert "prompt: support:1" in told
    assert "not set yet" in run("--at", to_text(NOW))
