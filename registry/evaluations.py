"""Evaluation runs and the evidence they filed."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from registry import audit, tables, webhooks
from registry.clock import to_text
from registry.errors import EvidenceTampered, NotFound, RecordTampered
from registry.evidence import Claim, claim
from registry.ids import canonical, digest, sortable_id

_EVIDENCE, _RUNS = tables.evidence, tables.eval_runs


def submit(
    connection: Connection,
    envelope: Mapping[str, Any],
    *,
    actor: str,
    now: datetime,
    summary: Mapping[str, Any] | None = None,
) -> str:
    """
    File signed evidence and the run that produced it; returns the envelope's digest. Idempotent.

    Whether its key is trusted and its window open is decided when an alias wants to move.

    Raises:
        EvidenceTampered: the envelope is malformed.
    """
    said = claim(envelope)
    identity = digest(envelope)
    if connection.execute(select(_EVIDENCE.c.digest).where(_EVIDENCE.c.digest == identity)).first():
        return identity
    connection.execute(
        insert(_EVIDENCE).values(
            digest=identity,
            release_name=said.release_name,
            envelope=canonical(envelope).decode(),
            received_at=to_text(now),
            received_from=actor,
            release_digest=said.release,
            valid_from=to_text(said.valid_from),
        )
    )
    connection.execute(
        insert(_RUNS).values(
            id=sortable_id("run", now),
            release_digest=said.release,
            suite_digest=said.suite,
            verdict=said.verdict,
            summary=canonical(dict(summary or {})).decode(),
            evidence=identity,
            at=to_text(now),
        )
    )
    audit.append(
        connection,
        "evidence.file",
        target(said.release, identity),
        _recorded(said, None),
        actor=actor,
        now=now,
    )
    webhooks.enqueue(connection, "evidence.file", _told(said, actor), now)
    return identity


def withdraw(connection: Connection, identity: str, *, reason: str, actor: str, now: datetime) -> None:
    """
    Take back evidence: it justifies nothing any more. It stays on file. Idempotent.

    Raises:
        NotFound: no such evidence.
    """
    row = connection.execute(select(_EVIDENCE).where(_EVIDENCE.c.digest == identity)).mappings().first()
    if row is None:
        raise NotFound(f"no evidence {identity} in the registry")
    if row["withdrawn_at"] is not None:
        return
    at = to_text(now)
    connection.execute(update(_EVIDENCE).where(_EVIDENCE.c.digest == identity).values(withdrawn_at=at))
    said = claim(_parsed(row["envelope"]))
    body = _recorded(said, at) | {"reason": reason}
    audit.append(connection, "evidence.withdraw", target(said.release, identity), body, actor=actor, now=now)
    webhooks.enqueue(connection, "evidence.withdraw", _told(said, actor) | {"reason": reason}, now)


def target(release_digest: str, identity: str) -> str:
    """What the audit chain calls a piece of evidence; that of one release sorts together."""
    return f"evidence/{release_digest}/{identity}"


def envelopes(
    connection: Connection, release_name: str, limit: int = 200, *, digest_of: str | None = None
) -> list[tuple[str, Any]]:
    """
    The evidence on file for a release name that is not withdrawn, newest first: (digest on file, envelope).

    The digest is the one recorded at filing; a changed envelope no longer has it.

    Args:
        digest_of: only evidence about this very release.
    """
    query = select(_EVIDENCE).where(_EVIDENCE.c.withdrawn_at.is_(None))
    if digest_of is None:
        query = query.where(_EVIDENCE.c.release_name == release_name)
    else:
        query = query.where(_EVIDENCE.c.release_digest == digest_of)
    query = query.order_by(_EVIDENCE.c.valid_from.desc(), _EVIDENCE.c.digest).limit(limit)
    return [(row["digest"], _parsed(row["envelope"])) for row in connection.execute(query).mappings()]


def of_suite(connection: Connection, release_digest: str, suite_name: str) -> list[str]:
    """Digests of the newest evidence about this very release from a suite of this name, at most 100."""
    found = []
    for identity, envelope in envelopes(connection, "", 100, digest_of=release_digest):
        try:
            if claim(envelope).suite_name == suite_name:
                found.append(identity)
        except EvidenceTampered:
            continue  # it justifies nothing, so there is nothing to supersede
    return found


def withdrawn(connection: Connection, release_digest: str) -> set[str]:
    """Digests of the evidence about this very release that was withdrawn."""
    query = select(_EVIDENCE.c.digest).where(
        _EVIDENCE.c.release_digest == release_digest, _EVIDENCE.c.withdrawn_at.is_not(None)
    )
    return set(connection.execute(query).scalars())


def require_complete(connection: Connection, release_digest: str) -> None:
    """
    Check that the evidence about a release is all that was ever filed, unchanged.

    Raises:
        RecordTampered: evidence was removed, added or brought back behind the registry.
        EvidenceTampered: an envelope, or the column it is sorted by, was changed; it might have said no.
    """
    query = select(_EVIDENCE).where(_EVIDENCE.c.release_digest == release_digest)
    held = {}
    for row in connection.execute(query).mappings():
        said = _readable(row)
        if said is None or said.envelope != row["digest"] or to_text(said.valid_from) != row["valid_from"]:
            raise EvidenceTampered(f"evidence {row['digest']} was changed since it was filed")
        held[target(release_digest, row["digest"])] = row["withdrawn_at"] is not None
    known = {}
    prefix = target(release_digest, "")
    for name, action in audit.actions(connection, prefix):
        known[name] = action == "evidence.withdraw"
    if held != known:
        message = (
            f"the evidence about {release_digest} is not what was filed; `registry audit verify` says more"
        )
        raise RecordTampered(message)


def protected(connection: Connection) -> Iterator[tuple[str, dict[str, Any] | None]]:
    """(target, body) of every row that the audit chain vouches for; None where only the target is known."""
    for row in connection.execute(select(_EVIDENCE)).mappings():
        said = _readable(row)
        if said is None:
            yield target(row["release_digest"], row["digest"]), None
        elif row["withdrawn_at"] is None:
            yield target(row["release_digest"], row["digest"]), _recorded(said, None)
        else:
            yield target(row["release_digest"], row["digest"]), None


def get_envelope(connection: Connection, identity: str) -> Any:  # noqa: ANN401
    """The envelope filed under this digest. Raises NotFound."""
    query = select(_EVIDENCE.c.envelope).where(_EVIDENCE.c.digest == identity)
    text = connection.execute(query).scalar()
    if text is None:
        raise NotFound(f"no evidence {identity} in the registry")
    return _parsed(text)


def runs(connection: Connection, release_digest: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """Evaluation runs, newest first: id, release and suite digests, verdict, summary, evidence, at."""
    query = select(_RUNS).order_by(_RUNS.c.id.desc()).limit(limit)
    if release_digest is not None:
        query = query.where(_RUNS.c.release_digest == release_digest)
    rows = connection.execute(query).mappings()
    return [{**row, "summary": json.loads(row["summary"])} for row in rows]


def _recorded(said: Claim, withdrawn_at: str | None) -> dict[str, Any]:
    return {
        "release": said.release,
        "suite": said.suite_name,
        "verdict": said.verdict,
        "withdrawn_at": withdrawn_at,
    }


def _told(said: Claim, actor: str) -> dict[str, Any]:
    """What webhooks are told of evidence; nobody has verified its signature yet."""
    return {
        "evidence": said.envelope,
        "release_name": said.release_name,
        "release": said.release,
        "suite": said.suite_name,
        "dataset": said.dataset_name,
        "verdict": said.verdict,
        "samples": said.samples,
        "by": actor,
    }


def _readable(row: RowMapping) -> Claim | None:
    try:
        return claim(_parsed(row["envelope"]))
    except EvidenceTampered:
        return None


def _parsed(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError:
        return {}
