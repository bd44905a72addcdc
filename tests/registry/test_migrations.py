from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, MetaData, create_engine, inspect
from sqlalchemy.exc import ProgrammingError

from registry import accounts, db
from registry.entities import ApiKey
from registry.errors import StoreUnavailable
from registry.tables import metadata
from registry.workspace import Workspace

from .conftest import NOW
from .test_upgrade import empty_url, migrate, plain

__all__ = ["empty_url"]


def test_a_new_database_has_exactly_the_tables(workspace: Workspace) -> None:
    with workspace.reading() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def shape(connection: Connection) -> dict[str, Any]:
    """Everything there is to know about every table: columns, keys, indexes."""
    inspector = inspect(connection)

    def columns(table: str) -> list[tuple[Any, ...]]:
        return sorted(
            (one["name"], str(one["type"]), getattr(one["type"], "collation", None), one["nullable"])
            for one in inspector.get_columns(table)
        )

    return {
        table: (
            columns(table),
            inspector.get_pk_constraint(table)["constrained_columns"],
            sorted((one["name"], one["column_names"], one["unique"]) for one in inspector.get_indexes(table)),
            sorted(one["column_names"] for one in inspector.get_unique_constraints(table)),
            sorted(one["constrained_columns"] for one in inspector.get_foreign_keys(table)),
        )
        for table in inspector.get_table_names()
        if table != "alembic_version"
    }


def test_the_migrations_build_what_a_new_database_has(empty_url: str) -> None:
    migrate(empty_url, "head")
    with plain(empty_url) as engine, engine.begin() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
        assert db.revision(connection) == 1
        assert db._version_in(connection) == db.HEAD
        migrated = shape(connection)
        assert is_ordered_by_bytes(connection)
        everything = MetaData()
        everything.reflect(connection)
        everything.drop_all(connection)
    db.connect(empty_url).dispose()
    with plain(empty_url) as engine, engine.begin() as connection:
        assert shape(connection) == migrated
        assert is_ordered_by_bytes(connection)


def is_ordered_by_bytes(connection: Connection) -> bool:
    """Whether every text column of ours is compared as SQLite does it, by its bytes."""
    if connection.dialect.name == "sqlite":
        return True
    found = connection.exec_driver_sql(
        "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public' "
        "AND data_type = 'character varying' AND collation_name IS DISTINCT FROM 'C'"
    )
    return found.all() == [("alembic_version", "version_num")]


def test_a_migration_that_fails_halfway_changes_nothing(empty_url: str) -> None:
    migrate(empty_url, "0002")
    with plain(empty_url) as engine:
        with engine.begin() as connection:
            connection.exec_driver_sql("CREATE INDEX evidence_by_digest ON evidence (digest)")  # in its way
        with engine.begin() as connection:
            before = shape(connection)
        for _ in range(2):
            with pytest.raises((StoreUnavailable, ProgrammingError), match="evidence_by_digest"):
                db.connect(empty_url)
            with engine.begin() as connection:
                assert shape(connection) == before
                assert db._version_in(connection) == "0002"
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP INDEX evidence_by_digest")
    db.connect(empty_url).dispose()
    with plain(empty_url) as engine, engine.begin() as connection:
        assert db._version_in(connection) == db.HEAD


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
