"""Traces → rows of a dataset, step by step; what each step removed is told. And rows taken out again."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from evals.curate.dedupe import check_threshold, near_duplicates
from evals.curate.pseudonyms import Pseudonyms, counts
from evals.curate.sampling import choose
from evals.curate.traces import Reading, Trace
from registry.clock import from_text, to_text
from registry.errors import BadInput
from registry.ids import canonical

_CONDITION = re.compile(r"(?P<key>[^=!~]+?)\s*(?P<sign>!=|=|~)\s*(?P<value>.*)", re.DOTALL)
_IDENTIFIER = re.compile(r"[\w.:~\-]+")
_MOST_INTEGER = 2**53
_DATE = re.compile(r"\d{4}-\d\d-\d\d")


@dataclass(frozen=True, slots=True)
class Condition:
    """One filter: `key=value`, `key!=value` or `key~regex`; a key that a trace lacks is empty text."""

    key: str
    sign: str
    value: str

    def holds(self, facts: Mapping[str, Any]) -> bool:
        """Whether *facts* meet it; true and false are written so, numbers as in JSON."""
        found = _text(facts.get(self.key))
        if self.sign == "~":
            return re.search(self.value, found) is not None
        return (found == self.value) == (self.sign == "=")


@dataclass(frozen=True, slots=True)
class Recipe:
    """What is done to traces, in this order: filters, near-duplicates, sample, pseudonyms."""

    where: tuple[Condition, ...] = ()
    since: datetime | None = None
    until: datetime | None = None
    """Exclusive."""
    dedupe: float | None = 0.9
    """Similarity from which a conversation repeats an earlier one; None keeps every one."""
    sample: int | None = None
    stratify: tuple[str, ...] = ()
    """Keys whose values make the strata."""
    seed: str = ""
    accept_outputs: bool = False
    """Take recorded answers as accepted ones."""

    def __post_init__(self) -> None:
        """Refuse what cannot be done."""
        if self.dedupe is not None:
            check_threshold(self.dedupe)
        if self.sample is not None and self.sample < 1:
            raise BadInput(f"sample is {self.sample}; it must be 1 or more")
        if self.stratify and self.sample is None:
            message = "stratify says how to share out a sample: give --sample too"
            raise BadInput(message)
        if self.since and self.until and self.since >= self.until:
            raise BadInput(f"since {to_text(self.since)} is not before until {to_text(self.until)}")


@dataclass(frozen=True, slots=True)
class Step:
    """What one step left."""

    name: str
    rows: int
    removed: int
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Curated:
    """Rows ready to be registered, and how they came to be."""

    rows: tuple[Mapping[str, Any], ...]
    steps: tuple[Step, ...]
    source: str
    """One line on files, filters and steps: the dataset's source text."""


def condition(text: str) -> Condition:
    """
    Read one filter. Raises BadInput: another shape, or no regular expression.

    >>> condition("metadata.language=de")
    Condition(key='metadata.language', sign='=', value='de')
    """
    match = _CONDITION.fullmatch(text)
    if match is None:
        raise BadInput(f"where {text!r} is none of key=value, key!=value and key~regex")
    if match["sign"] == "~":
        try:
            re.compile(match["value"])
        except re.error as error:
            raise BadInput(f"where {text!r}: not a regular expression: {error}") from error
    return Condition(match["key"].strip(), match["sign"], match["value"])


def moment(text: str, option: str) -> datetime:
    """The instant that *text* names: RFC 3339, or a date, which begins at midnight UTC. Raises BadInput."""
    try:
        return from_text(f"{text}T00:00:00Z" if _DATE.fullmatch(text) else text)
    except BadInput as error:
        raise BadInput(f"{option}: {error.message}") from error


def curate(reading: Reading, recipe: Recipe, pseudonyms: Pseudonyms | None) -> Curated:
    """
    The rows that *recipe* makes of the traces in *reading*: the same files and key give the same rows.

    Each row keeps under `provenance` its trace, file digest, line, and as recorded its time and its subject's
    pseudonym.

    Args:
        pseudonyms: None leaves texts as they are.

    Raises:
        BadDataset: a file cannot be read, or a line is no JSON object.
        BadInput: nothing is left; the message says after which step.
    """
    steps: list[Step] = []
    read = 0
    traces: list[Trace] = []
    for trace in reading:
        read += 1
        if _wanted(trace, recipe):
            facts = {key: trace.facts.get(key) for key in recipe.stratify}
            traces.append(replace(trace, facts=facts))
    passed_over = sum(reading.skipped.values())
    steps.append(Step("read", read, passed_over, dict(reading.skipped)))
    steps.append(Step("filter", len(traces), read - len(traces)))
    traces = _unique(traces, steps)
    if recipe.dedupe is not None:
        repeats = near_duplicates([_conversation(trace) for trace in traces], recipe.dedupe)
        kept = [trace for trace, repeat in zip(traces, repeats, strict=True) if repeat is None]
        steps.append(Step("dedupe", len(kept), len(traces) - len(kept), {"similarity": recipe.dedupe}))
        traces = kept
    if recipe.sample is not None and traces:
        strata = [tuple(_text(trace.facts.get(key)) for key in recipe.stratify) for trace in traces]
        chosen = choose([trace.id for trace in traces], strata, recipe.sample, seed=recipe.seed)
        details = {"by": list(recipe.stratify), "strata": len(set(strata)), "seed": recipe.seed}
        steps.append(Step("sample", len(chosen), len(traces) - len(chosen), details))
        traces = [traces[place] for place in chosen]
    if not traces:
        last = next((step.name for step in steps if not step.rows), "read")
        raise BadInput(f"no trace is left after the step {last}; {_summary(steps)}")
    rows = tuple(row_of(trace, recipe, pseudonyms) for trace in traces)
    if pseudonyms is not None:
        details = {"key": key_name(pseudonyms.key), "replaced": counts(pseudonyms.replaced)}
        steps.append(Step("pseudonyms", len(rows), 0, details))
    return Curated(rows, tuple(steps), _source(reading, recipe, pseudonyms, traces))


def row_of(trace: Trace, recipe: Recipe, pseudonyms: Pseudonyms | None) -> dict[str, Any]:
    """The dataset row of one trace."""
    row: dict[str, Any] = {key: _json(value) for key, value in trace.kept.items()}
    row |= {"query": trace.query}
    optional = {"messages": list(trace.messages), "output": trace.output, "model": trace.model}
    row |= {key: value for key, value in optional.items() if value}
    if recipe.accept_outputs and trace.output:
        row["answers"] = [trace.output]
    subject, identity, name = trace.subject, trace.id, trace.trace
    if pseudonyms is not None:
        if subject:
            raw, subject = subject, person(pseudonyms, subject)
            row = {key: _exactly(value, raw, subject) for key, value in row.items()}
        row = pseudonyms.value(row)
        identity, name = _identifier(pseudonyms, identity), _identifier(pseudonyms, name)
    provenance = {"trace": name, "file": trace.file, "line": trace.line}
    if trace.at is not None:
        provenance["time"] = to_text(trace.at)
    if subject:
        provenance["subject"] = subject
    return {"id": identity, **row, "provenance": provenance}


def person(pseudonyms: Pseudonyms, value: str) -> str:
    """The token of somebody a field names: that of her e-mail address, number or listed name if it is one."""
    found = pseudonyms.text(value)
    return found if _is_token(found) else pseudonyms.subject(value)


def without(
    rows: Iterable[Mapping[str, Any]], *, traces: Sequence[str] = (), tokens: Sequence[str] = ()
) -> tuple[list[Mapping[str, Any]], dict[str, int]]:
    """
    *rows* without those of some traces (by trace or row id) or that hold some tokens anywhere.

    Returns:
        What is left, and for each trace and token how many rows it took out; a row can count for several.
    """
    taken = dict.fromkeys((*traces, *tokens), 0)
    left = []
    for row in rows:
        provenance = row.get("provenance")
        trace = provenance.get("trace") if isinstance(provenance, dict) else None
        text = json.dumps(row, ensure_ascii=False) if tokens else ""
        hits = [one for one in traces if one in (trace, str(row.get("id")))]
        hits += [token for token in tokens if token in text]
        for hit in hits:
            taken[hit] += 1
        if not hits:
            left.append(row)
    return left, taken


def key_name(key: bytes) -> str:
    """What a key is called in reports: 12 hex digits that say nothing about it."""
    return hashlib.sha256(b"sluicegate pseudonyms\0" + key).hexdigest()[:12]


def _wanted(trace: Trace, recipe: Recipe) -> bool:
    if recipe.since is not None and (trace.at is None or trace.at < recipe.since):
        return False
    if recipe.until is not None and (trace.at is None or trace.at >= recipe.until):
        return False
    return all(one.holds(trace.facts) for one in recipe.where)


def _unique(traces: list[Trace], steps: list[Step]) -> list[Trace]:
    """One row an id: an equal call recorded twice goes, another one under the same id gets a number."""
    calls: dict[str, set[tuple[str, str]]] = {}
    ids = {trace.id for trace in traces}
    kept = []
    for trace in traces:
        known = calls.setdefault(trace.id, set())
        call = (_conversation(trace), trace.output)
        if call in known:
            continue
        known.add(call)
        name, number = trace.id, len(known)
        while number > 1 and name in ids:
            name, number = f"{trace.id}~{number}", number + 1
        ids.add(name)
        kept.append(trace if name == trace.id else replace(trace, id=name))
    if len(kept) < len(traces):
        steps.append(Step("same id and text", len(kept), len(traces) - len(kept)))
    return kept


def _conversation(trace: Trace) -> str:
    said = [str(one["content"]) for one in trace.messages if one.get("role") != "system"]
    return "\n".join(said) if said else trace.query


def _identifier(pseudonyms: Pseudonyms, identity: str) -> str:
    """An id stays as it is, unless it is no mere identifier or is a listed name."""
    if _IDENTIFIER.fullmatch(identity) and identity.lower() not in pseudonyms.names:
        return identity
    return pseudonyms.text(identity)


def _is_token(text: str) -> bool:
    return text.startswith("[") and text.endswith("]") and text.count("[") == 1


def _exactly(value: Any, raw: str, token: str) -> Any:  # noqa: ANN401 - any JSON
    """*value* with every text or number that is *raw* as a whole replaced."""
    if isinstance(value, dict):
        return {key: _exactly(item, raw, token) for key, item in value.items()}
    if isinstance(value, list):
        return [_exactly(item, raw, token) for item in value]
    same = isinstance(value, str | int | float) and not isinstance(value, bool) and str(value) == raw
    return token if same else value


def _json(value: Any) -> Any:  # noqa: ANN401 - any recorded JSON
    """*value* as canonical JSON can hold it: huge integers as text, no NaN."""
    if isinstance(value, dict):
        return {str(key): _json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, int) and abs(value) >= _MOST_INTEGER:
        return str(value)
    return value


def _text(value: Any) -> str:  # noqa: ANN401 - any recorded value
    if value is None or isinstance(value, str):
        return value or ""
    return canonical(_json(value)).decode()


def _summary(steps: Sequence[Step]) -> str:
    return ", ".join(f"{step.name}: {step.rows}" for step in steps)


def _source(reading: Reading, recipe: Recipe, pseudonyms: Pseudonyms | None, traces: Sequence[Trace]) -> str:
    digests = sorted({trace.file for trace in traces})
    files = ", ".join(path.name for path in reading.paths[:5]) + (" …" if len(reading.paths) > 5 else "")
    parts = [f"traces of {files} ({', '.join(digest[:19] for digest in digests[:5])})"]
    parts += [f"where {one.key}{one.sign}{one.value}" for one in recipe.where]
    parts += [f"since {to_text(recipe.since.astimezone(UTC))}"] if recipe.since else []
    parts += [f"until {to_text(recipe.until.astimezone(UTC))}"] if recipe.until else []
    parts += [f"near-duplicates from {recipe.dedupe:g} removed"] if recipe.dedupe is not None else []
    if recipe.sample is not None:
        by = f" by {', '.join(recipe.stratify)}" if recipe.stratify else ""
        parts.append(f"sample of {recipe.sample}{by}, seed {recipe.seed!r}")
    parts += [f"pseudonyms of key {key_name(pseudonyms.key)}" if pseudonyms else "no pseudonyms"]
    text = "; ".join(parts)
    return pseudonyms.text(text) if pseudonyms else text
