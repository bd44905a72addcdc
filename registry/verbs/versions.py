"""Versions of every kind: list, search, show, compare, trace; and push those that are one small document."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sqlalchemy import Connection

from registry import (
    judges,
    labels,
    lineage,
    policies,
    prices,
    promotion,
    releases,
    search,
    versions,
)
from registry.clock import utc_now
from registry.entities import Kind, Version
from registry.errors import BadInput, NotFound
from registry.ids import is_digest
from registry.judges import JudgeFile
from registry.lineage import Direction
from registry.policies import PolicyFile
from registry.prices import PriceFile
from registry.refs import check_name, parse_ref
from registry.schemas import ToolFile
from registry.verbs.session import Session


def listing(
    session: Session,
    kind: Kind | None = None,
    name: str | None = None,
    *,
    limit: int = 100,
    before: str | None = None,
) -> dict[str, Any]:
    """A page of `versions`, newest first, with the aliases of releases; `next`: the cursor of the next."""
    if name is not None:
        check_name(name)
    with session.viewing("versions.list") as connection:
        found, following = search.page(connection, kind, name, limit=limit, before=before)
        _add_aliases(connection, found)
    return {"versions": found, "next": following}


def find(
    session: Session, text: str, kind: Kind | None = None, *, limit: int = 100, after: str | None = None
) -> dict[str, Any]:
    """The newest version of each name that contains *text*, or what has that digest; see `search.search`."""
    with session.viewing("versions.search") as connection:
        found, following = search.search(connection, text, kind, limit=limit, after=after)
        _add_aliases(connection, found)
    return {"versions": found, "next": following}


def show(session: Session, kind: Kind, ref: str) -> dict[str, Any]:
    """One version with its `content` and `meta`."""
    with session.viewing("versions.show") as connection:
        version = _resolved(connection, kind, ref)
    return {**search.summary(version), "content": version.content, "meta": version.meta}


def diff(session: Session, a: str, b: str) -> dict[str, Any]:
    """
    What changed from version *a* to *b*, each such as `prompts/support:2` or, of a release, `support:2`.

    Returns:
        `same`, `kind`, `a` and `b` (title, digest), `changes`: each with the `path` of a value, and its value
        in `a` and in `b`, absent where there is none; where that is the digest of a part, what it is called
        in `a_is` and `b_is`.
    """
    (kind, first), (other, second) = lineage.parse(a), lineage.parse(b)
    if kind != other:
        message = f"{a} is a {kind} and {b} a {other}; two versions of one kind can be compared"
        raise BadInput(message)
    with session.viewing("versions.diff") as connection:
        sides = [_resolved(connection, kind, str(ref)) for ref in (first, second)]
        changes = [_named(connection, kind, one) for one in _changes(sides[0].content, sides[1].content, "")]
    titles = [{"title": f"{one.name}:{one.number}", "digest": one.digest} for one in sides]
    same = sides[0].digest == sides[1].digest
    return {"same": same, "kind": kind, "a": titles[0], "b": titles[1], "changes": changes}


def graph(session: Session, ref: str, direction: Direction = "both") -> dict[str, Any]:
    """What a version was made of and what came of it; see `lineage.graph`."""
    kind, parsed = lineage.parse(ref)
    with session.viewing("lineage.show") as connection:
        return lineage.graph(connection, kind, parsed, direction=direction)


def verify(session: Session) -> dict[str, Any]:
    """Whether every digest, alias and blob is what the registry says: `ok`, `problems`."""
    with session.viewing("registry.verify") as connection:
        found = promotion.problems(connection, session.workspace.artifacts)
    return {"ok": not found, "problems": found}


def push_policy(session: Session, file: PolicyFile) -> dict[str, Any]:
    """Store a guardrail policy or a gate policy."""
    verb = "gates.push" if file.kind == "gate" else "guardrails.push"
    with session.acting(verb) as (connection, who):
        return pushed(policies.push(connection, file, actor=who, now=utc_now()))


def push_judge(session: Session, file: JudgeFile) -> dict[str, Any]:
    """Store a judge."""
    with session.acting("judges.push") as (connection, who):
        return pushed(judges.push(connection, file.name, file.judge, actor=who, now=utc_now()))


def push_tools(session: Session, file: ToolFile) -> dict[str, Any]:
    """Store a tool schema."""
    with session.acting("tools.push") as (connection, who):
        made = versions.push(connection, "tool-schema", file.name, file.content, actor=who, now=utc_now())
        return pushed(made)


def push_prices(session: Session, file: PriceFile) -> dict[str, Any]:
    """Store a price table."""
    with session.acting("prices.push") as (connection, who):
        return pushed(prices.push_table(connection, file.name, file.content, actor=who, now=utc_now()))


def pushed(version: Version, **more: Any) -> dict[str, Any]:  # noqa: ANN401
    """What every push answers."""
    said = {"name": version.name, "number": version.number, "digest": version.digest}
    return {"kind": version.kind, "ok": True, **said, **more}


def _resolved(connection: Connection, kind: Kind, ref: str) -> Version:
    if kind == "release":
        return releases.resolve(connection, parse_ref(ref))
    if kind == "prompt":
        return labels.resolve(connection, parse_ref(ref))
    return versions.get(connection, kind, parse_ref(ref))


def _add_aliases(connection: Connection, found: list[dict[str, Any]]) -> None:
    pointing = releases.pointing(connection, {row["name"] for row in found if row["kind"] == "release"})
    for row in found:
        row["aliases"] = pointing.get((row["name"], row["digest"]), []) if row["kind"] == "release" else []


def _changes(a: Any, b: Any, path: str) -> Iterator[dict[str, Any]]:  # noqa: ANN401 - any JSON
    """Every place where *a* and *b* differ, by its path such as `variants[0].weight`."""
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in sorted(a.keys() | b.keys()):
            here = f"{path}.{key}" if path else str(key)
            if key in a and key in b:
                yield from _changes(a[key], b[key], here)
            else:
                yield {"path": here} | ({"a": a[key]} if key in a else {"b": b[key]})
    elif isinstance(a, list) and isinstance(b, list):
        for place in range(max(len(a), len(b))):
            here = f"{path}[{place}]"
            if place < len(a) and place < len(b):
                yield from _changes(a[place], b[place], here)
            else:
                yield {"path": here} | ({"a": a[place]} if place < len(a) else {"b": b[place]})
    elif a != b or type(a) is not type(b):
        yield {"path": path, "a": a, "b": b}


def _named(connection: Connection, kind: Kind, change: dict[str, Any]) -> dict[str, Any]:
    """*change* with what its digests are called, where they are those of parts."""
    part = _PARTS.get(change["path"].partition("[")[0]) if kind == "release" else None
    if change["path"].startswith("variants[") and change["path"].endswith(".prompt"):
        part = "prompt"
    for side in ("a", "b"):
        if part is not None and is_digest(str(change.get(side))):
            try:
                version = versions.by_digest(connection, part, change[side])
            except NotFound:
                continue
            change[f"{side}_is"] = f"{version.name}:{version.number}"
    return change


_PARTS: dict[str, Kind] = {
    "prompt": "prompt", "index": "index", "guardrails": "guardrail-policy", "model_digest": "model",
    "tools": "tool-schema", "prices": "price-table",
}  # fmt: skip
