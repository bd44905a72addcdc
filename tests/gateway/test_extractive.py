"""The extractive provider: real hashing vectors, no network."""

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gateway.errors import InvalidRequest, UnknownPath
from gateway.providers.base import Call, Ground
from gateway.providers.extractive import ABSTENTION, Answer, Support, build, compose, rank, shorten
from gateway.providers.options import ProviderOptions
from registry.errors import BadInput, MissingExtra

TOWER = Ground("paris#0", "The Eiffel Tower was finished in 1889. It stands in Paris.", 0.8)
LAKE = Ground("lake#0", "Lake Baikal is deep. It stands in Paris.", 0.3)
QUESTION = "When was the Eiffel Tower finished?"
VOCABULARY = [
    "the",
    "eiffel",
    "tower",
    "was",
    "finished",
    "in",
    "1889",
    "it",
    "stands",
    "paris",
    "lake",
    "baikal",
    "is",
    "deep",
    "when",
    "how",
    "do",
    "whales",
    "sleep",
]


def bag_of_words(texts: Sequence[str]) -> Any:
    """Unit vectors over a tiny vocabulary: a real embedder whose cosines can be worked out by hand."""
    rows = np.zeros((len(texts), len(VOCABULARY)), dtype=np.float32)
    for row, text in zip(rows, texts, strict=True):
        for word in text.lower().rstrip("?.").split():
            if word in VOCABULARY:
                row[VOCABULARY.index(word)] += 1
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms == 0, 1, norms)


def options(embed: Any = bag_of_words) -> ProviderOptions:
    return ProviderOptions(
        name="extractive",
        base_url=None,
        api_key=None,
        home=Path(),
        threads=1,
        model_digest=None,
        embed=embed,
        connect_timeout_s=1,
        first_byte_timeout_s=1,
        idle_timeout_s=1,
        total_timeout_s=1,
        max_response_bytes=1_000_000,
    )


def ask(
    body: dict[str, Any],
    *,
    model: str = "best-sentence",
    question: str | None = QUESTION,
    grounds: Sequence[Ground] = (TOWER, LAKE),
    path: str = "/v1/chat/completions",
) -> tuple[int, bytes]:
    async def run() -> tuple[int, bytes]:
        provider = build(model, options())
        await provider.start()
        data = json.dumps({"model": model, "messages": [], **body}).encode()
        reply = await provider.open(Call(path, data, bool(body.get("stream")), question, grounds))
        chunks = [chunk async for chunk in reply.chunks()]
        await reply.close()
        await provider.close()
        return reply.status, b"".join(chunks)

    return asyncio.run(run())


def completion(body: dict[str, Any], **more: Any) -> dict[str, Any]:
    status, data = ask(body, **more)
    assert status == 200
    answer: dict[str, Any] = json.loads(data)
    answer.pop("id")
    answer.pop("created")
    return answer


def events(body: dict[str, Any], **more: Any) -> list[Any]:
    _, data = ask({"stream": True, **body}, **more)
    lines = data.decode().split("\n\n")
    assert lines[-1] == ""
    assert lines[-2] == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines[:-2]]


def test_the_best_sentence_answers_and_is_cited() -> None:
    assert completion({}) == {
        "object": "chat.completion",
        "model": "best-sentence",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "The Eiffel Tower was finished in 1889.",
                    "refusal": None,
                    "citations": [{"passage_id": "paris#0", "score": 0.7715}],
                },
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 30, "completion_tokens": 8, "total_tokens": 38},
    }


def test_it_abstains_when_nothing_is_close_enough() -> None:
    answer = completion({}, question="How do whales sleep?")
    assert answer["choices"][0]["message"] == {
        "role": "assistant",
        "content": ABSTENTION,
        "refusal": None,
        "citations": [],
    }
    assert answer["choices"][0]["finish_reason"] == "stop"


def test_it_abstains_when_nothing_was_found() -> None:
    assert completion({}, grounds=())["choices"][0]["message"]["content"] == ABSTENTION


def test_the_request_sets_the_threshold() -> None:
    answer = completion({"abstain_below": 0.9})
    assert answer["choices"][0]["message"]["content"] == ABSTENTION


def test_a_release_without_an_index_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="needs an index") as caught:
        ask({}, question=None, grounds=())
    assert caught.value.param == "model"


@pytest.mark.parametrize(
    ("field", "value"), [("n", 0), ("max_tokens", 0), ("abstain_below", 1.5), ("max_completion_tokens", -1)]
)
def test_a_field_out_of_range_is_named(field: str, value: float) -> None:
    with pytest.raises(InvalidRequest, match=field) as caught:
        ask({field: value})
    assert caught.value.param == field


def test_a_field_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"\$\.stop"):
        ask({"stop": 5})


def test_only_chat_completions_are_answered() -> None:
    with pytest.raises(UnknownPath, match="/v1/embeddings"):
        ask({}, path="/v1/embeddings")


def test_n_choices_are_equal_and_all_counted() -> None:
    answer = completion({"n": 2})
    first, second = answer["choices"]
    assert (first["index"], second["index"]) == (0, 1)
    assert first["message"] == second["message"]
    assert answer["usage"]["completion_tokens"] == 16


def test_max_tokens_cuts_and_says_so() -> None:
    choice = completion({"max_tokens": 3})["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The Eiffel Tower", "length")


def test_the_earliest_stop_cuts() -> None:
    choice = completion({"stop": ["1889", "was"]})["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("The Eiffel Tower", "stop")


def test_a_stream_says_what_the_whole_answer_says() -> None:
    parts = events({"stream_options": {"include_usage": True}, "n": 2})
    whole = completion({"n": 2})
    text = {0: "", 1: ""}
    reasons: dict[int, list[str | None]] = {0: [], 1: []}
    for part in parts[:-1]:
        assert part["usage"] is None
        [choice] = part["choices"]
        text[choice["index"]] += choice["delta"].get("content", "")
        reasons[choice["index"]].append(choice["finish_reason"])
    assert text == {c["index"]: c["message"]["content"] for c in whole["choices"]}
    assert reasons == {0: [None, None, None, "stop"], 1: [None, None, None, "stop"]}
    assert parts[0]["choices"][0]["delta"] == {
        "role": "assistant",
        "content": "",
        "citations": whole["choices"][0]["message"]["citations"],
    }
    assert (parts[-1]["choices"], parts[-1]["usage"]) == ([], whole["usage"])
    assert len({part["id"] for part in parts}) == 1


def test_usage_is_streamed_only_when_asked_for() -> None:
    assert all("usage" not in part for part in events({}))


def test_a_closed_stream_sends_nothing_more() -> None:
    async def run() -> list[bytes]:
        provider = build("best-sentence", options())
        body = json.dumps({"model": "m", "stream": True}).encode()
        reply = await provider.open(Call("/v1/chat/completions", body, True, QUESTION, (TOWER,)))
        seen = []
        async for chunk in reply.chunks():
            seen.append(chunk)
            await reply.close()
        await provider.close()
        return seen

    assert len(asyncio.run(run())) == 1


def test_best_3_joins_sentences_that_reach_the_threshold() -> None:
    message = completion({"abstain_below": 0.1}, model="best-3")["choices"][0]["message"]
    assert message["content"] == "The Eiffel Tower was finished in 1889."
    ranked = [Support("a", "A.", 0.9), Support("b", "B.", 0.8), Support("c", "C.", 0.2)]
    assert compose(ranked, 3, 0.5) == Answer("A. B.", (ranked[0], ranked[1]), "stop")


def test_a_sentence_in_two_passages_counts_once_for_the_first() -> None:
    ranked = rank("It stands in Paris", (TOWER, LAKE), bag_of_words)
    assert [(s.passage_id, s.text, s.score) for s in ranked if s.score == 1] == [
        ("paris#0", "It stands in Paris.", 1.0)
    ]
    assert len(ranked) == 3


def test_shortening_to_nothing_leaves_an_empty_answer() -> None:
    assert shorten(Answer("Yes.", (), "stop"), None, ["Yes"]) == Answer("", (), "stop")


def test_an_unknown_model_offers_the_nearest() -> None:
    with pytest.raises(BadInput, match="did you mean 'best-sentence'"):
        build("best-sentense", options())


def test_no_embedder_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match=r"sluicegate\[rag\]"):
        build("best-3", options(embed=None))
