"""PostgreSQL under the registry crashes, stops or refuses: nothing is lost, and it says what is wrong."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from registry import db, prompts, versions
from registry.errors import StoreUnavailable
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace
from tests.fakes.postgres import Postgres, postgres
from tests.faults.test_registry_faults import (
    confirmed,
    halted,
    loss,
    losses,
    promotable,
    promoter,
    recorded,
    written,
)
from tests.registry.conftest import NOW, PROMPT, House, house, workspace

__all__ = ["house", "workspace"]
CRASHES = 5


@pytest.fixture(scope="module")
def database() -> Iterator[Postgres]:
    """It keeps what it acknowledged over a crash."""
    with postgres(durable=True) as running:
        yield running


@pytest.fixture
def database_url(database: Postgres) -> Iterator[str]:
    name = database.create()
    yield database.url(name)
    database.drop(name)


def test_a_crash_of_the_database_loses_no_write_and_the_writer_goes_on(
    database: Postgres, house: House
) -> None:
    chance = random.Random(7)
    with promoter(house.workspace.settings, promotable(house), "both", "patient") as child:
        said = confirmed(child, 1)
        for _ in range(CRASHES):
            said += confirmed(child, chance.randint(1, 20))
            database.kill()
            database.start()
            said += loss(child) + confirmed(child, 3)
            with halted(child):
                assert written(said) - recorded(house.workspace) == set()
        assert len(losses(said)) >= CRASHES
    assert len(written(said)) > 4 * CRASHES


def push(workspace: Workspace, name: str = "support") -> int:
    with workspace.writing() as connection:
        return prompts.push(connection, name, PROMPT, actor="ann", now=NOW).number


def names(workspace: Workspace) -> set[str]:
    with workspace.reading() as connection:
        return {version.name for version in versions.listing(connection, "prompt")}


def command(settings: RegistrySettings, *words: str) -> tuple[int, Any, str]:
    """Exit code, JSON and standard error of `registry …`."""
    environment = {
        **os.environ,
        "SLUICEGATE_REGISTRY__HOME": str(settings.home),
        "SLUICEGATE_REGISTRY__DATABASE_URL": settings.database_url,
    }
    done = subprocess.run(
        [sys.executable, "-c", "from registry.cli import main; main()", *words, "--json"],
        env=environment, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    return done.returncode, json.loads(done.stdout), done.stderr


def as_owner(database: Postgres, url: str, **limits: object) -> str:
    """The same registry as a user of its own, who is no superuser."""
    name = url.rpartition("/")[2]
    user = f"app_{name}"
    words = " ".join(f"{word.replace('_', ' ')} {value}" for word, value in limits.items())
    database.sql(f"CREATE ROLE {user} LOGIN {words}")
    database.sql(f"ALTER DATABASE {name} OWNER TO {user}")
    return url.replace("postgres@", f"{user}:s3cret@")


def test_a_database_that_is_gone_at_the_start_is_named_without_its_password(
    database: Postgres, database_url: str, tmp_path: Path
) -> None:
    settings = RegistrySettings(tmp_path / "home", as_owner(database, database_url))
    shown = settings.database_url.replace("s3cret", "***").replace("postgresql:", "postgresql+psycopg:")
    database.stop()
    try:
        with pytest.raises(StoreUnavailable) as caught, open_workspace(settings):
            pass
        code, answer, said = command(settings, "prompts", "list")
    finally:
        database.start()
    assert caught.value.message.startswith(f"the registry at {shown} cannot be opened: ")
    assert caught.value.message.endswith("; check that it runs and that registry.database_url is right")
    assert (code, answer["error"]["code"], said) == (3, "store_unavailable", "")
    assert "s3cret" not in caught.value.message + answer["error"]["message"]
    assert command(settings, "prompts", "list")[0] == 0


def test_a_restart_between_two_writes_is_not_noticed(database: Postgres, workspace: Workspace) -> None:
    assert push(workspace) == 1
    database.stop()
    with pytest.raises(StoreUnavailable, match="check that it runs"):
        push(workspace, "other")
    with pytest.raises(StoreUnavailable, match="check that it runs"):
        names(workspace)
    database.start()
    assert names(workspace) == {"support"}
    database.stop()
    database.start()
    assert push(workspace, "third") == 1
    assert names(workspace) == {"support", "third"}


def test_a_restart_within_a_write_takes_all_of_it_back(database: Postgres, workspace: Workspace) -> None:
    def interrupted() -> None:
        with workspace.writing() as connection:
            prompts.push(connection, "first", PROMPT, actor="ann", now=NOW)
            database.stop()
            database.start()
            prompts.push(connection, "second", PROMPT, actor="ann", now=NOW)

    with pytest.raises(StoreUnavailable, match="the registry did not answer"):
        interrupted()
    assert names(workspace) == set()
    assert push(workspace) == 1


def test_a_server_without_a_free_connection_is_asked_for_more(
    database: Postgres, database_url: str, tmp_path: Path
) -> None:
    url = as_owner(database, database_url, connection_limit=2)
    settings = RegistrySettings(tmp_path / "home", url)
    with open_workspace(settings) as workspace:
        with ExitStack() as stack:
            for _ in range(2):
                names_now = stack.enter_context(workspace.reading())
                versions.listing(names_now, "prompt")
            with pytest.raises(
                StoreUnavailable, match=r"too many connections.*raise the server's max_connections"
            ):
                names(workspace)
            with pytest.raises(StoreUnavailable, match="max_connections"), open_workspace(settings):
                pass
        assert push(workspace) == 1


def test_a_write_lock_that_is_never_released_is_given_up(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "BUSY_TIMEOUT_S", 1)
    with open_workspace(RegistrySettings(tmp_path / "home", database_url)) as workspace:
        with (
            workspace.writing(),
            pytest.raises(StoreUnavailable, match=r"lock timeout.*try again"),
        ):
            push(workspace)
        assert names(workspace) == set()
        assert push(workspace) == 1


def test_a_read_only_database_is_read_and_not_written(
    database: Postgres, database_url: str, workspace: Workspace
) -> None:
    name = database_url.rpartition("/")[2]
    assert push(workspace) == 1
    database.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    workspace.engine.dispose()
    with pytest.raises(StoreUnavailable, match="read-only transaction; give this user the right to write"):
        push(workspace, "other")
    assert names(workspace) == {"support"}
    database.sql(f"ALTER DATABASE {name} RESET default_transaction_read_only")
    workspace.engine.dispose()
    assert push(workspace, "other") == 1


def test_tables_may_change_under_a_running_process(
    database: Postgres, database_url: str, workspace: Workspace
) -> None:
    push(workspace)
    for _ in range(10):  # often enough for a driver to prepare what it is asked
        names(workspace)
    database.sql("ALTER TABLE versions ALTER COLUMN name TYPE varchar(200)", database_url.rpartition("/")[2])
    assert names(workspace) == {"support"}
    assert push(workspace, "other") == 1


def test_a_user_who_may_only_read_is_told_so(
    database: Postgres, database_url: str, workspace: Workspace, tmp_path: Path
) -> None:
    assert push(workspace) == 1
    name = database_url.rpartition("/")[2]
    database.sql(f"CREATE ROLE reader_{name} LOGIN")
    database.sql(f"GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader_{name}", name)
    url = database_url.replace("postgres@", f"reader_{name}@")
    with open_workspace(RegistrySettings(tmp_path / "reader", url)) as reader:
        assert names(reader) == {"support"}
        with pytest.raises(StoreUnavailable, match=r"permission denied.*right to write"):
            push(reader, "other")
    assert names(workspace) == {"support"}
