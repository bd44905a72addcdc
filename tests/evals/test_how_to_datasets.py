"""The page about recorded traffic, followed from traces to a suite; no person's name comes through."""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from typing import Any

import pytest

from tests.evals.conftest import Project
from tests.evals.fake_judge import KEY, FakeJudge, serve_judge
from tests.evals.how_to import Page

THINGS = [
    "parcel",
    "invoice",
    "refund",
    "password",
    "address",
    "coupon",
    "warranty",
    "delivery",
    "return",
    "complaint",
]
PLACES = ["Berlin", "Paris", "Rome", "Oslo", "Vienna", "Madrid", "Lisbon", "Dublin", "Athens", "Prague"]


def completion(number: int, **other: Any) -> dict[str, Any]:
    """The *number*-th completion: every tenth is Ann's, a third of them are German."""
    is_ann = number % 10 == 0
    who = "Ann Lee, ann@example.org" if is_ann else f"customer {number} of Bob Stone"
    what = f"the {THINGS[number % 10]} from {PLACES[number // 10 % 10]}"
    asked = f"Case {number}: what became of {what}? I am {who}."
    return {
        "trace_id": f"t-{number}",
        "created": 1767323045 + number,
        "model": "gpt-5",
        "user": "ann@example.org" if is_ann else f"user-{number}",
        "messages": [{"role": "user", "content": asked}],
        "output": "It arrives today.",
        "metadata": {"language": "de" if number % 3 == 0 else "en"},
    } | other


@pytest.fixture
def writer() -> Iterator[FakeJudge]:
    """A model that writes a question for the town of a passage."""

    def say(body: Any) -> str:
        found = re.search(r"The office of (\w+) opens at (\w+)\.", body["messages"][-1]["content"])
        assert found is not None
        asked = f"When can people visit the {found[1]} office?"
        return json.dumps({"question": asked, "answer": found[2], "quote": found[0]})

    with serve_judge(FakeJudge(say)) as served:
        yield served


@pytest.fixture
def page(project: Project, writer: FakeJudge) -> Page:
    """The files that the page takes for granted."""
    folder = project.folder
    example = json.loads(
        Page("datasets-from-traces", folder).text.partition("```json\n")[2].partition("```")[0]
    )
    project.rows(
        [
            *(completion(number) for number in range(100)),
            completion(101, messages=completion(7)["messages"]),
            completion(102, model="another"),
            completion(103, created=1700000000),
            completion(104, metadata={"language": "fr"}),
            example | {"trace_id": "t-page"},
        ],
        "traces.jsonl",
    )
    seen = completion(1)["messages"][0]["content"]
    project.rows([{"prompt": "How much is the postage to Norway?"}, {"prompt": seen.upper()}], "train.jsonl")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "support.md").write_text("Answer in one sentence.")
    (folder / "corpus").mkdir()
    for number, place in enumerate(PLACES, 8):
        text = f"The office of {place} opens at {number}. Bring a passport and the number of your case."
        (folder / "corpus" / f"{place}.md").write_text(text)
    rows = [
        {"id": str(i), "query": f"question {i}?", "answers": ["Yes."], "language": "en"} for i in range(20)
    ]
    project.rows(rows, "questions.jsonl")
    servers = {"SLUICEGATE_JUDGE_URL": writer.url, "SLUICEGATE_JUDGE_KEY": KEY}
    found = Page("datasets-from-traces", folder, servers)
    found.write()
    return found


def rows_of(page: Page, place: str) -> list[dict[str, Any]]:
    """All rows of a registered dataset."""
    shown = json.loads(page.bash(f"evals datasets show {place} --rows 1000 --json 2>/dev/null"))
    rows: list[dict[str, Any]] = shown["first"]
    return rows


def test_traces_become_rows_without_names_repeats_or_leaks_and_can_be_erased(page: Page) -> None:
    assert "dataset support-traces would have 60 rows" in page.next()
    assert "made the key" in page.next()
    rows = rows_of(page, "support-traces")
    told = json.dumps(rows)
    assert not [name for name in ("Ann", "ann@", "Bob", "Stone", "user-") if name in told]
    assert {row["metadata"]["language"] for row in rows} == {"de", "en"}
    assert "rows leaked" in page.next()
    held = sum("[email:" in json.dumps(row) or "[person:" in json.dumps(row["provenance"]) for row in rows)
    erased = page.next()
    assert f"{held} rows of support-traces:1 would go" in erased
    assert f"support-traces:2 has {60 - held} rows, {held} fewer" in erased
    assert held > 1
    assert f"0 added, {held} removed, 0 changed" in page.next(code=1)
    page.next()
    assert "no dataset support-traces:1" in page.bash("evals datasets show support-traces:1", code=3)
    assert "10 questions for 10 passages" in page.next()
    assert [row["synthetic"] for row in rows_of(page, "support-synthetic")] == [True] * 10
    assert "support-questions:1" in page.next()
    assert "suite support-quality is valid: 1 checks, 20 samples" in page.next()
    assert page.waiting == []
    key = (page.folder / ".sluicegate" / "pseudonym.key").read_bytes().strip()
    page.bash("registry backup all.tar")
    with tarfile.open(page.folder / "all.tar") as backup:
        kept = {one.name: backup.extractfile(one) for one in backup if one.isfile()}
        assert [name for name, file in kept.items() if file is None or key in file.read()] == []
    assert len(kept) > 10
