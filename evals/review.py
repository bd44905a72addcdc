"""
A queue of answers for people to judge: one JSON Lines file that only grows.

The first line says who judges, further ones are items in the order they are shown, then labels as they are
given. What the judge said lies in a second file, so that whoever labels is blind to it.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from evals.agreement import kappa
from evals.agreement.drawing import Drawn, Item, read_lines
from evals.agreement.labelled import CLASSES, settled
from evals.stats import Estimate
from registry import parse
from registry.clock import to_text
from registry.errors import BadInput

Value = Literal["good", "bad", "skip"]
VERSION = 1


@dataclass(frozen=True, slots=True)
class Label:
    """What one person said of one item; `skip` is no opinion."""

    id: str
    by: str
    value: Value
    at: str


@dataclass(frozen=True, slots=True)
class Queue:
    """A review queue as its file tells it."""

    people: tuple[str, ...]
    items: tuple[Item, ...]
    """In the order they are shown."""
    labels: Mapping[str, Mapping[str, Value]] = field(default_factory=dict)
    """By item and person; who labels again corrects what they said."""

    def waiting(self, person: str) -> list[Item]:
        """
        What *person* has not labelled yet, in order.

        Raises:
            BadInput: the queue is not for this person.
        """
        _check_person(self, person)
        return [item for item in self.items if person not in self.labels.get(item.id, {})]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far people agree with each other and a judge with them."""

    items: int
    labelled: int
    """Items with at least one label that is no skip."""
    people: Mapping[str, Estimate]
    """κ of every two people, over items both labelled."""
    alpha: float | None
    """Krippendorff's alpha of all people; None where it is undefined."""
    judge: Mapping[str, Estimate]
    """κ of the judge with each person, and with `majority` where several labelled."""
    split: tuple[str, ...]
    """Ids on which people disagree."""
    against_judge: tuple[str, ...]
    """Ids on which the judge says other than most people."""


def create(path: Path, drawn: Sequence[Drawn], people: Sequence[str]) -> None:
    """
    Write a new queue, and what the judge said beside it.

    Raises:
        BadInput: the file exists, nobody is named, somebody twice, or it cannot be written.
    """
    if not people or len(set(people)) < len(people) or not all(map(str.strip, people)):
        raise BadInput("name at least one person, and each once: --for ann --for bob")
    lines = [{"queue": VERSION, "people": list(people)}]
    lines += [{"item": one.item.id, **_plain(one.item)} for one in drawn]
    verdicts = [{"id": one.item.id, "verdict": one.verdict} for one in drawn if one.verdict]
    try:
        for place, rows in ((verdicts_path(path), verdicts), (path, lines)):
            with place.open("x", encoding="utf-8") as file:
                file.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
                file.flush()
                os.fsync(file.fileno())
    except FileExistsError as error:
        raise BadInput(f"{error.filename}: is there already; name another queue") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def read(path: Path) -> Queue:
    """
    The queue in a file; a last line that was cut off by a crash is left out.

    Raises:
        BadInput: unreadable, no queue, or a malformed line; names it.
    """
    people: tuple[str, ...] = ()
    items: list[Item] = []
    labels: dict[str, dict[str, Value]] = defaultdict(dict)
    for number, row in enumerate(read_lines(path), 1):
        where = f"{path}: line {number}"
        if "queue" in row:
            people = parse.build(row, _Head, source=where).people
        elif "item" in row:
            items.append(parse.build({k: v for k, v in row.items() if k != "item"}, Item, source=where))
        else:
            label = parse.build(row, Label, source=where)
            labels[label.id][label.by] = label.value
    if not people or not items:
        raise BadInput(f"{path}: no review queue; make one with `evals review sample`")
    return Queue(people, tuple(items), labels)


def add_labels(path: Path, by: str, labels: Mapping[str, Value], now: datetime) -> None:
    """
    Add what *by* said of items; on disk when this returns. Safe beside others who label.

    Raises:
        BadInput: not this person's queue, an unknown item, or the file cannot be written; nothing is added.
    """
    queue = read(path)
    _check_person(queue, by)
    known = {item.id for item in queue.items}
    for identity in labels:
        if identity not in known:
            raise BadInput(f"item {identity!r} is not in {path}{parse.nearest(identity, known)}")
    lines = [{"id": key, "by": by, "value": value, "at": to_text(now)} for key, value in labels.items()]
    data = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines).encode()
    try:
        with path.open("r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            end, gap = _end(file.read())
            file.seek(end)
            file.truncate()
            file.write(gap + data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def agreement(queue: Queue, verdicts: Mapping[str, str]) -> Agreement:
    """How far people agree with each other, and the judge's *verdicts* (by id) with them."""
    classes = CLASSES["binary"]
    said = {
        item.id: {who: value for who, value in queue.labels.get(item.id, {}).items() if value != "skip"}
        for item in queue.items
    }
    cases = {key: labels for key, labels in said.items() if labels}
    most = {key: settled(list(labels.values()), "binary") for key, labels in cases.items()}
    alpha = kappa.alpha([[labels.get(who) for who in queue.people] for labels in cases.values()])
    raters: dict[str, dict[str, str]] = {
        who: {key: labels[who] for key, labels in cases.items() if who in labels} for who in queue.people
    }
    if len(queue.people) > 1:
        raters["majority"] = {key: label for key, label in most.items() if label}
    judge = {
        who: kappa.cohen(
            kappa.crosstab([labels[key] for key in both], [verdicts[key] for key in both], classes)
        )
        for who, labels in raters.items()
        if (both := [key for key in labels if key in verdicts])
    }
    return Agreement(
        items=len(queue.items),
        labelled=len(cases),
        people=kappa.between_people(list(cases.values()), classes),
        alpha=None if alpha != alpha else alpha,  # noqa: PLR0124 - NaN
        judge=judge,
        split=tuple(key for key, labels in cases.items() if len(set(labels.values())) > 1),
        against_judge=tuple(
            key for key, label in most.items() if label and key in verdicts and verdicts[key] != label
        ),
    )


def verdicts_path(path: Path) -> Path:
    """Where what the judge said of a queue's items lies."""
    return path.with_name(path.stem + ".judge.jsonl")


def read_verdicts(path: Path) -> dict[str, str]:
    """What the judge said of the items of the queue at *path*, by id; empty where nobody kept it."""
    place = verdicts_path(path)
    if not place.exists():
        return {}
    return {str(row.get("id")): str(row.get("verdict")) for row in read_lines(place)}


def labelled_rows(queue: Queue) -> list[dict[str, Any]]:
    """The labelled items as rows for `evals calibrate`: `id`, `query`, `answer`, `labels` by person."""
    rows = []
    for item in queue.items:
        labels = {who: value for who, value in queue.labels.get(item.id, {}).items() if value != "skip"}
        if labels:
            rows.append({**_plain(item), "labels": labels})
    return rows


@dataclass(frozen=True, slots=True)
class _Head:
    queue: int
    people: tuple[str, ...]

    def __post_init__(self) -> None:
        if self.queue != VERSION:
            raise BadInput(f"queue is version {self.queue}; this program reads {VERSION}")


def _check_person(queue: Queue, person: str) -> None:
    if person not in queue.people:
        raise BadInput(f"{person!r} does not label this queue; it is for {', '.join(queue.people)}")


def _plain(item: Item) -> dict[str, Any]:
    plain: dict[str, Any] = {"id": item.id, "query": item.query, "answer": item.answer}
    plain |= {"answers": list(item.answers)} if item.answers else {}
    return plain | ({"passages": list(item.passages)} if item.passages else {})


def _end(data: bytes) -> tuple[int, bytes]:
    """Where the next line goes, and what stands before it; a line that a crash cut off is overwritten."""
    start = data.rfind(b"\n") + 1
    try:
        json.loads(data[start:])
    except ValueError:
        return start, b""
    return len(data), b"\n"
