"""`registry promote|break-glass|rollback|history|aliases|verify`: the aliases that live traffic uses."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from registry import verbs
from registry.clock import from_text
from registry.errors import BadInput
from registry.ids import short
from registry.terminal import EXIT_FAIL, Json, command_group, show, table
from registry.verbs import releases, versions

Reason = Annotated[str, typer.Option(help="Why; kept in the history.")]


def add_to(application: typer.Typer) -> None:
    """Hang the verbs into *application*."""
    application.command("promote", epilog="Example: registry promote support@candidate --to production")(
        promote
    )
    application.command(
        "break-glass",
        epilog="Example: registry break-glass support:4 --reason 'key leaked through the prompt'",
    )(break_glass)
    application.command("rollback", epilog="Example: registry rollback support --reason 'bad answers'")(
        rollback
    )
    application.command("history", epilog="Example: registry history support --at 2026-11-03T12:00:00Z")(
        show_history
    )
    group = command_group("Names that point at releases: candidate, production, and your own.")
    group.command("list", epilog="Example: registry aliases list support")(list_aliases)
    application.add_typer(group, name="aliases")
    application.command("verify", epilog="Example: registry verify --json")(verify)


def promote(
    ref: Annotated[str, typer.Argument(help="The release, such as support@candidate.")],
    *,
    to: Annotated[str, typer.Option(help="The alias to move.")] = "production",
    reason: Reason = "",
    evidence: Annotated[
        list[Path] | None, typer.Option(help="Judge this envelope file instead of those on file.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and move nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Move an alias to a release whose evidence holds; refused otherwise (exit code 1)."""
    judged = None if evidence is None else [_envelope(path) for path in evidence]
    with verbs.session() as session:
        answer = releases.promote(session, ref, to, reason=reason, envelopes=judged, dry_run=dry_run)
    show(answer, lambda: _told(answer, ref, to), as_json=as_json)


def break_glass(
    ref: Annotated[str, typer.Argument(help="The release, such as support:4.")],
    *,
    to: Annotated[str, typer.Option(help="The alias to move.")] = "production",
    reason: Annotated[str, typer.Option(help="Why it cannot wait; kept in the history.")],
    as_json: Json = False,
) -> None:
    """Move an alias WITHOUT evidence or approvals, in an emergency. History and alerts will say so."""
    with verbs.session() as session:
        answer = releases.break_glass(session, ref, to, reason=reason)
    if answer["moved"]:
        where = f"{answer['name']}@{answer['alias']}"
        print(f"warning: {where} now stands on no evidence; promote on evidence soon", file=sys.stderr)
    show(answer, lambda: _told(answer, ref, to), as_json=as_json)


def rollback(
    name: str,
    *,
    alias: Annotated[str, typer.Option(help="The alias to return.")] = "production",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Return an alias to the release it pointed at before, in one step."""
    with verbs.session() as session:
        answer = releases.rollback(session, name, alias, reason=reason)
    text = f"rolled back {name}@{alias} {_from(answer)} → {short(answer['to'])}"
    show(answer, text, as_json=as_json)


def show_history(
    name: str,
    *,
    alias: Annotated[str | None, typer.Option(help="Only this alias.")] = None,
    at: Annotated[
        str | None, typer.Option(help="Only what was so at this time (RFC 3339), and what each alias was.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="The newest so many moves.")] = 1000,
    as_json: Json = False,
) -> None:
    """Who moved which alias where, when and why; with --at, what each alias was then."""
    until = from_text(at) if at else None
    with verbs.session() as session:
        answer = releases.moves(session, name, alias=alias, at=until, limit=limit)
    show(answer, lambda: _history(answer), as_json=as_json)


def list_aliases(
    name: Annotated[str | None, typer.Argument(help="Only those of this release.")] = None,
    *,
    as_json: Json = False,
) -> None:
    """Where every alias points."""
    with verbs.session() as session:
        answer = releases.aliases(session, name)
    rows = [
        (f"{one['name']}@{one['alias']}", f"{one['name']}:{one['number']}", short(one["digest"]),
         one["generation"])
        for one in answer["aliases"]
    ]  # fmt: skip
    show(answer, lambda: table(("ALIAS", "VERSION", "DIGEST", "GENERATION"), rows), as_json=as_json)


def verify(*, as_json: Json = False) -> None:
    """Check every digest, every alias against its history, every blob (exit code 1 on damage)."""
    with verbs.session() as session:
        answer = versions.verify(session)
    show(answer, "\n".join(answer["problems"]) or "the registry is consistent", as_json=as_json)
    if not answer["ok"]:
        raise typer.Exit(EXIT_FAIL)


def _envelope(path: Path) -> Mapping[str, Any]:
    try:
        envelope = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"--evidence {path}: cannot be read as JSON: {error}") from error
    if not isinstance(envelope, dict):
        raise BadInput(f"--evidence {path}: is not a JSON object")
    return envelope


def _told(answer: Mapping[str, Any], ref: str, to: str) -> str:
    if "id" not in answer:
        return f"{ref} is {to} already"
    verb = "moved" if answer["moved"] else "would move"
    count = len(answer["evidence"])
    ground = "WITHOUT EVIDENCE" if answer["action"] == "break-glass" else f"on {count} evidence"
    return f"{verb} {answer['name']}@{to} {_from(answer)} → {short(answer['to'])} {ground}"


def _history(answer: Mapping[str, Any]) -> str:
    rows = [
        (m["at"][:19], m["action"], m["alias"], _from(m), short(m["to"]), m["actor"], m["reason"],
         " ".join(map(short, m["evidence"])) or "-")
        for m in answer["moves"]
    ]  # fmt: skip
    headings = ("AT", "ACTION", "ALIAS", "FROM", "TO", "BY", "REASON", "EVIDENCE")
    lines = [f"({answer['left_off']} older moves; --limit shows more)"] if answer["left_off"] else []
    lines.append(table(headings, rows))
    lines += [
        f"{one['name']}@{one['alias']} was {one['release']['name']}:{one['release']['number']}, "
        f"by {one['move']['by']} since {one['since'][:19]}"
        for one in answer.get("was", ())
        if one["release"] is not None
    ]
    return "\n".join(lines)


def _from(move: Mapping[str, Any]) -> str:
    return short(move["from"]) if move["from"] else "(none)"
