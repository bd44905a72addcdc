"""All the gateway needs, read in one transaction."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import Connection

from registry import accounts, history, limits, prices, releases, splits
from registry.db import revision
from registry.entities import ServedRelease, Snapshot
from registry.errors import BadInput, NotFound, VersionTampered
from registry.refs import Ref
from registry.versions import get


def read(connection: Connection, known: Iterable[ServedRelease] = ()) -> Snapshot:
    """
    The releases that aliases point at or share traffic with, each previous production, keys, limits, prices.

    One bad release does not take the others down: it is listed in `broken` with the reason.

    Args:
        known: releases that were read before. They cannot change, so they are not read again.

    Raises:
        RecordTampered, AuditTampered: an alias or a split was changed behind the registry; who serves goes on
            with what was read before.
    """
    states = releases.alias_states(connection)
    moves = history.require_all_recorded(connection, states)
    aliases = {(state.name, state.alias): state.digest for state in states}
    wanted = {(name, digest) for (name, _), digest in aliases.items()}
    wanted |= history.previous(connection)
    shared = tuple(s for s in splits.in_force(connection) if aliases.get((s.name, s.alias)) == s.base)
    wanted |= {(split.name, arm.digest) for split in shared for arm in split.arms}
    wanted |= {(split.name, split.shadow.digest) for split in shared if split.shadow is not None}
    before = {(release.version.name, release.version.digest): release for release in known}
    served = [before[key] for key in sorted(wanted & before.keys())]
    broken: dict[str, str] = {}
    for name, digest in sorted(wanted - before.keys()):
        try:
            version = get(connection, "release", Ref(name, digest=digest))
            served.append(releases.assemble(connection, version))
        except (NotFound, VersionTampered, BadInput) as error:
            broken[digest] = error.message
    return Snapshot(
        revision=revision(connection),
        releases=tuple(sorted(served, key=lambda release: (release.version.name, release.version.digest))),
        aliases=aliases,
        keys=tuple(accounts.list_keys(connection)),
        broken=broken,
        limits=tuple(limits.list_rules(connection)),
        prices=tuple(prices.list_prices(connection)),
        unproven=frozenset((move.name, move.alias) for move in moves if move.action == "break-glass"),
        splits=shared,
    )
