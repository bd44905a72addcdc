"""The page about fine-tuned models, followed through a real gateway: what forgets is not promoted."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.evals.fake_judge import KEY, FakeJudge, serve_judge
from tests.evals.how_to import BIN, Page

ROWS = 110
RIGHT_OF_TEN = {
    "qwen3-8b": {"tickets": 4, "knowledge": 9, "arithmetic": 8},
    "qwen3-8b-tickets": {"tickets": 9, "knowledge": 9, "arithmetic": 8},
    "qwen3-8b-forgetful": {"tickets": 9, "knowledge": 9, "arithmetic": 5},
}
QUEUES = ("billing", "delivery", "returns")


def rows_of(suite: str) -> list[dict[str, Any]]:
    """The rows of a suite; what is right follows from their number."""
    rows: list[dict[str, Any]] = []
    for number in range(ROWS):
        row: dict[str, Any] = {"id": f"{suite}-{number}", "query": f"{suite} {number}?"}
        if suite == "tickets":
            row |= {"answers": [QUEUES[number % 3]]}
        elif suite == "arithmetic":
            row |= {"answers": [f"#### {number}"]}
        else:
            row |= {"choices": ["red", "blue"], "expected": "B", "subject": f"s{number % 3}"}
        rows.append(row)
    return rows


def say(body: Any) -> str:
    """What a model knows: of every ten rows of an ability the first few."""
    suite, number = body["messages"][-1]["content"].rstrip("?").split()
    if int(number) % 10 >= RIGHT_OF_TEN[body["model"]][suite]:
        return "I do not know."
    return {"tickets": QUEUES[int(number) % 3], "knowledge": "B", "arithmetic": f"It is {number}."}[suite]


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    """The page's files, a server with the three models, and a gateway in front of it."""
    with serve_judge(FakeJudge(say)) as models:
        found = Page(
            "compare-a-fine-tuned-model", tmp_path, {"VLLM_BASE_URL": models.url, "VLLM_API_KEY": KEY}
        )
        found.write()
        (tmp_path / "data").mkdir()
        for suite in ("tickets", "knowledge", "arithmetic"):
            lines = "".join(json.dumps(row) + "\n" for row in rows_of(suite))
            (tmp_path / "data" / f"{suite}.jsonl").write_text(lines)
        (tmp_path / "data" / "train.jsonl").write_text(
            '{"prompt": "My parcel is late.", "answer": "delivery"}\n'
        )
        key = json.loads(found.bash("gateway keys create --name reader --json 2>/dev/null"))["key"]
        with subprocess.Popen(
            [BIN / "gateway", "serve", "--port", "0", "--json"],
            cwd=tmp_path,
            env=found.variables(),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        ) as gateway:
            try:
                assert gateway.stdout is not None
                url = json.loads(gateway.stdout.readline())["url"]
                found.environment = {
                    **found.environment,
                    "SLUICEGATE_EVALS__GATEWAY": url,
                    "SLUICEGATE_EVALS__CONCURRENCY": "8",
                    "SLUICEGATE_API_KEY": key,
                }
                yield found
            finally:
                gateway.terminate()


@pytest.mark.e2e
def test_a_model_that_learned_and_forgot_nothing_is_promoted_and_one_that_forgot_is_not(page: Page) -> None:
    planned = page.next()
    assert "140 samples decide it" in planned
    assert "suite assistant-tickets is valid" in planned
    assert f"0 of {ROWS} rows leaked" in planned
    assert page.next().count("PASS") == 3

    block = page.waiting[0]
    tuned = page.folder / "releases" / "assistant-tuned.yaml"
    good = tuned.read_text()
    tuned.write_text(good.replace("qwen3-8b-tickets", "qwen3-8b-forgetful"))
    every = "tickets knowledge arithmetic"
    lost = page.bash(block.replace(every, "arithmetic"), code=1)
    assert "failed: calculates no worse" in lost
    refused = page.bash("registry promote assistant@candidate --to production", code=1)
    assert "suite assistant-arithmetic says fail for this release" in refused

    tuned.write_text(good)
    unproven = page.bash(block.replace(every, "tickets"), code=1)
    assert "requires evidence from suite assistant-knowledge, assistant-arithmetic too" in unproven
    promoted = page.next()
    assert promoted.count("PASS") == 3
    (tuned_digest,) = set(re.findall(r"release assistant:3  sha256:(\w{12})", promoted))
    assert re.search(
        rf"^moved assistant@production \w+ → {tuned_digest} on 3 evidence$", promoted, re.MULTILINE
    )

    compared = page.next()
    assert "0 scores got worse, 0 got better" in compared
    assert (page.folder / "compare.html").read_text().startswith("<!")
    assert page.waiting == []
