"""What an alias was at some moment, and who made it so: the answer an auditor asks for."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, select

from registry import evaluations, history, lineage, tables, versions
from registry.clock import to_text
from registry.entities import Version
from registry.errors import EvidenceTampered, NotFound
from registry.evidence import claim
from registry.lineage import Part
from registry.refs import Ref, check_alias, check_name

_MOVES, _AUDIT = tables.alias_moves, tables.audit


def at(connection: Connection, name: str, when: datetime, *, alias: str = "production") -> dict[str, Any]:
    """
    What *alias* of the release *name* was at *when*, once its moves are what the audit chain recorded.

    Args:
        when: a move made at this very instant counts.

    Returns:
        `name`, `alias`, `at`; `release`: name, number, digest, created_at, created_by; `parts`: each with
        role, kind, name, number, digest; `since`; `until`, None while it is still so; `move`: action, at, by,
        reason, `from`, `approvers`, and `evidence`: each with digest, verdict, suite, dataset, samples.
        Before the first move `release`, `since` and `move` are None, and `until` is that move's time.

    Raises:
        NotFound: that alias was never set.
        RecordTampered: its moves are not what was recorded.
    """
    check_name(name)
    check_alias(alias)
    of_alias = _MOVES.c.name == name, _MOVES.c.alias == alias
    query = select(_MOVES.c.generation, _MOVES.c.at).where(*of_alias).order_by(_MOVES.c.generation)
    times = connection.execute(query).all()
    history.require_authentic(connection, name, alias)
    if not times:
        message = f"{name}@{alias} was never set; `registry history {name}` shows what there is"
        raise NotFound(message)
    text = to_text(when)
    # In the order they were made: a clock that was set back must not change which move came last.
    made = [place for place, (_, at) in enumerate(times) if at <= text]
    asked = {"name": name, "alias": alias, "at": text}
    if not made:
        return {**asked, "release": None, "parts": [], "since": None, "until": times[0].at, "move": None}
    move = _one(connection, name, alias, times[made[-1]].generation)
    after = times[made[-1] + 1].at if made[-1] + 1 < len(times) else None
    version = versions.get(connection, "release", Ref(name, digest=move["to_digest"]))
    return {
        **asked,
        "release": _named(version)
        | {"created_at": to_text(version.created_at), "created_by": version.created_by},
        "parts": [_part(connection, part) for part in lineage.parts(version)],
        "since": move["at"],
        "until": after,
        "move": {
            "action": move["action"],
            "at": move["at"],
            "by": move["actor"],
            "reason": move["reason"],
            "from": _release(connection, name, move["from_digest"]),
            "evidence": [_evidence(connection, digest) for digest in json.loads(move["evidence"])],
            "approvers": _approvers(connection, move),
        },
    }


def moves(
    connection: Connection,
    name: str,
    *,
    alias: str | None = None,
    until: datetime | None = None,
    limit: int = 100,
) -> dict[str, Any]:
    """
    The moves of a release's aliases, oldest first: of those at or before *until* the newest *limit*.

    Returns:
        `name`; `aliases`: where each pointed after all of them; `moves`: each with id, name, alias, from, to,
        action, actor, reason, evidence and at; `left_off`: how many older ones there are.

    Raises:
        NotFound: the release, or its alias, has no history.
    """
    check_name(name)
    found = history.moves(connection, name, alias=alias, until=until)
    if not found and not history.moves(connection, name, alias=alias):
        what = f"release {name!r}" if alias is None else f"{name}@{alias}"
        message = f"{what} has no history; `registry releases list` shows what there is"
        raise NotFound(message)
    aliases = {move.alias: move.to_digest for move in found}
    found.sort(key=lambda move: move.at)
    shown = found[-limit:] if limit else []
    return {
        "name": name,
        "aliases": aliases,
        "moves": [history.plain(move) for move in shown],
        "left_off": len(found) - len(shown),
    }


def _one(connection: Connection, name: str, alias: str, generation: int) -> RowMapping:
    of_move = _MOVES.c.name == name, _MOVES.c.alias == alias, _MOVES.c.generation == generation
    return connection.execute(select(_MOVES).where(*of_move)).mappings().one()


def _named(version: Version) -> dict[str, Any]:
    return {"name": version.name, "number": version.number, "digest": version.digest}


def _release(connection: Connection, name: str, digest: str | None) -> dict[str, Any] | None:
    if digest is None:
        return None
    try:
        return _named(versions.get(connection, "release", Ref(name, digest=digest)))
    except NotFound:
        return {"name": name, "number": None, "digest": digest}


def _part(connection: Connection, part: Part) -> dict[str, Any]:
    """A pinned part; what the registry has no version of has its name alone."""
    said = {"role": part.role, "kind": part.kind}
    kind = lineage.kind_of(part)
    if kind is None:
        return {**said, "name": part.key, "number": None, "digest": None}
    try:
        return said | _named(versions.by_digest(connection, kind, part.key))
    except NotFound:
        return {**said, "name": None, "number": None, "digest": part.key}


def _evidence(connection: Connection, digest: str) -> dict[str, Any]:
    try:
        said = claim(evaluations.get_envelope(connection, digest))
    except (NotFound, EvidenceTampered):
        return {"digest": digest, "verdict": None, "suite": None, "dataset": None, "samples": None}
    return {
        "digest": digest,
        "verdict": said.verdict,
        "suite": said.suite_name,
        "dataset": said.dataset_name,
        "samples": said.samples,
    }


def _approvers(connection: Connection, move: RowMapping) -> list[str]:
    """Who had approved when the alias moved, as the audit chain knows it."""
    prefix = f"approval/{move['to_digest']}@{move['alias']}/"
    query = select(_AUDIT.c.target, _AUDIT.c.action).where(
        _AUDIT.c.target >= prefix,
        _AUDIT.c.target < prefix + "\U0010ffff",
        _AUDIT.c.seq < move["audit_seq"],
    )
    last: dict[str, str] = {row[0]: row[1] for row in connection.execute(query.order_by(_AUDIT.c.seq))}
    return sorted(target.removeprefix(prefix) for target, action in last.items() if action == "approval.give")
