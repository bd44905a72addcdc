"""`registry policies|releases push|create`: files become immutable versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from registry import policies, promotion, releases
from registry.cli import prompts
from registry.clock import utc_now
from registry.entities import Version
from registry.ids import digest
from registry.terminal import Json, command_group, show
from registry.versions import plain
from registry.workspace import open_workspace

File = Annotated[Path, typer.Argument(help="The file to read.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the file and store nothing.")]


def add_to(application: typer.Typer) -> None:
    """Hang the groups `prompts`, `policies` and `releases` into *application*."""
    prompts.add_to(application)
    group = command_group("Guardrail policies and gate policies.")
    group.command("push", epilog="Example: registry policies push policies/guardrails.yaml")(push_policy)
    application.add_typer(group, name="policies")
    group = command_group("Releases: the pinned parts of what runs.")
    group.command("create", epilog="Example: registry releases create releases/support.yaml")(create)
    application.add_typer(group, name="releases")


def push_policy(file: File, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Store a policy file (kind: guardrails or gate) as a version."""
    policy = policies.read_file(file)
    if dry_run:
        _dry(f"{policy.kind} policy", policy.name, policy.rules or policy.gate, as_json=as_json)
        return
    verb = "gates.push" if policy.kind == "gate" else "guardrails.push"
    with open_workspace() as workspace, workspace.acting(verb) as (connection, who):
        version = policies.push(connection, policy, actor=who, now=utc_now())
    _pushed(version, as_json=as_json)


def create(file: File, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Pin every part a release file names, store the release, point `candidate` at it."""
    release = releases.read_file(file)
    with open_workspace() as workspace:
        if dry_run:
            with workspace.viewing("versions.list") as connection:
                _dry("release", release.name, releases.pin(connection, release), as_json=as_json)
            return
        now = utc_now()
        with workspace.acting("releases.create") as (connection, who):
            version = releases.create(connection, release, actor=who, now=now)
            promotion.nominate(connection, version, actor=who, now=now)
    _pushed(version, as_json=as_json, alias="candidate")


def _pushed(version: Version, *, as_json: bool, **more: Any) -> None:  # noqa: ANN401
    answer = {"ok": True, "name": version.name, "number": version.number, "digest": version.digest, **more}
    tail = "".join(f"  {key} → {version.name}:{version.number}" for key in more.values())
    text = f"{version.kind} {version.name}:{version.number}  {version.digest}{tail}"
    show({"kind": version.kind, **answer}, text, as_json=as_json)


def _dry(kind: str, name: str, content: object, *, as_json: bool) -> None:
    would = digest(plain(content))
    answer = {"ok": True, "dry_run": True, "kind": kind, "name": name, "digest": would}
    show(answer, f"{kind} {name} is valid; its digest would be {would}", as_json=as_json)
