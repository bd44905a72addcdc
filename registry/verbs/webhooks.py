"""Webhooks: who is told when something is pushed, promoted, rolled back or judged."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from registry import webhook_send, webhooks
from registry.clock import utc_now
from registry.verbs.session import Session


def add(session: Session, url: str, events: Sequence[str], *, allow_private: bool = False) -> dict[str, Any]:
    """A new webhook; `secret` is shown this once."""
    with session.viewing("webhooks.add"):
        pass  # whoever may not add one shall not make this machine look up host names either
    webhook_send.check_target(url, allow_private=allow_private)
    with session.acting("webhooks.add") as (connection, who):
        hook, secret = webhooks.add(
            connection, url, events, allow_private=allow_private, actor=who, now=utc_now()
        )
    return {"ok": True, **asdict(hook), "secret": secret}


def listing(session: Session) -> dict[str, Any]:
    """Every webhook, what waits for it, and what was given up."""
    with session.viewing("webhooks.list") as connection:
        return {"webhooks": webhooks.listing(connection)}


def remove(session: Session, identity: str) -> dict[str, Any]:
    """End a webhook; what was still to be told it is forgotten."""
    with session.acting("webhooks.remove") as (connection, who):
        webhooks.remove(connection, identity, actor=who, now=utc_now())
    return {"ok": True, "id": identity}


def log(session: Session, identity: str | None = None, *, limit: int = 100) -> dict[str, Any]:
    """The newest deliveries: waiting, delivered or dead, and why."""
    with session.viewing("webhooks.list") as connection:
        if identity is not None:
            webhooks.get(connection, identity)
        return {"deliveries": webhooks.deliveries(connection, identity, limit)}


def deliver(session: Session, *, retry_dead: bool = False) -> dict[str, Any]:
    """Send what is due now, as every running gateway does; `ok` is false when something failed."""
    workspace = session.workspace
    with session.acting("webhooks.deliver") as (connection, who):
        revived = webhooks.revive(connection, actor=who, now=utc_now()) if retry_dead else 0
        webhook_send.prune(connection, utc_now())
    tally = asyncio.run(webhook_send.deliver(workspace.reading, workspace.writing, utc_now))
    return {"ok": not (tally.failed or tally.dead), "revived": revived, **asdict(tally)}


def test(session: Session, identity: str) -> dict[str, Any]:
    """Send a webhook a message of type webhook.test now; `error` says why its receiver did not take it."""
    with session.acting("webhooks.deliver") as (connection, who):
        parcel = webhooks.claim_test(connection, identity, actor=who, now=utc_now())
    error = asyncio.run(webhook_send.attempt(session.workspace.writing, utc_now, parcel))
    return {"ok": error is None, "id": parcel.id, "error": error}
