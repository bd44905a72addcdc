"""
Writes to a registry until it is killed; prints each write once it is committed.

    promoter.py HOME REF DATABASE_URL [move | push | both] [patient]

A patient one says `lost` and why when the registry does not answer, and goes on with the next write.
"""

from __future__ import annotations

import itertools
import json
import sys
import threading
from datetime import timedelta
from pathlib import Path

from registry import evaluations, evidence, promotion, prompts
from registry.clock import to_text, utc_now
from registry.entities import PromptContent, PromptMessage
from registry.errors import StoreUnavailable
from registry.refs import parse_ref
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace


def main(home: Path, ref: str, database_url: str = "", work: str = "move", patience: str = "") -> None:
    """Move `support@production` to *ref* and back, or push prompts, or both, for ever."""
    with open_workspace(RegistrySettings(home=home, database_url=database_url)) as workspace:
        for number in itertools.count():
            try:
                if work != "push":
                    move(workspace, ref)
                if work != "move":
                    push(workspace, number)
            except StoreUnavailable as error:
                if not patience:
                    raise
                print("lost", error.message, flush=True)
                threading.Event().wait(0.05)


def move(workspace: Workspace, ref: str) -> None:
    """Promote *ref*, then roll back."""
    renew(workspace, ref.partition("@")[2])
    with workspace.writing() as connection:
        moved = promotion.promote(
            connection, workspace.artifacts, parse_ref(ref), "production", actor="a", reason="", now=utc_now()
        )
    print(moved.id if moved else "-", flush=True)
    with workspace.writing() as connection:
        moved = promotion.rollback(
            connection, workspace.artifacts, "support", "production", actor="b", reason="", now=utc_now()
        )
    print(moved.id, flush=True)


def push(workspace: Workspace, number: int) -> None:
    """Push a prompt that was never pushed."""
    now = utc_now()
    content = PromptContent((PromptMessage("user", f"{number} at {to_text(now)}"),))
    with workspace.writing() as connection:
        version = prompts.push(connection, "pushed", content, actor="a", now=now)
    print(version.digest, flush=True)


def renew(workspace: Workspace, release: str) -> None:
    """File the newest evidence about *release* once more, as of now: a rollback spends what there was."""
    now = utc_now()
    with workspace.writing() as connection:
        ((_, envelope),) = evaluations.envelopes(connection, "", 1, digest_of=release)
        statement = json.loads(evidence.open_envelope(envelope)[0])
        statement["predicate"] |= {
            "validFrom": to_text(now),
            "validUntil": to_text(now + timedelta(hours=1)),
        }
        again = evidence.sign(statement, workspace.evidence_signer)
        evaluations.submit(connection, again, actor="ci", now=now)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
