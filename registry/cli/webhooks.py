"""`registry webhooks …`: who is told when something is pushed, promoted, rolled back or judged."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from typing import Annotated

import typer

from registry import webhook_send, webhooks
from registry.clock import utc_now
from registry.terminal import EXIT_FAIL, Json, command_group, show, table
from registry.workspace import open_workspace

Identity = Annotated[str, typer.Argument(metavar="ID", help="As `registry webhooks list` shows it.")]


def add_to(application: typer.Typer) -> None:
    """Hang the group `webhooks` into *application*."""
    group = command_group("Signed messages to other services when versions, aliases and evidence change.")
    group.command("add", epilog="Example: registry webhooks add https://ci.example/hook --event 'alias.*'")(
        add
    )
    group.command("list", epilog="Example: registry webhooks list --json")(list_webhooks)
    group.command("remove", epilog="Example: registry webhooks remove whk_01…")(remove)
    group.command("log", epilog="Example: registry webhooks log whk_01… --limit 20")(log)
    group.command("deliver", epilog="Example: registry webhooks deliver --retry-dead")(deliver)
    group.command("test", epilog="Example: registry webhooks test whk_01…")(send_test)
    application.add_typer(group, name="webhooks")


def add(
    url: Annotated[str, typer.Argument(help="https URL that takes POST requests.")],
    *,
    event: Annotated[
        list[str], typer.Option(help="Such as version.push, alias.promote, alias.*, evidence.file, or *.")
    ],
    allow_private: Annotated[
        bool, typer.Option("--allow-private", help="Its host may be this machine or in a private network.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Add a webhook and print the secret that its receiver checks signatures with, this once."""
    webhook_send.check_target(url, allow_private=allow_private)
    with open_workspace() as workspace, workspace.acting("webhooks.add") as (connection, who):
        hook, secret = webhooks.add(
            connection, url, event, allow_private=allow_private, actor=who, now=utc_now()
        )
    show({"ok": True, **asdict(hook), "secret": secret}, f"{hook.id}\n{secret}", as_json=as_json)


def list_webhooks(*, as_json: Json = False) -> None:
    """Every webhook, what waits for it, and what was given up."""
    with open_workspace() as workspace, workspace.viewing("webhooks.list") as connection:
        found = webhooks.listing(connection)
    rows = [
        (
            one["id"],
            one["url"],
            ",".join(one["events"]),
            one["waiting"],
            one["dead"],
            one["last_error"] or "-",
        )
        for one in found
    ]
    headings = ("ID", "URL", "EVENTS", "WAITING", "DEAD", "LAST ERROR")
    show({"webhooks": found}, lambda: table(headings, rows), as_json=as_json)


def remove(identity: Identity, *, as_json: Json = False) -> None:
    """End a webhook; what was still to be told it is forgotten."""
    with open_workspace() as workspace, workspace.acting("webhooks.remove") as (connection, who):
        webhooks.remove(connection, identity, actor=who, now=utc_now())
    show({"ok": True, "id": identity}, f"removed {identity}", as_json=as_json)


def log(
    identity: Annotated[str | None, typer.Argument(metavar="ID", help="Only this webhook's.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 100,
    as_json: Json = False,
) -> None:
    """The newest deliveries: waiting, delivered or dead, and why."""
    with open_workspace() as workspace, workspace.viewing("webhooks.list") as connection:
        if identity is not None:
            webhooks.get(connection, identity)
        found = webhooks.deliveries(connection, identity, limit)
    names = ("id", "event", "state", "attempts", "created_at", "next_at", "last_error")
    rows = [[one[name] if one[name] is not None else "-" for name in names] for one in found]
    headings = ("ID", "EVENT", "STATE", "ATTEMPTS", "AT", "NEXT", "LAST ERROR")
    show({"deliveries": found}, lambda: table(headings, rows), as_json=as_json)


def deliver(
    *,
    retry_dead: Annotated[
        bool, typer.Option("--retry-dead", help="Begin again with what was given up.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send what is due now, as every running gateway does (exit code 1 when something failed)."""
    with open_workspace() as workspace:
        with workspace.acting("webhooks.deliver") as (connection, who):
            revived = webhooks.revive(connection, actor=who, now=utc_now()) if retry_dead else 0
            webhook_send.prune(connection, utc_now())
        tally = asyncio.run(webhook_send.deliver(workspace.reading, workspace.writing, utc_now))
    failed = bool(tally.failed or tally.dead)
    text = f"{tally.delivered} delivered, {tally.failed} to be tried again, {tally.dead} given up"
    show({"ok": not failed, "revived": revived, **asdict(tally)}, text, as_json=as_json)
    if failed:
        raise typer.Exit(EXIT_FAIL)


def send_test(identity: Identity, *, as_json: Json = False) -> None:
    """Send a webhook a message of type webhook.test now (exit code 1 when its receiver did not take it)."""
    with open_workspace() as workspace:
        with workspace.acting("webhooks.deliver") as (connection, who):
            parcel = webhooks.claim_test(connection, identity, actor=who, now=utc_now())
        error = asyncio.run(webhook_send.attempt(workspace.writing, utc_now, parcel))
    text = f"delivered {parcel.id}" if error is None else f"{parcel.id} failed: {error}"
    show({"ok": error is None, "id": parcel.id, "error": error}, text, as_json=as_json)
    if error is not None:
        raise typer.Exit(EXIT_FAIL)
