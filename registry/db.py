"""
Engines and transactions, on SQLite and PostgreSQL alike.

SQLite runs in WAL mode with `synchronous=FULL`: a transaction that returned survives a crash of
the process or of the machine. Writers take the write lock when they begin, so none fails halfway; in
PostgreSQL that is an advisory lock of the whole registry, and readers see one state throughout.
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
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from registry import tables
from registry.errors import BadSettings, MissingExtra, StoreUnavailable

BUSY_TIMEOUT_S = 30
_MIGRATING = threading.Lock()
"""Alembic keeps its context in the process: one migration at a time."""
HEAD = "0005"
"""
The migration this code expects; `migrations/` brings an older database here. A newer one is used as it is, as
long as its `schema_floor` says that this code may.
"""
FLOOR = 3
"""The oldest migration whose code may work with a database of today."""
_WRITERS_LOCK = 0x51_75_69_63_65
_MISUSE = (IntegrityError, DataError, ProgrammingError)
"""What our own statements do wrong; whatever else a driver raises, the database is in trouble."""
_NOT_ALLOWED = "42501"
_REMEDIES = (
    (("disk is full", "disk i/o error", "no space left"), "make room on its disk"),
    (("readonly", "read-only", "permission denied"), "give this user the right to write there"),
    (("malformed", "not a database"), "restore it: `registry restore --help`"),
    (("too many", "connection slots"), "raise the server's max_connections or start fewer processes"),
    (("locked", "lock timeout"), f"another process held it for {BUSY_TIMEOUT_S} s; try again later"),
    (("password", "role ", 'database "'), "check registry.database_url"),
)  # fmt: skip


def connect(url: str) -> Engine:
    """
    An engine on *url*, its schema brought up to date. Idempotent; close with `engine.dispose()`.

    Raises:
        BadSettings: the URL cannot be understood.
        MissingExtra: the driver for PostgreSQL is not installed.
        StoreUnavailable: the database cannot be opened or migrated, or is of a release that this one cannot
            work with.
    """
    try:
        parsed = make_url(url)
        if parsed.drivername in ("postgres", "postgresql"):
            parsed = parsed.set(drivername="postgresql+psycopg")
    except ArgumentError as error:
        message = "registry.database_url is not a database URL such as sqlite:///registry.db"
        raise BadSettings(message) from error
    try:
        if parsed.get_backend_name() == "sqlite" and parsed.database:
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        engine = _engine(parsed)
        try:
            with _MIGRATING:
                _bring_to_head(engine)
            if parsed.get_backend_name() == "sqlite":
                event.listen(engine, "do_connect", _require_file)
        except BaseException:
            engine.dispose()
            raise
    except ModuleNotFoundError as error:
        raise MissingExtra(f"{error.name} is missing; pip install 'sluicegate[postgres]'") from error
    except (DBAPIError, PoolTimeout, OSError) as error:
        if _is_misuse(error):
            raise
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
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                connection.execution_options(isolation_level="REPEATABLE READ")
            with connection.begin():
                yield connection
    except (DBAPIError, PoolTimeout) as error:
        if _is_misuse(error):
            raise
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
            if engine.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_WRITERS_LOCK})")
            yield connection
    except (DBAPIError, PoolTimeout) as error:
        if _is_misuse(error):
            raise
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


def _engine(url: URL) -> Engine:
    if url.get_backend_name() == "sqlite":
        engine = create_engine(url, connect_args={"timeout": BUSY_TIMEOUT_S})
        event.listen(engine, "connect", _on_sqlite_connect)
        event.listen(engine, "begin", _on_sqlite_begin)
    else:
        engine = create_engine(url, connect_args=_LINK, pool_pre_ping=True, pool_timeout=BUSY_TIMEOUT_S)
        event.listen(engine, "connect", _on_postgresql_connect)
    return engine


def _bring_to_head(engine: Engine) -> None:
    version = _schema_version(engine)
    if version is None:
        _create(engine)
    elif version < HEAD:
        _migrate(engine)
    elif version > HEAD:
        _require_floor(engine, version)


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
        floor = {"key": "schema_floor", "value": FLOOR}
        connection.execute(insert(tables.state), [{"key": "revision", "value": 1}, floor])


def _require_floor(engine: Engine, version: str) -> None:
    """Refuse a newer schema unless it says that code of this age may work with it."""
    state = tables.state
    with reading(engine) as connection:
        floor = connection.execute(select(state.c.value).where(state.c.key == "schema_floor")).scalar()
    if floor is None or floor > int(HEAD):
        message = (
            f"the registry has schema {version}, which needs a newer Sluicegate than this one "
            f"(schema {HEAD}); upgrade this installation"
        )
        raise StoreUnavailable(message)


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


_LINK = {
    "connect_timeout": 10,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
    "application_name": "sluicegate",
    "prepare_threshold": None,
}
"""
A server that is gone is noticed within half a minute, even when it says nothing. Statements are not prepared:
those of a running process would fail once when another one migrates the tables under it.
"""


def _on_postgresql_connect(connection: Any, _record: object) -> None:  # noqa: ANN401
    with connection.cursor() as cursor:
        cursor.execute(f"SET lock_timeout = '{BUSY_TIMEOUT_S}s'")
        cursor.execute("SET idle_in_transaction_session_timeout = '300s'")
    connection.commit()


def _require_file(_dialect: object, _record: object, where: tuple[str, ...], _more: object) -> None:
    """Refuse to make a database file that was there before a second time, empty."""
    path = where[0]
    if path and not path.startswith((":", "file:")) and not Path(path).exists():
        message = f"the registry at {path} is gone since it was opened; put it back or restore a backup"
        raise StoreUnavailable(message)


def _on_sqlite_connect(connection: Any, _record: object) -> None:  # noqa: ANN401
    connection.isolation_level = None
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _on_sqlite_begin(connection: Connection) -> None:
    write = connection.get_execution_options().get("sluicegate_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")


def _is_misuse(error: Exception) -> bool:
    """Whether a statement was wrong, rather than the database in trouble."""
    cause = getattr(error, "orig", None)
    return isinstance(error, _MISUSE) and getattr(cause, "sqlstate", None) != _NOT_ALLOWED


def _cause(error: Exception) -> str:
    """What the driver says, on one line, and what to do about it."""
    said = " ".join(str(getattr(error, "orig", None) or error).split())
    lower = said.lower()
    for words, remedy in _REMEDIES:
        if any(word in lower for word in words):
            return f"{said}; {remedy}"
    return f"{said}; check that it runs and that registry.database_url is right"
