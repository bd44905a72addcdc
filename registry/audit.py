"""
The audit chain: every change and every decision, each linked to the one before, signed at its end.

A record's hash covers all of it, the digest of its body and the hash of the record before; the last record of
each append carries an Ed25519 signature over its hash, and so over everything before. Whoever appends checks
the end of the chain first, against the signature and against the anchor this machine keeps outside of the
database: a chain that was cut, edited or extended by somebody without a key takes no further record.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import Connection, RowMapping, func, insert, select

from registry import anchor, tables
from registry.anchor import Head
from registry.clock import from_text, to_text
from registry.entities import AuditClass, AuditRecord
from registry.errors import AuditTampered, BadSettings, RecordTampered
from registry.signing import Signer, key_id, pem, read_public_key, verifies

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

OPTION = "sluicegate_audit"
"""The execution option of an engine that holds its `Trust`."""
START = "0" * 64
"""What the first record follows."""
MOST_AT_ONCE = 512
_TABLE, _KEYS = tables.audit, tables.audit_keys
_SEEN, _NEW, _KNOWN = "sluicegate_audit_seen", "sluicegate_audit_new", "sluicegate_audit_keys"


@dataclass(frozen=True, slots=True)
class Trust:
    """What this process signs the chain with, and whose signatures it accepts."""

    signer: Signer
    pins: tuple[str, ...] = ()
    """Ids of the keys that may sign; empty: every key that the chain itself introduced."""
    anchor: Path | None = None


class Entry(NamedTuple):
    """One record to be appended."""

    action: str
    target: str
    body: Mapping[str, Any]
    actor: str
    kind: AuditClass = "admin"
    subject: str | None = None


def append(
    connection: Connection, action: str, target: str, body: Mapping[str, Any], *, actor: str, now: datetime
) -> int:
    """
    Append one signed record in the caller's write transaction; returns its number.

    Args:
        action: what happened, such as `alias.promote`.
        target: to what, such as `release/support@production`; at most 300 characters.
        body: plain JSON without secrets and without anybody's texts.

    Raises:
        AuditTampered: the chain does not hold; nothing is appended.
    """
    return append_all(connection, (Entry(action, target, body, actor),), now=now)


def append_all(connection: Connection, entries: Sequence[Entry], *, now: datetime) -> int:
    """
    As `append`, for several records with one signature for each 512; returns the number of the last one.

    Raises:
        AuditTampered: as `append`.
    """
    trust = trust_of(connection)
    end, previous = _head(connection, trust)
    if not _introduced(connection, trust):
        own = key_id(trust.signer.public_key())
        connection.execute(
            insert(_KEYS).values(key_id=own, public_key=pem(trust.signer.public_key()), added_at=to_text(now))
        )
        entries = (Entry("audit.key", f"audit-key/{own}", {"key_id": own}, "registry"), *entries)
    for start in range(0, len(entries), MOST_AT_ONCE):
        end, previous = _link(
            connection, trust, entries[start : start + MOST_AT_ONCE], end, previous, to_text(now)
        )
    return end


def _link(
    connection: Connection, trust: Trust, entries: Sequence[Entry], end: int, previous: str, at: str
) -> tuple[int, str]:
    rows: list[dict[str, Any]] = []
    for entry in entries:
        end += 1
        body = msgspec.json.encode(entry.body, order="sorted")
        row: dict[str, Any] = {
            "seq": end, "at": at, "kind": entry.kind, "action": entry.action, "actor": entry.actor,
            "target": entry.target, "subject": entry.subject, "body_digest": hashlib.sha256(body).hexdigest(),
            "previous": previous, "body": body.decode(), "key_id": None, "signature": None,
        }  # fmt: skip
        row["hash"] = previous = hash_of(row)
        rows.append(row)
    signature = base64.b64encode(trust.signer.sign(_signed(end, previous))).decode()
    rows[-1] |= {"key_id": key_id(trust.signer.public_key()), "signature": signature}
    connection.execute(insert(_TABLE), rows)
    connection.info[_SEEN] = (end, previous)
    connection.info[_NEW] = Head(end, previous, at, rows[-1]["key_id"], signature)
    return end, previous


def taken(connection: Connection) -> Head | None:
    """The head that this connection's last transaction made, once: what is anchored after its commit."""
    head: Head | None = connection.info.pop(_NEW, None)
    return head


def head(connection: Connection) -> Head | None:
    """
    The end of the chain, its signature checked; None while it is empty.

    Raises:
        AuditTampered: the end is not signed by a key that counts, or the anchor is not part of the chain.
    """
    end, _ = _head(connection, trust_of(connection), trusting=False)
    if not end:
        return None
    row = connection.execute(select(_TABLE).where(_TABLE.c.seq == end)).mappings().one()
    return Head(row["seq"], row["hash"], row["at"], row["key_id"], row["signature"])


def newest(connection: Connection, target: str) -> RowMapping | None:
    """The last record about *target* as it is stored, or None."""
    query = select(_TABLE).where(_TABLE.c.target == target).order_by(_TABLE.c.seq.desc()).limit(1)
    return connection.execute(query).mappings().first()


def bodies(connection: Connection, target: str) -> dict[int, str]:
    """Record number → digest of its body, of every record about exactly *target*."""
    query = select(_TABLE.c.seq, _TABLE.c.body_digest).where(_TABLE.c.target == target)
    return {row[0]: row[1] for row in connection.execute(query)}


def actions(connection: Connection, prefix: str) -> list[tuple[str, str]]:
    """(target, action) of every record whose target begins with *prefix*, oldest first."""
    query = select(_TABLE.c.target, _TABLE.c.action).where(
        _TABLE.c.target >= prefix, _TABLE.c.target < prefix + "\U0010ffff"
    )
    return [(row[0], row[1]) for row in connection.execute(query.order_by(_TABLE.c.seq))]


def require(connection: Connection, target: str, body: Mapping[str, Any] | None) -> None:
    """
    Check that the last record about *target* is authentic and says *body*; None: that there is no record.

    Raises:
        RecordTampered: the row behind *body* is not what was recorded.
        AuditTampered: the record itself was changed.
    """
    row = newest(connection, target)
    if row is None and body is None:
        return
    expected = None if body is None else digest_of(body)
    if row is None or row["body_digest"] != expected:
        message = f"{target} is not what the audit chain says was written; `registry audit verify` says more"
        raise RecordTampered(message)
    require_signed(connection, row["seq"])


def require_signed(connection: Connection, seq: int) -> RowMapping:
    """
    The record *seq* once the signature that covers it is checked: that of the batch it was appended in.

    Raises:
        AuditTampered: it is gone, was changed, or no key that counts signed it.
    """
    query = select(_TABLE).where(_TABLE.c.seq >= seq).order_by(_TABLE.c.seq).limit(MOST_AT_ONCE)
    asked: RowMapping | None = None
    previous: str | None = None
    for row in connection.execute(query).mappings():
        if asked is None and row["seq"] == seq:
            asked = row
        if (
            asked is None
            or hash_of(row) != row["hash"]
            or (previous is not None and row["previous"] != previous)
        ):
            break
        previous = row["hash"]
        if row["signature"] is not None:
            check_signature(connection, trust_of(connection), row)
            _check_body(asked)
            return asked
    raise AuditTampered(f"audit record {seq} was changed or removed")


def records(
    connection: Connection,
    *,
    target: str | None = None,
    action: str | None = None,
    before: int | None = None,
    limit: int = 100,
) -> list[AuditRecord]:
    """
    Records, newest first, as they are stored.

    Args:
        target: exactly this one, or with `*` at its end what begins so.
        action: likewise.
        before: only records with a smaller number: the next page.
    """
    query = select(_TABLE)
    for column, wanted in ((_TABLE.c.target, target), (_TABLE.c.action, action)):
        if wanted is not None and wanted.endswith("*"):
            query = query.where(column >= wanted[:-1], column < wanted[:-1] + "\U0010ffff")
        elif wanted is not None:
            query = query.where(column == wanted)
    if before is not None:
        query = query.where(_TABLE.c.seq < before)
    return [
        record_of(row)
        for row in connection.execute(query.order_by(_TABLE.c.seq.desc()).limit(limit)).mappings()
    ]


def record_of(row: RowMapping) -> AuditRecord:
    """A stored record as a value; nothing is checked."""
    values = {name: value for name, value in row.items() if name not in ("at", "body")}
    body = None if row["body"] is None else msgspec.json.decode(row["body"])
    return AuditRecord(at=from_text(row["at"]), body=body, **values)


def digest_of(body: Mapping[str, Any]) -> str:
    """The hex digest of a body as it is stored."""
    return hashlib.sha256(msgspec.json.encode(body, order="sorted")).hexdigest()


def hash_of(row: Mapping[str, Any] | RowMapping) -> str:
    """The hash of a record: hex SHA-256 over the JSON array of its header, from `seq` to `previous`."""
    header = (
        row["seq"], row["at"], row["kind"], row["action"], row["actor"], row["target"], row["subject"],
        row["body_digest"], row["previous"],
    )  # fmt: skip
    return hashlib.sha256(msgspec.json.encode(header)).hexdigest()


def trust_of(connection: Connection) -> Trust:
    """What this connection signs with. Raises BadSettings when the engine was opened without."""
    trust = connection.get_execution_options().get(OPTION)
    if not isinstance(trust, Trust):
        message = "this connection has no audit signer; open the registry through registry.workspace"
        raise BadSettings(message)
    return trust


def public_keys(connection: Connection, trust: Trust) -> dict[str, Ed25519PublicKey]:
    """Every key that may sign the chain, by its id."""
    own = trust.signer.public_key()
    keys = {key_id(own): own}
    for identity, text in connection.execute(select(_KEYS.c.key_id, _KEYS.c.public_key)):
        key = read_public_key(text.encode(), f"audit key {identity}")
        keys[key_id(key)] = key
    return {identity: key for identity, key in keys.items() if not trust.pins or identity in trust.pins}


def check_signature(connection: Connection, trust: Trust, row: Mapping[str, Any] | RowMapping) -> None:
    """
    Check the signature that *row* carries over its own hash.

    Raises:
        AuditTampered: it has none, from a key that does not count, or one that does not fit.
    """
    verify_signature(
        public_keys(connection, trust).get(row["key_id"] or ""), row["seq"], row["hash"], row["signature"]
    )


def verify_signature(key: Ed25519PublicKey | None, seq: int, hashed: str, signature: str | None) -> None:
    """
    Check that *key* signed the chain up to record *seq*.

    Raises:
        AuditTampered: it did not, or there is no such key.
    """
    if key is None or signature is None:
        raise AuditTampered(f"audit record {seq} is not signed by a key that counts; see registry.audit_keys")
    try:
        raw = base64.b64decode(signature, validate=True)
    except binascii.Error:
        raw = b""
    if not verifies(key, _signed(seq, hashed), raw):
        raise AuditTampered(f"the signature of audit record {seq} does not fit")


def _head(connection: Connection, trust: Trust, *, trusting: bool = True) -> tuple[int, str]:
    """Number and hash of the last record, checked unless this connection wrote or checked it before."""
    query = select(_TABLE).order_by(_TABLE.c.seq.desc()).limit(1)
    row = connection.execute(query).mappings().first()
    end = (row["seq"], row["hash"]) if row is not None else (0, START)
    if trusting and connection.info.get(_SEEN) == end:
        return end
    if row is not None:
        if hash_of(row) != row["hash"]:
            raise AuditTampered(f"audit record {row['seq']}, the last one, was changed")
        _check_body(row)
        check_signature(connection, trust, row)
    _check_anchor(connection, trust, end[0])
    connection.info[_SEEN] = end
    return end


def _check_body(row: RowMapping) -> None:
    if row["body"] is not None and hashlib.sha256(row["body"].encode()).hexdigest() != row["body_digest"]:
        raise AuditTampered(f"the body of audit record {row['seq']} was changed")


def _check_anchor(connection: Connection, trust: Trust, end: int) -> None:
    known = anchor.read(trust.anchor) if trust.anchor is not None else None
    if known is None:
        return
    if not _holds(connection, known) and not is_newer(connection, known):
        message = (
            f"the audit chain ends at {end} and does not hold record {known.seq} that {trust.anchor} knows: "
            "the database was cut, replaced or restored; if on purpose: `registry audit anchor --accept`"
        )
        raise AuditTampered(message)


def is_newer(connection: Connection, known: Head) -> bool:
    """Whether *known* was appended since this read transaction began, so that it cannot show it."""
    if connection.get_execution_options().get("sluicegate_write"):  # nobody else can append meanwhile
        return False
    if (connection.execute(select(func.max(_TABLE.c.seq))).scalar() or 0) >= known.seq:
        return False
    with connection.engine.connect() as later:
        return _holds(later, known)


def _holds(connection: Connection, known: Head) -> bool:
    found = connection.execute(select(_TABLE.c.hash).where(_TABLE.c.seq == known.seq)).scalar()
    return bool(found == known.hash)


def _introduced(connection: Connection, trust: Trust) -> bool:
    """Whether the chain knows this process's own key."""
    own = key_id(trust.signer.public_key())
    known: set[str] = connection.info.setdefault(_KNOWN, set())
    if own not in known and connection.execute(select(_KEYS.c.key_id).where(_KEYS.c.key_id == own)).first():
        known.add(own)
    if trust.pins and own not in trust.pins:
        raise BadSettings(f"registry.audit_keys does not name this machine's own key {own}")
    return own in known


def _signed(seq: int, hashed: str) -> bytes:
    return f"sluicegate-audit-v1:{seq}:{hashed}".encode()
