"""Long checks in a process of their own: in this one they would slow every request that is relayed."""

from __future__ import annotations

import multiprocessing
import os
import threading
from multiprocessing.connection import Connection
from typing import Any, Literal

from gateway.errors import Overloaded
from registry.errors import PlatformError, StoreUnavailable
from registry.settings import RegistrySettings
from registry.verbs import Session, audit, versions
from registry.workspace import open_workspace

Check = Literal["audit", "versions"]
LONGEST_S = 900
_LESS_URGENT = 10


class Aside:
    """Runs one check at a time. Thread-safe."""

    def __init__(self) -> None:
        """Nothing runs yet."""
        self._one = threading.Lock()

    @property
    def busy(self) -> bool:
        """Whether a check is running."""
        return self._one.locked()

    def run(self, session: Session, check: Check, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """
        What the verb `verify` of *check* answers for whoever *session* is.

        Raises:
            Overloaded: another check is running.
            StoreUnavailable: it took longer than 15 minutes, or its process died.
        """
        if not self._one.acquire(blocking=False):
            message = "another check of this registry is running here; ask again when it has ended"
            raise Overloaded(message)
        try:
            found = _in_a_process(session.workspace.settings, session.token, check, arguments)
        finally:
            self._one.release()
        if isinstance(found, PlatformError):
            raise found
        return found


def _in_a_process(
    settings: RegistrySettings, token: str | None, check: Check, arguments: dict[str, Any]
) -> dict[str, Any] | PlatformError:
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe(duplex=False)
    given = (there, settings, token, check, arguments)
    process = context.Process(target=_check, args=given, name="registry-check", daemon=True)
    process.start()
    there.close()
    try:
        if here.poll(LONGEST_S):
            found: dict[str, Any] | PlatformError = here.recv()
            return found
        why = f"did not end within {LONGEST_S} s"
    except EOFError:
        why = "ended without an answer"
    finally:
        process.kill()
        process.join()
        here.close()
    return StoreUnavailable(f"the check {why}; run it beside the database: `registry audit verify`")


def _check(
    answer: Connection,
    settings: RegistrySettings,
    token: str | None,
    check: Check,
    arguments: dict[str, Any],
) -> None:
    os.nice(_LESS_URGENT)
    try:
        with open_workspace(settings) as workspace:
            session = Session(workspace, token, remote=True)
            verify = audit.verify if check == "audit" else versions.verify
            answer.send(verify(session, **arguments))
    except PlatformError as error:
        answer.send(error)
