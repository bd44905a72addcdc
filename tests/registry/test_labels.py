from __future__ import annotations

import threading
from dataclasses import replace

import pytest
from sqlalchemy import select

from registry import audit, labels, prompts, releases, tables
from registry.entities import PromptContent, PromptMessage, Version
from registry.errors import BadInput, Conflict, NotFound, PlatformError
from registry.ids import digest
from registry.labels import Label
from registry.refs import Ref, parse_ref
from registry.releases import ReleaseFile
from registry.versions import plain
from registry.workspace import Workspace

from .conftest import NOW, PROMPT, House


def push(workspace: Workspace, text: str, name: str = "support") -> Version:
    with workspace.writing() as connection:
        content = PromptContent((PromptMessage("user", text),))
        return prompts.push(connection, name, content, actor="ann", now=NOW)


def move(workspace: Workspace, version: Version, label: str, expected: int | None = None) -> Label:
    with workspace.writing() as connection:
        return labels.move(connection, version, label, actor="bob", now=NOW, expected=expected)


def resolved(workspace: Workspace, ref: str) -> Version:
    with workspace.reading() as connection:
        return labels.resolve(connection, parse_ref(ref))


def test_a_label_moves_and_is_resolved(workspace: Workspace) -> None:
    one, two = push(workspace, "one"), push(workspace, "two")
    first = move(workspace, one, "staging")
    assert first == Label("support", "staging", one.digest, 1, "2026-03-01T12:00:00.000000Z", "bob")
    assert resolved(workspace, "support@staging") == one
    assert move(workspace, one, "staging") == first
    assert move(workspace, two, "staging").generation == 2
    assert resolved(workspace, "support@staging") == two
    assert [resolved(workspace, ref).number for ref in ("support", "support@latest", "support:1")] == [
        2,
        2,
        1,
    ]


def test_every_move_is_audited(workspace: Workspace) -> None:
    one, two = push(workspace, "one"), push(workspace, "two")
    for version in (one, one, two):
        move(workspace, version, "staging")
    with workspace.writing() as connection:
        labels.move(connection, one, "dev", actor="bob", now=NOW)
        labels.remove(connection, "support", "staging", actor="bob", now=NOW)
        rows = connection.execute(
            select(tables.audit.c.action, tables.audit.c.body).where(
                tables.audit.c.target == "prompt/support@staging"
            )
        ).all()
        for target, body in labels.protected(connection):
            audit.require(connection, target, body)
        assert [target for target, _ in labels.protected(connection)] == ["prompt/support@dev"]
    assert [row.action for row in rows] == ["prompt.label", "prompt.label", "prompt.unlabel"]


def test_a_row_changed_behind_the_registry_is_not_what_was_recorded(workspace: Workspace) -> None:
    one, two = push(workspace, "one"), push(workspace, "two")
    move(workspace, one, "staging")
    with workspace.writing() as connection:
        connection.execute(tables.labels.update().values(digest=two.digest))
        [(target, body)] = labels.protected(connection)
        with pytest.raises(PlatformError) as caught:
            audit.require(connection, target, body)
    assert caught.value.code == "record_tampered"


def test_the_wrong_generation_moves_nothing(workspace: Workspace) -> None:
    one, two = push(workspace, "one"), push(workspace, "two")
    move(workspace, one, "staging", expected=0)
    for expected in (0, 2):
        with pytest.raises(Conflict, match=f"expected generation {expected}, but it is at 1"):
            move(workspace, two, "staging", expected=expected)
    assert resolved(workspace, "support@staging") == one
    assert move(workspace, two, "staging", expected=1).digest == two.digest


def test_of_two_that_saw_the_same_exactly_one_moves(workspace: Workspace) -> None:
    found = [push(workspace, f"number {number}") for number in range(4)]
    outcomes: list[str] = []

    def race(version: Version) -> None:
        try:
            move(workspace, version, "staging", expected=0)
            outcomes.append("moved")
        except Conflict:
            outcomes.append("lost")

    threads = [threading.Thread(target=race, args=(version,)) for version in found]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["lost", "lost", "lost", "moved"]


@pytest.mark.parametrize("label", ["production", "champion", "latest", "Not A Label"])
def test_guarded_and_malformed_names_cannot_be_given_by_hand(workspace: Workspace, label: str) -> None:
    version = push(workspace, "one")
    with pytest.raises(BadInput):
        move(workspace, version, label)
    with workspace.writing() as connection, pytest.raises(BadInput):
        labels.remove(connection, "support", label, actor="ann", now=NOW)


def test_an_unknown_label_says_which_there_are(workspace: Workspace) -> None:
    version = push(workspace, "one")
    with pytest.raises(NotFound, match="'support' has no label 'staging'; it has: none"):
        resolved(workspace, "support@staging")
    move(workspace, version, "dev")
    with pytest.raises(NotFound, match="'support' has no label 'staging'; it has: dev"):
        resolved(workspace, "support@staging")
    with workspace.writing() as connection, pytest.raises(NotFound):
        labels.remove(connection, "support", "staging", actor="ann", now=NOW)


def test_production_is_what_the_release_pins_there(house: House) -> None:
    with pytest.raises(NotFound, match="no release 'support' is in production"):
        resolved(house.workspace, "support@production")
    release = house.release()
    house.evidence(release)
    house.promote()
    promoted = resolved(house.workspace, "support@production")
    push(house.workspace, "newer")
    assert resolved(house.workspace, "support@production") == promoted
    assert promoted.digest == release.content["prompt"]
    assert resolved(house.workspace, "support").number == 2


def test_production_finds_a_prompt_of_another_name(house: House) -> None:
    release = house.release(name="helpdesk")
    house.evidence(release)
    house.promote("helpdesk@candidate")
    assert resolved(house.workspace, "helpdesk@production").name == "support"


def test_labels_are_listed_by_name(workspace: Workspace) -> None:
    for name in ("b", "a"):
        move(workspace, push(workspace, name, name), "staging")
    with workspace.reading() as connection:
        assert [label.name for label in labels.listing(connection)] == ["a", "b"]
        assert [label.name for label in labels.listing(connection, "a")] == ["a"]
        content = plain(PromptContent((PromptMessage("user", "a"),)))
        assert labels.resolve(connection, Ref("a", alias="staging")).digest == digest(content)


def test_a_release_takes_the_prompt_that_a_label_names(house: House) -> None:
    with house.workspace.writing() as connection:
        staged = prompts.get(connection, Ref("support"))[0]
        labels.move(connection, staged, "staging", actor="ann", now=NOW)
        other = replace(PROMPT, messages=(PromptMessage("user", "New: {{ question }}"),))
        prompts.push(connection, "support", other, actor="ann", now=NOW)
        file = ReleaseFile(name="support", kind="chat", model="openai/one", prompt="support@staging")
        assert releases.pin(connection, file).prompt == staged.digest
