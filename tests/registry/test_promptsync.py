from __future__ import annotations

from pathlib import Path

import pytest

from registry import prompts, promptsync
from registry.errors import BadInput
from registry.refs import Ref
from registry.workspace import Workspace

from .conftest import NOW


def text(name: str, says: str) -> str:
    return f"---\nname: {name}\n---\n# user\n{says}\n"


def sync(workspace: Workspace, folder: Path) -> dict[str, str]:
    with workspace.writing() as connection:
        steps = promptsync.plan(connection, folder)
        steps = promptsync.push(connection, steps, actor="ann", now=NOW)
    promptsync.write(folder, steps)
    return {step.path: step.action for step in steps}


def push(workspace: Workspace, file: str) -> None:
    with workspace.writing() as connection:
        prompts.push_files(connection, [prompts.read(file, "x")], actor="bob", now=NOW)


def newest(workspace: Workspace, name: str) -> str:
    with workspace.reading() as connection:
        return str(prompts.pull(connection, Ref(name))["file"])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "prompts" / "deep").mkdir(parents=True)
    return tmp_path / "prompts"


def test_what_is_new_on_one_side_goes_to_the_other(workspace: Workspace, folder: Path) -> None:
    (folder / "deep" / "a.md").write_text(text("a", "one"))
    (folder / "README.md").write_text("# about prompts\n")
    (folder / "deep" / ".hidden.md").write_text("---\nnonsense")
    push(workspace, text("b", "two"))
    assert sync(workspace, folder) == {"deep/a.md": "push", "b.md": "write"}
    assert (folder / "b.md").read_text() == text("b", "two")
    assert newest(workspace, "a") == text("a", "one")
    assert sync(workspace, folder) == {"deep/a.md": "same", "b.md": "same"}


def test_changes_travel_in_both_directions(workspace: Workspace, folder: Path) -> None:
    for name in ("a", "b"):
        (folder / f"{name}.md").write_text(text(name, "one"))
    sync(workspace, folder)
    (folder / "a.md").write_text(text("a", "two"))
    push(workspace, text("b", "two"))
    assert sync(workspace, folder) == {"a.md": "push", "b.md": "write"}
    assert [newest(workspace, name) for name in "ab"] == [text("a", "two"), text("b", "two")]
    assert (folder / "b.md").read_text() == text("b", "two")


def test_a_conflict_is_reported_and_neither_is_touched(workspace: Workspace, folder: Path) -> None:
    (folder / "a.md").write_text(text("a", "one"))
    sync(workspace, folder)
    (folder / "a.md").write_text(text("a", "mine"))
    push(workspace, text("a", "theirs"))
    before = (folder / promptsync.LOCK).read_bytes()
    for _ in range(2):
        assert sync(workspace, folder) == {"a.md": "conflict"}
    assert ((folder / "a.md").read_text(), newest(workspace, "a")) == (text("a", "mine"), text("a", "theirs"))
    assert (folder / promptsync.LOCK).read_bytes() == before
    push(workspace, text("a", "mine"))
    assert newest(workspace, "a") == text("a", "mine")
    assert sync(workspace, folder) == {"a.md": "same"}


def test_both_sides_with_the_same_change_agree(workspace: Workspace, folder: Path) -> None:
    (folder / "a.md").write_text(text("a", "one"))
    sync(workspace, folder)
    (folder / "a.md").write_text(text("a", "two"))
    push(workspace, text("a", "two"))
    assert sync(workspace, folder) == {"a.md": "same"}
    push(workspace, text("a", "three"))
    assert sync(workspace, folder) == {"a.md": "write"}


def test_without_a_lock_an_older_version_is_brought_up_to_date(workspace: Workspace, folder: Path) -> None:
    push(workspace, text("a", "one"))
    push(workspace, text("a", "two"))
    (folder / "a.md").write_text(text("a", "one"))
    assert sync(workspace, folder) == {"a.md": "write"}
    assert (folder / "a.md").read_text() == text("a", "two")


def test_without_a_lock_an_unknown_text_is_a_conflict(workspace: Workspace, folder: Path) -> None:
    push(workspace, text("a", "one"))
    (folder / "a.md").write_text(text("a", "two"))
    assert sync(workspace, folder) == {"a.md": "conflict"}
    assert not (folder / promptsync.LOCK).exists()


@pytest.mark.parametrize("again", [text("a", "one"), text("a", "one") + "\n"])
def test_going_back_to_an_older_version_is_a_conflict(workspace: Workspace, folder: Path, again: str) -> None:
    for says in ("one", "two"):
        (folder / "a.md").write_text(text("a", says))
        assert sync(workspace, folder) == {"a.md": "push"}
    (folder / "a.md").write_text(again)
    for _ in range(2):
        assert sync(workspace, folder) == {"a.md": "conflict"}
    assert ((folder / "a.md").read_text(), newest(workspace, "a")) == (again, text("a", "two"))


def test_a_deleted_file_is_not_written_again(workspace: Workspace, folder: Path) -> None:
    (folder / "a.md").write_text(text("a", "one"))
    sync(workspace, folder)
    (folder / "a.md").unlink()
    for _ in range(2):
        assert sync(workspace, folder) == {"a.md": "deleted"}
    push(workspace, text("a", "two"))
    assert sync(workspace, folder) == {"a.md": "conflict"}
    assert not (folder / "a.md").exists()


def test_a_renamed_file_is_the_same_prompt(workspace: Workspace, folder: Path) -> None:
    (folder / "a.md").write_text(text("a", "one"))
    sync(workspace, folder)
    (folder / "a.md").rename(folder / "deep" / "a.md")
    assert sync(workspace, folder) == {"deep/a.md": "same"}


def test_another_file_in_the_way_is_not_overwritten(workspace: Workspace, folder: Path) -> None:
    push(workspace, text("a", "one"))
    (folder / "a.md").write_text("notes\n")
    assert sync(workspace, folder) == {"a.md": "conflict"}
    assert (folder / "a.md").read_text() == "notes\n"


def test_a_file_that_changes_meanwhile_is_not_overwritten(workspace: Workspace, folder: Path) -> None:
    (folder / "a.md").write_text(text("a", "one"))
    sync(workspace, folder)
    push(workspace, text("a", "two"))
    with workspace.reading() as connection:
        steps = promptsync.plan(connection, folder)
    (folder / "a.md").write_text(text("a", "meanwhile"))
    with pytest.raises(BadInput, match="changed while this ran"):
        promptsync.write(folder, steps)
    assert (folder / "a.md").read_text() == text("a", "meanwhile")


def test_a_damaged_lock_and_a_missing_folder_are_errors(workspace: Workspace, folder: Path) -> None:
    (folder / promptsync.LOCK).write_text("{")
    with workspace.reading() as connection:
        with pytest.raises(BadInput, match=r"\.prompts\.lock: damaged; delete it and sync again"):
            promptsync.plan(connection, folder)
        with pytest.raises(BadInput, match="no such folder"):
            promptsync.plan(connection, folder / "nowhere")
