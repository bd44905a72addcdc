"""Evaluation rows that a model may have seen: in its training data, or among the examples of its prompt."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from evals.curate.dedupe import Index, Rarity, Shingles, words
from evals.curate.pseudonyms import has_token, masked
from evals.dataset import Sample
from registry.errors import BadInput

NGRAM = 13
"""Words in a row that two texts do not share by chance; source: Brown et al. 2020 (GPT-3), appendix C."""
LEAST_WORDS = 4
"""A query of fewer words is a leak only where a text is nothing but it."""
_LONGEST = 2_000_000
"""Most characters of one text that are looked at."""
_DEPTH = 8

Kind = Literal["exact", "contained", "ngram", "near"]
_ORDER: tuple[Kind, ...] = ("exact", "contained", "ngram", "near")


@dataclass(frozen=True, slots=True)
class Leak:
    """One sample that was found elsewhere."""

    id: str
    kind: Kind
    """
    `exact`: a text, or a row's features, are the sample's, but for case, punctuation and space;
    `contained`: the whole query stands in a longer text; `ngram`: they share 13 words in a row;
    `near`: their similarity is at least the threshold.
    """
    share: float
    """1 for exact and contained; the share of the query's 13-grams in one text; the similarity."""
    where: str
    """The first place with the worst kind and the largest share."""
    places: int
    """How many texts or rows it was found in."""


Text = tuple[str, str | Mapping[str, Any]]
"""Where it stands, and a text or a row of training data; each text in a row is looked at by itself."""


def leaks(samples: Sequence[Sample], texts: Iterable[Text], *, near: float = 0.8) -> list[Leak]:
    """
    The samples whose query or features occur in *texts*, in the order of *samples*; each once.

    *texts* is read once and never held: memory grows with the samples only. Numbers in features are equal
    when their values are; features match a row that has all of their columns. Where queries hold
    pseudonyms, any e-mail address is equal to any other on both sides, and so on: no key is needed.

    Args:
        near: similarity (see `dedupe.similarity`) from which two texts count as the same, 0.5 to 1.

    Raises:
        BadInput: *near* is out of range, or no sample has a query or features to look for.
    """
    search = _Search(samples, near)
    for where, content in texts:
        for sample, (kind, share) in search.found(content).items():
            search.keep(sample, kind, share, where)
    return [search.leaks[place] for place in sorted(search.leaks)]


class _Search:
    """The samples, ready to be looked up."""

    def __init__(self, samples: Sequence[Sample], near: float) -> None:
        self.samples = samples
        self.leaks: dict[int, Leak] = {}
        self._whole: dict[tuple[str, ...], list[int]] = {}
        self._begins: dict[tuple[str, ...], list[tuple[int, tuple[str, ...]]]] = {}
        self._grams: dict[tuple[str, ...], list[int]] = {}
        self._gram_counts: dict[int, int] = {}
        self._rows: dict[tuple[str, ...], list[int]] = {}
        self._columns: tuple[str, ...] = ()
        self._masks = any(has_token(sample.query) for sample in samples)
        self._shingles, rarity = Shingles(), Rarity()
        hashed: dict[int, set[int]] = {}
        for place, sample in enumerate(samples):
            self._add_features(place, sample)
            asked = self._read(sample.query)
            query = tuple(words(asked))
            if not query:
                continue
            self._whole.setdefault(query, []).append(place)
            hashed[place] = self._shingles.of(asked)
            rarity.count(hashed[place])
            if LEAST_WORDS <= len(query) < NGRAM:
                self._begins.setdefault(query[:LEAST_WORDS], []).append((place, query))
            grams = {query[i : i + NGRAM] for i in range(len(query) - NGRAM + 1)}
            self._gram_counts[place] = len(grams)
            for gram in grams:
                self._grams.setdefault(gram, []).append(place)
        self._index = Index(near, rarity)
        for place, hashes in hashed.items():
            self._index.add(place, hashes)
        if not self._whole and not self._rows:
            message = "no sample has a query or features: there is nothing to look for"
            raise BadInput(message)

    def found(self, content: str | Mapping[str, Any]) -> dict[int, tuple[Kind, float]]:
        """Place of a sample → the worst it has in common with *content*."""
        found: dict[int, tuple[Kind, float]] = {}
        if not isinstance(content, str):
            for place in self._rows.get(_row_key(content, self._columns), ()) if self._columns else ():
                found[place] = ("exact", 1.0)
        for text in [content] if isinstance(content, str) else _texts(content):
            for place, kind, share in self._in_text(self._read(text[:_LONGEST])):
                known = found.get(place)
                if known is None or _rank(kind, share) < _rank(*known):
                    found[place] = (kind, share)
        return found

    def keep(self, place: int, kind: Kind, share: float, where: str) -> None:
        """Remember the worst of a sample's leaks."""
        known = self.leaks.get(place)
        places = known.places + 1 if known else 1
        if known is not None and _rank(known.kind, known.share) <= _rank(kind, share):
            kind, share, where = known.kind, known.share, known.where
        self.leaks[place] = Leak(self.samples[place].id, kind, share, where, places)

    def _read(self, text: str) -> str:
        return masked(text) if self._masks else text

    def _in_text(self, text: str) -> Iterator[tuple[int, Kind, float]]:
        if not self._whole:
            return
        said = words(text)
        whole = tuple(said)
        for place in self._whole.get(whole, ()):
            yield place, "exact", 1.0
        if self._begins:
            for start in range(len(whole) - LEAST_WORDS + 1):
                for place, query in self._begins.get(whole[start : start + LEAST_WORDS], ()):
                    if whole[start : start + len(query)] == query:
                        yield place, "contained", 1.0
        yield from self._in_grams(whole)
        for place, alike in self._index.matches(self._shingles.of(text)):
            yield place, "near", alike

    def _in_grams(self, whole: tuple[str, ...]) -> Iterator[tuple[int, Kind, float]]:
        if not self._grams:
            return
        shared: dict[int, set[tuple[str, ...]]] = {}
        for start in range(len(whole) - NGRAM + 1):
            gram = whole[start : start + NGRAM]
            for place in self._grams.get(gram, ()):
                shared.setdefault(place, set()).add(gram)
        for place, grams in shared.items():
            share = len(grams) / self._gram_counts[place]
            yield place, "contained" if self._holds(whole, place, share) else "ngram", share

    def _holds(self, whole: tuple[str, ...], place: int, share: float) -> bool:
        """Whether the whole query stands in *whole*, word after word."""
        if share < 1:
            return False
        query = tuple(words(self._read(self.samples[place].query)))
        return any(
            whole[start] == query[0] and whole[start : start + len(query)] == query
            for start in range(len(whole) - len(query) + 1)
        )

    def _add_features(self, place: int, sample: Sample) -> None:
        if sample.features:
            self._columns = self._columns or tuple(sorted(sample.features))
            self._rows.setdefault(_row_key(sample.features, self._columns), []).append(place)


def _rank(kind: Kind, share: float) -> tuple[int, float]:
    return _ORDER.index(kind), -share


def _row_key(row: Mapping[str, Any], columns: Sequence[str]) -> tuple[str, ...]:
    """The values of *columns*, equal for equal rows; empty where a column is missing."""
    inner = row.get("features")
    held = inner if isinstance(inner, dict) else row
    return tuple(_cell(held[name]) for name in columns) if all(name in held for name in columns) else ()


def _cell(value: object) -> str:
    text = "" if value is None else str(value).strip()
    try:
        return repr(float(text) + 0.0)
    except ValueError:
        return text.casefold()


def _texts(value: object, depth: int = 0) -> Iterator[str]:
    """Every text in a JSON value."""
    if isinstance(value, str):
        yield value
    elif depth < _DEPTH:
        if isinstance(value, Mapping):
            for item in value.values():
                yield from _texts(item, depth + 1)
        elif isinstance(value, list | tuple):
            for item in value:
                yield from _texts(item, depth + 1)
