"""`registry users …` and `registry approvals …`: who may act, and who agreed to what."""

from __future__ import annotations

from typing import Annotated, cast

import typer

from registry import verbs
from registry.entities import UserRole
from registry.ids import short
from registry.terminal import Json, command_group, show, table
from registry.verbs import people, releases

Role = Annotated[
    str, typer.Argument(help="viewer, editor, promoter or admin; each may do what those before it may.")
]
Alias = Annotated[str, typer.Option("--for", help="The alias it is approved for.")]


def add_to(application: typer.Typer) -> None:
    """Hang the groups `users` and `approvals` into *application*."""
    group = command_group("Who may act on this registry. Without any user, whoever opens it is admin.")
    group.command("add", epilog="Example: registry users add ann admin")(add)
    group.command("list", epilog="Example: registry users list --json")(list_users)
    group.command("change", epilog="Example: registry users change bob promoter")(change)
    group.command("token", epilog="Example: registry users token bob")(token)
    group.command("revoke", epilog="Example: registry users revoke bob")(revoke)
    application.add_typer(group, name="users")
    group = command_group("People's consent to a release, where its gate policy asks for it.")
    group.command(
        "give", epilog="Example: registry approvals give support@candidate --comment 'read 40 answers'"
    )(give)
    group.command("list", epilog="Example: registry approvals list support")(list_approvals)
    group.command("withdraw", epilog="Example: registry approvals withdraw support@candidate")(withdraw)
    application.add_typer(group, name="approvals")


def add(name: str, role: Role, *, as_json: Json = False) -> None:
    """Make a user and print the token, this once. The first user has to be an admin."""
    with verbs.session() as session:
        answer = people.add(session, name, cast("UserRole", role))
    show(answer, answer["token"], as_json=as_json)


def list_users(*, as_json: Json = False) -> None:
    """Everybody who may or once might act here."""
    with verbs.session() as session:
        answer = people.listing(session)
    names = ("name", "role", "created_at", "created_by", "revoked_at")
    rows = [[user[name] or "-" for name in names] for user in answer["users"]]
    headings = ("NAME", "ROLE", "SINCE", "BY", "REVOKED")
    show(answer, lambda: table(headings, rows), as_json=as_json)


def change(name: str, role: Role, *, as_json: Json = False) -> None:
    """Give a user another role; the token stays."""
    with verbs.session() as session:
        answer = people.change(session, name, cast("UserRole", role))
    show(answer, f"{name} is {answer['role']}", as_json=as_json)


def token(name: str, *, as_json: Json = False) -> None:
    """Print another token for a user, this once; the one before ends now."""
    with verbs.session() as session:
        answer = people.token(session, name)
    show(answer, answer["token"], as_json=as_json)


def revoke(name: str, *, as_json: Json = False) -> None:
    """End a user's token for good; the name is not given again."""
    with verbs.session() as session:
        answer = people.revoke(session, name)
    show(answer, f"{name} is revoked", as_json=as_json)


def give(
    ref: str,
    *,
    alias: Alias = "production",
    comment: Annotated[str, typer.Option(help="What was looked at; kept with the approval.")] = "",
    as_json: Json = False,
) -> None:
    """Approve a release for an alias; never one's own."""
    with verbs.session() as session:
        answer = releases.approve(session, ref, alias, comment=comment)
    text = f"{answer['approver']} approved {answer['name']}:{answer['number']} for {alias}"
    show(answer, text, as_json=as_json)


def list_approvals(name: str, *, as_json: Json = False) -> None:
    """The approvals of a release's versions, newest first."""
    with verbs.session() as session:
        answer = releases.list_approvals(session, name)
    rows = [
        (one["at"][:19], short(one["digest"]), one["alias"], one["approver"], one["comment"])
        for one in answer["approvals"]
    ]
    show(answer, lambda: table(("AT", "RELEASE", "ALIAS", "BY", "COMMENT"), rows), as_json=as_json)


def withdraw(ref: str, *, alias: Alias = "production", as_json: Json = False) -> None:
    """Take back one's own approval."""
    with verbs.session() as session:
        answer = releases.unapprove(session, ref, alias)
    text = f"{answer['approver']} no longer approves {answer['name']}:{answer['number']} for {alias}"
    show(answer, text, as_json=as_json)
