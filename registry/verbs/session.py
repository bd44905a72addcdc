"""Who asks, and the registry he asks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection

from registry.workspace import Workspace, open_workspace


@dataclass(frozen=True, slots=True)
class Session:
    """One caller's access; every transaction checks anew what he may do."""

    workspace: Workspace
    token: str | None = None
    """Of a user; None: that of the environment variable SLUICEGATE_TOKEN, unless *remote*."""
    remote: bool = False
    """Whether the caller is somebody else than whoever can open the database."""

    def viewing(self, verb: str) -> AbstractContextManager[Connection]:
        """A read transaction for *verb*; see `Workspace.viewing`."""
        return self.workspace.viewing(verb, self.token, remote=self.remote)

    def acting(self, verb: str) -> AbstractContextManager[tuple[Connection, str]]:
        """A write transaction for *verb*, and the name of who acts; see `Workspace.acting`."""
        return self.workspace.acting(verb, self.token, remote=self.remote)


@contextmanager
def session() -> Iterator[Session]:
    """The session of whoever runs this process on the registry that the settings name."""
    with open_workspace() as workspace:
        yield Session(workspace)
