"""Outputs that were recorded before, judged again: JSON Lines with an `id` and an Output's fields."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as fields_of
from pathlib import Path
from typing import Any

import msgspec

from evals.client import Failure
from evals.dataset import Sample
from evals.errors import TargetUnavailable
from evals.systems.base import Output
from registry.ids import digest_bytes

_MAX_BYTES = 512_000_000
_ABOUT = ("id", "role", "system", "epoch", "scores", "reasons", "query", "answers", "error", "output")
_ANSWERS = frozenset(field.name for field in fields_of(Output)) - {"latency_ms"}


@dataclass(frozen=True, slots=True)
class RecordedTarget:
    """Answers from a file; a sample that is not in it is a failure."""

    outputs: Mapping[tuple[str, int], Output | Failure]
    """By sample id and epoch."""
    identity: str
    """Digest of the file."""
    batch: int = 1

    def question(self, sample: Sample) -> Mapping[str, Any]:
        """Its id."""
        return {"recorded": sample.id}

    async def answer(
        self, samples: Sequence[Sample], *, epoch: int, first: bool = False
    ) -> Sequence[Output] | Failure:
        """See `Target.answer`."""
        del first
        (sample,) = samples
        found = self.outputs.get((sample.id, epoch), Failure("not_recorded"))
        return found if isinstance(found, Failure) else [found]


def load(path: Path, system: str, *, role: str = "candidate") -> RecordedTarget:
    """
    The outputs in *path*: rows `{"id", "epoch", "text" or "label" …}`, or an earlier run's `outputs.jsonl`.

    Of an earlier run those of *role* through *system* count; else its candidate's.

    Raises:
        TargetUnavailable: no such file, a malformed row, or two of one id and epoch; names the line.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise TargetUnavailable(f"recorded:{path}: cannot be read: {error.strerror}") from error
    if len(data) > _MAX_BYTES:
        raise TargetUnavailable(f"recorded:{path}: larger than {_MAX_BYTES:,} bytes")
    found: dict[tuple[str, int], Output | Failure] = {}
    others: dict[tuple[str, int], Output | Failure] = {}
    for number, line in enumerate(data.splitlines(), 1):
        if not line.strip():
            continue
        where = f"recorded:{path}:{number}"
        try:
            row = json.loads(line)
            key = str(row["id"]), int(row.get("epoch", 0))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise TargetUnavailable(f"{where}: not a JSON object with an id") from error
        if row.get("system", system) != system:
            continue
        place = found if row.get("role", role) == role else others
        if key in place:
            raise TargetUnavailable(f"{where}: {key[0]!r} was recorded before, of the same epoch")
        place[key] = _output(row, where)
    chosen = found or others
    if not chosen:
        raise TargetUnavailable(f"recorded:{path}: no output through system {system}")
    return RecordedTarget(chosen, digest_bytes(data))


def _output(row: Mapping[str, Any], where: str) -> Output | Failure:
    if row.get("error"):
        return Failure(str(row["error"]))
    fields = row.get("output") or {key: value for key, value in row.items() if key not in _ABOUT}
    if not isinstance(fields, Mapping) or not _ANSWERS & set(fields):
        raise TargetUnavailable(f"{where}: not an output: it has none of {', '.join(sorted(_ANSWERS))}")
    try:
        return msgspec.convert({"latency_ms": 0.0, **fields}, Output)
    except (msgspec.ValidationError, TypeError) as error:
        raise TargetUnavailable(f"{where}: not an output: {error}") from error
