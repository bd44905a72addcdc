from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score, recall_score
from statsmodels.stats.inter_rater import cohens_kappa
from statsmodels.stats.proportion import proportion_confint

from evals.agreement.labelled import labelled, settled
from evals.cli import calibrate as command
from evals.dataset import read
from evals.errors import BadDataset
from evals.judging.standing import standing
from registry import judges, terminal
from registry.clock import utc_now
from registry.refs import parse_ref
from registry.settings import RegistrySettings
from registry.terminal import command_group
from registry.workspace import Workspace, open_workspace
from tests.evals.fake_gateway import error
from tests.evals.fake_judge import KEY, FakeJudge, serve_judge

Run = Callable[..., tuple[int, Any]]
DATA = Path(__file__).parent / "data"
JUDGE = "name: truthful\njudge: {model: openai/judge, rubric: Is it true?}\n"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SLUICEGATE_ACTOR", "ann")
    monkeypatch.setenv("SLUICEGATE_REGISTRY__HOME", str(tmp_path / ".sluicegate"))
    monkeypatch.setenv("SLUICEGATE_JUDGE_KEY", KEY)
    Path("judge.yaml").write_text(JUDGE)
    application = command_group("test")
    application.command("calibrate")(command.calibrate)
    application.command("other")(lambda: None)

    def call(*words: object, as_json: bool = True) -> tuple[int, Any]:
        told = ["evals", "calibrate", *map(str, words), *(["--json"] if as_json else [])]
        monkeypatch.setattr(sys, "argv", told)
        with pytest.raises(SystemExit) as left:
            terminal.run(application)
        printed = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return left.value.code, json.loads(printed.out) if as_json else printed.out + printed.err

    return call


@pytest.fixture
def workspace(run: Run, tmp_path: Path) -> Iterator[Workspace]:
    with open_workspace(RegistrySettings(home=tmp_path / ".sluicegate")) as opened:
        yield opened


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def dice(*texts: str) -> float:
    """A number in [0, 1) that depends on the texts alone."""
    return int(hashlib.sha256("|".join(texts).encode()).hexdigest()[:8], 16) / 2**32


def block(body: Any, label: str) -> str:
    """What the judge was shown between the lines that begin and end *label*."""
    text = body["messages"][-1]["content"]
    found = re.search(rf"^(\w+) BEGIN {label}[^\n]*\n(.*?)\n\1 END {label}$", text, re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[2]


def verdict(word: str, key: str = "verdict") -> str:
    return json.dumps({"reason": "so it says", key: word})


def judge_of(found: Mapping[tuple[str, str], bool], right: float) -> FakeJudge:
    """A judge that agrees with people about as often as *right*, by a rule that anybody can repeat."""
    return FakeJudge(
        say=lambda body: verdict(
            "pass" if says(found, block(body, "question"), block(body, "answer"), right) else "fail"
        )
    )


def says(found: Mapping[tuple[str, str], bool], query: str, answer: str, right: float) -> bool:
    return found[query, answer] == (dice(query, answer) < right)


@pytest.mark.parametrize(("name", "right"), [("truthfulqa_labels.jsonl", 0.85), ("begin_labels.jsonl", 0.8)])
def test_figures_on_real_labels_are_those_of_independent_libraries(run: Run, name: str, right: float) -> None:
    given = rows(name)
    human = [row["label"] in (True, "good") for row in given]
    truth = {(row["query"], row["answer"]): label for row, label in zip(given, human, strict=True)}
    judge = [says(truth, row["query"], row["answer"], right) for row in given]
    with serve_judge(judge_of(truth, right)) as served:
        code, answer = run("judge.yaml", DATA / name, "--judge-url", served.url, "--concurrency", 8)
    assert len(served.bodies) == 2 * len(given)
    record = answer["calibration"]
    table = [[sum(h == a and j == b for h, j in zip(human, judge, strict=True)) for b in (False, True)]
             for a in (False, True)]  # fmt: skip
    theirs = cohens_kappa(table)
    expected = {
        "labels": len(given),
        "kappa": cohen_kappa_score(human, judge),
        "kappa_low": theirs.kappa_low,
        "kappa_high": theirs.kappa_upp,
        "base_rate": sum(human) / len(given),
        "sensitivity": recall_score(human, judge),
        "specificity": recall_score(human, judge, pos_label=False),
        "positives": sum(human),
        "negatives": len(given) - sum(human),
        "self_consistency": 1.0,
        "errors": 0.0,
    }
    assert {key: record[key] for key in expected} == pytest.approx(expected, abs=1e-6)
    wrong = [int(b) - int(a) for a, b in zip(human, judge, strict=True)]
    lengths = [len(row["answer"]) for row in given]
    assert record["verbosity"] == pytest.approx(spearmanr(wrong, lengths).statistic, abs=1e-6)
    missed = answer["report"]["errors_by_class"]["good"]["interval"]
    low, high = proportion_confint(table[1][0], sum(table[1]), method="wilson")
    assert (missed["low"], missed["high"]) == pytest.approx((low, high))
    assert (code, record["calibrated"], record["reasons"]) == (0, True, [])
    assert record["dataset"] == read(DATA / name, "x").digest


def test_pairs_are_asked_in_both_orders_and_held_to_three_annotators(run: Run) -> None:
    given = rows("pandalm_labels.jsonl")
    people = {row["id"]: settled(list(row["labels"].values()), "pairwise") for row in given}

    def choice(a: str, b: str) -> str:
        """Mostly the longer one; sometimes whatever stands first."""
        return "A" if dice(*sorted((a, b))) < 0.2 or len(a) > len(b) else "B" if len(b) > len(a) else "tie"

    def both(row: Mapping[str, str]) -> tuple[str, str]:
        there, back = choice(row["answer"], row["rival"]), choice(row["rival"], row["answer"])
        return (
            {"A": "first", "B": "second", "tie": "tie"}[there],
            {"A": "second", "B": "first", "tie": "tie"}[back],
        )

    say = FakeJudge(
        say=lambda body: verdict(choice(block(body, "answer A"), block(body, "answer B")), "better")
    )
    with serve_judge(say) as served:
        path = DATA / "pandalm_labels.jsonl"
        code, answer = run("judge.yaml", path, "--judge-url", served.url, "--repeats", 1)
    orders = [both(row) for row in given]
    said = {row["id"]: a if a == b else "tie" for row, (a, b) in zip(given, orders, strict=True)}
    held = [key for key, label in people.items() if label is not None]
    report, record = answer["report"], answer["calibration"]
    human, judge = [people[key] for key in held], [said[key] for key in held]
    assert record["kappa"] == pytest.approx(cohen_kappa_score(human, judge), abs=1e-6)
    assert (report["split"], record["labels"]) == (len(given) - len(held), len(held))
    assert record["order_consistency"] == pytest.approx(
        sum(a == b for a, b in orders) / len(orders), abs=1e-6
    )
    pairs = [(f"annotator {i}", f"annotator {j}") for i, j in ((1, 2), (1, 3), (2, 3))]
    expected = {
        f"{a}/{b}": cohen_kappa_score(
            [row["labels"][a] for row in given], [row["labels"][b] for row in given]
        )
        for a, b in pairs
    }
    assert {pair: one["value"] for pair, one in report["people"].items()} == pytest.approx(expected)
    tied = [row for row in given if people[row["id"]] == "tie" and said[row["id"]] != "tie"]
    longer = sum((said[r["id"]] == "first") == (len(r["answer"]) > len(r["rival"])) for r in tied)
    assert report["longer_among_ties"]["value"] == pytest.approx(longer / len(tied))
    assert (code, record["calibrated"]) == (1, False)
    assert record["sensitivity"] is None


def test_a_pushed_calibration_lets_the_judge_decide_until_it_ends(run: Run, workspace: Workspace) -> None:
    truth = {(row["query"], row["answer"]): row["label"] for row in rows("truthfulqa_labels.jsonl")}
    path = DATA / "truthfulqa_labels.jsonl"
    with serve_judge(judge_of(truth, 0.9)) as served:
        code, answer = run("judge.yaml", path, "--judge-url", served.url, "--push", "--expires-days", 30)
        assert (code, answer["version"]["name"], answer["version"]["number"]) == (0, "truthful", 1)
        asked = len(served.bodies)
        again = run("truthful", path, "--judge-url", served.url)[1]
        assert len(served.bodies) == asked, "the same questions are answered from the cache"
    assert again["calibration"]["kappa"] == answer["calibration"]["kappa"]
    with workspace.reading() as connection:
        _, content = judges.get(connection, parse_ref("truthful"))
    rules: dict[str, Any] = {"candidate_model": None, "min_kappa": 0.4, "min_labels": 50}
    assert standing(content, utc_now(), **rules).deciding
    assert "until" in standing(content, utc_now() + timedelta(days=31), **rules).why
    assert "family" in standing(content, utc_now(), **(rules | {"candidate_model": "openai/judge-mini"})).why


def test_few_labels_chance_and_failures_are_reasons_not_to_calibrate(run: Run) -> None:
    truth = {(row["query"], row["answer"]): row["label"] for row in rows("truthfulqa_labels.jsonl")}
    path = DATA / "truthfulqa_labels.jsonl"
    judge = judge_of(truth, 0.5)
    judge.faults = [lambda _body: error(400, "invalid_request")] * 4
    with serve_judge(judge) as served:
        code, answer = run(
            "judge.yaml", path, "--judge-url", served.url, "--limit", 40, "--repeats", 1, "--no-cache"
        )
    record, report = answer["calibration"], answer["report"]
    assert (code, record["labels"], report["error_kinds"]) == (1, 36, {"judge_http_400": 4})
    assert [reason.split()[0] for reason in record["reasons"]] == ["36", "kappa", "10.0%"]
    assert record["errors"] == pytest.approx(0.1)


def test_a_scale_of_numbers_is_weighted_by_squares_and_people_meet_at_the_median(run: Run) -> None:
    given = [
        {"id": str(n), "query": f"q{n}", "answer": f"a{n}", "labels": [1 + n % 5, 1 + n % 5, 1 + n % 3]}
        for n in range(60)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in given))
    Path("judge.yaml").write_text(
        "name: grade\njudge: {model: openai/judge, rubric: How good?, parameters: {scale: likert}}\n"
    )

    def grade(answer: str) -> int:
        return min(1 + int(answer[1:]) % 5 + (dice(answer) < 0.4), 5)

    judge = FakeJudge(say=lambda body: json.dumps({"reason": "so", "verdict": grade(block(body, "answer"))}))
    with serve_judge(judge) as served:
        code, answer = run("judge.yaml", "rows.jsonl", "--judge-url", served.url, "--repeats", 1)
    human = [sorted((1 + n % 5, 1 + n % 5, 1 + n % 3))[1] for n in range(60)]
    said = [grade(str(row["answer"])) for row in given]
    assert answer["calibration"]["kappa"] == pytest.approx(
        cohen_kappa_score(human, said, weights="quadratic"), abs=1e-6
    )
    assert (code, answer["calibration"]["sensitivity"]) == (0, None)


def test_the_report_for_people_names_the_verdict_and_where_both_disagree(run: Run) -> None:
    truth = {(row["query"], row["answer"]): row["label"] for row in rows("truthfulqa_labels.jsonl")}
    with serve_judge(judge_of(truth, 0.9)) as served:
        code, text = run(
            "judge.yaml",
            DATA / "truthfulqa_labels.jsonl",
            "--judge-url",
            served.url,
            "--repeats",
            1,
            as_json=False,
        )
    assert code == 0
    lines = text.splitlines()
    assert lines[0].startswith("judge truthful: calibrated until ")
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "rows",
        "base rate bad",
        "base rate good",
        "kappa",
        "AC1, PABAK",
        "wrong on bad",
        "wrong on good",
        "length and error",
        "failed ratings",
        "disagreed on",
    ]


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"answer": "a"}, "either label or labels"),
        ({"label": "good"}, "answer must be text"),
        ({"answer": "a", "label": "maybe"}, "'maybe' is none of bad, good"),
        ({"answer": "a", "labels": []}, "labels is empty"),
        ({"answer": "a", "label": 1, "labels": [1]}, "either label or labels"),
        ({"answer": "a", "label": 1, "rival": "b"}, "every row or in none"),
        ({"answer": "a", "label": 1, "passages": [1]}, "passages must be"),
    ],
)
def test_a_malformed_row_is_named_with_its_field(tmp_path: Path, row: dict[str, Any], says: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"id": "r1", **row}))
    with pytest.raises(BadDataset, match=says) as failed:
        labelled(read(path, "x").samples, "binary")
    assert "'r1'" in failed.value.message
