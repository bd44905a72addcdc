"""
Engines and transactions.

SQLite runs in WAL mode with `synchronous=FULL`: a transaction that returned survives a crash of
the process or of the machine. Writers take the write lock when they begin, so none fails halfway.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Engine,
    MetaData,
    String,
    Table,
    create_engine,
    event,
    insert,
    inspect,
    select,
    update,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, IntegrityError, OperationalError

from registry import tables
from registry.errors import BadSettings, StoreUnavailable

BUSY_TIMEOUT_S = 30
_MIGRATING = threading.Lock()
"""Alembic keeps its context in the process: one migration at a time."""
HEAD = "0002"
"""The migration this code expects; `migrations/` brings an older database here."""


def connect(url: str) -> Engine:
    """
    An engine on *url*, its schema brought up to date. Idempotent; close with `engine.dispose()`.

    Raises:
        BadSettings: the URL cannot be understood.
        StoreUnavailable: the database cannot be opened or migrated.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        message = "registry.database_url is not a database URL such as sqlite:///registry.db"
        raise BadSettings(message) from error
    sqlite = parsed.get_backend_name() == "sqlite"
    try:
        if sqlite and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = create_engine(
            parsed, connect_args={"timeout": BUSY_TIMEOUT_S} if sqlite else {"connect_timeout": 10}
        )
        if sqlite:
            event.listen(engine, "connect", _on_sqlite_connect)
            event.listen(engine, "begin", _on_sqlite_begin)
        with _MIGRATING:
            version = _schema_version(engine)
            if version is None:
                _create(engine)
            elif version != HEAD:
                _migrate(engine)
    except (OperationalError, OSError) as error:
        shown = parsed.render_as_string(hide_password=True)
        raise StoreUnavailable(f"the registry at {shown} cannot be opened: {_cause(error)}") from error
    return engine


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """
    A transaction that reads one consistent state and blocks nobody.

    Raises:
        StoreUnavailable: the database did not answer.
    """
    try:
        with engine.connect() as connection, connection.begin():
            yield connection
    except OperationalError as error:
        raise StoreUnavailable(f"the registry did not answer: {_cause(error)}") from error


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """
    A transaction that writes; commits on leaving, rolls back on any exception.

    Raises:
        StoreUnavailable: the database did not answer or stayed locked.
    """
    try:
        with engine.connect().execution_options(sluicegate_write=True) as connection, connection.begin():
            yield connection
    except OperationalError as error:
        raise StoreUnavailable(f"the registry did not answer: {_cause(error)}") from error


def bump_revision(connection: Connection) -> None:
    """Tell every gateway that a release, alias or key changed; part of the same transaction."""
    table = tables.state
    connection.execute(update(table).where(table.c.key == "revision").values(value=table.c.value + 1))


def revision(connection: Connection) -> int:
    """The number that grows whenever what a gateway serves may have changed."""
    table = tables.state
    value: int = connection.execute(select(table.c.value).where(table.c.key == "revision")).scalar_one()
    return value


def _schema_version(engine: Engine) -> str | None:
    with engine.connect() as connection:
        return _version_in(connection)


def _version_in(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    version: str | None = connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar()
    return version


def _create(engine: Engine) -> None:
    """
    A new database, at once and in one transaction: what the migrations would build, without them.

    A test keeps both equal; the first start on an empty disk takes about half a second less so.
    """
    with writing(engine) as connection:
        if _version_in(connection) is not None:  # another process was first
            return
        tables.metadata.create_all(connection)
        version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))
        version.create(connection)
        connection.execute(insert(version).values(version_num=HEAD))
        connection.execute(insert(tables.state).values(key="revision", value=1))


def _migrate(engine: Engine) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    try:
        with writing(engine) as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
    except (IntegrityError, StoreUnavailable):
        if _schema_version(engine) != HEAD:  # else another process migrated first
            raise


def _on_sqlite_connect(connection: Any, _record: object) -> None:  # noqa: ANN401
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_sqlite_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("sluicegate_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _cause(error: Exception) -> str:
    return str(getattr(error, "orig", None) or error)
