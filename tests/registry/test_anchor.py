"""Heads of the chain outside of the database: kept in order, never taken back by accident."""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path

import pytest

from registry import anchor, audit_anchor
from registry.anchor import Head
from registry.errors import AuditTampered, BadInput, StoreUnavailable


def head(seq: int) -> Head:
    return Head(seq, f"{seq:064x}", "2026-03-01T12:00:00.000000Z", "sha256:key", "sig")


def test_a_head_is_read_back_as_it_was_kept(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "audit.json"
    assert anchor.read(path) is None
    anchor.keep(path, head(3))
    assert anchor.read(path) == head(3)


def test_an_earlier_head_takes_no_later_ones_place_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    anchor.keep(path, head(5))
    anchor.keep(path, head(4))
    assert anchor.read(path) == head(5)
    anchor.keep(path, head(4), replace=True)
    assert anchor.read(path) == head(4)


def test_many_who_keep_heads_leave_the_latest(tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    threads = [threading.Thread(target=anchor.keep, args=(path, head(seq))) for seq in range(1, 21)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert anchor.read(path) == head(20)


@pytest.mark.parametrize(
    "text", ["", "nonsense", "[]", "{}", '{"seq":"1","hash":"","at":"","key_id":"","signature":""}']
)
def test_what_is_no_head_is_said_to_be_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "audit.json"
    path.write_text(text)
    with pytest.raises(AuditTampered, match="holds no head"):
        anchor.read(path)
    with pytest.raises(AuditTampered if text else BadInput):
        audit_anchor.heads(str(path))
    assert audit_anchor.known(path) is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be kept"):
        anchor.keep(tmp_path / "file" / "audit.json", head(1))
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        audit_anchor.publish(head(1), str(tmp_path / "file" / "heads.jsonl"))


def test_a_file_gets_a_line_for_each_head(tmp_path: Path) -> None:
    path = str(tmp_path / "heads.jsonl")
    for seq in (1, 2):
        assert audit_anchor.publish(head(seq), path) == path
    assert audit_anchor.heads(path) == [(path, head(1)), (f"{path}:2", head(2))]


def test_an_object_store_gets_an_object_for_each_head() -> None:
    url = "memory://audit-heads/prefix"
    places = [audit_anchor.publish(head(seq), url + "/") for seq in (9, 10)]
    assert places == [f"{url}/000000000009-{head(9).hash[:16]}.json",
                      f"{url}/000000000010-{head(10).hash[:16]}.json"]  # fmt: skip
    assert [found for _, found in audit_anchor.heads(url)] == [head(9), head(10)]
    assert [found for _, found in audit_anchor.heads(places[0])] == [head(9)]


def test_a_store_that_nobody_knows_is_said_so() -> None:
    with pytest.raises(StoreUnavailable, match="cannot be written"):
        audit_anchor.publish(head(1), "nowhere://bucket")
    with pytest.raises(BadInput, match="cannot be read"):
        audit_anchor.heads("nowhere://bucket")


def test_a_git_folder_gets_a_commit_for_each_head(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="in no git repository"):
        audit_anchor.commit(head(1), tmp_path)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True, timeout=60)
    (tmp_path / "other").write_text("not ours")
    commits = [audit_anchor.commit(head(seq), tmp_path) for seq in (1, 2)]
    assert len(set(commits)) == 2
    listing = ["git", "-C", str(tmp_path), "ls-files"]
    listed = subprocess.run(listing, check=True, timeout=60, capture_output=True, text=True).stdout
    assert listed.split() == [audit_anchor.HEADS]
    assert [found for _, found in audit_anchor.heads(str(tmp_path / audit_anchor.HEADS))] == [
        head(1),
        head(2),
    ]
