"""`registry policies|judges|tools|prices push`, `registry releases create`: files become versions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from registry import judges, policies, prices, releases, schemas, verbs
from registry.cli import prompts
from registry.ids import digest
from registry.terminal import Json, command_group, show
from registry.verbs import Session, versions
from registry.verbs.releases import create as create_release
from registry.versions import plain

File = Annotated[Path, typer.Argument(help="The file to read.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the file and store nothing.")]


_ABOUT = {
    "judges": "Judges: the model and rubric that score answers.",
    "tools": "Tool schemas: functions that releases offer to their model.",
    "prices": "Price tables: what releases that pin one are charged by.",
}


def add_to(application: typer.Typer) -> None:
    """Hang the groups of what is pushed from files, and `releases`, into *application*."""
    prompts.add_to(application)
    group = command_group("Guardrail policies and gate policies.")
    group.command("push", epilog="Example: registry policies push policies/guardrails.yaml")(push_policy)
    application.add_typer(group, name="policies")
    pushes = {"judges": push_judge, "tools": push_tools, "prices": push_prices}
    for name, command in pushes.items():
        group = command_group(_ABOUT[name])
        group.command("push", epilog=f"Example: registry {name} push {name}/support.yaml")(command)
        application.add_typer(group, name=name)
    group = command_group("Releases: the pinned parts of what runs.")
    group.command("create", epilog="Example: registry releases create releases/support.yaml")(create)
    application.add_typer(group, name="releases")


def push_policy(file: File, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Store a policy file (kind: guardrails or gate) as a version."""
    policy = policies.read_file(file)
    push = partial(versions.push_policy, file=policy)
    content = policy.rules or policy.gate
    _push(f"{policy.kind} policy", policy.name, content, push, dry_run=dry_run, as_json=as_json)


def push_judge(file: File, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Store a judge file (name, judge: model, rubric …) as a version."""
    read = judges.read_file(file)
    push = partial(versions.push_judge, file=read)
    _push("judge", read.name, read.judge, push, dry_run=dry_run, as_json=as_json)


def push_tools(file: File, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Store a tool schema file (name, tools in OpenAI's shape) as a version."""
    read = schemas.read_tools(file)
    push = partial(versions.push_tools, file=read)
    _push("tool-schema", read.name, read.content, push, dry_run=dry_run, as_json=as_json)


def push_prices(file: File, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Store a price table (name, prices), for releases that pin what they are charged by."""
    read = prices.read_table(file)
    push = partial(versions.push_prices, file=read)
    _push("price-table", read.name, read.content, push, dry_run=dry_run, as_json=as_json)


def create(file: File, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Pin every part a release file names, store the release, point `candidate` at it."""
    release = releases.read_file(file)
    with verbs.session() as session:
        answer = create_release(session, release, dry_run=dry_run)
    if dry_run:
        show(
            answer,
            f"release {release.name} is valid; its digest would be {answer['digest']}",
            as_json=as_json,
        )
    else:
        _pushed(answer, as_json=as_json)


def _push(
    kind: str,
    name: str,
    content: object,
    push: Callable[[Session], dict[str, Any]],
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    if dry_run:
        _dry(kind, name, content, as_json=as_json)
        return
    with verbs.session() as session:
        _pushed(push(session), as_json=as_json)


def _pushed(answer: Mapping[str, Any], *, as_json: bool) -> None:
    where = f"{answer['name']}:{answer['number']}"
    tail = f"  {answer['alias']} → {where}" if "alias" in answer else ""
    show(answer, f"{answer['kind']} {where}  {answer['digest']}{tail}", as_json=as_json)


def _dry(kind: str, name: str, content: object, *, as_json: bool) -> None:
    would = digest(plain(content))
    answer = {"ok": True, "dry_run": True, "kind": kind, "name": name, "digest": would}
    show(answer, f"{kind} {name} is valid; its digest would be {would}", as_json=as_json)
