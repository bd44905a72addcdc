"""
Model calls that were recorded somewhere, as rows: what was asked, what came back, of which trace.

A line of a trace file is one of

    {"messages": [...], "output": ..., "model": ..., "metadata": {...}}   a completion, in OpenAI's shape
    {"resourceSpans": [...]}     OTLP/JSON; each span with GenAI attributes is a call
    {"query": ..., "answer": ...}                                         a plain row
"""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from evals.curate.spans import calls_of
from evals.errors import BadDataset
from registry.clock import from_text
from registry.errors import BadInput

MAX_LINE = 64_000_000
"""Most bytes of a line."""
_INPUTS = ("messages", "input", "prompt", "query", "question")
_OUTPUTS = ("output", "response", "completion", "answer", "choices")
_IDS = ("trace_id", "traceId", "request_id", "id")
_TIMES = ("timestamp", "created_at", "createdAt", "start_time", "startTime", "created", "time")
SUBJECTS = (
    "user",
    "user_id",
    "userId",
    "metadata.user_id",
    "metadata.user",
    "user.id",
    "enduser.id",
    "subject",
)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = ((10**17, 10**9), (10**14, 10**6), (10**11, 10**3))
"""From what number on a time is in nano-, micro- or milliseconds; below, in seconds: right from 1973 on."""


@dataclass(frozen=True, slots=True)
class Trace:
    """One call to a model."""

    id: str
    """Unique in a dataset: the trace's own id, with its span's; else the file's digest and the line."""
    query: str
    """The last message of the user."""
    output: str
    """What the model said; empty where nothing was recorded."""
    messages: tuple[Mapping[str, Any], ...] = ()
    """The whole conversation, where it was more than the query."""
    model: str = ""
    trace: str = ""
    """The trace's id as it was recorded; else `id`."""
    at: datetime | None = None
    subject: str = ""
    """The person who asked, as recorded."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Everything recorded by dotted name, such as `metadata.language`: what filters and strata read."""
    kept: Mapping[str, Any] = field(default_factory=dict)
    """Other fields that the dataset keeps: metadata, token counts, and a plain row's own."""
    file: str = ""
    """Digest of the file it was read from."""
    line: int = 0


@dataclass(slots=True)
class Reading:
    """Trace files, read line by line; what was passed over is counted."""

    paths: Sequence[Path]
    subject_fields: Sequence[str] = SUBJECTS
    lines: int = 0
    skipped: dict[str, int] = field(default_factory=dict)
    """Reason → how many calls or spans are no rows: `no_query`, `not_a_model_call`."""

    def __iter__(self) -> Iterator[Trace]:
        """
        Each call, in the order of files and lines.

        Raises:
            BadDataset: a file that cannot be read, or a line that is no JSON object; names it.
        """
        for path in self.paths:
            file = digest_of(path)
            for number, content in _lines(path):
                self.lines += 1
                yield from self._line(content, file, number)

    def _line(self, content: Mapping[str, Any], file: str, number: int) -> Iterator[Trace]:
        if "resourceSpans" in content or "resource_spans" in content:
            made, others = calls_of(content)
            calls: list[Mapping[str, Any]] = [*made]
            self._skip("not_a_model_call", others)
        else:
            calls = [content]
        for place, call in enumerate(calls):
            found = self._trace(call, file, number, place)
            if found is None:
                self._skip("no_query", 1)
            else:
                yield found

    def _skip(self, reason: str, count: int) -> None:
        if count:
            self.skipped[reason] = self.skipped.get(reason, 0) + count

    def _trace(self, call: Mapping[str, Any], file: str, number: int, place: int) -> Trace | None:
        asked = call.get("request")
        asked = {**call, **asked} if isinstance(asked, dict) else call
        messages = _conversation(next((asked[key] for key in _INPUTS if asked.get(key)), None))
        said = next((call[key] for key in _OUTPUTS if call.get(key)), None)
        output = text_of(said)
        if said is None and messages and messages[-1].get("role") == "assistant":
            output, messages = text_of(messages[-1]), messages[:-1]
        query = next((text_of(one) for one in reversed(messages) if one.get("role") == "user"), "")
        if not query.strip():
            return None
        facts = dict(_flat(call))
        trace = next((str(facts[key]) for key in _IDS if facts.get(key) not in (None, "")), "")
        own = f"{file.removeprefix('sha256:')[:12]}-{number}" + (f".{place}" if place else "")
        span = str(call.get("span_id") or "")
        subject = next(
            (str(facts[key]) for key in self.subject_fields if facts.get(key) not in (None, "")), ""
        )
        model = asked.get("model")
        facts |= {"query": query, "output": output, "model": model if isinstance(model, str) else ""}
        return Trace(
            id=f"{trace}-{span}" if trace and span else trace or own,
            query=query,
            output=output,
            messages=tuple(messages) if len(messages) > 1 else (),
            model=facts["model"],
            trace=trace or own,
            at=_time(next((facts[key] for key in _TIMES if facts.get(key) not in (None, "")), None)),
            subject=subject,
            facts=facts,
            kept=_kept(call),
            file=file,
            line=number,
        )


def digest_of(path: Path) -> str:
    """`sha256:…` over a file's bytes as they lie on disk. Raises BadDataset."""
    try:
        with path.open("rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise BadDataset(f"traces {path}: cannot be read: {error.strerror}") from error


def text_of(said: Any) -> str:  # noqa: ANN401 - any recorded shape
    """
    The text in an answer or message: plain, in parts, in choices, or in the items of a response.

    >>> text_of({"choices": [{"message": {"role": "assistant", "content": "Yes."}}]})
    'Yes.'
    >>> text_of([{"type": "message", "content": [{"type": "output_text", "text": "No."}]}])
    'No.'
    """
    if isinstance(said, str):
        return said
    if isinstance(said, list):
        return "\n".join(part for part in map(text_of, said[:10_000]) if part)
    if isinstance(said, dict):
        if said.get("type") in ("reasoning", "thinking"):
            return ""
        if isinstance(said.get("choices"), list):
            return text_of(said["choices"][:1])
        keys = ("message", "content", "text", "parts", "output", "output_text", "response", "answer")
        return next((found for key in keys if (found := text_of(said.get(key)))), "")
    return ""


def _conversation(asked: Any) -> list[Mapping[str, Any]]:  # noqa: ANN401 - any recorded shape
    """Messages of `role` and `content`, whatever *asked* was."""
    if isinstance(asked, str):
        return [{"role": "user", "content": asked}]
    if isinstance(asked, dict):
        inner = asked.get("messages")
        if isinstance(inner, list):
            return _conversation(inner)
        asked = [asked if "role" in asked else {"role": "user", "content": asked}]
    if not isinstance(asked, list):
        return []
    messages: list[Mapping[str, Any]] = []
    for one in asked:
        if isinstance(one, dict) and one.get("type", "message") == "message":
            content = text_of(one)
            role = {"human": "user", "ai": "assistant", "model": "assistant"}.get(
                str(one.get("role")), one.get("role")
            )
            messages.append({"role": str(role or "user"), "content": content})
        elif isinstance(one, str):
            messages.append({"role": "user", "content": one})
    return messages


def _kept(call: Mapping[str, Any]) -> dict[str, Any]:
    """What the dataset keeps of *call* beside question, answer and provenance."""
    gone = {*_INPUTS, *_OUTPUTS, *_IDS, *_TIMES, "request", "object", "attributes", "span_id", "model"}
    return {key: value for key, value in call.items() if key not in gone and value not in (None, "", [], {})}


def _flat(value: Mapping[str, Any], path: str = "", depth: int = 0) -> Iterator[tuple[str, Any]]:
    for key, item in value.items():
        if isinstance(item, dict) and depth < 8:
            yield from _flat(item, f"{path}{key}.", depth + 1)
        elif isinstance(item, str | int | float | bool):
            yield f"{path}{key}", item
            if path == "attributes.":
                yield key, item


def _time(value: Any) -> datetime | None:  # noqa: ANN401 - any recorded value
    """An instant from RFC 3339 text (without a zone: UTC) or seconds, milliseconds … since 1970."""
    try:
        if isinstance(value, str) and not value.isdecimal():
            return from_text(value if datetime.fromisoformat(value).tzinfo else value + "Z")
        number = int(value) if isinstance(value, int | str) else float(value)
    except (TypeError, ValueError, BadInput):
        return None
    divisor = next((unit for least, unit in _UNITS if number >= least), 1)
    try:
        return _EPOCH + timedelta(seconds=number // divisor, microseconds=number % divisor * 10**6 // divisor)
    except (OverflowError, ValueError):
        return None


def _lines(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        with gzip.open(path, "rb") if path.name.endswith(".gz") else path.open("rb") as file:
            number = 0
            while line := file.readline(MAX_LINE + 1):
                number += 1
                if len(line) > MAX_LINE:
                    raise BadDataset(f"traces {path}:{number}: longer than {MAX_LINE:,} bytes")
                if line.strip():
                    yield number, _object(line, f"traces {path}:{number}")
    except (OSError, EOFError) as error:
        raise BadDataset(f"traces {path}: cannot be read: {error}") from error


def _object(line: bytes, at: str) -> Mapping[str, Any]:
    try:
        content = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise BadDataset(f"{at}: not JSON, one object a line: {type(error).__name__}") from error
    if not isinstance(content, dict):
        raise BadDataset(f"{at}: a trace is one JSON object")
    return content
