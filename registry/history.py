"""Who moved which alias where, when and why: read from the moves alone."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, insert, select

from registry import audit, tables
from registry.clock import from_text, to_text
from registry.entities import AliasMove, AliasState
from registry.errors import RecordTampered

_ALIASES, _MOVES = tables.aliases, tables.alias_moves
_SHOWN = (
    _MOVES.c.id, _MOVES.c.name, _MOVES.c.alias, _MOVES.c.from_digest, _MOVES.c.to_digest, _MOVES.c.action,
    _MOVES.c.actor, _MOVES.c.reason, _MOVES.c.evidence, _MOVES.c.at,
)  # fmt: skip
OPEN_ALIASES = frozenset({"candidate"})
"""Aliases that move without evidence; all others are guarded."""


def moves(
    connection: Connection,
    name: str | None = None,
    *,
    alias: str | None = None,
    until: datetime | None = None,
    about: str | None = None,
) -> list[AliasMove]:
    """
    The moves, by release and alias, each alias's oldest first.

    Args:
        until: only those at this time or before.
        about: only those to or from this digest.
    """
    query = select(*_SHOWN).order_by(_MOVES.c.name, _MOVES.c.alias, _MOVES.c.generation)
    if name is not None:
        query = query.where(_MOVES.c.name == name)
    if alias is not None:
        query = query.where(_MOVES.c.alias == alias)
    if until is not None:
        query = query.where(_MOVES.c.at <= to_text(until))
    if about is not None:
        query = query.where((_MOVES.c.to_digest == about) | (_MOVES.c.from_digest == about))
    return [_move(row) for row in connection.execute(query)]


def stack(of_one_alias: list[AliasMove]) -> list[str]:
    """
    The digests an alias can return to, current last: a promotion pushes, a rollback pops.

    Args:
        of_one_alias: its moves, oldest first.
    """
    digests: list[str] = []
    for move in of_one_alias:
        _push(digests, move.action, move.to_digest)
    return digests


def _push(digests: list[str], action: str, digest: str) -> None:
    if action == "rollback":
        digests.pop()
    elif not digests or digests[-1] != digest:
        digests.append(digest)


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


def given_up_at(of_one_alias: list[AliasMove], digest: str) -> datetime | None:
    """When the alias was last rolled back from *digest*, which what was measured before did not foresee."""
    times = [move.at for move in of_one_alias if move.action == "rollback" and move.from_digest == digest]
    return max(times, default=None)


def previous(connection: Connection) -> set[tuple[str, str]]:
    """For each guarded alias the (name, digest) that a rollback would restore."""
    query = select(_MOVES.c.name, _MOVES.c.alias, _MOVES.c.action, _MOVES.c.to_digest)
    query = query.order_by(_MOVES.c.name, _MOVES.c.alias, _MOVES.c.generation)
    stacks: dict[tuple[str, str], list[str]] = {}
    for name, alias, action, digest in connection.execute(query):
        if alias not in OPEN_ALIASES:
            _push(stacks.setdefault((name, alias), []), action, digest)
    return {(name, digests[-2]) for (name, _), digests in stacks.items() if len(digests) > 1}


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


def _move(row: Sequence[Any]) -> AliasMove:
    """The move in a row that begins with `_SHOWN`: by place, because some aliases have thousands."""
    identity, name, alias, came_from, to, action, actor, reason, evidence, at = row[: len(_SHOWN)]
    proof = tuple(json.loads(evidence)) if evidence != "[]" else ()
    return AliasMove(identity, name, alias, came_from, to, action, actor, reason, proof, from_text(at))


def recorded(move: AliasMove, generation: int) -> dict[str, Any]:
    """What the audit chain says of a move."""
    proof = list(move.evidence)
    return _said(generation, move.action, move.actor, move.from_digest, move.to_digest, move.reason, proof)


def _recorded(
    generation: int, action: str, actor: str, came_from: str | None, to: str, reason: str, evidence: str
) -> dict[str, Any]:
    """As `recorded`, from the columns of a row."""
    proof = json.loads(evidence) if evidence != "[]" else []
    return _said(generation, action, actor, came_from, to, reason, proof)


def _said(
    generation: int, action: str, actor: str, came_from: str | None, to: str, reason: str, proof: list[str]
) -> dict[str, Any]:
    return {
        "generation": generation,
        "action": action,
        "by": actor,
        "from": came_from,
        "to": to,
        "reason": reason,
        "evidence": proof,
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
    query = select(*_SHOWN).where(
        _MOVES.c.name == state.name, _MOVES.c.alias == state.alias, _MOVES.c.generation == state.generation
    )
    row = connection.execute(query).first()
    if row is None or row.to_digest != state.digest:
        raise RecordTampered(f"{state.name}@{state.alias} does not point where its history says")
    move = _move(row)
    audit.require(connection, target(state.name, state.alias), recorded(move, state.generation))
    return move


def require_all_recorded(connection: Connection, states: Sequence[AliasState]) -> list[AliasMove]:
    """The last move of each of many aliases, as `require_recorded` gives them one by one."""
    joined = _MOVES.join(
        _ALIASES,
        (_MOVES.c.name == _ALIASES.c.name)
        & (_MOVES.c.alias == _ALIASES.c.alias)
        & (_MOVES.c.generation == _ALIASES.c.generation),
    )
    last = {
        (row.name, row.alias): row for row in connection.execute(select(*_SHOWN).select_from(joined)).all()
    }
    found = []
    for state in states:
        row = last.get((state.name, state.alias))
        if row is None or row.to_digest != state.digest:
            raise RecordTampered(f"{state.name}@{state.alias} does not point where its history says")
        move = _move(row)
        audit.require(connection, target(state.name, state.alias), recorded(move, state.generation))
        found.append(move)
    return found


def require_authentic(connection: Connection, name: str, alias: str) -> None:
    """
    Check every move of an alias against the audit chain: what a rollback returns to follows from them.

    Raises:
        RecordTampered: a move was added, changed or removed behind the registry.
    """
    where = _MOVES.c.name == name, _MOVES.c.alias == alias
    query = select(
        _MOVES.c.audit_seq, _MOVES.c.generation, _MOVES.c.action, _MOVES.c.actor, _MOVES.c.from_digest,
        _MOVES.c.to_digest, _MOVES.c.reason, _MOVES.c.evidence,
    ).where(*where)  # fmt: skip
    known = audit.bodies(connection, target(name, alias))
    stored = {seq: audit.digest_of(_recorded(*row)) for seq, *row in connection.execute(query)}
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
    query = select(*_SHOWN, _MOVES.c.audit_seq, _MOVES.c.generation).order_by(_MOVES.c.id)
    for row in connection.execute(query):
        yield row.audit_seq, target(row.name, row.alias), recorded(_move(row), row.generation)
