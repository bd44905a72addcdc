"""
Lineage: what a version was made of, and what came of it, from the data to the requests it answered.

    data → model, index, prompt, judge → release → evidence → alias → requests

Read from what the registry holds anyway: digests in contents, evidence, moves and usage. Nobody has to report
anything, so nothing is missing because somebody forgot.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, RowMapping, func, or_, select

from registry import labels, releases, tables, versions
from registry.entities import Kind, Version
from registry.errors import BadInput, EvidenceTampered, NotFound
from registry.evidence import Claim, claim
from registry.ids import is_digest, short
from registry.refs import Ref, parse_ref

Direction = Literal["both", "up", "down"]
MOST_NODES = 500
_MOST_USERS = 200
_MOST_EVIDENCE = 50
_MOST_SCANNED = 2000
_AT_ONCE = 400
_VERSIONS, _MOVES, _EVIDENCE, _RUNS = tables.versions, tables.alias_moves, tables.evidence, tables.eval_runs
_USERS: dict[str, tuple[Kind, ...]] = {
    "prompt": ("prompt", "release"),
    "index": ("release",),
    "model": ("release",),
    "guardrail-policy": ("release",),
    "tool-schema": ("release",),
    "price-table": ("release",),
    "dataset": ("suite", "judge", "model"),
}
"""Kind → kinds of versions whose content may name one of it."""


class Part(NamedTuple):
    """One thing that a version names in its content."""

    role: str
    kind: str
    """A kind of version, or data, parameters, environment, embedder, mlflow-run, provider-model."""
    key: str
    """Its digest; for what has none, its name."""


def graph(
    connection: Connection, kind: Kind, ref: Ref | str, *, direction: Direction = "both"
) -> dict[str, Any]:
    """
    What the version *ref* names was made of (`up`), what came of it (`down`), or both.

    Args:
        ref: as everywhere; a release also by alias, a prompt also by label.

    Returns:
        `root`: id of its node; `nodes`: each with `id`, `kind`, `label` and `details`; `edges`: each `from`
        what was used `to` what was made with it, with a `label`
        and `details` (of an alias: action, since, until, by); `cut`: whether there is more than the 500
        nodes, 200 users of one version or 50 pieces of evidence about one release that are looked at.

    Raises:
        NotFound: no such version.
        VersionTampered: a stored content no longer has its digest.
    """
    version = _resolved(connection, kind, parse_ref(ref) if isinstance(ref, str) else ref)
    walk = _Walk(connection, sides=direction == "both")
    root = f"{version.kind}:{version.digest}"
    walk.version(version)
    if direction != "down":
        walk.go(root, walk.above)
    if direction != "up":
        walk.go(root, walk.below)
        walk.requests()
    return {
        "root": root,
        "direction": direction,
        "nodes": list(walk.nodes.values()),
        "edges": [{"from": a, "to": b, **said} for (a, b), said in walk.edges.items()],
        "cut": walk.cut,
    }


def parse(text: str) -> tuple[Kind, Ref]:
    """
    The kind and reference in a text such as `models/churn:2`; without a group it is a release.

    Raises:
        BadInput: no such group, or no reference.

    >>> parse("models/churn:2")[0], str(parse("support@production")[1])
    ('model', 'support@production')
    """
    group, slash, rest = text.partition("/")
    if not slash:
        return "release", parse_ref(text)
    for kind, name in versions.GROUPS.items():
        if group in (name, kind):
            return kind, parse_ref(rest)
    message = f"{text!r}: {group!r} is none of {', '.join(versions.GROUPS.values())}"
    raise BadInput(message)


def parts(version: Version) -> list[Part]:
    """Everything that *version* names in its content and circumstances, each once."""
    return list(dict.fromkeys(part for part in _parts(version) if part.key))


def kind_of(part: Part) -> Kind | None:
    """The kind of version that *part* is, or None where the registry keeps no versions of it."""
    return next((kind for kind in versions.GROUPS if kind == part.kind), None)


def _parts(version: Version) -> Iterator[Part]:
    content, meta = version.content, version.meta
    if version.kind == "release":
        if content["kind"] == "prediction":
            yield Part("model", "model", content["model_digest"])
        else:
            yield Part("model", "provider-model", content["model"])
        for role, kind in (("prompt", "prompt"), ("index", "index"), ("guardrails", "guardrail-policy"),
                           ("prices", "price-table")):  # fmt: skip
            yield Part(role, kind, content.get(role) or "")
        for name in content.get("fallbacks") or ():
            yield Part("fallback", "provider-model", name)
        for variant in content.get("variants") or ():
            yield Part(f"variant {variant['name']}", "prompt", variant["prompt"])
        for digest in content.get("tools") or ():
            yield Part("tools", "tool-schema", digest)
    elif version.kind == "prompt":
        for name, digest in sorted((content.get("partials") or {}).items()):
            yield Part(f"partial {name}", "prompt", digest)
    elif version.kind == "suite":
        yield Part("dataset", "dataset", content["dataset"])
    elif version.kind == "index":
        yield Part("corpus", "data", content["corpus_digest"])
        embedder = content["embedder"]
        yield Part("embedder", "embedder", f"{embedder['name']} {embedder['digest']}")
    elif version.kind == "judge":
        yield Part("model", "provider-model", content["model"])
        calibration = content.get("calibration") or {}
        yield Part("calibrated on", "dataset", _digest(calibration.get("dataset")))
    elif version.kind == "model":
        training = content["training"]
        yield Part("trained on", "data", _digest(training.get("data_digest")))
        yield Part("parameters", "parameters", _digest(training.get("params_digest")))
        yield Part("environment", "environment", _digest(training.get("environment_digest")))
        run = meta.get("mlflow_run_id") or (meta.get("mlflow") or {}).get("run_id")
        yield Part("tracked as", "mlflow-run", str(run or ""))


class _Walk:
    """Nodes and edges found so far; never more than `MOST_NODES`."""

    def __init__(self, connection: Connection, *, sides: bool) -> None:
        self._connection = connection
        self._sides = sides
        self._known: dict[str, Version | Claim] = {}
        self.nodes: dict[str, dict[str, Any]] = {}
        self.edges: dict[tuple[str, str], dict[str, Any]] = {}
        self.cut = False

    def go(self, root: str, neighbours: Any) -> None:  # noqa: ANN401 - a method of this class
        """Breadth first from *root*, so that what is left off is what is farthest away."""
        waiting, seen = deque([root]), {root}
        while waiting:
            for node in neighbours(waiting.popleft()):
                if node not in seen:
                    seen.add(node)
                    waiting.append(node)

    def above(self, node: str) -> list[str]:
        """What *node* was made of; added."""
        known = self._known.get(node)
        if not isinstance(known, Version):
            return []
        roles: dict[str, list[str]] = {}
        for part in parts(known):
            other = self._part(part)
            if other is not None:
                roles.setdefault(other, []).append(part.role)
        for other, own in roles.items():
            self._edge(other, node, ", ".join(own))
        return list(roles)

    def below(self, node: str) -> list[str]:
        """What came of *node*; added."""
        known = self._known.get(node)
        if isinstance(known, Claim):
            return self._moved_by(node, known)
        if known is None:
            return []
        found = list(self._users(node, known))
        if known.kind == "suite":
            found += self._evidence(node, _RUNS.c.suite_digest == known.digest, "checked with")
        if known.kind == "judge":
            found += self._judged(node, known.digest)
        if known.kind == "release":
            found += self._evidence(node, _EVIDENCE.c.release_digest == known.digest, "measured")
            found += self._aliases(node, known)
        return found

    def version(self, version: Version) -> str | None:
        """The node of *version*, added if there is room."""
        details: dict[str, Any] = {
            "name": version.name,
            "number": version.number,
            "digest": version.digest,
            "created_at": version.created_at.isoformat(),
            "created_by": version.created_by,
        }
        for name in ("rows", "documents", "passages", "format", "source", "licence"):
            if version.content.get(name):
                details[name] = version.content[name]
        if version.kind == "model" and "metrics" in version.content["training"]:
            details["metrics"] = version.content["training"]["metrics"]
        label = f"{version.name}:{version.number}"
        return self._node(f"{version.kind}:{version.digest}", version.kind, label, details, version)

    def requests(self) -> None:
        """What the releases found so far answered, and what that cost."""
        start = "release:"
        digests = [node.removeprefix(start) for node in self.nodes if node.startswith(start)]
        for first in range(0, len(digests), _AT_ONCE):
            for row in self._used(digests[first : first + _AT_ONCE]):
                details = {
                    name: row[name] for name in ("requests", "failed", "unpriced", "first_at", "last_at")
                }
                details["cost_microusd"] = int(row["cost"] or 0)
                node = self._node(
                    f"requests:{row['digest']}", "requests", f"{row['requests']:,} requests", details
                )
                self._edge(f"release:{row['digest']}", node, "answered")

    def _used(self, digests: list[str]) -> Iterable[RowMapping]:
        usage = tables.usage
        bad, tokens = (
            or_(usage.c.status >= 400, usage.c.error != ""),
            usage.c.prompt_tokens + usage.c.completion_tokens,
        )
        query = select(
            usage.c.digest,
            func.count().label("requests"),
            func.count().filter(bad).label("failed"),
            func.count().filter(usage.c.cost_microusd.is_(None) & (tokens > 0)).label("unpriced"),
            func.sum(usage.c.cost_microusd).label("cost"),
            func.min(usage.c.at).label("first_at"),
            func.max(usage.c.at).label("last_at"),
        ).where(usage.c.digest.in_(digests))
        return (
            self._connection.execute(query.group_by(usage.c.digest).order_by(usage.c.digest)).mappings().all()
        )

    def _part(self, part: Part) -> str | None:
        """The node of something named in a content: a version, where the registry has it."""
        kind = kind_of(part)
        if kind is not None:
            try:
                return self.version(versions.by_digest(self._connection, kind, part.key))
            except NotFound:
                gone = {"digest": part.key, "missing": True}
                return self._node(f"{part.kind}:{part.key}", part.kind, short(part.key), gone)
        if part.kind == "data":
            kept = self._dataset(part.key)
            if kept is not None:
                return self.version(kept)
        label = part.key if not is_digest(part.key) else f"{part.role} {short(part.key)}"
        if part.kind == "embedder":
            label = part.key.partition(" ")[0]
        return self._node(f"{part.kind}:{part.key}", part.kind, label, {"key": part.key})

    def _dataset(self, digest: str) -> Version | None:
        """The dataset version that these bytes are, if they were pushed as one."""
        named = or_(_VERSIONS.c.digest == digest, _VERSIONS.c.content.contains(digest, autoescape=True))
        query = select(_VERSIONS.c.digest).where(_VERSIONS.c.kind == "dataset", named).limit(1)
        found = self._connection.execute(query).scalar()
        return None if found is None else versions.by_digest(self._connection, "dataset", found)

    def _users(self, node: str, version: Version) -> Iterator[str]:
        """Versions that name *version*, newest first."""
        names = {version.digest}
        if version.kind == "dataset":
            names.add(str(version.content["artifact"]))
        for kind in _USERS.get(version.kind, ()):
            held = or_(*(_VERSIONS.c.content.contains(name, autoescape=True) for name in sorted(names)))
            query = select(_VERSIONS.c.name, _VERSIONS.c.number).where(_VERSIONS.c.kind == kind, held)
            rows = self._connection.execute(
                query.order_by(_VERSIONS.c.id.desc()).limit(_MOST_USERS + 1)
            ).all()
            self.cut |= len(rows) > _MOST_USERS
            for name, number in rows[:_MOST_USERS]:
                user = versions.get(self._connection, kind, Ref(name, number=number))
                roles = [part.role for part in parts(user) if part.key in names]
                made = self.version(user) if roles else None
                if made is not None:
                    self._edge(node, made, ", ".join(roles))
                    yield made

    def _evidence(self, node: str, condition: Any, label: str) -> list[str]:  # noqa: ANN401 - a SQL condition
        query = select(_EVIDENCE.c.digest, _EVIDENCE.c.envelope, _EVIDENCE.c.withdrawn_at)
        query = query.join(_RUNS, _RUNS.c.evidence == _EVIDENCE.c.digest, isouter=True).where(condition)
        query = query.order_by(_EVIDENCE.c.received_at.desc(), _EVIDENCE.c.digest).limit(_MOST_EVIDENCE + 1)
        rows = self._connection.execute(query).mappings().all()
        self.cut |= len(rows) > _MOST_EVIDENCE
        made = (self._claimed(row) for row in rows[:_MOST_EVIDENCE])
        return self._joined(node, made, label)

    def _judged(self, node: str, digest: str) -> list[str]:
        """Evidence that rests on a judge: only the envelopes say so."""
        query = select(_EVIDENCE.c.digest, _EVIDENCE.c.envelope, _EVIDENCE.c.withdrawn_at)
        query = query.order_by(_EVIDENCE.c.received_at.desc()).limit(_MOST_SCANNED + 1)
        rows = self._connection.execute(query).mappings().all()
        self.cut |= len(rows) > _MOST_SCANNED
        resting = [
            row for row in rows[:_MOST_SCANNED]
            if (said := _said(row)) is not None and digest in {judge for _, judge in said.judges}
        ]  # fmt: skip
        self.cut |= len(resting) > _MOST_EVIDENCE
        return self._joined(node, (self._claimed(row) for row in resting[:_MOST_EVIDENCE]), "scored with")

    def _joined(self, node: str, made: Iterable[str | None], label: str) -> list[str]:
        found = [one for one in made if one is not None]
        for one in found:
            self._edge(node, one, label)
        return found

    def _claimed(self, row: RowMapping) -> str | None:
        """The node of a piece of evidence and, beside it, what it rests on."""
        said = _said(row)
        identity = f"evidence:{row['digest']}"
        if said is None:
            return self._node(identity, "evidence", short(row["digest"]), {"damaged": True})
        details = {
            "digest": row["digest"],
            "verdict": said.verdict,
            "suite": said.suite_name,
            "dataset": said.dataset_name,
            "samples": said.samples,
            "valid_from": said.valid_from.isoformat(),
            "valid_until": said.valid_until.isoformat(),
            "withdrawn_at": row["withdrawn_at"],
        }
        node = self._node(identity, "evidence", f"{said.verdict}: {said.suite_name}", details, said)
        if node is None or not self._sides:
            return node
        rests = [Part("suite", "suite", said.suite), Part("dataset", "dataset", said.dataset)]
        rests += [Part("judge", "judge", digest) for _, digest in said.judges]
        for part in rests:
            other = self._part(part)
            if other is not None:
                self._edge(other, node, part.role)
        return node

    def _aliases(self, node: str, release: Version) -> list[str]:
        """Every alias that points or pointed at a release, with since when and by whom."""
        query = select(_MOVES).where(_MOVES.c.name == release.name)
        moves = self._connection.execute(query.order_by(_MOVES.c.alias, _MOVES.c.generation)).mappings().all()
        found = []
        for place, move in enumerate(moves):
            if move["to_digest"] != release.digest:
                continue
            after = moves[place + 1] if place + 1 < len(moves) else None
            until = after["at"] if after is not None and after["alias"] == move["alias"] else None
            alias = self._alias(release.name, move["alias"])
            if alias is not None:
                # Of several times the last stands: what is so now, or was last so.
                said = {"action": move["action"], "since": move["at"], "until": until, "by": move["actor"]}
                ended = f" until {until[:19]}" if until else ""
                self._edge(node, alias, f"{move['action']} {move['at'][:19]} by {move['actor']}{ended}", said)
                found.append(alias)
        return found

    def _moved_by(self, node: str, said: Claim) -> list[str]:
        query = select(_MOVES.c.alias, _MOVES.c.at).where(
            _MOVES.c.name == said.release_name, _MOVES.c.evidence.contains(said.envelope, autoescape=True)
        )
        found = []
        for alias, at in self._connection.execute(query.order_by(_MOVES.c.id)):
            made = self._alias(said.release_name, alias)
            if made is not None:
                self._edge(node, made, f"justified {at[:19]}")
                found.append(made)
        return found

    def _alias(self, name: str, alias: str) -> str | None:
        state = releases.alias_state(self._connection, name, alias)
        last = self._last_move(name, alias)
        details = {
            "digest": state.digest if state else None,
            "moves": state.generation if state else 0,
            "since": last["at"] if last else None,
            "by": last["actor"] if last else None,
        }
        return self._node(f"alias:{name}@{alias}", "alias", f"{name}@{alias}", details)

    def _last_move(self, name: str, alias: str) -> RowMapping | None:
        query = select(_MOVES).where(_MOVES.c.name == name, _MOVES.c.alias == alias)
        return (
            self._connection.execute(query.order_by(_MOVES.c.generation.desc()).limit(1)).mappings().first()
        )

    def _node(
        self,
        identity: str,
        kind: str,
        label: str,
        details: Mapping[str, Any],
        known: Version | Claim | None = None,
    ) -> str | None:
        if identity not in self.nodes:
            if len(self.nodes) >= MOST_NODES:
                self.cut = True
                return None
            self.nodes[identity] = {"id": identity, "kind": kind, "label": label, "details": dict(details)}
            if known is not None:
                self._known[identity] = known
        return identity

    def _edge(
        self, start: str | None, end: str | None, label: str, details: Mapping[str, Any] | None = None
    ) -> None:
        if start in self.nodes and end in self.nodes and (details or (start, end) not in self.edges):
            self.edges[start, end] = {"label": label, "details": dict(details or {})}


def _resolved(connection: Connection, kind: Kind, ref: Ref) -> Version:
    if kind == "release":
        return releases.resolve(connection, ref)
    return labels.resolve(connection, ref) if kind == "prompt" else versions.get(connection, kind, ref)


def _said(row: RowMapping) -> Claim | None:
    try:
        return claim(json.loads(row["envelope"]))
    except (ValueError, EvidenceTampered):
        return None


def _digest(value: object) -> str:
    return value if isinstance(value, str) and is_digest(value) else ""
