"""
Text as a reader sees it: compatibility forms folded, invisible characters gone, look-alikes Latin.

Every character is folded by itself, and only a short stretch to its left matters besides, so that
folding a piece of a text gives the same piece of the folded text.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

_UNUSUAL = re.compile(r"[^\x20-\x7e\t\n\r]")
_SPACES = re.compile(r" {2,}")
_FLAT = str.maketrans("\t\n\r", "   ")
_LONGEST_GAP = 16
"""Invisible characters that may stand inside a word; the next one ends it."""

# Letters of other scripts that look like Latin ones. Source: Unicode UTS #39, confusables.txt (a choice).
_LOOKALIKES = str.maketrans(
    "аеорсухіјѕԁһԛԝьѵгвнкмтзαβεικνορτυχγωηƖıɡɑ",
    "aeopcyxijsdhqwbvrbhkmt3abeikvoptuxywnliga",
)


@dataclass(frozen=True, slots=True)
class Folded:
    """A folded text and where each of its characters came from."""

    text: str
    origins: Sequence[int]
    """Offset in the original of each character, ascending."""

    def origin(self, place: int) -> int:
        """The offset in the original of the character at *place*."""
        return self.origins[place]

    def place(self, offset: int) -> int:
        """The first character that came from *offset* or later."""
        return bisect_left(self.origins, offset)


def fold(text: str) -> Folded:
    """
    *text* in lower case as it looks: NFKC, no invisible or control characters, no accents.

    Any white space becomes one space. Letters of other scripts that look Latin become Latin.
    """
    if _UNUSUAL.search(text):
        return _fold_slowly(text)
    flat = text.translate(_FLAT).lower()
    if "  " not in flat:
        return Folded(flat, range(len(flat)))
    pieces: list[str] = []
    origins: list[int] = []
    start = 0
    for match in _SPACES.finditer(flat):
        pieces.append(flat[start : match.start() + 1])
        origins.extend(range(start, match.start() + 1))
        start = match.end()
    pieces.append(flat[start:])
    origins.extend(range(start, len(flat)))
    return Folded("".join(pieces), origins)


def is_invisible(character: str) -> bool:
    """Whether *character* leaves no mark: format, control, variation selector, filler, unassigned."""
    return (
        unicodedata.category(character) in ("Cf", "Cc", "Cn", "Co", "Mn", "Me")
        or character in "\u115f\u1160\u3164\uffa0\u2800"
    ) and not character.isspace()


def _fold_slowly(text: str) -> Folded:
    known: dict[str, str] = {}
    letters: list[str] = []
    origins: list[int] = []
    gap = 0
    for offset, character in enumerate(text):
        plain = known.get(character)
        if plain is None:
            plain = known[character] = _plain(character)
        if plain:
            gap = 0
        else:
            gap += 1
            plain = " " if gap == _LONGEST_GAP + 1 else ""
        if plain == " " and letters and letters[-1] == " ":
            continue
        letters.extend(plain)
        origins.extend([offset] * len(plain))
    return Folded("".join(letters), origins)


def _plain(character: str) -> str:
    if character.isspace():
        return " "
    parts = unicodedata.normalize("NFKD", character).casefold()
    return "".join(part for part in parts if not is_invisible(part)).translate(_LOOKALIKES)
