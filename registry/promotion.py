"""
The only writer of aliases.

An alias that live traffic uses moves in the same transaction that verifies its evidence; the move,
its reason and the evidence are recorded beside it, so history and alias cannot disagree.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, insert, update
from sqlalchemy.exc import IntegrityError

from registry import approvals, audit, gate, history, releases, splits, tables, versions, webhooks
from registry.artifacts import Artifacts
from registry.db import bump_revision
from registry.entities import AliasMove, AliasState, MoveAction, Version, check_target
from registry.errors import AliasMoved, BadInput, NothingToRollBack
from registry.gate import Envelopes
from registry.history import OPEN_ALIASES
from registry.ids import sortable_id
from registry.refs import Ref

_ALIASES = tables.aliases
_SHORTEST_REASON = 10


def nominate(connection: Connection, version: Version, *, actor: str, now: datetime) -> AliasState:
    """Point `candidate` at a release. Needs no evidence; idempotent."""
    current = _current(connection, version.name, "candidate")
    if current and current.digest == version.digest:
        return current
    _swap(connection, version, "candidate", current, "create", (), actor=actor, reason="created", now=now)
    state = releases.alias_state(connection, version.name, "candidate")
    assert state is not None  # noqa: S101 - just written
    return state


def promote(
    connection: Connection,
    artifacts: Artifacts,
    ref: Ref,
    alias: str,
    *,
    actor: str,
    reason: str,
    now: datetime,
    envelopes: Envelopes | None = None,
) -> AliasMove | None:
    """
    Point *alias* at the release *ref* names, if evidence says it may. Call in a write transaction.

    Args:
        envelopes: (digest on file, envelope) to judge; by default what the registry holds. A newer verdict on
            file outvotes them.

    Returns:
        The recorded move, or None when the alias was there already.

    Raises:
        PromotionRefused: one subclass for each reason; nothing has changed.
        VersionTampered: a part of the release no longer has its digest.
        NotFound: no such release.
    """
    version, current = _checked(connection, artifacts, ref, alias)
    production = current if alias == "production" else _current(connection, ref.name, "production")
    claims = gate.require_evidence(
        connection, version, alias, given=envelopes, production=production, now=now
    )
    _, terms = gate.terms_for(connection, ref.name, alias)
    approvals.require(connection, version, alias, terms)
    if current and current.digest == version.digest:
        return None
    proof = tuple(sorted(claim.envelope for claim in claims))
    return _swap(connection, version, alias, current, "promote", proof, actor=actor, reason=reason, now=now)


def break_glass(
    connection: Connection,
    artifacts: Artifacts,
    ref: Ref,
    alias: str,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> AliasMove | None:
    """
    Point *alias* at a release without evidence or approvals, for emergencies. Loud: it has an action of its
    own in history, audit chain and webhooks. The bytes behind the release are verified all the same.

    Raises:
        BadInput: the reason says too little.
        VersionTampered, NotFound: as `promote`.
    """
    if len(reason.strip()) < _SHORTEST_REASON:
        message = f"reason: breaking the glass takes a reason of at least {_SHORTEST_REASON} characters"
        raise BadInput(message)
    version, current = _checked(connection, artifacts, ref, alias)
    if current and current.digest == version.digest:
        return None
    return _swap(connection, version, alias, current, "break-glass", (), actor=actor, reason=reason, now=now)


def rollback(
    connection: Connection,
    artifacts: Artifacts,
    name: str,
    alias: str,
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> AliasMove:
    """
    Return *alias* to the release it pointed at before its last promotion, in one step.

    That release proved itself when it was promoted; its bytes are verified again.

    Raises:
        NothingToRollBack: there was no earlier release.
        VersionTampered: the earlier release no longer has its digest.
    """
    check_target(name, alias)
    current = _current(connection, name, alias)
    moves = history.moves(connection, name, alias=alias)
    digests = history.stack(moves)
    if current is None or alias in OPEN_ALIASES or len(digests) < 2:
        raise NothingToRollBack(f"{name}@{alias} has no earlier release; `registry history {name}`")
    history.require_authentic(connection, name, alias)
    version = versions.get(connection, "release", Ref(name, digest=digests[-2]))
    versions.require_recorded(connection, version)
    releases.verify_parts(releases.assemble(connection, version), artifacts)
    return _swap(connection, version, alias, current, "rollback", (), actor=actor, reason=reason, now=now)


def problems(connection: Connection, artifacts: Artifacts) -> list[str]:
    """
    Everything that is not as it was written: empty when the registry is consistent.

    Checks every version's digest, every alias against the last recorded move, and every part and
    blob behind an alias. Whether rows were changed along with their digests is what the audit chain knows.
    """
    found: list[str] = []
    states = releases.alias_states(connection)
    last: dict[tuple[str, str], str] = {
        (move.name, move.alias): move.to_digest for move in history.moves(connection)
    }
    for state in states:
        where = f"{state.name}@{state.alias}"
        if last.pop((state.name, state.alias), None) != state.digest:
            found.append(f"{where} does not point where its history says")
        try:
            version = versions.get(connection, "release", Ref(state.name, digest=state.digest))
            releases.verify_parts(releases.assemble(connection, version), artifacts)
        except Exception as error:  # noqa: BLE001 - every kind of damage is a finding
            found.append(f"{where}: {error}")
    found += [f"{name}@{alias} has a history but no alias" for name, alias in last]
    found += versions.damaged(connection)
    return found


def _checked(
    connection: Connection, artifacts: Artifacts, ref: Ref, alias: str
) -> tuple[Version, AliasState | None]:
    """The release *ref* names and where *alias* points now, once both are what was recorded."""
    check_target(ref.name, alias)
    if alias in OPEN_ALIASES:
        message = f"{alias!r} moves when a release is created; promote to another alias"
        raise BadInput(message)
    if ref.alias is not None and ref.alias != "latest":
        _current(connection, ref.name, ref.alias)
    version = releases.resolve(connection, ref)
    versions.require_recorded(connection, version)
    releases.verify_parts(releases.assemble(connection, version), artifacts)
    return version, _current(connection, ref.name, alias)


def _current(connection: Connection, name: str, alias: str) -> AliasState | None:
    """Where an alias points, once the audit chain agrees. Raises RecordTampered."""
    state = releases.alias_state(connection, name, alias)
    if state is None:
        history.require_unmoved(connection, name, alias)
    else:
        history.require_recorded(connection, state)
    return state


def _swap(
    connection: Connection,
    version: Version,
    alias: str,
    current: AliasState | None,
    action: MoveAction,
    proof: tuple[str, ...],
    *,
    actor: str,
    reason: str,
    now: datetime,
) -> AliasMove:
    """Compare-and-swap the alias, record the move and bump the revision, or raise AliasMoved."""
    generation = current.generation + 1 if current else 1
    values = {"digest": version.digest, "generation": generation}
    key = (_ALIASES.c.name == version.name) & (_ALIASES.c.alias == alias)
    came_from = current.digest if current else None
    move = AliasMove(
        sortable_id("mov", now),
        version.name,
        alias,
        came_from,
        version.digest,
        action,
        actor,
        reason,
        proof,
        now,
    )
    try:
        if current:
            held = key & (_ALIASES.c.generation == current.generation)
            if not connection.execute(update(_ALIASES).where(held).values(values)).rowcount:
                raise AliasMoved
        else:
            connection.execute(insert(_ALIASES).values(name=version.name, alias=alias, **values))
        body = history.recorded(move, generation)
        where = history.target(version.name, alias)
        seq = audit.append(connection, f"alias.{action}", where, body, actor=actor, now=now)
        history.insert_move(connection, move, generation, seq)
    except IntegrityError as error:
        raise AliasMoved from error
    told = {"name": move.name, "alias": alias, "number": version.number, **body}
    webhooks.enqueue(connection, f"alias.{action}", told, now)
    splits.end(connection, version.name, alias, actor=actor, reason=f"the alias moved: {action}", now=now)
    bump_revision(connection)
    return move
