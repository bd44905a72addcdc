"""A database from before there was an audit chain: what it holds is recorded once, as it is found."""

from __future__ import annotations

from sqlalchemy import Connection, Engine, select, update

from registry import audit, db, tables
from registry.audit import Entry
from registry.clock import utc_now
from registry.protected import moves, rows

_STATE, _MOVES = tables.state, tables.alias_moves


def adopt(engine: Engine) -> None:
    """
    Record what an upgraded database held before its chain began; afterwards every change is recorded as it
    happens. Does nothing on any other database.
    """
    with db.reading(engine) as connection:
        if not _is_due(connection):
            return
    with db.writing(engine) as connection:
        if not _is_due(connection):  # another process was first
            return
        now = utc_now()
        found = [Entry("adopt", target, body or {}, "migration") for target, body in rows(connection)]
        if found:
            audit.append_all(connection, found, now=now)
        for identity, target, body in moves(connection):
            seq = audit.append(connection, "adopt", target, body, actor="migration", now=now)
            connection.execute(update(_MOVES).where(_MOVES.c.id == identity).values(audit_seq=seq))
        connection.execute(update(_STATE).where(_STATE.c.key == "adopt").values(value=0))


def _is_due(connection: Connection) -> bool:
    return bool(connection.execute(select(_STATE.c.value).where(_STATE.c.key == "adopt")).scalar())
