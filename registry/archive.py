"""
A release as one file, with everything it pins, its evidence and what that rests on.

    blobs/<sha256>                    models, passages, datasets
    evidence/<sha256>.json            every envelope about the release that was not withdrawn
    keys/<sha256>.pem                 public keys that signed them, by key id
    manifest.json                     format, release, and the digest and size of every member
    versions/<kind>/<sha256>.json     content as stored, and the names it has

Members stand in this order, so that a release with the same evidence is the same file, byte for byte. It is
checked offline: the bytes by their digests, the evidence by its signatures. Whose keys count is for the
reader to say; those inside only tell which ones signed.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from registry import bundle, evidence, parse, signing, versions
from registry.bundle import MANIFEST, MOST_BYTES, Bar, Bundle, silent
from registry.clock import from_text, to_text
from registry.collect import blob_of, mentions
from registry.entities import (
    DatasetContent,
    IndexContent,
    JudgeContent,
    Kind,
    ModelContent,
    PromptContent,
    ReleaseContent,
    ToolSchema,
)
from registry.errors import BadInput, EvidenceTampered, PlatformError, VersionTampered
from registry.evidence import Claim
from registry.ids import PREFIX, canonical, digest_bytes
from registry.refs import check_name

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

FORMAT = "sluicegate-release/1"
_SHAPES: dict[str, type] = {
    "prompt": PromptContent,
    "index": IndexContent,
    "model": ModelContent,
    "dataset": DatasetContent,
    "judge": JudgeContent,
    "tool-schema": ToolSchema,
    "release": ReleaseContent,
}
_MOST_TEXT = 1 << 30
"""Bytes of all contents and envelopes together, which are held in memory."""


class Named(NamedTuple):
    """One name under which a content is known."""

    name: str
    number: int
    meta: str
    """Canonical JSON."""
    created_at: str


@dataclass(frozen=True, slots=True)
class Entry:
    """A content as it is stored, and the names it has."""

    kind: Kind
    digest: str
    content: str
    """Canonical JSON: what the digest covers."""
    names: tuple[Named, ...]

    @property
    def member(self) -> str:
        """Its place in the archive."""
        return f"versions/{self.kind}/{hex_of(self.digest)}.json"

    def encode(self) -> bytes:
        """Its text in the archive."""
        names = [named._asdict() for named in self.names]
        return canonical({"kind": self.kind, "digest": self.digest, "content": self.content, "names": names})


@dataclass(frozen=True, slots=True)
class Archive:
    """What an archive holds, without the bytes of its blobs."""

    release: str
    """Digest of the release."""
    entries: Mapping[tuple[str, str], Entry]
    """(kind, digest) → content."""
    envelopes: Mapping[str, str]
    """Digest → canonical text of the envelope."""
    keys: Mapping[str, str]
    """Key id → PEM."""

    @property
    def blobs(self) -> list[str]:
        """Digests of the blobs that its contents cannot do without, sorted."""
        found = {blob_of(entry.kind, json.loads(entry.content)) for entry in self.entries.values()}
        return sorted(digest for digest in found if digest)

    @property
    def content(self) -> ReleaseContent:
        """The release itself. Raises BadInput when it is malformed."""
        content = json.loads(self.entries["release", self.release].content)
        return parse.build(content, ReleaseContent, source=f"release {self.release}")

    def claims(self) -> list[Claim]:
        """What each envelope says, by its digest; no signature is checked."""
        return [evidence.claim(json.loads(text)) for _, text in sorted(self.envelopes.items())]


def entry_key(entry: Entry) -> tuple[str, str]:
    """What an archive knows a content by: its kind and digest."""
    return entry.kind, entry.digest


def inspect(path: Path, *, most_bytes: int = MOST_BYTES, bar: Bar = silent) -> Archive:
    """
    What the archive at *path* holds, once every byte in it was checked against the digests.

    Whether its evidence is signed by somebody who counts is another question: see `signers_of`.

    Raises:
        BadInput: it is no archive of a release, holds too much or too little, or is malformed.
        VersionTampered: something in it does not have its digest.
        EvidenceTampered: an envelope is malformed or about something else.
    """
    with bundle.reading(path, most_bytes=most_bytes) as opened:
        manifest = opened.manifest(FORMAT, bar)
        if list(opened.sizes) != sorted(opened.sizes):
            raise BadInput(f"{path}: its members are not in order")
        if sum(size for name, size in opened.sizes.items() if not name.startswith("blobs/")) > _MOST_TEXT:
            raise BadInput(f"{path}: has more text than {_MOST_TEXT} bytes")
        archive = Archive(
            release=str(manifest.get("release")),
            entries={entry_key(entry): entry for entry in _read_entries(opened)},
            envelopes=dict(_read_envelopes(opened)),
            keys=dict(_read_keys(opened)),
        )
        _check_whole(archive, opened)
    return archive


def signers_of(archive: Archive, keys: Iterable[Ed25519PublicKey] = ()) -> dict[str, list[str]]:
    """
    Digest of each envelope → ids of the keys that did sign it, as far as the keys are known.

    Args:
        keys: beside those in the archive.

    Raises:
        EvidenceTampered: a signature does not fit the key that it names.
    """
    known = {**archive.keys, **{signing.key_id(key): signing.pem(key) for key in keys}}
    found: dict[str, list[str]] = {}
    for identity, text in archive.envelopes.items():
        payload, signatures = evidence.open_envelope(json.loads(text))
        held = [signature for signature in signatures if signature["keyid"] in known]
        for signature in held:
            evidence.check_signature(payload, signature, known[signature["keyid"]].encode())
        found[identity] = [signature["keyid"] for signature in held]
    return found


def verify(
    path: Path,
    *,
    keys: Sequence[Path] = (),
    trust: Sequence[str] = (),
    now: datetime,
    most_bytes: int = MOST_BYTES,
    bar: Bar = silent,
) -> dict[str, Any]:
    """
    Check an archive with nothing but the file and public keys.

    Args:
        keys: files of public keys in PEM that count.
        trust: ids of keys that count; the archive may hold them.
        now: decides which evidence is in force.

    Returns:
        `ok`: the bytes hold and, when keys were named, at least one of them signed evidence; `release`,
        `digest`, `members`, `bytes`, `versions`, `evidence`, and in `missing` what evidence names and the
        archive does not hold.

    Raises:
        BadInput, VersionTampered, EvidenceTampered: as `inspect` and `signers_of`.
    """
    given = [_read_key(file) for file in keys]
    archive = inspect(path, most_bytes=most_bytes, bar=bar)
    signed = signers_of(archive, given)
    counting = {*trust, *(signing.key_id(key) for key in given)}
    shown = [
        {
            "digest": claim.envelope,
            "suite": claim.suite_name,
            "verdict": claim.verdict,
            "samples": claim.samples,
            "valid_from": to_text(claim.valid_from),
            "valid_until": to_text(claim.valid_until),
            "in_force": claim.valid_from <= now < claim.valid_until,
            "signers": signed[claim.envelope],
            "trusted": bool(counting & set(signed[claim.envelope])),
        }
        for claim in archive.claims()
    ]
    return {
        "ok": not counting or any(item["trusted"] for item in shown),
        "checked_against": sorted(counting),
        **summary(archive),
        "bytes": path.stat().st_size,
        "evidence": shown,
        "missing": _missing(archive),
    }


def summary(archive: Archive) -> dict[str, Any]:
    """`release`, its `digest`, the `versions` and how many blobs and keys an archive holds, as plain JSON."""
    return {
        "release": archive.content.name,
        "digest": archive.release,
        "versions": [
            {"kind": entry.kind, "name": named.name, "number": named.number, "digest": entry.digest}
            for _, entry in sorted(archive.entries.items())
            for named in entry.names
        ],
        "blobs": len(archive.blobs),
        "keys": sorted(archive.keys),
    }


def rests_on(claim: Claim) -> Iterator[tuple[str, str, str]]:
    """(kind, digest, name) of what evidence names, but the baseline: a release of its own."""
    yield "suite", claim.suite, claim.suite_name
    yield "dataset", claim.dataset, claim.dataset_name
    for name, digest in claim.judges:
        yield "judge", digest, name
    if claim.gate_policy:
        yield "gate-policy", claim.gate_policy, claim.release_name


def _missing(archive: Archive) -> list[dict[str, str]]:
    named = {place for claim in archive.claims() for place in rests_on(claim)}
    absent = sorted(place for place in named if place[:2] not in archive.entries)
    return [{"kind": kind, "digest": digest, "name": name} for kind, digest, name in absent]


def _read_entries(opened: Bundle) -> Iterator[Entry]:
    for member in opened.sizes:
        if not member.startswith("versions/"):
            continue
        where = f"{opened.source}: {member}"
        value = bundle.as_object(opened.read(member), where)
        try:
            names = tuple(Named(**named) for named in value.pop("names"))
            entry = Entry(names=names, **value)
            _check_entry(entry)
        except (TypeError, KeyError, ValueError, AttributeError) as error:
            raise BadInput(f"{where}: is not a version") from error
        except PlatformError as error:
            raise type(error)(f"{where}: {error.message}") from error
        if entry.member != member:
            raise BadInput(f"{where}: holds {entry.kind} {entry.digest}")
        yield entry


def _check_entry(entry: Entry) -> None:
    if entry.kind not in versions.GROUPS or not entry.names:
        message = f"kind {entry.kind!r} is unknown, or it has no name"
        raise BadInput(message)
    if digest_bytes(entry.content.encode()) != entry.digest:
        message = f"its content does not have digest {entry.digest}"
        raise VersionTampered(message)
    content = bundle.as_object(entry.content.encode(), "its content")
    shape = _SHAPES.get(entry.kind)
    if shape is not None:
        parse.build(content, shape, source="its content")
    for named in entry.names:
        check_name(named.name)
        bundle.as_object(named.meta.encode(), "its meta")
        whole = type(named.number) is int and 1 <= named.number < 2**31
        if not whole or to_text(from_text(named.created_at)) != named.created_at:
            message = f"{named.name}: number {named.number!r} or created_at {named.created_at!r} is malformed"
            raise BadInput(message)
    if len({named.name for named in entry.names}) < len(entry.names):
        message = "it has a name twice"
        raise BadInput(message)


def _read_envelopes(opened: Bundle) -> Iterator[tuple[str, str]]:
    for member in opened.sizes:
        if member.startswith("evidence/"):
            text = opened.read(member)
            bundle.as_object(text, f"{opened.source}: {member}")
            identity = digest_bytes(text)
            if member != f"evidence/{hex_of(identity)}.json":
                raise VersionTampered(f"{opened.source}: {member} has digest {identity}")
            yield identity, text.decode()


def _read_keys(opened: Bundle) -> Iterator[tuple[str, str]]:
    for member in opened.sizes:
        if member.startswith("keys/"):
            text = opened.read(member)
            key = signing.read_public_key(text, f"{opened.source}: {member}")
            identity = signing.key_id(key)
            if member != f"keys/{hex_of(identity)}.pem" or signing.pem(key).encode() != text:
                raise BadInput(
                    f"{opened.source}: {member} holds key {identity}, or not as it is written here"
                )
            yield identity, text.decode()


def _check_whole(archive: Archive, opened: Bundle) -> None:
    """Refuse an archive that lacks something its release needs, or holds what it does not need."""
    source = opened.source
    if ("release", archive.release) not in archive.entries:
        raise BadInput(f"{source}: the release {archive.release} itself is not in it")
    content = archive.content
    if [named.name for named in archive.entries["release", archive.release].names] != [content.name]:
        raise BadInput(f"{source}: the release has another name than it says")
    numbered = [
        (entry.kind, named.name, named.number) for entry in archive.entries.values() for named in entry.names
    ]
    if len(set(numbered)) < len(numbered):
        raise BadInput(f"{source}: gives two contents the same name and number")
    for claim in archive.claims():
        if (claim.release, claim.release_name) != (archive.release, content.name):
            raise EvidenceTampered(f"{source}: evidence {claim.envelope} is about another release")
    by_digest: dict[str, set[tuple[str, str]]] = {}
    for place in archive.entries:
        by_digest.setdefault(place[1], set()).add(place)
    waiting = {("release", archive.release)}
    waiting |= {(kind, digest) for claim in archive.claims() for kind, digest, _ in rests_on(claim)}
    waiting &= archive.entries.keys()
    reached: set[tuple[str, str]] = set()
    while waiting:
        place = waiting.pop()
        reached.add(place)
        for digest in mentions(archive.entries[place].content):
            waiting |= by_digest.get(digest, set()) - reached
    needed = set(_pinned(archive))
    lacking = sorted(digest for digest in needed if digest not in by_digest)
    if lacking:
        raise BadInput(f"{source}: lacks {', '.join(lacking[:3])}, which its release pins")
    blobs = {f"blobs/{hex_of(digest)}" for digest in archive.blobs}
    signers = {signer for text in archive.envelopes.values() for signer in key_ids(text)}
    own = {entry.member for place, entry in archive.entries.items() if place in reached}
    own |= {f"evidence/{hex_of(identity)}.json" for identity in archive.envelopes} | blobs | {MANIFEST}
    own |= {f"keys/{hex_of(identity)}.pem" for identity in archive.keys.keys() & signers}
    odd = sorted(own ^ opened.sizes.keys())
    if odd:
        raise BadInput(f"{source}: lacks, or does not need: {', '.join(odd[:3])}")


def _pinned(archive: Archive) -> Iterator[str]:
    """Digests of what the release and its prompts cannot do without."""
    release = archive.content
    prompts = [release.prompt, *(variant.prompt for variant in release.variants or ())]
    own = release.model_digest if release.kind == "prediction" else None
    for digest in (own, *prompts, release.index, release.guardrails, *(release.tools or ()), release.prices):
        if digest:
            yield digest
    for kind, digest in archive.entries:
        if kind == "prompt":
            partials = json.loads(archive.entries[kind, digest].content).get("partials") or {}
            yield from partials.values()


def key_ids(envelope: str) -> list[str]:
    """The ids of the keys that an envelope says it is signed with."""
    _, signatures = evidence.open_envelope(json.loads(envelope))
    return [signature["keyid"] for signature in signatures]


def _read_key(path: Path) -> Ed25519PublicKey:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise BadInput(f"--key {path}: cannot be read: {error.strerror}") from error
    return signing.read_public_key(text, f"--key {path}")


def hex_of(digest: str) -> str:
    """A digest without `sha256:`."""
    return digest.removeprefix(PREFIX)
