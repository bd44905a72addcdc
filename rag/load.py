"""
Files → Documents.

JSON Lines (`.jsonl`, `.jsonl.gz`) with the keys `id`, `text` and, if there is one, `title`; other
keys are ignored. Or Markdown and plain text (`.md`, `.txt`), one file or a folder of them.
"""

from __future__ import annotations

import gzip
import io
import json
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path

from rag.documents import Document
from rag.errors import BadCorpus

_PROSE = (".md", ".txt")
_MAX_ID = 512


def load(path: Path) -> list[Document]:
    """
    Every document of *path*, sorted by id. The same files give the same list on any machine.

    Raises:
        BadCorpus: nothing there, an unknown kind of file, bytes that are not UTF-8 or not JSON, a
            missing or empty field, an id given twice. The message names file, line and id.
    """
    found: dict[str, tuple[Document, str]] = {}
    for where, document in _read(path):
        if document.id in found:
            message = f"{where}: id {document.id!r} was already used at {found[document.id][1]}"
            raise BadCorpus(message)
        found[document.id] = (document, where)
    if not found:
        message = f"{path} holds no document; give JSON Lines or a folder of .md and .txt files"
        raise BadCorpus(message)
    return [found[key][0] for key in sorted(found)]


def canonical_text(text: str) -> str:
    r"""
    *text* in Unicode normal form C, with `\n` line ends and no outer white space.

    >>> canonical_text("  cafe\u0301\r\nbar ")
    'café\nbar'
    """
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n")).strip()


def _read(path: Path) -> Iterator[tuple[str, Document]]:
    """Each document with the place it came from: `file` or `file:line`."""
    if path.is_dir():
        files = (file for file in path.rglob("*") if file.suffix.lower() in _PROSE and file.is_file())
        for file in sorted(files):
            parts = file.relative_to(path)
            if not any(part.startswith(".") for part in parts.parts):
                yield str(file), _prose(file, parts.as_posix())
    elif path.name.endswith((".jsonl", ".jsonl.gz")):
        yield from _json_lines(path)
    elif path.suffix.lower() in _PROSE:
        yield str(path), _prose(path, path.name)
    else:
        known = "a .jsonl, .jsonl.gz, .md or .txt file, or a folder of .md and .txt files"
        message = f"{path} is not {known}" if path.exists() else f"{path} does not exist; give {known}"
        raise BadCorpus(message)


def _prose(path: Path, name: str) -> Document:
    text = _text(_bytes(path), str(path))
    return _document({"id": name, "text": text, "title": _heading(text) or path.stem}, str(path))


def _heading(text: str) -> str:
    first = text.lstrip("\ufeff \n").partition("\n")[0]
    return first.lstrip("#").strip() if first.startswith("#") else ""


def _json_lines(path: Path) -> Iterator[tuple[str, Document]]:
    for number, line in enumerate(io.BytesIO(_bytes(path)), 1):
        if not line.strip():
            continue
        where = f"{path}:{number}"
        try:
            record = json.loads(_text(line, where))
        except (ValueError, RecursionError) as error:
            message = f"{where}: not a JSON object: {error}"
            raise BadCorpus(message) from error
        if not isinstance(record, dict):
            message = f"{where}: expected a JSON object with id and text, got {type(record).__name__}"
            raise BadCorpus(message)
        yield where, _document(record, where)


def _bytes(path: Path) -> bytes:
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if path.suffix == ".gz" else data
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        message = f"{path}: not a whole gzip file: {error}"
        raise BadCorpus(message) from error
    except OSError as error:
        message = f"{path}: cannot be read: {error.strerror}"
        raise BadCorpus(message) from error


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{where}: not UTF-8 at byte {error.start}"
        raise BadCorpus(message) from error


def _document(record: dict[str, object], where: str) -> Document:
    identity, text, title = record.get("id"), record.get("text"), record.get("title")
    if not isinstance(identity, str) or not 0 < len(identity) <= _MAX_ID or not identity.isprintable():
        message = f"{where}: id is 1 to {_MAX_ID} printable characters of text"
        raise BadCorpus(message)
    if not isinstance(text, str) or not isinstance(title, str | None):
        wrong = "title" if isinstance(text, str) else "text"
        message = f"{where}: {wrong} of id {identity!r} is missing or not text"
        raise BadCorpus(message)
    document = Document(
        unicodedata.normalize("NFC", identity), canonical_text(text), canonical_text(title or "")
    )
    if not document.text:
        message = f"{where}: text of id {identity!r} is empty"
        raise BadCorpus(message)
    try:
        f"{document.id}{document.text}{document.title}".encode()
    except UnicodeEncodeError as error:
        message = f"{where}: id {identity!r} holds half of a surrogate pair, which no text may"
        raise BadCorpus(message) from error
    return document
