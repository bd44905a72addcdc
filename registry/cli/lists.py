"""`registry <kind>s list|show`: what is in the registry."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from registry import releases, versions
from registry.clock import to_text
from registry.entities import Kind, Version
from registry.ids import short
from registry.refs import parse_ref
from registry.terminal import Json, command_group, show, table
from registry.workspace import open_workspace

_HELP = "Show the versions of this kind."


def add_to(application: typer.Typer) -> None:
    """Hang `list` and `show` into the group of every kind."""
    groups = {group.name: group.typer_instance for group in application.registered_groups}
    for kind, name in versions.GROUPS.items():
        group = groups.get(name)
        if group is None:
            group = command_group(_HELP)
            application.add_typer(group, name=name)
        _add(group, name, kind)


def _add(group: typer.Typer, plural: str, kind: Kind) -> None:
    @group.command("list", epilog=f"Example: registry {plural} list --json")
    def listing(
        name: Annotated[str | None, typer.Argument(help="Only versions of this name.")] = None,
        *,
        limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most this many.")] = 100,
        as_json: Json = False,
    ) -> None:
        """List versions, newest first."""
        with open_workspace() as workspace, workspace.viewing("versions.list") as connection:
            found = versions.listing(connection, kind, name, limit)
            pointing = _aliases(connection) if kind == "release" else {}
        rows = [
            (
                f"{v.name}:{v.number}",
                short(v.digest),
                to_text(v.created_at)[:19],
                v.created_by,
                *_at(v, pointing),
            )
            for v in found
        ]
        answer = {"versions": [{**_summary(v), "aliases": _at(v, pointing)} for v in found]}
        show(answer, lambda: table(("VERSION", "DIGEST", "CREATED", "BY", "ALIASES")[: 4 + any(pointing)],
                                   [(*row[:4], " ".join(row[4:]))[: 4 + any(pointing)] for row in rows]),
             as_json=as_json)  # fmt: skip

    @group.command("show", epilog=f"Example: registry {plural} show NAME")
    def one(ref: str, *, as_json: Json = False) -> None:
        """Print one version: name, name:3, name@alias (releases) or name@sha256:…"""
        with open_workspace() as workspace, workspace.viewing("versions.show") as connection:
            if kind == "release":
                version = releases.resolve(connection, parse_ref(ref))
            else:
                version = versions.get(connection, kind, parse_ref(ref))
        answer = {**_summary(version), "content": version.content, "meta": version.meta}
        show(answer, lambda: json.dumps(answer, indent=2, default=str), as_json=as_json)


def _aliases(connection: Any) -> dict[tuple[str, str], list[str]]:  # noqa: ANN401
    pointing: dict[tuple[str, str], list[str]] = {}
    for state in releases.alias_states(connection):
        pointing.setdefault((state.name, state.digest), []).append(state.alias)
    return pointing


def _at(version: Version, pointing: dict[tuple[str, str], list[str]]) -> list[str]:
    return pointing.get((version.name, version.digest), [])


def _summary(version: Version) -> dict[str, Any]:
    return {
        "kind": version.kind,
        "name": version.name,
        "number": version.number,
        "digest": version.digest,
        "created_at": to_text(version.created_at),
        "created_by": version.created_by,
    }
