"""
Evidence: an in-toto statement about one release, in a DSSE envelope signed with Ed25519.

Sources: in-toto attestation framework, Statement v1; DSSE v1.0 (`PAE` is its pre-authentication
encoding). The predicate follows the shape proposed there for evaluation results.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from sqlalchemy import Connection, func, insert, select, update

from registry import tables
from registry.clock import from_text, to_text
from registry.entities import Verdict, Version
from registry.errors import BadInput, EvidenceTampered, EvidenceUntrusted, NotFound
from registry.ids import PREFIX, canonical, digest, digest_bytes, is_digest

PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "urn:sluicegate:eval-result:v0.1"
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
) -> dict[str, Any]:
    """
    The in-toto statement that binds *verdict* to exactly these digests.

    Args:
        checks: one mapping a check: metric, value, interval, threshold, verdict.
        valid_hours: from *now*; must be positive.
        evaluator: name and version of the evaluator, commit of the suite's repository.
    """
    if valid_hours <= 0:
        raise BadInput(f"valid_hours is {valid_hours}; evidence must be valid for some time")
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": f"release/{release.name}", "digest": _sha256(release.digest)}],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "evaluator": dict(evaluator),
            "suite": _resource(suite),
            "dataset": _resource(dataset),
            "baseline": _resource(baseline) if baseline else None,
            "gatePolicy": _resource(gate_policy) if gate_policy else None,
            "verdict": verdict,
            "samples": samples,
            "checks": [dict(check) for check in checks],
            "startedOn": to_text(started),
            "finishedOn": to_text(now),
            "validFrom": to_text(now),
            "validUntil": to_text(now + timedelta(hours=valid_hours)),
        },
    }


def load_or_create_key(path: Path) -> Ed25519PrivateKey:
    """
    The private key at *path*; made there, readable by its owner alone, when there is none.

    Raises:
        BadInput: the file is not an Ed25519 private key in PEM.
    """
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        made = Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        aside = path.with_suffix(f".{os.getpid()}.new")
        aside.touch(mode=0o600, exist_ok=False)
        aside.write_bytes(made)
        try:
            os.link(aside, path)
        except FileExistsError:  # another process was first: its key counts
            made = b""
        finally:
            aside.unlink()
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError) as error:
        raise BadInput(f"{path}: cannot be read as a private key in PEM") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{path}: holds a {type(key).__name__}, not an Ed25519 key")
    return key


def sign(content: Mapping[str, Any], key: Ed25519PrivateKey) -> dict[str, Any]:
    """The DSSE envelope of a statement, signed with *key*."""
    payload = canonical(content)
    return {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(payload).decode(),
        "signatures": [
            {"keyid": key_id(key.public_key()), "sig": base64.b64encode(key.sign(_pae(payload))).decode()}
        ],
    }


def key_id(key: Ed25519PublicKey) -> str:
    """The id of a public key: the digest of its 32 raw bytes."""
    return digest_bytes(key.public_bytes_raw())


def trust(connection: Connection, key: Ed25519PublicKey, *, actor: str, now: datetime) -> str:
    """Accept evidence signed by *key* from now on; returns its id. Idempotent."""
    identity = key_id(key)
    if connection.execute(select(_KEYS).where(_KEYS.c.key_id == identity)).first() is None:
        text = key.public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        ).decode()
        row = {"key_id": identity, "public_key": text, "added_at": to_text(now), "added_by": actor}
        connection.execute(insert(_KEYS).values(row))
    return identity


def trust_first(connection: Connection, key: Ed25519PublicKey, *, actor: str, now: datetime) -> bool:
    """Trust *key* when the registry trusts no key yet; whether it is trusted now because of that."""
    if connection.execute(select(func.count()).select_from(_KEYS)).scalar_one():
        return False
    trust(connection, key, actor=actor, now=now)
    return True


def revoke(connection: Connection, identity: str, *, now: datetime) -> None:
    """
    Stop accepting evidence signed by that key, whenever it was signed.

    Raises:
        NotFound: no trusted key has this id.
    """
    changed = connection.execute(
        update(_KEYS)
        .where(_KEYS.c.key_id == identity, _KEYS.c.revoked_at.is_(None))
        .values(revoked_at=to_text(now))
    )
    if not changed.rowcount:
        raise NotFound(f"no trusted, unrevoked key {identity}; `registry keys list` shows them")


def trusted(connection: Connection) -> list[dict[str, Any]]:
    """Every signing key ever trusted, with when it was added and revoked."""
    return [dict(row) for row in connection.execute(select(_KEYS).order_by(_KEYS.c.added_at)).mappings()]


def verify(connection: Connection, envelope: Mapping[str, Any]) -> Claim:
    """
    Check the signature against the trusted keys and read what the statement claims.

    Raises:
        EvidenceTampered: the envelope is malformed or no signature covers its payload.
        EvidenceUntrusted: the signing key is unknown or revoked.
    """
    payload, signatures = open_envelope(envelope)
    known = {row["key_id"]: row for row in trusted(connection)}
    for signature in signatures:
        row = known.get(signature["keyid"])
        if row is None or row["revoked_at"] is not None:
            continue
        public = serialization.load_pem_public_key(row["public_key"].encode())
        assert isinstance(public, Ed25519PublicKey)  # noqa: S101 - `trust` stores no other
        try:
            public.verify(_decode(signature["sig"]), _pae(payload))
        except InvalidSignature as error:
            raise EvidenceTampered from error
        return claim(envelope)
    revoked = any(known.get(s["keyid"], {}).get("revoked_at") for s in signatures)
    names = ", ".join(s["keyid"] for s in signatures)
    state = "revoked" if revoked else "not trusted by this registry"
    raise EvidenceUntrusted(f"the evidence is signed by {names}, which is {state}")


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
        )
    except (KeyError, TypeError, ValueError, BadInput) as error:
        raise EvidenceTampered("the evidence's payload is not a statement of an evaluation") from error
    if (content["_type"], content["predicateType"], kind) != (STATEMENT_TYPE, PREDICATE_TYPE, "release"):
        raise EvidenceTampered("the evidence is a statement of another type")
    if not is_digest(result.release):
        raise EvidenceTampered("the evidence's subject has no SHA-256 digest")
    return result


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
