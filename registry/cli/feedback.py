"""`registry feedback …`: what people say of answers, and what turned out to be true."""

from __future__ import annotations

import csv
import json
import sys
from datetime import datetime
from typing import Annotated, Any

import typer

from registry import verbs
from registry.clock import from_text
from registry.errors import BadInput
from registry.feedback import COLUMNS
from registry.terminal import Json, command_group, show, table
from registry.verbs import feedback

Release = Annotated[str | None, typer.Option(help="Only about this release, or provider/* called directly.")]
Name = Annotated[str | None, typer.Option(help="Only under this name, such as thumbs.")]
Since = Annotated[str | None, typer.Option(help="From this time on (RFC 3339).")]
Until = Annotated[str | None, typer.Option(help="Before this time (RFC 3339).")]


def add_to(application: typer.Typer) -> None:
    """Hang the group `feedback` into *application*."""
    group = command_group("What people say of answers, and what turned out to be true.")
    group.command("list", epilog="Example: registry feedback list --release support")(listing)
    group.command("export", epilog="Example: registry feedback export --csv --release churn > labels.csv")(
        export
    )
    application.add_typer(group, name="feedback")


def listing(
    *,
    release: Release = None,
    name: Name = None,
    since: Since = None,
    until: Until = None,
    before: Annotated[str | None, typer.Option(help="The page after the one whose `next` this is.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
    as_json: Json = False,
) -> None:
    """List what was said, newest first. Comments are shown with --json only."""
    with verbs.session() as session:
        answer = feedback.listing(
            session, release=release, name=name, since=_time(since), until=_time(until), before=before,
            limit=limit,
        )  # fmt: skip
    show(answer, lambda: _listed(answer), as_json=as_json)


def export(
    *,
    release: Release = None,
    name: Name = None,
    since: Since = None,
    until: Until = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV with a heading.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")] = False,
) -> None:
    """Print all that was said, oldest first: --json or --csv."""
    if as_csv == as_json:
        raise BadInput("choose --json or --csv")
    with verbs.session() as session:
        found = feedback.every(session, release=release, name=name, since=_time(since), until=_time(until))
        if as_json:
            for one in found:
                print(json.dumps(one))
            return
        out = csv.writer(sys.stdout, lineterminator="\n")
        out.writerow(COLUMNS)
        for one in found:
            out.writerow([_cell(one[column]) for column in COLUMNS])


def _cell(value: object) -> object:
    """Text that a spreadsheet would take for a formula gets an apostrophe before it."""
    if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{value}"
    return "" if value is None else value


def _listed(answer: dict[str, Any]) -> str:
    rows = [
        (
            one["updated_at"][:19],
            one["request_id"] + ("" if one["row"] is None else f"#{one['row']}"),
            one["release"],
            one["name"],
            *("-" if one[field] is None else str(one[field])[:40] for field in ("score", "label")),
            "yes" if one["comment"] else "-",
        )
        for one in answer["feedback"]
    ]
    more = f"\nmore: --before {answer['next']}" if answer["next"] else ""
    return table(("AT", "REQUEST", "RELEASE", "NAME", "SCORE", "LABEL", "COMMENT"), rows) + more


def _time(said: str | None) -> datetime | None:
    return from_text(said) if said is not None else None
