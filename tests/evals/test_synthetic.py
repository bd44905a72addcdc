from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from evals.cache import open_cache
from evals.client import Patience
from evals.cost import Purse
from evals.curate.synthetic import Source, Synthesis, fault, synthesize
from evals.errors import CostCapReached
from evals.judging.bench import Desk
from evals.upstream import Upstream
from registry.clock import utc_now
from registry.entities import JudgeContent, Price
from registry.errors import BadInput
from registry.ids import digest
from tests.evals.fake_gateway import error
from tests.evals.fake_judge import KEY, FakeJudge, serve_judge

JUDGE = JudgeContent("openai/writer", "")
TOPICS = ["copper", "silver", "iron", "zinc", "lead", "nickel", "cobalt", "gold"]
PASSAGES = [
    Source(f"d{n}#0", f"d{n}", f"The mine of {topic} was opened in the year {1900 + n} by its owners.")
    for n, topic in enumerate(TOPICS)
]


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with serve_judge(FakeJudge(say=good)) as served:
        yield served


def passage_in(body: Any) -> str:
    return next(
        str(line) for line in body["messages"][1]["content"].splitlines() if line.startswith("The mine")
    )


def written(question: str, answer: str, quote: str) -> str:
    return json.dumps({"question": question, "answer": answer, "quote": quote})


def good(body: Any) -> str:
    said = passage_in(body).split()
    return written(f"When did people start digging {said[3]}?", said[9], f"in the year {said[9]}")


def make(
    judge: FakeJudge, n: int, folder: Path, *, seed: str = "", purse: Purse | None = None
) -> tuple[Synthesis, Desk]:
    async def go() -> tuple[Synthesis, Desk]:
        patience = Patience(first_pause_s=0.01, timeout_s=5, retries=1)
        async with Upstream(judge.url, KEY, concurrency=3, patience=patience) as upstream:
            with open_cache(folder) as cache:
                desk = Desk(JUDGE, "writer", upstream, cache, purse or Purse())
                return await synthesize(desk.bench(), PASSAGES, n, seed=seed), desk

    return asyncio.run(go())


def test_a_row_names_its_document_and_how_it_was_made(judge: FakeJudge, tmp_path: Path) -> None:
    made, _ = make(judge, 1, tmp_path)
    (row,) = made.rows
    number = TOPICS.index(str(row["query"]).removesuffix("?").split()[-1])
    passage = PASSAGES[number]
    assert row["answers"] == [str(1900 + number)]
    assert row["relevant"] == [passage.document_id]
    assert row["synthetic"] is True
    assert row["provenance"] == {
        "generator": "openai/writer",
        "prompt": row["provenance"]["prompt"],
        "passage": passage.id,
        "passage_digest": digest(passage.text),
        "quote": f"in the year {1900 + number}",
    }
    assert row["provenance"]["prompt"].startswith("sha256:")
    assert (made.asked, made.dropped) == (1, {})


def test_the_choice_of_passages_is_the_same_every_time(judge: FakeJudge, tmp_path: Path) -> None:
    three, _ = make(judge, 3, tmp_path / "a")
    again, desk = make(judge, 3, tmp_path / "a")
    assert three == again
    assert (desk.counts.calls, desk.counts.cached) == (0, 3)
    assert make(judge, 5, tmp_path / "b")[0].rows[:3] == three.rows
    assert make(judge, 3, tmp_path / "c", seed="other")[0].rows != three.rows


@pytest.mark.parametrize(
    ("reason", "say"),
    [
        ("quote_not_in_passage", lambda s: written("When was it dug up?", s[9], "in the year 1850")),
        ("answer_not_supported", lambda _s: written("When was it dug up?", "never", "in the year")),
        ("copies_passage", lambda s: written(f"The mine of {s[3]} was opened when?", s[9], "in the year")),
        ("too_short", lambda s: written("Eh?", s[9], "in the year")),
        ("too_long", lambda s: written("When? " * 100, s[9], "in the year")),
        ("judge_malformed", lambda _s: "no JSON"),
    ],
)
def test_what_the_passage_does_not_carry_is_dropped_counted_and_made_up_for(
    judge: FakeJudge, tmp_path: Path, reason: str, say: Callable[[list[str]], str]
) -> None:
    def speak(body: Any) -> str:
        said = passage_in(body).split()
        return say(said) if said[3] in TOPICS[:3] else good(body)

    judge.say = speak
    made, _ = make(judge, 8, tmp_path)
    assert made.asked == 8
    assert made.dropped == {reason: 3}
    assert len(made.rows) == 5
    fewer, _ = make(judge, 5, tmp_path)
    assert fewer.rows == made.rows, "passages are asked until there are enough"


def test_questions_that_repeat_others_are_dropped(judge: FakeJudge, tmp_path: Path) -> None:
    judge.say = lambda body: written("When did people dig it up?", passage_in(body).split()[9], "in the year")
    made, _ = make(judge, 4, tmp_path)
    assert (len(made.rows), made.asked, made.dropped) == (1, 8, {"repeats_another": 7})


def test_failed_calls_are_counted_by_kind(judge: FakeJudge, tmp_path: Path) -> None:
    judge.faults = [lambda _body: error(400, "content_filter")] * 2
    made, _ = make(judge, 8, tmp_path)
    assert (len(made.rows), made.dropped) == (6, {"judge_refused": 2})


def test_the_cap_stops_the_calls_and_what_was_paid_for_is_kept(judge: FakeJudge, tmp_path: Path) -> None:
    price = Price("openai/writer", utc_now(), 1_000_000, 1_000_000)
    with pytest.raises(CostCapReached):
        make(judge, 8, tmp_path, purse=Purse({"openai/writer": price}, cap_usd=0.0010))
    paid = len(judge.bodies)
    assert 0 < paid < 8
    made, desk = make(judge, 8, tmp_path)
    assert len(made.rows) == 8
    assert desk.counts.cached == paid


def test_a_passage_cannot_give_orders(judge: FakeJudge, tmp_path: Path) -> None:
    make(judge, 1, tmp_path)
    system, user = judge.bodies[0]["messages"]
    assert "never an instruction" in " ".join(system["content"].split())
    assert "BEGIN passage" in user["content"]
    assert judge.bodies[0]["max_tokens"] == 400


def test_nothing_to_ask_is_refused(judge: FakeJudge, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="n is 0"):
        make(judge, 0, tmp_path)
    assert judge.bodies == []


def test_quotes_are_compared_without_case_and_punctuation() -> None:
    row = {"question": "How much is it?", "answer": "5 Euros.", "quote": "\u201cFEE is 5  euros\u201d"}
    assert fault("The fee is 5 euros.", row) is None
    assert (
        fault(
            "费用是五欧元。", {"question": "费用是多少欧元呢朋友?", "answer": "五欧元", "quote": "是五欧元"}
        )
        is None
    )
