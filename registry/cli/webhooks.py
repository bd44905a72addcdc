"""`registry webhooks …`: who is told when something is pushed, promoted, rolled back or judged."""

from __future__ import annotations

from typing import Annotated

import typer

from registry import verbs
from registry.terminal import EXIT_FAIL, Json, command_group, show, table
from registry.verbs import webhooks

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
    with verbs.session() as session:
        answer = webhooks.add(session, url, event, allow_private=allow_private)
    show(answer, f"{answer['id']}\n{answer['secret']}", as_json=as_json)


def list_webhooks(*, as_json: Json = False) -> None:
    """Every webhook, what waits for it, and what was given up."""
    with verbs.session() as session:
        answer = webhooks.listing(session)
    rows = [
        (
            one["id"],
            one["url"],
            ",".join(one["events"]),
            one["waiting"],
            one["dead"],
            one["last_error"] or "-",
        )
        for one in answer["webhooks"]
    ]
    headings = ("ID", "URL", "EVENTS", "WAITING", "DEAD", "LAST ERROR")
    show(answer, lambda: table(headings, rows), as_json=as_json)


def remove(identity: Identity, *, as_json: Json = False) -> None:
    """End a webhook; what was still to be told it is forgotten."""
    with verbs.session() as session:
        answer = webhooks.remove(session, identity)
    show(answer, f"removed {identity}", as_json=as_json)


def log(
    identity: Annotated[str | None, typer.Argument(metavar="ID", help="Only this webhook's.")] = None,
    *,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many, newest first.")] = 100,
    as_json: Json = False,
) -> None:
    """The newest deliveries: waiting, delivered or dead, and why."""
    with verbs.session() as session:
        answer = webhooks.log(session, identity, limit=limit)
    names = ("id", "event", "state", "attempts", "created_at", "next_at", "last_error")
    rows = [[one[name] if one[name] is not None else "-" for name in names] for one in answer["deliveries"]]
    headings = ("ID", "EVENT", "STATE", "ATTEMPTS", "AT", "NEXT", "LAST ERROR")
    show(answer, lambda: table(headings, rows), as_json=as_json)


def deliver(
    *,
    retry_dead: Annotated[
        bool, typer.Option("--retry-dead", help="Begin again with what was given up.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Send what is due now, as every running gateway does (exit code 1 when something failed)."""
    with verbs.session() as session:
        answer = webhooks.deliver(session, retry_dead=retry_dead)
    text = f"{answer['delivered']} delivered, {answer['failed']} to be tried again, {answer['dead']} given up"
    show(answer, text, as_json=as_json)
    if not answer["ok"]:
        raise typer.Exit(EXIT_FAIL)


def send_test(identity: Identity, *, as_json: Json = False) -> None:
    """Send a webhook a message of type webhook.test now (exit code 1 when its receiver did not take it)."""
    with verbs.session() as session:
        answer = webhooks.test(session, identity)
    text = f"delivered {answer['id']}" if answer["ok"] else f"{answer['id']} failed: {answer['error']}"
    show(answer, text, as_json=as_json)
    if not answer["ok"]:
        raise typer.Exit(EXIT_FAIL)
