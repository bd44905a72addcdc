from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from registry import accounts, db
from registry.entities import ApiKey
from registry.tables import metadata
from registry.workspace import Workspace

from .conftest import NOW


def test_a_new_database_has_exactly_the_tables(workspace: Workspace) -> None:
    with workspace.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_the_migrations_build_what_a_new_database_has(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    engine = create_engine(url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) PRIMARY KEY)")
    db._migrate(engine)
    with db.reading(engine) as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert db.revision(connection) == 1
        assert db._version_in(connection) == db.HEAD
    engine.dispose()


def test_what_the_first_schema_held_is_kept_and_every_key_is_its_own_account(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'old.db'}"
    old = create_engine(url)
    folder = Path(db.__file__).parent / "migrations"
    with old.begin() as connection:
        config = Config()
        config.set_main_option("script_location", str(folder))
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        connection.exec_driver_sql(
            "INSERT INTO api_keys (id, name, prefix, digest, models, created_at) VALUES "
            "('key_1', 'app', 'sk-sg-x', 'd', '[\"support\"]', '2026-03-01T12:00:00.000000Z')"
        )
    old.dispose()
    engine = db.connect(url)
    with db.reading(engine) as connection:
        (key,) = accounts.list_keys(connection)
        assert db._version_in(connection) == db.HEAD
    engine.dispose()
    assert key == ApiKey("key_1", "app", "sk-sg-x", "d", ("support",), NOW, account="key_1")


def test_the_code_expects_the_newest_migration() -> None:
    folder = Path(db.__file__).parent / "migrations"
    assert ScriptDirectory(str(folder)).get_current_head() == db.HEAD


def test_opening_twice_at_once_migrates_once(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def revision(_: int) -> int:
        engine = db.connect(f"sqlite:///{tmp_path / 'r.db'}")
        try:
            with db.reading(engine) as connection:
                return db.revision(connection)
        finally:
            engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(revision, range(4))) == [1, 1, 1, 1]


def test_a_new_home_is_its_owners_alone(workspace: Workspace) -> None:
    assert workspace.settings.home.stat().st_mode & 0o777 == 0o700
