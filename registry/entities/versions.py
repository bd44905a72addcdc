"""Versions and the aliases that point at them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from registry.refs import check_alias, check_name

Kind = Literal[
    "prompt",
    "index",
    "model",
    "dataset",
    "suite",
    "judge",
    "guardrail-policy",
    "gate-policy",
    "tool-schema",
    "price-table",
    "release",
]
MoveAction = Literal["create", "promote", "rollback", "break-glass"]


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable, numbered, content-addressed entry of the registry."""

    kind: Kind
    name: str
    number: int
    digest: str
    content: Mapping[str, Any]
    """What the digest covers, as plain JSON."""
    meta: Mapping[str, Any]
    """Circumstances of the first push (commit, run id); not covered by the digest."""
    created_at: datetime
    created_by: str


@dataclass(frozen=True, slots=True)
class AliasState:
    """Where an alias points now."""

    name: str
    alias: str
    digest: str
    generation: int
    """Grows by one at each move; the compare-and-swap token."""


@dataclass(frozen=True, slots=True)
class AliasMove:
    """One entry of the history: who moved what, when and why."""

    id: str
    name: str
    alias: str
    from_digest: str | None
    to_digest: str
    action: MoveAction
    actor: str
    reason: str
    evidence: tuple[str, ...]
    """Digests of the envelopes that justified the move; none for a rollback or a break-glass."""
    at: datetime


def check_target(name: str, alias: str) -> None:
    """
    Check the two halves of an alias.

    Raises:
        BadInput: either is malformed.
    """
    check_name(name)
    check_alias(alias)
