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
    engine: Engine
    artifacts: Artifacts

    def reading(self) -> AbstractContextManager[Connection]:
        """A read transaction; see `db.reading`."""
        return db.reading(self.engine)

    def writing(self) -> AbstractContextManager[Connection]:
        """A write transaction; see `db.writing`."""
        return db.writing(self.engine)


@contextmanager
def open_workspace(settings: RegistrySettings | None = None) -> Iterator[Workspace]:
    """
    Open the registry that the settings name; it is created on first use.

    Raises:
        BadSettings: the settings are wrong.
        StoreUnavailable: the database cannot be opened.
    """
    settings = settings or registry_settings()
    engine = db.connect(settings.url)
    try:
        yield Workspace(settings, engine, Artifacts(settings.artifact_folder))
    finally:
        engine.dispose()
