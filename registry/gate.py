"""The gate: which evidence lets a release through its policy, judged in the transaction that moves it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from registry import datasets, evaluations, evidence, history, judges, policies, suites, versions
from registry.clock import to_text
from registry.entities import AliasState, GatePolicy, Version
from registry.errors import (
    EvidenceExpired,
    EvidenceMismatch,
    EvidenceMissing,
    EvidenceReplayed,
    EvidenceSuperseded,
    EvidenceTampered,
    EvidenceUntrusted,
    GateNotPassed,
    NotFound,
    PromotionRefused,
    RecordTampered,
)
from registry.evidence import Claim
from registry.ids import digest, short
from registry.refs import Ref

Envelopes = Sequence[tuple[str, Mapping[str, Any]]]


MOST_ENVELOPES = 10_000
"""About one release; a promotion reads them all."""


class _OtherRelease(EvidenceMismatch):
    """Evidence that is not about this release at all: the least telling refusal."""


_TELLING = (
    EvidenceReplayed,
    EvidenceSuperseded,
    EvidenceExpired,
    EvidenceUntrusted,
    EvidenceTampered,
    EvidenceMismatch,
    _OtherRelease,
)
"""When no evidence holds, the refusal nearest to success is the one reported."""


def terms_for(connection: Connection, name: str, alias: str) -> tuple[Version | None, GatePolicy]:
    """
    The gate policy in force for *alias* of release *name*, checked against the audit chain.

    Raises:
        RecordTampered: the policy was changed, added or removed behind the registry.
    """
    version, policy = policies.gate_for(connection, name)
    if version is None:
        versions.require_none(connection, "gate-policy", name)
    else:
        versions.require_recorded(connection, version, newest=True)
    return version, policy.for_alias(alias)


def require_evidence(
    connection: Connection,
    version: Version,
    alias: str,
    *,
    given: Envelopes | None,
    production: AliasState | None,
    now: datetime,
) -> list[Claim]:
    """
    The claims that let *version* through its gate policy: one for each required suite.

    For each suite the newest evidence that holds decides, so that a later failure is not outvoted by an
    earlier pass.

    Args:
        given: envelopes to judge instead of those on file, which still supersede and outvote them.
        production: where `production` points now: what evidence must have been measured against.

    Raises:
        PromotionRefused: the subclass nearest to success.
    """
    policy_version, terms = terms_for(connection, version.name, alias)
    filed = evaluations.envelopes(connection, version.name, MOST_ENVELOPES + 1, digest_of=version.digest)
    if len(filed) > MOST_ENVELOPES:  # to judge some of them would let whoever files most choose which
        message = f"more than {MOST_ENVELOPES} envelopes are on file about this release; create another one"
        raise EvidenceMismatch(message)
    evaluations.require_complete(connection, version.digest)
    asked = filed if given is None else given
    if not asked:
        asked = evaluations.envelopes(connection, version.name, limit=1)
    if not asked:
        raise EvidenceMissing(f"no evidence names release {version.name}; run `evals run` against it first")
    judge = _Judge(connection, version, alias, policy_version, terms, production, now, filed)
    held: dict[str, Claim] = {}
    refused: list[PromotionRefused] = []
    for on_file, envelope in asked:
        if _is_outvoted(envelope, held, version):
            continue
        try:
            claim = judge.claim(on_file, envelope)
        except RecordTampered:
            raise
        except PromotionRefused as error:
            refused.append(error)
        else:
            _keep_newest(claim, held)
    for on_file, envelope in filed if given is not None else ():
        if not _is_outvoted(envelope, held, version):
            _outvote(judge, on_file, envelope, held)
    wanted = terms.suites or tuple(sorted(held))
    for claim in held.values():
        if claim.verdict != "pass" and claim.suite_name in wanted:
            raise GateNotPassed(f"suite {claim.suite_name} says {claim.verdict} for this release")
    missing = [name for name in wanted if name not in held]
    if held and not missing:
        return [held[name] for name in wanted]
    if held:
        raise EvidenceMissing(f"the gate policy requires evidence from suite {', '.join(missing)} too")
    raise min(refused, key=lambda error: _TELLING.index(type(error)))


def _is_outvoted(envelope: Mapping[str, Any], held: Mapping[str, Claim], version: Version) -> bool:
    """Whether newer evidence of the same suite holds, so that it makes no difference what this is worth."""
    try:
        said = evidence.claim(envelope)
    except EvidenceTampered:
        return False
    known = held.get(said.suite_name)
    return known is not None and said.release == version.digest and known.valid_from >= said.valid_from


def _outvote(judge: _Judge, on_file: str, envelope: Mapping[str, Any], held: dict[str, Claim]) -> None:
    """Let evidence on file take the place of older evidence that was handed in."""
    try:
        claim = judge.claim(on_file, envelope)
    except RecordTampered:
        raise
    except PromotionRefused:
        return  # it holds for nothing, so it outvotes nothing
    if claim.suite_name in held:
        _keep_newest(claim, held)


def _keep_newest(claim: Claim, held: dict[str, Claim]) -> None:
    """By what was signed: the column that evidence is sorted by could have been changed."""
    known = held.get(claim.suite_name)
    if known is None or known.valid_from < claim.valid_from:
        held[claim.suite_name] = claim


class _Judge:
    """What every envelope of one promotion is judged by."""

    def __init__(
        self,
        connection: Connection,
        version: Version,
        alias: str,
        policy: Version | None,
        terms: GatePolicy,
        production: AliasState | None,
        now: datetime,
        filed: Envelopes,
    ) -> None:
        self._connection = connection
        self._version = version
        self._policy = policy.digest if policy else None
        self._terms = terms
        self._production = production.digest if production else None
        self._now = now
        history.require_authentic(connection, version.name, alias)  # what is spent follows from every move
        moves = history.moves(connection, version.name, alias=alias, about=version.digest)
        self._spent = history.spent(moves, version.digest)
        self._given_up_at = history.given_up_at(moves, version.digest)
        self._withdrawn = evaluations.withdrawn(connection, version.digest)
        self._superseding = _later_words(filed)

    def claim(self, on_file: str, envelope: Mapping[str, Any]) -> Claim:
        """What *envelope* claims, if that may justify the move. Raises PromotionRefused."""
        if digest(envelope) != on_file:
            raise EvidenceTampered
        claim = evidence.verify(self._connection, envelope)
        self._about_this_release(claim)
        self._in_force(claim)
        self._of_these_bytes(claim)
        return claim

    def _about_this_release(self, claim: Claim) -> None:
        if claim.release != self._version.digest:
            message = (
                f"evidence {short(claim.envelope)} is for release digest {short(claim.release)}, "
                f"not for {short(self._version.digest)}; run `evals run` against this release"
            )
            raise _OtherRelease(message)

    def _in_force(self, claim: Claim) -> None:
        name, terms = f"evidence {short(claim.envelope)}", self._terms
        oldest = self._now - timedelta(hours=terms.max_age_hours)
        if not claim.valid_from <= self._now < claim.valid_until or claim.valid_from < oldest:
            message = (
                f"{name} was valid from {to_text(claim.valid_from)} to {to_text(claim.valid_until)} and may "
                f"be {terms.max_age_hours:g} hours old"
            )
            raise EvidenceExpired(message)
        if self._is_superseded(claim.envelope):
            raise EvidenceSuperseded(f"{name} was withdrawn or superseded; run `evals run` again")
        if claim.envelope in self._spent:
            raise EvidenceReplayed(f"{name} made the move that was rolled back; run `evals run` again")
        if self._given_up_at is not None and claim.valid_from < self._given_up_at:
            raise EvidenceReplayed(
                f"{name} is older than the rollback of this release at {to_text(self._given_up_at)}; "
                "run `evals run` again"
            )
        if terms.evaluators is not None and claim.signer not in terms.evaluators:
            raise EvidenceUntrusted(
                f"{name} is signed by {claim.signer}, none of the gate policy's evaluators"
            )

    def _of_these_bytes(self, claim: Claim) -> None:
        name, connection = f"evidence {short(claim.envelope)}", self._connection
        if claim.gate_policy != self._policy:
            raise EvidenceMismatch("the gate policy changed since this evidence was made")
        try:
            suite = suites.get(connection, Ref(claim.suite_name))
            newest = {claim.dataset_name: datasets.get(connection, Ref(claim.dataset_name))[0].digest}
            judging = {name: judges.get(connection, Ref(name)) for name, _ in claim.judges}
        except NotFound as error:
            raise EvidenceMismatch(
                f"{name} rests on what is not in this registry: {error.message}"
            ) from error
        if suite.digest != claim.suite or suite.content.get("dataset") != claim.dataset:
            raise EvidenceMismatch(f"suite {claim.suite_name} or its dataset changed since {name}")
        if newest[claim.dataset_name] != claim.dataset:
            raise EvidenceMismatch(
                f"dataset {claim.dataset_name} changed since {name}; run `evals run` again"
            )
        for judge_name, judge_digest in claim.judges:
            judge, content = judging[judge_name]
            if judge.digest != judge_digest:
                raise EvidenceMismatch(f"judge {judge_name} changed since {name}; run `evals run` again")
            if (why := judges.uncalibrated(content, self._now)) is not None:
                raise EvidenceMismatch(
                    f"{name} rests on judge {judge_name}, which {why}; run `evals calibrate`, "
                    "then `evals run`"
                )
        if claim.samples < (self._terms.min_samples or 0):
            message = (
                f"{name} rests on {claim.samples} samples; the gate policy asks for {self._terms.min_samples}"
            )
            raise EvidenceMismatch(message)
        if self._production not in (None, self._version.digest, claim.baseline):
            message = (
                f"{name} was not measured against the present production "
                f"{short(str(self._production))}; run `evals run` again"
            )
            raise EvidenceMismatch(message)

    def _is_superseded(self, identity: str) -> bool:
        """Whether it was withdrawn, or evidence on file that a trusted key signed takes its place."""
        if identity in self._withdrawn:
            return True
        for envelope in self._superseding.get(identity, ()):
            try:
                evidence.verify(self._connection, envelope)
            except RecordTampered:
                raise
            except PromotionRefused:
                continue  # unsigned words supersede nothing
            return True
        return False


def _later_words(filed: Envelopes) -> dict[str, list[Mapping[str, Any]]]:
    """Digest of an envelope → those on file that claim to take its place, not verified yet."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for _, envelope in filed:
        try:
            older = evidence.claim(envelope).supersedes
        except EvidenceTampered:
            continue  # it says nothing
        for identity in older:
            found.setdefault(identity, []).append(envelope)
    return found
