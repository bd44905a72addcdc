from __future__ import annotations

import json
import os
import pty
import select
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score

from evals import review
from evals.agreement.drawing import Drawn, Item, draw, read_outputs
from evals.agreement.labelled import labelled
from evals.cli import review as commands
from evals.dataset import read
from registry import terminal
from registry.clock import utc_now
from registry.errors import BadInput
from registry.terminal import command_group

Run = Callable[..., tuple[int, Any]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEGATE_ACTOR", "ann")
    application = command_group("test")
    commands.add_to(application)

    def call(*words: object, as_json: bool = True) -> tuple[int, Any]:
        told = ["evals", "review", *map(str, words), *(["--json"] if as_json else [])]
        monkeypatch.setattr(sys, "argv", told)
        with pytest.raises(SystemExit) as left:
            terminal.run(application)
        printed = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, json.loads(printed.out) if as_json else printed.out + printed.err

    return call


def outputs(count: int, name: str = "samples.jsonl") -> Path:
    """What a run wrote: the judge calls one in ten bad; requests that failed, other roles and epochs too."""
    rows: list[dict[str, Any]] = []
    for n in range(count):
        row = {"id": f"q{n}", "role": "candidate", "system": "chat", "epoch": 0, "query": f"question {n}"}
        rows.append({**row, "answers": ["yes"], "scores": {"judged": float(n % 10 > 0)},
                     "output": {"text": f"answer {n}", "passages": ["p"]}})  # fmt: skip
        rows += [{**rows[-1], "epoch": 1}, {**rows[-1], "role": "baseline"}]
    rows.append({"id": "lost", "role": "candidate", "epoch": 0, "query": "?", "error": "timeout"})
    path = Path(name)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def queue(path: Path, count: int, *people: str) -> Path:
    items = [Drawn(Item(f"q{n}", "?", f"answer {n}"), "good" if n % 3 else "bad") for n in range(count)]
    review.create(path, items, people)
    return path


def test_a_draw_holds_as_many_of_each_verdict_and_depends_on_ids_alone(run: Run) -> None:
    drawn = read_outputs(outputs(200), None, 0.5)
    chosen = draw(drawn, 40)
    assert [sum(one.verdict == name for one in chosen) for name in ("good", "bad")] == [20, 20]
    assert draw(reversed(drawn), 40) == chosen
    assert [one.item.id for one in draw(drawn, 40, seed=1)] != [one.item.id for one in chosen]
    assert len(draw(drawn, 1000)) == 200


def test_two_people_label_and_agreement_is_that_of_sklearn(run: Run) -> None:
    outputs(60)
    code, made = run("sample", "samples.jsonl", "--n", 12, "--for", "ann", "--for", "bob")
    assert (code, made["items"], made["judge"]) == (0, 12, {"good": 6, "bad": 6})
    ids = [item.id for item in review.read(Path("review.jsonl")).items]
    ann = ["good" if n % 2 else "bad" for n in range(12)]
    bob = ["good" if n % 3 else "bad" for n in range(12)]
    for who, given in (("ann", ann), ("bob", bob)):
        words = [word for pair in zip(ids, given, strict=True) for word in ("--label", "=".join(pair))]
        code, answer = run("label", "review.jsonl", "--by", who, *words)
        assert (code, answer["labelled"], answer["waiting"]) == (0, 12, 0)
    verdicts = review.read_verdicts(Path("review.jsonl"))
    found = run("agreement", "review.jsonl")[1]
    assert found["people"]["ann/bob"]["value"] == pytest.approx(cohen_kappa_score(ann, bob))
    judge = [verdicts[identity] for identity in ids]
    assert found["judge"]["ann"]["value"] == pytest.approx(cohen_kappa_score(ann, judge))
    same = [(a, j) for a, b, j in zip(ann, bob, judge, strict=True) if a == b]
    assert found["judge"]["majority"]["value"] == pytest.approx(cohen_kappa_score(*zip(*same, strict=True)))
    assert found["split"] == [i for i, a, b in zip(ids, ann, bob, strict=True) if a != b]
    assert run("export", "review.jsonl", "labels.jsonl") == (
        0,
        {"ok": True, "file": "labels.jsonl", "rows": 12},
    )
    rows = {row.sample.id: row for row in labelled(read(Path("labels.jsonl"), "x").samples, "binary")}
    assert rows[ids[0]].labels == {"ann": ann[0], "bob": bob[0]}
    assert rows[ids[0]].output.passages == ("p",)


def test_the_queue_tells_nobody_what_the_judge_said(run: Run) -> None:
    outputs(20)
    run("sample", "samples.jsonl", "--n", 10, "--for", "ann")
    assert "verdict" not in Path("review.jsonl").read_text()
    code, text = run("next", "review.jsonl", as_json=False)
    assert code == 0
    assert "(10 to go)" in text
    assert "judge" not in text


def test_labels_of_many_writers_are_all_kept(tmp_path: Path) -> None:
    people = [f"p{n}" for n in range(6)]
    path = queue(tmp_path / "queue.jsonl", 20, *people)

    def work(who: str) -> None:
        for n in range(20):
            review.add_labels(path, who, {f"q{n}": "good"}, utc_now())

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, people))
    assert all(review.read(path).waiting(who) == [] for who in people)


@pytest.mark.parametrize("lost", [1, 10, 40])
def test_a_line_cut_off_by_a_crash_costs_that_label_alone(tmp_path: Path, lost: int) -> None:
    path = queue(tmp_path / "queue.jsonl", 3, "ann")
    review.add_labels(path, "ann", {"q0": "good"}, utc_now())
    before = path.read_bytes()
    review.add_labels(path, "ann", {"q1": "bad"}, utc_now())
    whole = path.read_bytes()
    path.write_bytes(whole[:-lost])
    review.add_labels(path, "ann", {"q2": "good"}, utc_now())
    kept = {key: dict(labels) for key, labels in review.read(path).labels.items()}
    expected = {"q0": {"ann": "good"}, "q2": {"ann": "good"}}
    assert kept == (expected | {"q1": {"ann": "bad"}} if lost == 1 else expected)
    assert path.read_bytes().startswith(before)


def test_who_labels_again_corrects_and_a_skip_is_no_opinion(tmp_path: Path) -> None:
    path = queue(tmp_path / "queue.jsonl", 4, "ann", "bob")
    review.add_labels(path, "ann", {"q0": "good", "q1": "skip"}, utc_now())
    review.add_labels(path, "ann", {"q0": "bad"}, utc_now())
    found = review.read(path)
    assert [item.id for item in found.waiting("ann")] == ["q2", "q3"]
    told = review.agreement(found, review.read_verdicts(path))
    assert (told.labelled, told.against_judge, told.people) == (1, (), {})
    assert [row["labels"] for row in review.labelled_rows(found)] == [{"ann": "bad"}]


def test_what_cannot_be_is_refused_and_changes_nothing(tmp_path: Path, run: Run) -> None:
    path = queue(tmp_path / "queue.jsonl", 2, "ann")
    before = path.read_bytes()
    for by, labels, says in (("eve", {"q0": "good"}, "for ann"), ("ann", {"q9": "good"}, "'q9'")):
        with pytest.raises(BadInput, match=says):
            review.add_labels(path, by, labels, utc_now())  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="there already"):
        queue(path, 1, "ann")
    with pytest.raises(BadInput, match="each once"):
        queue(tmp_path / "other.jsonl", 1, "ann", "ann")
    assert run("label", path, "--label", "q0=great")[0] == 3
    assert run("label", path)[0] == 3, "no terminal to ask in"
    assert run("sample", outputs(5), "--for", "ann", "--check", "judgd")[0] == 3
    path.write_bytes(before.replace(b'"q0"', b"q0", 1) + b"\n")
    with pytest.raises(BadInput, match="line 2: not JSON"):
        review.read(path)


def test_a_terminal_is_asked_one_answer_after_the_other_and_goes_on_later(tmp_path: Path) -> None:
    path = queue(tmp_path / "queue.jsonl", 3, "ann")
    path.write_text(path.read_text().replace("answer 0", "answer \\u001b[31m0"))
    program = "from registry import terminal; from evals.cli import review; "
    program += "a = terminal.command_group('t'); review.add_to(a); terminal.run(a)"
    ours, theirs = pty.openpty()
    words = [sys.executable, "-c", program, "review", "label", str(path), "--by", "ann", "--json"]
    with subprocess.Popen(words, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        os.close(theirs)
        assert process.stderr is not None
        os.write(ours, b"g\nwhat\nb\nq\n")
        ready, _, _ = select.select([process.stderr], [], [], 30)
        assert ready
        out, told = process.communicate(timeout=30)
        os.close(ours)
    assert json.loads(out) == {"ok": True, "by": "ann", "labelled": 2, "waiting": 1}
    assert b"\x1b[31m" not in told
    labels = {key: dict(said) for key, said in review.read(path).labels.items()}
    assert labels == {"q0": {"ann": "good"}, "q1": {"ann": "bad"}}
