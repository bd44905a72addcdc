"""What is checked on the way in and out, and what must be proven before an alias moves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal

from registry.entities.people import OIDC
from registry.errors import BadInput
from registry.ids import is_digest
from registry.refs import check_alias, check_name

Action = Literal["block", "redact", "warn", "observe"]
Verdict = Literal["pass", "fail", "inconclusive"]


@dataclass(frozen=True, slots=True)
class GuardrailRule:
    """One check of a guardrail policy."""

    detector: str
    """Name of a plug-in in `sluicegate.guardrails`: injection, pii, secrets."""
    stage: Literal["input", "output"]
    action: Action
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class GuardrailPolicy:
    """What is checked on the way in and on the way out, and what then happens."""

    rules: tuple[GuardrailRule, ...]


@dataclass(frozen=True, slots=True)
class GateTier:
    """What one alias asks for instead of what its gate policy asks for in general; None: the same."""

    suites: tuple[str, ...] | None = None
    max_age_hours: float | None = None
    min_samples: int | None = None
    approvals: int | None = None
    approvers: tuple[str, ...] | None = None
    evaluators: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What must be proven before an alias of the release of the same name may move."""

    suites: tuple[str, ...] = ()
    """Names of suites that must each have passed; empty: any suite of the registry."""
    max_age_hours: float = 168.0
    min_samples: int | None = None
    """Samples that each suite's evidence must rest on."""
    approvals: int | None = None
    """How many people have to approve the release; its author never counts."""
    approvers: tuple[str, ...] | None = None
    """Who may approve; None: everybody whose role allows it."""
    evaluators: tuple[str, ...] | None = None
    """Ids of the keys whose evidence counts; None: every trusted key."""
    tiers: Mapping[str, GateTier] | None = None
    """Alias → what it asks for instead, such as less for `staging`."""

    def __post_init__(self) -> None:
        """Refuse a policy that can never or always be met."""
        for alias, tier in (self.tiers or {}).items():
            check_alias(alias)
            _check_terms(f"tiers.{alias}.", tier)
            _check_terms(f"with tier {alias}: ", self.for_alias(alias))
        _check_terms("", self)

    def for_alias(self, alias: str) -> GatePolicy:
        """The terms in force for *alias*, without tiers."""
        tier = (self.tiers or {}).get(alias)
        if tier is None:
            return replace(self, tiers=None)
        own = {f.name: getattr(tier, f.name) for f in fields(tier) if getattr(tier, f.name) is not None}
        return replace(self, tiers=None, **own)


def _check_terms(where: str, terms: GatePolicy | GateTier) -> None:
    for suite in terms.suites or ():
        check_name(suite, "suite")
    if terms.max_age_hours is not None and not 0 < terms.max_age_hours <= 24 * 366:
        raise BadInput(f"{where}max_age_hours: {terms.max_age_hours:g} is not above 0 and at most one year")
    if terms.min_samples is not None and not 1 <= terms.min_samples <= 10**9:
        raise BadInput(f"{where}min_samples: {terms.min_samples} is not 1 to 10^9")
    if terms.approvals is not None and not 0 <= terms.approvals <= 100:
        raise BadInput(f"{where}approvals: {terms.approvals} is not 0 to 100")
    for approver in terms.approvers or ():
        subject = approver.removeprefix(OIDC)
        if subject == approver:
            check_name(approver, "approver")
        elif not 1 <= len(subject) <= 100 or not subject.isprintable():
            raise BadInput(
                f"{where}approvers: {approver[:120]!r} is not {OIDC} and 1 to 100 printable characters"
            )
    if terms.approvers is not None and (terms.approvals or 0) > len(set(terms.approvers)):
        raise BadInput(f"{where}approvals: {terms.approvals} of {len(set(terms.approvers))} approvers")
    if terms.evaluators is not None and not terms.evaluators:
        raise BadInput(f"{where}evaluators: name at least one key, or leave it out")
    for key in terms.evaluators or ():
        if not is_digest(key):
            raise BadInput(f"{where}evaluators: {key!r} is not a key id; `registry keys list` shows them")
