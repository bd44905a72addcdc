"""`registry audit …`: what was done by whom, and whether anything was done behind the registry."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from registry import anchor, audit, audit_anchor, audit_export, audit_verify, verbs
from registry.cli import audit_holds
from registry.clock import from_text, utc_now
from registry.errors import AuditTampered, BadInput
from registry.signing import read_public_key
from registry.terminal import EXIT_FAIL, Json, command_group, show, table
from registry.verbs import audit as chain
from registry.workspace import Workspace, open_workspace

Since = Annotated[str | None, typer.Option(help="From this time on (RFC 3339).")]
Until = Annotated[str | None, typer.Option(help="Before this time (RFC 3339).")]


def add_to(application: typer.Typer) -> None:
    """Hang the group `audit` into *application*."""
    group = command_group("The signed record of every change and every decision.")
    group.command("list", epilog="Example: registry audit list --target 'release/support*'")(listing)
    group.command("verify", epilog="Example: registry audit verify --anchor heads.jsonl --json")(verify)
    group.command("export", epilog="Example: registry audit export audit.jsonl --since 2026-11-01T00:00:00Z")(
        export
    )
    group.command("anchor", epilog="Example: registry audit anchor --to s3://bucket/heads")(publish)
    group.command("prune", epilog="Example: registry audit prune --dry-run")(prune)
    group.command("erase", epilog="Example: registry audit erase user:1f2e… --reason 'asked on 3 March'")(
        erase
    )
    audit_holds.add_to(group)
    application.add_typer(group, name="audit")


def listing(
    *,
    target: Annotated[str | None, typer.Option(help="Of what; with * at its end what begins so.")] = None,
    action: Annotated[str | None, typer.Option(help="What happened, such as alias.*")] = None,
    actor: Annotated[str | None, typer.Option(help="Who did it.")] = None,
    since: Since = None,
    until: Until = None,
    before: Annotated[int | None, typer.Option(help="Only records with a smaller number.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
    unseal: Annotated[bool, typer.Option("--unseal", help="Decrypt pseudonyms; for admins.")] = False,
    as_json: Json = False,
) -> None:
    """List records, newest first. They are shown as stored: `verify` says whether they hold."""
    with verbs.session() as session:
        answer = chain.listing(
            session,
            target=target,
            action=action,
            actor=actor,
            since=_time(since),
            until=_time(until),
            before=before,
            limit=limit,
            unseal=unseal,
        )
    show(answer, lambda: _listed(answer), as_json=as_json)


def verify(
    *,
    every_signature: Annotated[
        bool, typer.Option("--every-signature", help="Check those inside the chain too, not only the last.")
    ] = False,
    anchors: Annotated[
        list[str] | None, typer.Option("--anchor", help="File or URL of heads that were kept elsewhere.")
    ] = None,
    file: Annotated[Path | None, typer.Option(help="Check this export; no database is opened.")] = None,
    keys: Annotated[
        list[Path] | None, typer.Option("--key", help="With --file: whose signature counts.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Check the whole chain, and every row against it (exit code 1 when anything is wrong)."""
    heads = [head for source in anchors or () for head in audit_anchor.heads(source)]
    if (file is None) != (not keys):
        raise BadInput("--file and --key go together: only a key of your own says whose chain it is")
    if file is not None:
        trusted = [read_public_key(_read(path), str(path)) for path in keys or ()]
        answer = audit_verify.verify_file(file, trusted, every_signature=every_signature, heads=heads)
    else:
        with verbs.session() as session:
            answer = chain.verify(session, heads=heads, every_signature=every_signature)
    show(answer, lambda: _verdict(answer), as_json=as_json)
    if not answer["ok"]:
        raise typer.Exit(EXIT_FAIL)


def export(
    file: Annotated[Path, typer.Argument(help="To be written; one JSON object a line.")],
    *,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Write the chain, or a piece of it, to a file that `verify --file` checks anywhere."""
    with open_workspace() as workspace, workspace.viewing("audit.export") as connection:
        answer = audit_export.export(connection, file, now=utc_now(), since=_time(since), until=_time(until))
    text = f"{file}: {answer['records']} records, {answer['first']} to {answer['last']}"
    show({"ok": True, **answer}, text, as_json=as_json)


def publish(
    *,
    to: Annotated[str | None, typer.Option(help="A file, or a URL such as s3://bucket/prefix.")] = None,
    git: Annotated[Path | None, typer.Option(help="A folder in a git repository, to commit to.")] = None,
    accept: Annotated[
        bool, typer.Option("--accept", help="Make this chain the one that counts here, as after a restore.")
    ] = False,
    reason: Annotated[str, typer.Option(help="With --accept: why; kept in the chain.")] = "",
    as_json: Json = False,
) -> None:
    """Keep the signed end of the chain outside of the database, or show it."""
    answer: dict[str, Any] = {"ok": True}
    with open_workspace() as workspace:
        if accept:
            answer["accepted"] = _accept(workspace, reason)
        with workspace.viewing("audit.anchor") as connection:
            head = audit.head(connection)
    if head is None:
        raise BadInput("the audit chain is empty; there is nothing to keep")
    answer |= {"head": head._asdict(), "kept": []}
    if to is not None:
        answer["kept"].append(audit_anchor.publish(head, to))
    if git is not None:
        answer["kept"].append(audit_anchor.commit(head, git))
    text = f"head {head.seq} {head.hash[:16]} of {head.at[:19]}"
    show(answer, "\n".join([text, *(f"kept: {where}" for where in answer["kept"])]), as_json=as_json)


def prune(
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and empty nothing.")] = False,
    as_json: Json = False,
) -> None:
    """Empty the bodies of records whose retention has ended; the chain stays whole."""
    with verbs.session() as session:
        answer = chain.prune(session, dry_run=dry_run)
    verb = "would empty" if dry_run else "emptied"
    lines = [f"{one['kind']}: {verb} {one['emptied']}, held {one['held']}, older than {one['days']} days"
             for one in answer["classes"]]  # fmt: skip
    show(answer, "\n".join(lines), as_json=as_json)


def erase(
    person: Annotated[str, typer.Argument(help="Name or id under which something is sealed.")],
    *,
    reason: Annotated[str, typer.Option(help="Why; kept in the chain. Not the person's name.")],
    as_json: Json = False,
) -> None:
    """Make what the chain says of a person unreadable for ever; the chain stays whole."""
    with verbs.session() as session:
        answer = chain.erase(session, person, reason=reason)
    text = f"erased {answer['subject'] or person}"
    if answer["feedback"]:
        text += f" and {answer['feedback']} feedback"
    if not answer["scrubbed"]:
        text += "; a reader kept the log of the database from being emptied, run this again later"
    show(answer, text, as_json=as_json)


def _accept(workspace: Workspace, reason: str) -> dict[str, Any]:
    """Set the local anchor to the end of a chain that holds but for its anchor, and record that."""
    if not reason.strip():
        raise BadInput("--accept takes a --reason: it is kept in the chain")
    path = workspace.settings.audit_anchor
    with workspace.viewing("audit.anchor") as connection:
        found = audit_verify.verify(connection, own_anchor=False)
        head = audit_anchor.end(connection)
    if not found["ok"]:
        count = found["problem_count"]
        raise AuditTampered(f"the chain has {count} problems beside its anchor; `registry audit verify`")
    lost = audit_anchor.known(path)
    if head is None:
        path.unlink(missing_ok=True)
    else:
        anchor.keep(path, head, replace=True)
    with workspace.acting("audit.anchor") as (connection, who):
        return audit_anchor.accept(connection, lost, reason=reason, actor=who, now=utc_now())


def _time(text: str | None) -> datetime | None:
    return from_text(text) if text else None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error


def _listed(answer: dict[str, Any]) -> str:
    rows = [
        (r["seq"], r["at"][:19], r["actor"], r["action"], r["target"], r["state"]) for r in answer["records"]
    ]
    end = f"\nmore: --before {answer['next']}" if answer["next"] is not None else ""
    return table(("RECORD", "AT", "BY", "ACTION", "TARGET", "BODY"), rows) + end


def _verdict(answer: dict[str, Any]) -> str:
    lines = [f"{found['where']}: {found['problem']}" for found in answer["problems"]]
    if answer["problem_count"] > len(lines):
        lines.append(f"… and {answer['problem_count'] - len(lines)} more")
    verdict = "whole" if answer["ok"] else f"NOT whole: {answer['problem_count']} problems"
    counted = f"{answer['records']} records, {answer.get('rows', 0)} rows, {answer['anchors']} anchors"
    return "\n".join([*lines, f"the audit chain is {verdict} ({counted})"])
