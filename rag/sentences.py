"""Sentences of a text, none of it lost, and the choice of those that support a query best."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from rag.documents import Passage

# Opening and closing quotes and brackets, CJK full stop, exclamation and question mark, by code point.
_OPENS = r"""["'\u201c\u2018\xab(\[\xbf\xa1*_`]"""
_CLOSES = r"""["'\u201d\u2019\xbb)\]*_\u300d\u300f\uff09]"""
_CJK_MARK = r"[\u3002\uff01\uff1f]"
_END = re.compile(
    rf"""
    \n[^\S\n]*\n\s*                                   # a blank line
    | \n\s*(?=\#{{1,6}}\s|[-*+]\s|\d{{1,3}}[.)]\s|\||```)   # the next line is a heading, an item, a row
    | (?<={_CJK_MARK}){_CLOSES}*\s*                     # no space needed
    | (?<![.!?…])(?P<mark>[.!?…]++{_CLOSES}*+)\s++      # a mark, closing quotes, space
      (?={_OPENS}*+[^\W_a-z])                           # and no lower-case letter after it
    """,
    re.VERBOSE,
)
_HEADING = re.compile(r"#{1,6}\s[^\n]*\n\s*")
_ABBREVIATIONS = frozenset(
    re.findall(
        r"\w+",
        """
        mr mrs ms dr prof rev gen col lt sgt capt st sr jr vs etc cf ca al nos vol fig figs eq ed eds
        pp inc ltd co corp dept univ approx jan feb mar apr jun jul aug sep sept oct nov dec
        """,
    )
)


def split(text: str) -> list[str]:
    """
    The sentences of *text* with the white space that follows them: joined, they are *text* again.

    Ends at `.`, `!`, `?` and `…` before a space and a capital, at CJK marks, at blank lines and
    before Markdown headings, list items and table rows; not after initials and common abbreviations.

    >>> split("Dr. Who met J. Smith. He left!  Why?")
    ['Dr. Who met J. Smith. ', 'He left!  ', 'Why?']
    """
    pieces: list[str] = []
    start, first = 0, len(text) - len(text.lstrip())
    for match in _END.finditer(text):
        if match.end() <= max(start, first) or (
            match["mark"] == "." and _is_abbreviation(text, match.start(), start)
        ):
            continue
        start = _cut(pieces, text, start, match.end())
    _cut(pieces, text, start, len(text))
    return pieces


def best(said: Sequence[Passage], scores: Iterable[float], n: int) -> list[Passage]:
    """
    The *n* sentences *said* with the highest *scores*, best first; what is said twice counts once.

    Args:
        said: one Passage a sentence; among equal scores the earlier one wins.
        scores: cosine with the query, in the same order.
    """
    found: dict[str, Passage] = {}
    for sentence, score in zip(said, scores, strict=True):
        rounded = max(-1.0, min(1.0, round(float(score), 6)))
        if sentence.text not in found or found[sentence.text].score < rounded:
            found[sentence.text] = replace(sentence, score=rounded)
    return sorted(found.values(), key=lambda sentence: -sentence.score)[:n]


def _cut(pieces: list[str], text: str, start: int, end: int) -> int:
    """Append `text[start:end]`, a Markdown heading apart from what follows it; return *end*."""
    heading = _HEADING.match(text, start, end)
    if heading and heading.end() < end:
        pieces.append(heading.group())
        start = heading.end()
    piece = text[start:end]
    if piece.strip() or not pieces:
        pieces.extend([piece] if piece else [])
    else:
        pieces[-1] += piece
    return end


def _is_abbreviation(text: str, dot: int, start: int) -> bool:
    """Whether the word before the full stop at *dot* is an initial or usually goes on."""
    word = re.split(rf"{_OPENS}|\s", text[max(start, dot - 24) : dot])[-1]
    if "." in word:
        return all(len(part) == 1 for part in word.split("."))  # e.g., U.S., J.R.
    return (len(word) == 1 and word.isalpha() and word.isupper()) or word.casefold() in _ABBREVIATIONS
