"""Retention, holds and erasure: what is forgotten is gone, what must stay stays, and the chain holds."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import update

from registry import audit, audit_export, audit_keep, audit_verify, tables
from registry.audit import Entry
from registry.entities import AuditClass
from registry.errors import AuditTampered, BadInput, Conflict, NotFound
from registry.workspace import Workspace

from .conftest import NOW, House

KINDS: tuple[AuditClass, ...] = ("admin", "decision")
YEARS = NOW + timedelta(days=1000)


def problems(workspace: Workspace) -> list[tuple[str, str]]:
    with workspace.reading() as connection:
        found = audit_verify.verify(connection, every_signature=True)["problems"]
    return [(one["where"], one["problem"]) for one in found]


def decide(workspace: Workspace, *targets: str, kind: AuditClass = "decision") -> None:
    with workspace.writing() as connection:
        entries = [Entry("request.refuse", each, {"code": "x"}, "gateway", kind) for each in targets]
        audit.append_all(connection, entries, now=NOW)


def prune(workspace: Workspace, kind: AuditClass = "decision", **more: Any) -> dict[str, Any]:
    with workspace.writing() as connection:
        return audit_keep.prune(connection, kind, 190, actor="ann", now=YEARS, **more)


def without_body(workspace: Workspace) -> list[int]:
    table = tables.audit
    with workspace.reading() as connection:
        query = table.select().where(table.c.body.is_(None)).order_by(table.c.seq)
        return [row["seq"] for row in connection.execute(query).mappings()]


def place(workspace: Workspace, scope: str) -> str:
    with workspace.writing() as connection:
        return str(audit_keep.place(connection, scope, reason="case 12", actor="ann", now=NOW)["id"])


def release(workspace: Workspace, identity: str) -> None:
    with workspace.writing() as connection:
        audit_keep.release(connection, identity, actor="ann", now=NOW)


def test_a_body_is_emptied_when_its_time_is_over_and_the_chain_says_so(workspace: Workspace) -> None:
    decide(workspace, "requests/a", "requests/b")
    with workspace.writing() as connection:
        early = audit_keep.prune(connection, "decision", 190, actor="ann", now=NOW + timedelta(days=190))
    assert early["emptied"] == 0
    dry = prune(workspace, dry_run=True)
    assert (dry["emptied"], without_body(workspace)) == (2, [])
    done = prune(workspace)
    assert (done["emptied"], done["held"], done["more"], without_body(workspace)) == (2, 0, False, [2, 3])
    assert prune(workspace)["emptied"] == 0
    assert problems(workspace) == []
    with workspace.reading() as connection:
        newest, *_ = audit_export.listing(connection)["records"]
    assert (newest["action"], newest["actor"], newest["target"]) == ("audit.prune", "ann", "audit/decision")
    assert newest["body"] == {
        "kind": "decision", "before": done["before"], "emptied": 2, "ranges": [[1, 3]]
    }  # fmt: skip


def test_a_body_emptied_by_hand_is_found_however_near_pruned_ones_are(workspace: Workspace) -> None:
    decide(workspace, "requests/a", "held/b", "requests/c")
    place(workspace, "held/")
    prune(workspace)
    assert (without_body(workspace), problems(workspace)) == ([2, 4], [])
    table = tables.audit
    with workspace.writing() as connection:
        connection.execute(update(table).where(table.c.seq == 3).values(body=None))
    expected = [("records 2 to 4", "the body is missing and no prune record says so")]
    assert problems(workspace) == expected
    prune(workspace)  # a later one does not make it good
    decide(workspace, "requests/d")
    prune(workspace)
    assert len(problems(workspace)) == 1


def test_what_rows_rest_on_may_lose_its_body_and_still_vouches_for_them(house: House) -> None:
    release_ = house.release()
    house.evidence(release_)
    house.promote()
    done = prune(house.workspace, "admin")
    assert done["emptied"] > 5
    assert problems(house.workspace) == []
    second = house.release("openai/two")
    house.evidence(second, baseline=release_)
    assert house.promote() is not None
    assert problems(house.workspace) == []


def test_what_verification_reads_is_kept(workspace: Workspace) -> None:
    place(workspace, "x/")
    decide(workspace, "x", kind="admin")
    with workspace.writing() as connection:
        audit.append(connection, "registry.collect", "registry", {"collected": []}, actor="ann", now=NOW)
    prune(workspace, "admin")
    assert without_body(workspace) == [3]
    assert problems(workspace) == []


def test_a_hold_keeps_records_until_it_is_released(workspace: Workspace) -> None:
    decide(workspace, "requests/a", "requests/b", "requests/a2")
    hold = place(workspace, "requests/a")
    done = prune(workspace)
    assert (done["emptied"], done["held"], without_body(workspace)) == (1, 2, [3])
    release(workspace, hold)
    assert (prune(workspace)["emptied"], without_body(workspace)) == (2, [2, 3, 4])
    assert problems(workspace) == []
    with pytest.raises(NotFound):
        release(workspace, hold)


def test_a_hold_needs_a_scope_and_a_reason(workspace: Workspace) -> None:
    with workspace.writing() as connection:
        for scope, reason in (("", "case"), ("x" * 301, "case"), ("x", " "), ("x", "r" * 1001)):
            with pytest.raises(BadInput):
                audit_keep.place(connection, scope, reason=reason, actor="ann", now=NOW)
        with pytest.raises(NotFound):
            audit_keep.place(connection, "subject/nobody", reason="case", actor="ann", now=NOW)
        assert audit_keep.holds(connection) == []


TARGETS = st.sampled_from(["a/1", "a/2", "b/1"])
STEPS = st.lists(
    st.tuples(
        st.lists(st.tuples(TARGETS, st.sampled_from(KINDS)), max_size=6),
        st.one_of(st.none(), TARGETS),
        st.lists(st.sampled_from(KINDS), max_size=6),
        st.booleans(),
    ),
    min_size=1,
    max_size=4,
)
"""Records to append, what is held meanwhile, what is pruned, and whether the hold ends."""


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at_once=st.integers(1, 4), steps=STEPS)
def test_whatever_is_pruned_in_whatever_pieces_the_chain_explains_it(
    workspace: Workspace, at_once: int, steps: list[Any]
) -> None:
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(audit_keep, "MOST_AT_ONCE", at_once)
        for records, held, pruned, ends in steps:
            for target, kind in records:
                decide(workspace, target, kind=kind)
            hold = place(workspace, held) if held is not None else None
            for kind in pruned:
                prune(workspace, kind)
            if hold is not None and ends:
                release(workspace, hold)
    assert problems(workspace) == []


def test_what_is_sealed_opens_for_its_person_alone(workspace: Workspace) -> None:
    with workspace.writing() as connection:
        ann, sealed = audit_keep.seal(connection, "user:ann", {"user": "ann"}, now=NOW)
        again, other = audit_keep.seal(connection, "user:ann", {"user": "ann"}, now=NOW)
        bob, _ = audit_keep.seal(connection, "user:bob", {"user": "bob"}, now=NOW)
        assert (ann == again, sealed == other, ann == bob, "ann" in sealed) == (True, False, False, False)
        assert audit_keep.unseal(connection, ann, sealed) == {"user": "ann"}
        for subject, text in ((bob, sealed), (ann, sealed[:-4]), (ann, "?")):
            with pytest.raises(AuditTampered):
                audit_keep.unseal(connection, subject, text)
        assert audit_keep.unseal(connection, "sub_nobody", sealed) is None


def about(workspace: Workspace, name: str, target: str = "requests/support") -> str:
    with workspace.writing() as connection:
        entry = Entry("request.refuse", target, {"count": 1}, "gateway", "decision")
        audit_keep.append_sealed(connection, [(entry, name, {"user": name})], now=NOW)
        row = audit.newest(connection, target)
    assert row is not None
    return str(row["subject"])


def erase(workspace: Workspace, person: str) -> dict[str, Any]:
    with workspace.writing() as connection:
        answer = audit_keep.erase(connection, person, reason="asked", actor="ann", now=NOW)
    assert audit_keep.scrub(workspace.engine)
    return answer


def bytes_on_disk(workspace: Workspace, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in workspace.settings.home.glob("registry.db*"))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("by_id", [False, True])
def test_an_erased_person_is_unreadable_and_the_chain_holds(workspace: Workspace, by_id: bool) -> None:
    subject = about(workspace, "user:ann")
    with workspace.reading() as connection:
        key = connection.execute(tables.subject_keys.select()).mappings().one()["key"]
        (record,) = audit_export.listing(connection, target="requests/*", unseal=True)["records"]
    assert (record["state"], record["body"]["sealed"]) == ("whole", {"user": "user:ann"})
    assert bytes_on_disk(workspace, key)
    assert erase(workspace, subject if by_id else "user:ann")["subject"] == subject
    assert not bytes_on_disk(workspace, key)
    with workspace.reading() as connection:
        (record,) = audit_export.listing(connection, target="requests/*", unseal=True)["records"]
        assert audit_keep.unseal(connection, subject, record["body"]["sealed"]) is None
    assert record["state"] == "erased"
    assert problems(workspace) == []
    with pytest.raises(NotFound):
        erase(workspace, "user:ann")
    assert about(workspace, "user:ann") != subject


@pytest.mark.parametrize("scope", ["subject/user:ann", "requests/"])
def test_a_held_person_is_not_erased(workspace: Workspace, scope: str) -> None:
    about(workspace, "user:ann")
    hold = place(workspace, scope)
    with pytest.raises(Conflict):
        erase(workspace, "user:ann")
    assert (prune(workspace)["emptied"], problems(workspace)) == (0, [])
    release(workspace, hold)
    erase(workspace, "user:ann")


def test_an_erasure_needs_a_reason(workspace: Workspace) -> None:
    about(workspace, "user:ann")
    with workspace.writing() as connection, pytest.raises(BadInput):
        audit_keep.erase(connection, "user:ann", reason=" ", actor="ann", now=NOW)
