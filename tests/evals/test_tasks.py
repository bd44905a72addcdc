from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_curve

from evals.dataset import Sample
from evals.errors import ScoreFailed
from evals.metrics import guard, tasks, tools
from evals.systems.base import Output, ToolCall
from registry.errors import BadInput

DATA = Path(__file__).parent / "data"


def rows(name: str) -> list[Any]:
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def test_the_grader_agrees_with_the_labels_of_real_solutions() -> None:
    found = []
    for row in rows("gsm8k_solutions.jsonl"):
        sample = Sample(row["id"], "d", answers=(row["truth"],))
        assert tasks.gsm8k.score is not None
        found.append(tasks.gsm8k.score(sample, Output(1.0, row["solution"]), None) == row["is_correct"])
    assert len(found) == 120
    assert sum(found) / len(found) >= 0.99


@pytest.mark.parametrize(
    "form", ["{letter}", "({letter})", "The answer is {letter}.", "**{letter}. {text}**", "{text}"]
)
def test_real_choices_are_read_in_every_usual_form(form: str) -> None:
    read = []
    for row in rows("mmlu.jsonl"):
        letter = "ABCD"[row["answer"]]
        text = form.format(letter=letter, text=row["choices"][row["answer"]])
        sample = Sample(row["id"], "d", expected=str(row["answer"]), extra={"choices": row["choices"]})
        assert tasks.choice.score is not None
        read.append(tasks.choice.score(sample, Output(1.0, text), None))
        wrong = form.format(letter="ABCD"[row["answer"] - 1], text=row["choices"][row["answer"] - 1])
        assert tasks.choice.score(sample, Output(1.0, wrong), None) == 0.0
    assert sum(read) / len(read) >= (0.8 if form == "{text}" else 1.0)


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("A", "A"),
        ("b)", "B"),
        ("Answer: C", "C"),
        ("I would say the answer is A or rather the answer is B", None),
        ("A dog is an animal", "A"),
        ("", None),
        ("None of them", None),
        ("both red and blue", None),
        ("E", None),
    ],
)
def test_an_answer_that_names_no_single_choice_names_none(text: str, letter: str | None) -> None:
    assert tasks.chosen_letter(text, ["red", "blue", "green", "grey"]) == letter


def calls(*made: tuple[str, str]) -> Output:
    return Output(1.0, tool_calls=tuple(ToolCall(name, arguments) for name, arguments in made))


WEATHER = [{"name": "weather", "arguments": {"city": "Rome", "days": 2}}]
TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "weather",
            "parameters": {
                "type": "object",
                "properties": {"city": {"type": "string"}},
                "required": ["city"],
            },
        },
    }
]


@pytest.mark.parametrize(
    ("output", "exact", "names", "arguments", "valid"),
    [
        (calls(("weather", '{"days": 2, "city": "Rome"}')), 1.0, 1.0, 1.0, 1.0),
        (calls(("weather", '{"city": "Rome", "days": 3}')), 0.0, 1.0, 0.5, 1.0),
        (calls(("weather", '{"days": 2}')), 0.0, 1.0, 0.5, 0.0),
        (calls(("weather", '{"city"')), 0.0, 1.0, 0.0, 0.0),
        (calls(("search", "{}")), 0.0, 0.0, 0.0, 0.0),
        (calls(), 0.0, 0.0, 0.0, 1.0),
    ],
)
def test_calls_are_compared_as_json(
    output: Output, exact: float, names: float, arguments: float, valid: float
) -> None:
    sample = Sample("1", "d", extra={"tool_calls": WEATHER, "tools": TOOLS})
    metrics = (tools.tool_call_exact({}), tools.tool_name_f1, tools.tool_arguments, tools.tool_call_valid)
    found = [metric.score(sample, output, None) for metric in metrics if metric.score is not None]
    assert found == [exact, names, arguments, valid]


def test_a_row_may_expect_no_call() -> None:
    sample = Sample("1", "d", extra={"tool_calls": []})
    metric = tools.tool_call_exact({"ordered": True})
    assert metric.score is not None
    assert [metric.score(sample, output, None) for output in (calls(), calls(("f", "{}")))] == [1.0, 0.0]
    with pytest.raises(ScoreFailed):
        metric.score(Sample("1", "d", extra={"tool_calls": [{"arguments": 1}]}), calls(), None)


risks = st.lists(
    st.tuples(st.booleans(), st.sampled_from([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])), min_size=2, max_size=80
)


@given(risks, st.sampled_from([0.0, 0.05, 0.2]))
def test_recall_at_a_false_positive_rate_is_read_off_the_roc_curve(
    items: list[tuple[bool, float]], fpr: float
) -> None:
    truth = [a for a, _ in items]
    if len(set(truth)) < 2:
        return
    counts: dict[tuple[bool, float], int] = {}
    for item in items:
        counts[item] = counts.get(item, 0) + 1
    false, true, _ = roc_curve(truth, [b for _, b in items], drop_intermediate=False)
    expected = max(t for f, t in zip(false, true, strict=True) if f <= fpr + 1e-9)
    assert guard.recall_at_fpr(counts, fpr) == pytest.approx(expected)


def test_a_guard_is_judged_by_its_own_word_and_by_its_label() -> None:
    attack = Sample("1", "d", expected="attack", extra={"group": "plain"})
    harmless = Sample("2", "d", expected="benign", extra={"group": "lookalike"})
    stopped, passed = Output(1.0, flagged=True, risk=0.9), Output(1.0, label="benign", risk=0.1)

    def value(metric: Any, *pairs: tuple[Sample, Output | None]) -> float:
        counts: dict[Any, int] = {}
        for sample, output in pairs:
            item = metric.item(sample, output)
            counts[item] = counts.get(item, 0) + 1
        return float(metric.compute(counts))

    both = ((attack, stopped), (attack, passed), (harmless, stopped), (harmless, passed), (harmless, passed))
    assert value(guard.guard_detection({}), *both) == 0.5
    assert value(guard.guard_fpr({}), *both) == pytest.approx(1 / 3)
    assert value(guard.over_defence({}), *both) == pytest.approx(1 / 3)
    assert value(guard.guard_recall({"fpr": 0.5}), *both) == 0.5
    assert value(guard.guard_fpr({}), (harmless, None)) == 1.0
    with pytest.raises(ScoreFailed):
        guard.guard_fpr({}).item(harmless, Output(1.0))
    with pytest.raises(BadInput, match="fpr"):
        guard.guard_recall({"fpr": 2})
