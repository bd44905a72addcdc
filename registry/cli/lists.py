"""`registry <kind>s list|show`, `registry search` and `registry diff`: what is in the registry."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, cast

import typer

from registry import verbs
from registry.entities import Kind
from registry.errors import BadInput
from registry.ids import short
from registry.refs import check_name
from registry.terminal import EXIT_FAIL, EXIT_OK, Json, command_group, show, table
from registry.verbs import versions
from registry.versions import GROUPS

_HELP = "Show the versions of this kind."
Limit = Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")]


def add_to(application: typer.Typer) -> None:
    """Hang `list` and `show` into the group of every kind, and `search` and `diff` into *application*."""
    groups = {group.name: group.typer_instance for group in application.registered_groups}
    for kind, name in GROUPS.items():
        group = groups.get(name)
        if group is None:
            group = command_group(_HELP)
            application.add_typer(group, name=name)
        _add(group, name, kind)
    application.command("search", epilog="Example: registry search support --kind prompts")(search)
    application.command("diff", epilog="Example: registry diff support:1 support@candidate")(diff)


def _add(group: typer.Typer, plural: str, kind: Kind) -> None:
    @group.command("list", epilog=f"Example: registry {plural} list --json")
    def listing(
        name: Annotated[str | None, typer.Argument(help="Only versions of this name.")] = None,
        *,
        limit: Limit = 100,
        before: Annotated[
            str | None, typer.Option(help="The page after the one whose `next` this is.")
        ] = None,
        as_json: Json = False,
    ) -> None:
        """List versions, newest first."""
        with verbs.session() as session:
            answer = versions.listing(session, kind, name, limit=limit, before=before)
        show(answer, lambda: _listed(answer, with_kind=False, option="--before"), as_json=as_json)

    @group.command("show", epilog=f"Example: registry {plural} show NAME")
    def one(ref: str, *, as_json: Json = False) -> None:
        """Print one version: name, name:3, name@alias (releases, prompts) or name@sha256:…"""
        with verbs.session() as session:
            answer = versions.show(session, kind, ref)
        show(answer, lambda: json.dumps(answer, indent=2, default=str), as_json=as_json)


def search(
    text: Annotated[str, typer.Argument(help="A part of a name, or the beginning of a digest.")],
    *,
    kind: Annotated[str | None, typer.Option(help="Only this kind, such as prompts.")] = None,
    limit: Limit = 100,
    after: Annotated[str | None, typer.Option(help="The page after the one whose `next` this is.")] = None,
    as_json: Json = False,
) -> None:
    """Find versions: the newest of each name, or the one with that digest."""
    with verbs.session() as session:
        answer = versions.find(session, text, _kind(kind), limit=limit, after=after)
    show(answer, lambda: _listed(answer, with_kind=True, option="--after"), as_json=as_json)


def diff(
    a: Annotated[str, typer.Argument(help="A release such as support:1, or prompts/support:1 …")],
    b: Annotated[str, typer.Argument(help="Another version of the same kind.")],
    *,
    as_json: Json = False,
) -> None:
    """Show what changed from A to B; exit code 0 when they are the same, 1 when not."""
    with verbs.session() as session:
        answer = versions.diff(session, a, b)
    show(answer, lambda: _compared(answer), as_json=as_json)
    raise typer.Exit(EXIT_OK if answer["same"] else EXIT_FAIL)


def _kind(said: str | None) -> Kind | None:
    if said is None:
        return None
    for kind, name in GROUPS.items():
        if check_name(said, "kind") in (kind, name):
            return kind
    message = f"--kind {said!r} is none of {', '.join(GROUPS.values())}"
    raise BadInput(message)


def _listed(answer: Mapping[str, Any], *, with_kind: bool, option: str) -> str:
    found = answer["versions"]
    shown = any(one["aliases"] for one in found)
    headings = ["VERSION", "DIGEST", "CREATED", "BY"] + ["ALIASES"] * shown
    rows = [
        [
            f"{GROUPS[cast('Kind', one['kind'])] + '/' if with_kind else ''}{one['name']}:{one['number']}",
            short(one["digest"]),
            one["created_at"][:19],
            one["created_by"],
            *([" ".join(one["aliases"])] * shown),
        ]
        for one in found
    ]
    more = f"\nmore: {option} {answer['next']}" if answer["next"] else ""
    return table(headings, rows) + more


def _compared(answer: Mapping[str, Any]) -> str:
    a, b = answer["a"]["title"], answer["b"]["title"]
    if answer["same"]:
        return f"{a} and {b} are the same"
    rows = [(one["path"], _value(one, "a"), _value(one, "b")) for one in answer["changes"]]
    return table(("WHERE", a, b), rows)


def _value(change: Mapping[str, Any], side: str) -> str:
    if side not in change:
        return "-"
    named = change.get(f"{side}_is")
    text = json.dumps(change[side], ensure_ascii=False)
    return f"{named} ({short(change[side])})" if named else text if len(text) <= 60 else f"{text[:59]}…"
