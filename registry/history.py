"""Who moved which alias where, when and why: read from the moves alone."""

from __future__ import annotations

import json
from datetime import datetime

from sqlalchemy import Connection, RowMapping, select

from registry import tables
from registry.clock import from_text, to_text
from registry.entities import AliasMove

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


def previous(connection: Connection) -> set[tuple[str, str]]:
    """For each guarded alias the (name, digest) that a rollback would restore."""
    by_alias: dict[tuple[str, str], list[AliasMove]] = {}
    for move in moves(connection):
        if move.alias not in OPEN_ALIASES:
            by_alias.setdefault((move.name, move.alias), []).append(move)
    stacks = ((name, stack(own)) for (name, _), own in by_alias.items())
    return {(name, digests[-2]) for name, digests in stacks if len(digests) > 1}


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
