"""
The only writer of aliases.

An alias that live traffic uses moves in the same transaction that verifies its evidence; the move,
its reason and the evidence are recorded beside it, so history and alias cannot disagree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from registry import evaluations, evidence, history, policies, releases, suites, tables, versions
from registry.artifacts import Artifacts
from registry.clock import to_text
from registry.db import bump_revision
from registry.entities import AliasMove, AliasState, GatePolicy, ServedRelease, Version, check_target
from registry.errors import (
    AliasMoved,
    BadInput,
    EvidenceExpired,
    EvidenceMismatch,
    EvidenceMissing,
    EvidenceTampered,
    EvidenceUntrusted,
    GateNotPassed,
    NothingToRollBack,
    PromotionRefused,
    VersionTampered,
)
from registry.evidence import Claim
from registry.history import OPEN_ALIASES
from registry.ids import digest, short, sortable_id
from registry.refs import Ref

Envelopes = Sequence[tuple[str, Mapping[str, Any]]]
_ALIASES, _MOVES = tables.aliases, tables.alias_moves


class _OtherRelease(EvidenceMismatch):
    """Evidence that is not about this release at all: the least telling refusal."""


_TELLING = (EvidenceExpired, EvidenceUntrusted, EvidenceTampered, EvidenceMismatch, _OtherRelease)
"""When no evidence holds, the refusal nearest to success is the one reported."""


def nominate(connection: Connection, version: Version, *, actor: str, now: datetime) -> AliasState:
    """Point `candidate` at a release. Needs no evidence; idempotent."""
    current = releases.alias_state(connection, version.name, "candidate")
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
        envelopes: (digest on file, envelope) to judge; by default what the registry holds.

    Returns:
        The recorded move, or None when the alias was there already.

    Raises:
        PromotionRefused: one subclass for each reason; nothing has changed.
        VersionTampered: a part of the release no longer has its digest.
        NotFound: no such release.
    """
    check_target(ref.name, alias)
    if alias in OPEN_ALIASES:
        message = f"{alias!r} moves when a release is created; promote to another alias"
        raise BadInput(message)
    version = releases.resolve(connection, ref)
    verify_parts(releases.assemble(connection, version), artifacts)
    current = releases.alias_state(connection, ref.name, alias)
    filed = evaluations.envelopes(connection, ref.name) if envelopes is None else envelopes
    claims = require_evidence(connection, version, filed, now=now)
    if current and current.digest == version.digest:
        return None
    proof = tuple(sorted(claim.envelope for claim in claims))
    return _swap(connection, version, alias, current, "promote", proof, actor=actor, reason=reason, now=now)


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
    current = releases.alias_state(connection, name, alias)
    digests = history.stack(history.moves(connection, name, alias=alias))
    if current is None or alias in OPEN_ALIASES or len(digests) < 2:
        raise NothingToRollBack(f"{name}@{alias} has no earlier release; `registry history {name}`")
    version = versions.get(connection, "release", Ref(name, digest=digests[-2]))
    verify_parts(releases.assemble(connection, version), artifacts)
    return _swap(connection, version, alias, current, "rollback", (), actor=actor, reason=reason, now=now)


def require_evidence(
    connection: Connection, version: Version, envelopes: Envelopes, *, now: datetime
) -> list[Claim]:
    """
    The claims that let *version* through its gate policy: one for each required suite.

    For each suite the newest evidence that holds decides, so a later failure is not outvoted by an
    earlier pass.

    Raises:
        PromotionRefused: the subclass nearest to success.
    """
    if not envelopes:
        message = f"no evidence names release {version.name}; run `evals run` against it first"
        raise EvidenceMissing(message)
    policy_version, policy = policies.gate_for(connection, version.name)
    held: dict[str, Claim] = {}
    refused: list[PromotionRefused] = []
    for on_file, envelope in envelopes:
        try:
            claim = _judge(connection, version, on_file, envelope, policy, now)
            bound = policy_version.digest if policy_version else None
            if claim.gate_policy != bound:
                raise EvidenceMismatch("the gate policy changed since this evidence was made")
        except PromotionRefused as error:
            refused.append(error)
        else:
            held.setdefault(claim.suite_name, claim)
    wanted = policy.suites or tuple(sorted(held))
    for claim in held.values():
        if claim.verdict != "pass" and claim.suite_name in wanted:
            raise _not_passed(claim)
    missing = [name for name in wanted if name not in held]
    if held and not missing:
        return [held[name] for name in wanted]
    if held:
        raise EvidenceMissing(f"the gate policy requires evidence from suite {', '.join(missing)} too")
    raise min(refused, key=lambda error: _TELLING.index(type(error)))


def verify_parts(release: ServedRelease, artifacts: Artifacts) -> None:
    """
    Check the bytes behind a release that lie outside the database.

    Raises:
        VersionTampered: a blob no longer has its digest.
        NotFound: a blob is gone.
    """
    if release.model is not None:
        artifacts.get(release.model.artifact)
    if release.index is not None:
        artifacts.get(release.index.passages_digest)


def problems(connection: Connection, artifacts: Artifacts) -> list[str]:
    """
    Everything that is not as it was written: empty when the registry is consistent.

    Checks every version's digest, every alias against the last recorded move, and every part and
    blob behind an alias.
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
            verify_parts(releases.assemble(connection, version), artifacts)
        except Exception as error:  # noqa: BLE001 - every kind of damage is a finding
            found.append(f"{where}: {error}")
    found += [f"{name}@{alias} has a history but no alias" for name, alias in last]
    table = tables.versions
    for kind, name, number, stored in connection.execute(
        select(table.c.kind, table.c.name, table.c.number, table.c.digest)
    ):
        try:
            versions.get(connection, kind, Ref(name, number=number))
        except VersionTampered:
            found.append(f"{kind} {name}:{number} no longer has digest {stored}")
    return found


def _judge(
    connection: Connection,
    version: Version,
    on_file: str,
    envelope: Mapping[str, Any],
    policy: GatePolicy,
    now: datetime,
) -> Claim:
    claim = evidence.verify(connection, envelope)
    if digest(envelope) != on_file:
        raise EvidenceTampered
    if claim.release != version.digest:
        message = (
            f"evidence {short(on_file)} is for release digest {short(claim.release)}, "
            f"not for {short(version.digest)}; run `evals run` against this release"
        )
        raise _OtherRelease(message)
    oldest = now - timedelta(hours=policy.max_age_hours)
    if not claim.valid_from <= now < claim.valid_until or claim.valid_from < oldest:
        message = (
            f"evidence {short(on_file)} was valid from {to_text(claim.valid_from)} to "
            f"{to_text(claim.valid_until)} and may be {policy.max_age_hours:g} hours old"
        )
        raise EvidenceExpired(message)
    suite = suites.get(connection, Ref(claim.suite_name))
    if suite.digest != claim.suite or suite.content.get("dataset") != claim.dataset:
        raise EvidenceMismatch(f"suite {claim.suite_name} or its dataset changed since the evidence")
    production = releases.alias_state(connection, version.name, "production")
    if production and production.digest not in (version.digest, claim.baseline):
        message = (
            f"evidence {short(on_file)} was not measured against the present production "
            f"{short(production.digest)}; run `evals run` again"
        )
        raise EvidenceMismatch(message)
    return claim


def _not_passed(claim: Claim) -> GateNotPassed:
    return GateNotPassed(f"suite {claim.suite_name} says {claim.verdict} for this release")


def _swap(
    connection: Connection,
    version: Version,
    alias: str,
    current: AliasState | None,
    action: str,
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
    move = {
        "id": sortable_id("mov", now),
        "name": version.name,
        "alias": alias,
        "generation": generation,
        "from_digest": current.digest if current else None,
        "to_digest": version.digest,
        "action": action,
        "actor": actor,
        "reason": reason,
        "evidence": json.dumps(proof),
        "at": to_text(now),
    }
    try:
        if current:
            held = key & (_ALIASES.c.generation == current.generation)
            if not connection.execute(update(_ALIASES).where(held).values(values)).rowcount:
                raise AliasMoved
        else:
            connection.execute(insert(_ALIASES).values(name=version.name, alias=alias, **values))
        connection.execute(insert(_MOVES).values(move))
    except IntegrityError as error:
        raise AliasMoved from error
    bump_revision(connection)
    return history.moves(connection, version.name, alias=alias)[-1]
