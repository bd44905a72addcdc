from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from evals.curate.pseudonyms import Pseudonyms
from evals.curate.steps import Curated, Recipe, condition, curate, moment, without
from evals.curate.traces import Reading, Trace, digest_of
from evals.errors import BadDataset
from registry.errors import BadInput

KEY = bytes(range(32))
HERE = {"content": "Here."}


def attribute(key: str, value: Any) -> dict[str, Any]:
    kinds = {str: "stringValue", bool: "boolValue", int: "intValue", float: "doubleValue"}
    return {"key": key, "value": {kinds[type(value)]: str(value) if type(value) is int else value}}


def span(number: int, attributes: Mapping[str, Any], events: list[Any] | None = None) -> dict[str, Any]:
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": "chat gpt-5",
        "startTimeUnixNano": "1767323045123456789",
        "attributes": [attribute(key, value) for key, value in attributes.items()],
        "events": events or [],
    }


def exported(*spans: dict[str, Any]) -> dict[str, Any]:
    resource = {"attributes": [attribute("service.name", "shop")]}
    return {"resourceSpans": [{"resource": resource, "scopeSpans": [{"spans": list(spans)}]}]}


def write(folder: Path, *lines: Any, name: str = "traces.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read(folder: Path, *lines: Any) -> list[Trace]:
    return list(Reading([write(folder, *lines)]))


def made(folder: Path, *lines: Any, recipe: Recipe | None = None, own: Pseudonyms | None = None) -> Curated:
    return curate(Reading([write(folder, *lines)]), recipe or Recipe(), own)


@pytest.mark.parametrize(
    "line",
    [
        {"messages": [{"role": "user", "content": "Where?"}], "output": "Here."},
        {"input": [{"role": "user", "content": "Where?"}], "response": {"choices": [{"message": HERE}]}},
        {"input": "Where?", "output": [{"type": "message", "content": [{"text": "Here."}]}]},
        {"request": {"messages": [{"role": "user", "content": "Where?"}]}, "response": {"content": "Here."}},
        {"messages": [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": "Here."}]},
        {"messages": [{"role": "user", "content": [{"text": "Where?"}]}], "completion": "Here."},
        {"query": "Where?", "answer": "Here."},
        {"question": "Where?", "response": "Here."},
        {"input": {"messages": [{"role": "human", "content": "Where?"}]}, "output": {"role": "ai", **HERE}},
    ],
)  # fmt: skip
def test_every_shape_of_a_completion_is_one_question_and_one_answer(tmp_path: Path, line: Any) -> None:
    (trace,) = read(tmp_path, line)
    assert (trace.query, trace.output, trace.messages) == ("Where?", "Here.", ())


@pytest.mark.parametrize(
    ("attributes", "events"),
    [
        (
            {
                "gen_ai.input.messages": '[{"role":"user","parts":[{"type":"text","content":"Where?"}]}]',
                "gen_ai.output.messages": '[{"role":"assistant","parts":[{"type":"text","content":"Here."}],'
                '"finish_reason":"stop"}]',
            },
            [],
        ),
        ({"gen_ai.prompt": '[{"role":"user","content":"Where?"}]', "gen_ai.completion": "Here."}, []),
        ({"gen_ai.prompt": "Where?", "gen_ai.completion": "Here."}, []),
        (
            {
                "gen_ai.prompt.0.role": "user",
                "gen_ai.prompt.0.content": "Where?",
                "gen_ai.completion.0.role": "assistant",
                "gen_ai.completion.0.content": "Here.",
            },
            [],
        ),
        (
            {"gen_ai.system": "openai"},
            [
                {"name": "gen_ai.content.prompt", "attributes": [attribute("gen_ai.prompt", "Where?")]},
                {
                    "name": "gen_ai.content.completion",
                    "attributes": [attribute("gen_ai.completion", "Here.")],
                },
            ],
        ),
    ],
)
def test_spans_of_every_convention_are_calls(tmp_path: Path, attributes: Any, events: Any) -> None:
    more = {"gen_ai.request.model": "gpt-5", "gen_ai.usage.input_tokens": 12, "gen_ai.usage.output_tokens": 3}
    (trace,) = read(tmp_path, exported(span(7, {**attributes, **more}, events)))
    assert (trace.query, trace.output, trace.model) == ("Where?", "Here.", "gpt-5")
    assert trace.kept == {"prompt_tokens": 12, "completion_tokens": 3}
    assert trace.trace == f"{7:032x}"
    assert trace.id == f"{7:032x}-{7:016x}"
    assert trace.at == datetime(2026, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)
    assert trace.facts["service.name"] == "shop"
    assert trace.facts["gen_ai.usage.input_tokens"] == 12


def test_structured_attributes_are_read_like_text(tmp_path: Path) -> None:
    text = {"kvlistValue": {"values": [attribute("type", "text"), attribute("content", "Where?")]}}
    parts = {"key": "parts", "value": {"arrayValue": {"values": [text]}}}
    message = {"kvlistValue": {"values": [attribute("role", "user"), parts]}}
    one = span(1, {})
    one["attributes"].append({"key": "gen_ai.input.messages", "value": {"arrayValue": {"values": [message]}}})
    (trace,) = read(tmp_path, exported(one))
    assert trace.query == "Where?"


def test_other_spans_and_empty_calls_are_counted_not_kept(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        exported(
            span(1, {"http.method": "GET"}),
            span(2, {"gen_ai.prompt": "Where?"}),
            span(3, {"gen_ai.system": "x"}),
        ),
        {"output": "an answer to nothing"},
        {"resourceSpans": "broken"},
    )  # fmt: skip
    reading = Reading([path])
    assert [trace.query for trace in reading] == ["Where?"]
    assert reading.skipped == {"not_a_model_call": 1, "no_query": 2}


def test_a_trace_without_an_id_is_named_by_its_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path, {"query": "a"}, {"query": "b", "id": "own"})
    digest = digest_of(path)
    first, second = Reading([path])
    assert (first.id, first.line, first.file) == (f"{digest[7:19]}-1", 1, digest)
    assert (second.id, second.line) == ("own", 2)


def test_gzipped_files_are_read(tmp_path: Path) -> None:
    path = tmp_path / "traces.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"query": "a"}\n\n{"query": "b"}\n'))
    assert [(trace.query, trace.line) for trace in Reading([path])] == [("a", 1), ("b", 3)]


@pytest.mark.parametrize(("line", "told"), [("{", ":2: not JSON"), ("[1]", ":2: a trace is one JSON object")])
def test_a_broken_line_is_named(tmp_path: Path, line: str, told: str) -> None:
    path = tmp_path / "traces.jsonl"
    path.write_text('{"query": "a"}\n' + line + "\n")
    with pytest.raises(BadDataset, match=told):
        list(Reading([path]))
    with pytest.raises(BadDataset, match="cannot be read"):
        list(Reading([tmp_path / "none.jsonl"]))


@pytest.mark.parametrize(
    ("said", "instant"),
    [
        ("2026-01-02T03:04:05Z", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2026-01-02T03:04:05", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (1767323045, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        (1767323045000, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("1767323045000000", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("yesterday", None),
        (float("inf"), None),
    ],
)
def test_times_of_every_unit_are_one_instant(tmp_path: Path, said: Any, instant: datetime | None) -> None:
    (trace,) = read(tmp_path, {"query": "a", "timestamp": said})
    assert trace.at == instant


CALLS: list[dict[str, Any]] = [
    {
        "id": f"t{n}",
        "query": f"question number {n} about {'cards' if n % 2 else 'rates'}",
        "output": f"answer {n}",
        "model": "big" if n % 5 else "small",
        "metadata": {"lang": "de" if n % 4 else "en", "vip": n % 2 == 0},
        "timestamp": f"2026-01-{n + 1:02d}T12:00:00Z",
    }
    for n in range(20)
]


@pytest.mark.parametrize(
    ("where", "count"),
    [
        ("model=big", 16),
        ("model!=big", 4),
        ("metadata.lang=en", 5),
        ("metadata.vip=true", 10),
        ("query~cards$", 10),
        ("missing=", 20),
        ("missing!=x", 20),
    ],
)
def test_filters_keep_what_they_say(tmp_path: Path, where: str, count: int) -> None:
    curated = made(tmp_path, *CALLS, recipe=Recipe(where=(condition(where),), dedupe=None))
    assert len(curated.rows) == count
    assert where in curated.source


def test_since_is_inclusive_until_is_not_and_no_time_is_neither(tmp_path: Path) -> None:
    recipe = Recipe(
        since=moment("2026-01-03", "since"), until=moment("2026-01-05T12:00:00Z", "until"), dedupe=None
    )
    curated = made(tmp_path, *CALLS, {"id": "none", "query": "no time"}, recipe=recipe)
    assert [row["id"] for row in curated.rows] == ["t2", "t3"]


def test_a_row_keeps_what_is_known_and_where_it_is_from(tmp_path: Path) -> None:
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Where?"}]
    line = {"trace_id": "abc", "messages": messages, "output": "Here.", "model": "big", "user": "u-17",
            "metadata": {"user": "u-17", "lang": "de", "big": 2**60}, "created": 1767323045}  # fmt: skip
    own = Pseudonyms(KEY)
    recipe = Recipe(accept_outputs=True)
    curated = made(tmp_path, line, recipe=recipe, own=own)
    token = own.subject("u-17")
    assert list(curated.rows) == [
        {
            "id": "abc",
            "user": token,
            "metadata": {"user": token, "lang": "de", "big": "1152921504606846976"},
            "query": "Where?",
            "messages": messages,
            "output": "Here.",
            "model": "big",
            "answers": ["Here."],
            "provenance": {
                "trace": "abc",
                "file": digest_of(tmp_path / "traces.jsonl"),
                "line": 1,
                "time": "2026-01-02T03:04:05.000000Z",
                "subject": token,
            },
        }
    ]


def test_each_step_says_what_it_removed(tmp_path: Path) -> None:
    lines = [
        *CALLS,
        {**CALLS[3]},
        {**CALLS[4], "id": "again", "query": CALLS[4]["query"] + "!"},
        {**CALLS[6], "query": "something else entirely"},
        {"output": "nothing asked"},
        {"id": "mail", "query": "my mail is a@x.org", "model": "big"},
    ]
    recipe = Recipe(where=(condition("model=big"),), sample=10, stratify=("metadata.lang",), seed="s")
    own = Pseudonyms(KEY)
    curated = made(tmp_path, *lines, recipe=recipe, own=own)
    told = [(step.name, step.rows, step.removed) for step in curated.steps]
    assert told == [
        ("read", 24, 1),
        ("filter", 20, 4),
        ("same id and text", 19, 1),
        ("dedupe", 18, 1),
        ("sample", 10, 8),
        ("pseudonyms", 10, 0),
    ]
    assert "sample of 10 by metadata.lang, seed 's'" in curated.source
    assert curated.rows == made(tmp_path, *lines, recipe=recipe, own=Pseudonyms(KEY)).rows


def test_two_calls_under_one_id_are_two_rows(tmp_path: Path) -> None:
    lines = [
        {"id": "a", "query": "first question"},
        {"id": "a", "query": "second one"},
        {"id": "a~2", "query": "third"},
    ]
    curated = made(tmp_path, *lines)
    assert [row["id"] for row in curated.rows] == ["a", "a~3", "a~2"]


def test_nothing_left_is_an_error_that_says_where(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="after the step filter; read: 20, filter: 0"):
        made(tmp_path, *CALLS, recipe=Recipe(where=(condition("model=none"),)))


@pytest.mark.parametrize(
    ("bad", "told"),
    [
        (lambda: condition("model"), "key=value"),
        (lambda: condition("model~("), "regular expression"),
        (lambda: moment("soon", "since"), "since"),
        (lambda: Recipe(stratify=("a",)), "--sample"),
        (lambda: Recipe(sample=0), "sample is 0"),
        (lambda: Recipe(dedupe=0.2), r"0\.5 to 1"),
        (lambda: Recipe(since=moment("2026-01-02", "s"), until=moment("2026-01-02", "u")), "not before"),
    ],
)
def test_what_cannot_be_done_is_refused(bad: Any, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        bad()


def test_an_address_in_an_id_is_replaced_too_and_plain_ids_stay(tmp_path: Path) -> None:
    own = Pseudonyms(KEY, {"ann": "Ann"})
    ids = ["a@x.org", "ann", "4111111111111111", "4bf92f3577b34da6a3ce929d0e0e4736"]
    curated = made(
        tmp_path, *({"id": name, "query": f"q {place} x"} for place, name in enumerate(ids)), own=own
    )
    tokens = [own.token("email", "a@x.org"), own.token("person", "Ann")]
    assert [row["id"] for row in curated.rows] == [*tokens, *ids[2:]]
    assert [row["provenance"]["trace"] for row in curated.rows] == [*tokens, *ids[2:]]


def test_rows_of_traces_and_people_are_taken_out(tmp_path: Path) -> None:
    own = Pseudonyms(KEY)
    lines = [{"id": f"t{n}", "query": f"question {n}, mail {'a' if n % 2 else 'b'}@x.org"} for n in range(4)]
    rows = made(tmp_path, *lines, recipe=Recipe(dedupe=None), own=own).rows
    token = own.token("email", "a@x.org")
    left, taken = without(rows, traces=["t0", "none"], tokens=[token])
    assert [row["id"] for row in left] == ["t2"]
    assert taken == {"t0": 1, "none": 0, token: 2}
