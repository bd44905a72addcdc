"""GuardrailPolicy and GatePolicy versions."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import Connection

from registry import parse, versions
from registry.entities import GatePolicy, GuardrailPolicy, GuardrailRule, Version
from registry.errors import BadInput, NotFound
from registry.refs import Ref, check_name


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """A policy file: `kind: guardrails` with rules, or `kind: gate` with what must be proven."""

    kind: Literal["guardrails", "gate"]
    name: str
    """Of a gate policy: the release whose aliases it guards."""
    rules: tuple[GuardrailRule, ...] | None = None
    gate: GatePolicy | None = None

    def __post_init__(self) -> None:
        """Refuse a file whose body is not of its kind."""
        check_name(self.name)
        wanted, other = ("rules", "gate") if self.kind == "guardrails" else ("gate", "rules")
        if getattr(self, wanted) is None or getattr(self, other) is not None:
            message = f"a policy of kind {self.kind} has the key {wanted}: and not {other}:"
            raise BadInput(message)


def read_file(path: Path) -> PolicyFile:
    """The policy file at *path*. Raises BadInput naming the line."""
    return parse.read(path, PolicyFile)


def push(connection: Connection, file: PolicyFile, *, actor: str, now: datetime) -> Version:
    """Store a policy. Idempotent: equal content, same version."""
    if file.kind == "guardrails":
        content: object = GuardrailPolicy(file.rules or ())
        return versions.push(connection, "guardrail-policy", file.name, content, actor=actor, now=now)
    return versions.push(connection, "gate-policy", file.name, file.gate, actor=actor, now=now)


def guardrails_of(version: Version) -> GuardrailPolicy:
    """The typed content of a guardrail policy version."""
    return parse.build(version.content, GuardrailPolicy, source=f"policy {version.name}:{version.number}")


def gate_for(connection: Connection, release: str) -> tuple[Version | None, GatePolicy]:
    """
    The gate policy in force for *release*: its newest version, or the default.

    The default asks for fresh passing evidence from any one suite.

    Raises:
        VersionTampered: the stored policy no longer has its digest.
    """
    try:
        version = versions.get(connection, "gate-policy", Ref(release))
    except NotFound:
        return None, GatePolicy()
    return version, parse.build(version.content, GatePolicy, source=f"gate policy {release}")
