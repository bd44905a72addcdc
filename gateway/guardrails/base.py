"""What a guardrail is: a pure function from text to findings, whose view has a known reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from registry.entities import Action
from registry.errors import BadInput
from registry.parse import nearest


@dataclass(frozen=True, slots=True)
class Finding:
    """A span of text that a detector objects to; what happens to it is the policy's business."""

    rule: str
    """What it is, such as `email`; upper-cased it replaces a redacted span."""
    start: int
    end: int
    """Offsets in code points; `start < end`."""
    tail: frozenset[str] = frozenset()
    """Characters that still belong to the finding where they follow it without a gap."""


class Guardrail(Protocol):
    """
    A detector. Pure and thread-safe.

    The law every detector keeps, so that a stream can be screened piece by piece: whether a finding
    starts at offset s, and where it ends, depends only on `text[s - reach : s + reach]`. Findings
    may overlap and come in any order.
    """

    @property
    def reach(self) -> int:
        """The most code points one finding can span, what it looks at around it included."""
        ...

    def __call__(self, text: str) -> Sequence[Finding]:
        """Every finding in *text*."""
        ...


@dataclass(frozen=True, slots=True)
class Check:
    """One rule of a policy, ready to run."""

    detector: str
    action: Action
    guardrail: Guardrail


@dataclass(frozen=True, slots=True)
class Match:
    """A finding, with what the policy did about it."""

    rule: str
    detector: str
    action: Action
    start: int
    end: int
    """Offsets in the text before redaction."""


def occurrences(pattern: re.Pattern[str], text: str) -> Iterator[re.Match[str]]:
    """
    The match of *pattern* at every offset where it has one, overlapping ones too.

    Unlike `finditer`, no match hides another, so each depends on its own surroundings alone.
    """
    match = pattern.search(text)
    while match is not None:
        yield match
        match = pattern.search(text, match.start() + 1)


def selected(detector: str, option: str, options: Mapping[str, Any], valid: Iterable[str]) -> list[str]:
    """
    The names that the only option *option* of a detector selects; all of *valid* by default.

    Raises:
        BadInput: another option, or a name that is not in *valid*; the message offers the nearest.
    """
    names = list(valid)
    for key in options:
        if key != option:
            message = f"guardrail {detector}: unknown option {key!r}{nearest(key, [option])}"
            raise BadInput(message)
    chosen = options.get(option, names)
    if not isinstance(chosen, list | tuple) or not chosen:
        message = f"guardrail {detector}: {option} must be a list of names, such as {names[:2]}"
        raise BadInput(message)
    for name in chosen:
        if name not in names:
            message = f"guardrail {detector}: {option} has {name!r}{nearest(str(name), names)}"
            raise BadInput(message)
    return [name for name in names if name in chosen]


Finder = Callable[[str], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Finders:
    """A guardrail made of several independent finders."""

    finders: tuple[Finder, ...]
    reach: int

    def __call__(self, text: str) -> Sequence[Finding]:
        """What all finders find."""
        return [finding for finder in self.finders for finding in finder(text)]
