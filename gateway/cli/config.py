"""`gateway config`: prices, limits and keys as one file says them; the registry is brought to agree."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import IO, Annotated

import typer

from gateway.cli.declaration import (
    Change,
    Declaration,
    plan_keys,
    plan_limits,
    plan_prices,
)
from registry import accounts, limits, parse, prices, terminal
from registry.clock import utc_now
from registry.entities import ApiKey, LimitRule, Price
from registry.errors import Conflict
from registry.terminal import EXIT_FAIL, Json, show
from registry.workspace import Workspace, open_workspace

application = terminal.command_group(
    "Declare prices, limits and keys in a file; the registry remains what gateways read."
)

File = Annotated[Path, typer.Argument(help="YAML or JSON with any of `prices`, `limits` and `keys`.")]
_SIGNS = {"add": "+", "change": "~", "remove": "-"}


@application.command("validate", epilog="Example: gateway config validate gateway.yaml")
def validate(file: File, *, as_json: Json = False) -> None:
    """Check a file by itself: every key, type, range and amount. Nothing is read from the registry."""
    declared = parse.read(file, Declaration)
    counts = {
        section: len(entries)
        for section, entries in (
            ("prices", declared.prices),
            ("limits", declared.limits),
            ("keys", declared.keys),
        )
        if entries is not None
    }
    text = ", ".join(f"{count} {section}" for section, count in counts.items()) or "declares nothing"
    show({"ok": True, "file": str(file)} | counts, f"{file}: {text}", as_json=as_json)


@application.command("diff", epilog="Example: gateway config diff gateway.yaml")
def diff(file: File, *, as_json: Json = False) -> None:
    """Show how the registry differs from a file: exit code 0 when it does not, 1 when it does."""
    declared, now = parse.read(file, Declaration), utc_now()
    with open_workspace() as workspace:
        changes = _read(workspace, declared, now)
    text = "\n".join(map(_line, changes)) or "the registry is as the file says"
    show({"equal": not changes, "changes": [change.plain() for change in changes]}, text, as_json=as_json)
    if changes:
        raise typer.Exit(EXIT_FAIL)


@application.command("apply", epilog="Example: gateway config apply gateway.yaml --keys-out new-keys.json")
def apply(
    file: File,
    *,
    prune: Annotated[
        bool, typer.Option("--prune", help="Also remove what the sections of the file do not name.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the changes and make none.")] = False,
    keys_out: Annotated[
        Path | None,
        typer.Option(help="New file for the new keys, readable by its owner alone; else they are printed."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Bring the registry to what a file says, in one transaction; applied again, it changes nothing."""
    declared, now = parse.read(file, Declaration), utc_now()
    secrets: dict[str, str] = {}
    with open_workspace() as workspace:
        if dry_run:
            changes = _read(workspace, declared, now)
        else:
            with _private(keys_out) as out:
                changes, secrets = _apply(workspace, declared, now, prune=prune, out=out)
    made = [change for change in changes if prune or change.action != "remove"]
    kept = [change for change in changes if change not in made]
    lines = [
        *map(_line, made),
        *(f"{_line(change)} (kept: not declared; --prune removes it)" for change in kept),
    ]
    count = f"{len(made)} change{'' if len(made) == 1 else 's'}"
    lines.append(f"{count} would be made" if dry_run else count)
    if keys_out is None:
        lines += [f"{name}: {secret}" for name, secret in secrets.items()]
    elif secrets:
        are = "key is" if len(secrets) == 1 else "keys are"
        lines.append(f"{len(secrets)} new {are} in {keys_out}")
    answer = {
        "dry_run": dry_run, "changes": [change.plain() for change in made],
        "undeclared": [change.plain() for change in kept],
        "keys": secrets if keys_out is None else sorted(secrets),
    }  # fmt: skip
    show(answer, "\n".join(lines), as_json=as_json)


def _read(workspace: Workspace, declared: Declaration, now: datetime) -> list[Change]:
    with workspace.viewing("apikeys.list") as connection:
        return _plan(
            declared,
            prices.list_prices(connection),
            limits.list_rules(connection),
            accounts.list_keys(connection),
            now,
        )


def _plan(
    declared: Declaration,
    found: Sequence[Price],
    rules: Sequence[LimitRule],
    keys: Sequence[ApiKey],
    now: datetime,
) -> list[Change]:
    changes: list[Change] = []
    if declared.prices is not None:
        changes += plan_prices(declared.prices, found, now)
    if declared.limits is not None:
        changes += plan_limits(declared.limits, rules)
    if declared.keys is not None:
        changes += plan_keys(declared.keys, keys, now)
    return changes


def _apply(
    workspace: Workspace, declared: Declaration, now: datetime, *, prune: bool, out: IO[str] | None
) -> tuple[list[Change], dict[str, str]]:
    """Every change, and the new keys by name, which *out* holds before they are stored."""
    secrets: dict[str, str] = {}
    with workspace.acting("apikeys.write") as (connection, who):
        changes = _plan(
            declared,
            prices.list_prices(connection),
            limits.list_rules(connection),
            accounts.list_keys(connection),
            now,
        )
        for change in changes:
            target, removes = change.target, change.action == "remove"
            if removes and not prune:
                continue
            if isinstance(target, Price):
                prices.set_price(connection, target, actor=who, now=now)
            elif isinstance(target, LimitRule) and removes:
                limits.remove_rule(connection, target.kind, target.subject, actor=who, now=now)
            elif isinstance(target, LimitRule):
                limits.set_rule(connection, target, actor=who, now=now)
            elif target is None:
                accounts.revoke_key(connection, change.key_id, actor=who, now=now)
            elif change.action == "add":
                _, secrets[change.name] = accounts.create_key(
                    connection, target.name, models=target.models, routes=target.routes, team=target.team,
                    limits=target.limits, expires_at=target.expires, actor=who, now=now,
                )  # fmt: skip
            else:
                accounts.update_key(
                    connection, change.key_id, models=target.models, routes=target.routes, team=target.team,
                    limits=target.limits, expires_at=target.expires or "never", actor=who, now=now,
                )  # fmt: skip
        if out is not None and secrets:
            out.write(json.dumps(secrets, indent=2) + "\n")
            out.flush()
            os.fsync(out.fileno())
    return changes, secrets


@contextmanager
def _private(path: Path | None) -> Iterator[IO[str] | None]:
    """
    A new file that only its owner reads, open before any key is made; gone again if nothing was written.

    Raises:
        Conflict: there is a file already, or none can be made there.
    """
    if path is None:
        yield None
        return
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise Conflict(f"--keys-out {path}: {error.strerror}; name a new file") from error
    done = False
    with os.fdopen(descriptor, "w", encoding="utf-8") as out:
        try:
            yield out
            done = out.tell() > 0
        finally:
            if not done:
                path.unlink()


def _line(change: Change) -> str:
    text = f"{change.before} → {change.after}" if change.action == "change" else change.before or change.after
    return f"{_SIGNS[change.action]} {change.kind} {change.name}: {text}"
