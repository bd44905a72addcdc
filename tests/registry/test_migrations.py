from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine

from registry import db
from registry.tables import metadata
from registry.workspace import Workspace


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
