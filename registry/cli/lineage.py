"""`registry lineage|was`: what came from what, and what an alias was when."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from registry import lineage_draw, verbs
from registry.clock import from_text
from registry.errors import BadInput
from registry.ids import short
from registry.lineage import Direction
from registry.terminal import Json, show
from registry.verbs import releases, versions


class Format(StrEnum):
    """What a graph is printed as."""

    TEXT = "text"
    JSON = "json"
    SVG = "svg"


def add_to(application: typer.Typer) -> None:
    """Hang the verbs into *application*."""
    application.command(
        "lineage", epilog="Example: registry lineage support@production --format svg -o support.svg"
    )(show_lineage)
    application.command("was", epilog="Example: registry was support --at 2026-11-17T12:00:00Z")(was)


def show_lineage(
    ref: Annotated[
        str, typer.Argument(help="A release such as support@production, or models/churn:2, datasets/q …")
    ],
    *,
    style: Annotated[Format, typer.Option("--format", help="A tree, one JSON object, or a picture.")] = (
        Format.TEXT
    ),
    up: Annotated[bool, typer.Option("--up", help="Only what it was made of.")] = False,
    down: Annotated[bool, typer.Option("--down", help="Only what came of it.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write to this file.")] = None,
    as_json: Json = False,
) -> None:
    """What a version was made of and what came of it: data, parts, releases, evidence, aliases, requests."""
    direction: Direction = "both" if up == down else "up" if up else "down"
    with verbs.session() as session:
        graph = versions.graph(session, ref, direction)
    if output is None:
        drawn = lineage_draw.svg if style is Format.SVG else lineage_draw.text
        show(graph, lambda: drawn(graph), as_json=as_json or style is Format.JSON)
        return
    written = {
        Format.TEXT: lineage_draw.text,
        Format.SVG: lineage_draw.svg,
        Format.JSON: lineage_draw.json_text,
    }[style](graph)
    try:
        output.write_text(written, encoding="utf-8")
    except OSError as error:
        message = f"--output {output}: cannot be written: {error.strerror}"
        raise BadInput(message) from error
    done = {"ok": True, "output": str(output), "nodes": len(graph["nodes"]), "cut": graph["cut"]}
    show(done, f"wrote {output}", as_json=as_json)


def was(
    name: Annotated[str, typer.Argument(help="The release's name.")],
    *,
    at: Annotated[str, typer.Option(help="When (RFC 3339).")],
    alias: Annotated[str, typer.Option(help="Which alias.")] = "production",
    as_json: Json = False,
) -> None:
    """What an alias was at some moment: the release, its parts, and who moved it there on what evidence."""
    when = from_text(at)
    with verbs.session() as session:
        found = releases.was(session, name, when, alias)
    show(found, lambda: _told(found), as_json=as_json)


def _told(found: dict[str, Any]) -> str:
    where = f"{found['name']}@{found['alias']}"
    if found["release"] is None:
        return f"{where} was not set yet at {found['at']}; it first was at {found['until']}"
    release, move = found["release"], found["move"]
    lines = [
        f"{where} was {release['name']}:{release['number']}  {release['digest']}",
        f"  from {found['since']} to {found['until'] or 'now'}",
        f"  {move['action']} by {move['by']}: {move['reason'] or '(no reason given)'}",
    ]
    if move["from"]:
        lines.append(
            f"  before: {move['from']['name']}:{move['from']['number'] or short(move['from']['digest'])}"
        )
    lines += [
        f"  evidence {short(one['digest'])}: {one['verdict']}, {one['suite']} on {one['dataset']}, "
        f"{one['samples']} samples"
        for one in move["evidence"]
    ]
    lines += [f"  approved by {approver}" for approver in move["approvers"]]
    if not move["evidence"]:
        lines.append("  on no evidence of its own")
    for part in found["parts"]:
        number = f":{part['number']}" if part["number"] else ""
        lines.append(f"  {part['role']}: {part['name'] or short(part['digest'])}{number}")
    return "\n".join(lines)
