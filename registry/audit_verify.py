"""
`audit verify`: is the chain whole, and does every row still say what the chain says of it?

The chain is read once, in order, some thousand records at a time: sequence, hashes, bodies, signatures,
anchors. What is kept of it is the last record about each target. Then every row that the chain vouches for is
compared with that, and what is left over must have been removed on purpose.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
from sqlalchemy import Connection, func, select

from registry import anchor, audit, audit_export, audit_keep, evidence, history, protected, tables, versions
from registry.anchor import Head
from registry.clock import to_text
from registry.errors import AuditTampered, PlatformError
from registry.ids import digest
from registry.signing import key_id, read_public_key

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MOST_PROBLEMS = 1000
"""More are counted and not named."""
_TABLE, _ALIASES, _MOVES, _EVIDENCE = tables.audit, tables.aliases, tables.alias_moves, tables.evidence
_READABLE = (TypeError, ValueError, AttributeError, KeyError, msgspec.MsgspecError)
_COLLECT = "registry.collect"
_REMOVED = (".remove", ".collect", ".delete", ".unlabel", "approval.withdraw")
_ROWS_OF = frozenset(
    {"api-key", "approval", "audit-key", "evidence", "evidence-key", "hold", "limit", "user", "webhook"}
)
"""What targets begin with that stand for a row, beside versions."""


class _Said(NamedTuple):
    """The last record about a target."""

    seq: int
    action: str
    body_digest: str


class Problems:
    """What is wrong, in the order it was found; past `MOST_PROBLEMS` only counted."""

    def __init__(self) -> None:
        """None yet."""
        self.found: list[dict[str, str]] = []
        self.count = 0

    def add(self, where: str, problem: str) -> None:
        """Note what is wrong with *where*."""
        self.count += 1
        if self.count <= MOST_PROBLEMS:
            self.found.append({"where": where, "problem": problem})


class Chain:
    """Checks records in order as they are fed, and remembers the last one about each target."""

    def __init__(
        self,
        problems: Problems,
        keys: Mapping[str, Ed25519PublicKey],
        *,
        first: int = 1,
        previous: str = audit.START,
        heads: Iterable[tuple[str, Head]] = (),
        every_signature: bool = False,
    ) -> None:
        """
        Begin at record *first*, which follows the one with the hash *previous*.

        Args:
            keys: whose signatures count, by id.
            heads: (where it was kept, head) that must be part of the chain.
        """
        self.problems = problems
        self.begin, self.end, self.hash = first, first - 1, previous
        self.last: dict[str, _Said] = {}
        self.moves: dict[int, tuple[str, str]] = {}
        """Number → target and body digest, of every record about an alias."""
        self.signers: dict[str, int] = {}
        """Key id → how many signatures carry it."""
        self.without_body = 0
        self._signed_at = self.end
        self._signature: tuple[str | None, str | None] = (None, None)
        self._signed_hash = previous
        self._keys, self._every = keys, every_signature
        self._heads: dict[int, list[tuple[str, Head]]] = {}
        for where, head in heads:
            self._heads.setdefault(head.seq, []).append((where, head))
        self._runs: dict[str, list[list[int]]] = {}
        """Kind → [first, last] of records without bodies, with none of that kind between that has one."""
        self._open: dict[str, bool] = {}
        self._explained: dict[str, list[tuple[int, int]]] = {}

    def feed(self, rows: Iterable[Sequence[Any]]) -> None:
        """Check some more records, each in the order of `audit_export.Row`."""
        encode, sha256, heads = msgspec.json.Encoder().encode, hashlib.sha256, self._heads
        end, before, last, is_open = self.end, self.hash, self.last, self._open
        for (
            seq, at, kind, action, actor, target, subject, body, body_digest, previous, hashed,
            signer, signature,
        ) in rows:  # fmt: skip
            try:
                header = encode((seq, at, kind, action, actor, target, subject, body_digest, previous))
                if seq != end + 1:
                    self._gap(end, seq)
                elif previous != before:
                    self._wrong(seq, "does not follow the record before it")
                if sha256(header).hexdigest() != hashed:
                    self._wrong(seq, "was changed: its hash does not fit")
                if body is None:
                    self._without(kind, seq)
                else:
                    is_open[kind] = False
                    if sha256(body.encode()).hexdigest() != body_digest:
                        self._wrong(seq, "its body was changed")
                if signature is not None:
                    self._sign(seq, hashed, signer, signature)
                elif seq - self._signed_at == audit.MOST_AT_ONCE:
                    self._wrong(seq, f"no signature for {audit.MOST_AT_ONCE} records")
                if heads and seq in heads:
                    self._meet(heads.pop(seq), hashed)
                if kind != "decision":
                    last[target] = _Said(seq, action, body_digest)
                    if target[:8] == "release/" and "@" in target:
                        self.moves[seq] = (target, body_digest)
                    elif action == audit_keep.PRUNE:
                        self._explain(seq, body)
                    elif action == _COLLECT:
                        self._collect(body)
            except _READABLE as error:
                self._wrong(seq, f"cannot be read ({type(error).__name__})")
            end, before = seq, hashed
        self.end, self.hash = end, before

    def finish(self, *, whole: bool = True) -> None:
        """
        No more records: check the end.

        Args:
            whole: this was the end of the chain, so that every missing body must be explained by now.
        """
        if self.end >= self.begin and self._signed_at != self.end:
            self._wrong(self.end, "the last one, is not signed")
        elif self.end >= self.begin and not self._every:
            self._check_signature(self._signed_at, self._signed_hash, *self._signature)
        for known in self._heads.values():
            for where, head in known:
                if head.seq > self.end:
                    message = f"the chain ends at {self.end}: it was cut, or the database is an older copy"
                    self.problems.add(f"head {head.seq} in {where}", message)
        for kind, runs in self._runs.items() if whole else ():
            explained = _merged(self._explained.get(kind, []))
            for first, end in runs:
                if not any(low <= first and end <= high for low, high in explained):
                    where = f"records {first} to {end}" if end > first else f"record {first}"
                    self.problems.add(where, "the body is missing and no prune record says so")

    def _wrong(self, seq: int, problem: str) -> None:
        self.problems.add(f"record {seq}", problem)

    def _gap(self, end: int, seq: int) -> None:
        if seq > end:
            missing = f"record {seq - 1} is" if seq == end + 2 else f"records {end + 1} to {seq - 1} are"
            self._wrong(seq, f"{missing} missing before it")
        else:
            self._wrong(seq, f"stands after record {end}")

    def _sign(self, seq: int, hashed: str, signer: str, signature: str) -> None:
        self._signed_at, self._signed_hash, self._signature = seq, hashed, (signer, signature)
        self.signers[signer] = self.signers.get(signer, 0) + 1
        if self._every:
            self._check_signature(seq, hashed, signer, signature)

    def _check_signature(self, seq: int, hashed: str, signer: str | None, signature: str | None) -> None:
        try:
            audit.verify_signature(self._keys.get(signer or ""), seq, hashed, signature)
        except AuditTampered as error:
            self._wrong(seq, error.message)

    def _meet(self, known: list[tuple[str, Head]], hashed: str) -> None:
        for where, head in known:
            if head.hash != hashed:
                self.problems.add(f"head {head.seq} in {where}", "the chain has another record there")

    def _without(self, kind: str, seq: int) -> None:
        self.without_body += 1
        runs = self._runs.setdefault(kind, [])
        if self._open.get(kind) and runs:
            runs[-1][1] = seq
        else:
            runs.append([seq, seq])
        self._open[kind] = True

    def _explain(self, seq: int, body: str | None) -> None:
        for kind, first, end in audit_keep.emptied(body) if body is not None else ():
            if end < seq:
                self._explained.setdefault(kind, []).append((first, end))

    def _collect(self, body: str | None) -> None:
        for target in json.loads(body)["collected"] if body is not None else ():
            self.last.pop(target, None)


def verify(
    connection: Connection,
    *,
    every_signature: bool = False,
    heads: Sequence[tuple[str, Head]] = (),
    own_anchor: bool = True,
    progress: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """
    Check the whole chain and every row that it vouches for, in one read transaction.

    Args:
        every_signature: check the signature of each batch; else that of the last, which covers all hashes.
        heads: (where it was kept, head) of anchors beside this machine's own.
        own_anchor: whether that one counts.
        progress: called with how many more records were read.

    Returns:
        `ok`, `records`, `rows`, `without_body`, `signers` (key id → signatures), `anchors` (how many heads
        were met), `head`, `problems` (`where`, `problem`; at most 1,000 of `problem_count`).
    """
    problems = Problems()
    trust = audit.trust_of(connection)
    known = [*heads, *(_own_anchor(connection, trust, problems) if own_anchor else ())]
    keys = _keys(connection, trust, problems)
    _check_heads(known, keys, problems)
    chain = Chain(problems, keys, heads=known, every_signature=every_signature)
    for rows in connection.execute(audit_export.stored()).partitions():
        chain.feed(rows)
        if progress is not None:
            progress(len(rows))
    chain.finish()
    rows_checked = _check_rows(connection, chain)
    return _answer(chain, problems, len(known)) | {"rows": rows_checked}


def verify_file(
    path: Path,
    keys: Sequence[Ed25519PublicKey],
    *,
    every_signature: bool = False,
    heads: Sequence[tuple[str, Head]] = (),
) -> dict[str, Any]:
    """
    Check an export without any database; only signatures by *keys* count. Returns what `verify` does.

    Raises:
        BadInput: the file is no export.
    """
    problems = Problems()
    header, found = audit_export.read(path)
    counting = {key_id(key): key for key in keys}
    known = [("the file's own header", header.head), *heads]
    _check_heads(known, counting, problems)
    within = [(where, head) for where, head in known if header.first <= head.seq <= header.last]
    chain = Chain(
        problems,
        counting,
        first=header.first,
        previous=header.previous,
        heads=within,
        every_signature=every_signature,
    )
    try:
        for rows in found:
            chain.feed(rows)
    except AuditTampered as error:
        problems.add(str(path), error.message)
    if chain.end != header.last:
        problems.add(str(path), f"ends at record {chain.end}, not at {header.last}")
    chain.finish(whole=header.last == header.head.seq)
    return _answer(chain, problems, len(within))


def _answer(chain: Chain, problems: Problems, anchors: int) -> dict[str, Any]:
    return {
        "ok": problems.count == 0,
        "records": chain.end - chain.begin + 1,
        "without_body": chain.without_body,
        "signers": dict(sorted(chain.signers.items())),
        "anchors": anchors,
        "head": {"seq": chain.end, "hash": chain.hash},
        "problem_count": problems.count,
        "problems": problems.found,
    }


def _own_anchor(connection: Connection, trust: audit.Trust, problems: Problems) -> Iterator[tuple[str, Head]]:
    try:
        head = anchor.read(trust.anchor) if trust.anchor is not None else None
    except PlatformError as error:
        problems.add(str(trust.anchor), error.message)
        return
    if head is not None and not audit.is_newer(connection, head):
        yield str(trust.anchor), head


def _keys(connection: Connection, trust: audit.Trust, problems: Problems) -> dict[str, Ed25519PublicKey]:
    """Whose signatures count; a row that is no key, or has another id, is a problem."""
    own = trust.signer.public_key()
    found = {key_id(own): own}
    for identity, text in connection.execute(
        select(tables.audit_keys.c.key_id, tables.audit_keys.c.public_key)
    ):
        try:
            key = read_public_key(str(text).encode(), f"audit key {identity}")
        except PlatformError as error:
            problems.add(f"audit-key/{identity}", error.message)
            continue
        if key_id(key) != identity:
            problems.add(f"audit-key/{identity}", "the row holds another key")
        else:
            found[identity] = key
    return {identity: key for identity, key in found.items() if not trust.pins or identity in trust.pins}


def _check_heads(
    known: Iterable[tuple[str, Head]], keys: Mapping[str, Ed25519PublicKey], problems: Problems
) -> None:
    for where, head in known:
        try:
            audit.verify_signature(keys.get(head.key_id), head.seq, head.hash, head.signature)
        except AuditTampered as error:
            problems.add(f"head {head.seq} in {where}", error.message)


def _check_rows(connection: Connection, chain: Chain) -> int:
    """Compare every row with the last record about it; returns how many there were."""
    problems, last, count = chain.problems, chain.last, 0
    whole = True
    for check in (_states, _moves, _aliases, _evidence, _users):
        try:
            for where, problem in check(connection, chain):
                count += 1
                if problem:
                    problems.add(where, problem)
        except (*_READABLE, PlatformError) as error:
            whole = False
            problems.add(f"rows ({check.__name__.strip('_')})", f"cannot be read: {error}")
    for target, said in last.items() if whole else ():
        if _has_row(target) and not said.action.endswith(_REMOVED):
            problems.add(target, f"record {said.seq} ({said.action}) tells of a row that is gone")
    return count


def _states(connection: Connection, chain: Chain) -> Iterator[tuple[str, str]]:
    """Every row that has a record of its own; what is left in *chain* has none any more."""
    for source in (protected.rows, _key_rows):
        for target, body in source(connection):
            said = chain.last.pop(target, None)
            if said is None or said.action.endswith(_REMOVED):
                yield target, "was written behind the registry: no record tells of it"
            elif body is not None and audit.digest_of(body) != said.body_digest:
                yield target, f"is not what record {said.seq} ({said.action}) says"
            elif body is None and said.action != "evidence.withdraw":
                yield target, f"is withdrawn or damaged, and record {said.seq} says nothing of it"
            else:
                yield target, ""


def _key_rows(connection: Connection) -> Iterator[tuple[str, dict[str, Any]]]:
    for identity in connection.execute(select(tables.audit_keys.c.key_id)).scalars():
        yield f"audit-key/{identity}", {"key_id": identity}


def _moves(connection: Connection, chain: Chain) -> Iterator[tuple[str, str]]:
    """Every move of an alias has a record of its own, and every such record its move."""
    for seq, target, body in history.protected(connection):
        said = chain.moves.pop(seq, None)
        fits = said == (target, audit.digest_of(body))
        yield target, "" if fits else f"the move to {body['to']} is not what record {seq} says, or has none"
    for seq, (target, _) in chain.moves.items():
        yield target, f"the move that record {seq} tells of is gone"


def _aliases(connection: Connection, _chain: Chain) -> Iterator[tuple[str, str]]:
    """Every alias points where its last move says."""
    newest = (
        select(_MOVES.c.name, _MOVES.c.alias, func.max(_MOVES.c.generation).label("generation"))
        .group_by(_MOVES.c.name, _MOVES.c.alias)
        .subquery()
    )
    query = select(_MOVES.c.name, _MOVES.c.alias, _MOVES.c.to_digest, _MOVES.c.generation).join(
        newest,
        (_MOVES.c.name == newest.c.name)
        & (_MOVES.c.alias == newest.c.alias)
        & (_MOVES.c.generation == newest.c.generation),
    )
    moved = {(name, alias): (to, generation) for name, alias, to, generation in connection.execute(query)}
    for name, alias, to, generation in connection.execute(
        select(_ALIASES.c.name, _ALIASES.c.alias, _ALIASES.c.digest, _ALIASES.c.generation)
    ):
        fits = moved.pop((name, alias), None) == (to, generation)
        yield history.target(name, alias), "" if fits else "the alias does not point where its last move says"
    for name, alias in moved:
        yield history.target(name, alias), "the alias is gone"


def _evidence(connection: Connection, _chain: Chain) -> Iterator[tuple[str, str]]:
    """Every envelope has its digest, and says what the columns beside it say."""
    for row in connection.execute(select(_EVIDENCE).execution_options(yield_per=500)).mappings():
        where = f"evidence/{row['release_digest']}/{row['digest']}"
        try:
            envelope = json.loads(row["envelope"])
            changed = digest(envelope) != row["digest"]
            said = evidence.claim(envelope)
        except (*_READABLE, PlatformError):
            yield where, "the envelope was changed, or never was one"
            continue
        columns = (said.release_name, said.release, to_text(said.valid_from))
        fits = columns == (row["release_name"], row["release_digest"], row["valid_from"])
        beside = "" if fits else "the columns beside the envelope do not say what it says"
        yield where, "the envelope was changed" if changed else beside


def _users(connection: Connection, chain: Chain) -> Iterator[tuple[str, str]]:
    """Once there were users there are some."""
    if chain.last.pop("users", None) is not None:
        there = connection.execute(select(tables.users.c.name).limit(1)).first()
        yield "users", "" if there is not None else "the registry had users, and all of them are gone"


def _has_row(target: str) -> bool:
    kind, _, rest = target.partition("/")
    label = "@" in rest and kind != "release"  # where aliases of releases point is in their moves
    return kind in _ROWS_OF or (kind in versions.GROUPS and (":" in rest or label))


def _merged(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """The same numbers in as few ranges as there can be."""
    merged: list[tuple[int, int]] = []
    for first, end in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((first, end))
    return merged
