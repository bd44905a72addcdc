from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.judging import foreign
from evals.metrics import ragas
from evals.metrics.base import Metric, Scored
from evals.systems.base import Output
from registry.entities import JudgeContent
from registry.errors import BadInput, MissingExtra
from tests.evals.fake_gateway import error
from tests.evals.fake_judge import KEY, FakeJudge, serve_judge
from tests.evals.foreign_server import nli, script
from tests.evals.test_verdict import JUDGE, on_bench

PASSAGES = ("The bridge opened in 1932.", "Ann Lee built it.", "Bananas are yellow.")
SAMPLE = Sample("s1", "sha256:0", "Who built the bridge?", answers=("Ann Lee built it in 1932.",))
OUTPUT = Output(1.0, "Ann Lee built it. It opened in 1950.", passages=PASSAGES)
EMBEDS = JudgeContent(JUDGE.model, JUDGE.rubric, {**JUDGE.parameters, "temperature": 0})
WARM = JudgeContent(JUDGE.model, JUDGE.rubric, {"temperature": 0.7, "seed": 5})


@pytest.fixture
def judge() -> Iterator[FakeJudge]:
    with serve_judge() as served:
        yield served


def rate(
    judge: FakeJudge,
    metric: Metric,
    *,
    sample: Sample = SAMPLE,
    output: Output = OUTPUT,
    content: JudgeContent = JUDGE,
) -> Scored:
    call = metric.rate
    assert call is not None

    async def work(bench: Any) -> Scored:
        bench.desk.embedder = "embedder"
        return await call(sample, output, bench)

    found = on_bench(judge, work, content)
    assert isinstance(found, Scored)
    return found


def kind_of(judge: FakeJudge, metric: Metric, **given: Any) -> tuple[str, int]:
    with pytest.raises(ScoreFailed) as caught:
        rate(judge, metric, **given)
    return caught.value.kind, len(judge.bodies)


TWO = ["Ann Lee built it.", "It opened in 1950."]


def test_faithfulness_is_the_share_of_supported_statements(judge: FakeJudge) -> None:
    judge.say = script(statements=TWO, statements__verdict=nli(1, 0))
    found = rate(judge, ragas.faithfulness({}))
    assert found == Scored(
        0.5,
        "",
        {"library": "ragas 0.4.3", "replies": [{"statements": TWO}, {"statements": nli(1, 0)}]},
    )
    assert [body["response_format"]["type"] for body in judge.bodies] == ["json_schema"] * 2
    assert "Bananas" in judge.bodies[1]["messages"][0]["content"]


def test_context_precision_asks_about_each_passage(judge: FakeJudge) -> None:
    judge.say = script(reason=tuple({"reason": "r", "verdict": bit} for bit in (0, 1, 0)))
    assert rate(judge, ragas.context_precision({})).value == pytest.approx(0.5)
    assert len(judge.bodies) == 3


def test_context_recall_is_the_share_of_attributed_statements(judge: FakeJudge) -> None:
    rows = [{"statement": "s", "reason": "r", "attributed": bit} for bit in (1, 1, 0, 1)]
    judge.say = script(classifications=rows)
    assert rate(judge, ragas.context_recall({})).value == 0.75
    assert len(judge.bodies) == 1


@pytest.mark.parametrize(("mode", "value", "calls"), [("f1", 0.67, 4), ("precision", 0.5, 2)])
def test_factual_correctness_compares_claims(judge: FakeJudge, mode: str, value: float, calls: int) -> None:
    judge.say = script(claims=(TWO, ["Ann Lee built it."]), statements=(nli(1, 0), nli(1)))
    assert rate(judge, ragas.factual_correctness({"mode": mode})).value == value
    assert len(judge.bodies) == calls


def test_answer_relevancy_is_a_mean_cosine(judge: FakeJudge) -> None:
    judge.say = script(question={"question": "Who?", "noncommittal": 0})
    judge.embed = lambda text: [1.0, 0.0] if text == SAMPLE.query else [3.0, 4.0]
    assert rate(judge, ragas.answer_relevancy({})).value == pytest.approx(0.6)


def test_a_judge_with_a_temperature_is_sampled_anew_for_each_question(judge: FakeJudge) -> None:
    judge.say = script(question={"question": "Who?", "noncommittal": 0})
    rate(judge, ragas.answer_relevancy({}), content=WARM)
    assert [body["seed"] for body in judge.bodies if "messages" in body] == [5, 6, 7]


def test_semantic_similarity_calls_only_the_embedder(judge: FakeJudge) -> None:
    judge.embed = lambda text: [1.0, 0.0] if text == OUTPUT.text else [-3.0, 4.0]
    assert rate(judge, ragas.semantic_similarity({})).value == pytest.approx(-0.6)
    assert ["messages" in body for body in judge.bodies] == [False]


def test_one_malformed_reply_is_repaired_once(judge: FakeJudge) -> None:
    judge.say = script(statements=("I would rather not.", TWO), statements__verdict=nli(1, 1))
    assert rate(judge, ragas.faithfulness({})).value == 1.0
    assert len(judge.bodies) == 3
    assert judge.bodies[1]["messages"][1] == {"role": "assistant", "content": "I would rather not."}


@pytest.mark.parametrize(
    ("replies", "kind", "calls"),
    [
        ({"statements": "no JSON"}, "ragas_malformed", 2),
        ({"statements": '{"statements": "one"}'}, "ragas_malformed", 2),
        ({"statements": '{"statements": [NaN]}'}, "ragas_nan", 2),
        ({"statements": '{"statements": null}'}, "ragas_malformed", 2),
        ({"statements": []}, "ragas_nan", 1),
        ({"statements": TWO, "statements__verdict": nli(1)}, "ragas_malformed", 3),
        ({"statements": TWO, "statements__verdict": []}, "ragas_malformed", 3),
        ({"statements": TWO, "statements__verdict": nli(1, 7)}, "ragas_malformed", 3),
    ],
)
def test_what_is_no_verdict_is_no_score(
    judge: FakeJudge, replies: dict[str, Any], kind: str, calls: int
) -> None:
    judge.say = script(**replies)
    assert kind_of(judge, ragas.faithfulness({})) == (kind, calls)


def test_an_answer_and_a_reference_without_claims_are_not_scored_as_zero(judge: FakeJudge) -> None:
    judge.say = script(claims=[])
    assert kind_of(judge, ragas.factual_correctness({})) == ("ragas_no_verdicts", 2)


def test_no_guessed_question_is_not_scored_as_zero(judge: FakeJudge) -> None:
    judge.say = script(question={"question": "", "noncommittal": 0})
    kind, _ = kind_of(judge, ragas.answer_relevancy({}))
    assert kind == "ragas_no_verdicts"


@pytest.mark.parametrize("vector", [[0.0, 0.0], [1e999, 1.0], []])
def test_an_embedding_without_direction_is_no_score(judge: FakeJudge, vector: list[float]) -> None:
    judge.embed = lambda _text: vector
    assert kind_of(judge, ragas.semantic_similarity({}))[0] in ("ragas_bad_vectors", "judge_bad_answer")


@pytest.mark.parametrize(("status", "kind"), [(429, "judge_rate_limited"), (500, "judge_http_500")])
def test_failures_of_the_judge_keep_their_kind_and_are_retried_by_us_alone(
    judge: FakeJudge, status: int, kind: str
) -> None:
    judge.faults = [lambda _body: error(status, "x")] * 50
    assert kind_of(judge, ragas.faithfulness({})) == (kind, 2)


def test_what_ragas_cannot_judge_is_refused_before_a_call(judge: FakeJudge) -> None:
    metric = ragas.faithfulness({})
    assert kind_of(judge, metric, output=replace(OUTPUT, passages=())) == ("ragas_no_passages", 0)
    assert kind_of(judge, metric, output=replace(OUTPUT, text=" ")) == ("ragas_empty_answer", 0)


def test_an_exception_of_the_library_is_an_error_class() -> None:
    async def broken() -> None:
        raise ZeroDivisionError

    ear = foreign.Ear(None, "ragas")  # type: ignore[arg-type]
    with pytest.raises(ScoreFailed) as caught:
        asyncio.run(ear.listen(broken()))
    assert (caught.value.kind, caught.value.message) == ("ragas_failed", "ragas raised ZeroDivisionError")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "ragas_nan"),
        (float("nan"), "ragas_nan"),
        (float("inf"), "ragas_nan"),
        ("much", "ragas_malformed"),
        (1.1, "ragas_out_of_range"),
    ],
)
def test_no_such_value_is_a_score(value: Any, kind: str) -> None:
    ear = foreign.Ear(None, "ragas")  # type: ignore[arg-type]
    with pytest.raises(ScoreFailed) as caught:
        ear.number(value, 0.0, 1.0)
    assert caught.value.kind == kind


def test_the_score_equals_that_of_ragas_with_its_own_client(judge: FakeJudge) -> None:
    replies = {"statements": [*TWO, "Third."], "statements__verdict": nli(1, 0, 1)}
    judge.say = script(**replies)
    ours = rate(judge, ragas.faithfulness({})).value
    foreign.load("ragas.metrics.collections", {"RAGAS_DO_NOT_TRACK": "true"})

    async def own() -> float:
        from openai import AsyncOpenAI
        from ragas.llms import llm_factory
        from ragas.metrics.collections import Faithfulness

        async with AsyncOpenAI(base_url=judge.url, api_key=KEY, max_retries=0) as client:
            llm = llm_factory("judge", provider="openai", client=client)
            found = await Faithfulness(llm=llm).ascore(
                user_input=SAMPLE.query, response=OUTPUT.text, retrieved_contexts=list(PASSAGES)
            )
            return float(found.value)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert asyncio.run(own()) == ours == pytest.approx(2 / 3)
    theirs = [message["content"] for body in judge.bodies[2:] for message in body["messages"]]
    for body in judge.bodies[:2]:
        assert any(body["messages"][0]["content"] in text for text in theirs)


def test_options_are_checked() -> None:
    with pytest.raises(BadInput, match="strictness is 0; it is 1 to 10"):
        ragas.answer_relevancy({"strictness": 0})
    with pytest.raises(BadInput, match="threshold"):
        ragas.faithfulness({"threshold": 1})


def test_a_missing_library_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"pip install 'sluicegate\[nothing_such\]'"):
        foreign.require("nothing_such")
    with pytest.raises(MissingExtra, match=r"pip install 'sluicegate\[nothing_such\]'"):
        foreign.load("nothing_such.metrics", {})


def test_each_metric_states_what_it_needs_and_costs() -> None:
    made = [
        (metric.name, metric.needs, metric.calls, metric.embeds, metric.low)
        for metric in (
            ragas.faithfulness({}),
            ragas.answer_relevancy({}),
            ragas.context_precision({}),
            ragas.context_recall({}),
            ragas.factual_correctness({}),
            ragas.semantic_similarity({}),
        )
    ]
    assert made == [
        ("ragas_faithfulness", ("query",), 2, False, 0.0),
        ("ragas_answer_relevancy", ("query",), 5, True, -1.0),
        ("ragas_context_precision", ("query", "answers"), 5, False, 0.0),
        ("ragas_context_recall", ("query", "answers"), 1, False, 0.0),
        ("ragas_factual_correctness", ("answers",), 4, False, 0.0),
        ("ragas_semantic_similarity", ("answers",), 1, True, -1.0),
    ]


ALONE = """
import json, socket, sys
real = socket.socket.connect
def connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6) and address[1] != int(sys.argv[1]):
        print("went to", address, file=sys.stderr)
        raise SystemExit(9)
    return real(self, address)
socket.socket.connect = connect
lookup = socket.getaddrinfo
def getaddrinfo(host, *more, **others):
    if host not in ("127.0.0.1", None):
        print("looked up", host, file=sys.stderr)
        raise SystemExit(9)
    return lookup(host, *more, **others)
socket.getaddrinfo = getaddrinfo
from tests.evals.fake_judge import FakeJudge
from tests.evals import test_{library} as here
print(json.dumps(here.alone(FakeJudge(url=f"http://127.0.0.1:{{sys.argv[1]}}/v1"))))
"""


def alone(judge: FakeJudge) -> float:
    """In a process of its own: one score."""
    return rate(judge, ragas.faithfulness({})).value


def run_alone(library: str, judge: FakeJudge, folder: Path) -> tuple[str, list[str]]:
    """What `alone` printed in an empty folder where only the judge can be reached, and the files it left."""
    (folder / "home").mkdir()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder / "home"),
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    work = folder / "work"
    work.mkdir()
    (work / ".env").write_text("SLUICEGATE_SEEN=1\n")
    port = judge.url.split(":")[2].split("/")[0]
    done = subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:evals", "-c", ALONE.format(library=library), port],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout, sorted(path.name for path in work.iterdir())


def test_alone_it_reaches_only_the_judge_and_writes_nothing(judge: FakeJudge, tmp_path: Path) -> None:
    judge.say = script(statements=TWO, statements__verdict=nli(1, 0))
    assert run_alone("ragas", judge, tmp_path) == (json.dumps(0.5) + "\n", [".env"])
