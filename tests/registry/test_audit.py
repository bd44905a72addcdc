"""The chain as it is appended to, read, taken away, and worked with from a command line."""

from __future__ import annotations

import json
import subprocess
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update
from typer.testing import CliRunner, Result

from registry import audit, audit_export, audit_verify, signing, tables, terminal
from registry.audit import Entry
from registry.cli import audit as commands
from registry.errors import AuditTampered, BadInput, NotFound, PlatformError
from registry.signing import FileSigner
from registry.workspace import Workspace

from .conftest import NOW


def fill(workspace: Workspace, count: int, *, at_once: int = 7) -> None:
    """Records about `x/0` and so on, one a minute, in batches."""
    for start in range(0, count, at_once):
        entries = [
            Entry("test.do", f"x/{number}", {"number": number, "share": 0.1}, f"actor-{number % 2}")
            for number in range(start, min(count, start + at_once))
        ]
        with workspace.writing() as connection:
            audit.append_all(connection, entries, now=NOW + timedelta(minutes=start))


def export(workspace: Workspace, path: Path, **more: Any) -> dict[str, Any]:
    with workspace.reading() as connection:
        return audit_export.export(connection, path, now=NOW, **more)


def own_key(workspace: Workspace) -> Any:
    return FileSigner(workspace.settings.audit_key).public_key()


def test_records_are_numbered_linked_and_signed_at_the_end_of_each_batch(workspace: Workspace) -> None:
    fill(workspace, 10)
    with workspace.reading() as connection:
        records = audit.records(connection)[::-1]
        head = audit.head(connection)
    assert [record.seq for record in records] == list(range(1, 12))
    assert [record.previous for record in records] == [audit.START, *(r.hash for r in records[:-1])]
    assert [record.seq for record in records if record.signature] == [8, 11]
    assert head is not None
    assert (head.seq, head.hash) == (11, records[-1].hash)


def test_a_batch_longer_than_a_signature_covers_is_signed_in_between(workspace: Workspace) -> None:
    fill(workspace, 1300, at_once=1300)
    with workspace.reading() as connection:
        signed = [r.seq for r in audit.records(connection, limit=2000) if r.signature]
        assert audit.require_signed(connection, 700)["seq"] == 700
        assert audit_verify.verify(connection, every_signature=True)["ok"]
    assert signed == [1301, 1024, 512]


def test_many_writers_at_once_make_one_chain(workspace: Workspace) -> None:
    def write(name: str) -> None:
        for number in range(10):
            with workspace.writing() as connection:
                audit.append(connection, "test.do", f"{name}/{number}", {}, actor=name, now=NOW)

    threads = [threading.Thread(target=write, args=(f"t{number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with workspace.reading() as connection:
        answer = audit_verify.verify(connection, every_signature=True)
    assert (answer["problems"], answer["records"]) == ([], 81)


def test_what_is_rolled_back_was_never_recorded(workspace: Workspace) -> None:
    fill(workspace, 1)
    with workspace.writing() as connection:
        audit.append(connection, "test.do", "y", {}, actor="ann", now=NOW)
        connection.rollback()
    fill(workspace, 1)
    with workspace.reading() as connection:
        assert [record.target for record in audit.records(connection)] == ["x/0", "x/0", _key(workspace)]
        assert audit_verify.verify(connection)["ok"]


def _key(workspace: Workspace) -> str:
    return f"audit-key/{signing.key_id(own_key(workspace))}"


def test_records_are_listed_by_what_who_and_when_page_by_page(workspace: Workspace) -> None:
    fill(workspace, 20, at_once=1)

    def listed(**more: Any) -> list[int]:
        with workspace.reading() as connection:
            return [one["seq"] for one in audit_export.listing(connection, **more)["records"]]

    assert listed(target="x/3") == [5]
    assert listed(target="x/1*") == [21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 3]
    assert listed(actor="actor-1", limit=3) == [21, 19, 17]
    assert listed(action="audit.*") == [1]
    assert listed(since=NOW + timedelta(minutes=18)) == [21, 20]
    assert listed(until=NOW + timedelta(minutes=2)) == [3, 2, 1]
    assert listed(since=NOW + timedelta(days=9)) == listed(until=NOW - timedelta(days=9)) == []
    with workspace.reading() as connection:
        page = audit_export.listing(connection, limit=15)
        rest = audit_export.listing(connection, limit=15, before=page["next"])
    assert [one["seq"] for one in page["records"] + rest["records"]] == list(range(21, 0, -1))
    assert (page["next"], rest["next"]) == (7, None)
    assert page["records"][0] == {
        "seq": 21, "at": "2026-03-01T12:19:00.000000Z", "kind": "admin", "action": "test.do",
        "actor": "actor-1", "target": "x/19", "subject": None, "state": "whole",
        "body": {"number": 19, "share": 0.1}, "hash": page["records"][0]["hash"],
    }  # fmt: skip


def test_an_export_verifies_without_a_database_by_a_key_of_ones_own(
    workspace: Workspace, tmp_path: Path
) -> None:
    fill(workspace, 30)
    path = tmp_path / "audit.jsonl"
    answer = export(workspace, path)
    assert (answer["first"], answer["last"], answer["records"]) == (1, 31, 31)
    checked = audit_verify.verify_file(path, [own_key(workspace)], every_signature=True)
    assert (checked["problems"], checked["records"], checked["anchors"]) == ([], 31, 1)
    with workspace.reading() as connection:
        assert checked["head"] == audit_verify.verify(connection)["head"]
    stranger = FileSigner(tmp_path / "stranger.pem").public_key()
    foreign = audit_verify.verify_file(path, [stranger])
    assert all("not signed by a key that counts" in one["problem"] for one in foreign["problems"])
    assert not foreign["ok"]


def test_a_piece_of_the_chain_is_exported_up_to_a_signature(workspace: Workspace, tmp_path: Path) -> None:
    fill(workspace, 30, at_once=10)
    path = tmp_path / "piece.jsonl"
    answer = export(workspace, path, since=NOW + timedelta(minutes=10), until=NOW + timedelta(minutes=20))
    assert (answer["first"], answer["last"]) == (12, 21)
    checked = audit_verify.verify_file(path, [own_key(workspace)])
    assert (checked["problems"], checked["records"]) == ([], 10)
    with pytest.raises(NotFound):
        export(workspace, path, since=NOW + timedelta(days=10))


EDITS = [
    (lambda lines: lines[:-1], "ends at record"),
    (lambda lines: [lines[0], *lines[2:]], "missing before it"),
    (lambda lines: [*lines[:3], lines[4], lines[3], *lines[5:]], "missing before it"),
    (lambda lines: [*lines[:5], lines[5].replace("test.do", "test.no"), *lines[6:]], "its hash does not fit"),
    (lambda lines: [*lines[:5], lines[5].replace("0.1", "0.10"), *lines[6:]], "its body was changed"),
    (lambda lines: [*lines[:5], "{}", *lines[6:]], "is no audit record"),
    (lambda lines: [*lines[:5], lines[4], *lines[5:]], "stands after record"),
]


@pytest.mark.parametrize(("edit", "problem"), EDITS)
def test_an_edited_export_is_found(workspace: Workspace, tmp_path: Path, edit: Any, problem: str) -> None:
    fill(workspace, 30)
    path = tmp_path / "audit.jsonl"
    export(workspace, path)
    path.write_text("\n".join(edit(path.read_text().splitlines())) + "\n")
    found = audit_verify.verify_file(path, [own_key(workspace)], every_signature=True)
    assert any(problem in one["problem"] for one in found["problems"]), found["problems"]


def test_a_body_missing_from_an_export_that_reaches_the_end_is_found(
    workspace: Workspace, tmp_path: Path
) -> None:
    fill(workspace, 5)
    with workspace.writing() as connection:
        connection.execute(update(tables.audit).where(tables.audit.c.seq == 3).values(body=None))
    path = tmp_path / "audit.jsonl"
    export(workspace, path)
    found = audit_verify.verify_file(path, [own_key(workspace)])
    assert found["problems"] == [
        {"where": "record 3", "problem": "the body is missing and no prune record says so"}
    ]


@pytest.mark.parametrize("text", ["", "{}", "nonsense", '{"format":"other"}'])
def test_what_is_no_export_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "file"
    path.write_text(text)
    with pytest.raises(BadInput):
        audit_verify.verify_file(path, [])
    with pytest.raises(BadInput):
        audit_verify.verify_file(tmp_path / "missing", [])


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database_url: str) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEGATE_REGISTRY__DATABASE_URL", database_url)
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SLUICEGATE_ACTOR", "ann")
    return tmp_path


def run(*words: str) -> Result:
    application = terminal.command_group("Test.")
    commands.add_to(application)
    return CliRunner().invoke(application, ["audit", *words])


def answer(*words: str) -> Any:
    result = run(*words, "--json")
    assert result.exception is None, result.output
    return json.loads(result.stdout)


def refused(*words: str) -> PlatformError:
    result = run(*words, "--json")
    assert isinstance(result.exception, PlatformError), result.output
    return result.exception


def test_verify_exits_with_one_when_anything_is_wrong(home: Path, workspace: Workspace) -> None:
    fill(workspace, 5)
    assert answer("verify")["ok"]
    assert run("verify").stdout == "the audit chain is whole (6 records, 1 rows, 1 anchors)\n"
    with workspace.writing() as connection:
        connection.execute(update(tables.audit).where(tables.audit.c.seq == 3).values(actor="eve"))
    result = run("verify", "--json")
    assert (result.exit_code, json.loads(result.stdout)["problem_count"]) == (1, 1)
    assert run("verify").stdout.splitlines() == [
        "record 3: was changed: its hash does not fit",
        "the audit chain is NOT whole: 1 problems (6 records, 1 rows, 1 anchors)",
    ]


def test_list_and_export_from_the_command_line(home: Path, workspace: Workspace) -> None:
    fill(workspace, 5)
    assert [one["seq"] for one in answer("list", "--target", "x/*", "--limit", "2")["records"]] == [6, 5]
    assert "more: --before 5" in run("list", "--limit", "2").stdout
    assert answer("export", "a.jsonl")["records"] == 6
    (home / "key.pem").write_text(signing.pem(own_key(workspace)))
    assert answer("verify", "--file", "a.jsonl", "--key", "key.pem")["ok"]
    assert refused("verify", "--file", "a.jsonl").code == "bad_input"
    assert refused("verify", "--key", "key.pem").code == "bad_input"


def test_heads_go_to_a_file_an_object_store_and_a_git_folder_and_are_met_again(
    home: Path, workspace: Workspace
) -> None:
    fill(workspace, 5)
    subprocess.run(["git", "init", "-q", "heads"], check=True, timeout=60, cwd=home)
    for _ in range(2):
        kept = answer("anchor", "--to", "heads.jsonl", "--git", "heads")["kept"]
        fill(workspace, 3)
    log = ["git", "-C", "heads", "log", "--format=%H %s"]
    lines = subprocess.run(log, check=True, timeout=60, capture_output=True, text=True).stdout.splitlines()
    assert kept == ["heads.jsonl", lines[0].split()[0]]
    assert [line.split(maxsplit=1)[1] for line in lines] == ["Audit head 9", "Audit head 6"]
    url = f"file://{home}/objects"
    (place,) = answer("anchor", "--to", url)["kept"]
    assert place.startswith(f"{url}/000000000012-")
    sources = ["heads.jsonl", "heads/audit-heads.jsonl", url, place]
    assert answer("verify", *(word for one in sources for word in ("--anchor", one)))["anchors"] == 7
    assert refused("verify", "--anchor", "missing").code == "bad_input"
    assert refused("verify", "--anchor", f"file://{home}/missing").code == "bad_input"
    assert refused("anchor", "--git", str(home)).code == "bad_input"


def test_a_chain_that_was_cut_is_not_accepted(home: Path, workspace: Workspace) -> None:
    fill(workspace, 3)
    assert answer("anchor")["kept"] == []
    with workspace.writing() as connection:
        connection.exec_driver_sql("DELETE FROM audit WHERE seq = 4")
        connection.exec_driver_sql("DELETE FROM audit WHERE seq = 3")
        connection.exec_driver_sql("DELETE FROM audit WHERE seq = 2")
    assert run("verify").exit_code == 1
    assert isinstance(refused("anchor"), AuditTampered)
    assert refused("anchor", "--accept").code == "bad_input"
    # The batch ended at 4, so what is left is not signed: no restored copy looks like that.
    assert isinstance(refused("anchor", "--accept", "--reason", "restored"), AuditTampered)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_copy_from_before_is_accepted_on_purpose_and_the_chain_says_so(
    home: Path, workspace: Workspace
) -> None:
    fill(workspace, 3)
    database, copy = home / "home" / "registry.db", home / "copy.db"
    with workspace.engine.connect() as connection:
        connection.exec_driver_sql("COMMIT")
        connection.exec_driver_sql(f"VACUUM INTO '{copy}'")
    fill(workspace, 3)
    lost = answer("anchor")["head"]
    workspace.engine.dispose()
    for path in database.parent.glob("registry.db*"):
        path.unlink()
    copy.rename(database)
    assert run("verify").exit_code == 1
    accepted = answer("anchor", "--accept", "--reason", "disk failed")["accepted"]
    assert accepted == {
        "audit_seq": 5, "reason": "disk failed", "lost": {"seq": lost["seq"], "hash": lost["hash"]}
    }  # fmt: skip
    assert answer("verify")["ok"]


def test_prune_holds_and_erase_from_the_command_line(home: Path, workspace: Workspace) -> None:
    fill(workspace, 3)
    hold = answer("hold", "place", "x/1", "--reason", "case 12")["hold"]
    assert [one["id"] for one in answer("hold", "list")["holds"]] == [hold["id"]]
    dry = answer("prune", "--dry-run")["classes"]
    assert [(one["kind"], one["days"]) for one in dry] == [("admin", 400), ("decision", 190)]
    assert answer("prune")["ok"]
    assert answer("hold", "release", hold["id"])["hold"]["released_by"] == "ann"
    assert refused("erase", "nobody", "--reason", "asked").code == "not_found"
    assert answer("verify")["ok"]


def test_every_command_has_an_example() -> None:
    for words in (["list"], ["verify"], ["export"], ["anchor"], ["prune"], ["erase"], ["hold", "place"],
                  ["hold", "release"], ["hold", "list"]):  # fmt: skip
        assert "Example: registry audit" in run(*words, "--help").stdout
