"""`registry prompts|policies|releases push|create`: files become immutable versions."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from registry import policies, promotion, prompts, releases
from registry.clock import utc_now
from registry.entities import Version
from registry.ids import digest
from registry.refs import parse_ref
from registry.templates import compile_prompt
from registry.terminal import Json, command_group, show
from registry.versions import plain
from registry.workspace import open_workspace

File = Annotated[Path, typer.Argument(help="The file to read.", show_default=False)]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Check the file and store nothing.")]


def add_to(application: typer.Typer) -> None:
    """Hang the groups `prompts`, `policies` and `releases` into *application*."""
    group = command_group("Prompts: immutable, numbered, content-addressed.")
    group.command("push", epilog="Example: registry prompts push prompts/support.md")(push_prompt)
    group.command("pull", epilog="Example: registry prompts pull support:2 > support.md")(pull_prompt)
    group.command("render", epilog="Example: registry prompts render support --set question=Why?")(render)
    application.add_typer(group, name="prompts")
    group = command_group("Guardrail policies and gate policies.")
    group.command("push", epilog="Example: registry policies push policies/guardrails.yaml")(push_policy)
    application.add_typer(group, name="policies")
    group = command_group("Releases: the pinned parts of what runs.")
    group.command("create", epilog="Example: registry releases create releases/support.yaml")(create)
    application.add_typer(group, name="releases")


def push_prompt(file: File, *, dry_run: DryRun = False, as_json: Json = False) -> None:
    """Store a prompt file as a version; equal content is the same version."""
    name, content = prompts.read_file(file)
    if dry_run:
        _dry("prompt", name, content, as_json=as_json)
        return
    with open_workspace() as workspace, workspace.acting("prompts.push") as (connection, who):
        version = prompts.push(connection, name, content, actor=who, now=utc_now())
    _pushed(version, as_json=as_json)


def pull_prompt(ref: str, *, as_json: Json = False) -> None:
    """Print a prompt as the file it was pushed from."""
    with open_workspace() as workspace, workspace.reading() as connection:
        version, content = prompts.get(connection, parse_ref(ref))
    text = prompts.write_file(version.name, content)
    show({"name": version.name, "digest": version.digest, "file": text}, text, as_json=as_json)


def render(
    ref: str,
    *,
    values: Annotated[list[str] | None, typer.Option("--set", help="A text variable, name=value.")] = None,
    as_json: Json = False,
) -> None:
    """Render a prompt with text variables; a missing or extra one is an error."""
    with open_workspace() as workspace, workspace.reading() as connection:
        _, content = prompts.get(connection, parse_ref(ref))
    pairs = dict(item.partition("=")[::2] for item in values or [])
    messages = compile_prompt(content)(pairs)
    text = "\n\n".join(f"# {message['role']}\n{message['content']}" for message in messages)
    show({"messages": messages}, text, as_json=as_json)


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
