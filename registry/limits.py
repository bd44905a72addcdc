"""Limits of teams, users, sessions and models; those of keys are with the keys."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update

from registry import audit, parse, tables
from registry.clock import utc_now
from registry.db import bump_revision
from registry.entities import LimitRule, Limits
from registry.errors import BadInput, NotFound

_TABLE = tables.limits
_KINDS = ("team", "user", "session", "model")
_MAX_SUBJECT = 200


def set_rule(
    connection: Connection, rule: LimitRule, *, actor: str = "", now: datetime | None = None
) -> bool:
    """
    Set the limits of a subject, in the place of what it had; returns whether anything changed.

    Raises:
        BadInput: an unknown kind, an empty or long subject, or no limit at all.
    """
    if rule.kind not in _KINDS:
        message = f"kind {rule.kind!r} is none of {', '.join(_KINDS)}"
        raise BadInput(message)
    if not 0 < len(rule.subject) <= _MAX_SUBJECT:
        message = f"{rule.kind}: the name must have 1 to {_MAX_SUBJECT} characters; '*' is each other one"
        raise BadInput(message)
    if rule.limits.unlimited:
        message = f"{rule.kind} {rule.subject!r}: give at least one of rpm, tpm, concurrency and budget"
        raise BadInput(message)
    where = (_TABLE.c.kind == rule.kind, _TABLE.c.subject == rule.subject)
    text = to_json(rule.limits)
    before = connection.execute(select(_TABLE.c.limits).where(*where)).scalar()
    if before == text:
        return False
    if before is None:
        connection.execute(insert(_TABLE).values(kind=rule.kind, subject=rule.subject, limits=text))
    else:
        connection.execute(update(_TABLE).where(*where).values(limits=text))
    _record(connection, "limit.set", rule.kind, rule.subject, json.loads(text), actor, now)
    bump_revision(connection)
    return True


def remove_rule(
    connection: Connection, kind: str, subject: str, *, actor: str = "", now: datetime | None = None
) -> None:
    """
    Take a subject's limits away.

    Raises:
        NotFound: it has none.
    """
    gone = connection.execute(delete(_TABLE).where(_TABLE.c.kind == kind, _TABLE.c.subject == subject))
    if not gone.rowcount:
        raise NotFound(f"{kind} {subject!r} has no limits; `gateway limits list` shows those there are")
    _record(connection, "limit.remove", kind, subject, {}, actor, now)
    bump_revision(connection)


def list_rules(connection: Connection) -> list[LimitRule]:
    """Every rule, by kind and subject."""
    rows = connection.execute(select(_TABLE).order_by(_TABLE.c.kind, _TABLE.c.subject)).mappings()
    return [LimitRule(row["kind"], row["subject"], from_json(row["limits"])) for row in rows]


def protected(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """(target, body) of every rule, as the audit chain vouches for it."""
    for row in connection.execute(select(_TABLE)).mappings():
        yield f"limit/{row['kind']}/{row['subject']}", json.loads(row["limits"])


def _record(
    connection: Connection,
    action: str,
    kind: str,
    subject: str,
    body: Mapping[str, Any],
    actor: str,
    now: datetime | None,
) -> None:
    audit.append(
        connection, action, f"limit/{kind}/{subject}", body, actor=actor or "registry", now=now or utc_now()
    )


def to_json(limits: Limits) -> str:
    """*limits* as they are stored: only what is set."""
    values = {name: value for name, value in asdict(limits).items() if value is not None}
    if "budget_microusd" not in values:
        del values["budget_period"]
    return json.dumps(values, sort_keys=True)


def from_json(text: str) -> Limits:
    """The stored limits."""
    values: Mapping[str, Any] = json.loads(text)
    return parse.build(values, Limits, source="stored limits")
