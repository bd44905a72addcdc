from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select

from registry import (
    approvals,
    audit,
    audit_keep,
    audit_verify,
    collect,
    datasets,
    labels,
    policies,
    prompts,
    releases,
    tables,
    versions,
)
from registry.artifacts import Artifacts, Blob
from registry.clock import utc_now
from registry.entities import GatePolicy, Kind, PromptContent, PromptMessage, Version
from registry.errors import BadInput, Forbidden, NotFound
from registry.ids import digest_bytes
from registry.releases import ReleaseFile
from registry.workspace import Workspace
from tests.registry.conftest import NOW, House


def run(
    workspace: Workspace,
    store: Artifacts | None = None,
    *,
    days: int = 30,
    newest: int = 1,
    dry: bool = False,
    now: datetime | None = None,
) -> dict[str, Any]:
    """By default as of two hours from now: no blob that a test put is too young."""
    verb = "registry.collect"
    return collect.collect(
        partial(workspace.viewing, verb), partial(workspace.acting, verb), store or workspace.artifacts,
        now=now or utc_now() + timedelta(hours=2), keep_days=days, keep_newest=newest, dry_run=dry,
    )  # fmt: skip


def text(number: int, name: str = "greeting") -> PromptContent:
    return PromptContent(
        (PromptMessage("user", f"{name} {number} {{{{ question }}}}"),), {"question": "text"}
    )


def push(workspace: Workspace, count: int, name: str = "greeting", at: datetime = NOW) -> list[Version]:
    with workspace.writing() as connection:
        return [
            prompts.push(
                connection, name, text(number, name), actor="ann", now=at + timedelta(seconds=number)
            )
            for number in range(count)
        ]


def numbers(workspace: Workspace, kind: Kind, name: str) -> list[int]:
    with workspace.reading() as connection:
        return sorted(version.number for version in versions.listing(connection, kind, name))


def dataset(workspace: Workspace, rows: bytes, at: datetime = NOW) -> Version:
    with workspace.writing() as connection:
        return datasets.push(connection, workspace.artifacts, "rows", rows, actor="ann", now=at)


def blob(version: Version) -> str:
    return str(version.content["artifact"])


def test_the_newest_of_each_name_stay_and_numbers_are_never_given_again(workspace: Workspace) -> None:
    pushed = push(workspace, 7)
    answer = run(workspace, newest=5)
    assert [(one["number"], one["digest"]) for one in answer["versions"]] == [
        (v.number, v.digest) for v in pushed[:2]
    ]
    assert (answer["version_count"], numbers(workspace, "prompt", "greeting")) == (2, [3, 4, 5, 6, 7])
    with workspace.writing() as connection:
        assert prompts.push(connection, "greeting", text(0), actor="ann", now=NOW).number == 8


def test_what_came_lately_stays(workspace: Workspace) -> None:
    now = utc_now()
    push(workspace, 3, at=now - timedelta(days=29))
    assert run(workspace, days=30)["versions"] == []
    assert [one["number"] for one in run(workspace, days=28)["versions"]] == [1, 2]


def test_collecting_twice_removes_nothing_more(workspace: Workspace) -> None:
    push(workspace, 4)
    assert run(workspace)["version_count"] == 3
    assert (run(workspace)["version_count"], numbers(workspace, "prompt", "greeting")) == (0, [4])


def test_a_dry_run_says_what_would_go_and_removes_nothing(workspace: Workspace) -> None:
    push(workspace, 3)
    dataset(workspace, b'{"id":"1"}\n')
    dataset(workspace, b'{"id":"2"}\n')
    would = run(workspace, dry=True)
    with workspace.reading() as connection:
        assert audit.records(connection, action="registry.collect") == []
    did = run(workspace)
    assert did == would | {"dry_run": False}
    assert (did["version_count"], did["blob_count"], did["blobs"][0]["bytes"]) == (3, 1, 11)


def test_only_releases_that_nothing_can_return_to_are_collected(house: House) -> None:
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    house.now += timedelta(minutes=5)
    tried = house.release("openai/tried")
    second = house.release("openai/two")
    house.evidence(second, baseline=first)
    house.promote()
    third = house.release("openai/three")
    answer = run(house.workspace)
    assert [one["digest"] for one in answer["versions"]] == [tried.digest]
    assert (house.problems(), house.production()) == ([], second.digest)
    house.now += timedelta(minutes=5)
    assert house.rollback().to_digest == first.digest
    assert numbers(house.workspace, "release", "support") == sorted(
        [first.number, second.number, third.number]
    )


def test_everything_a_release_pins_stays_with_it(house: House) -> None:
    pushed = push(house.workspace, 4)
    with house.workspace.writing() as connection:
        file = ReleaseFile("support", "chat", "openai/one", prompt="greeting:2")
        release = releases.create(connection, file, actor="ann", now=NOW)
    run(house.workspace)
    assert numbers(house.workspace, "prompt", "greeting") == [2, 4]
    with house.workspace.reading() as connection:
        assert releases.assemble(connection, release).prompt == prompts.content_of(pushed[1])


def test_what_evidence_about_a_kept_release_rests_on_stays(house: House) -> None:
    house.evidence(house.release())
    with house.workspace.writing() as connection:
        newer = datasets.push(
            connection, house.workspace.artifacts, "q", b'{"id":"3"}\n', actor="ann", now=NOW
        )
        newest = datasets.push(
            connection, house.workspace.artifacts, "q", b'{"id":"4"}\n', actor="ann", now=NOW
        )
    answer = run(house.workspace)
    assert [one["digest"] for one in answer["versions"]] == [newer.digest]
    assert [one["digest"] for one in answer["blobs"]] == [blob(newer)]
    for kept in (house.dataset, newest):
        assert house.workspace.artifacts.has(blob(kept))


def test_labels_approvals_holds_and_gate_policies_keep_what_they_name(house: House) -> None:
    workspace = house.workspace
    labelled = push(workspace, 4)[1]
    push(workspace, 3, "held")
    releases_made = [house.release(f"openai/{number}") for number in range(3)]
    with workspace.writing() as connection:
        labels.move(connection, labelled, "staging", actor="ann", now=NOW)
        held = audit_keep.place(connection, "prompt/held:1", reason="a lawsuit", actor="ann", now=NOW)
        for size in (10, 20, 30):
            gate = policies.PolicyFile("gate", "support", gate=GatePolicy(min_samples=size))
            policies.push(connection, gate, actor="ann", now=NOW)
        approvals.give(
            connection, releases_made[0], "production", terms=GatePolicy(), comment="", actor="bob", now=NOW
        )
    run(workspace)
    assert numbers(workspace, "prompt", "greeting") == [2, 4]
    assert numbers(workspace, "prompt", "held") == [1, 3]
    assert numbers(workspace, "gate-policy", "support") == [1, 2, 3]
    assert numbers(workspace, "release", "support") == [1, 3]
    with workspace.writing() as connection:
        audit_keep.release(connection, held["id"], actor="ann", now=NOW)
    run(workspace)
    assert numbers(workspace, "prompt", "held") == [3]


def test_the_removal_is_recorded_and_the_chain_still_holds(house: House) -> None:
    pushed = push(house.workspace, 3)
    run(house.workspace)
    with house.workspace.reading() as connection:
        (record,) = audit.records(connection, action="registry.collect")
        verdict = audit_verify.verify(connection)
    assert (record.target, record.body) == (
        "registry",
        {"collected": ["prompt/greeting:1", "prompt/greeting:2"], "digests": [v.digest for v in pushed[:2]]},
    )
    assert (verdict["ok"], verdict["problems"]) == (True, [])


def test_a_record_names_at_most_a_thousand_versions(workspace: Workspace) -> None:
    rows = [
        {"id": f"ver_{number:026d}", "kind": "prompt", "name": "many", "number": number, "content": "{}",
         "meta": "{}", "digest": digest_bytes(b"%d" % number), "created_at": "", "created_by": ""}
        for number in range(1, 2302)
    ]  # fmt: skip
    with workspace.writing() as connection:
        connection.execute(insert(tables.versions), rows)
    answer = run(workspace)
    with workspace.reading() as connection:
        bodies = [record.body or {} for record in audit.records(connection, action="registry.collect")]
    assert (answer["version_count"], len(answer["versions"])) == (2300, 1000)
    assert sum(len(body["collected"]) for body in bodies) == 2300
    assert max(len(body["collected"]) for body in bodies) <= 1000


def test_original_files_go_with_their_prompts(workspace: Workspace) -> None:
    pushed = push(workspace, 2)
    files = tables.prompt_files
    with workspace.writing() as connection:
        for version in pushed:
            row = {
                "kind": "prompt",
                "name": "greeting",
                "digest": version.digest,
                "text": "",
                "at": "",
                "by": "",
            }
            connection.execute(insert(files).values(row))
    run(workspace)
    with workspace.reading() as connection:
        assert list(connection.execute(select(files.c.digest)).scalars()) == [pushed[1].digest]


@pytest.mark.parametrize("terms", [{"newest": 0}, {"days": -1}])
def test_the_newest_version_of_a_name_always_stays(workspace: Workspace, terms: dict[str, int]) -> None:
    with pytest.raises(BadInput, match="the newest version of a name always stays"):
        run(workspace, **terms)  # type: ignore[arg-type]


def test_only_an_admin_collects(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    from registry import access

    with workspace.writing() as connection:
        access.add_user(connection, "root", "admin", actor="ann", now=NOW)
        _, token = access.add_user(connection, "eve", "promoter", actor="root", now=NOW)
    push(workspace, 3)
    monkeypatch.setenv("SLUICEGATE_TOKEN", token)
    for dry in (True, False):
        with pytest.raises(Forbidden):
            run(workspace, dry=dry)
    assert numbers(workspace, "prompt", "greeting") == [1, 2, 3]


# Blobs


def test_blobs_that_no_version_names_go_once_they_are_an_hour_old(workspace: Workspace) -> None:
    kept, loose = dataset(workspace, b'{"id":"1"}\n'), workspace.artifacts.put(b"loose")
    assert run(workspace, now=utc_now() + timedelta(minutes=59))["blobs"] == []
    assert run(workspace, now=utc_now() + timedelta(minutes=61))["blobs"] == [{"digest": loose, "bytes": 5}]
    assert list(workspace.artifacts.digests()) == [blob(kept)]


def test_a_blob_that_two_versions_name_stays_for_the_other(workspace: Workspace) -> None:
    with workspace.writing() as connection:
        for source in ("a", "b"):
            rows = b'{"id":"1"}\n'
            datasets.push(connection, workspace.artifacts, "rows", rows, source=source, actor="ann", now=NOW)
    answer = run(workspace)
    assert (answer["version_count"], answer["blobs"], answer["bytes"] > 0) == (1, [], True)


class Racing(Artifacts):
    """Something happens after the blobs were listed."""

    def __init__(self, folder: Path, then: Any) -> None:
        super().__init__(folder)
        self._then = then

    def blobs(self) -> Iterator[Blob]:
        yield from super().blobs()
        self._then()


def test_a_version_pushed_meanwhile_keeps_its_old_blob(workspace: Workspace) -> None:
    store = workspace.artifacts
    digest = store.put(b'{"id":"1"}\n')
    os.utime(store.path(digest), (0, 0))
    answer = run(
        workspace, Racing(store.folder, lambda: dataset(workspace, b'{"id":"1"}\n', utc_now())), now=utc_now()
    )
    assert (answer["blobs"], store.has(digest)) == ([], True)


def test_a_blob_put_again_meanwhile_stays_though_no_version_names_it_yet(workspace: Workspace) -> None:
    store = workspace.artifacts
    digest = store.put(b"loose")
    os.utime(store.path(digest), (0, 0))
    answer = run(workspace, Racing(store.folder, lambda: store.put(b"loose")), now=utc_now())
    assert (answer["blobs"], store.has(digest)) == ([], True)


class Crashing(Artifacts):
    """Ends everything at the second removal."""

    removed = 0

    def delete(self, digest: str, *, before: datetime | None = None) -> bool:
        self.removed += 1
        if self.removed > 1:
            raise KeyboardInterrupt
        return super().delete(digest, before=before)


def test_a_crash_leaves_blobs_too_many_and_never_one_too_few(workspace: Workspace) -> None:
    pushed = [dataset(workspace, b'{"id":"%d"}\n' % number) for number in range(4)]
    with pytest.raises(KeyboardInterrupt):
        run(workspace, Crashing(workspace.artifacts.folder))
    assert numbers(workspace, "dataset", "rows") == [4]
    assert workspace.artifacts.get(blob(pushed[3])) == b'{"id":"3"}\n'
    assert len(list(workspace.artifacts.blobs())) == 3
    again = run(workspace)
    assert (again["version_count"], again["blob_count"]) == (0, 2)


def test_a_failed_transaction_removes_no_blob(workspace: Workspace) -> None:
    dataset(workspace, b'{"id":"0"}\n')
    dataset(workspace, b'{"id":"1"}\n')
    with workspace.writing() as connection:
        connection.execute(tables.audit.update().values(hash="0" * 64))
    with pytest.raises(Exception, match="was changed"):
        run(workspace)
    assert (numbers(workspace, "dataset", "rows"), len(list(workspace.artifacts.blobs()))) == ([1, 2], 2)


def test_unfinished_uploads_are_swept_after_a_day(workspace: Workspace) -> None:
    folder = workspace.artifacts.folder / "ab"
    folder.mkdir(parents=True)
    (folder / ".new-left").write_bytes(b"x")
    assert run(workspace)["unfinished"] == 0
    assert run(workspace, now=utc_now() + timedelta(days=2))["unfinished"] == 1
    assert list(folder.iterdir()) == []


def test_a_remote_store_is_collected_too(workspace: Workspace, tmp_path: Path) -> None:
    from registry.objectstore import open_artifacts

    store = open_artifacts(f"memory://{tmp_path}", tmp_path / "cache")
    digest = store.put(b"loose")
    assert run(workspace, store)["blobs"] == [{"digest": digest, "bytes": 5}]
    with pytest.raises(NotFound):
        store.get(digest)
