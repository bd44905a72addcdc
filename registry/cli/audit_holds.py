"""`registry audit hold …`: what must not be forgotten for now."""

from __future__ import annotations

from typing import Annotated

import typer

from registry import verbs
from registry.terminal import Json, command_group, show, table
from registry.verbs import audit


def add_to(application: typer.Typer) -> None:
    """Hang the group `hold` into *application*."""
    group = command_group("Legal holds: records that are neither pruned nor erased.")
    group.command("place", epilog="Example: registry audit hold place release/support --reason case-12")(
        place
    )
    group.command("release", epilog="Example: registry audit hold release hold_01…")(release)
    group.command("list", epilog="Example: registry audit hold list --json")(listing)
    application.add_typer(group, name="hold")


def place(
    scope: Annotated[str, typer.Argument(help="How targets begin, or subject/ and a person.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the chain.")],
    as_json: Json = False,
) -> None:
    """Keep what SCOPE names until the hold is released."""
    with verbs.session() as session:
        answer = audit.hold(session, scope, reason=reason)
    row = answer["hold"]
    show(answer, f"{row['id']}  {row['scope']}", as_json=as_json)


def release(identity: Annotated[str, typer.Argument(help="Its id.")], *, as_json: Json = False) -> None:
    """End a hold; what it kept may be pruned from now on."""
    with verbs.session() as session:
        answer = audit.release(session, identity)
    row = answer["hold"]
    show(answer, f"released {row['id']}  {row['scope']}", as_json=as_json)


def listing(*, as_json: Json = False) -> None:
    """List holds, newest first."""
    with verbs.session() as session:
        answer = audit.holds(session)
    rows = [
        (
            row["id"],
            row["scope"],
            row["placed_at"][:19],
            row["placed_by"],
            row["released_at"] or "-",
            row["reason"],
        )
        for row in answer["holds"]
    ]
    headings = ("HOLD", "SCOPE", "PLACED", "BY", "RELEASED", "REASON")
    show(answer, lambda: table(headings, rows), as_json=as_json)
