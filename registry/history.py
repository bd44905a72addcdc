"""Who moved which alias where, when and why: read from the moves alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select

from registry import audit, tables
from registry.clock import from_text, to_text
from registry.entities import AliasMove, AliasState
from registry.errors import RecordTampered

_MOVES = tables.alias_moves
OPEN_ALIASES = frozenset({"candidate"})
"""Aliases that move without evidence; all others are guarded."""


def moves(
    connection: Connection,
    name: str | None = None,
    *,
    alias: str | None = None,
    until: datetime | None = None,
) -> list[AliasMove]:
    """The moves, by release and alias, each alias's oldest first; *until* keeps those at or before it."""
    query = select(_MOVES).order_by(_MOVES.c.name, _MOVES.c.alias, _MOVES.c.generation)
    if name is not None:
        query = query.where(_MOVES.c.name == name)
    if alias is not None:
        query = query.where(_MOVES.c.alias == alias)
    if until is not None:
        query = query.where(_MOVES.c.at <= to_text(until))
    return [_move(row) for row in connection.execute(query).mappings()]


def stack(of_one_alias: list[AliasMove]) -> list[str]:
    """
    The digests an alias can return to, current last: a promotion pushes, a rollback pops.

    Args:
        of_one_alias: its moves, oldest first.
    """
    digests: list[str] = []
    for move in of_one_alias:
        if move.action == "rollback":
            digests.pop()
        elif not digests or digests[-1] != move.to_digest:
            digests.append(move.to_digest)
    return digests


def spent(of_one_alias: list[AliasMove], digest: str) -> set[str]:
    """
    Evidence that moved the alias to *digest* once and was given up when that move was rolled back.

    Args:
        of_one_alias: its moves, oldest first.
    """
    used: set[str] = set()
    given_up: set[str] = set()
    for move in of_one_alias:
        if move.to_digest == digest:
            used.update(move.evidence)
        if move.action == "rollback" and move.from_digest == digest:
            given_up |= used
    return given_up


def previous(connection: Connection) -> set[tuple[str, str]]:
    """For each guarded alias the (name, digest) that a rollback would restore."""
    by_alias: dict[tuple[str, str], list[AliasMove]] = {}
    for move in moves(connection):
        if move.alias not in OPEN_ALIASES:
            by_alias.setdefault((move.name, move.alias), []).append(move)
    stacks = ((name, stack(own)) for (name, _), own in by_alias.items())
    return {(name, digests[-2]) for name, digests in stacks if len(digests) > 1}


def plain(move: AliasMove) -> dict[str, Any]:
    """A move as plain JSON."""
    return {
        "id": move.id,
        "name": move.name,
        "alias": move.alias,
        "from": move.from_digest,
        "to": move.to_digest,
        "action": move.action,
        "actor": move.actor,
        "reason": move.reason,
        "evidence": list(move.evidence),
        "at": to_text(move.at),
    }


def _move(row: RowMapping) -> AliasMove:
    return AliasMove(
        id=row["id"],
        name=row["name"],
        alias=row["alias"],
        from_digest=row["from_digest"],
        to_digest=row["to_digest"],
        action=row["action"],
        actor=row["actor"],
        reason=row["reason"],
        evidence=tuple(json.loads(row["evidence"])),
        at=from_text(row["at"]),
    )


def recorded(move: AliasMove, generation: int) -> dict[str, Any]:
    """What the audit chain says of a move."""
    return {
        "generation": generation,
        "action": move.action,
        "by": move.actor,
        "from": move.from_digest,
        "to": move.to_digest,
        "reason": move.reason,
        "evidence": list(move.evidence),
    }


def target(name: str, alias: str) -> str:
    """What the audit chain calls an alias."""
    return f"release/{name}@{alias}"


def require_recorded(connection: Connection, state: AliasState) -> AliasMove:
    """
    The last move of an alias, once that is where it points and what was recorded.

    Raises:
        RecordTampered: the alias or its history was changed behind the registry.
    """
    query = select(_MOVES).where(
        _MOVES.c.name == state.name, _MOVES.c.alias == state.alias, _MOVES.c.generation == state.generation
    )
    row = connection.execute(query).mappings().first()
    if row is None or row["to_digest"] != state.digest:
        raise RecordTampered(f"{state.name}@{state.alias} does not point where its history says")
    move = _move(row)
    audit.require(connection, target(state.name, state.alias), recorded(move, state.generation))
    return move


def require_authentic(connection: Connection, name: str, alias: str) -> None:
    """
    Check every move of an alias against the audit chain: what a rollback returns to follows from them.

    Raises:
        RecordTampered: a move was added, changed or removed behind the registry.
    """
    where = _MOVES.c.name == name, _MOVES.c.alias == alias
    rows = connection.execute(select(_MOVES).where(*where).order_by(_MOVES.c.generation)).mappings().all()
    known = audit.bodies(connection, target(name, alias))
    stored = {row["audit_seq"]: audit.digest_of(recorded(_move(row), row["generation"])) for row in rows}
    if stored != known:
        raise RecordTampered(
            f"the history of {name}@{alias} is not what was recorded; `registry audit verify`"
        )


def insert_move(connection: Connection, move: AliasMove, generation: int, audit_seq: int) -> None:
    """Write down a move that the audit chain has as *audit_seq*. Raises IntegrityError for a second one."""
    connection.execute(
        insert(_MOVES).values(
            id=move.id,
            name=move.name,
            alias=move.alias,
            generation=generation,
            from_digest=move.from_digest,
            to_digest=move.to_digest,
            action=move.action,
            actor=move.actor,
            reason=move.reason,
            evidence=json.dumps(move.evidence),
            at=to_text(move.at),
            audit_seq=audit_seq,
        )
    )


def require_unmoved(connection: Connection, name: str, alias: str) -> None:
    """Check that an alias was never set. Raises RecordTampered when it was removed behind the registry."""
    audit.require(connection, target(name, alias), None)


def protected(connection: Connection) -> Iterator[tuple[int, str, dict[str, Any]]]:
    """(audit record, target, body) of every move, as the audit chain vouches for it."""
    for row in connection.execute(select(_MOVES).order_by(_MOVES.c.id)).mappings():
        yield row["audit_seq"], target(row["name"], row["alias"]), recorded(_move(row), row["generation"])
