from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evals.cli import datasets as commands
from evals.curate.pseudonyms import Pseudonyms, read_key
from registry import datasets, judges, prompts, terminal
from registry.clock import utc_now
from registry.entities import JudgeContent, PromptContent, PromptMessage
from registry.refs import parse_ref
from registry.settings import RegistrySettings
from registry.terminal import command_group
from registry.workspace import Workspace, open_workspace
from tests.evals.fake_judge import KEY, FakeJudge, serve_judge

Run = Callable[..., tuple[int, Any]]
TRACES: list[dict[str, Any]] = [
    {"id": f"t{n}", "query": f"question {n} of {'ann' if n % 2 else 'bob'}@x.org", "answer": f"answer {n}",
     "model": "big" if n % 3 else "small", "user": f"u{n % 4}"}
    for n in range(12)
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEGATE_ACTOR", "ann")
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(tmp_path / ".sluicegate"))
    return tmp_path


@pytest.fixture
def workspace(home: Path) -> Iterator[Workspace]:
    with open_workspace(RegistrySettings(home=home / ".sluicegate")) as opened:
        yield opened


@pytest.fixture
def run(home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*words: str, as_json: bool = True) -> tuple[int, Any]:
        application = command_group("test")
        commands.add_to(application)
        monkeypatch.setattr(sys, "argv", ["evals", "datasets", *words, *(["--json"] if as_json else [])])
        with pytest.raises(SystemExit) as left:
            terminal.run(application)
        printed = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, json.loads(printed.out) if as_json else printed.out + printed.err

    return call


def write(name: str, *rows: Any) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def stored(workspace: Workspace, ref: str) -> tuple[list[dict[str, Any]], str]:
    with workspace.reading() as connection:
        _, content = datasets.get(connection, parse_ref(ref))
    rows = datasets.rows_of(content, workspace.artifacts)
    return [json.loads(line) for line in rows.splitlines()], content.source


def test_traces_become_a_registered_dataset_under_pseudonyms(
    run: Run, home: Path, workspace: Workspace
) -> None:
    file = write("traces.jsonl", *TRACES, TRACES[0])
    code, answer = run("from-traces", file, "--name", "support", "--where", "model=big", "--dedupe", "0")
    assert code == 0
    assert [(step["name"], step["rows"], step["removed"]) for step in answer["steps"]] == [
        ("read", 13, 0), ("filter", 8, 5), ("pseudonyms", 8, 0),
    ]  # fmt: skip
    key, made = read_key(home / ".sluicegate" / "pseudonym.key")
    assert not made
    assert answer["key_made"] == str(home / ".sluicegate" / "pseudonym.key")
    rows, source = stored(workspace, "support:1")
    own = Pseudonyms(key)
    assert rows[0]["query"] == f"question 1 of {own.token('email', 'ann@x.org')}"
    assert rows[0]["provenance"]["subject"] == own.subject("u1") == rows[0]["user"]
    assert "@x.org" not in json.dumps(rows)
    assert source == answer["source"]
    again = run("from-traces", file, "--name", "support", "--where", "model=big", "--dedupe", "0")[1]
    assert (again["number"], again["digest"]) == (1, answer["digest"])
    assert "key_made" not in again


def test_a_dry_run_counts_and_leaves_nothing(run: Run, home: Path) -> None:
    file = write("traces.jsonl", *TRACES)
    code, answer = run(
        "from-traces", file, "--name", "support", "--dry-run", "--sample", "6", "--stratify", "model"
    )
    assert (code, answer["dry_run"], answer["rows"]) == (0, True, 6)
    assert not (home / ".sluicegate" / "pseudonym.key").exists()
    assert run("list")[1]["versions"] == []


def test_rows_can_go_to_a_file_as_they_are(run: Run) -> None:
    file = write("traces.jsonl", *TRACES)
    out = ("--output", "out.jsonl", "--as-is", "--accept-outputs", "--since", "2026-01-01")
    assert run("from-traces", file, "--name", "s", *out)[1]["error"]["code"] == "bad_input"
    code, answer = run("from-traces", file, "--name", "s", *out[:4])
    rows = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    assert (code, answer["output"], len(rows)) == (0, "out.jsonl", 12)
    assert (rows[1]["query"], rows[1]["answers"]) == ("question 1 of ann@x.org", ["answer 1"])
    code, text = run("from-traces", file, "--name", "s", "--where", "model=big", as_json=False)
    assert code == 0
    assert text.splitlines()[0].split() == ["STEP", "ROWS", "REMOVED", "DETAILS"]
    assert "made the key" in text


def test_erasing_a_trace_or_a_person_makes_a_new_version(run: Run, workspace: Workspace) -> None:
    file = write("traces.jsonl", *TRACES)
    run("from-traces", file, "--name", "support", "--dedupe", "0")
    code, answer = run("erase", "support", "--trace", "t0", "--trace", "t99", "--dry-run")
    assert (code, answer["removed"], answer["taken"]) == (0, 1, {"t0": 1, "t99": 0})
    code, answer = run("erase", "support", "--trace", "t0", "--person", "Ann@X.org", "--person", "u2")
    assert (code, answer["number"], answer["rows"], answer["removed"]) == (0, 2, 2, 10)
    rows, source = stored(workspace, "support:2")
    assert [row["id"] for row in rows] == ["t4", "t8"]
    assert source.endswith("10 rows erased")
    assert "ann@x.org" not in json.dumps(answer)
    assert len(stored(workspace, "support:1")[0]) == 12
    code, text = run("erase", "support", "--trace", "t0", as_json=False)
    assert (code, text) == (0, "support:2 has no such row; nothing was changed\n")
    token = rows[0]["provenance"]["subject"]
    assert run("erase", "support", "--subject", token)[1]["error"]["code"] == "bad_input", (
        "nothing would be left"
    )
    assert run("erase", "support", "--person", "x", "--key-file", "no.key")[1]["error"]["code"] == "bad_input"
    assert run("erase", "support")[0] == 3


def test_a_file_is_pushed_listed_and_shown(run: Run) -> None:
    file = write("rows.jsonl", {"id": "a", "query": "one"}, {"id": "b", "query": "two", "synthetic": True})
    dry = run("push", file, "--name", "q", "--dry-run")[1]
    assert (dry["dry_run"], dry["rows"]) == (True, 2)
    code, answer = run("push", file, "--name", "q", "--source", "made up", "--licence", "CC0-1.0")
    assert (code, answer["number"], answer["rows_digest"]) == (0, 1, dry["rows_digest"])
    assert [(one["name"], one["number"]) for one in run("list")[1]["versions"]] == [("q", 1)]
    shown = run("show", "q:1", "--rows", "1")[1]
    assert shown == {
        "ok": True, "name": "q", "number": 1, "rows_digest": dry["rows_digest"], "rows": 2,
        "columns": {"id": 2, "query": 2, "synthetic": 1}, "synthetic": 1, "source": "made up",
        "licence": "CC0-1.0", "first": [{"id": "a", "query": "one"}],
    }  # fmt: skip
    code, text = run("show", file, as_json=False)
    assert (code, text.splitlines()[0]) == (0, f"rows  2 rows  {dry['rows_digest']}")
    assert run("push", write("bad.jsonl", {"query": "no id"}), "--name", "q")[0] == 3
    assert run("show", "none")[1]["error"]["code"] == "not_found"


def test_differences_are_told_row_by_row(run: Run) -> None:
    a = write("a.jsonl", {"id": 1, "query": "one"}, {"id": 2, "query": "two"}, {"id": 3, "query": "three"})
    run("push", a, "--name", "q")
    b = write("b.jsonl", {"id": 3, "query": "three", "answers": ["3"]}, {"id": 2, "query": "two"}, {"id": 4})
    code, answer = run("diff", "q:1", b)
    assert (code, answer) == (1, {
        "ok": True, "same": False, "added": ["4"], "removed": ["1"],
        "changed": [{"id": "3", "fields": ["answers"]}],
    })  # fmt: skip
    assert run("diff", "q", a)[0] == 0
    assert "1 added, 1 removed, 1 changed" in run("diff", a, b, as_json=False)[1]


def test_leaks_into_training_data_and_prompts_fail(run: Run, workspace: Workspace) -> None:
    rows = write(
        "q.jsonl", {"id": "a", "query": "Where is my new card?"}, {"id": "b", "query": "Something else"}
    )
    run("push", rows, "--name", "q")
    Path("train.csv").write_text('text,label\n"where is my NEW card",3\nother things,4\n')
    code, answer = run("leakage", "q", "--against", "train.csv")
    leak = {"id": "a", "kind": "exact", "share": 1.0, "where": "train.csv:2", "places": 1}
    assert (code, answer) == (1, {
        "ok": False, "rows": 2, "leaked": 1, "share": 0.5, "max_share": 0.0, "leaks": [leak],
    })  # fmt: skip
    assert run("leakage", "q", "--against", "train.csv", "--max-share", "0.5")[0] == 0
    content = PromptContent((PromptMessage("system", "Example: where is my new card? A: soon"),))
    with workspace.writing() as connection:
        prompts.push(connection, "support", content, actor="ann", now=utc_now())
    found = run("leakage", rows, "--prompt", "support:1")[1]["leaks"]
    assert found == [{**leak, "kind": "contained", "where": "support:1#1"}]
    Path("p.md").write_text("---\nname: p\n---\n# system\nBe kind.\n# user\nWhere is my new card?\n")
    assert run("leakage", rows, "--prompt", "p.md")[1]["leaks"] == [{**leak, "where": "p.md#2"}]
    code, text = run("leakage", rows, "--against", "q", "--prompt", "p.md", as_json=False)
    assert (code, text.splitlines()[0]) == (1, "2 of 2 rows leaked (100.0%, at most 0.0% may)")
    assert run("leakage", rows)[0] == 3
    assert run("leakage", rows, "--against", "none.csv")[0] == 3


def test_parquet_is_training_data_too(run: Run) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = write(
        "q.jsonl",
        {"id": "a", "features": {"x": 1, "plan": "A"}},
        {"id": "b", "features": {"x": 2, "plan": "A"}},
    )
    pq.write_table(pa.table({"x": [2.0, 3.0], "plan": ["A", "A"], "label": [0, 1]}), "train.parquet")
    code, answer = run("leakage", rows, "--against", "train.parquet")
    assert (code, [leak["id"] for leak in answer["leaks"]]) == (1, ["b"])


def test_questions_are_written_for_a_corpus(run: Run, workspace: Workspace, home: Path) -> None:
    passages = [{"id": f"d{n}", "text": f"The fee of plan {name} is {n + 3} euros a month."} for n, name in
                enumerate(["Amber", "Bronze", "Coral"])]  # fmt: skip
    corpus = write("corpus.jsonl", *passages)
    code, answer = run("synth", "--corpus", corpus, "--name", "syn", "--model", "openai/w", "--dry-run")
    assert (code, answer) == (0, {"ok": True, "dry_run": True, "passages": 3, "most_questions": 3})
    assert run("synth", "--corpus", corpus, "--name", "syn")[0] == 3

    def say(body: Any) -> str:
        words = next(str(p["text"]) for p in passages if p["text"] in body["messages"][1]["content"]).split()
        return json.dumps(
            {
                "question": f"How much does {words[4]} cost?",
                "answer": words[6],
                "quote": f"is {words[6]} euros",
            }
        )

    with workspace.writing() as connection:
        judges.push(connection, "writer", JudgeContent("openai/w", "x"), actor="ann", now=utc_now())
    with serve_judge(FakeJudge(say=say)) as judge:
        server = ("--judge-url", judge.url, "--judge-key", KEY)
        code, answer = run(
            "synth", "--corpus", corpus, "--name", "syn", "--n", "2", "--judge", "writer", *server
        )
        assert (code, answer["asked"], answer["dropped"], answer["number"]) == (0, 2, {}, 1)
        again = run("synth", "--corpus", corpus, "--name", "syn", "--n", "2", "--model", "openai/w", *server)[
            1
        ]
        assert (again["number"], len(judge.bodies)) == (1, 2), "the same, from the cache"
    rows, source = stored(workspace, "syn:1")
    assert [row["synthetic"] for row in rows] == [True, True]
    assert all(row["relevant"] == [row["provenance"]["passage"].partition("#")[0]] for row in rows)
    assert source == "synthetic: written by openai/w for passages of corpus.jsonl, seed ''"
