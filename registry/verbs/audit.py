"""The audit chain: look, check, hold, forget."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from registry import audit_anchor, audit_export, audit_keep, audit_verify
from registry.anchor import Head
from registry.clock import utc_now
from registry.entities import AuditClass
from registry.errors import AuditTampered, RecordTampered
from registry.terminal import progress
from registry.verbs.session import Session


def listing(session: Session, *, unseal: bool = False, **wanted: Any) -> dict[str, Any]:  # noqa: ANN401
    """Records, newest first, as they are stored; *wanted* as `audit_export.listing` takes it."""
    with session.viewing("audit.export" if unseal else "audit.list") as connection:
        return audit_export.listing(connection, unseal=unseal, **wanted)


def verify(
    session: Session, *, every_signature: bool = False, heads: Sequence[tuple[str, Head]] = ()
) -> dict[str, Any]:
    """Check the whole chain, and every row against it; see `audit_verify.verify`."""
    try:
        with session.viewing("audit.verify") as connection:
            total = audit_anchor.end(connection)
            with progress("audit records", total.seq if total else 0) as done:
                return audit_verify.verify(
                    connection, every_signature=every_signature, heads=heads, progress=done
                )
    except (RecordTampered, AuditTampered) as error:  # who asks cannot be known: that itself is a finding
        if session.remote:
            raise
        with session.workspace.reading() as connection:
            answer = audit_verify.verify(connection, every_signature=every_signature, heads=heads)
        answer["problems"].insert(0, {"where": "users", "problem": error.message})
        return answer | {"ok": False, "problem_count": answer["problem_count"] + 1}


def head(session: Session) -> dict[str, Any]:
    """The signed end of the chain, to be kept elsewhere; None while there is none."""
    with session.viewing("audit.anchor") as connection:
        found = audit_anchor.end(connection)
    return {"head": found._asdict() if found is not None else None}


def prune(session: Session, *, dry_run: bool = False) -> dict[str, Any]:
    """Empty the bodies of records whose retention has ended: of each class how many."""
    settings = session.workspace.settings
    classes: dict[AuditClass, int] = {"admin": settings.audit_days, "decision": settings.decision_days}
    done: list[dict[str, Any]] = []
    for kind, days in classes.items():
        emptied, more, now = 0, True, utc_now()
        answer: dict[str, Any] = {}
        while more:
            with session.acting("audit.prune") as (connection, who):
                answer = audit_keep.prune(connection, kind, days, actor=who, now=now, dry_run=dry_run)
            emptied += answer["emptied"]
            more = answer["more"] and not dry_run
        done.append({**answer, "emptied": emptied, "days": days})
    return {"ok": True, "dry_run": dry_run, "classes": done}


def erase(session: Session, person: str, *, reason: str) -> dict[str, Any]:
    """Make what the chain says of a person unreadable for ever."""
    with session.acting("audit.erase") as (connection, who):
        answer = audit_keep.erase(connection, person, reason=reason, actor=who, now=utc_now())
    scrubbed = audit_keep.scrub(session.workspace.engine)
    return {"ok": True, **answer, "scrubbed": scrubbed}


def hold(session: Session, scope: str, *, reason: str) -> dict[str, Any]:
    """Keep what *scope* names until the hold is released."""
    with session.acting("audit.hold") as (connection, who):
        return {
            "ok": True,
            "hold": audit_keep.place(connection, scope, reason=reason, actor=who, now=utc_now()),
        }


def release(session: Session, identity: str) -> dict[str, Any]:
    """End a hold."""
    with session.acting("audit.hold") as (connection, who):
        return {"ok": True, "hold": audit_keep.release(connection, identity, actor=who, now=utc_now())}


def holds(session: Session) -> dict[str, Any]:
    """Every hold, newest first."""
    with session.viewing("audit.list") as connection:
        return {"holds": audit_keep.holds(connection)}
