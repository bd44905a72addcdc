from __future__ import annotations

import asyncio
import json
import textwrap
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from evals.client import Client, Failure, Patience
from evals.dataset import Sample
from evals.errors import ReleaseMoved, TargetUnavailable
from evals.systems.base import Options, Output
from evals.systems.chat import ChatSystem
from evals.systems.prediction import PredictionSystem
from evals.targets import callable as callables
from evals.targets import recorded
from evals.targets.base import Target
from evals.targets.gateway import EndpointTarget, GatewayTarget
from evals.upstream import Upstream
from tests.evals.fake_gateway import KEY, FakeGateway, Release, error
from tests.evals.fake_judge import KEY as JUDGE_KEY
from tests.evals.fake_judge import FakeJudge, serve_judge

FAST = Patience(timeout_s=1, retries=1, ready_timeout_s=1, first_pause_s=0.01)
SAMPLE = Sample("q1", "d1", "question 1", answers=("answer 1",), extra={"topic": "sea"})
ROW = Sample("r1", "e1", features={"months": 3}, expected="No")
DIGEST = "sha256:" + "a" * 64


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def ask(target: Target, sample: Sample = SAMPLE, epoch: int = 0) -> Sequence[Output] | Failure:
    return asyncio.run(target.answer([sample], epoch=epoch))


def timeless(answered: Sequence[Output] | Failure) -> dict[str, Any]:
    """The fields that an answer has, but for how long it took."""
    assert not isinstance(answered, Failure)
    (output,) = answered
    assert output.latency_ms >= 0
    plain = Output(0.0)
    names = [name for name in Output.__slots__ if name != "latency_ms"]
    return {name: getattr(output, name) for name in names if getattr(output, name) != getattr(plain, name)}


def function(
    folder: Path, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor, body: str, **options: Any
) -> callables.CallableTarget:
    """A target around `answer(row)` with this *body*, in a module of its own."""
    name = f"target_{abs(hash((str(folder), body)))}"
    (folder / f"{name}.py").write_text(textwrap.dedent(body))
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(folder)
    options = {"labels": False, "timeout_s": 5.0, **options}
    return callables.load(f"{name}:answer", threads=threads, **options)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ("def answer(row): return row['query'].upper()", {"text": "QUESTION 1"}),
        ("async def answer(row): return row['topic']", {"text": "sea"}),
        ("def answer(row): return {'text': 'a', 'prompt_tokens': 7}", {"text": "a", "prompt_tokens": 7}),
        ("def answer(row): return {'documents': ['d1', 'd2']}", {"documents": ("d1", "d2")}),
        ("from evals.systems.base import Output\ndef answer(row): return Output(1.0, 'b')", {"text": "b"}),
        ("class Bot:\n    def __call__(self, row): return 'called'\nanswer = Bot()", {"text": "called"}),
        (
            "class Bot:\n    async def __call__(self, row): return 'awaited'\nanswer = Bot()",
            {"text": "awaited"},
        ),
        ("def answer(row): return str(sorted(row))", {"text": "['epoch', 'id', 'query', 'topic']"}),
    ],
)
def test_a_function_answers_with_text_or_an_outputs_fields_and_never_sees_the_right_answer(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    threads: ThreadPoolExecutor,
    body: str,
    found: dict[str, Any],
) -> None:
    assert timeless(ask(function(tmp_path, monkeypatch, threads, body))) == found


def test_bare_text_is_a_label_for_rows_of_features(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
) -> None:
    body = "def answer(row): return 'Yes' if row['features']['months'] > 2 else str(row['expected'])"
    target = function(tmp_path, monkeypatch, threads, body, labels=True)
    assert timeless(ask(target, ROW)) == {"label": "Yes"}


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        ("def answer(row): raise KeyError('secret')", "raised_KeyError"),
        ("async def answer(row): raise ValueError", "raised_ValueError"),
        ("import sys\ndef answer(row): sys.exit(0)", "raised_SystemExit"),
        ("import sys\nasync def answer(row): sys.exit(0)", "raised_SystemExit"),
        ("def answer(row): return 7", "bad_answer"),
        ("def answer(row): return None", "bad_answer"),
        ("def answer(row): return {'text': 7}", "bad_answer"),
        ("def answer(row): return {'answer': 'misnamed'}", "bad_answer"),
        ("import asyncio\nasync def answer(row): await asyncio.sleep(60)", "timeout"),
    ],
)
def test_what_a_function_fails_at_is_a_failure_of_its_sample(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor, body: str, kind: str
) -> None:
    assert ask(function(tmp_path, monkeypatch, threads, body, timeout_s=0.2)) == Failure(kind)


def test_a_functions_answers_are_cached_by_its_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor
) -> None:
    first = function(tmp_path, monkeypatch, threads, "def answer(row): return 'a'")
    other = function(tmp_path, monkeypatch, threads, "def answer(row): return 'b'")
    assert first.identity != other.identity
    assert first.question(SAMPLE) == {"row": "d1"}


@pytest.mark.parametrize("reference", ["nowhere", "nowhere_at_all:f", "json:nothing", "json:__name__", ":f"])
def test_no_function_is_refused_by_name(reference: str, threads: ThreadPoolExecutor) -> None:
    with pytest.raises(TargetUnavailable, match=f"python:{reference}"):
        callables.load(reference, labels=False, timeout_s=1, threads=threads)


@pytest.mark.parametrize(
    "body", ["def answer(row:", "raise RuntimeError('broken')", "import sys\nsys.exit(0)"]
)
def test_a_module_that_fails_to_load_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, threads: ThreadPoolExecutor, body: str
) -> None:
    with pytest.raises(TargetUnavailable, match=r"SyntaxError|RuntimeError|SystemExit"):
        function(tmp_path, monkeypatch, threads, body)


def test_a_function_of_a_built_in_module_has_no_source_and_still_answers(threads: ThreadPoolExecutor) -> None:
    target = callables.load("builtins:repr", labels=False, timeout_s=1, threads=threads)
    assert "question 1" in timeless(ask(target))["text"]


def lines(path: Path, *rows: Any) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def test_recorded_answers_are_found_by_id_and_epoch(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "o.jsonl",
        {"id": "q1", "text": "first", "completion_tokens": 3},
        {"id": "q1", "epoch": 1, "text": "again", "note": "not ours"},
        "",
        {"id": 7, "error": "timeout"},
    )
    target = recorded.load(path, "chat")
    assert timeless(ask(target)) == {"text": "first", "completion_tokens": 3}
    assert timeless(ask(target, epoch=1)) == {"text": "again"}
    assert ask(target, epoch=2) == Failure("not_recorded")
    assert ask(target, Sample("7", "d7", "q")) == Failure("timeout")


def test_of_an_earlier_run_the_same_role_and_system_count_else_its_candidate(tmp_path: Path) -> None:
    path = lines(
        tmp_path / "outputs.jsonl",
        *(
            {"id": "q1", "role": role, "system": system, "scores": {"s": 1.0}, "output": {"text": text}}
            for role, system, text in (
                ("candidate", "chat", "new"),
                ("baseline", "chat", "old"),
                ("candidate", "retrieval", "found"),
            )
        ),
    )
    assert timeless(ask(recorded.load(path, "chat"))) == {"text": "new"}
    assert timeless(ask(recorded.load(path, "chat", role="baseline"))) == {"text": "old"}
    assert timeless(ask(recorded.load(path, "retrieval", role="baseline"))) == {"text": "found"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (["{"], ":1: not a JSON object with an id"),
        ([{"id": "a", "text": "x"}, ["id"]], ":2: not a JSON object with an id"),
        ([{"text": "no id"}], ":1: not a JSON object with an id"),
        ([{"id": "a", "epoch": "x"}], ":1: not a JSON object with an id"),
        ([{"id": "a", "text": 5}], ":1: not an output"),
        ([{"id": "a", "answer": "misnamed"}], ":1: not an output"),
        ([{"id": "a", "output": "text"}], ":1: not an output"),
        ([{"id": "a", "text": "x"}, {"id": "a", "text": "y"}], ":2: 'a' was recorded before"),
        ([], "no output through system chat"),
        ([{"id": "a", "system": "rag", "text": "x"}], "no output through system chat"),
    ],
)
def test_a_malformed_recording_names_the_line(tmp_path: Path, rows: list[Any], message: str) -> None:
    path = lines(tmp_path / "o.jsonl", *rows)
    with pytest.raises(TargetUnavailable) as refused:
        recorded.load(path, "chat")
    assert message in refused.value.message
    assert "misnamed" not in refused.value.message


def test_a_recording_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TargetUnavailable, match="cannot be read"):
        recorded.load(tmp_path / "missing.jsonl", "chat")


def test_a_release_answers_by_its_digest_and_another_one_ends_the_run(gateway: FakeGateway) -> None:
    gateway.releases["support@candidate"] = Release(DIGEST, lambda question: f"re {question}")

    async def go(digest: str) -> Sequence[Output] | Failure:
        async with Client(gateway.url, KEY, concurrency=2, patience=FAST) as client:
            target = GatewayTarget(ChatSystem(Options()), client, "support@candidate", digest)
            assert target.batch == 1
            assert "model" not in target.question(SAMPLE)
            return await target.answer([SAMPLE], epoch=0)

    found = timeless(asyncio.run(go(DIGEST)))
    assert found.pop("finish") == "stop"
    assert found == {"text": "re question 1", "prompt_tokens": 7, "completion_tokens": 2}
    with pytest.raises(ReleaseMoved):
        asyncio.run(go("sha256:" + "b" * 64))


def test_a_classical_release_takes_as_many_rows_as_a_call_may_carry(gateway: FakeGateway) -> None:
    gateway.releases["churn@candidate"] = Release(DIGEST, predict=lambda row: f"{row['months']:g}")
    rows = [Sample(str(i), f"e{i}", features={"months": i}, expected="No") for i in range(5)]

    async def go() -> Sequence[Output] | Failure:
        async with Client(gateway.url, KEY, concurrency=1, patience=FAST) as client:
            system = PredictionSystem(Options(features={"months": "number"}))
            target = GatewayTarget(system, client, "churn@candidate", DIGEST)
            assert target.batch > 5
            return await target.answer(rows, epoch=0)

    found = asyncio.run(go())
    assert not isinstance(found, Failure)
    assert [output.label for output in found] == ["0", "1", "2", "3", "4"]
    assert len(gateway.requests) == 1


@pytest.fixture
def endpoint() -> Iterator[FakeJudge]:
    with serve_judge(FakeJudge(say=lambda body: f"re {body['messages'][-1]['content']}")) as served:
        yield served


def at(url: str, *, first: bool = False, key: str = JUDGE_KEY) -> Sequence[Output] | Failure:
    async def go() -> Sequence[Output] | Failure:
        async with Upstream(url, key, concurrency=1, patience=FAST) as upstream:
            target = EndpointTarget(ChatSystem(Options()), upstream, "any", DIGEST)
            return await target.answer([SAMPLE], epoch=0, first=first)

    return asyncio.run(go())


def test_any_openai_compatible_server_can_be_judged(endpoint: FakeJudge) -> None:
    assert timeless(at(endpoint.url))["text"] == "re question 1"
    (body,) = endpoint.bodies
    assert body["model"] == "any"


def test_a_servers_faults_are_failures_of_samples_but_what_is_the_same_for_all_ends_the_run(
    endpoint: FakeJudge,
) -> None:
    endpoint.faults = [lambda _body: error(500, "broken")] * 2
    assert at(endpoint.url) == Failure("http_500")
    endpoint.faults = [lambda _body: error(500, "broken")] * 2
    assert at(endpoint.url, first=True) == Failure("http_500")
    assert at(endpoint.url, key="sk-wrong") == Failure("http_401")
    with pytest.raises(TargetUnavailable, match=r"http_401.*SLUICEGATE_TARGET_KEY") as refused:
        at(endpoint.url, first=True, key="sk-wrong")
    assert "sk-wrong" not in refused.value.message
    with pytest.raises(TargetUnavailable, match="connection"):
        at("http://127.0.0.1:1/v1", first=True)
