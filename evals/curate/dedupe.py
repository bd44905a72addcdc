"""Near-duplicates among texts, found without comparing every pair and without missing one."""

from __future__ import annotations

import math
import re
import unicodedata
from array import array
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from itertools import pairwise

from registry.errors import BadInput

LEAST_SIMILARITY = 0.5
"""Below this, texts share so little that calling them duplicates would be wrong, and the search slow."""
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")
"""A word; each Chinese or Japanese character is one."""
_COUNTERS = 1 << 20
_MASK = (1 << 64) - 1
_WORDS_KEPT = 500_000
_ROUNDING = 1e-9


def words(text: str) -> list[str]:
    """
    The words of *text* without case, accents' encoding, punctuation and white space.

    >>> words("  Reset my PASSWORD, please! ")
    ['reset', 'my', 'password', 'please']
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text.casefold())


class Shingles:
    """What `similarity` compares: 64-bit hashes of words and of pairs of neighbouring words."""

    def __init__(self) -> None:
        """Keep the hashes of words met, at most half a million."""
        self._hashes: dict[str, int] = {}

    def of(self, text: str) -> set[int]:
        """The hashes of *text*; of a text without words that of the text itself, if it is not blank."""
        found = words(text)
        known = self._hashes
        if len(known) > _WORDS_KEPT:
            known.clear()
        hashes = []
        for word in found or [text.strip()]:
            value = known.get(word)
            if value is None:
                value = known[word] = int.from_bytes(
                    blake2b(word.encode("utf-8", "replace"), digest_size=8).digest()
                )
            hashes.append(value)
        if not found:
            return set(hashes) if text.strip() else set()
        pairs = {(a * 0x9E3779B97F4A7C15 + b) & _MASK for a, b in pairwise(hashes)}
        return pairs.union(hashes)


def similarity(a: str, b: str) -> float:
    """
    How much two texts share, in [0, 1]: the Jaccard similarity of their words and pairs of words.

        |A and B| / |A or B|

    1 for two texts without anything in them. Source: Broder 1997, On the resemblance and containment of
    documents; here with words and pairs instead of w-shingles, so that short texts compare well too.

    >>> similarity("How do I reset it?", "how do i RESET it")
    1.0
    >>> similarity("How do I reset it?", "How do we pay?")
    0.23076923076923078
    """
    shingles = Shingles()
    return jaccard(shingles.of(a), shingles.of(b))


def jaccard(a: set[int], b: Sequence[int] | set[int]) -> float:
    """The Jaccard similarity of two sets; *b* may be a sequence without repetitions."""
    shared = len(a.intersection(b))
    every = len(a) + len(b) - shared
    return shared / every if every else 1.0


def check_threshold(threshold: float, field: str = "dedupe") -> float:
    """*threshold* itself. Raises BadInput outside [0.5, 1]."""
    if not LEAST_SIMILARITY <= threshold <= 1:
        raise BadInput(f"{field} is {threshold:g}; a similarity to call texts duplicates at is 0.5 to 1")
    return threshold


class Rarity:
    """How common each hash is, by one of a million counters: 4 MB however many there are."""

    def __init__(self) -> None:
        """Nothing counted yet."""
        self._counts = array("I", bytes(4 * _COUNTERS))

    def count(self, hashes: Iterable[int]) -> None:
        """Count each of *hashes* once."""
        counts = self._counts
        for value in hashes:
            counts[value & (_COUNTERS - 1)] += 1

    def rarest(self, hashes: Iterable[int], most: int) -> list[int]:
        """The *most* rarest of *hashes*, in the one order that everybody shares."""
        counts, low = self._counts, _COUNTERS - 1
        return sorted(hashes, key=lambda value: (counts[value & low], value))[:most]


class Index:
    """
    Texts that later ones are compared with; finds every one at or above the threshold.

    Two sets with similarity t or more share one of their |x| - ⌈t·|x|⌉ + 1 rarest members, in any common
    order, and neither is larger than the other's size through t; only pairs that pass both are compared,
    exactly.

    Source: Chaudhuri, Ganti and Kaushik 2006, ICDE (prefix filter); Bayardo, Ma and Srikant 2007, WWW, with
    members ordered from rare to common.
    """

    def __init__(self, threshold: float, rarity: Rarity) -> None:
        """An empty index; *rarity* has to have counted everything before, and may not change after."""
        self.threshold = check_threshold(threshold)
        self._rarity = rarity
        self._kept: list[tuple[int, array[int]]] = []
        self._holders: dict[int, list[int]] = {}

    def add(self, number: int, hashes: set[int]) -> None:
        """Remember *hashes* under *number*."""
        place = len(self._kept)
        self._kept.append((number, array("Q", hashes)))
        for value in self._prefix(hashes):
            self._holders.setdefault(value, []).append(place)

    def matches(self, hashes: set[int]) -> list[tuple[int, float]]:
        """(number, similarity) of what was added and is alike enough, in the order it was added."""
        size, threshold = len(hashes), self.threshold
        holders = self._holders
        places = {place for value in self._prefix(hashes) for place in holders.get(value, ())}
        found = []
        for place in sorted(places):
            number, others = self._kept[place]
            if not threshold * size - _ROUNDING <= len(others) <= size / threshold + _ROUNDING:
                continue
            alike = jaccard(hashes, others)
            if alike >= threshold:
                found.append((number, alike))
        return found

    def _prefix(self, hashes: set[int]) -> list[int]:
        size = len(hashes)
        needed = math.ceil(self.threshold * size - _ROUNDING)
        return self._rarity.rarest(hashes, size - needed + 1) if size else []


def near_duplicates(texts: Sequence[str], threshold: float = 0.9) -> list[int | None]:
    """
    For each text, the place of the earliest kept one it repeats; None where it is kept.

    Every text is compared with those kept before it; the first of a group stays. Texts without words repeat
    each other only when equal. About 8 bytes a word or pair of words are held.

    Raises:
        BadInput: *threshold* is outside [0.5, 1].

    >>> near_duplicates(["Reset my password", "Cancel it", "reset my password!"])
    [None, None, 0]
    """
    check_threshold(threshold)
    shingles, rarity = Shingles(), Rarity()
    held: list[array[int]] = []
    for text in texts:
        hashes = shingles.of(text)
        rarity.count(hashes)
        held.append(array("Q", hashes))
    index = Index(threshold, rarity)
    blank: int | None = None
    answer: list[int | None] = []
    for number, kept in enumerate(held):
        hashes = set(kept)
        if not hashes:
            answer.append(blank)
            blank = number if blank is None else blank
            continue
        found = index.matches(hashes)
        answer.append(found[0][0] if found else None)
        if not found:
            index.add(number, hashes)
    return answer
