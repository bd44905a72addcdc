"""Limits as one would write them without any care for speed: the whole history, added up at each question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.dataplane.table import Subject


@dataclass
class Event:
    """Something that happened to one request."""

    subjects: tuple[tuple[str, str], ...]
    slot: int
    requests: int
    tokens: int


@dataclass
class Held:
    """A request that was admitted."""

    event: Event
    tokens: int
    cost: int
    settled: bool = False
    spent: int = 0


class Model:
    """Answers as a limiter must, in one budget period that began with nothing spent."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.held: list[Held] = []

    def admit(self, subjects: Sequence[Subject], tokens: int, cost: int, now_s: float) -> int | str:
        """The number of the hold, or the rule that refuses."""
        slot = int(now_s)
        for subject in subjects:
            me, limits = (subject.kind, subject.id), subject.limits
            recent = [event for event in self.events if me in event.subjects and slot - event.slot <= 60]
            mine = [held for held in self.held if me in held.event.subjects]
            running = [held for held in mine if not held.settled]
            used = (
                ("rpm", limits.rpm, sum(event.requests for event in recent) + 1),
                ("tpm", limits.tpm, sum(event.tokens for event in recent) + tokens),
                ("concurrency", limits.concurrency, len(running) + 1),
                (
                    "budget",
                    limits.budget_microusd,
                    sum(held.spent for held in mine) + sum(held.cost for held in running) + cost,
                ),
            )
            for rule, most, count in used:
                if most is not None and count > most:
                    return f"{subject.kind}.{rule}"
        event = Event(tuple((subject.kind, subject.id) for subject in subjects), slot, 1, tokens)
        self.events.append(event)
        self.held.append(Held(event, tokens, cost))
        return len(self.held) - 1

    def settle(self, number: int, tokens: int, cost: int, now_s: float) -> None:
        """End a hold; only the first time counts."""
        held = self.held[number]
        if held.settled:
            return
        held.settled = True
        held.spent = cost
        if tokens < held.tokens:
            held.event.tokens = tokens
        else:
            self.events.append(Event(held.event.subjects, int(now_s), 0, tokens - held.tokens))
