"""`registry audit hold …`: what must not be forgotten for now."""

from __future__ import annotations

from typing import Annotated

import typer

from registry import audit_keep
from registry.clock import utc_now
from registry.terminal import Json, command_group, show, table
from registry.workspace import open_workspace


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
    with open_workspace() as workspace, workspace.acting("audit.hold") as (connection, who):
        row = audit_keep.place(connection, scope, reason=reason, actor=who, now=utc_now())
    show({"ok": True, "hold": row}, f"{row['id']}  {row['scope']}", as_json=as_json)


def release(identity: Annotated[str, typer.Argument(help="Its id.")], *, as_json: Json = False) -> None:
    """End a hold; what it kept may be pruned from now on."""
    with open_workspace() as workspace, workspace.acting("audit.hold") as (connection, who):
        row = audit_keep.release(connection, identity, actor=who, now=utc_now())
    show({"ok": True, "hold": row}, f"released {row['id']}  {row['scope']}", as_json=as_json)


def listing(*, as_json: Json = False) -> None:
    """List holds, newest first."""
    with open_workspace() as workspace, workspace.viewing("audit.list") as connection:
        found = audit_keep.holds(connection)
    rows = [
        (
            row["id"],
            row["scope"],
            row["placed_at"][:19],
            row["placed_by"],
            row["released_at"] or "-",
            row["reason"],
        )
        for row in found
    ]
    headings = ("HOLD", "SCOPE", "PLACED", "BY", "RELEASED", "REASON")
    show({"holds": found}, lambda: table(headings, rows), as_json=as_json)
