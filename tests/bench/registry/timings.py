"""How long each thing that is asked of a registry takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from functools import partial

from sqlalchemy import Connection, select

from registry import history_view, lineage, promotion, releases, search, snapshot, tables, versions
from registry.clock import from_text, utc_now
from registry.entities import Version
from registry.refs import Ref, parse_ref
from registry.verbs import prompts as prompt_verbs
from registry.verbs import versions as version_verbs
from registry.verbs.session import Session
from tests.bench.gateway.figures import percentile
from tests.bench.registry.build import Stand, promote, prompt_like, swap

WARM = 5


@dataclass(frozen=True, slots=True)
class Row:
    """One thing, measured."""

    name: str
    p50_ms: float
    p99_ms: float
    max_ms: float
    repetitions: int
    bounded: bool = True
    """Whether it has to stay under the limit; what grows without end is measured for information."""


@dataclass(frozen=True, slots=True)
class Case:
    """Something to be timed, and what has to happen before each time."""

    name: str
    act: Callable[[int], object]
    prepare: Callable[[int], object] = lambda _turn: None
    bounded: bool = True


def measure(stand: Stand, repetitions: int, only: str, progress: Callable[[str], None]) -> list[Row]:
    """Every case whose name contains *only*, one after the other."""
    rows = []
    for case in [*_reads(stand), *_writes(stand)]:
        if only in case.name:
            progress(case.name)
            rows.append(_timed(case, repetitions))
    return rows


def _timed(case: Case, repetitions: int) -> Row:
    times = []
    for turn in range(repetitions + WARM):
        case.prepare(turn)
        begun = time.perf_counter()
        case.act(turn)
        times.append((time.perf_counter() - begun) * 1000)
    kept = times[WARM:]
    return Row(case.name, percentile(kept, 0.5), percentile(kept, 0.99), max(kept), len(kept), case.bounded)


def _reads(stand: Stand) -> Iterator[Case]:
    scale, session = stand.scale, Session(stand.workspace)

    def some(turn: int, end: int) -> int:
        """Numbers from 1 to *end* in no order that a cache likes."""
        return 1 + turn * 7919 % end

    def reading(name: str, act: Callable[[Connection, int], object], *, bounded: bool = True) -> Case:
        def timed(turn: int) -> object:
            with stand.workspace.reading() as connection:
                return act(connection, turn)

        return Case(name, timed, bounded=bounded)

    def service(turn: int) -> str:
        return f"service-{some(turn, scale.names) - 1}"

    def resolved(connection: Connection, text: str) -> Version:
        return releases.resolve(connection, parse_ref(text))

    digests = _digests(stand)
    deep_id, deep_number = digests[len(digests) // 2][0], str(scale.one_prompt // 2)
    yield reading("resolve name@alias", lambda c, turn: resolved(c, f"{service(turn)}@production"))
    yield reading(
        "resolve name:number",
        lambda c, turn: versions.get(c, "prompt", parse_ref(f"big:{some(turn, scale.one_prompt)}")),
    )
    yield reading(
        "resolve name@sha256",
        lambda c, turn: versions.get(
            c, "prompt", parse_ref(f"big@{digests[some(turn, len(digests)) - 1][1]}")
        ),
    )
    yield reading("list 100 of a kind", lambda c, _: search.page(c, "prompt"))
    yield reading("list 100 of a kind and name", lambda c, _: search.page(c, "prompt", "big"))
    yield reading("list 100 of any kind", lambda c, _: search.page(c))
    yield reading("list a deep page of a kind", lambda c, _: search.page(c, "prompt", before=deep_id))
    yield reading(
        "list a deep page of a name", lambda c, _: search.page(c, "prompt", "big", before=deep_number)
    )
    yield reading(
        "list versions with content, by name", lambda c, _: versions.listing(c, "prompt", "big", 100)
    )
    yield Case("list releases with aliases", lambda _: version_verbs.listing(session, "release"))
    yield reading("search in names, 100 hits", lambda c, _: search.search(c, "prompt"))
    yield reading("search in names, one hit", lambda c, turn: search.search(c, f"{service(turn)}"))
    yield reading("search in names, none", lambda c, _: search.search(c, "nothing-like-it"))
    yield reading(
        "search by digest", lambda c, turn: search.search(c, digests[some(turn, len(digests)) - 1][1][7:19])
    )
    yield Case(
        "diff of two prompts",
        lambda turn: prompt_verbs.diff(session, f"big:{some(turn, scale.one_prompt)}", "big:1"),
    )
    yield Case(
        "diff of two releases",
        lambda turn: version_verbs.diff(session, f"{service(turn)}:1", f"{service(turn)}:2"),
    )
    yield reading("history of a release", lambda c, turn: history_view.moves(c, service(turn)))
    yield reading(
        f"history, {scale.moves:,} moves", lambda c, _: history_view.moves(c, "busy"), bounded=False
    )
    yield reading("was, at a time", lambda c, turn: history_view.at(c, service(turn), utc_now()))
    moved = _moved_at(stand)
    yield reading(
        f"was, {scale.moves:,} moves",
        lambda c, turn: history_view.at(c, "busy", moved[some(turn, len(moved)) - 1]),
        bounded=False,
    )
    yield reading(
        "lineage of a release", lambda c, turn: lineage.graph(c, "release", f"{service(turn)}@production")
    )
    yield reading(
        "lineage of a prompt",
        lambda c, turn: lineage.graph(c, "prompt", f"big:{some(turn, scale.names)}"),
        bounded=False,
    )
    name = f"snapshot of {scale.names} releases' aliases"
    yield reading(f"{name}, the first", lambda c, _: snapshot.read(c), bounded=False)
    with stand.workspace.reading() as connection:
        known = snapshot.read(connection).releases
    yield reading(f"{name}, after a move", lambda c, _: snapshot.read(c, known), bounded=False)


def _writes(stand: Stand) -> Iterator[Case]:
    """Each in its own transaction, with audit, anchor and a commit that reaches the disk."""
    workspace, scale, names = stand.workspace, stand.scale, stand.scale.names

    def pair(name: str) -> tuple[Version, Version]:
        with workspace.reading() as connection:
            return tuple(  # type: ignore[return-value]  # two of them
                releases.resolve(connection, parse_ref(f"{name}:{number}")) for number in (1, 2)
            )

    def other(connection: Connection, name: str) -> Version:
        """The first of the pair, or the second while that is in production."""
        one, two = pairs[name]
        state = releases.alias_state(connection, name, "production")
        return two if state is not None and state.digest == one.digest else one

    def candidates(name_of: Callable[[int], str], turn: int) -> None:
        with workspace.writing() as connection:
            name = name_of(turn)
            stand.evidence(connection, other(connection, name), _standing(connection, name), utc_now())

    def promoted(name_of: Callable[[int], str], turn: int) -> None:
        with workspace.writing() as connection:
            promote(stand, connection, other(connection, name_of(turn)), now=utc_now())

    def swapped(name_of: Callable[[int], str], turn: int) -> None:
        with workspace.writing() as connection:
            swap(stand, connection, other(connection, name_of(turn)), now=utc_now())

    def returned(name_of: Callable[[int], str], turn: int) -> None:
        with workspace.writing() as connection:
            promotion.rollback(
                connection, workspace.artifacts, name_of(turn), "production",
                actor="ann", reason="bench", now=utc_now(),
            )  # fmt: skip

    def pushed(turn: int) -> None:
        content = prompt_like(f"turn {turn}")
        with workspace.writing() as connection:
            versions.push(connection, "prompt", "big", content, actor="ann", now=utc_now())

    def each(turn: int) -> str:
        return f"service-{turn % names}"

    def busy(_turn: int) -> str:
        return "busy"

    pairs = {name: pair(name) for name in ["busy", *(f"service-{one}" for one in range(names))]}
    yield Case(f"push a version, the {scale.one_prompt:,}th of its name", pushed)
    yield Case("promote", partial(promoted, each), partial(candidates, each))
    yield Case("rollback", partial(returned, each), partial(swapped, each))
    moves = f"{scale.moves:,} moves"
    yield Case(f"rollback, {moves}", partial(returned, busy), partial(swapped, busy), bounded=False)
    yield Case(
        f"promote, {moves}, evidence grows", partial(promoted, busy), partial(candidates, busy), bounded=False
    )


def _standing(connection: Connection, name: str) -> Version | None:
    """The release in production: what evidence has to be measured against."""
    state = releases.alias_state(connection, name, "production")
    return None if state is None else versions.get(connection, "release", Ref(name, digest=state.digest))


def _digests(stand: Stand) -> list[tuple[str, str]]:
    """(id, digest) of the versions of `big`."""
    table = tables.versions
    query = select(table.c.id, table.c.digest).where(table.c.kind == "prompt", table.c.name == "big")
    with stand.workspace.reading() as connection:
        return [(row[0], row[1]) for row in connection.execute(query.order_by(table.c.number))]


def _moved_at(stand: Stand) -> list[datetime]:
    """When `busy` moved, as it was built."""
    table = tables.alias_moves
    query = select(table.c.at).where(table.c.name == "busy").order_by(table.c.generation)
    with stand.workspace.reading() as connection:
        return [from_text(at) for at in connection.execute(query.limit(stand.scale.moves)).scalars()]
