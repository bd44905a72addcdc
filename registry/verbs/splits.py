"""Which releases share an alias's traffic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from registry import splits
from registry.clock import utc_now
from registry.entities import Sticky
from registry.entities.splits import share_of
from registry.errors import BadInput
from registry.refs import Ref, check_alias, check_name, parse_ref
from registry.verbs.session import Session

STICKY: tuple[Sticky, ...] = ("user", "session", "key", "request")
_MICRO = 1_000_000


def put(
    session: Session,
    where: str,
    *,
    arms: Mapping[str, str | float] | None = None,
    shadow: str | None = None,
    shadow_percent: str | float = 100,
    shadow_usd_per_day: float | None = None,
    sticky: str = "user",
    reason: str = "",
    dry_run: bool = False,
) -> dict[str, Any]:
    """
    Share the traffic of an alias.

    Args:
        where: `support` or `support@production`.
        arms: release → percent of the traffic, such as `support@candidate` → 10.
        shadow: a release that is asked too, and answers nobody.
        dry_run: decide, and change nothing.

    Returns:
        `ok`, `dry_run` and the split.
    """
    name, alias = _where(where)
    if sticky not in STICKY:
        raise BadInput(f"sticky: {sticky!r} is none of {', '.join(STICKY)}")
    asked = [(_ref(name, ref), share_of(str(share), f"arm {ref}")) for ref, share in (arms or {}).items()]
    mirrored = None
    if shadow is not None:
        cap = None if shadow_usd_per_day is None else round(shadow_usd_per_day * _MICRO)
        mirrored = (_ref(name, shadow), share_of(str(shadow_percent), "shadow"), cap)
    elif shadow_usd_per_day is not None:
        raise BadInput("shadow_usd_per_day: there is no shadow whose spending it could bound")
    with session.acting("splits.set") as (connection, who):
        split = splits.put(
            connection,
            session.workspace.artifacts,
            name,
            alias,
            arms=asked,
            shadow=mirrored,
            sticky=sticky,
            actor=who,
            reason=reason,
            now=utc_now(),
        )
        if dry_run:
            connection.rollback()
    return {"ok": True, "dry_run": dry_run, **splits.plain(split)}


def end(session: Session, where: str, *, reason: str = "") -> dict[str, Any]:
    """Give all traffic back to the alias's own release; `ended` says whether it was shared. Idempotent."""
    name, alias = _where(where)
    with session.acting("splits.end") as (connection, who):
        was = splits.end(connection, name, alias, actor=who, reason=reason, now=utc_now())
    return {"ok": True, "name": name, "alias": alias, "ended": was is not None}


def listing(session: Session, name: str | None = None) -> dict[str, Any]:
    """`splits`: every one that is set, or those of one release."""
    if name is not None:
        check_name(name)
    with session.viewing("splits.list") as connection:
        return {"splits": [splits.plain(split) for split in splits.listing(connection, name)]}


def _where(text: str) -> tuple[str, str]:
    ref = parse_ref(text)
    if ref.number is not None or ref.digest is not None:
        raise BadInput(f"{text!r} is one release; name an alias, such as {ref.name}@production")
    return ref.name, check_alias(ref.alias or "production")


def _ref(name: str, text: str) -> Ref:
    """A release, by a whole reference or by what stands behind the name: `candidate`, `:4`, a digest."""
    if text.startswith(("@", ":")):
        return parse_ref(name + text)
    if "@" in text or ":" in text.removeprefix("sha256:"):
        return parse_ref(text)
    return parse_ref(f"{name}@{text}")
