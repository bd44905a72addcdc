"""
Screening of text that arrives in pieces, with the same outcome as screening it whole.

A position is *decided* once `reach` code points after it are known: no later text can change which
findings start there. Decided text leaves at once; so no more than `reach` code points wait, except
inside a finding, which is held until its end is known.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.errors import GuardrailBlocked
from gateway.guardrails.base import Check, Finding, Match


class Window:
    """One text on its way through a list of checks. Not thread-safe; one per stream."""

    def __init__(self, checks: Sequence[Check], stage: str) -> None:
        """
        Screen with *checks*.

        Args:
            stage: `input` or `output`, for the message of a refusal.
        """
        self._stage = stage
        self._checks = checks
        self._reach = max((check.guardrail.reach for check in checks), default=0)
        self._redactions = _Lane()
        self._reports = [_Lane() for _ in checks]
        self._matches: list[Match] = []
        self._text = ""
        self._base = 0
        self._decided = 0
        self._sent = 0

    @property
    def matches(self) -> tuple[Match, ...]:
        """What was found so far, by position; overlapping findings of one kind are one match."""
        return tuple(sorted(self._matches, key=lambda match: (match.start, match.end, match.detector)))

    def push(self, text: str) -> str:
        """
        Take the next piece and release what is decided by it, redacted.

        Raises:
            GuardrailBlocked: a rule whose action is `block` has a finding; nothing of it was released.
        """
        self._text += text
        return self._advance(self._base + len(self._text) - self._reach, last=False)

    def finish(self) -> str:
        """
        The text has ended: release the rest.

        Raises:
            GuardrailBlocked: as `push`.
        """
        return self._advance(self._base + len(self._text), last=True)

    def _advance(self, limit: int, *, last: bool) -> str:
        """Decide every position before *limit*."""
        if limit <= self._decided and not last:
            return ""
        released: list[str] = []
        for lane in (self._redactions, *self._reports):
            lane.grow(self._text, self._base)
        for check, lane, finding in self._findings(limit):
            if check.action == "block":
                message = (
                    f"guardrail {check.detector} found {finding.rule} in the {self._stage}; "
                    "this release does not allow it"
                )
                raise GuardrailBlocked(message, rule=finding.rule)
            closed = lane.add(check, finding, self._text, self._base)
            if closed is not None:
                self._close(closed, released)
        for lane in (self._redactions, *self._reports):
            closed = lane.settle(limit, last=last)
            if closed is not None:
                self._close(closed, released)
        held = self._redactions.open
        until = limit if held is None else min(limit, held.start)
        if until > self._sent:
            released.append(self._between(self._sent, until))
            self._sent = until
        self._decided = max(limit, self._decided)
        keep = max(0, self._decided - self._reach - self._base)
        self._text = self._text[keep:]
        self._base += keep
        return "".join(released)

    def _findings(self, limit: int) -> list[tuple[Check, _Lane, Finding]]:
        """Findings that start at a newly decided position, in order; blocking ones first at each."""
        found = []
        for number, check in enumerate(self._checks):
            lane = self._redactions if check.action == "redact" else self._reports[number]
            for finding in check.guardrail(self._text):
                start = finding.start + self._base
                if self._decided <= start < limit:
                    moved = Finding(finding.rule, start, finding.end + self._base, finding.tail)
                    order = (start, check.action != "block", number, -moved.end, moved.rule)
                    found.append((order, check, lane, moved))
        found.sort(key=lambda item: item[0])
        return [(check, lane, finding) for _, check, lane, finding in found]

    def _close(self, match: Match, released: list[str]) -> None:
        self._matches.append(match)
        if match.action == "redact":
            released.extend((self._between(self._sent, match.start), f"[{match.rule.upper()}]"))
            self._sent = match.end

    def _between(self, start: int, end: int) -> str:
        """The text from *start* to *end*; before a match that began long ago there is none left."""
        if end <= start:
            return ""
        return self._text[start - self._base : end - self._base]


class _Open:
    """Overlapping findings that are becoming one match, named after the longest of them."""

    __slots__ = ("check", "end", "growing", "longest", "rule", "start")

    def __init__(self, check: Check, finding: Finding) -> None:
        self.start, self.end = finding.start, finding.end
        self.growing: set[frozenset[str]] = set()
        self.longest = finding.end - finding.start
        self.rule, self.check = finding.rule, check

    def match(self) -> Match:
        return Match(self.rule, self.check.detector, self.check.action, self.start, self.end)


class _Lane:
    """Findings that may merge with each other: all redactions, or those of one reporting check."""

    __slots__ = ("open",)

    def __init__(self) -> None:
        self.open: _Open | None = None

    def grow(self, text: str, base: int) -> None:
        """Follow the open match's tails into newly arrived text."""
        current = self.open
        if current is None or not current.growing:
            return
        tails, current.growing = current.growing, set()
        frontier = current.end
        for tail in tails:
            self._follow(current, tail, frontier, text, base)

    def add(self, check: Check, finding: Finding, text: str, base: int) -> Match | None:
        """Merge *finding*, or begin a new match with it and return the one before."""
        current = self.open
        closed = None
        touches = current is not None and (
            finding.start < current.end or (finding.start == current.end and finding.rule == current.rule)
        )
        if current is None or not touches:
            closed = None if current is None else current.match()
            current = self.open = _Open(check, finding)
        else:
            current.end = max(current.end, finding.end)
            length = finding.end - finding.start
            if length > current.longest:
                current.longest, current.rule, current.check = length, finding.rule, check
        if finding.tail:
            self._follow(current, finding.tail, finding.end, text, base)
        return closed

    def settle(self, limit: int, *, last: bool) -> Match | None:
        """The open match, if no undecided finding can still touch it."""
        current = self.open
        if current is None or not (last or (current.end < limit and not current.growing)):
            return None
        self.open = None
        return current.match()

    @staticmethod
    def _follow(current: _Open, tail: frozenset[str], start: int, text: str, base: int) -> None:
        end = start - base
        while end < len(text) and text[end] in tail:
            end += 1
        current.end = max(current.end, end + base)
        if end == len(text):
            current.growing.add(tail)
