"""Releases, and the aliases that live traffic uses."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from registry import approvals, audit, gate, history, history_view, promotion, releases, webhooks
from registry.clock import to_text, utc_now
from registry.entities import Approval
from registry.errors import PlatformError, PromotionRefused
from registry.ids import digest
from registry.refs import check_alias, check_name, parse_ref
from registry.releases import ReleaseFile
from registry.verbs.session import Session
from registry.verbs.versions import pushed
from registry.versions import plain

_log = logging.getLogger(__name__)


def create(session: Session, file: ReleaseFile, *, dry_run: bool = False) -> dict[str, Any]:
    """Pin every part a release file names, store the release, point `candidate` at it."""
    if dry_run:
        with session.viewing("versions.list") as connection:
            would = digest(plain(releases.pin(connection, file)))
        return {"ok": True, "dry_run": True, "kind": "release", "name": file.name, "digest": would}
    now = utc_now()
    with session.acting("releases.create") as (connection, who):
        version = releases.create(connection, file, actor=who, now=now)
        promotion.nominate(connection, version, actor=who, now=now)
    return pushed(version, alias="candidate")


def aliases(session: Session, name: str | None = None) -> dict[str, Any]:
    """Where every alias points: `aliases`, each with its release's number and digest, and generation."""
    if name is not None:
        check_name(name)
    with session.viewing("aliases.list") as connection:
        found = releases.listed_aliases(connection, name)
    return {"aliases": found}


def promote(
    session: Session,
    ref: str,
    to: str = "production",
    *,
    reason: str = "",
    envelopes: Sequence[Mapping[str, Any]] | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """
    Move an alias to a release whose evidence holds.

    Args:
        envelopes: judge these instead of those on file.
        dry_run: decide, and move nothing.

    Returns:
        `ok`, `moved`; and where the alias was elsewhere, `dry_run` and the move.
    """
    judged = None if envelopes is None else [(digest(one), one) for one in envelopes]
    check_alias(to)
    try:
        with session.acting("aliases.promote") as (connection, who):
            move = promotion.promote(
                connection,
                session.workspace.artifacts,
                parse_ref(ref),
                to,
                actor=who,
                reason=reason,
                now=utc_now(),
                envelopes=judged,
            )
            if dry_run:
                connection.rollback()
    except PromotionRefused as refusal:
        if not dry_run:
            _note(session, ref, to, refusal)
        raise
    if move is None:
        return {"ok": True, "moved": False}
    return {"ok": True, "moved": not dry_run, "dry_run": dry_run, **history.plain(move)}


def break_glass(session: Session, ref: str, to: str = "production", *, reason: str) -> dict[str, Any]:
    """Move an alias without evidence or approvals, in an emergency; answers as `promote`."""
    check_alias(to)
    with session.acting("aliases.break-glass") as (connection, who):
        move = promotion.break_glass(
            connection,
            session.workspace.artifacts,
            parse_ref(ref),
            to,
            actor=who,
            reason=reason,
            now=utc_now(),
        )
    if move is None:
        return {"ok": True, "moved": False}
    return {"ok": True, "moved": True, **history.plain(move)}


def rollback(session: Session, name: str, alias: str = "production", *, reason: str = "") -> dict[str, Any]:
    """Return an alias to the release it pointed at before."""
    check_name(name)
    check_alias(alias)
    with session.acting("aliases.rollback") as (connection, who):
        move = promotion.rollback(
            connection, session.workspace.artifacts, name, alias, actor=who, reason=reason, now=utc_now()
        )
    return {"ok": True, **history.plain(move)}


def moves(
    session: Session,
    name: str,
    *,
    alias: str | None = None,
    at: datetime | None = None,
    limit: int = 1000,
) -> dict[str, Any]:
    """
    Who moved which alias where, when and why; see `history_view.moves`.

    Args:
        at: what was so then; the answer then has `was`: for each alias what it was, and who had made it so.
    """
    if alias is not None:
        check_alias(alias)
    with session.viewing("aliases.history") as connection:
        found = history_view.moves(connection, name, alias=alias, until=at, limit=limit)
        if at is not None:
            found["was"] = [
                history_view.at(connection, name, at, alias=one) for one in sorted(found["aliases"])
            ]
    return found


def was(session: Session, name: str, at: datetime, alias: str = "production") -> dict[str, Any]:
    """What an alias was at some moment; see `history_view.at`."""
    with session.viewing("aliases.history") as connection:
        return history_view.at(connection, name, at, alias=alias)


def approve(session: Session, ref: str, alias: str = "production", *, comment: str = "") -> dict[str, Any]:
    """Approve a release for an alias; never one's own."""
    check_alias(alias)
    with session.acting("approvals.give") as (connection, who):
        version = releases.resolve(connection, parse_ref(ref))
        _, terms = gate.terms_for(connection, version.name, alias)
        given = approvals.give(
            connection, version, alias, terms=terms, comment=comment, actor=who, now=utc_now()
        )
    return {"ok": True, **_approval(given), "number": version.number}


def unapprove(session: Session, ref: str, alias: str = "production") -> dict[str, Any]:
    """Take back one's own approval."""
    check_alias(alias)
    with session.acting("approvals.withdraw") as (connection, who):
        version = releases.resolve(connection, parse_ref(ref))
        approvals.withdraw(connection, version, alias, actor=who, now=utc_now())
    said = {"name": version.name, "digest": version.digest, "alias": alias, "approver": who}
    return {"ok": True, **said, "number": version.number}


def list_approvals(session: Session, name: str) -> dict[str, Any]:
    """The approvals of a release's versions, newest first."""
    with session.viewing("approvals.list") as connection:
        found = [_approval(one) for one in approvals.listing(connection, check_name(name))]
    return {"approvals": found}


def _note(session: Session, ref: str, alias: str, refusal: PromotionRefused) -> None:
    """Record and tell that the gate refused; a registry in which nothing may be written stays as it is."""
    try:
        with session.acting("aliases.promote") as (connection, who):
            version, now = releases.resolve(connection, parse_ref(ref)), utc_now()
            body = {"release": version.digest, "number": version.number, "code": refusal.code}
            where = f"gate/{version.name}@{alias}"
            audit.append(connection, "gate.refuse", where, body, actor=who, now=now)
            told = {"name": version.name, "alias": alias, **body, "by": who}
            webhooks.enqueue(connection, "gate.refuse", told, now)
    except PlatformError as error:
        _log.warning("a refusal (%s) could not be recorded: %s", refusal.code, error)


def _approval(given: Approval) -> dict[str, Any]:
    return {
        "name": given.name,
        "digest": given.digest,
        "alias": given.alias,
        "approver": given.approver,
        "comment": given.comment,
        "at": to_text(given.at),
    }
