from __future__ import annotations

from typing import Any

import pytest

from evals.dataset import Sample
from evals.errors import BadAnswer, BadDataset
from evals.systems.base import Call, Options, Output
from evals.systems.chat import ChatSystem
from evals.systems.prediction import PredictionSystem
from evals.systems.retrieval import RetrievalSystem
from registry.entities import ReleaseContent

SAMPLE = Sample("1", "d", query="why?")
ROWS = [
    Sample("1", "d", features={"plan": "basic", "months": 3}),
    Sample("2", "e", features={"plan": None, "months": None, "extra": 1.5}),
]
TYPES = {"plan": "text", "months": "number"}


def test_chat_sends_the_question_and_nothing_else() -> None:
    expected = Call(
        "/v1/chat/completions", {"model": "s@candidate", "messages": [{"role": "user", "content": "why?"}]}
    )
    assert ChatSystem(Options()).call("s@candidate", [SAMPLE]) == expected


@pytest.mark.parametrize(
    ("body", "output"),
    [
        ({"choices": [{"message": {"content": "so"}}]}, Output(5.0, "so")),
        ({"choices": [{"message": {"content": None}}], "usage": None}, Output(5.0, "")),
        (
            {
                "choices": [{"message": {"content": "so"}}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 1},
            },
            Output(5.0, "so", prompt_tokens=3, completion_tokens=1),
        ),
    ],
)
def test_chat_reads_text_and_usage(body: Any, output: Output) -> None:
    assert ChatSystem(Options()).read(body, [SAMPLE], 5.0) == [output]


def test_search_asks_for_more_passages_than_documents() -> None:
    system = RetrievalSystem(Options(depth=3))
    expected = Call("/v1/vector_stores/s@candidate/search", {"query": "why?", "max_num_results": 15})
    assert system.call("s@candidate", [SAMPLE]) == expected
    assert RetrievalSystem(Options(depth=40)).results == 50


def test_search_counts_a_document_once_in_the_order_found() -> None:
    body = {"data": [{"file_id": name} for name in "abacb"]}
    assert RetrievalSystem(Options()).read(body, [SAMPLE], 1.0) == [Output(1.0, documents=("a", "b", "c"))]


def test_rows_become_one_tensor_a_feature() -> None:
    call = PredictionSystem(Options(features=TYPES)).call("c@production", ROWS)
    assert call == Call(
        "/v2/models/c@production/infer",
        {
            "inputs": [
                {"name": "plan", "shape": [2], "datatype": "BYTES", "data": ["basic", None]},
                {"name": "months", "shape": [2], "datatype": "FP64", "data": [3, None]},
                {"name": "extra", "shape": [2], "datatype": "FP64", "data": [None, 1.5]},
            ]
        },
    )


def test_the_models_types_decide_how_a_number_is_sent() -> None:
    system = PredictionSystem(Options(features={"plan": "text"}))
    (tensor,) = system.call("c", [Sample("1", "d", features={"plan": 1})]).body["inputs"]
    assert tensor == {"name": "plan", "shape": [1], "datatype": "BYTES", "data": ["1"]}
    with pytest.raises(BadDataset, match="the model takes number"):
        PredictionSystem(Options(features={"plan": "number"})).call("c", ROWS)


@pytest.mark.parametrize("nested", [True, False])
def test_labels_and_probabilities_are_split_by_row(nested: bool) -> None:
    shares: list[Any] = [[0.9, 0.1], [0.2, 0.8]] if nested else [0.9, 0.1, 0.2, 0.8]
    body = {"outputs": [{"name": "probability", "data": shares}, {"name": "label", "data": ["No", "Yes"]}]}
    assert PredictionSystem(Options()).read(body, ROWS, 2.0) == [
        Output(2.0, label="No", probabilities=(0.9, 0.1)),
        Output(2.0, label="Yes", probabilities=(0.2, 0.8)),
    ]


@pytest.mark.parametrize(
    ("system", "body"),
    [
        (ChatSystem, {"choices": []}),
        (ChatSystem, {"choices": [{"message": "x"}]}),
        (ChatSystem, ["x"]),
        (RetrievalSystem, {"data": {}}),
        (RetrievalSystem, {"data": [{"file_id": 1}]}),
        (PredictionSystem, {"outputs": []}),
        (PredictionSystem, {"outputs": [{"name": "label", "data": ["a", "b"]}]}),
        (PredictionSystem, {"outputs": [{"name": "label", "data": [1]}]}),
        (
            PredictionSystem,
            {"outputs": [{"name": "label", "data": ["a"]}, {"name": "probability", "data": ["x"]}]},
        ),
    ],
)
def test_another_shape_is_a_bad_answer(system: Any, body: Any) -> None:
    with pytest.raises(BadAnswer):
        system(Options()).read(body, [SAMPLE], 1.0)


def test_a_system_knows_which_releases_it_suits() -> None:
    chat = ReleaseContent(kind="chat", name="s", model="openai/x", prompt="p")
    model = ReleaseContent(kind="prediction", name="c", model="models/c", model_digest="d")
    found = [
        [system(Options()).suits(release) is None for release in (chat, model)]
        for system in (ChatSystem, RetrievalSystem, PredictionSystem)
    ]
    assert found == [[True, False], [False, False], [False, True]]
