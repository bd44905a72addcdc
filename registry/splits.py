"""
Traffic splits: which releases answer an alias's requests beside the one it points at.

An arm answers users, so it needs what a promotion to the alias needs: evidence for exactly its bytes, and
approvals. A shadow answers nobody and needs neither. Each move of the alias ends its split.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, insert, select

from registry import approvals, audit, gate, history, releases, tables, versions, webhooks
from registry.artifacts import Artifacts
from registry.clock import to_text
from registry.db import bump_revision
from registry.entities import Arm, ServedRelease, Shadow, Split, Sticky, Version, check_target
from registry.errors import BadInput, NotFound
from registry.history import OPEN_ALIASES
from registry.ids import sortable_id
from registry.refs import Ref

_TABLE = tables.splits


def put(
    connection: Connection,
    artifacts: Artifacts,
    name: str,
    alias: str,
    *,
    arms: Sequence[tuple[Ref, int]] = (),
    shadow: tuple[Ref, int, int | None] | None = None,
    sticky: Sticky = "user",
    actor: str,
    reason: str,
    now: datetime,
) -> Split:
    """
    Share the traffic of *alias*, in the place of any split before. Call in a write transaction.

    Args:
        arms: (release, share in hundredths of a percent).
        shadow: (release, share, micro-USD it may spend on a day or None).

    Raises:
        BadInput: shares or releases that make no split, or an alias that moves by itself.
        NotFound: the alias points nowhere, or there is no such release.
        PromotionRefused: evidence or approvals of an arm do not hold; nothing has changed.
        VersionTampered: a part of a release no longer has its digest.
    """
    check_target(name, alias)
    if alias in OPEN_ALIASES:
        message = f"alias: {alias!r} moves when a release is created; split one that is promoted"
        raise BadInput(message)
    state = releases.alias_state(connection, name, alias)
    if state is None:
        history.require_unmoved(connection, name, alias)
        raise NotFound(f"{name}@{alias} points at no release yet; promote one, then share its traffic")
    history.require_recorded(connection, state)
    base = releases.assemble(connection, versions.get(connection, "release", Ref(name, digest=state.digest)))
    found: list[Arm] = []
    proof: set[str] = set()
    for ref, share in arms:
        version = _release(connection, artifacts, ref, base)
        found.append(Arm(_arm_name(ref, version), version.digest, share))
        if version.digest != state.digest:
            proof.update(_proven(connection, version, alias, now))
    mirrored = None
    if shadow is not None:
        ref, share, cap = shadow
        mirrored = Shadow(_release(connection, artifacts, ref, base).digest, share, cap)
    split = Split(
        sortable_id("spl", now), name, alias, state.digest, tuple(found), mirrored, sticky, reason,
        tuple(sorted(proof)), to_text(now), actor,
    )  # fmt: skip
    _remove(connection, name, alias)
    connection.execute(insert(_TABLE).values(**_row(split)))
    _record(connection, "split.set", split, _recorded(split), actor=actor, now=now)
    bump_revision(connection)
    return split


def end(
    connection: Connection, name: str, alias: str, *, actor: str, reason: str, now: datetime
) -> Split | None:
    """Give all traffic back to the alias's own release; returns the split that was, if there was one."""
    check_target(name, alias)
    was = get(connection, name, alias)
    if was is None:
        return None
    _remove(connection, name, alias)
    gone = {"id": was.id, "ended": True, "by": actor, "reason": reason}
    _record(connection, "split.end", was, gone, actor=actor, now=now)
    bump_revision(connection)
    return was


def get(connection: Connection, name: str, alias: str) -> Split | None:
    """The split of an alias, or None."""
    query = select(_TABLE).where(_TABLE.c.name == name, _TABLE.c.alias == alias)
    row = connection.execute(query).mappings().one_or_none()
    return _split(row) if row is not None else None


def listing(connection: Connection, name: str | None = None) -> list[Split]:
    """Every split, or those of one release, by name and alias."""
    query = select(_TABLE).order_by(_TABLE.c.name, _TABLE.c.alias)
    if name is not None:
        query = query.where(_TABLE.c.name == name)
    return [_split(row) for row in connection.execute(query).mappings()]


def in_force(connection: Connection) -> list[Split]:
    """
    Every split, once the audit chain agrees.

    Raises:
        RecordTampered, AuditTampered: one was changed behind the registry.
    """
    found = listing(connection)
    for split in found:
        audit.require(connection, _target(split.name, split.alias), _recorded(split))
    return found


def protected(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    """(target, body) of every row here that the audit chain vouches for."""
    for split in listing(connection):
        yield _target(split.name, split.alias), _recorded(split)


def plain(split: Split) -> dict[str, Any]:
    """A split as plain JSON; shares are percent."""
    shadow = split.shadow
    return {
        "id": split.id,
        "name": split.name,
        "alias": split.alias,
        "base": split.base,
        "arms": [
            {"name": split.alias, "digest": split.base, "percent": split.rest / 100},
            *({"name": arm.name, "digest": arm.digest, "percent": arm.share / 100} for arm in split.arms),
        ],
        "shadow": None
        if shadow is None
        else {
            "digest": shadow.digest,
            "percent": shadow.share / 100,
            "usd_per_day": None if shadow.microusd_per_day is None else shadow.microusd_per_day / 1_000_000,
        },
        "sticky": split.sticky,
        "reason": split.reason,
        "evidence": list(split.evidence),
        "set_at": split.set_at,
        "set_by": split.set_by,
    }


def _release(connection: Connection, artifacts: Artifacts, ref: Ref, base: ServedRelease) -> Version:
    """The release *ref* names, once it is what was recorded and could stand in for *base*."""
    name = base.version.name
    if ref.name != name:
        raise BadInput(f"{ref.name!r} is another release than {name!r}; its traffic cannot go there")
    if ref.alias is not None and ref.alias != "latest":
        state = releases.alias_state(connection, name, ref.alias)
        if state is not None:
            history.require_recorded(connection, state)
    version = releases.resolve(connection, ref)
    versions.require_recorded(connection, version)
    served = releases.assemble(connection, version)
    releases.verify_parts(served, artifacts)
    if served.content.kind != base.content.kind:
        raise BadInput(
            f"{name}:{version.number} is a {served.content.kind} release, "
            f"and what it would answer for is a {base.content.kind} release"
        )
    return version


def _proven(connection: Connection, version: Version, alias: str, now: datetime) -> list[str]:
    production = releases.alias_state(connection, version.name, "production")
    claims = gate.require_evidence(connection, version, alias, given=None, production=production, now=now)
    _, terms = gate.terms_for(connection, version.name, alias)
    approvals.require(connection, version, alias, terms)
    return [claim.envelope for claim in claims]


def _arm_name(ref: Ref, version: Version) -> str:
    """What an arm is called: by the alias that was given, else by its number."""
    return ref.alias if ref.alias not in (None, "latest") else f"v{version.number}"


def _remove(connection: Connection, name: str, alias: str) -> None:
    connection.execute(delete(_TABLE).where(_TABLE.c.name == name, _TABLE.c.alias == alias))


def _record(
    connection: Connection, action: str, split: Split, body: dict[str, Any], *, actor: str, now: datetime
) -> None:
    audit.append(connection, action, _target(split.name, split.alias), body, actor=actor, now=now)
    told = {"name": split.name, "alias": split.alias, **body}
    webhooks.enqueue(connection, action, told, now)


def _target(name: str, alias: str) -> str:
    return f"split/{name}@{alias}"


def _content(split: Split) -> dict[str, Any]:
    shadow = split.shadow
    return {
        "base": split.base,
        "arms": [[arm.name, arm.digest, arm.share] for arm in split.arms],
        "shadow": None if shadow is None else [shadow.digest, shadow.share, shadow.microusd_per_day],
        "sticky": split.sticky,
        "evidence": list(split.evidence),
    }


def _recorded(split: Split) -> dict[str, Any]:
    return {"id": split.id, **_content(split), "by": split.set_by, "reason": split.reason}


def _row(split: Split) -> dict[str, Any]:
    content = json.dumps(_content(split), separators=(",", ":"))
    return {
        "id": split.id, "name": split.name, "alias": split.alias, "content": content,
        "reason": split.reason, "set_at": split.set_at, "set_by": split.set_by,
    }  # fmt: skip


def _split(row: RowMapping) -> Split:
    content = json.loads(row["content"])
    return Split(
        row["id"], row["name"], row["alias"], content["base"],
        tuple(Arm(*arm) for arm in content["arms"]),
        None if content["shadow"] is None else Shadow(*content["shadow"]),
        content["sticky"], row["reason"], tuple(content["evidence"]), row["set_at"], row["set_by"],
    )  # fmt: skip
