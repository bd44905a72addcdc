"""Prompts: push, pull, compare, render, label."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from registry import imports, labels, promptdiff, prompts
from registry.clock import utc_now
from registry.entities import PromptContent
from registry.promptdiff import Side
from registry.prompts import File
from registry.refs import Ref, parse_ref
from registry.verbs.session import Session
from registry.versions import plain

Values = Mapping[str, Any] | Callable[[Mapping[str, str]], Mapping[str, Any]]
"""Variables by name, or what makes them once it is told what is declared: name → type."""


def push(session: Session, files: Sequence[File], *, dry_run: bool = False) -> list[dict[str, Any]]:
    """Store prompt files, all or none; of each `name`, `number`, `digest`, `file` and whether it is `new`."""
    with session.acting("prompts.push") as (connection, who):
        pushed = prompts.push_files(connection, files, actor=who, now=utc_now())
        if dry_run:
            connection.rollback()
    return [
        {"name": v.name, "number": v.number, "digest": v.digest, "file": f.source, "new": new}
        for f, v, new in pushed
    ]


def pull(session: Session, ref: str) -> dict[str, Any]:
    """The file of a prompt, as it was pushed; see `prompts.pull`."""
    with session.viewing("prompts.pull") as connection:
        return prompts.pull(connection, parse_ref(ref))


def diff(session: Session, a: str, b: str, values: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What changed between two prompts, with rendered examples; see `promptdiff.diff`."""
    with session.viewing("prompts.diff") as connection:
        sides = []
        for ref in (a, b):
            version, content = prompts.get(connection, parse_ref(ref))
            title = f"{version.name}:{version.number}"
            sides.append(Side(title, content, prompts.partials_of(connection, content)))
    return promptdiff.diff(sides[0], sides[1], values)


def render(session: Session, ref: str, values: Values) -> dict[str, Any]:
    """The messages of a prompt; a missing, extra or wrongly typed variable is an error."""
    with session.viewing("prompts.render") as connection:
        version, content = prompts.get(connection, parse_ref(ref))
        given = values(_declared(content)) if callable(values) else values
        return prompts.render(connection, Ref(version.name, digest=version.digest), given)


def log(session: Session, name: str, *, limit: int = 20, before: int | None = None) -> dict[str, Any]:
    """Who pushed which version when, with its labels and the releases that pin it; see `prompts.log`."""
    with session.viewing("prompts.log") as connection:
        return prompts.log(connection, name, limit=limit, before=before)


def label(session: Session, ref: str, name: str, *, expected: int | None = None) -> dict[str, Any]:
    """Point a label at a version; *expected*: only if its generation is this, 0 if it is new."""
    with session.acting("prompts.label") as (connection, who):
        version = labels.resolve(connection, parse_ref(ref))
        moved = labels.move(connection, version, name, actor=who, now=utc_now(), expected=expected)
    return {"ok": True, "removed": False, **plain(moved)}


def unlabel(session: Session, prompt: str, name: str) -> dict[str, Any]:
    """Take a label away."""
    with session.acting("prompts.label") as (connection, who):
        moved = labels.remove(connection, parse_ref(prompt).name, name, actor=who, now=utc_now())
    return {"ok": True, "removed": True, **plain(moved)}


def list_labels(session: Session, name: str | None = None) -> dict[str, Any]:
    """Where labels point, when they moved and who moved them."""
    with session.viewing("prompts.list") as connection:
        if name is not None:
            labels.resolve(connection, Ref(name))
        found = labels.listing(connection, name)
        pinned = [labels.resolve(connection, Ref(one.name, digest=one.digest)) for one in found]
    return {"labels": [{**plain(one), "number": v.number} for one, v in zip(found, pinned, strict=True)]}


def take(
    session: Session, found: Sequence[imports.Imported], source: imports.Source, *, dry_run: bool = False
) -> dict[str, Any]:
    """Store prompts that another tool exported; see `imports.store`."""
    with session.acting("prompts.import") as (connection, who):
        answer = imports.store(connection, found, source, actor=who, now=utc_now())
        if dry_run:
            connection.rollback()
    return {"ok": True, "dry_run": dry_run, **answer}


def _declared(content: PromptContent) -> Mapping[str, str]:
    return content.variables
