"""Promotes and rolls back until it is killed; prints each move once it is committed."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path

from registry import evaluations, evidence, promotion
from registry.clock import to_text, utc_now
from registry.refs import parse_ref
from registry.settings import RegistrySettings
from registry.workspace import Workspace, open_workspace


def main(home: Path, ref: str, database_url: str = "") -> None:
    """Move `support@production` to *ref* and back, for ever."""
    with open_workspace(RegistrySettings(home=home, database_url=database_url)) as workspace:
        while True:
            renew(workspace, ref.partition("@")[2])
            with workspace.writing() as connection:
                moved = promotion.promote(
                    connection,
                    workspace.artifacts,
                    parse_ref(ref),
                    "production",
                    actor="a",
                    reason="",
                    now=utc_now(),
                )
            print(moved.id if moved else "-", flush=True)
            with workspace.writing() as connection:
                moved = promotion.rollback(
                    connection,
                    workspace.artifacts,
                    "support",
                    "production",
                    actor="b",
                    reason="",
                    now=utc_now(),
                )
            print(moved.id, flush=True)


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
