"""
Webhooks: who is told of what, and the outbox of what is still to be told.

An event enters the outbox in the transaction that makes it true, so none is lost and none is told of what was
rolled back. Sending is `webhook_send`. Shapes follow Standard Webhooks 1.0 (standardwebhooks.com): a body of
`type`, `timestamp` and `data`, a secret that begins with `whsec_`.
"""

from __future__ import annotations

import base64
import hashlib
import json
import logging
import secrets
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit, urlunsplit

from sqlalchemy import Connection, RowMapping, delete, func, insert, select, update

from registry import audit, tables
from registry.clock import to_text
from registry.errors import BadInput, NotFound
from registry.ids import canonical, sortable_id

_HOOKS, _OUTBOX = tables.webhooks, tables.webhook_deliveries
EVENTS = (
    "version.push",
    "alias.create",
    "alias.promote",
    "alias.rollback",
    "alias.break-glass",
    "gate.refuse",
    "evidence.file",
    "evidence.withdraw",
    "approval.give",
    "approval.withdraw",
    "split.set",
    "split.end",
)
"""What can be told; named as in the audit chain. A test delivery is of the type `webhook.test`."""
TEST = "webhook.test"
SECRET_PREFIX = "whsec_"  # noqa: S105 - how secrets begin, not one
MOST_ATTEMPTS = 12
MOST_WAITING = 10_000
"""Undelivered events of one webhook; beyond them the oldest are dropped."""
LEASE = timedelta(seconds=30)
"""How long whoever claimed a delivery may take for it, before somebody else may try."""
_MOST_HOOKS = 100
_LONGEST_URL = 2000
_FIRST_WAIT_S, _WAIT_FACTOR, _LONGEST_WAIT_S = 15.0, 3.0, 16_200.0
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_log = logging.getLogger(__name__)

Outcome = Literal["delivered", "failed", "dead"]


@dataclass(frozen=True, slots=True)
class Webhook:
    """Where events go; its secret is never part of it."""

    id: str
    url: str
    events: tuple[str, ...]
    """Event names, `group.*`, or `*`."""
    allow_private: bool
    """Whether its host may have an address that is not public."""
    created_at: str
    created_by: str


@dataclass(frozen=True, slots=True)
class Parcel:
    """One delivery that is due, and all it takes to try it."""

    id: str
    """Stays the same at every attempt: receivers recognise repetitions by it."""
    webhook: str
    url: str
    allow_private: bool
    secret: str
    event: str
    body: str
    attempts: int
    """How often it was tried before."""
    next_at: str


def add(
    connection: Connection,
    url: str,
    events: Sequence[str],
    *,
    allow_private: bool = False,
    actor: str,
    now: datetime,
) -> tuple[Webhook, str]:
    """
    A new webhook, and its secret, which is shown this once.

    Args:
        events: names of `EVENTS`, `alias.*`, or `*`.
        allow_private: it may lie in a private or link-local network, or on this machine.

    Raises:
        BadInput: the URL cannot be used, an event does not exist, or there are 100 webhooks.
    """
    check_url(url, allow_private=allow_private)
    kept = tuple(sorted(set(events)))
    for event in kept:
        if not any(_matches(event, known) for known in EVENTS):
            message = f"--event {event!r} is none of {', '.join(EVENTS)}, alias.*, *"
            raise BadInput(message)
    if not kept:
        message = f"--event: name at least one of {', '.join(EVENTS)}, or '*'"
        raise BadInput(message)
    if len(_active(connection)) >= _MOST_HOOKS:
        message = f"there are {_MOST_HOOKS} webhooks; remove one first"
        raise BadInput(message)
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    hook = Webhook(sortable_id("whk", now), url, kept, allow_private, to_text(now), actor)
    connection.execute(
        insert(_HOOKS).values(
            id=hook.id,
            url=url,
            events=json.dumps({"names": kept, "allow_private": allow_private}),
            secret=secret,
            created_at=hook.created_at,
            created_by=actor,
        )
    )
    audit.append(connection, "webhook.add", f"webhook/{hook.id}", _recorded(hook), actor=actor, now=now)
    return hook, secret


def remove(connection: Connection, identity: str, *, actor: str, now: datetime) -> None:
    """
    End a webhook; what was still to be told it is forgotten.

    Raises:
        NotFound: no such webhook.
    """
    get(connection, identity)
    ended = {"disabled_at": to_text(now), "secret": ""}
    connection.execute(update(_HOOKS).where(_HOOKS.c.id == identity).values(ended))
    connection.execute(delete(_OUTBOX).where(_OUTBOX.c.webhook == identity))
    audit.append(connection, "webhook.remove", f"webhook/{identity}", {}, actor=actor, now=now)


def get(connection: Connection, identity: str) -> Webhook:
    """The webhook with this id. Raises NotFound."""
    for row in _active(connection):
        if row["id"] == identity:
            return _webhook(row)
    message = f"no webhook {identity!r}; `registry webhooks list` shows what there is"
    raise NotFound(message)


def listing(connection: Connection) -> list[dict[str, Any]]:
    """Every webhook, oldest first, with how many events are `waiting` and `dead`, and its last error."""
    found = []
    for row in _active(connection):
        hook = _webhook(row)
        own = _OUTBOX.c.webhook == hook.id
        failed = own & _OUTBOX.c.last_error.is_not(None)
        last = select(_OUTBOX.c.last_error).where(failed).order_by(_OUTBOX.c.id.desc()).limit(1)
        waiting = own & _OUTBOX.c.next_at.is_not(None)
        found.append(
            {
                "id": hook.id,
                "url": hook.url,
                "events": list(hook.events),
                "allow_private": hook.allow_private,
                "created_at": hook.created_at,
                "created_by": hook.created_by,
                "waiting": _count(connection, waiting),
                "dead": _count(connection, own & _dead()),
                "last_error": connection.execute(last).scalar(),
            }
        )
    return found


def enqueue(connection: Connection, event: str, body: Mapping[str, Any], now: datetime) -> int:
    """
    Tell every webhook that wants *event*, once the caller's transaction is committed; returns how many.

    One small query where there are none.

    Args:
        event: one of `EVENTS`.
        body: plain JSON about it, without secrets and without anybody's texts.
    """
    wanting = [
        row for row in _active(connection) if any(_matches(own, event) for own in _webhook(row).events)
    ]
    for row in wanting:
        _put(connection, row["id"], event, body, now)
    return len(wanting)


def claim_test(connection: Connection, identity: str, *, actor: str, now: datetime) -> Parcel:
    """A delivery to one webhook that means nothing, claimed already. Raises NotFound."""
    hook = get(connection, identity)
    made = _put(connection, hook.id, TEST, {"webhook": hook.id, "by": actor}, now)
    parcel = first(connection, hook.id, now, only=made)
    assert parcel is not None  # noqa: S101 - just written
    claim(connection, parcel, now)
    return parcel


def due(connection: Connection, now: datetime) -> list[str]:
    """Ids of the webhooks that something is due for."""
    query = select(_OUTBOX.c.webhook).where(_OUTBOX.c.next_at <= to_text(now)).distinct()
    return sorted(connection.execute(query).scalars())


def first(connection: Connection, webhook: str, now: datetime, *, only: str | None = None) -> Parcel | None:
    """What has been due longest for *webhook*, or None; *only* considers this one delivery."""
    query = select(_OUTBOX, _HOOKS.c.url, _HOOKS.c.events, _HOOKS.c.secret).join(
        _HOOKS, _HOOKS.c.id == _OUTBOX.c.webhook
    )
    query = query.where(
        _OUTBOX.c.webhook == webhook, _OUTBOX.c.next_at <= to_text(now), _HOOKS.c.disabled_at.is_(None)
    )
    if only is not None:
        query = query.where(_OUTBOX.c.id == only)
    row = connection.execute(query.order_by(_OUTBOX.c.next_at, _OUTBOX.c.id).limit(1)).mappings().first()
    if row is None:
        return None
    private = bool(json.loads(row["events"])["allow_private"])
    return Parcel(
        row["id"],
        webhook,
        row["url"],
        private,
        row["secret"],
        row["event"],
        row["body"],
        row["attempts"],
        row["next_at"],
    )


def claim(connection: Connection, parcel: Parcel, now: datetime) -> bool:
    """
    Take a delivery on, for `LEASE`; False when somebody else did, or it has no attempt left.

    Committed before anything is sent: whoever dies in between leaves it due again when the lease ends.
    """
    unchanged = (_OUTBOX.c.id == parcel.id) & (_OUTBOX.c.next_at == parcel.next_at)
    if parcel.attempts >= MOST_ATTEMPTS:
        given_up = {"next_at": None, "last_error": "nobody saw how the last attempt ended"}
        connection.execute(update(_OUTBOX).where(unchanged).values(given_up))
        return False
    taken = {"next_at": to_text(now + LEASE), "attempts": parcel.attempts + 1}
    return connection.execute(update(_OUTBOX).where(unchanged).values(taken)).rowcount == 1


def settle(connection: Connection, parcel: Parcel, error: str | None, now: datetime) -> Outcome:
    """
    Write down how the attempt at a claimed *parcel* ended.

    Args:
        error: why it failed; None: it was delivered.
    """
    own, attempts = _OUTBOX.c.id == parcel.id, parcel.attempts + 1
    if error is None:
        done = {"next_at": None, "delivered_at": to_text(now), "last_error": None}
        connection.execute(update(_OUTBOX).where(own).values(done))
        return "delivered"
    dead = attempts >= MOST_ATTEMPTS
    next_at = None if dead else to_text(now + wait(parcel.id, attempts))
    latest = own & (_OUTBOX.c.attempts == attempts) & _OUTBOX.c.delivered_at.is_(None)
    connection.execute(update(_OUTBOX).where(latest).values(next_at=next_at, last_error=error[:300]))
    return "dead" if dead else "failed"


def wait(identity: str, attempts: int) -> timedelta:
    """
    How long to leave a delivery alone after so many failed attempts.

        15 s · 3^(attempts - 1), at most 4.5 hours, times 0.75 to 1

    Twelve attempts take 17 to 23 hours. The jitter follows from the delivery's id, so that what failed
    together does not come back together, and a test knows when.
    """
    seconds = min(_FIRST_WAIT_S * _WAIT_FACTOR ** (attempts - 1), _LONGEST_WAIT_S)
    drawn = hashlib.sha256(f"{identity}:{attempts}".encode()).digest()[0] / 255
    return timedelta(seconds=seconds * (0.75 + 0.25 * drawn))


def revive(connection: Connection, *, actor: str, now: datetime) -> int:
    """Make every dead delivery due again, with all its attempts; returns how many."""
    again = {"next_at": to_text(now), "attempts": 0}
    count = connection.execute(update(_OUTBOX).where(_dead()).values(again)).rowcount
    if count:
        audit.append(connection, "webhook.revive", "webhook", {"deliveries": count}, actor=actor, now=now)
    return count


def deliveries(connection: Connection, webhook: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
    """The newest deliveries, newest first, without their bodies; `state` is waiting, delivered or dead."""
    query = select(_OUTBOX).order_by(_OUTBOX.c.id.desc()).limit(limit)
    if webhook is not None:
        query = query.where(_OUTBOX.c.webhook == webhook)
    names = ("id", "webhook", "event", "created_at", "attempts", "next_at", "delivered_at", "last_error")
    return [
        {**{name: row[name] for name in names}, "state": _state(row)}
        for row in connection.execute(query).mappings()
    ]


def prune(connection: Connection, before: datetime) -> int:
    """Forget what was delivered, or has been dead, since before *before*; returns how many."""
    ended = _OUTBOX.c.next_at.is_(None) & (_OUTBOX.c.created_at < to_text(before))
    return connection.execute(delete(_OUTBOX).where(ended)).rowcount


def check_url(url: str, *, allow_private: bool) -> SplitResult:
    """
    The parts of a URL that events may be sent to.

    Raises:
        BadInput: it is no https URL (http only to this machine), has a password or fragment, or is too long.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        message = "the webhook's URL cannot be read; it looks like https://host/path"
        raise BadInput(message) from error
    if (
        not parts.hostname
        or len(url) > _LONGEST_URL
        or not url.isascii()
        or not url.isprintable()
        or port == 0
    ):
        message = f"the webhook's URL looks like https://host/path and has at most {_LONGEST_URL} characters"
        raise BadInput(message)
    if parts.username is not None or parts.password is not None or parts.fragment:
        message = (
            "the webhook's URL must have neither user, password nor fragment; receivers verify signatures"
        )
        raise BadInput(message)
    local = allow_private and parts.hostname in _LOOPBACK
    if parts.scheme != "https" and not (parts.scheme == "http" and local):
        message = "the webhook's URL must be https; http is for this machine alone, with --allow-private"
        raise BadInput(message)
    return parts


def protected(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """(target, body) of every webhook in use, which the audit chain vouches for."""
    for hook in map(_webhook, _active(connection)):
        yield f"webhook/{hook.id}", _recorded(hook)


def _recorded(hook: Webhook) -> dict[str, Any]:
    """What the chain says of a webhook: of its URL nothing that may be secret."""
    parts = urlsplit(hook.url)
    shown = urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))
    return {"url": shown, "events": list(hook.events), "allow_private": hook.allow_private}


def _put(connection: Connection, webhook: str, event: str, body: Mapping[str, Any], now: datetime) -> str:
    _make_room(connection, webhook)
    at, identity = to_text(now), sortable_id("msg", now)
    connection.execute(
        insert(_OUTBOX).values(
            id=identity,
            webhook=webhook,
            event=event,
            body=canonical({"type": event, "timestamp": at, "data": dict(body)}).decode(),
            created_at=at,
            attempts=0,
            next_at=at,
        )
    )
    return identity


def _make_room(connection: Connection, webhook: str) -> None:
    waiting = (_OUTBOX.c.webhook == webhook) & _OUTBOX.c.next_at.is_not(None)
    surplus = _count(connection, waiting) - MOST_WAITING + 1
    if surplus > 0:
        oldest = select(_OUTBOX.c.id).where(waiting).order_by(_OUTBOX.c.id).limit(surplus)
        connection.execute(delete(_OUTBOX).where(_OUTBOX.c.id.in_(oldest)))
        _log.warning("webhook %s takes too little: %d of its oldest events were dropped", webhook, surplus)


def _active(connection: Connection) -> Sequence[RowMapping]:
    query = select(_HOOKS).where(_HOOKS.c.disabled_at.is_(None)).order_by(_HOOKS.c.id)
    return connection.execute(query).mappings().all()


def _webhook(row: RowMapping) -> Webhook:
    wanted = json.loads(row["events"])
    return Webhook(
        row["id"],
        row["url"],
        tuple(wanted["names"]),
        bool(wanted["allow_private"]),
        row["created_at"],
        row["created_by"],
    )


def _matches(wanted: str, event: str) -> bool:
    return wanted in ("*", event) or (wanted.endswith(".*") and event.startswith(wanted[:-1]))


def _dead() -> Any:  # noqa: ANN401 - a SQL condition
    return _OUTBOX.c.next_at.is_(None) & _OUTBOX.c.delivered_at.is_(None)


def _state(row: RowMapping) -> str:
    if row["next_at"] is not None:
        return "waiting"
    return "dead" if row["delivered_at"] is None else "delivered"


def _count(connection: Connection, condition: Any) -> int:  # noqa: ANN401 - a SQL condition
    return int(connection.execute(select(func.count()).select_from(_OUTBOX).where(condition)).scalar_one())
