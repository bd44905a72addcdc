"""Evidence and the keys whose evidence counts."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from registry import evaluations, evidence, releases
from registry.clock import to_text, utc_now
from registry.errors import BadInput, NotFound
from registry.refs import check_name, parse_ref
from registry.signing import FileSigner, key_id
from registry.verbs.session import Session

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def listing(session: Session, name: str) -> dict[str, Any]:
    """The evidence on file about a release name, newest first: what each claims; nothing is verified."""
    with session.viewing("evidence.list") as connection:
        filed = evaluations.envelopes(connection, check_name(name))
    claims = [(on_file, evidence.claim(envelope)) for on_file, envelope in filed]
    found = [
        {
            "digest": on_file,
            "release": claim.release,
            "suite": claim.suite_name,
            "verdict": claim.verdict,
            "samples": claim.samples,
            "valid_until": to_text(claim.valid_until),
        }
        for on_file, claim in claims
    ]
    return {"evidence": found}


def show(session: Session, digest: str, *, statement: bool = False) -> dict[str, Any]:
    """An envelope as it was filed, or the statement in it."""
    with session.viewing("evidence.show") as connection:
        envelope: dict[str, Any] = evaluations.get_envelope(connection, digest)
    if not statement:
        return envelope
    decoded: dict[str, Any] = json.loads(evidence.open_envelope(envelope)[0])
    return decoded


def file(session: Session, envelope: Mapping[str, Any]) -> dict[str, Any]:
    """File evidence that was signed elsewhere. Whether it counts is decided when an alias wants to move."""
    with session.acting("evidence.file") as (connection, who):
        digest = evaluations.submit(connection, envelope, actor=who, now=utc_now())
    return {"ok": True, "digest": digest}


def withdraw(session: Session, digest: str, *, reason: str) -> dict[str, Any]:
    """Take back evidence: it stays on file and justifies nothing any more."""
    with session.acting("evidence.withdraw") as (connection, who):
        evaluations.withdraw(connection, digest, reason=reason, actor=who, now=utc_now())
    return {"ok": True, "digest": digest}


def runs(session: Session, release: str | None = None, *, limit: int = 100) -> dict[str, Any]:
    """Evaluation runs, newest first, of every release or of one."""
    with session.viewing("runs.list") as connection:
        digest = releases.resolve(connection, parse_ref(release)).digest if release is not None else None
        return {"runs": evaluations.runs(connection, digest, limit)}


def keys(session: Session) -> dict[str, Any]:
    """Every key ever trusted."""
    with session.viewing("keys.list") as connection:
        return {"keys": evidence.trusted(connection)}


def trust(session: Session, key: Callable[[], Ed25519PublicKey]) -> dict[str, Any]:
    """Accept evidence signed by the key that *key* gives, which is asked once this is allowed."""
    with session.acting("keys.trust") as (connection, who):
        identity = evidence.trust(connection, key(), actor=who, now=utc_now())
    return {"ok": True, "key_id": identity}


def retire(session: Session, identity: str) -> dict[str, Any]:
    """Stop accepting what a key signs from now on; what it signed before keeps its worth."""
    with session.acting("keys.retire") as (connection, who):
        evidence.retire(connection, identity, actor=who, now=utc_now())
    return {"ok": True, "key_id": identity}


def revoke(session: Session, identity: str) -> dict[str, Any]:
    """Stop accepting a key's evidence, past and future."""
    with session.acting("keys.revoke") as (connection, who):
        evidence.revoke(connection, identity, actor=who, now=utc_now())
    return {"ok": True, "key_id": identity}


def rotate(session: Session) -> dict[str, Any]:
    """
    Give this machine another signing key: the new one is trusted and the old one retired in one transaction,
    and only then does the new file take the old one's place. Stopped in between, the next call finishes it.

    Returns:
        `ok`, `key_id`, `retired`: the old key's id, and `kept`: where its file is now.

    Raises:
        BadInput: the key is not a file; rotate it where it is kept.
        NotFound: this registry never trusted the key of this machine.
    """
    signer = session.workspace.evidence_signer
    if not isinstance(signer, FileSigner):
        message = "evidence_signer: that key is no file; rotate it where it is kept, then trust and retire"
        raise BadInput(message)
    old = key_id(signer.public_key())
    with session.acting("keys.retire") as (connection, who):
        known = next((one for one in evidence.trusted(connection) if one["key_id"] == old), None)
        if known is None:
            raise NotFound(
                f"{old}, this machine's key, was never trusted here; `registry keys create` does it"
            )
        now = utc_now()
        new = evidence.trust(connection, signer.successor().public_key(), actor=who, now=now)
        if known["retired_at"] is None and known["revoked_at"] is None:
            evidence.retire(connection, old, actor=who, now=now)
    kept = signer.give_way()
    return {"ok": True, "key_id": new, "retired": old, "kept": str(kept)}
