"""`registry promote|rollback|history|verify`: the aliases that live traffic uses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from registry import history, promotion
from registry.clock import from_text, to_text, utc_now
from registry.entities import AliasMove
from registry.errors import BadInput, NotFound
from registry.ids import digest, short
from registry.refs import Ref, check_name, parse_ref
from registry.terminal import EXIT_FAIL, Json, show, table
from registry.workspace import open_workspace

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
    with open_workspace() as workspace, workspace.acting("aliases.promote") as (connection, who):
        move = promotion.promote(
            connection,
            workspace.artifacts,
            parse_ref(ref),
            to,
            actor=who,
            reason=reason,
            now=utc_now(),
            envelopes=judged,
        )
        if dry_run:
            connection.rollback()
    if move is None:
        show({"ok": True, "moved": False}, f"{ref} is {to} already", as_json=as_json)
        return
    verb = "would move" if dry_run else "moved"
    text = f"{verb} {move.name}@{to} {_from(move)} → {short(move.to_digest)} on {len(move.evidence)} evidence"
    show({"ok": True, "moved": not dry_run, "dry_run": dry_run, **_plain(move)}, text, as_json=as_json)


def break_glass(
    ref: Annotated[str, typer.Argument(help="The release, such as support:4.")],
    *,
    to: Annotated[str, typer.Option(help="The alias to move.")] = "production",
    reason: Annotated[str, typer.Option(help="Why it cannot wait; kept in the history.")],
    as_json: Json = False,
) -> None:
    """Move an alias WITHOUT evidence or approvals, in an emergency. History and alerts will say so."""
    with open_workspace() as workspace, workspace.acting("aliases.break-glass") as (connection, who):
        move = promotion.break_glass(
            connection,
            workspace.artifacts,
            parse_ref(ref),
            to,
            actor=who,
            reason=reason,
            now=utc_now(),
        )
    if move is None:
        show({"ok": True, "moved": False}, f"{ref} is {to} already", as_json=as_json)
        return
    print(f"warning: {move.name}@{to} now stands on no evidence; promote on evidence soon", file=sys.stderr)
    text = f"moved {move.name}@{to} {_from(move)} → {short(move.to_digest)} WITHOUT EVIDENCE"
    show({"ok": True, "moved": True, **_plain(move)}, text, as_json=as_json)


def rollback(
    name: str,
    *,
    alias: Annotated[str, typer.Option(help="The alias to return.")] = "production",
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Return an alias to the release it pointed at before, in one step."""
    check_name(name)
    with open_workspace() as workspace, workspace.acting("aliases.rollback") as (connection, who):
        move = promotion.rollback(
            connection, workspace.artifacts, name, alias, actor=who, reason=reason, now=utc_now()
        )
    text = f"rolled back {name}@{alias} {_from(move)} → {short(move.to_digest)}"
    show({"ok": True, **_plain(move)}, text, as_json=as_json)


def show_history(
    name: str,
    *,
    at: Annotated[str | None, typer.Option(help="Only what was so at this time (RFC 3339).")] = None,
    as_json: Json = False,
) -> None:
    """Who moved which alias where, when and why; with --at, what each alias was then."""
    until = from_text(at) if at else None
    with open_workspace() as workspace, workspace.viewing("aliases.history") as connection:
        moves = history.moves(connection, check_name(name), until=until)
        moves.sort(key=lambda move: move.at)
        if not moves and not history.moves(connection, name):
            raise NotFound(f"release {name!r} has no history; `registry releases list` shows what there is")
    now_at: dict[str, str] = {move.alias: move.to_digest for move in moves}
    rows = [
        (to_text(m.at)[:19], m.action, m.alias, _from(m), short(m.to_digest), m.actor, m.reason,
         " ".join(map(short, m.evidence)) or "-")
        for m in moves
    ]  # fmt: skip
    headings = ("AT", "ACTION", "ALIAS", "FROM", "TO", "BY", "REASON", "EVIDENCE")
    show(
        {"name": Ref(name).name, "aliases": now_at, "moves": [_plain(move) for move in moves]},
        lambda: table(headings, rows),
        as_json=as_json,
    )


def verify(*, as_json: Json = False) -> None:
    """Check every digest, every alias against its history, every blob (exit code 1 on damage)."""
    with open_workspace() as workspace, workspace.viewing("registry.verify") as connection:
        found = promotion.problems(connection, workspace.artifacts)
    show(
        {"ok": not found, "problems": found},
        "\n".join(found) or "the registry is consistent",
        as_json=as_json,
    )
    if found:
        raise typer.Exit(EXIT_FAIL)


def _envelope(path: Path) -> tuple[str, Any]:
    try:
        envelope = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise BadInput(f"--evidence {path}: cannot be read as JSON: {error}") from error
    if not isinstance(envelope, dict):
        raise BadInput(f"--evidence {path}: is not a JSON object")
    return digest(envelope), envelope


def _from(move: AliasMove) -> str:
    return short(move.from_digest) if move.from_digest else "(none)"


def _plain(move: AliasMove) -> dict[str, Any]:
    return {
        "id": move.id,
        "name": move.name,
        "alias": move.alias,
        "from": move.from_digest,
        "to": move.to_digest,
        "action": move.action,
        "actor": move.actor,
        "reason": move.reason,
        "evidence": list(move.evidence),
        "at": to_text(move.at),
    }
