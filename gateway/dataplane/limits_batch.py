"""What travels between a gateway and the store that counts; `limits.lua` is the other side."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from gateway.dataplane.limits import WINDOW
from gateway.dataplane.table import Subject
from registry.entities import BudgetPeriod

CERTAIN, CANCEL, CHARGE = 0, 1, 2
"""A hold that was made; one that may have been made and is not wanted; one that was let pass instead."""

_PREFIX = "sluicegate:{limits}:"
LEASES = f"{_PREFIX}leases"

Settlement = tuple[str, str, int, int, int, int, int, tuple[tuple[str, str | None, str | None], ...]]
"""Epoch, id, mode, tokens and cost reserved, tokens and cost used, (key, period, start) of each subject."""


class Ask:
    """One admission under way."""

    __slots__ = ("answer", "cost", "epoch", "id", "openings", "subjects", "tokens")

    def __init__(self, id_: str, subjects: Sequence[Subject], tokens: int, cost: int) -> None:
        self.id = id_
        self.subjects = subjects
        self.tokens = tokens
        self.cost = cost
        self.openings: dict[int, tuple[str, int]] = {}
        """Position of a subject → first instant of its period, and micro-USD already spent in it."""
        self.epoch = ""
        """Under which it was last sent; empty while the store cannot have made the hold."""
        self.answer: asyncio.Future[list[Any] | None] = asyncio.get_running_loop().create_future()
        """What the script says; None when the store cannot be reached."""


class Batch:
    """What is sent at once. *first*: the store has not yet confirmed the *epoch*."""

    __slots__ = ("asks", "epoch", "first", "settlements")

    def __init__(self, epoch: str, *, first: bool) -> None:
        self.epoch = epoch
        self.first = first
        self.asks: list[Ask] = []
        self.settlements: list[Settlement] = []


def key_of(subject: Subject) -> str:
    """Where the state of *subject* is."""
    return f"{_PREFIX}{subject.kind}:{subject.id}"


def encoded(batch: Batch, lease_ms: int, starts: Mapping[BudgetPeriod, str]) -> tuple[list[str], bytes]:
    """The keys that the script touches, and its argument; *starts* are the first instants of the periods."""
    keys = [LEASES, _holds(batch.epoch)]
    places = {key: place for place, key in enumerate(keys, 1)}

    def place(key: str) -> int:
        found = places.get(key)
        if found is None:
            keys.append(key)
            found = places[key] = len(keys)
        return found

    settles = [
        (epoch, place(_holds(epoch)), *numbers, [(place(key), *period) for key, *period in parts])
        for epoch, *numbers, parts in batch.settlements
    ]
    admits = []
    for ask in batch.asks:
        wanted = []
        for position, subject in enumerate(ask.subjects):
            limits = subject.limits
            period = limits.budget_period
            start, opening = ask.openings.get(position) or (starts[period], None)
            wanted.append((
                place(key_of(subject)), limits.rpm, limits.tpm, limits.concurrency, limits.budget_microusd,
                period, start, opening,
            ))  # fmt: skip
        admits.append((ask.id, ask.tokens, ask.cost, wanted))
    return keys, msgspec.msgpack.encode((batch.epoch, batch.first, lease_ms, WINDOW, settles, admits))


def decoded(raw: bytes) -> tuple[bool, list[list[Any]]]:
    """Whether the epoch was thought dead, and an answer to each admission."""
    return msgspec.msgpack.decode(raw, type=tuple[bool, list[list[Any]]])


def _holds(epoch: str) -> str:
    return f"{_PREFIX}holds:{epoch}"
