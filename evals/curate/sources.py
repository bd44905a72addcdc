"""Where datasets, training texts and prompts are read from: files, or versions in the registry."""

from __future__ import annotations

import csv
import gzip
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from evals import dataset, parquet
from evals.curate.leakage import Text
from evals.dataset import Dataset
from evals.errors import BadDataset
from registry import datasets, promptfile, prompts
from registry.entities import PromptContent
from registry.errors import BadInput
from registry.refs import check_name, parse_ref
from registry.workspace import Workspace

_PROSE = (".md", ".txt")
_TABLES = (".jsonl", ".csv", ".parquet", ".json")
_MOST_CELL = 10_000_000


def open_dataset(workspace: Workspace, place: str, name: str = "") -> Dataset:
    """
    The dataset in a file, or the version that a reference such as `support-questions:3` names.

    Args:
        name: what to call a file's; by default its name without endings.

    Raises:
        BadDataset: no such file, or a malformed row.
        BadRef, NotFound: neither a file nor a version.
    """
    path = Path(place)
    if _is_file(path):
        stem = path.name.removesuffix(".gz").rpartition(".")[0].lower()
        return dataset.read(path, name or _as_name(stem))
    with workspace.viewing("versions.show") as connection:
        version, content = datasets.get(connection, parse_ref(place))
    rows = datasets.rows_of(content, workspace.artifacts)
    return dataset.from_version(version, rows, source=content.source, licence=content.licence)


def named(found: Dataset, name: str) -> Dataset:
    """*found* under another name. Raises BadInput where it is none."""
    return replace(found, name=check_name(name, "dataset name"), version=None)


def rows_of(found: Dataset) -> list[dict[str, Any]]:
    """The rows of a dataset as they were, in the order of its file."""
    return [json.loads(line) for line in found.rows.split(b"\n") if line]


def training_texts(workspace: Workspace, places: Sequence[str]) -> Iterator[Text]:
    """
    Every row or text of training data, with its place: CSV, JSON Lines and Parquet by rows (also gzipped, but
    Parquet), other text files whole, registered datasets by rows. Files are read a row at a time.

    Raises:
        BadDataset: a file cannot be read; names the line.
        BadRef, NotFound: neither a file nor a version.
    """
    for place in places:
        path = Path(place)
        if not _is_file(path):
            found = open_dataset(workspace, place)
            yield from ((f"{place}:{row['id']}", row) for row in rows_of(found))
        elif path.suffix.lower() == ".parquet":
            for number, row in parquet.rows(path):
                yield f"{place}:{number}", row
        else:
            yield from _file_texts(path)


def prompt_texts(workspace: Workspace, places: Sequence[str]) -> Iterator[Text]:
    """
    The messages of prompts, with their place: prompt files, other text files, or registered prompts by name.

    Raises:
        BadInput: a file that cannot be read.
        BadRef, NotFound: neither a file nor a prompt.
    """
    for place in places:
        path = Path(place)
        if _is_file(path):
            text = promptfile.read_text(path)
            content = _prompt(text, place)
        else:
            with workspace.viewing("prompts.pull") as connection:
                _, content = prompts.get(connection, parse_ref(place))
        if content is None:
            yield place, text
            continue
        for number, message in enumerate(content.messages, 1):
            yield f"{place}#{number}", message.content


def _prompt(text: str, source: str) -> PromptContent | None:
    """The prompt in a file's text, or None where it is just text."""
    if not text.removeprefix("\ufeff").startswith("---"):
        return None
    return promptfile.parse_file(text, source=source)[1]


def _is_file(path: Path) -> bool:
    endings = (*_PROSE, *_TABLES)
    return path.is_file() or path.name.lower().removesuffix(".gz").endswith(endings) or len(path.parts) > 1


def _as_name(stem: str) -> str:
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in stem).strip("-")
    return check_name(name[:64] or "dataset")


def _file_texts(path: Path) -> Iterator[Text]:
    kind = path.name.lower().removesuffix(".gz").rpartition(".")[2]
    with _opened(path) as file:
        if kind == "csv":
            for number, row in enumerate(_csv(file, path), 2):
                yield f"{path}:{number}", row
        elif kind == "jsonl":
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"{path}:{number}", _object(line, f"{path}:{number}")
        else:
            yield str(path), file.read()


def _csv(file: TextIO, path: Path) -> Iterator[Mapping[str, Any]]:
    csv.field_size_limit(_MOST_CELL)
    reader = csv.DictReader(file, restkey="", restval="")
    try:
        yield from reader
    except csv.Error as error:
        raise BadDataset(f"{path}:{reader.line_num}: not CSV: {error}") from error


def _object(line: str, at: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadDataset(f"{at}: not JSON, one object a line: {type(error).__name__}") from error
    return row if isinstance(row, dict) else {"text": row}


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with (
            gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as raw,
            io.TextIOWrapper(raw, encoding="utf-8-sig", newline="") as file,
        ):
            yield file
    except UnicodeDecodeError as error:
        raise BadDataset(f"{path}: not UTF-8") from error
    except (OSError, EOFError) as error:
        raise BadInput(f"{path}: cannot be read: {error}") from error
