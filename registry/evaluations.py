"""Evaluation runs and the evidence they filed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from registry import tables
from registry.clock import to_text
from registry.errors import NotFound
from registry.evidence import claim
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
    return identity


def envelopes(connection: Connection, release_name: str, limit: int = 200) -> list[tuple[str, Any]]:
    """
    The evidence on file for a release name, newest first: (digest on file, envelope).

    The digest is the one recorded at filing; a changed envelope no longer has it.
    """
    query = (
        select(_EVIDENCE)
        .where(_EVIDENCE.c.release_name == release_name)
        .order_by(_EVIDENCE.c.received_at.desc(), _EVIDENCE.c.digest)
        .limit(limit)
    )
    return [(row["digest"], _parsed(row["envelope"])) for row in connection.execute(query).mappings()]


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


def _parsed(text: str) -> Any:  # noqa: ANN401
    try:
        return json.loads(text)
    except ValueError:
        return {}
