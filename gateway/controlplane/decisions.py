"""
What the gateway decided about requests, for the audit chain: refusals, and what guardrails did.

A request that used something reaches the chain through its journal, one record each, exactly once. One that
was refused before that, or that a guardrail changed, is counted: one record for each minute, key, release,
reason and user, so that a flood of them fills no database. Counts wait in memory until their minute is over;
those of a process that is killed are in its metrics and its log alone.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from gateway.dataplane.usage import UsageRecord
from gateway.errors import (
    BudgetExhausted,
    GuardrailBlocked,
    InvalidKey,
    KeyNotAllowed,
    LimitsUnavailable,
    MissingKey,
    PriceUnknown,
    RateLimited,
    UnsafeField,
)
from registry.audit import Entry
from registry.entities import UsageEntry

POLICY = frozenset(
    error.code
    for error in (
        BudgetExhausted,
        GuardrailBlocked,
        InvalidKey,
        KeyNotAllowed,
        LimitsUnavailable,
        MissingKey,
        PriceUnknown,
        RateLimited,
        UnsafeField,
    )
)
"""Codes of errors that are somebody's decision, not a fault."""
_MOST_GROUPS = 1000
"""Waiting in one process; what comes beyond them is counted by its reason alone."""
_MOST_IDS = 8
_MINUTE = len("2026-11-23T03:04")

About = tuple[Entry, str, Mapping[str, str]]
"""A record, whom it is about (empty: nobody), and what of it only that person's key opens."""


class _Group(NamedTuple):
    """What requests have in common that are counted together."""

    minute: str
    code: str
    key: str
    account: str
    release: str
    digest: str
    user: str
    session: str


@dataclass(slots=True)
class _Count:
    requests: int = 0
    ids: list[str] = field(default_factory=list)
    guards: dict[str, int] = field(default_factory=dict)

    def add(self, other: _Count) -> None:
        self.requests += other.requests
        self.ids = [*self.ids, *other.ids][:_MOST_IDS]
        for guard, times in other.guards.items():
            self.guards[guard] = self.guards.get(guard, 0) + times


class Decisions:
    """Counts the decisions of one process. `note` is called by its event loop, the rest by a thread."""

    def __init__(self) -> None:
        """Nothing was decided yet."""
        self._lock = threading.Lock()
        self._counts: dict[_Group, _Count] = {}

    @property
    def waiting(self) -> int:
        """Groups that are not in the chain yet."""
        return len(self._counts)

    def note(self, record: UsageRecord, *, journaled: bool) -> None:
        """
        Count what was decided about a request that ended.

        Args:
            journaled: the journal has it, and brings a refusal to the chain by itself.
        """
        code = record.error if record.error in POLICY and not journaled else ""
        if not code and not record.findings:
            return
        group = _Group(
            record.at[:_MINUTE],
            code,
            record.key_id or "unknown",
            record.account,
            record.release,
            record.digest,
            record.user,
            record.session,
        )
        with self._lock:
            count = self._counts.get(group)
            if count is None:
                if len(self._counts) >= _MOST_GROUPS:
                    group = _Group(group.minute, code, "other", "", "", "", "", "")
                count = self._counts.setdefault(group, _Count())
            count.requests += 1
            if len(count.ids) < _MOST_IDS:
                count.ids.append(record.request_id)
            for rule, action in record.findings:
                guard = f"{rule}:{action}"
                count.guards[guard] = count.guards.get(guard, 0) + 1

    def take(self, now: str | None) -> dict[_Group, _Count]:
        """Groups whose minute is over at *now*, or with None all; they are counted here no more."""
        minute = now[:_MINUTE] if now is not None else None
        with self._lock:
            due = [group for group in self._counts if minute is None or group.minute < minute]
            return {group: self._counts.pop(group) for group in due}

    def give_back(self, taken: Mapping[_Group, _Count]) -> None:
        """Count again what could not be stored; beyond the bound it is lost, and the metrics have it."""
        with self._lock:
            for group, count in taken.items():
                newer = self._counts.get(group)
                if newer is not None:
                    newer.add(count)
                elif len(self._counts) < 2 * _MOST_GROUPS:
                    self._counts[group] = count


def of_counts(taken: Mapping[_Group, _Count]) -> list[About]:
    """The records of counted decisions, in the order of their minutes."""
    return [
        _about(
            "request.refuse" if group.code else "request.guard",
            group.release,
            {
                "minute": group.minute,
                "code": group.code,
                "count": count.requests,
                "requests": count.ids,
                "key": group.key,
                "account": group.account,
                "digest": group.digest,
                "guards": count.guards,
            },
            group.user,
            group.session,
        )
        for group, count in sorted(taken.items())
    ]


def of_entry(entry: UsageEntry) -> About:
    """The record of one request that used something and was then cut by policy."""
    body = {
        "minute": entry.at[:_MINUTE],
        "code": entry.error,
        "count": 1,
        "requests": [entry.request_id],
        "key": entry.key_id,
        "account": entry.account,
        "digest": entry.digest,
        "status": entry.status,
    }
    return _about("request.cut", entry.release, body, entry.user, entry.session)


def _about(action: str, release: str, body: Mapping[str, object], user: str, session: str) -> About:
    target = f"requests/{release or 'unknown'}"
    person = f"user:{user}" if user else f"session:{session}" if session else ""
    entry = Entry(action, target, body, "gateway", "decision")
    return entry, person[:64], {"user": user, "session": session}
