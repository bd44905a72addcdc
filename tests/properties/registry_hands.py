"""What somebody with the password of the database might write there, one act each."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry.clock import to_text
from registry.ids import canonical, digest
from registry.signing import key_id, pem
from tests.properties.registry_model import Paper, World

_WEAK = {"max_age_hours": 8000.0, "suites": []}
_NEWEST_POLICY = (
    "kind = 'gate-policy' AND number = (SELECT max(number) FROM versions WHERE kind = 'gate-policy')"
)


@dataclass(frozen=True)
class Scene:
    """What there is to be written about."""

    world: World
    made: Sequence[Paper]
    keys: Sequence[Ed25519PrivateKey]
    release: str
    """Digest of the release that somebody would like to see live."""


Act = Callable[[sqlite3.Connection, Scene], int]


def write(database: Path, name: str, scene: Scene) -> bool:
    """Do it; whether that changed anything."""
    with contextlib.closing(sqlite3.connect(database)) as raw, raw:
        return ACTS[name](raw, scene) > 0


def _file_evidence(raw: sqlite3.Connection, scene: Scene) -> int:
    loose = [one for one in scene.made if one.digest not in scene.world.papers]
    if not loose:
        return 0
    paper = loose[-1]
    return raw.execute(
        "INSERT INTO evidence (digest, release_name, envelope, received_at, received_from, release_digest,"
        " valid_from) VALUES (?, 'support', ?, ?, 'ci', ?, ?)",
        (
            paper.digest,
            canonical(paper.envelope).decode(),
            to_text(scene.world.now),
            paper.release,
            to_text(paper.begins),
        ),
    ).rowcount


def _trust(raw: sqlite3.Connection, scene: Scene) -> int:
    known = {row[0] for row in raw.execute("SELECT key_id FROM trusted_keys")}
    for key in (one.public_key() for one in scene.keys):
        if key_id(key) not in known:
            return raw.execute(
                "INSERT INTO trusted_keys (key_id, public_key, added_at, added_by) VALUES (?, ?, ?, 'root')",
                (key_id(key), pem(key), to_text(scene.world.now)),
            ).rowcount
    return 0


def _forget(raw: sqlite3.Connection, scene: Scene) -> int:
    failed = [one.digest for one in scene.world.papers.values() if one.verdict != "pass"]
    return raw.execute("DELETE FROM evidence WHERE digest = ?", (failed[-1] if failed else "",)).rowcount


def _approve(raw: sqlite3.Connection, scene: Scene) -> int:
    return raw.execute(
        "INSERT OR IGNORE INTO approvals (name, digest, alias, approver, comment, at)"
        " VALUES ('support', ?, 'production', 'dan', '', ?)",
        (scene.release, to_text(scene.world.now)),
    ).rowcount


def _plain(sql: str, *given: str) -> Act:
    """*sql*; the digest of the release takes the place of RELEASE among *given*."""

    def act(raw: sqlite3.Connection, scene: Scene) -> int:
        return raw.execute(sql, [scene.release if one == "RELEASE" else one for one in given]).rowcount

    return act


ACTS: dict[str, Act] = {
    "file evidence": _file_evidence,
    "trust a key": _trust,
    "forget a failure": _forget,
    "approve": _approve,
    "bring back what was withdrawn": _plain(
        "UPDATE evidence SET withdrawn_at = NULL WHERE withdrawn_at IS NOT NULL"
    ),
    "make revoked keys good": _plain(
        "UPDATE trusted_keys SET revoked_at = NULL WHERE revoked_at IS NOT NULL"
    ),
    "make retired keys good": _plain(
        "UPDATE trusted_keys SET retired_at = NULL WHERE retired_at IS NOT NULL"
    ),
    "weaken the policy": _plain(
        f"UPDATE versions SET content = ?, digest = ? WHERE {_NEWEST_POLICY}",  # noqa: S608
        canonical(_WEAK).decode(),
        digest(_WEAK),
    ),
    "remove the policy": _plain(f"DELETE FROM versions WHERE {_NEWEST_POLICY}"),  # noqa: S608
    "change the author": _plain(
        "UPDATE versions SET created_by = 'dan' WHERE kind = 'release' AND digest = ?", "RELEASE"
    ),
    "move production": _plain(
        "UPDATE aliases SET digest = ?, generation = generation + 1 WHERE alias = 'production'", "RELEASE"
    ),
    "forget a rollback": _plain(
        "DELETE FROM alias_moves WHERE action = 'rollback' AND alias = 'staging' AND generation <"
        " (SELECT generation FROM aliases WHERE alias = 'staging')"
    ),
    "cut the chain": _plain("DELETE FROM audit WHERE seq > (SELECT max(seq) - 2 FROM audit)"),
}
"""By name."""
