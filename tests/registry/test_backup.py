from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from registry import (
    access,
    accounts,
    anchor,
    audit,
    audit_anchor,
    audit_verify,
    backup,
    bundle,
    db,
    labels,
    promotion,
    prompts,
    tables,
    versions,
)
from registry.entities import PromptMessage
from registry.errors import (
    AuditTampered,
    BadInput,
    Conflict,
    Forbidden,
    NotFound,
    PlatformError,
    Unauthorized,
    VersionTampered,
)
from registry.ids import digest_bytes
from registry.refs import Ref
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.fakes.postgres import Postgres
from tests.registry.conftest import NOW, PROMPT, House

NOBODY = "sha256:" + "0" * 64
SQLITE = pytest.mark.parametrize("database_url", [""])


def save(workspace: Workspace, path: Path) -> dict[str, Any]:
    return backup.backup(partial(workspace.viewing, "registry.backup"), workspace.artifacts, path, now=NOW)


def restore(workspace: Workspace, path: Path, **more: Any) -> dict[str, Any]:
    verb = "registry.restore"
    return backup.restore(
        partial(workspace.viewing, verb), partial(workspace.acting, verb), workspace.artifacts, path,
        now=NOW, **more,
    )  # fmt: skip


def dump(workspace: Workspace) -> dict[str, list[Any]]:
    with workspace.reading() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(select(table).order_by(*table.primary_key))]
            for table in tables.metadata.sorted_tables
        }


@pytest.fixture
def busy(house: House) -> House:
    """A registry with something in it of nearly every kind."""
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    house.now += timedelta(minutes=5)
    house.evidence(house.release("openai/two"), baseline=first)
    house.promote()
    with house.workspace.writing() as connection:
        accounts.create_key(connection, "site", actor="ann", now=NOW)
        labels.move(
            connection, versions.get(connection, "prompt", Ref("support")), "staging", actor="ann", now=NOW
        )
        odd = PromptMessage("user", "ä \u2028 \"q\" 'ß' \\ \x7f \U0001f600 {{ question }}")
        prompts.push(connection, "odd", replace(PROMPT, messages=(odd,)), actor="ann \u2028 ä", now=NOW)
    return house


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Workspace]:
    """An empty registry on either database, whichever the other one is on."""
    url = ""
    name = ""
    if request.param == "postgresql":
        running: Postgres
        running, template = request.getfixturevalue("server")
        name = running.create(template)
        url = running.url(name)
    with open_workspace(RegistrySettings(home=tmp_path / "there", database_url=url)) as opened:
        yield opened
    if name:
        running.drop(name)


def test_a_restored_registry_is_the_one_that_was_saved_on_either_database(
    busy: House, empty: Workspace, tmp_path: Path
) -> None:
    saved = save(busy.workspace, tmp_path / "all.tar")
    before = dump(busy.workspace)
    answer = restore(empty, tmp_path / "all.tar")
    after = dump(empty)
    assert [row[3] for row in after["audit"][len(before["audit"]) :]] == ["audit.key", "registry.restore"]
    after["audit"] = after["audit"][: len(before["audit"])]
    after["audit_keys"] = [row for row in after["audit_keys"] if row in before["audit_keys"]]
    assert after == before
    assert answer == {
        "ok": True, "rows": saved["rows"], "blobs": saved["blobs"], "at": "2026-03-01T12:00:00.000000Z",
        "audit_seq": saved["audit_seq"], "lost_after": None,
    }  # fmt: skip
    with empty.reading() as connection:
        assert promotion.problems(connection, empty.artifacts) == []
        assert audit_verify.verify(connection)["problems"] == []
    there = House(empty, busy.key, busy.suite, busy.dataset, now=busy.now)
    assert there.rollback().action == "rollback"
    assert save(empty, tmp_path / "again.tar")["blobs"] == saved["blobs"]


def test_the_file_is_private_and_any_tar_program_lists_it(busy: House, tmp_path: Path) -> None:
    answer = save(busy.workspace, tmp_path / "all.tar")
    assert stat.S_IMODE((tmp_path / "all.tar").stat().st_mode) == 0o600
    assert answer["bytes"] == (tmp_path / "all.tar").stat().st_size
    with tarfile.open(tmp_path / "all.tar", "r:") as file:
        names = file.getnames()
        columns = file.extractfile("tables/users.jsonl").readline()  # type: ignore[union-attr]
    assert {name.partition("/")[0] for name in names} == {"blobs", "tables", "manifest.json"}
    assert json.loads(columns) == ["name", "role", "digest", "created_at", "created_by", "revoked_at"]
    key = busy.workspace.settings.signing_key.read_bytes().splitlines()[1]
    assert key not in (tmp_path / "all.tar").read_bytes()


def test_large_tables_and_blobs_go_through(house: House, empty: Workspace, tmp_path: Path) -> None:
    data = b"".join(b'{"id":"%d","text":"%s"}\n' % (number, b"x" * 1000) for number in range(5000))
    with house.workspace.writing() as connection:
        from registry import datasets

        datasets.push(connection, house.workspace.artifacts, "large", data, actor="ann", now=NOW)
        for number in range(1100):
            audit.append(connection, "note", f"note/{number}", {"text": "y" * 3000}, actor="ann", now=NOW)
    save(house.workspace, tmp_path / "all.tar")
    restore(empty, tmp_path / "all.tar")
    assert empty.artifacts.get(digest_bytes(data)) == data
    with empty.reading() as connection:
        assert len(audit.records(connection, action="note", limit=2000)) == 1100


def test_only_an_empty_registry_is_restored_into(busy: House, tmp_path: Path) -> None:
    save(busy.workspace, tmp_path / "all.tar")
    before = dump(busy.workspace)
    with pytest.raises(Conflict, match="restore into an empty one"):
        restore(busy.workspace, tmp_path / "all.tar")
    assert dump(busy.workspace) == before


def test_a_missing_or_damaged_blob_stops_a_backup_before_there_is_a_file(busy: House, tmp_path: Path) -> None:
    artifacts = busy.workspace.artifacts
    digest = str(busy.dataset.content["artifact"])
    artifacts.path(digest).write_bytes(b"changed")
    with pytest.raises(VersionTampered, match=digest):
        save(busy.workspace, tmp_path / "all.tar")
    artifacts.path(digest).unlink()
    with pytest.raises(NotFound, match=digest):
        save(busy.workspace, tmp_path / "all.tar")
    assert [path for path in tmp_path.iterdir() if "all" in path.name] == []


def test_a_changed_content_stops_a_backup(busy: House, tmp_path: Path) -> None:
    with busy.workspace.writing() as connection:
        connection.execute(update(tables.versions).values(content="{}"))
    with pytest.raises(VersionTampered, match="no longer has digest"):
        save(busy.workspace, tmp_path / "all.tar")


def test_a_file_that_exists_stays_until_the_new_one_is_whole(busy: House, tmp_path: Path) -> None:
    save(busy.workspace, tmp_path / "all.tar")
    kept = (tmp_path / "all.tar").read_bytes()
    busy.workspace.artifacts.path(str(busy.dataset.content["artifact"])).unlink()
    with pytest.raises(NotFound):
        save(busy.workspace, tmp_path / "all.tar")
    assert (tmp_path / "all.tar").read_bytes() == kept


def test_writing_goes_on_meanwhile_and_is_not_in_the_file(busy: House, tmp_path: Path) -> None:
    workspace = busy.workspace
    before = dump(workspace)
    rows: list[int] = []

    def bar(label: str, _total: int) -> AbstractContextManager[Callable[[int], None]]:
        if label == "tables":
            with workspace.writing() as connection:
                seq = audit.append(connection, "note", "note/1", {}, actor="ann", now=NOW)
                rows.append(seq)
        return bundle.silent(label, _total)

    reading = partial(workspace.viewing, "registry.backup")
    answer = backup.backup(reading, workspace.artifacts, tmp_path / "all.tar", now=NOW, bar=bar)
    assert answer["rows"]["audit"] in (len(before["audit"]), len(before["audit"]) + 1)
    assert answer["audit_seq"] == answer["rows"]["audit"]


# Refused files

Files = dict[str, bytes]


def unpacked(path: Path) -> Files:
    with tarfile.open(path, "r:") as file:
        return {name: file.extractfile(name).read() for name in file.getnames()}  # type: ignore[union-attr]


def packed(files: Files, **manifest: Any) -> bytes:
    told = json.loads(files["manifest.json"])
    told |= {"blobs": sum(name.startswith("blobs/") for name in files)} | manifest
    kind, _ = told.pop("format"), told.pop("members")
    listed = [
        bundle.Member(name, len(data), digest_bytes(data))
        for name, data in files.items()
        if name.startswith("tables/")
    ]
    files = files | {"manifest.json": bundle.manifest_of(kind, listed, **told)}
    held = io.BytesIO()
    writer = bundle.Writer(held)
    for name, data in files.items():
        writer.add(name, (data,))
    writer.finish()
    return held.getvalue()


def lines(files: Files, table: str, change: Callable[[list[Any]], list[Any]]) -> Files:
    name = f"tables/{table}.jsonl"
    rows = change([json.loads(line) for line in files[name].splitlines()])
    return files | {name: b"".join(json.dumps(row).encode() + b"\n" for row in rows)}


def longer(rows: list[Any]) -> list[Any]:
    return [rows[0], [*rows[1], "more"], *rows[2:]]


def with_value(column: str, value: Any) -> Callable[[list[Any]], list[Any]]:
    def change(rows: list[Any]) -> list[Any]:
        at = rows[0].index(column)
        return [rows[0], [*rows[1][:at], value, *rows[1][at + 1 :]], *rows[2:]]

    return change


def without(files: Files, start: str) -> Files:
    name = next(name for name in files if name.startswith(start))
    return {other: data for other, data in files.items() if other != name}


def versions_with(column: str, value: Any) -> Callable[[Files], bytes]:
    return lambda files: packed(lines(files, "versions", with_value(column, value)))


CHANGES: dict[str, tuple[Callable[[Files], bytes], type[PlatformError], str]] = {
    "another schema": (lambda f: packed(f, schema="0002"), BadInput, "of schema '0002'.*then upgrade"),
    "no time": (lambda f: packed(f, blobs=7), BadInput, "lacks, or does not need"),
    "a lost table": (lambda f: packed(without(f, "tables/users")), BadInput, "tables/users.jsonl"),
    "an unknown table": (lambda f: packed(f | {"tables/more.jsonl": b"[]"}), BadInput, "tables/more.jsonl"),
    "a lost blob": (lambda f: packed(without(f, "blobs/")), VersionTampered, "lacks blob sha256"),
    "a blob of another name": (
        lambda f: packed(without(f, "blobs/") | {"blobs/" + "0" * 64: b"x"}), VersionTampered, "has digest",
    ),
    "other columns": (lambda f: packed(lines(f, "users", lambda _: [["name"]])), BadInput, "other columns"),
    "a row too long": (lambda f: packed(lines(f, "versions", longer)), BadInput, "line 2: is not a row of 9"),
    "a value of another type": (versions_with("number", "1"), BadInput, "line 2: number is a str"),
    "a missing value": (versions_with("name", None), BadInput, "line 2: name is a NoneType"),
    "a truth for a number": (versions_with("number", True), BadInput, "line 2: number is a bool"),
    "no JSON": (lambda f: packed(f | {"tables/users.jsonl": b"nothing"}), BadInput, "line 1: is not JSON"),
    "a lost row": (lambda f: packed(lines(f, "aliases", lambda r: r[:-1])), VersionTampered, "other rows"),
    "a changed content": (versions_with("content", "{}"), VersionTampered, "no longer has digest"),
    "a changed author": (versions_with("created_by", "eve"), AuditTampered, "does not hold"),
    "a changed record": (
        lambda f: packed(lines(f, "audit", with_value("actor", "eve"))), AuditTampered, "does not hold",
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Files:
    folder = tmp_path_factory.mktemp("saved")
    with open_workspace(RegistrySettings(home=folder / "home")) as workspace:
        from registry import datasets, releases
        from registry.releases import ReleaseFile

        with workspace.writing() as connection:
            prompts.push(connection, "support", PROMPT, actor="ann", now=NOW)
            datasets.push(connection, workspace.artifacts, "q", b'{"id":"1"}\n', actor="ann", now=NOW)
            file = ReleaseFile(name="support", kind="chat", model="openai/one", prompt="support")
            release = releases.create(connection, file, actor="ann", now=NOW)
            promotion.nominate(connection, release, actor="ann", now=NOW)
        save(workspace, folder / "all.tar")
    return unpacked(folder / "all.tar")


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(RegistrySettings(home=tmp_path / "fresh")) as opened:
        yield opened


@pytest.mark.parametrize("change", CHANGES)
def test_a_backup_that_does_not_hold_is_refused_and_the_registry_stays_empty(
    saved: Files, fresh: Workspace, tmp_path: Path, change: str
) -> None:
    alter, error, message = CHANGES[change]
    (tmp_path / "bad.tar").write_bytes(alter(saved))
    before = dump(fresh)
    with pytest.raises(error, match=message):
        restore(fresh, tmp_path / "bad.tar")
    assert dump(fresh) == before
    (tmp_path / "good.tar").write_bytes(packed(saved))
    assert restore(fresh, tmp_path / "good.tar")["ok"]


def test_an_archive_of_a_release_is_no_backup(busy: House, fresh: Workspace, tmp_path: Path) -> None:
    from registry import pack

    reading = partial(busy.workspace.viewing, "releases.export")
    pack.export(reading, busy.workspace.artifacts, "support", tmp_path / "one.tar")
    with pytest.raises(BadInput, match="its format is 'sluicegate-release/1', not 'sluicegate-backup/1'"):
        restore(fresh, tmp_path / "one.tar")
    with pytest.raises(BadInput, match="see --max-gb"):
        restore(fresh, tmp_path / "one.tar", most_bytes=10)


def test_a_newer_schema_is_left_to_the_newer_program(busy: House, tmp_path: Path) -> None:
    with busy.workspace.writing() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(BadInput, match=f"of schema 9999, and this Sluicegate of {db.HEAD}"):
        save(busy.workspace, tmp_path / "all.tar")


# The chain and its anchor


@SQLITE
def test_after_a_loss_the_anchor_still_knows_and_somebody_has_to_accept_that(
    house: House, tmp_path: Path
) -> None:
    save(house.workspace, tmp_path / "all.tar")
    house.release()
    house.workspace.engine.dispose()
    for path in house.workspace.settings.home.glob("registry.db*"):
        path.unlink()
    with open_workspace(house.workspace.settings) as again:
        answer = restore(again, tmp_path / "all.tar")
        assert answer["lost_after"] == answer["audit_seq"]
        with (
            pytest.raises(AuditTampered, match="registry audit anchor --accept"),
            again.writing() as connection,
        ):
            audit.append(connection, "note", "note/1", {}, actor="ann", now=NOW)
        with again.writing() as connection:
            lost, head = audit_anchor.known(again.settings.audit_anchor), audit_anchor.end(connection)
            assert head is not None
            anchor.keep(again.settings.audit_anchor, head, replace=True)
            audit_anchor.accept(connection, lost, reason="the disk died", actor="ann", now=NOW)
        with again.writing() as connection:
            audit.append(connection, "note", "note/1", {}, actor="ann", now=NOW)


def test_users_come_back_with_their_roles(busy: House, fresh: Workspace, tmp_path: Path) -> None:
    with busy.workspace.writing() as connection:
        _, root = access.add_user(connection, "root", "admin", actor="ann", now=NOW)
        _, eve = access.add_user(connection, "eve", "promoter", actor="root", now=NOW)
    viewing = partial(busy.workspace.viewing, "registry.backup")
    artifacts = busy.workspace.artifacts
    with pytest.raises(Forbidden):
        backup.backup(partial(viewing, eve), artifacts, tmp_path / "all.tar", now=NOW)
    with pytest.raises(Unauthorized):
        backup.backup(viewing, artifacts, tmp_path / "all.tar", now=NOW)
    assert not (tmp_path / "all.tar").exists()
    backup.backup(partial(viewing, root), artifacts, tmp_path / "all.tar", now=NOW)
    restore(fresh, tmp_path / "all.tar")
    with fresh.viewing("registry.backup", root):
        pass
    with pytest.raises(Forbidden), fresh.viewing("registry.backup", eve):
        pass


# Command lines


def registry(project: Path, *words: str) -> tuple[int, str, str]:
    done = subprocess.run(
        [sys.executable, "-c", "from registry.cli import main; main()", *words],
        cwd=project, capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, "SLUICEGATE_ACTOR": "ann"},
    )  # fmt: skip
    return done.returncode, done.stdout, done.stderr


@SQLITE
def test_the_commands_say_the_same_to_people_and_machines(busy: House, tmp_path: Path) -> None:
    (tmp_path / "sluicegate.yaml").write_text("registry: {home: home}\n")
    there = tmp_path / "other"
    there.mkdir()
    (there / "sluicegate.yaml").write_text("registry: {home: home}\n")
    code, out, _ = registry(tmp_path, "backup", "all.tar")
    assert (code, "private keys in" in out) == (0, True)
    code, out, _ = registry(tmp_path, "releases", "export", "support@production", "-o", "one.tar", "--json")
    assert (code, json.loads(out)["release"]) == (0, "support:2")
    code, out, _ = registry(there, "releases", "verify", "../one.tar")
    assert (code, "no key was named" in out) == (0, True)
    code, out, _ = registry(
        there, "releases", "verify", "../one.tar", "--trust", "sha256:" + "0" * 64, "--json"
    )
    assert (code, json.loads(out)["ok"]) == (1, False)
    code, out, _ = registry(there, "restore", "../all.tar")
    assert (code, out.startswith("restored ")) == (0, True)
    code, out, _ = registry(there, "releases", "import", "../one.tar", "--json")
    assert (code, {one["outcome"] for one in json.loads(out)["versions"]}) == (0, {"known"})
    code, out, _ = registry(there, "gc", "--dry-run", "--keep-days", "0", "--keep-newest", "1")
    assert (code, "would remove" in out) == (0, True)
    code, out, _ = registry(there, "restore", "../all.tar", "--json")
    assert (code, json.loads(out)["error"]["code"]) == (3, "conflict")


def test_the_rows_survive_a_changed_alias(busy: House, fresh: Workspace, tmp_path: Path) -> None:
    """A row that was changed behind the registry is found when it is restored, not years later."""
    with busy.workspace.writing() as connection:
        connection.execute(update(tables.aliases).values(digest="sha256:" + "0" * 64))
    save(busy.workspace, tmp_path / "all.tar")
    with pytest.raises(VersionTampered, match="not consistent: support@"):
        restore(fresh, tmp_path / "all.tar")
