"""Registries that older code made, and older code on a registry that newer code has upgraded."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import Engine, MetaData, create_engine, func, select, text

from registry import audit, audit_verify, db, history, promotion, prompts, releases, tables, versions
from registry.clock import utc_now
from registry.errors import StoreUnavailable
from registry.refs import parse_ref
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace

from .conftest import PROMPT, server

__all__ = ["server"]
OLD = Path(__file__).parent / "old" / "registry-0002.zip"
ROOT = Path(db.__file__).parent.parent
OLD_PROCESS = """
import json, sys
from pathlib import Path
from sqlalchemy.exc import NotSupportedError
sys.path.insert(0, sys.argv[1])
import registry
assert registry.__file__.startswith(sys.argv[1]), registry.__file__
from registry import (accounts, datasets, db, evaluations, evidence, history, policies, promotion, prompts,
                      releases, snapshot, suites, versions)
from registry.clock import utc_now
from registry.entities import PromptContent, PromptMessage
from registry.errors import PlatformError
from registry.refs import parse_ref
from registry.releases import ReleaseFile
from registry.settings import RegistrySettings
from registry.workspace import open_workspace

def release(workspace, parts, model, baseline=None):
    now = utc_now()
    with workspace.writing() as connection:
        file = ReleaseFile(name="support", kind="chat", model=model, prompt="support")
        version = releases.create(connection, file, actor="old", now=now)
        promotion.nominate(connection, version, actor="old", now=now)
        gate, _ = policies.gate_for(connection, "support")
        key, suite, dataset = parts
        said = evidence.statement(
            release=version, suite=suite, dataset=dataset, baseline=baseline, gate_policy=gate,
            verdict="pass", checks=[{"metric": "exact", "value": 0.5}], samples=40, started=now, now=now,
            valid_hours=24.0, evaluator={"name": "tests"})
        evaluations.submit(connection, evidence.sign(said, key), actor="ci", now=now)
    return version

def fill(workspace):
    key = evidence.load_or_create_key(workspace.settings.signing_key)
    with workspace.writing() as connection:
        evidence.trust(connection, key.public_key(), actor="old", now=utc_now())
        prompt = PromptContent((PromptMessage("user", "{{ question }}"),), {"question": "text"})
        prompts.push(connection, "support", prompt, actor="old", now=utc_now())
        data = b'{"id":"1"}\\n{"id":"2"}\\n'
        dataset = datasets.push(connection, workspace.artifacts, "q", data, actor="old", now=utc_now())
        suite = suites.push(connection, "quality", {"dataset": dataset.digest}, actor="old", now=utc_now())
        accounts.create_key(connection, "app", now=utc_now())
    first = release(workspace, (key, suite, dataset), "openai/one")
    move(workspace)
    second = release(workspace, (key, suite, dataset), "openai/two", first)
    return [first.digest, second.digest]

def move(workspace):
    with workspace.writing() as connection:
        ref = parse_ref("support@candidate")
        moved = promotion.promote(
            connection, workspace.artifacts, ref, "production", actor="old", reason="old", now=utc_now())
    return moved.to_digest

def push(workspace):
    content = PromptContent((PromptMessage("user", "from old code"),))
    with workspace.writing() as connection:
        return prompts.push(connection, "late", content, actor="old", now=utc_now()).digest

def read(workspace):
    with workspace.reading() as connection:
        found = snapshot.read(connection)
        moves = history.moves(connection, "support", alias="production")
        late = [version.digest for version in versions.listing(connection, "prompt", "late")]
    return [found.aliases[("support", "production")], [one.to_digest for one in moves], late]

with open_workspace(RegistrySettings(home=Path(sys.argv[2]), database_url=sys.argv[3])) as workspace:
    for line in sys.stdin:
        work = globals()[line.strip()]
        try:
            try:
                answer = work(workspace)
            except NotSupportedError:  # prepared before the upgrade; PostgreSQL refuses such once
                answer = work(workspace)
        except PlatformError as error:
            answer = error.code
        print(json.dumps(answer), flush=True)
"""


@dataclass
class Past:
    """A process of the old code with a registry open."""

    child: subprocess.Popen[str]

    def do(self, word: str) -> Any:
        """What it answers to *word*: `fill`, `move`, `push` or `read`; an error is its code."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(word + "\n")
        self.child.stdin.flush()
        line = self.child.stdout.readline()
        assert line, "the old code ended"
        return json.loads(line)


@contextmanager
def past(settings: RegistrySettings) -> Iterator[Past]:
    """The old code, running."""
    url = settings.url.replace("postgresql:", "postgresql+psycopg:")
    words = [sys.executable, "-I", "-c", OLD_PROCESS, str(OLD), str(settings.home), url]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        try:
            yield Past(child)
        finally:
            child.kill()


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database without any table, on each of the two."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'empty.db'}"
        return
    running, _ = request.getfixturevalue("server")
    name = running.create()
    yield running.url(name)
    running.drop(name)


@pytest.fixture
def settings(tmp_path: Path, empty_url: str) -> RegistrySettings:
    return RegistrySettings(home=tmp_path / "home", database_url=empty_url)


@contextmanager
def plain(url: str) -> Iterator[Engine]:
    """An engine that migrates nothing."""
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    try:
        yield engine
    finally:
        engine.dispose()


def migrate(url: str, to: str) -> None:
    """Bring an empty database to the schema *to*."""
    config = Config()
    config.set_main_option("script_location", str(Path(db.__file__).parent / "migrations"))
    with plain(url) as engine, engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, to)


def copy(there: str, here: str) -> None:
    """Fill the tables and columns of the database *here* with what *there* has in them."""
    with plain(there) as source, plain(here) as target, source.begin() as old, target.begin() as new:
        shape = MetaData()
        shape.reflect(new)
        for table in shape.sorted_tables:
            if table.name in ("alembic_version", "state"):
                continue
            rows = old.execute(select(table)).mappings().all()
            if rows:
                new.execute(table.insert(), [dict(row) for row in rows])


def head(workspace: Workspace) -> tuple[int, str]:
    """Where the audit chain ends, once it and everything else is in order."""
    with workspace.reading() as connection:
        assert promotion.problems(connection, workspace.artifacts) == []
        assert audit_verify.verify(connection)["problems"] == []
        found = audit.head(connection)
    assert found is not None
    return found.seq, found.hash


def moved(workspace: Workspace) -> list[str]:
    with workspace.reading() as connection:
        return [move.to_digest for move in history.moves(connection, "support", alias="production")]


def promote(workspace: Workspace) -> str | None:
    ref = parse_ref("support@candidate")
    with workspace.writing() as connection:
        move = promotion.promote(
            connection, workspace.artifacts, ref, "production", actor="new", reason="new", now=utc_now()
        )
    return move.to_digest if move else None


@pytest.mark.parametrize("schema", ["0001", "0002"])
def test_what_an_old_registry_held_is_recorded_and_moves_on(
    settings: RegistrySettings, schema: str, tmp_path: Path
) -> None:
    made = settings
    if schema == "0001":
        made = replace(settings, database_url=f"sqlite:///{tmp_path / 'made.db'}")
    with past(made) as old:
        first, second = old.do("fill")
    if schema == "0001":
        migrate(settings.url, schema)
        copy(made.url, settings.url)
    with open_workspace(settings) as workspace:
        before = head(workspace)
        with workspace.reading() as connection:
            assert db._version_in(connection) == db.HEAD
            for one in (first, second):
                versions.require_recorded(
                    connection, releases.resolve(connection, parse_ref(f"support@{one}"))
                )
            (prompt,) = versions.listing(connection, "prompt")
            assert prompt.name == "support"
        assert moved(workspace) == [first]
    with open_workspace(settings) as workspace:
        assert head(workspace) == before
        assert promote(workspace) == second
        with workspace.writing() as connection:
            promotion.rollback(
                connection, workspace.artifacts, "support", "production", actor="a", reason="", now=utc_now()
            )
        assert moved(workspace) == [first, second, first]
        assert head(workspace)[0] > before[0]


def test_processes_that_open_an_old_registry_at_once_upgrade_it_once(settings: RegistrySettings) -> None:
    with past(settings) as old:
        first, _ = old.do("fill")
    script = (
        "import sys; from pathlib import Path; from registry.settings import RegistrySettings;"
        "from registry.workspace import open_workspace\n"
        "settings = RegistrySettings(home=Path(sys.argv[1]), database_url=sys.argv[2])\n"
        "with open_workspace(settings): print('open')"
    )
    words = [sys.executable, "-c", script, str(settings.home), settings.url]
    running = [
        subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [child.communicate(timeout=60) for child in running]
    assert said == [("open\n", "")] * 3
    with open_workspace(settings) as workspace:
        head(workspace)
        with workspace.reading() as connection:
            table = tables.audit
            targets = (
                connection.execute(select(table.c.target).where(table.c.action == "adopt")).scalars().all()
            )
        assert len(targets) == len(set(targets)) + 1  # the candidate moved twice
        assert moved(workspace) == [first]


def test_old_code_reads_and_pushes_after_the_upgrade_and_moves_nothing(settings: RegistrySettings) -> None:
    with past(settings) as old:
        first, second = old.do("fill")
        with open_workspace(settings) as workspace:
            before = head(workspace)
            assert old.do("read") == [first, [first], []]
            late = old.do("push")
            assert old.do("move") == "alias_moved"
            assert old.do("read") == [first, [first], [late]]
            assert moved(workspace) == [first]
            with workspace.reading() as connection:
                found = audit.head(connection)
                assert found is not None
                assert (found.seq, found.hash) == before
                (version,) = versions.listing(connection, "prompt", "late")
                assert version.digest == late
                unrecorded = audit_verify.verify(connection)["problems"]
            assert [problem["where"] for problem in unrecorded] == ["prompt/late:1"]
            with workspace.writing() as connection:  # pushed again, it is recorded like any other
                content = prompts.content_of(version)
                again = prompts.push(connection, "late", content, actor="ann", now=utc_now())
                assert (again.number, again.digest, again.created_by) == (1, late, "ann")
                assert audit_verify.verify(connection)["problems"] == []
            assert promote(workspace) == second
        assert old.do("read") == [second, [first, second], [late]]


def test_a_newer_schema_is_used_as_far_as_its_floor_allows(settings: RegistrySettings) -> None:
    with open_workspace(settings) as workspace, workspace.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0006'"))
        assert connection.execute(text("SELECT value FROM state WHERE key = 'schema_floor'")).scalar() == 3
    with open_workspace(settings) as workspace:
        with workspace.writing() as connection:
            assert prompts.push(connection, "p", PROMPT, actor="ann", now=utc_now()).number == 1
        with workspace.writing() as connection:
            connection.execute(text("UPDATE state SET value = 6 WHERE key = 'schema_floor'"))
    with pytest.raises(StoreUnavailable) as caught, open_workspace(settings):
        pass
    assert caught.value.message == (
        "the registry has schema 0006, which needs a newer Sluicegate than this one (schema 0005); "
        "upgrade this installation"
    )
    with plain(settings.url) as engine, engine.begin() as connection:
        count = connection.execute(select(func.count()).select_from(tables.versions)).scalar()
        connection.execute(text("DELETE FROM state WHERE key = 'schema_floor'"))
    assert count == 1
    with pytest.raises(StoreUnavailable, match="needs a newer Sluicegate"), open_workspace(settings):
        pass
