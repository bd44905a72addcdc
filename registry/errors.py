"""
Errors of the registry, and the root of every Sluicegate error.

    PlatformError
    ├── BadInput              the caller's text or file is wrong
    │   ├── BadRef            a reference cannot be parsed
    │   ├── BadTemplate       a prompt template cannot be compiled or rendered
    │   └── BadSettings       sluicegate.yaml or an environment override is wrong
    ├── NotFound              nothing has this name, number, alias or digest
    ├── Conflict              the name is taken by other bytes
    ├── MissingExtra          an optional dependency is not installed
    ├── VersionTampered       stored bytes no longer match their digest
    ├── StoreUnavailable      the database cannot be read or written
    ├── Unauthorized          the registry has users, and no valid token was given
    ├── Forbidden             the user's role does not allow this
    ├── AuditTampered         the audit chain or its anchor does not hold
    └── PromotionRefused      an alias that live traffic uses may not move
        ├── EvidenceMissing       no evidence names this release
        ├── EvidenceMismatch      evidence is for other bytes
        ├── EvidenceTampered      the signature does not cover the statement
        ├── EvidenceUntrusted     signed by a key that is not trusted
        ├── EvidenceExpired       outside its validity window
        ├── EvidenceReplayed      the alias was rolled back from this release since
        ├── EvidenceSuperseded    withdrawn, or newer evidence takes its place
        ├── GateNotPassed         evidence says fail or inconclusive
        ├── ApprovalMissing       fewer people approved than the gate policy asks for
        ├── RecordTampered        a row is not what the audit chain says was written
        ├── AliasMoved            another promotion won the race
        └── NothingToRollBack     the alias has no earlier release

Every error carries a stable `code`; no error knows an HTTP status.
"""

from __future__ import annotations


class PlatformError(Exception):
    """Something in Sluicegate failed. See the message for the remedy."""

    code = "platform_error"

    def __init__(self, message: str | None = None) -> None:
        """*message* defaults to the docstring of the class."""
        super().__init__(message or " ".join((self.__doc__ or "").split()))

    @property
    def message(self) -> str:
        """What happened, to which thing, and what to do."""
        return str(self.args[0])


class BadInput(PlatformError):
    """The input is wrong. Correct the named field and try again."""

    code = "bad_input"


class BadRef(BadInput):
    """A reference looks like name, name:3, name@alias or name@sha256:<hex>."""

    code = "bad_ref"


class BadTemplate(BadInput):
    """The prompt template cannot be compiled or rendered."""

    code = "bad_template"


class BadSettings(BadInput):
    """The settings are wrong. `sluicegate doctor` shows what is in force."""

    code = "bad_settings"


class NotFound(PlatformError):
    """Nothing in the registry has that reference."""

    code = "not_found"


class Conflict(PlatformError):
    """That name is already taken by other content."""

    code = "conflict"


class MissingExtra(PlatformError):
    """An optional dependency is missing. Install the extra the message names."""

    code = "missing_extra"


class VersionTampered(PlatformError):
    """Stored content no longer matches its digest. Restore the registry from a backup."""

    code = "version_tampered"


class StoreUnavailable(PlatformError):
    """The registry database cannot be reached. Check registry.database_url and the disk."""

    code = "store_unavailable"


class SecretUnavailable(PlatformError):
    """The keeper of a secret does not answer, or refuses."""

    code = "secret_unavailable"


class IssuerUnavailable(PlatformError):
    """The issuer of tokens cannot be reached, so nobody can be known by one. Try again in a moment."""

    code = "issuer_unavailable"


class Unauthorized(PlatformError):
    """This registry has users. Set SLUICEGATE_TOKEN to the token of one; `registry users` makes them."""

    code = "unauthorized"


class Forbidden(PlatformError):
    """The role of this user does not allow that. Ask an admin of the registry."""

    code = "forbidden"


class AuditTampered(PlatformError):
    """The audit chain does not hold. Nothing is written until `registry audit verify` finds no fault."""

    code = "audit_tampered"


class PromotionRefused(PlatformError):
    """The alias did not move."""

    code = "promotion_refused"


class EvidenceMissing(PromotionRefused):
    """No evidence names this release. Run `evals run` against it first."""

    code = "evidence_missing"


class EvidenceMismatch(PromotionRefused):
    """The evidence is for other bytes than this release, suite or dataset."""

    code = "evidence_mismatch"


class EvidenceTampered(PromotionRefused):
    """The evidence was edited after it was signed."""

    code = "evidence_tampered"


class EvidenceUntrusted(PromotionRefused):
    """The evidence is signed by a key this registry does not trust."""

    code = "evidence_untrusted"


class EvidenceExpired(PromotionRefused):
    """The evidence is outside its validity window. Run `evals run` again."""

    code = "evidence_expired"


class EvidenceReplayed(PromotionRefused):
    """The alias was rolled back from this release since this evidence was made. Run `evals run` again."""

    code = "evidence_replayed"


class EvidenceSuperseded(PromotionRefused):
    """The evidence was withdrawn, or other evidence took its place. Run `evals run` again."""

    code = "evidence_superseded"


class ApprovalMissing(PromotionRefused):
    """The gate policy asks for approvals that are not there. See `registry approvals list`."""

    code = "approval_missing"


class RecordTampered(PromotionRefused):
    """A row of the database was changed behind the registry. `registry audit verify` says which."""

    code = "record_tampered"


class GateNotPassed(PromotionRefused):
    """The evidence does not say that the release passed its gate."""

    code = "gate_not_passed"


class AliasMoved(PromotionRefused):
    """Another promotion moved the alias first. Look at `registry history` and try again."""

    code = "alias_moved"


class NothingToRollBack(PromotionRefused):
    """The alias has no earlier release to return to."""

    code = "nothing_to_roll_back"
