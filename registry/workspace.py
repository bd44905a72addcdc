"""The opened registry: what every command line begins with and closes at its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from registry import db
from registry.artifacts import Artifacts
from registry.settings import RegistrySettings, registry_settings


@dataclass(frozen=True, slots=True)
class Workspace:
    """The settings in force, the database and the artifact store."""

    settings: RegistrySettings
    artifacts: Artifacts
    engines: list[Engine]
    """The one engine, once it is connected."""

    @property
    def engine(self) -> Engine:
        """
        The database, connected at the first use.

        Raises:
            StoreUnavailable: it cannot be opened; the next use tries again.
        """
        if not self.engines:
            self.engines.append(db.connect(self.settings.url))
        return self.engines[0]

    def reading(self) -> AbstractContextManager[Connection]:
        """A read transaction; see `db.reading`."""
        return db.reading(self.engine)

    def writing(self) -> AbstractContextManager[Connection]:
        """A write transaction; see `db.writing`."""
        return db.writing(self.engine)


@contextmanager
def open_workspace(settings: RegistrySettings | None = None, *, later: bool = False) -> Iterator[Workspace]:
    """
    Open the registry that the settings name; it is created on first use.

    Args:
        later: connect at the first read or write instead of now, so that a registry that cannot be
            reached is found out then.

    Raises:
        BadSettings: the settings are wrong.
        StoreUnavailable: the database cannot be opened.
    """
    settings = settings or registry_settings()
    workspace = Workspace(settings, Artifacts(settings.artifact_folder), [])
    try:
        if not later:
            workspace.engine  # noqa: B018 - connects
        yield workspace
    finally:
        for engine in workspace.engines:
            engine.dispose()
