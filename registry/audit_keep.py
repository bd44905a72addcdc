"""
How long the audit chain remembers: retention, legal holds, and the erasure of persons.

A record's header and hashes stay for ever; what ends is its body. The chain covers a body by its digest, so
it holds without the body, and what was emptied is written into the chain itself: `audit verify` accepts a
missing body only where a prune record names it. What says something about a person is encrypted with a key of
that person (AES-256-GCM, NIST SP 800-38D); to erase somebody, the key is deleted.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any

import msgspec
from sqlalchemy import Connection, Engine, RowMapping, delete, func, insert, select, update

from registry import audit, tables
from registry.audit import Entry
from registry.clock import to_text
from registry.entities import AuditClass
from registry.errors import AuditTampered, BadInput, Conflict, NotFound
from registry.ids import sortable_id

PRUNE = "audit.prune"
KEPT_FOR_EVER = ("audit.", "registry.")
"""Actions that begin so keep their bodies: verification reads them."""
SUBJECT = "subject/"
"""A hold whose scope begins so holds one person's records, by name or id."""
MOST_AT_ONCE = 50_000
"""Bodies emptied in one transaction, which others wait for."""
_TABLE, _SUBJECTS, _HOLDS = tables.audit, tables.subject_keys, tables.legal_holds
_FEEDBACK, _USER = tables.feedback, "user:"
_NONCE_BYTES = 12
_LONGEST_SCOPE, _LONGEST_REASON = 300, 1000


def seal(connection: Connection, name: str, content: Mapping[str, Any], *, now: datetime) -> tuple[str, str]:
    """
    Encrypt *content* for one person; returns the person's random id and the text for a record's body.

    Args:
        name: what the person is known by: a pseudonym of at most 64 characters. Its key is made at the first
            use, in the caller's write transaction.
    """
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    row = connection.execute(select(_SUBJECTS).where(_SUBJECTS.c.name == name)).mappings().one_or_none()
    if row is None:
        made: dict[str, Any] = {
            "name": name,
            "subject": sortable_id("sub", now),
            "key": base64.b64encode(AESGCM.generate_key(256)).decode(),
            "created_at": to_text(now),
        }
        connection.execute(insert(_SUBJECTS).values(made))
        subject, key = made["subject"], made["key"]
    else:
        subject, key = row["subject"], row["key"]
    nonce = os.urandom(_NONCE_BYTES)
    text = AESGCM(base64.b64decode(key)).encrypt(nonce, msgspec.json.encode(content), subject.encode())
    return subject, base64.b64encode(nonce + text).decode()


def unseal(connection: Connection, subject: str, sealed: str) -> dict[str, Any] | None:
    """
    What was sealed for *subject*; None once that person is erased.

    Raises:
        AuditTampered: it is not what was sealed.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    key = connection.execute(select(_SUBJECTS.c.key).where(_SUBJECTS.c.subject == subject)).scalar()
    if key is None:
        return None
    try:
        data = base64.b64decode(sealed, validate=True)
        text = AESGCM(base64.b64decode(key)).decrypt(
            data[:_NONCE_BYTES], data[_NONCE_BYTES:], subject.encode()
        )
        content: dict[str, Any] = msgspec.json.decode(text)
    except (InvalidTag, ValueError, binascii.Error, msgspec.MsgspecError) as error:
        raise AuditTampered(f"what was sealed for {subject} cannot be opened with its key") from error
    return content


def append_sealed(
    connection: Connection, entries: Sequence[tuple[Entry, str, Mapping[str, Any]]], *, now: datetime
) -> int:
    """
    As `audit.append_all`, for records about persons.

    Args:
        entries: (record, name, content): *content* goes into the body under `sealed`, encrypted for the
            person of that name; with an empty name it is about nobody, and left out.
    """
    ready: list[Entry] = []
    for entry, name, content in entries:
        if name:
            subject, sealed = seal(connection, name, content, now=now)
            ready.append(entry._replace(subject=subject, body={**entry.body, "sealed": sealed}))
        else:
            ready.append(entry)
    return audit.append_all(connection, ready, now=now)


def erase(connection: Connection, person: str, *, reason: str, actor: str, now: datetime) -> dict[str, Any]:
    """
    Delete the key of a person: everything sealed for it can be read by nobody any more; the chain holds. What
    the person said of answers is deleted too.

    Call `scrub` after the commit. What copies of the database keep is said in docs/explanation/audit.md.

    Args:
        person: the name given to `seal`, such as `user:` and a pseudonym, or the id.

    Raises:
        NotFound: nothing is sealed for that person, who said nothing either.
        Conflict: a legal hold names the person, or a record about it.
        BadInput: no reason.
    """
    _check_reason(reason)
    where = (_SUBJECTS.c.name == person) | (_SUBJECTS.c.subject == person)
    row = connection.execute(select(_SUBJECTS).where(where)).mappings().one_or_none()
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA secure_delete=ON")
    name: str = row["name"] if row is not None else person
    said = _forget_feedback(connection, name)
    if row is None and not said:
        raise NotFound(f"nothing is sealed for {person!r}, or it is erased already")
    if row is None:
        seq = audit.append(
            connection, "audit.erase", "feedback", {"reason": reason, "feedback": said}, actor=actor, now=now
        )
        return {"subject": None, "erased": True, "feedback": said, "audit_seq": seq}
    held = _Held(connection)
    subject = row["subject"]
    targets = select(_TABLE.c.target).where(_TABLE.c.subject == subject).distinct()
    if held(subject, "") or any(held(None, target) for target in connection.execute(targets).scalars()):
        raise Conflict(f"a legal hold covers {subject}; `registry audit hold list` shows which")
    connection.execute(delete(_SUBJECTS).where(_SUBJECTS.c.subject == subject))
    body = {"reason": reason, "feedback": said} if said else {"reason": reason}
    seq = audit.append(connection, "audit.erase", f"{SUBJECT}{subject}", body, actor=actor, now=now)
    return {"subject": subject, "erased": True, "feedback": said, "audit_seq": seq}


def _forget_feedback(connection: Connection, name: str) -> int:
    """Delete what the user with this name said; how much. An exception takes it back."""
    if not name.startswith(_USER) or name == _USER:
        return 0
    said = delete(_FEEDBACK).where(_FEEDBACK.c.user == name.removeprefix(_USER))
    return connection.execute(said).rowcount


def scrub(engine: Engine) -> bool:
    """
    After `erase`: have the database overwrite what its journal and free pages still hold; whether it did.

    False when a reader kept SQLite from emptying its write-ahead log: try again. Of PostgreSQL this vacuums
    the table; its archived log is the administrator's.
    """
    raw = engine.raw_connection()
    try:
        cursor = raw.cursor()
        if engine.dialect.name == "sqlite":
            row = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            return bool(row is not None and row[0] == 0)
        raw.driver_connection.autocommit = True  # type: ignore[union-attr] # VACUUM takes no transaction
        cursor.execute("VACUUM subject_keys")
        cursor.execute("VACUUM feedback")
        raw.driver_connection.autocommit = False  # type: ignore[union-attr]
        return True
    finally:
        raw.close()


def place(connection: Connection, scope: str, *, reason: str, actor: str, now: datetime) -> dict[str, Any]:
    """
    Keep what *scope* names from being pruned or erased until the hold is released.

    Args:
        scope: what the targets of the records begin with, such as `release/support`; or `subject/` and a
            person's name or id.

    Raises:
        BadInput: no scope or reason, or too long ones.
        NotFound: nothing is sealed for that person.
    """
    _check_reason(reason)
    if not 1 <= len(scope) <= _LONGEST_SCOPE:
        raise BadInput(f"scope: has {len(scope)} characters, not 1 to {_LONGEST_SCOPE}")
    if scope.startswith(SUBJECT):
        person = scope.removeprefix(SUBJECT)
        known = select(_SUBJECTS.c.subject).where(
            (_SUBJECTS.c.name == person) | (_SUBJECTS.c.subject == person)
        )
        subject = connection.execute(known).scalar()
        if subject is None:
            raise NotFound(f"nothing is sealed for {person!r}, or it is erased already")
        scope = f"{SUBJECT}{subject}"
    row: dict[str, Any] = {
        "id": sortable_id("hold", now),
        "scope": scope,
        "reason": reason,
        "placed_at": to_text(now),
        "placed_by": actor,
        "released_at": None,
        "released_by": None,
    }
    connection.execute(insert(_HOLDS).values(row))
    audit.append(connection, "audit.hold", _hold_target(row["id"]), _recorded(row), actor=actor, now=now)
    return row


def release(connection: Connection, identity: str, *, actor: str, now: datetime) -> dict[str, Any]:
    """
    End a hold.

    Raises:
        NotFound: no hold with that id is in force.
    """
    held = (_HOLDS.c.id == identity) & _HOLDS.c.released_at.is_(None)
    ended = update(_HOLDS).where(held).values(released_at=to_text(now), released_by=actor)
    if not connection.execute(ended).rowcount:
        raise NotFound(f"no hold {identity!r} is in force; `registry audit hold list` shows them")
    row = dict(connection.execute(select(_HOLDS).where(_HOLDS.c.id == identity)).mappings().one())
    audit.append(connection, "audit.release", _hold_target(identity), _recorded(row), actor=actor, now=now)
    return row


def holds(connection: Connection) -> list[dict[str, Any]]:
    """Every hold, newest first; those in force have no `released_at`."""
    query = select(_HOLDS).order_by(_HOLDS.c.placed_at.desc(), _HOLDS.c.id)
    return [dict(row) for row in connection.execute(query).mappings()]


def protected(connection: Connection) -> list[tuple[str, dict[str, Any]]]:
    """(target, body) of every hold, as the audit chain vouches for it."""
    return [(_hold_target(row["id"]), _recorded(row)) for row in holds(connection)]


def prune(
    connection: Connection,
    kind: AuditClass,
    days: int,
    *,
    actor: str,
    now: datetime,
    dry_run: bool = False,
) -> dict[str, Any]:
    """
    Empty the bodies of records of *kind* that are older than *days*, at most 50,000: call until none is left.

    A row that a record vouches for stays vouched for: its digest is in the header. What a hold covers is left
    alone, and so is what verification reads (`KEPT_FOR_EVER`). The emptied ranges are recorded.

    Returns:
        `kind`, `before`, `emptied`, `held`, and `more`: whether to call again.
    """
    before = to_text(now - timedelta(days=days))
    due = (_TABLE.c.kind == kind) & (_TABLE.c.at < before) & _TABLE.c.body.is_not(None)
    for prefix in KEPT_FOR_EVER:
        due &= ~_TABLE.c.action.startswith(prefix, autoescape=True)
    low, high = connection.execute(select(func.min(_TABLE.c.seq), func.max(_TABLE.c.seq)).where(due)).one()
    answer: dict[str, Any] = {"kind": kind, "before": before, "emptied": 0, "held": 0, "more": False}
    if low is None:
        return answer
    held, ranges = _Held(connection), _Ranges(_before(connection, kind, low))
    columns = (_TABLE.c.seq, _TABLE.c.target, _TABLE.c.subject, due.label("due"))
    query = select(*columns).where(_TABLE.c.kind == kind, _TABLE.c.seq.between(low, high))
    stored = connection.execute(query.order_by(_TABLE.c.seq).execution_options(yield_per=5000))
    with closing(stored):  # also when it is left before its end: PostgreSQL keeps a cursor for it
        for seq, target, subject, is_due in stored:
            covered = bool(is_due) and held(subject, target)
            answer["held"] += covered
            if is_due and not covered and ranges.count == MOST_AT_ONCE:
                answer["more"] = True
                break
            ranges.add(seq, taken=bool(is_due) and not covered)
    answer["emptied"] = ranges.count
    if dry_run or not ranges.count:
        return answer
    for first, last in ranges.found:
        connection.execute(update(_TABLE).where(due, _TABLE.c.seq.between(first, last)).values(body=None))
    body = {"kind": kind, "before": before, "emptied": ranges.count, "ranges": ranges.found}
    answer["audit_seq"] = audit.append(connection, PRUNE, f"audit/{kind}", body, actor=actor, now=now)
    return answer


class _Ranges:
    """
    Numbers of the records that are emptied, as ranges among those of one kind.

    A range begins right after the record of that kind before it, so that neighbours are neighbours
    whatever records of the other kind lie between.
    """

    def __init__(self, before: int) -> None:
        self.found: list[tuple[int, int]] = []
        self.count = 0
        self._last = before
        self._open = False

    def add(self, seq: int, *, taken: bool) -> None:
        """The next record of that kind."""
        if taken:
            start = self.found.pop()[0] if self._open else self._last + 1
            self.found.append((start, seq))
            self.count += 1
        self._open = taken
        self._last = seq


class _Held:
    """Whether a hold in force covers a record."""

    def __init__(self, connection: Connection) -> None:
        scopes = [row["scope"] for row in holds(connection) if row["released_at"] is None]
        self._prefixes = tuple(scope for scope in scopes if not scope.startswith(SUBJECT))
        self._subjects = {scope.removeprefix(SUBJECT) for scope in scopes if scope.startswith(SUBJECT)}

    def __call__(self, subject: str | None, target: str) -> bool:
        return subject in self._subjects or target.startswith(self._prefixes)


def emptied(body: str) -> Iterator[tuple[str, int, int]]:
    """(kind, first, last) of every range that the body of a prune record names."""
    said = msgspec.json.decode(body)
    for first, last in said["ranges"]:
        yield said["kind"], int(first), int(last)


def _before(connection: Connection, kind: str, seq: int) -> int:
    query = select(func.max(_TABLE.c.seq)).where(_TABLE.c.kind == kind, _TABLE.c.seq < seq)
    return connection.execute(query).scalar() or 0


def _hold_target(identity: str) -> str:
    return f"hold/{identity}"


def _recorded(row: Mapping[str, Any] | RowMapping) -> dict[str, Any]:
    names = ("scope", "reason", "placed_at", "placed_by", "released_at", "released_by")
    return {name: row[name] for name in names}


def _check_reason(reason: str) -> None:
    if not 1 <= len(reason.strip()) <= _LONGEST_REASON:
        raise BadInput(f"reason: say in 1 to {_LONGEST_REASON} characters why")
