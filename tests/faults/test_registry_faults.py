"""The process that writes to the registry is killed, or its disk is full: nothing torn, nothing lost."""

from __future__ import annotations

import contextlib
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from resource import RLIM_INFINITY, RLIMIT_FSIZE, prlimit

import pytest
from sqlalchemy import Connection

from registry import audit_verify, datasets, db, history, promotion, prompts, versions
from registry.clock import utc_now
from registry.entities import PromptContent, PromptMessage
from registry.errors import StoreUnavailable
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.registry.conftest import NOW, PROMPT, House, database_url, house, server, workspace

__all__ = ["database_url", "house", "server", "workspace"]
ROOT = Path(__file__).parent.parent.parent
KILLS = 6
ROUNDS = 8


@contextmanager
def promoter(settings: RegistrySettings, ref: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A process that writes until it is killed, at the latest at the end."""
    script = Path(__file__).parent / "promoter.py"
    command = [sys.executable, str(script), str(settings.home), ref, settings.database_url, *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as child:
        try:
            yield child
        finally:
            child.kill()


@contextmanager
def halted(child: subprocess.Popen[str]) -> Iterator[None]:
    """The child stands still meanwhile, wherever it is."""
    child.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        child.send_signal(signal.SIGCONT)


def confirmed(child: subprocess.Popen[str], count: int) -> list[str]:
    """What the child says until *count* writes more are committed."""
    assert child.stdout is not None
    found: list[str] = []
    while len(found) - len(losses(found)) < count:
        found.append(child.stdout.readline().strip())
        assert found[-1], "the writer ended"
    return found


def loss(child: subprocess.Popen[str]) -> list[str]:
    """What the child says until a write fails."""
    assert child.stdout is not None
    found: list[str] = []
    while not losses(found):
        found.append(child.stdout.readline().strip())
        assert found[-1], "the writer ended"
    return found


def losses(lines: Iterable[str]) -> list[str]:
    """Why writes failed."""
    return [line.removeprefix("lost ") for line in lines if line.startswith("lost ")]


def promotable(house: House) -> str:
    house.now = utc_now()
    first = house.release("openai/one")
    house.evidence(first)
    house.promote()
    second = house.release("openai/two")
    house.evidence(second, baseline=first)
    return f"support@{second.digest}"


def recorded(workspace: Workspace) -> set[str]:
    """Every move and every push there is; nothing is torn and the audit chain is whole."""
    with workspace.reading() as connection:
        assert promotion.problems(connection, workspace.artifacts) == []
        assert audit_verify.verify(connection)["problems"] == []
        moves = {move.id for move in history.moves(connection, "support", alias="production")}
        pushed = versions.listing(connection, "prompt", "pushed", limit=100_000)
    assert [version.number for version in pushed] == list(range(len(pushed), 0, -1))
    return moves | {version.digest for version in pushed}


def written(lines: Iterable[str]) -> set[str]:
    """What the writer said is committed."""
    return {line for line in lines if not line.startswith(("lost ", "-")) and line}


def test_pushes_killed_at_any_moment_are_there_or_not(house: House) -> None:
    chance = random.Random(11)
    said: list[str] = []
    for _ in range(KILLS):
        with promoter(house.workspace.settings, "support:1", "push") as child:
            said += confirmed(child, chance.randint(1, 25))
            child.kill()
            assert child.stdout is not None
            said += [line.strip() for line in child.stdout]
        assert written(said) - recorded(house.workspace) == set()
    there = recorded(house.workspace)
    assert 0 <= len(there) - len(written(said)) <= KILLS


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_full_disk_stops_writes_alone_and_they_go_on_once_there_is_room(house: House) -> None:
    chance = random.Random(13)
    log = house.workspace.settings.home / "registry.db-wal"
    said: list[str] = []
    with promoter(house.workspace.settings, promotable(house), "both", "patient") as child:
        for _ in range(ROUNDS):
            said += confirmed(child, chance.randint(1, 10))
            with halted(child):
                room = log.stat().st_size + chance.randint(0, 60_000)
                prlimit(child.pid, RLIMIT_FSIZE, (room, RLIM_INFINITY))
            said += loss(child)
            with halted(child):
                assert written(said) - recorded(house.workspace) == set()
                prlimit(child.pid, RLIMIT_FSIZE, (RLIM_INFINITY, RLIM_INFINITY))
            said += confirmed(child, 2)
    full = "the registry did not answer: (database or disk is full|disk I/O error); make room on its disk"
    assert [line for line in losses(said) if not re.fullmatch(full, line)] == []
    assert written(said) - recorded(house.workspace) == set()
    house.release("openai/three")


def test_a_database_file_that_is_none_says_how_to_get_it_back(tmp_path: Path) -> None:
    settings = RegistrySettings(tmp_path)
    (tmp_path / "registry.db").write_bytes(b"no database at all " * 1000)
    with pytest.raises(StoreUnavailable) as caught, open_workspace(settings):
        pass
    assert caught.value.message == (
        f"the registry at {settings.url} cannot be opened: file is not a database; "
        "restore it: `registry restore --help`"
    )
    (tmp_path / "registry.db").unlink()
    (tmp_path / "registry.db").mkdir()
    with (
        pytest.raises(StoreUnavailable, match="unable to open database file; check that"),
        open_workspace(settings),
    ):
        pass


def test_a_database_file_that_goes_away_is_not_made_anew(tmp_path: Path) -> None:
    path, away = tmp_path / "registry.db", tmp_path / "away.db"
    with open_workspace(RegistrySettings(tmp_path)) as opened:
        with opened.writing() as connection:
            prompts.push(connection, "support", PROMPT, actor="ann", now=NOW)
        opened.engine.dispose()
        path.rename(away)
        with pytest.raises(StoreUnavailable) as caught, opened.reading():
            pass
        assert caught.value.message == (
            f"the registry at {path} is gone since it was opened; put it back or restore a backup"
        )
        assert not path.exists()
        away.rename(path)
        with opened.reading() as connection:
            assert [one.name for one in versions.listing(connection, "prompt")] == ["support"]


def test_a_page_that_was_overwritten_is_trouble_and_no_traceback(tmp_path: Path) -> None:
    settings = RegistrySettings(tmp_path)
    with open_workspace(settings) as opened, opened.writing() as connection:
        for number in range(200):
            prompts.push(connection, f"p{number}", PROMPT, actor="ann", now=NOW)
    path = tmp_path / "registry.db"
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    with (
        pytest.raises(StoreUnavailable, match="malformed; restore it"),
        open_workspace(settings) as opened,
        opened.reading() as connection,
    ):
        versions.listing(connection, "prompt")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_write_lock_that_is_never_released_is_given_up(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 0.2)
    with open_workspace(RegistrySettings(tmp_path, database_url)) as workspace:
        with (
            workspace.writing(),
            pytest.raises(StoreUnavailable, match="database is locked; another process held it"),
            workspace.writing(),
        ):
            pass
        with workspace.writing() as connection:
            assert prompts.push(connection, "support", PROMPT, actor="ann", now=NOW).number == 1


def push_many(connection: Connection) -> None:
    for number in range(1000):
        content = PromptContent((PromptMessage("user", f"{number}" * 100),))
        prompts.push(connection, "second", content, actor="ann", now=NOW)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one megabyte; only root may make one."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "sluicegate-test", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a file system takes root")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_a_disk_without_room_is_named_and_used_again_once_it_has_some(small_disk: Path) -> None:
    filler = small_disk / "filler"
    with open_workspace(RegistrySettings(small_disk)) as opened:
        with opened.writing() as connection:
            prompts.push(connection, "first", PROMPT, actor="ann", now=NOW)
        with filler.open("wb", buffering=0) as out, contextlib.suppress(OSError):
            while True:
                out.write(bytes(4096))
        rows = b"".join(b'{"id":"%d"}\n' % number for number in range(20_000))
        with pytest.raises(StoreUnavailable), opened.writing() as connection:
            datasets.push(connection, opened.artifacts, "rows", rows, actor="ann", now=NOW)
        with (
            pytest.raises(StoreUnavailable, match="full; make room on its disk"),
            opened.writing() as connection,
        ):
            push_many(connection)
        with opened.reading() as connection:
            assert [one.name for one in versions.listing(connection, "prompt")] == ["first"]
            assert versions.listing(connection, "dataset") == []
            assert audit_verify.verify(connection)["problems"] == []
        filler.unlink()
        with opened.writing() as connection:
            datasets.push(connection, opened.artifacts, "rows", rows, actor="ann", now=NOW)
