"""Makes the evidence and the registry that must be refused."""

from __future__ import annotations

import base64
import json
import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from registry import evaluations, evidence, releases
from registry.clock import to_text, utc_now
from registry.refs import parse_ref
from registry.settings import RegistrySettings
from registry.workspace import open_workspace

CODES = {"edited": "evidence_tampered", "foreign": "evidence_untrusted", "expired": "evidence_expired"}
"""Kind of forgery → the refusal it must meet."""


def write(folder: Path, name: str, kind: str) -> str:
    """
    Write an envelope of *kind* made from the candidate's real evidence; returns its file name.

    `edited` changes the statement under its signature, `foreign` signs it with a new key, and
    `expired` is signed with the true key but ended an hour ago.
    """
    with open_workspace(RegistrySettings(home=folder / ".sluicegate")) as workspace:
        with workspace.reading() as connection:
            digest = releases.resolve(connection, parse_ref(f"{name}@candidate")).digest
            envelope = next(
                envelope
                for _, envelope in evaluations.envelopes(connection, name)
                if evidence.claim(envelope).release == digest
            )
        own_key = workspace.evidence_signer
    statement: dict[str, Any] = json.loads(evidence.open_envelope(envelope)[0])
    if kind == "edited":
        statement["predicate"]["samples"] *= 10
        forged = {**envelope, "payload": base64.b64encode(json.dumps(statement).encode()).decode()}
    elif kind == "foreign":
        forged = evidence.sign(statement, Ed25519PrivateKey.generate())
    else:
        now = utc_now()
        statement["predicate"]["validFrom"] = to_text(now - timedelta(hours=9))
        statement["predicate"]["validUntil"] = to_text(now - timedelta(hours=1))
        forged = evidence.sign(statement, own_key)
    path = folder / f"{kind}.evidence.json"
    path.write_text(json.dumps(forged))
    return path.name


def tampered_registry(folder: Path, name: str) -> Path:
    """A copy of the registry in which somebody edited the candidate release behind the API."""
    home = folder / ".sluicegate"
    copy = folder / "tampered"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    with (
        closing(sqlite3.connect(home / "registry.db")) as source,
        closing(sqlite3.connect(copy / "registry.db")) as target,
    ):
        source.backup(target)
        with target:
            target.execute(
                "UPDATE versions SET content = replace(content, '\"kind\"', '\"Kind\"') "
                "WHERE kind = 'release' AND name = ?",
                (name,),
            )
    return copy
