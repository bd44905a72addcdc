"""
Evidence: an in-toto statement about one release, in a DSSE envelope signed with Ed25519.

Sources: in-toto attestation framework, Statement v1; DSSE v1.0 (`PAE` is its pre-authentication
encoding). The predicate follows the shape proposed there for evaluation results (in-toto/attestation, pull
request 575: claims of metric, threshold, passed and sample size; harness; assurance level), which is not
settled, so it has a name of our own; what promotion needs beyond it stands beside.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, RowMapping, func, insert, select, update

from registry import audit, tables
from registry.clock import from_text, to_text
from registry.entities import Verdict, Version
from registry.errors import BadInput, EvidenceTampered, EvidenceUntrusted, NotFound
from registry.ids import PREFIX, canonical, digest, is_digest
from registry.signing import Signer, key_id, pem, read_public_key, verifies

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:sluicegate:eval-result:v0.2"
_KNOWN_TYPES = frozenset({PREDICATE_TYPE, "urn:sluicegate:eval-result:v0.1"})
_MOST_KEYS = 1000
_KEYS = tables.trusted_keys


@dataclass(frozen=True, slots=True)
class Claim:
    """What a verified statement says, in the words promotion decides with."""

    release_name: str
    release: str
    suite_name: str
    suite: str
    dataset: str
    baseline: str | None
    gate_policy: str | None
    verdict: Verdict
    samples: int
    valid_from: datetime
    valid_until: datetime
    envelope: str
    """Digest of the envelope."""
    dataset_name: str = ""
    judges: tuple[tuple[str, str], ...] = ()
    """(name, digest) of every judge whose scores it rests on."""
    supersedes: tuple[str, ...] = ()
    """Digests of the envelopes it takes the place of."""
    signer: str = ""
    """Id of the key that signed it; empty until that is verified."""


def statement(
    *,
    release: Version,
    suite: Version,
    dataset: Version,
    baseline: Version | None,
    gate_policy: Version | None,
    verdict: Verdict,
    checks: Sequence[Mapping[str, Any]],
    samples: int,
    started: datetime,
    now: datetime,
    valid_hours: float,
    evaluator: Mapping[str, Any],
    judges: Sequence[Version] = (),
    supersedes: Sequence[str] = (),
) -> dict[str, Any]:
    """
    The in-toto statement that binds *verdict* to exactly these digests.

    Args:
        checks: one mapping a check: metric, comparator, threshold, value, low, high, n, verdict.
        valid_hours: from *now*; must be positive.
        evaluator: name and version of the evaluator, its digest, commit of the suite's repository.
        judges: whose scores it rests on.
        supersedes: digests of envelopes about this release that it takes the place of.

    Raises:
        BadInput: *valid_hours* is not positive, or something superseded is no digest.
    """
    if valid_hours <= 0:
        raise BadInput(f"valid_hours is {valid_hours}; evidence must be valid for some time")
    for older in supersedes:
        if not is_digest(older):
            raise BadInput(f"supersedes: {older!r} is not the digest of an envelope")
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"release/{release.name}", "digest": _sha256(release.digest)}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "assuranceLevel": "self_attested",
            "harness": dict(evaluator),
            "suite": _resource(suite),
            "dataset": _resource(dataset),
            "judges": [_resource(judge) for judge in judges],
            "baseline": _resource(baseline) if baseline else None,
            "gatePolicy": _resource(gate_policy) if gate_policy else None,
            "verdict": verdict,
            "samples": samples,
            "claims": [_stated(check, samples) for check in checks],
            "supersedes": sorted(supersedes),
            "startedOn": to_text(started),
            "finishedOn": to_text(now),
            "validFrom": to_text(now),
            "validUntil": to_text(now + timedelta(hours=valid_hours)),
        },
    }


def sign(content: Mapping[str, Any], key: Signer | Ed25519PrivateKey) -> dict[str, Any]:
    """The DSSE envelope of a statement, signed with *key*."""
    payload = canonical(content)
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key_id(key.public_key()), "sig": base64.b64encode(key.sign(_pae(payload))).decode()}
        ],
    }


def trust(connection: Connection, key: Ed25519PublicKey, *, actor: str, now: datetime) -> str:
    """
    Accept evidence signed by *key* from now on; returns its id. Idempotent.

    Raises:
        BadInput: the key was revoked; a revoked key is never trusted again.
    """
    identity = key_id(key)
    known = connection.execute(select(_KEYS).where(_KEYS.c.key_id == identity)).mappings().first()
    if known is not None and known["revoked_at"] is not None:
        raise BadInput(f"{identity} was revoked at {known['revoked_at'][:19]}; make another key")
    if known is None:
        row = {"key_id": identity, "public_key": pem(key), "added_at": to_text(now), "added_by": actor}
        connection.execute(insert(_KEYS).values(row))
        _record(connection, "key.trust", identity, actor=actor, now=now)
    return identity


def trust_first(connection: Connection, key: Ed25519PublicKey, *, actor: str, now: datetime) -> bool:
    """
    Trust *key* when the registry has neither trusted keys nor users yet, as on a laptop; whether it is now.

    Where there are users an admin says whose evidence counts.
    """
    for table in (_KEYS, tables.users):
        if connection.execute(select(func.count()).select_from(table)).scalar_one():
            return False
    trust(connection, key, actor=actor, now=now)
    return True


def revoke(connection: Connection, identity: str, *, actor: str, now: datetime) -> None:
    """
    Stop accepting evidence signed by that key, whenever it was signed.

    Raises:
        NotFound: no trusted key has this id.
    """
    _end(connection, identity, "revoked_at", now)
    _record(connection, "key.revoke", identity, actor=actor, now=now)


def retire(connection: Connection, identity: str, *, actor: str, now: datetime) -> None:
    """
    Stop accepting what that key signs from now on; what it signed before keeps its worth.

    Raises:
        NotFound: no trusted key has this id, or it is retired already.
    """
    _end(connection, identity, "retired_at", now)
    _record(connection, "key.retire", identity, actor=actor, now=now)


def trusted(connection: Connection) -> list[dict[str, Any]]:
    """Every signing key ever trusted, with when it was added, retired and revoked."""
    query = select(_KEYS).order_by(_KEYS.c.added_at, _KEYS.c.key_id).limit(_MOST_KEYS)
    return [dict(row) for row in connection.execute(query).mappings()]


def protected(connection: Connection) -> list[tuple[str, dict[str, Any]]]:
    """(target, body) of every row here that the audit chain vouches for."""
    return [(f"evidence-key/{row['key_id']}", _recorded(row)) for row in trusted(connection)]


def verify(connection: Connection, envelope: Mapping[str, Any]) -> Claim:
    """
    Check the signature against the trusted keys and read what the statement claims.

    Raises:
        EvidenceTampered: the envelope is malformed or no signature covers its payload.
        EvidenceUntrusted: the signing key is unknown or revoked, or was retired before it signed.
        RecordTampered: the key was not trusted through the registry.
    """
    payload, signatures = open_envelope(envelope)
    known = {row["key_id"]: row for row in trusted(connection)}
    states = []
    for signature in signatures:
        row = known.get(signature["keyid"])
        if row is None or row["revoked_at"] is not None:
            states.append("not trusted by this registry" if row is None else "revoked")
            continue
        check_signature(payload, signature, row["public_key"].encode())
        audit.require(connection, f"evidence-key/{row['key_id']}", _recorded(row))
        said = replace(claim(envelope), signer=row["key_id"])
        if row["retired_at"] is None or said.valid_from < from_text(row["retired_at"]):
            return said
        states.append("retired since before it signed this")
    names = ", ".join(s["keyid"] for s in signatures)
    raise EvidenceUntrusted(f"the evidence is signed by {names}, which is {', '.join(states)}")


def check_signature(payload: bytes, signature: Mapping[str, str], public_key: bytes) -> None:
    """
    Check one signature of an envelope over its *payload* with a public key in PEM.

    Raises:
        EvidenceTampered: it does not fit.
    """
    key = read_public_key(public_key, f"key {signature['keyid']}")
    if not verifies(key, _pae(payload), _decode(signature["sig"])):
        raise EvidenceTampered


def open_envelope(envelope: Mapping[str, Any]) -> tuple[bytes, list[Mapping[str, str]]]:
    """
    The payload and signatures of a DSSE envelope; nothing is verified.

    Raises:
        EvidenceTampered: it is not a DSSE envelope around in-toto JSON.
    """
    signatures = envelope.get("signatures")
    if envelope.get("payloadType") != PAYLOAD_TYPE or not isinstance(signatures, list) or not signatures:
        raise EvidenceTampered("the evidence is not a signed DSSE envelope around an in-toto statement")
    for signature in signatures:
        if not isinstance(signature, Mapping) or not {"keyid", "sig"} <= signature.keys():
            raise EvidenceTampered("the evidence has a malformed signature")
    return _decode(str(envelope.get("payload"))), signatures


def claim(envelope: Mapping[str, Any]) -> Claim:
    """
    What an envelope claims, unverified: call `verify` before acting on it.

    Raises:
        EvidenceTampered: the payload is not a statement of an evaluation result.
    """
    payload, _ = open_envelope(envelope)
    try:
        content = json.loads(payload)
        (subject,) = content["subject"]
        kind, _, name = subject["name"].partition("/")
        predicate = content["predicate"]
        result = Claim(
            release_name=name,
            release=PREFIX + subject["digest"]["sha256"],
            suite_name=predicate["suite"]["name"],
            suite=PREFIX + predicate["suite"]["digest"]["sha256"],
            dataset=PREFIX + predicate["dataset"]["digest"]["sha256"],
            baseline=_optional(predicate.get("baseline")),
            gate_policy=_optional(predicate.get("gatePolicy")),
            verdict=predicate["verdict"],
            samples=int(predicate["samples"]),
            valid_from=from_text(predicate["validFrom"]),
            valid_until=from_text(predicate["validUntil"]),
            envelope=digest(envelope),
            dataset_name=predicate["dataset"]["name"],
            judges=tuple((judge["name"], _sha(judge)) for judge in predicate.get("judges", ())),
            supersedes=tuple(map(str, predicate.get("supersedes", ()))),
        )
    except (KeyError, TypeError, ValueError, BadInput) as error:
        raise EvidenceTampered("the evidence's payload is not a statement of an evaluation") from error
    stated = content["_type"] == STATEMENT_TYPE and content["predicateType"] in _KNOWN_TYPES
    if not stated or kind != "release":
        raise EvidenceTampered("the evidence is a statement of another type")
    if not is_digest(result.release):
        raise EvidenceTampered("the evidence's subject has no SHA-256 digest")
    return result


def _end(connection: Connection, identity: str, column: str, now: datetime) -> None:
    held = (_KEYS.c.key_id == identity) & _KEYS.c.revoked_at.is_(None) & _KEYS.c[column].is_(None)
    if not connection.execute(update(_KEYS).where(held).values({column: to_text(now)})).rowcount:
        raise NotFound(f"no trusted key {identity} that this could end; `registry keys list` shows them")


def _record(connection: Connection, action: str, identity: str, *, actor: str, now: datetime) -> None:
    row = connection.execute(select(_KEYS).where(_KEYS.c.key_id == identity)).mappings().one()
    audit.append(connection, action, f"evidence-key/{identity}", _recorded(row), actor=actor, now=now)


def _recorded(row: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    return {name: row[name] for name in ("public_key", "revoked_at", "retired_at")}


def _stated(check: Mapping[str, Any], samples: int) -> dict[str, Any]:
    """A check as a claim: its own keys, and those of the proposed shape."""
    passed = check.get("verdict") == "pass" if "verdict" in check else None
    return {"sampleSize": check.get("n", samples), "passed": passed, **check}


def _sha(resource: Mapping[str, Any]) -> str:
    return PREFIX + str(resource["digest"]["sha256"])


def _optional(resource: Mapping[str, Any] | None) -> str | None:
    return PREFIX + resource["digest"]["sha256"] if resource else None


def _pae(payload: bytes) -> bytes:
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise EvidenceTampered("the evidence is not valid base64") from error


def _sha256(value: str) -> dict[str, str]:
    return {"sha256": value.removeprefix(PREFIX)}


def _resource(version: Version) -> dict[str, Any]:
    return {"name": version.name, "number": version.number, "digest": _sha256(version.digest)}
