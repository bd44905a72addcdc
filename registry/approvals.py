"""Approvals: people's consent to one release at one alias, counted when the alias wants to move."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select

from registry import audit, tables, webhooks
from registry.clock import from_text, to_text
from registry.entities import Approval, GatePolicy, Version, check_target
from registry.errors import ApprovalMissing, BadInput, Forbidden, NotFound

_TABLE = tables.approvals
_LONGEST = 1000


def give(
    connection: Connection,
    release: Version,
    alias: str,
    *,
    terms: GatePolicy,
    comment: str,
    actor: str,
    now: datetime,
) -> Approval:
    """
    Approve *release* for *alias*. Idempotent: the first approval's time stays.

    Args:
        terms: the gate policy in force for that alias.

    Raises:
        Forbidden: *actor* is the release's author, or not among the policy's approvers.
        BadInput: the comment is too long.
    """
    check_target(release.name, alias)
    if actor == release.created_by:
        raise Forbidden(
            f"{actor} made {release.name}:{release.number} and cannot approve it; ask somebody else"
        )
    if terms.approvers is not None and actor not in terms.approvers:
        raise Forbidden(
            f"{actor} is not among the approvers of {release.name}@{alias}: {', '.join(terms.approvers)}"
        )
    if len(comment) > _LONGEST:
        raise BadInput(f"comment: longer than {_LONGEST} characters")
    for known in of(connection, release, alias):
        if known.approver == actor:
            return known
    given = Approval(release.name, release.digest, alias, actor, comment, now)
    connection.execute(
        insert(_TABLE).values(
            name=given.name,
            digest=given.digest,
            alias=alias,
            approver=actor,
            comment=comment,
            at=to_text(now),
        )
    )
    audit.append(connection, "approval.give", _target(given), _recorded(given), actor=actor, now=now)
    webhooks.enqueue(connection, "approval.give", _told(given), now)
    return given


def withdraw(connection: Connection, release: Version, alias: str, *, actor: str, now: datetime) -> None:
    """
    Take back one's own approval.

    Raises:
        NotFound: *actor* has not approved this.
    """
    for known in of(connection, release, alias):
        if known.approver == actor:
            connection.execute(delete(_TABLE).where(*_key(known)))
            audit.append(
                connection, "approval.withdraw", _target(known), {"withdrawn": True}, actor=actor, now=now
            )
            webhooks.enqueue(connection, "approval.withdraw", _told(known), now)
            return
    raise NotFound(f"{actor} has not approved {release.name}:{release.number} for {alias}")


def of(connection: Connection, release: Version, alias: str) -> list[Approval]:
    """The approvals of *release* for *alias*, oldest first."""
    query = select(_TABLE).where(
        _TABLE.c.name == release.name, _TABLE.c.digest == release.digest, _TABLE.c.alias == alias
    )
    rows = connection.execute(query.order_by(_TABLE.c.at, _TABLE.c.approver)).mappings()
    return [_approval(row) for row in rows]


def listing(connection: Connection, name: str, limit: int = 200) -> list[Approval]:
    """The newest approvals of any release of this name."""
    query = select(_TABLE).where(_TABLE.c.name == name).order_by(_TABLE.c.at.desc(), _TABLE.c.approver)
    return [_approval(row) for row in connection.execute(query.limit(limit)).mappings()]


def require(connection: Connection, release: Version, alias: str, terms: GatePolicy) -> list[str]:
    """
    Who approved, once there are enough of them: never the author, and only whom *terms* allow.

    Raises:
        ApprovalMissing: there are too few.
        RecordTampered: an approval was added behind the registry.
    """
    counted = []
    for given in of(connection, release, alias):
        if given.approver != release.created_by and (
            terms.approvers is None or given.approver in terms.approvers
        ):
            audit.require(connection, _target(given), _recorded(given))
            counted.append(given.approver)
    wanted = terms.approvals or 0
    if len(counted) < wanted:
        message = (
            f"{release.name}:{release.number} has {len(counted)} of {wanted} approvals for {alias}, its "
            f"author {release.created_by} not counted; "
            f"`registry approvals give {release.name}:{release.number}`"
        )
        raise ApprovalMissing(message)
    return sorted(counted)


def protected(connection: Connection) -> list[tuple[str, dict[str, Any]]]:
    """(target, body) of every row here that the audit chain vouches for."""
    given = [_approval(row) for row in connection.execute(select(_TABLE)).mappings()]
    return [(_target(one), _recorded(one)) for one in given]


def _key(given: Approval) -> tuple[Any, ...]:
    return (
        _TABLE.c.name == given.name,
        _TABLE.c.digest == given.digest,
        _TABLE.c.alias == given.alias,
        _TABLE.c.approver == given.approver,
    )


def _target(given: Approval) -> str:
    return f"approval/{given.digest}@{given.alias}/{given.approver}"


def _told(given: Approval) -> dict[str, Any]:
    return {"name": given.name, "release": given.digest, "alias": given.alias, "by": given.approver}


def _recorded(given: Approval) -> dict[str, Any]:
    return {"name": given.name, "comment": given.comment, "at": to_text(given.at)}


def _approval(row: RowMapping) -> Approval:
    return Approval(
        row["name"], row["digest"], row["alias"], row["approver"], row["comment"], from_text(row["at"])
    )
