"""The opened registry: what every command line begins with and closes at its end."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

from sqlalchemy import Connection, Engine

from registry import access, adopt, anchor, audit, db, oidc, terminal
from registry.artifacts import Artifacts
from registry.entities import Actor
from registry.errors import PlatformError
from registry.objectstore import open_artifacts
from registry.settings import RegistrySettings, registry_settings
from registry.signing import Signer, open_signer

_TOKEN = "SLUICEGATE_TOKEN"  # noqa: S105 - the name of a variable
_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Workspace:
    """The settings in force, the database and the artifact store."""

    settings: RegistrySettings
    artifacts: Artifacts
    engines: list[Engine]
    """The one engine, once it is connected."""
    oidc: oidc.Verifier | None = None
    """What knows people by an issuer's tokens, where the settings name one."""

    @property
    def engine(self) -> Engine:
        """
        The database, connected at the first use.

        Raises:
            StoreUnavailable: it cannot be opened; the next use tries again.
        """
        if not self.engines:
            self.settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            engine = db.connect(self.settings.url)
            settings = self.settings
            signer = open_signer(settings.audit_signer, settings.audit_key)
            trust = audit.Trust(signer, settings.audit_keys, settings.audit_anchor)
            engine.update_execution_options(**{audit.OPTION: trust})
            adopt.adopt(engine)
            self.engines.append(engine)
        return self.engines[0]

    @property
    def evidence_signer(self) -> Signer:
        """What this machine signs evidence with."""
        return open_signer(self.settings.evidence_signer, self.settings.signing_key)

    def reading(self) -> AbstractContextManager[Connection]:
        """A read transaction; see `db.reading`."""
        return db.reading(self.engine)

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A write transaction; see `db.writing`. What it audited is anchored after its commit."""
        with db.writing(self.engine) as connection:
            audit.taken(connection)
            yield connection
            head = audit.taken(connection)
            if not connection.in_transaction():  # the caller rolled back, so there is no such head
                head = None
        if head is not None:
            self._keep(head)

    def _keep(self, head: anchor.Head) -> None:
        """Anchor *head*. What it stands for is committed, so a full disk must not look like a failure."""
        try:
            anchor.keep(self.settings.audit_anchor, head)
        except PlatformError as error:
            _log.warning("the audit anchor could not be kept: %s", error)

    def _known(self, token: str | None, *, remote: bool) -> Actor | None:
        """Who shows an issuer's token; asked before a transaction begins, as the issuer may be slow."""
        shown = os.environ.get(_TOKEN) if token is None and not remote else token
        if self.oidc is None or not shown or not oidc.is_token(shown):
            return None
        return self.oidc.actor(shown)

    @contextmanager
    def viewing(self, verb: str, token: str | None = None, *, remote: bool = False) -> Iterator[Connection]:
        """
        A read transaction for somebody whose role allows *verb*; see `access.identify`.

        Args:
            token: by default that of the environment variable SLUICEGATE_TOKEN.
            remote: the caller is not whoever can open the database, and always needs a token.

        Raises:
            Unauthorized, Forbidden: who asks is unknown, or may not.
            IssuerUnavailable: who asks shows a token of an issuer whose keys cannot be had.
        """
        known = self._known(token, remote=remote)
        with self.reading() as connection:
            access.require(known or _who(connection, token, remote=remote), verb)
            yield connection

    @contextmanager
    def acting(
        self, verb: str, token: str | None = None, *, remote: bool = False
    ) -> Iterator[tuple[Connection, str]]:
        """
        A write transaction, and the name of who acts in it; otherwise as `viewing`.

        Raises:
            Unauthorized, Forbidden, IssuerUnavailable: as `viewing`; nothing is written.
        """
        known = self._known(token, remote=remote)
        with self.writing() as connection:
            who = known or _who(connection, token, remote=remote)
            access.require(who, verb)
            yield connection, who.name


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
    verifier = oidc.Verifier(settings.oidc) if settings.oidc.issuer else None
    artifacts = open_artifacts(settings.artifact_store, settings.artifact_cache)
    workspace = Workspace(settings, artifacts, [], verifier)
    try:
        if not later:
            workspace.engine  # noqa: B018 - connects
        yield workspace
    finally:
        for engine in workspace.engines:
            engine.dispose()
        workspace.artifacts.close()


def _who(connection: Connection, token: str | None, *, remote: bool) -> Actor:
    if token is None and not remote:
        token = os.environ.get(_TOKEN)
    return access.identify(connection, token, local=None if remote else terminal.actor())
