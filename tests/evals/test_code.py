from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics import code
from evals.metrics.base import Metric
from evals.systems.base import Output
from registry.errors import BadInput

DATA = Path(__file__).parent / "data" / "humaneval.jsonl"
TASKS = [json.loads(line) for line in DATA.read_text().splitlines()]


@pytest.fixture
def humaneval(monkeypatch: pytest.MonkeyPatch) -> Metric:
    monkeypatch.setenv(code.SWITCH, "1")
    return code.humaneval({"execute": True, "seconds": 3.0, "memory_mb": 256})


def score(metric: Metric, task: Any, text: str) -> float:
    assert metric.score is not None
    return metric.score(Sample(task["task_id"], "d", extra=task), Output(1.0, text), None)


@pytest.mark.parametrize("task", TASKS, ids=[task["task_id"] for task in TASKS])
def test_real_solutions_pass_and_broken_ones_fail(humaneval: Metric, task: Any) -> None:
    body = task["canonical_solution"]
    fenced = f"Here it is:\n\n```python\n{task['prompt']}{body}\n```\nIt loops."
    found = [score(humaneval, task, text) for text in (body, fenced, "    return None\n")]
    assert found == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    "text",
    ["", "I cannot write this.", "    raise SystemExit(0)", "    import os; os._exit(0)", "```python\n```"],
)
def test_answers_that_run_no_test_to_its_end_fail(humaneval: Metric, text: str) -> None:
    assert score(humaneval, TASKS[0], text) == 0.0


def test_a_whole_function_keeps_the_imports_of_its_prompt() -> None:
    prompt = "from typing import List\n\ndef first(x: List[int]) -> int:\n    '''doc'''\n"
    answer = "```\npip install x\n```\nand\n```py\ndef first(x: List[int]) -> int:\n    return x[0]\n```"
    assert code.program(answer, prompt, "first") == (
        "from typing import List\n\n\ndef first(x: List[int]) -> int:\n    return x[0]\n"
    )


@pytest.mark.parametrize(
    ("options", "switch"), [({}, "1"), ({"execute": True}, ""), ({"execute": True}, "yes")]
)
def test_nothing_runs_unless_options_and_environment_allow_it(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], switch: str
) -> None:
    monkeypatch.setenv(code.SWITCH, switch)
    with pytest.raises(BadInput, match=r"execute: true.*SLUICEGATE_EXECUTE_CODE=1"):
        code.humaneval(options)


def test_bad_limits_are_refused_before_the_first_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(code.SWITCH, "1")
    with pytest.raises(BadInput, match="memory_mb is 1"):
        code.humaneval({"execute": True, "memory_mb": 1})


@pytest.mark.parametrize("change", [{"entry_point": "f(); g"}, {"test": 3}, {"prompt": None}])
def test_a_malformed_task_is_an_error_and_no_score(humaneval: Metric, change: dict[str, Any]) -> None:
    with pytest.raises(ScoreFailed) as caught:
        score(humaneval, {**TASKS[0], **change}, "")
    assert caught.value.kind == "bad_task"


def test_a_program_too_long_to_run_is_an_error_and_no_score(humaneval: Metric) -> None:
    with pytest.raises(ScoreFailed) as caught:
        score(humaneval, TASKS[0], "#" * 1_000_001)
    assert caught.value.kind == "not_run"
