"""Promotes and rolls back until it is killed; prints each move once it is committed."""

from __future__ import annotations

import sys
from pathlib import Path

from registry import promotion
from registry.clock import utc_now
from registry.refs import parse_ref
from registry.settings import RegistrySettings
from registry.workspace import open_workspace


def main(home: Path, ref: str) -> None:
    """Move `support@production` to *ref* and back, for ever."""
    with open_workspace(RegistrySettings(home=home)) as workspace:
        while True:
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


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
