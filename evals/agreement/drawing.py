"""Which answers people are shown: as many of each verdict, in an order that tells nothing."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from registry import parse
from registry.errors import BadInput

MOST_BYTES = 256_000_000


@dataclass(frozen=True, slots=True)
class Item:
    """What people see of one answer."""

    id: str
    query: str
    answer: str
    answers: tuple[str, ...] = ()
    """Accepted answers."""
    passages: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawn:
    """An item, and what a judge said of it."""

    item: Item
    verdict: str | None
    """`good` or `bad`; None where no judge scored it."""


def read_outputs(path: Path, check: str | None, threshold: float) -> list[Drawn]:
    """
    The answers in the rows that `evals run` wrote, one for each sample.

    Only the candidate's first repetition is taken; failed requests are left out.

    Args:
        check: whose scores tell what the judge said; by default the only one with scores, or none.
        threshold: the score from which that is good.

    Raises:
        BadInput: unreadable, a row that is no output, an unknown *check*, or nothing to review.
    """
    rows = [
        row
        for row in read_lines(path)
        if row.get("role", "candidate") == "candidate" and not row.get("epoch") and "error" not in row
    ]
    titles = sorted({title for row in rows for title in _scores(row, path)})
    if check is not None and check not in titles:
        raise BadInput(f"check {check!r} scored no row of {path}{parse.nearest(check, titles)}")
    judged = check or (titles[0] if len(titles) == 1 else None)
    found: dict[str, Drawn] = {}
    for row in rows:
        item = _item(row, path)
        score = _scores(row, path).get(judged or "")
        verdict = None if score is None else "good" if score >= threshold else "bad"
        if item.id not in found or found[item.id].verdict is None:
            found[item.id] = Drawn(item, verdict)
    if not found:
        raise BadInput(f"{path}: no answers to review")
    return list(found.values())


def draw(drawn: Iterable[Drawn], n: int, seed: int = 0) -> list[Drawn]:
    """
    *n* answers, as evenly as there are over what the judge said, in an order that tells nothing.

    Equal input and seed give the same choice in the same order, whatever order the rows come in. The rarer
    verdict is thus seen more often than it occurs: each class's error is estimated well, but base rates (and
    κ, which depends on them) are those of the draw.
    """
    strata: dict[str, list[Drawn]] = defaultdict(list)
    for one in sorted(drawn, key=lambda one: _order(one.item.id, seed)):
        strata[one.verdict or ""].append(one)
    chosen: list[Drawn] = []
    for at in range(max(map(len, strata.values()), default=0)):
        chosen += [strata[name][at] for name in sorted(strata) if at < len(strata[name])]
    return sorted(chosen[:n], key=lambda one: _order(one.item.id, seed))


def _item(row: Mapping[str, Any], path: Path) -> Item:
    output = row.get("output")
    text = output.get("text") if isinstance(output, Mapping) else row.get("answer")
    passages = output.get("passages") if isinstance(output, Mapping) else row.get("passages")
    plain = {"id": row.get("id"), "query": row.get("query") or "", "answer": text}
    plain |= {"answers": row.get("answers") or [], "passages": passages or []}
    return parse.build(plain, Item, source=f"{path}: row {row.get('id')!r}")


def _scores(row: Mapping[str, Any], path: Path) -> Mapping[str, float]:
    scores = row.get("scores") or {}
    if not isinstance(scores, Mapping) or not all(isinstance(one, int | float) for one in scores.values()):
        raise BadInput(f"{path}: row {row.get('id')!r}: scores must be numbers by check")
    return scores


def _order(identity: str, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}|{identity}".encode()).digest()


def read_lines(path: Path) -> list[dict[str, Any]]:
    """
    The objects of a JSON Lines file; a last line that a crash cut off is left out.

    Raises:
        BadInput: unreadable, larger than 256 MB, or a malformed line; names it.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadInput(f"{path}: larger than {MOST_BYTES:,} bytes")
        data = path.read_bytes()
    except OSError as error:
        raise BadInput(f"{path}: cannot be read: {error.strerror}") from error
    rows = []
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == data.count(b"\n") + 1:
                break
            raise BadInput(f"{path}: line {number}: not JSON") from error
        if not isinstance(row, dict):
            raise BadInput(f"{path}: line {number}: not an object")
        rows.append(row)
    return rows
