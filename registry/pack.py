"""`releases export`: a release and everything that belongs to it as one file. See `registry.archive`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, select

from registry import bundle, evidence, releases, tables
from registry.archive import FORMAT, Archive, Entry, Named, entry_key, hex_of, key_ids, rests_on
from registry.artifacts import Artifacts
from registry.bundle import MANIFEST, Bar, Member, silent
from registry.collect import Reading, mentions
from registry.entities import Kind
from registry.errors import NotFound, VersionTampered
from registry.ids import PREFIX, digest_bytes
from registry.refs import parse_ref

_TABLE, _EVIDENCE, _KEYS = tables.versions, tables.evidence, tables.trusted_keys


def export(
    reading: Reading, artifacts: Artifacts, ref: str, path: Path, *, bar: Bar = silent
) -> dict[str, Any]:
    """
    Write the release that *ref* names to the file *path*.

    Args:
        reading: opens a read transaction for somebody who may export.

    Returns:
        `release`, `digest`, `file`, `bytes`, `members`, `evidence` (how many envelopes).

    Raises:
        NotFound: no such release, or a blob of it is gone.
        VersionTampered: something no longer has its digest; nothing is written.
        StoreUnavailable: the file cannot be written.
    """
    with reading() as connection:
        version = releases.resolve(connection, parse_ref(ref))
        archive = gather(connection, version.name, version.digest)
    texts = dict(_texts(archive))
    blobs = [Member(f"blobs/{hex_of(digest)}", artifacts.size(digest), digest) for digest in archive.blobs]
    members = [*(Member(name, len(text), digest_bytes(text)) for name, text in texts.items()), *blobs]
    texts[MANIFEST] = bundle.manifest_of(FORMAT, members, release=archive.release)
    with bundle.writing(path) as writer, bar("exporting", sum(member.size for member in members)) as advance:
        for name in sorted([*texts, *(blob.name for blob in blobs)]):
            blocks = (
                (texts[name],) if name in texts else artifacts.blocks(PREFIX + name.removeprefix("blobs/"))
            )
            advance(writer.add(name, blocks).size)
        if {*writer.written} - {*members} != {_manifest_member(texts[MANIFEST])}:
            raise VersionTampered(f"a blob of {ref} changed while it was read; try again")
    return {
        "ok": True,
        "release": f"{version.name}:{version.number}",
        "digest": version.digest,
        "file": str(path),
        "bytes": path.stat().st_size,
        "members": len(members) + 1,
        "evidence": len(archive.envelopes),
    }


def gather(connection: Connection, name: str, digest: str) -> Archive:
    """
    Everything in the database that belongs to a release.

    Raises:
        NotFound: no such release.
        VersionTampered: a content or an envelope no longer has its digest.
    """
    query = select(_EVIDENCE.c.digest, _EVIDENCE.c.envelope).where(
        _EVIDENCE.c.release_digest == digest, _EVIDENCE.c.withdrawn_at.is_(None)
    )
    envelopes = {row.digest: row.envelope for row in connection.execute(query.order_by(_EVIDENCE.c.digest))}
    for identity, text in envelopes.items():
        if digest_bytes(text.encode()) != identity:
            raise VersionTampered(f"evidence {identity} was changed behind the registry")
    wanted: dict[tuple[str, str], set[str]] = {("release", digest): {name}}
    for text in envelopes.values():
        for kind, other, named in rests_on(evidence.claim(json.loads(text))):
            wanted.setdefault((kind, other), set()).add(named)
    entries = {entry_key(entry): entry for entry in _closure(connection, wanted)}
    if ("release", digest) not in entries:
        raise NotFound(f"no release {name}@{digest} in the registry")
    signers = {signer for text in envelopes.values() for signer in key_ids(text)}
    keys = connection.execute(select(_KEYS.c.key_id, _KEYS.c.public_key).where(_KEYS.c.key_id.in_(signers)))
    return Archive(digest, entries, envelopes, {row.key_id: row.public_key for row in keys})


def _texts(archive: Archive) -> Iterator[tuple[str, bytes]]:
    for entry in archive.entries.values():
        yield entry.member, entry.encode()
    for identity, text in archive.envelopes.items():
        yield f"evidence/{hex_of(identity)}.json", text.encode()
    for identity, text in archive.keys.items():
        yield f"keys/{hex_of(identity)}.pem", text.encode()


def _closure(connection: Connection, wanted: Mapping[tuple[str, str], set[str]]) -> Iterator[Entry]:
    """Every content that is wanted, or mentioned by one that is; other releases and gates are left out."""
    waiting = {digest for _, digest in wanted}
    seen: set[str] = set()
    while waiting:
        digest = waiting.pop()
        seen.add(digest)
        rows = connection.execute(select(_TABLE).where(_TABLE.c.digest == digest).order_by(_TABLE.c.name))
        by_kind: dict[Kind, list[Any]] = {}
        for row in rows:
            by_kind.setdefault(row.kind, []).append(row)
        for kind, known in by_kind.items():
            names = wanted.get((kind, digest), set())
            if kind in ("release", "gate-policy") and not names:
                continue
            chosen = [row for row in known if row.name in names] or known[:1]
            yield Entry(kind, digest, _content(known[0]), tuple(_named(row) for row in chosen))
            waiting |= mentions(known[0].content) - seen


def _content(row: Any) -> str:  # noqa: ANN401
    if digest_bytes(row.content.encode()) != row.digest:
        raise VersionTampered(f"{row.kind} {row.name}:{row.number} no longer has digest {row.digest}")
    return str(row.content)


def _named(row: Any) -> Named:  # noqa: ANN401
    return Named(row.name, row.number, row.meta, row.created_at)


def _manifest_member(text: bytes) -> Member:
    return Member(MANIFEST, len(text), digest_bytes(text))
