"""A run as files: the report, the evidence, and every output with its scores."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from registry.errors import BadInput

REPORT, OUTPUTS, EVIDENCE = "report.json", "outputs.jsonl", "evidence.json"
_MOST_BYTES = 1 << 28
"""A report beyond 256 MB is no report."""


@dataclass(frozen=True, slots=True)
class Kept:
    """What `--output` left behind."""

    report: dict[str, Any] | None
    """None where only `outputs.jsonl` is there."""
    lines: Path | None
    """One JSON object a line; None where only the report is there."""


def write(
    folder: Path,
    report: Mapping[str, Any],
    lines: Iterable[Mapping[str, Any]],
    envelope: Mapping[str, Any] | None,
) -> None:
    """
    Write `report.json`, `outputs.jsonl` and, where evidence was filed, `evidence.json`.

    Each file is complete or not there. *lines* are written one by one: memory does not grow with them.

    Raises:
        BadInput: the folder cannot be written.
    """
    _write(folder / OUTPUTS, (json.dumps(line, ensure_ascii=False) + "\n" for line in lines))
    if envelope:
        write_text(folder / EVIDENCE, json.dumps(envelope, indent=2) + "\n")
    else:
        (folder / EVIDENCE).unlink(missing_ok=True)
    write_text(folder / REPORT, json.dumps(report, indent=2) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write *text* to *path* in one piece, making its folder. Raises BadInput when that cannot be."""
    _write(path, [text])


def read(path: Path) -> Kept:
    """
    What a folder of `--output` holds; *path* may also be its `outputs.jsonl` or `report.json` alone.

    Raises:
        BadInput: nothing of a run is there, or the report cannot be read.
    """
    if path.is_dir():
        report, lines = path / REPORT, path / OUTPUTS
        if not report.is_file() and not lines.is_file():
            raise BadInput(f"{path}: holds no {REPORT} or {OUTPUTS}; `evals run --output` writes them")
    elif path.suffix == ".json":
        report, lines = path, path.with_name(OUTPUTS) if path.name == REPORT else path
    else:
        report, lines = path.with_name(REPORT) if path.name == OUTPUTS else path, path
    content = _object(report) if report.is_file() and report.suffix == ".json" else None
    kept = lines if lines.is_file() and lines.suffix != ".json" else None
    if content is None and kept is None:
        raise BadInput(f"{path}: no such file or folder")
    return Kept(content, kept)


def read_lines(path: Path | None) -> Iterator[dict[str, Any]]:
    """
    The cases of `outputs.jsonl` one by one; none where *path* is None.

    Raises:
        BadInput: a line is no JSON object; names the line.
    """
    if path is None:
        return
    try:
        with path.open(encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                yield _case(line, path, number)
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: cannot be read as UTF-8 text: {error}") from error


def _case(line: str, path: Path, number: int) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{path} line {number}: no JSON") from error
    if not isinstance(found, dict) or not isinstance(found.get("id"), str):
        raise BadInput(f"{path} line {number}: a case is one JSON object with an id")
    return found


def _object(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BadInput(f"{path}: larger than {_MOST_BYTES} bytes: no report")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BadInput(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(found, dict) or not isinstance(found.get("checks"), list):
        raise BadInput(f"{path}: no report of `evals run`: checks is missing")
    return found


def _write(path: Path, parts: Iterable[str]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=path.parent, prefix=f".{path.name}.", delete=False
        ) as file:
            try:
                file.writelines(parts)
                file.close()
                Path(file.name).chmod(0o666 & ~_umask())
                Path(file.name).replace(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    Path(file.name).unlink()
                raise
    except OSError as error:
        raise BadInput(f"{path}: cannot be written: {error.strerror}") from error


def _umask() -> int:
    """What the user takes from new files' rights; temporary files start with none for others."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
