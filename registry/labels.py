"""
Labels: movable names on prompts, such as `support@staging`. Anybody who may push may move them.

What live traffic uses is no label: `support@production` is the prompt that the release *support* pins in
production, and moves only when that release is promoted.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select, update

from registry import audit, tables, versions
from registry.clock import to_text
from registry.entities import Kind, Version
from registry.errors import BadInput, Conflict, NotFound
from registry.refs import Ref, check_alias

GUARDED = ("champion", "production")
"""Aliases of releases; for a prompt they mean what the release of its name pins there."""
_TABLE, _ALIASES = tables.labels, tables.aliases
_KIND: Kind = "prompt"


@dataclass(frozen=True, slots=True)
class Label:
    """Where a label points now."""

    name: str
    label: str
    digest: str
    generation: int
    """Grows by one at each move; the compare-and-swap token."""
    moved_at: str
    """RFC 3339."""
    moved_by: str


def resolve(connection: Connection, ref: Ref) -> Version:
    """
    The prompt that *ref* names: by label, number or digest; without a selector the newest.

    Raises:
        NotFound: no such prompt or label; the message says which labels there are.
        VersionTampered: its stored content no longer has its digest.
    """
    if ref.alias is None or ref.alias == "latest":
        return versions.get(connection, _KIND, replace(ref, alias=None))
    if ref.alias in GUARDED:
        return _released(connection, ref.name, ref.alias)
    found = get(connection, ref.name, ref.alias)
    if found is None:
        there = ", ".join(label.label for label in listing(connection, ref.name)) or "none"
        raise NotFound(f"prompt {ref.name!r} has no label {ref.alias!r}; it has: {there}")
    return versions.get(connection, _KIND, Ref(ref.name, digest=found.digest))


def get(connection: Connection, name: str, label: str) -> Label | None:
    """The label of a prompt, or None."""
    query = select(_TABLE).where(*_where(name, label))
    row = connection.execute(query).mappings().one_or_none()
    return _label(row) if row is not None else None


def listing(connection: Connection, name: str | None = None) -> list[Label]:
    """Every label of a prompt, or of all prompts, by name and label."""
    query = select(_TABLE).where(_TABLE.c.kind == _KIND).order_by(_TABLE.c.name, _TABLE.c.label)
    if name is not None:
        query = query.where(_TABLE.c.name == name)
    return [_label(row) for row in connection.execute(query).mappings()]


def move(
    connection: Connection,
    version: Version,
    label: str,
    *,
    actor: str,
    now: datetime,
    expected: int | None = None,
) -> Label:
    """
    Point a label at a prompt version. Idempotent: where it points there already, nothing is written.

    Args:
        expected: the generation it has to have, 0 for a label that is not there yet; None: whatever it has.

    Raises:
        BadInput: a malformed label, or one that only a promotion moves.
        Conflict: somebody else moved it first; look at it again and retry.
    """
    check(label)
    now_at = get(connection, version.name, label)
    generation = now_at.generation if now_at else 0
    if expected is not None and expected != generation:
        raise _lost(version.name, label, expected, generation)
    if now_at is not None and now_at.digest == version.digest:
        return now_at
    moved = Label(version.name, label, version.digest, generation + 1, to_text(now), actor)
    row = {
        "digest": moved.digest,
        "generation": moved.generation,
        "moved_at": moved.moved_at,
        "moved_by": actor,
    }
    if now_at is None:
        connection.execute(insert(_TABLE).values(kind=_KIND, name=version.name, label=label, **row))
    else:
        swap = update(_TABLE).where(*_where(version.name, label), _TABLE.c.generation == generation)
        if connection.execute(swap.values(**row)).rowcount != 1:
            raise _lost(version.name, label, generation, None)
    audit.append(connection, "prompt.label", _target(moved), _recorded(moved), actor=actor, now=now)
    return moved


def remove(connection: Connection, name: str, label: str, *, actor: str, now: datetime) -> Label:
    """
    Take a label away; returns what it was.

    Raises:
        NotFound: no such label.
        BadInput: one that only a promotion moves.
    """
    check(label)
    found = get(connection, name, label)
    if found is None:
        raise NotFound(f"prompt {name!r} has no label {label!r}")
    connection.execute(delete(_TABLE).where(*_where(name, label)))
    gone = {"digest": None, "generation": found.generation, "was": found.digest}
    audit.append(connection, "prompt.unlabel", _target(found), gone, actor=actor, now=now)
    return found


def check(label: str) -> str:
    """
    *label* itself when it may be moved by hand.

    Raises:
        BadInput: malformed, `latest`, or a name that live traffic uses.
    """
    check_alias(label)
    if label in GUARDED:
        raise BadInput(
            f"label {label!r} is what a release pins there: promote the release; it cannot be moved by hand"
        )
    if label == "latest":
        raise BadInput("label 'latest' is always the newest version; choose another name")
    return label


def protected(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """(target, body) of every row here that the audit chain vouches for."""
    for label in listing(connection):
        yield _target(label), _recorded(label)


def _released(connection: Connection, name: str, alias: str) -> Version:
    """The prompt that the release *name* pins at *alias*."""
    query = select(_ALIASES.c.digest).where(_ALIASES.c.name == name, _ALIASES.c.alias == alias)
    digest = connection.execute(query).scalar()
    if digest is None:
        raise NotFound(f"prompt {name}@{alias}: no release {name!r} is in {alias}; promote one")
    pinned = versions.get(connection, "release", Ref(name, digest=digest)).content.get("prompt")
    if pinned is None:
        raise NotFound(f"prompt {name}@{alias}: the release {name!r} in {alias} pins no prompt")
    try:
        return versions.get(connection, _KIND, Ref(name, digest=pinned))
    except NotFound:
        return versions.by_digest(connection, _KIND, pinned)


def _where(name: str, label: str) -> tuple[Any, ...]:
    return _TABLE.c.kind == _KIND, _TABLE.c.name == name, _TABLE.c.label == label


def _target(label: Label) -> str:
    return f"{_KIND}/{label.name}@{label.label}"


def _recorded(label: Label) -> dict[str, Any]:
    return {"digest": label.digest, "generation": label.generation}


def _label(row: RowMapping) -> Label:
    return Label(
        **{key: row[key] for key in ("name", "label", "digest", "generation", "moved_at", "moved_by")}
    )


def _lost(name: str, label: str, expected: int, generation: int | None) -> Conflict:
    at = "another one" if generation is None else f"{generation}"
    return Conflict(
        f"label {name}@{label}: expected generation {expected}, but it is at {at}; look again and retry"
    )
