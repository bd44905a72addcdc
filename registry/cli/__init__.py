"""The `registry` command line: one verb, one function call, one answer."""

from __future__ import annotations

from registry import terminal
from registry.cli import (
    archive,
    audit,
    evidence,
    feedback,
    lineage,
    lists,
    mlflow,
    moves,
    people,
    push,
    splits,
    webhooks,
)

application = terminal.command_group("Versions, releases, evidence and the aliases they move.")
push.add_to(application)
lists.add_to(application)
evidence.add_to(application)
moves.add_to(application)
splits.add_to(application)
mlflow.add_to(application)
archive.add_to(application)
audit.add_to(application)
people.add_to(application)
feedback.add_to(application)
webhooks.add_to(application)
lineage.add_to(application)


def main() -> None:
    """Entry point of the `registry` console script."""
    terminal.run(application)
