"""Documents → Chunks: whole sentences packed up to a size."""

from __future__ import annotations

from collections.abc import Iterable

from rag import sentences
from rag.documents import Chunk, Document
from registry.entities import Chunker


def chunk(documents: Iterable[Document], chunker: Chunker) -> list[Chunk]:
    """
    The chunks of every document, in order.

    A chunk holds at most `max_chars` characters, outer white space not counted, and is never
    blank. Without overlap, the chunks of a document joined are its text.
    """
    return [
        Chunk(f"{document.id}#{number}", document.id, document.title, text)
        for document in documents
        for number, text in enumerate(pack(document.text, chunker))
    ]


def pack(text: str, chunker: Chunker) -> list[str]:
    """
    *text* cut into stretches of whole sentences, each as long as `max_chars` allows.

    With overlap, a stretch begins with the last sentences of the one before, as many of
    `overlap_sentences` as leave room for one that is new.

    >>> pack("One is here. Two is there. Three is gone.", Chunker(max_chars=50))
    ['One is here. Two is there. Three is gone.']
    """
    limit = chunker.max_chars
    pieces = [part for sentence in sentences.split(text) for part in _shorten(sentence, limit)]
    stretches: list[str] = []
    start = 0
    while start < len(pieces):
        end = start + 1
        while end < len(pieces) and _fits(pieces[start : end + 1], limit):
            end += 1
        stretches.append("".join(pieces[start:end]))
        if end == len(pieces):
            break
        start = max(end - chunker.overlap_sentences, start + 1)
        while start < end and not _fits(pieces[start : end + 1], limit):
            start += 1
    return stretches


def _fits(pieces: list[str], limit: int) -> bool:
    return len("".join(pieces).strip()) <= limit


def _shorten(sentence: str, limit: int) -> list[str]:
    """*sentence* in parts of at most *limit* characters: cut after the last space that fits."""
    parts = []
    start, first = 0, len(sentence) - len(sentence.lstrip())
    end = len(sentence.rstrip())
    while end - first > limit:
        cut = first + limit
        while cut > first and not sentence[cut].isspace():
            cut -= 1
        cut = cut if cut > first else first + limit  # one word longer than the limit
        while sentence[cut].isspace():
            cut += 1
        parts.append(sentence[start:cut])
        start = first = cut
    return [*parts, sentence[start:]]
