"""`registry users …` and `registry approvals …`: who may act, and who agreed to what."""

from __future__ import annotations

from typing import Annotated, Any, cast

import typer

from registry import access, approvals, gate, releases
from registry.clock import to_text, utc_now
from registry.entities import Approval, User, UserRole
from registry.ids import short
from registry.refs import check_name, parse_ref
from registry.terminal import Json, command_group, show, table
from registry.workspace import open_workspace

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
    with open_workspace() as workspace, workspace.acting("users.add") as (connection, who):
        user, secret = access.add_user(connection, name, cast("UserRole", role), actor=who, now=utc_now())
    show({"ok": True, **_user(user), "token": secret}, secret, as_json=as_json)


def list_users(*, as_json: Json = False) -> None:
    """Everybody who may or once might act here."""
    with open_workspace() as workspace, workspace.viewing("users.list") as connection:
        found = [_user(user) for user in access.list_users(connection)]
    names = ("name", "role", "created_at", "created_by", "revoked_at")
    rows = [[user[name] or "-" for name in names] for user in found]
    headings = ("NAME", "ROLE", "SINCE", "BY", "REVOKED")
    show({"users": found}, lambda: table(headings, rows), as_json=as_json)


def change(name: str, role: Role, *, as_json: Json = False) -> None:
    """Give a user another role; the token stays."""
    with open_workspace() as workspace, workspace.acting("users.change") as (connection, who):
        user = access.change_role(connection, name, cast("UserRole", role), actor=who, now=utc_now())
    show({"ok": True, **_user(user)}, f"{user.name} is {user.role}", as_json=as_json)


def token(name: str, *, as_json: Json = False) -> None:
    """Print another token for a user, this once; the one before ends now."""
    with open_workspace() as workspace, workspace.acting("users.change") as (connection, who):
        user, secret = access.new_token(connection, name, actor=who, now=utc_now())
    show({"ok": True, **_user(user), "token": secret}, secret, as_json=as_json)


def revoke(name: str, *, as_json: Json = False) -> None:
    """End a user's token for good; the name is not given again."""
    with open_workspace() as workspace, workspace.acting("users.revoke") as (connection, who):
        user = access.revoke_user(connection, name, actor=who, now=utc_now())
    show({"ok": True, **_user(user)}, f"{user.name} is revoked", as_json=as_json)


def give(
    ref: str,
    *,
    alias: Alias = "production",
    comment: Annotated[str, typer.Option(help="What was looked at; kept with the approval.")] = "",
    as_json: Json = False,
) -> None:
    """Approve a release for an alias; never one's own."""
    with open_workspace() as workspace, workspace.acting("approvals.give") as (connection, who):
        version = releases.resolve(connection, parse_ref(ref))
        _, terms = gate.terms_for(connection, version.name, alias)
        given = approvals.give(
            connection, version, alias, terms=terms, comment=comment, actor=who, now=utc_now()
        )
    text = f"{given.approver} approved {version.name}:{version.number} for {alias}"
    show({"ok": True, **_approval(given)}, text, as_json=as_json)


def list_approvals(name: str, *, as_json: Json = False) -> None:
    """The approvals of a release's versions, newest first."""
    with open_workspace() as workspace, workspace.viewing("approvals.list") as connection:
        found = [_approval(one) for one in approvals.listing(connection, check_name(name))]
    rows = [
        (one["at"][:19], short(one["digest"]), one["alias"], one["approver"], one["comment"]) for one in found
    ]
    show(
        {"approvals": found},
        lambda: table(("AT", "RELEASE", "ALIAS", "BY", "COMMENT"), rows),
        as_json=as_json,
    )


def withdraw(ref: str, *, alias: Alias = "production", as_json: Json = False) -> None:
    """Take back one's own approval."""
    with open_workspace() as workspace, workspace.acting("approvals.withdraw") as (connection, who):
        version = releases.resolve(connection, parse_ref(ref))
        approvals.withdraw(connection, version, alias, actor=who, now=utc_now())
    text = f"{who} no longer approves {version.name}:{version.number} for {alias}"
    show({"ok": True, "name": version.name, "digest": version.digest, "alias": alias}, text, as_json=as_json)


def _user(user: User) -> dict[str, Any]:
    return {
        "name": user.name,
        "role": user.role,
        "created_at": to_text(user.created_at),
        "created_by": user.created_by,
        "revoked_at": to_text(user.revoked_at) if user.revoked_at else None,
    }


def _approval(given: Approval) -> dict[str, Any]:
    return {
        "name": given.name,
        "digest": given.digest,
        "alias": given.alias,
        "approver": given.approver,
        "comment": given.comment,
        "at": to_text(given.at),
    }
